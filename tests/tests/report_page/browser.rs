//! Chromium without a window and without a network.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A browser with a profile of its own, which goes with it.
pub struct Browser {
    program: PathBuf,
    dir: TempDir,
}

impl Browser {
    /// `None` if there is none on this host, which is said.
    pub fn find() -> Option<Browser> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program = std::env::split_paths(&path)
            .map(|dir| dir.join("chromium"))
            .find(|program| program.is_file());
        if program.is_none() {
            println!("skipped: there is no chromium here; tests/lab/deps.sh chromium installs it");
        }
        Some(Browser {
            program: program?,
            dir: tempfile::tempdir().unwrap(),
        })
    }

    /// Looks at a file, and ends. The program `timeout` sees to it that it does.
    fn run(&self, page: &Path, args: &[&str]) -> Vec<u8> {
        let profile = self.dir.path().join("profile");
        let out = Command::new("timeout")
            .args(["--kill-after=10", "180"])
            .arg(&self.program)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
            ])
            .args(["--no-first-run", "--disable-background-networking"])
            .args([
                "--disable-component-update",
                "--disable-sync",
                "--disable-dev-shm-usage",
            ])
            .args(["--host-resolver-rules=MAP * ~NOTFOUND", "--hide-scrollbars"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .args(args)
            .arg(format!("file://{}", page.display()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{}: {said}", out.status);
        out.stdout
    }

    /// What `script` finds out about a page that is shown `width` pixels wide: it gets the page's window as `w` and
    /// document as `d`. The page is in a frame, so that nothing of it is changed, not even its policy for scripts.
    pub fn ask(&self, html: &str, width: u32, script: &str) -> Value {
        let text = Value::from(html).to_string().replace('<', "\\u003c");
        let harness = format!(
            "<!DOCTYPE html><body><pre id=answer></pre><iframe id=f style='border:0;width:{width}px;height:844px'></iframe>\
             <script>const f = document.getElementById('f');\
             f.onload = () => {{ const w = f.contentWindow, d = f.contentDocument;\
             const answer = (() => {{ {script} }})();\
             document.getElementById('answer').textContent = JSON.stringify(answer); }};\
             f.srcdoc = {text};</script>"
        );
        let path = self.dir.path().join("harness.html");
        std::fs::write(&path, harness).unwrap();
        let dom = self.run(
            &path,
            &[
                "--dump-dom",
                "--virtual-time-budget=10000",
                "--window-size=1600,1000",
            ],
        );
        let dom = String::from_utf8(dom).unwrap();
        let (_, rest) = dom.split_once("<pre id=\"answer\">").unwrap();
        let (answer, _) = rest.split_once("</pre>").unwrap();
        let answer = answer
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&amp;", "&");
        serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{e}: {answer}"))
    }

    /// The pixels of a page as a phone shows it that is `width` pixels wide, which is less than a window can be: in a
    /// frame, with the rest of the window beside it.
    pub fn phone(&self, page: &Path, [width, height]: [u32; 2], dark: bool) -> Vec<u8> {
        let path = self.dir.path().join("phone.html");
        let frame = format!(
            "<!DOCTYPE html><meta name=color-scheme content='light dark'><body style='margin:0'>\
             <iframe src='file://{}' style='border:0;width:{width}px;height:{height}px'></iframe>",
            page.display()
        );
        std::fs::write(&path, frame).unwrap();
        let wide = 800;
        let pixels = self.picture(&path, [wide, height], dark);
        let rows = pixels.chunks(3 * wide as usize);
        rows.flat_map(|row| row[..3 * width as usize].to_vec())
            .collect()
    }

    /// The pixels of a page, three bytes each.
    pub fn picture(&self, page: &Path, [width, height]: [u32; 2], dark: bool) -> Vec<u8> {
        let path = self.dir.path().join("picture.png");
        let mut args = vec![
            format!("--screenshot={}", path.display()),
            format!("--window-size={width},{height}"),
        ];
        if dark {
            args.push("--blink-settings=preferredColorScheme=0".into());
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.run(page, &args);
        let mut decoder = png::Decoder::new(std::io::Cursor::new(std::fs::read(&path).unwrap()));
        decoder.set_transformations(png::Transformations::EXPAND);
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        let each = info.color_type.samples();
        pixels.chunks(each).flat_map(|p| p[..3].to_vec()).collect()
    }
}
