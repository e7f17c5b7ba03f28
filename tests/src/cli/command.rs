//! One run of the program: its arguments, its end, and what it said.

use super::binary;
use crate::sshd::Sshd;
use rustix::process::{kill_process, Pid, Signal};
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// No run in these tests may take longer: it would hang.
const TIME_MAX: Duration = Duration::from_secs(90);

/// A command line in the making.
pub struct Rblocksync {
    args: Vec<OsString>,
    dir: Option<PathBuf>,
}

/// `rblocksync` with these arguments.
pub fn rblocksync<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Rblocksync {
    Rblocksync {
        args: args.into_iter().map(|a| a.as_ref().to_owned()).collect(),
        dir: None,
    }
}

impl Rblocksync {
    /// `rblocksync SRC DST`.
    pub fn sync(src: impl AsRef<OsStr>, dst: impl AsRef<OsStr>) -> Rblocksync {
        rblocksync([src.as_ref(), dst.as_ref()])
    }

    /// Adds options, separated by spaces.
    pub fn with(mut self, options: &str) -> Rblocksync {
        let options: Vec<OsString> = options.split_whitespace().map(OsString::from).collect();
        self.args.splice(0..0, options);
        self
    }

    /// Reaches all hosts through this server.
    pub fn over(mut self, sshd: &Sshd) -> Rblocksync {
        let options = ["--ssh-config".into(), sshd.client_config().into()];
        self.args.splice(0..0, options);
        self
    }

    /// Runs in this directory.
    pub fn within(mut self, dir: impl Into<PathBuf>) -> Rblocksync {
        self.dir = Some(dir.into());
        self
    }

    /// Starts it.
    pub fn start(self) -> Running {
        let mut command = Command::new(binary());
        command
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        let mut child = command.spawn().expect("rblocksync");
        let stdout = Output::of(child.stdout.take().expect("piped"));
        let stderr = Output::of(child.stderr.take().expect("piped"));
        Running {
            child: Some(child),
            args: self.args,
            began: Instant::now(),
            stdout,
            stderr,
        }
    }

    /// Runs it to its end.
    pub fn run(self) -> Outcome {
        self.start().finish()
    }
}

/// What a stream has said so far.
struct Output {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Output {
    fn of(mut stream: impl Read + Send + 'static) -> Output {
        let text = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = stream.read(&mut chunk) {
                into.lock().expect("output").extend_from_slice(&chunk[..n]);
            }
        });
        Output {
            text,
            reader: Some(reader),
        }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().expect("output")).into_owned()
    }

    fn all(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("output");
        }
        self.so_far()
    }
}

/// A run that goes on. Dropped, it is killed.
pub struct Running {
    child: Option<Child>,
    args: Vec<OsString>,
    began: Instant,
    stdout: Output,
    stderr: Output,
}

impl Running {
    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("running"))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a running process");
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.so_far()
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Outcome {
        let mut child = self.child.take().expect("running");
        let deadline = Instant::now() + TIME_MAX;
        let status = loop {
            if let Some(status) = child.try_wait().expect("wait") {
                break status;
            }
            if Instant::now() > deadline {
                let killed = child.kill().and_then(|()| child.wait());
                panic!("{:?} hangs ({killed:?}): {}", self.args, self.stderr.all());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        Outcome {
            what: format!("rblocksync {:?}", self.args),
            code: status
                .code()
                .unwrap_or_else(|| 1000 + status.signal().unwrap_or(0)),
            took: self.began.elapsed(),
            stdout: self.stdout.all(),
            stderr: self.stderr.all(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// What was run, for messages.
    pub what: String,
    /// Exit code, or 1000 and the signal that killed it.
    pub code: i32,
    /// From start to end.
    pub took: Duration,
    /// All of standard output.
    pub stdout: String,
    /// All of standard error.
    pub stderr: String,
}

impl Outcome {
    /// It must have succeeded, and said nothing on standard error.
    #[track_caller]
    pub fn ok(self) -> Outcome {
        assert!(self.code == 0 && self.stderr.is_empty(), "{self:#?}");
        self
    }

    /// It must have failed with this exit code and all of these words on standard error, on one line or
    /// two (with a hint), without control characters.
    #[track_caller]
    pub fn refused(self, code: i32, words: &[&str]) -> Outcome {
        assert_eq!(self.code, code, "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?}: {self:#?}");
        }
        let lines: Vec<&str> = self.stderr.lines().collect();
        let control = |line: &&str| line.contains(|c: char| c.is_control());
        assert!(
            (1..=2).contains(&lines.len())
                && lines.iter().all(|l| l.starts_with("rblocksync: "))
                && !lines.iter().any(control),
            "{self:#?}"
        );
        self
    }

    /// The JSON objects on standard output, one a line.
    #[track_caller]
    pub fn events(&self) -> Vec<serde_json::Value> {
        let parse = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line:?} of {self:#?}"))
        };
        self.stdout.lines().map(parse).collect()
    }

    /// The figures of the summary: the run must have been given `--json` and have succeeded.
    #[track_caller]
    pub fn summary(self) -> Summary {
        let run = self.ok();
        let events = run.events();
        let last = events.last().unwrap_or_else(|| panic!("{run:#?}"));
        assert_eq!(last["event"], "summary", "{run:#?}");
        Summary(last["summary"].clone())
    }
}

/// The figures of a summary event.
pub struct Summary(pub serde_json::Value);

impl Summary {
    /// One of them, in bytes, by its path: "changed", "target.written".
    #[track_caller]
    pub fn bytes(&self, path: &str) -> u64 {
        let found = path.split('.').fold(&self.0, |value, key| &value[key]);
        found
            .as_u64()
            .unwrap_or_else(|| panic!("no {path} in {}", self.0))
    }

    /// Bytes on the wire in both directions.
    #[track_caller]
    pub fn wire(&self) -> u64 {
        self.bytes("wire_out") + self.bytes("wire_in")
    }
}
