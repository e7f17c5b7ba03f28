//! A session on a terminal, recorded, as a picture: text stays text, and the colours follow the reader's.

use crate::cli::{binary, shown_on, terminal};
use std::error::Error;
use std::fmt::Write;
use std::process::{Command, Stdio};

/// The session: what is typed. The first two only make something to copy.
const TYPED: [&str; 7] = [
    "truncate -s 1G vm.img; dd if=/dev/urandom of=vm.img bs=1M count=40 seek=100 conv=notrunc status=none",
    "rblocksync --truncate vm.img copy.img                # a copy, as sparse as the image",
    "dd if=/dev/urandom of=vm.img bs=4k count=10 seek=30000 conv=notrunc status=none",
    "fallocate --punch-hole --offset 120M --length 8M vm.img",
    "rblocksync --dry-run vm.img copy.img                 # what would be sent?",
    "rblocksync vm.img copy.img                           # changed blocks only",
    "rblocksync vm.img copy.img                           # once more",
];

/// Columns of the terminal.
const COLUMNS: u16 = 104;
/// Width of a character and height of a line in the picture.
const CELL: (f64, usize) = (8.4, 19);

/// A line of the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Whether it was typed.
    pub typed: bool,
    /// The line, without the prompt.
    pub text: String,
}

/// Carries the session out in a directory of its own.
pub fn session() -> Result<Vec<Line>, Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let program = binary().parent().ok_or("the program has no directory")?;
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", program.display());
    let mut lines = Vec::new();
    for typed in TYPED {
        lines.push(Line {
            typed: true,
            text: typed.to_owned(),
        });
        let (theirs, ours) = terminal(Some(COLUMNS));
        let shown = shown_on(ours);
        let mut bash = Command::new("bash");
        bash.args(["-c", typed])
            .current_dir(dir.path())
            .env("PATH", &path)
            .env("LANG", "C.UTF-8")
            .env("NO_COLOR", "1")
            .env("RBLOCKSYNC_PROGRESS", "never")
            .env("RBLOCKSYNC_CONFIG", "/dev/null")
            .stdin(Stdio::null())
            .stderr(theirs.try_clone()?)
            .stdout(theirs);
        let status = bash.status()?;
        // It has our copies of the terminal's other end.
        drop(bash);
        let shown = shown.join().map_err(|_| "the terminal cannot be read")?;
        if !status.success() {
            return Err(format!("{typed}: {status}: {shown}").into());
        }
        lines.extend(shown.lines().map(|line| Line {
            typed: false,
            text: line.trim_end().to_owned(),
        }));
    }
    Ok(lines)
}

/// The session as SVG that needs nothing else.
pub fn svg(lines: &[Line]) -> String {
    let (width, height) = (
        f64::from(COLUMNS) * CELL.0 + 32.0,
        lines.len() * CELL.1 + 32,
    );
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height}\" width=\"{width:.0}\" \
         height=\"{height}\" role=\"img\">\n<title>rblocksync copies an image, and then only what has changed</title>\n\
         <style>text{{font:14px ui-monospace,monospace;white-space:pre;fill:#24292f}}.typed{{font-weight:600}}\
         .paper{{fill:#f6f8fa}}@media(prefers-color-scheme:dark){{text{{fill:#c9d1d9}}.paper{{fill:#161b22}}}}</style>\n\
         <rect class=\"paper\" width=\"100%\" height=\"100%\" rx=\"6\"/>\n"
    );
    for (at, line) in lines.iter().enumerate() {
        let (prompt, class) = match line.typed {
            true => ("$ ", " class=\"typed\""),
            false => ("", ""),
        };
        let text = format!("{prompt}{}", line.text);
        // The same columns whatever the font.
        let length = text.chars().count() as f64 * CELL.0;
        let y = 16 + (at + 1) * CELL.1 - 5;
        let text = escaped(&text);
        // Writing to a string does not fail.
        let _ = writeln!(
            svg,
            "<text{class} x=\"16\" y=\"{y}\" textLength=\"{length:.1}\" xml:space=\"preserve\">{text}</text>"
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// A picture without its numbers: times differ from run to run, and with them the length of a line.
pub fn shape(svg: &str) -> Vec<String> {
    let texts = svg.lines().filter(|line| line.starts_with("<text"));
    texts
        .map(|line| {
            let (_, text) = line.split_once('>').unwrap_or(("", line));
            let words = text.split(|c: char| c.is_ascii_digit() || c == '.');
            words
                .filter(|word| !word.is_empty())
                .collect::<Vec<_>>()
                .join("0")
        })
        .collect()
}
