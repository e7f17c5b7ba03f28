//! Real servers, each in a directory of its own, which end with the test.

use rblocksync::image::{Image, NbdImage, NbdOptions};
use rblocksync::nbd::{Client, Options};
use rblocksync::range::{ByteRange, RangeSet};
use rustix::process::{kill_process, Pid, Signal};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
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
        let socket = fresh(dir);
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

    /// `nbdkit` with these arguments.
    pub fn nbdkit(dir: &Path, args: &[&str]) -> Server {
        let socket = fresh(dir);
        let mut command = Command::new("nbdkit");
        command
            .args(["--foreground", "--exit-with-parent", "--unix"])
            .arg(&socket)
            .args(args);
        Server::start(command, socket)
    }

    fn start(mut command: Command, socket: PathBuf) -> Server {
        let log = std::fs::File::create(socket.with_extension("log")).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = command.spawn().unwrap();
        let mut server = Server { child, socket };
        let deadline = Instant::now() + LONG;
        while !is_listening(&server.socket) {
            if let Some(status) = server.child.try_wait().unwrap() {
                let log = std::fs::read_to_string(server.socket.with_extension("log"));
                panic!("{command:?} ended with {status}: {log:?}");
            }
            assert!(Instant::now() < deadline, "{command:?} does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    /// Waits until it has ended of its own accord.
    pub fn wait(mut self) {
        let deadline = Instant::now() + LONG;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the server does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Lets it end by itself.
    pub fn terminate(self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).unwrap();
        self.wait();
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

/// A path that no server in this process has had.
fn fresh(dir: &Path) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    dir.join(format!("{}.sock", COUNT.fetch_add(1, Ordering::Relaxed)))
}

/// Whether somebody listens there, by the kernel's own list: a connection would count as a client.
fn is_listening(socket: &Path) -> bool {
    // In the flags, bit 16 is __SO_ACCEPTCON.
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
    let wanted = socket.to_str().unwrap();
    sockets.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.last() == Some(&wanted) && fields.get(3) == Some(&"00010000")
    })
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

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;

/// Bytes that are nowhere the same for long.
pub fn pattern(len: u64, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

pub fn read(image: &dyn Image, range: ByteRange) -> Vec<u8> {
    let mut buf = vec![0x55; range.len() as usize];
    image.read_at(&mut buf, range.start).unwrap();
    buf
}

/// All ranges that an image says hold data.
pub fn data(image: &dyn Image) -> RangeSet {
    let mut set = RangeSet::new();
    let mut at = 0;
    while let Some(range) = image.next_data(at).unwrap() {
        assert!(range.start >= at && !range.is_empty() && range.end <= image.size());
        set.insert(range);
        at = range.end;
    }
    set
}

pub fn set(ranges: &[(u64, u64)]) -> RangeSet {
    ranges
        .iter()
        .map(|&(start, end)| ByteRange::new(start, end))
        .collect()
}

/// Runs a tool that must succeed.
pub fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
}
