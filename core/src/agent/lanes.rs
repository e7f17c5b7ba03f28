//! How further connections reach an agent that runs already: a process at the end of each hands its
//! standard input and output over to it, through a socket that only processes of the same user may use.

use crate::error::{Error, Kind, Result};
use crate::wire::{limits, Lanes};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::{
    recvmsg, sendmsg, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use std::io::{IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// What the driver reads from a lane that has reached the agent.
pub const LANE_READY: u8 = b'+';

/// How long a process that has come in may take to hand over its streams.
const HAND_OVER_TIME: Duration = Duration::from_secs(5);

/// Whether this could be the token of an agent.
pub(super) fn is_token(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// The socket's name, in the abstract namespace: it goes with its owner, and needs no directory.
fn address(token: &str) -> Result<SocketAddr> {
    if !is_token(token) {
        return Err(Error::new(Kind::Usage, "not the token of an agent"));
    }
    SocketAddr::from_abstract_name(format!("rblocksync-lanes-{token}"))
        .map_err(|e| Error::io("cannot name a socket", e))
}

/// Where lanes come in.
pub(super) struct Gate {
    listener: UnixListener,
}

impl Gate {
    /// From now on lanes can come; they wait.
    pub(super) fn bind(token: &str) -> Result<Gate> {
        let listener = UnixListener::bind_addr(&address(token)?)
            .map_err(|e| Error::io("cannot listen for lanes", e))?;
        Ok(Gate { listener })
    }

    /// Lets them in for the link that `lanes` belongs to, as long as that exists.
    pub(super) fn open(self, lanes: &Arc<Lanes>) -> Result<()> {
        let lanes = Arc::downgrade(lanes);
        std::thread::Builder::new()
            .name("lanes".into())
            .spawn(move || let_in(&self.listener, &lanes))
            .map_err(|e| Error::io("cannot start a thread", e))?;
        Ok(())
    }
}

fn let_in(listener: &UnixListener, lanes: &Weak<Lanes>) {
    // Kept open: their end is how the others learn that we are gone.
    let mut joined = Vec::new();
    while let Ok((stream, _)) = listener.accept() {
        let Some(lanes) = lanes.upgrade() else {
            return;
        };
        if joined.len() == usize::from(limits::LANES_MAX) {
            continue;
        }
        // Whoever brings no lane is sent away.
        if let Some((number, input, output)) = take_over(&stream) {
            // A pipe that nothing was written to yet has room.
            if rustix::io::write(&output, &[LANE_READY]) == Ok(1) {
                lanes.add(number, input, output);
                joined.push(stream);
            }
        }
    }
}

/// The lane's number and streams, from a process of our own user.
fn take_over(stream: &UnixStream) -> Option<(u8, OwnedFd, OwnedFd)> {
    if !is_ours(stream) {
        return None;
    }
    stream.set_read_timeout(Some(HAND_OVER_TIME)).ok()?;
    let mut number = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [IoSliceMut::new(&mut number)];
    let got = recvmsg(stream, parts, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let output = fds.pop()?;
    let input = fds.pop()?;
    let in_range = (1..=limits::LANES_MAX).contains(&number[0]);
    (got.bytes == 1 && in_range && fds.is_empty()).then_some((number[0], input, output))
}

/// Whether the other end of a socket belongs to our own user: unix(7), `SO_PEERCRED`.
fn is_ours(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream)
        .is_ok_and(|peer| peer.uid == rustix::process::geteuid())
}

/// Hands `input` and `output` over to the agent that listens as `token`, as its lane `number`, and stays
/// until that agent has ended.
pub fn join(token: &str, number: u8, input: BorrowedFd, output: BorrowedFd) -> Result<()> {
    let mut stream = UnixStream::connect_addr(&address(token)?)
        .map_err(|e| Error::io("cannot reach the agent that this lane is for", e))?;
    if !is_ours(&stream) {
        let what = "the agent that this lane is for belongs to somebody else";
        return Err(Error::new(Kind::Permission, what));
    }
    hand_over(&stream, number, &[input, output])?;
    let ended = stream.read(&mut [0]);
    ended
        .map(|_| ())
        .map_err(|e| Error::io("lost the agent that this lane is for", e))
}

fn hand_over(stream: &UnixStream, number: u8, fds: &[BorrowedFd; 2]) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(fds));
    let number = [number];
    let parts = [IoSlice::new(&number)];
    sendmsg(stream.as_fd(), &parts, &mut control, SendFlags::empty())
        .map(drop)
        .map_err(|e| Error::io("cannot hand over a lane", e.into()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rustix::process::{geteuid, Uid};
    use rustix::thread::set_thread_res_uid;
    use std::io::Write;
    use uuid::Uuid;

    #[test]
    fn streams_are_handed_over() {
        let lanes = Arc::new(Lanes::default());
        let token = Uuid::new_v4().simple().to_string();
        Gate::bind(&token).unwrap().open(&lanes).unwrap();
        let (mut far, near) = UnixStream::pair().unwrap();
        let (mut back, out) = UnixStream::pair().unwrap();
        let name = token.clone();
        let joined = std::thread::spawn(move || join(&name, 1, near.as_fd(), out.as_fd()));
        let mut ready = [0];
        back.read_exact(&mut ready).unwrap();
        assert_eq!(ready, [LANE_READY]);
        far.write_all(b"x").unwrap();
        // What was given cannot be seen before it was announced.
        let taken = loop {
            if let Ok(taken) = lanes.take_announced(1) {
                break taken;
            }
        };
        let mut byte = [0];
        rustix::io::read(&taken[0], &mut byte).unwrap();
        assert_eq!(&byte, b"x");
        assert!(!joined.is_finished(), "it stays until the agent ends");
    }

    /// The name of the socket is no secret.
    #[test]
    fn another_user_is_sent_away() {
        if !geteuid().is_root() {
            println!("not root: nobody else can be played");
            return;
        }
        let lanes = Arc::new(Lanes::default());
        let token = Uuid::new_v4().simple().to_string();
        Gate::bind(&token).unwrap().open(&lanes).unwrap();
        let stranger = std::thread::spawn(move || {
            let nobody = Uid::from_raw(65534);
            // Of this thread alone.
            set_thread_res_uid(nobody, nobody, nobody).unwrap();
            let (near, _far) = UnixStream::pair().unwrap();
            let error = join(&token, 1, near.as_fd(), near.as_fd()).unwrap_err();
            assert_eq!(error.kind(), Kind::Permission, "{error}");
            let mut stream = UnixStream::connect_addr(&address(&token).unwrap()).unwrap();
            hand_over(&stream, 1, &[near.as_fd(), near.as_fd()]).unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "it is sent away");
        });
        stranger.join().unwrap();
        assert!(lanes.take_announced(1).is_err());
    }

    #[test]
    fn nothing_but_a_lane_is_taken() {
        let lanes = Arc::new(Lanes::default());
        let token = Uuid::new_v4().simple().to_string();
        Gate::bind(&token).unwrap().open(&lanes).unwrap();
        assert!(Gate::bind(&token).is_err(), "the name is taken");
        let mut plain = UnixStream::connect_addr(&address(&token).unwrap()).unwrap();
        plain.write_all(b"\x01").unwrap();
        assert_eq!(plain.read(&mut [0]).unwrap_or(0), 0, "it is sent away");
        let (a, _b) = UnixStream::pair().unwrap();
        for number in [0, limits::LANES_MAX + 1, 255] {
            assert!(join(&token, number, a.as_fd(), a.as_fd()).is_ok());
        }
        assert!(lanes.take_announced(1).is_err());
        for bad in ["", "a/b", "a\0", &"x".repeat(65)] {
            assert!(join(bad, 1, a.as_fd(), a.as_fd()).is_err());
        }
    }
}
