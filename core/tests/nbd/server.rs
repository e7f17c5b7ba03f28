//! Real servers, each in a directory of its own, which end with the test.

use rblocksync::image::{NbdImage, NbdOptions};
use rblocksync::nbd::{Client, Options};
use rustix::process::{kill_process, Pid, Signal};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take on a busy host.
pub const LONG: Duration = Duration::from_secs(60);

pub struct Server {
    child: Child,
    socket: PathBuf,
}

impl Server {
    /// `qemu-nbd` with these arguments.
    pub fn qemu(dir: &Path, args: &[&str]) -> Server {
        let socket = dir.join("qemu.sock");
        let mut command = Command::new("setpriv");
        command
            .args([
                "--pdeathsig",
                "KILL",
                "qemu-nbd",
                "--persistent",
                "--shared=0",
                "--socket",
            ])
            .arg(&socket)
            .args(args);
        Server::start(command, socket)
    }

    fn start(mut command: Command, socket: PathBuf) -> Server {
        let _ = std::fs::remove_file(&socket);
        let log = std::fs::File::create(socket.with_extension("log")).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = command.spawn().unwrap();
        let mut server = Server {
            child,
            socket: socket.clone(),
        };
        let deadline = Instant::now() + LONG;
        while UnixStream::connect(&server.socket).is_err() {
            let ended = server.child.try_wait().unwrap();
            let log = || std::fs::read_to_string(socket.with_extension("log"));
            assert!(
                ended.is_none(),
                "{command:?} ended with {ended:?}: {:?}",
                log()
            );
            assert!(Instant::now() < deadline, "{command:?} does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    /// Lets it end by itself.
    pub fn terminate(mut self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).unwrap();
        self.child.wait().unwrap();
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.socket, &Options::new("disk", "")).unwrap()
    }

    pub fn image(&self, writable: bool) -> NbdImage {
        NbdImage::connect(&self.socket, "", options(writable, None)).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn options(writable: bool, bitmap: Option<&str>) -> NbdOptions {
    NbdOptions {
        name: "disk".into(),
        bitmap: bitmap.map(|b| format!("qemu:dirty-bitmap:{b}")),
        writable,
    }
}

/// Runs a tool that must succeed.
pub fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
}
