//! A socket that QEMU can reach and that leads to one that only root can.
//!
//! QEMU may run as another user, and be confined to names that libvirt has thought of. The policy that libvirt makes for
//! AppArmor lets a domain use any `*.tunnelmigrate.dest.NAME` below /run/libvirt, so that is what ours are called; they are in
//! a directory of our own, which is QEMU's user's.

use rblocksync::error::{Error, Kind, Result};
use rblocksync::files::remove_present;
use rustix::fs::{Mode, OFlags};
use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{chown, DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

const DIR: &str = "/run/libvirt/qemu/rbs";
/// Who owns this is as whom QEMU runs.
const QEMU_DIR: &str = "/var/lib/libvirt/qemu";
/// Longest name of a unix socket.
const PATH_BYTES_MAX: usize = 107;
const POLL: Duration = Duration::from_millis(5);

/// What the socket for the memory of the domain `name` is called, on both hosts. Refuses a name that is too long for one.
pub(super) fn path(name: &str) -> Result<PathBuf> {
    named("memory", name)
}

/// The same for what lies over its disks.
pub(super) fn disks_path(name: &str) -> Result<PathBuf> {
    named("disks", name)
}

fn named(what: &str, name: &str) -> Result<PathBuf> {
    let path = format!("{DIR}/{what}.tunnelmigrate.dest.{name}");
    match path.len() <= PATH_BYTES_MAX && !name.contains('/') {
        true => Ok(path.into()),
        false => Err(Error::new(
            Kind::Refused,
            format!(
                "domain {name} cannot be moved while it runs: its name is too long for a socket's"
            ),
        )
        .advise("leave --live out: it is shut down then, and started on the other host")),
    }
}

/// Makes the directory, in which QEMU's user can make its socket; what an earlier attempt has left there goes.
pub(super) fn make_room(path: &Path) -> Result<u32> {
    let cannot = |e| Error::io(format!("cannot make {DIR}"), e);
    let mut builder = DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o711)
        .create(DIR)
        .map_err(cannot)?;
    let user = std::fs::metadata(QEMU_DIR).map_err(cannot)?.uid();
    chown(DIR, Some(user), None).map_err(cannot)?;
    remove_present(path)?;
    Ok(user)
}

/// Makes the socket at `path` this user's alone. The directory is that user's already, who may be quick: what is there by now
/// may be a link to anything. So what is looked at is what is given.
fn give(path: &Path, user: u32) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let there = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !there.metadata()?.file_type().is_socket() {
        return Err(io::Error::other("something else is there"));
    }
    let itself = format!("/proc/self/fd/{}", there.as_raw_fd());
    std::fs::set_permissions(&itself, Permissions::from_mode(0o600))?;
    chown(&itself, Some(user), None)
}

/// The socket. Dropped, it is gone, and so are connections through it.
pub(super) struct Relay {
    path: PathBuf,
    over: Arc<AtomicBool>,
}

impl Relay {
    /// Listens at `path` for those who connect, and passes what they send on to `to`, and what comes back.
    pub fn start(path: &Path, to: &Path) -> Result<Relay> {
        let user = make_room(path)?;
        let cannot = |e| Error::io(format!("cannot listen at {}", path.display()), e);
        let listener = UnixListener::bind(path).map_err(cannot)?;
        let over = Arc::new(AtomicBool::new(false));
        let relay = Relay {
            path: path.to_owned(),
            over: Arc::clone(&over),
        };
        give(path, user).map_err(cannot)?;
        listener.set_nonblocking(true).map_err(cannot)?;
        let to = to.to_owned();
        std::thread::Builder::new()
            .name("memory".into())
            .spawn(move || {
                // Whoever sends sees it end, and says so.
                let _ = serve(&listener, &to, &over);
            })
            .map_err(cannot)?;
        Ok(relay)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // The next attempt removes it.
        let _ = remove_present(&self.path);
    }
}

fn serve(listener: &UnixListener, to: &Path, over: &AtomicBool) -> io::Result<()> {
    std::thread::scope(|scope| {
        while !over.load(Ordering::Acquire) {
            match listener.accept() {
                Ok((stream, _)) => {
                    scope.spawn(move || lead(&stream, to));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(POLL),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    })
}

/// Leads one connection to `to`. If that cannot be reached it ends, which whoever has connected sees.
fn lead(from: &UnixStream, to: &Path) -> io::Result<()> {
    from.set_nonblocking(false)?;
    let to = UnixStream::connect(to)?;
    std::thread::scope(|scope| {
        let back = scope.spawn(|| pass(&to, from));
        let there = pass(from, &to);
        let back = back.join().unwrap_or(Ok(()));
        there.and(back)
    })
}

/// All that comes from one to the other; the end, too.
fn pass(mut from: &UnixStream, mut to: &UnixStream) -> io::Result<()> {
    let passed = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
    if passed.is_err() {
        // Nobody is to wait for the rest.
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
    passed.map(drop)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn what_goes_in_comes_out_both_ways() {
        let dir = tempfile::tempdir().unwrap();
        let (near, far) = (dir.path().join("near"), dir.path().join("far"));
        let (listener, there) = (
            UnixListener::bind(&near).unwrap(),
            UnixListener::bind(&far).unwrap(),
        );
        listener.set_nonblocking(true).unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let served = scope.spawn(|| serve(&listener, &far, &over));
            let mut sender = UnixStream::connect(&near).unwrap();
            sender.write_all(b"memory").unwrap();
            sender.shutdown(Shutdown::Write).unwrap();
            let (mut receiver, _) = there.accept().unwrap();
            let mut text = String::new();
            receiver.read_to_string(&mut text).unwrap();
            assert_eq!(text, "memory");
            receiver.write_all(b"thanks").unwrap();
            drop(receiver);
            let mut text = String::new();
            sender.read_to_string(&mut text).unwrap();
            assert_eq!(text, "thanks");
            over.store(true, Ordering::Release);
            served.join().unwrap().unwrap();
        });
    }

    #[test]
    fn what_is_given_to_the_user_is_a_socket_and_never_what_a_link_names() {
        let dir = tempfile::tempdir().unwrap();
        let own = std::fs::metadata(dir.path()).unwrap().uid();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
        let socket = dir.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        give(&socket, own).unwrap();
        assert_eq!(mode(&socket), 0o600);
        UnixStream::connect(&socket).unwrap();
        // The directory is the user's, who is quick.
        let secret = dir.path().join("secret");
        std::fs::write(&secret, "").unwrap();
        std::fs::set_permissions(&secret, Permissions::from_mode(0o444)).unwrap();
        std::fs::remove_file(&socket).unwrap();
        std::os::unix::fs::symlink(&secret, &socket).unwrap();
        give(&socket, own).unwrap_err();
        std::fs::remove_file(&socket).unwrap();
        std::fs::hard_link(&secret, &socket).unwrap();
        give(&socket, own).unwrap_err();
        assert_eq!(mode(&secret), 0o444);
    }

    #[test]
    fn one_who_never_comes_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let near = dir.path().join("near");
        let listener = UnixListener::bind(&near).unwrap();
        listener.set_nonblocking(true).unwrap();
        serve(&listener, &near, &AtomicBool::new(true)).unwrap();
    }

    #[test]
    fn a_name_that_is_too_long_is_refused() {
        path("web01").unwrap();
        let error = path(&"w".repeat(80)).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
    }
}
