//! The world through `pvesh`: a script stands in for it, and the test answers for the script.

use super::world::{Request, World};
use pvesync::api::Pvesh;
use rustix::fs::{mknodat, FileType, Mode, CWD};
use serde_json::Value;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

pub struct Shell {
    pub world: Arc<World>,
    dir: tempfile::TempDir,
}

impl Shell {
    pub fn start() -> Shell {
        let dir = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pvesh");
        // A link, and no copy: a script that was just written cannot be run while anybody else starts a process.
        symlink(script, dir.path().join("pvesh")).unwrap();
        for name in ["args", "answer"] {
            let mode = Mode::RUSR | Mode::WUSR;
            mknodat(CWD, dir.path().join(name), FileType::Fifo, mode, 0).unwrap();
        }
        let world = Arc::new(World::new());
        let (path, played) = (dir.path().to_owned(), Arc::clone(&world));
        std::thread::spawn(move || while play(&path, &played).is_some() {});
        Shell { world, dir }
    }

    pub fn client(&self) -> Pvesh {
        Pvesh::stand_in(self.dir.path().join("pvesh"))
    }
}

/// Answers one call. Ends when the directory is gone.
fn play(dir: &Path, world: &World) -> Option<()> {
    let mut args = Vec::new();
    File::open(dir.join("args"))
        .ok()?
        .read_to_end(&mut args)
        .ok()?;
    let args = String::from_utf8(args).unwrap();
    let args: Vec<&str> = args.split_terminator('\0').collect();
    let answer = world.handle(&request(&args));
    let (stdout, stderr, code) = match (answer.status, &answer.data) {
        (200, Value::Null) => (String::new(), String::new(), 0),
        // The log comes first, and the task is over when pvesh is.
        (200, Value::String(upid)) if upid.starts_with("UPID:") => {
            (format!("some log\n\"{upid}\"\n"), "WARN: x\n".to_owned(), 0)
        }
        (200, data) => (format!("{data}\n"), String::new(), 0),
        (400, _) => {
            let mut said = format!("400 {}\n", answer.message);
            for (name, why) in &answer.errors {
                said.push_str(&format!("{name}: {why}\n"));
            }
            said.push_str("\npvesh create <api_path> [OPTIONS] [FORMAT_OPTIONS]\n");
            (String::new(), said, 2)
        }
        (_, _) => (String::new(), format!("{}\n", answer.message), 2),
    };
    fs::write(dir.join("stderr"), stderr).ok()?;
    fs::write(dir.join("code"), code.to_string()).ok()?;
    let mut out = OpenOptions::new()
        .write(true)
        .open(dir.join("answer"))
        .ok()?;
    out.write_all(stdout.as_bytes()).ok()
}

/// What pvesh was called for; anything that it would not understand fails the test.
fn request(args: &[&str]) -> Request {
    let [verb, path, options @ ..] = args else {
        panic!("pvesh was called with {args:?}");
    };
    let (params, format) = options.split_at(options.len() - 2);
    assert_eq!(format, ["--output-format", "json"]);
    let method = match *verb {
        "get" => "GET",
        "create" => "POST",
        "set" => "PUT",
        "delete" => "DELETE",
        other => panic!("pvesh has no {other}"),
    };
    let params = params.iter().map(|option| {
        let (name, value) = option.strip_prefix("--").unwrap().split_once('=').unwrap();
        (name.to_owned(), value.to_owned())
    });
    Request {
        method: method.to_owned(),
        path: (*path).to_owned(),
        params: params.collect(),
        token: None,
    }
}
