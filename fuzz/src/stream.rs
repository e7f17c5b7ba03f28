//! The far end of a link.

use rblocksync::wire::{limits, Frame};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

/// So long the far end waits, once, for what it should hear before it speaks out of turn.
const PATIENCE: Duration = Duration::from_millis(50);

/// Cuts a stream into frames, each with its length field. The last piece may be no whole frame.
pub fn pieces(mut input: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    while !input.is_empty() {
        let len = match input.first_chunk() {
            Some(head) => u32::from_le_bytes(*head),
            None => limits::FRAME_MAX + 1,
        };
        let whole = match len {
            1..=limits::FRAME_MAX => (len as usize + 4).min(input.len()),
            _ => input.len(),
        };
        let (piece, rest) = input.split_at(whole);
        pieces.push(piece);
        input = rest;
    }
    pieces
}

/// The frame of a piece, if it is one.
pub fn frame_of(piece: &[u8]) -> Option<Frame> {
    let (head, body) = piece.split_first_chunk()?;
    match u32::from_le_bytes(*head) as usize == body.len() {
        true => Frame::decode(body).ok(),
        false => None,
    }
}

/// The far end of a link. One thread says what is to be said, another takes what comes, so neither can
/// block the side under test.
pub struct Far(UnixStream);

/// The half that speaks.
pub struct Sender<'a> {
    stream: &'a UnixStream,
    heard: &'a Heard,
    patience: Duration,
}

/// What came so far.
#[derive(Default)]
struct Heard {
    frames: Mutex<(Vec<Frame>, bool)>,
    more: Condvar,
}

impl Heard {
    fn frames(&self) -> MutexGuard<'_, (Vec<Frame>, bool)> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Far {
    /// The far end, and input and output of the near one.
    pub fn pair() -> (Far, (OwnedFd, OwnedFd)) {
        // A write to a link that was closed is an error; Rust's own `main`, missing here, sees to that.
        static SIGNALS: Once = Once::new();
        SIGNALS.call_once(|| {
            let ignored = std::sync::Arc::default();
            signal_hook::flag::register(signal_hook::consts::SIGPIPE, ignored)
                .expect("a handler of SIGPIPE");
        });
        let (near, far) = UnixStream::pair().expect("a pair of sockets");
        let output = near.try_clone().expect("a second descriptor");
        (Far(far), (near.into(), output.into()))
    }

    /// Runs `body`, the near end, while `say` speaks and each frame that comes is shown to `hear`. After
    /// `say` the link is at its end. What the near end says must be well formed.
    pub fn run<T>(
        self,
        say: impl FnOnce(&mut Sender) + Send,
        mut hear: impl FnMut(&Frame) + Send,
        body: impl FnOnce() -> T,
    ) -> T {
        let heard = Heard::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while let Some(frame) = receive(&self.0) {
                    hear(&frame);
                    heard.frames().0.push(frame);
                    heard.more.notify_all();
                }
                heard.frames().1 = true;
                heard.more.notify_all();
            });
            scope.spawn(|| {
                say(&mut Sender {
                    stream: &self.0,
                    heard: &heard,
                    patience: PATIENCE,
                });
                let _ = self.0.shutdown(Shutdown::Write);
            });
            body()
        })
    }
}

/// The next frame, but neither a large one's payload nor what was cut short.
fn receive(mut stream: &UnixStream) -> Option<Frame> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).ok()?;
    let len = u32::from_le_bytes(head);
    assert!((1..=limits::FRAME_MAX).contains(&len), "a frame of {len}");
    let mut body = vec![0; len as usize];
    stream.read_exact(&mut body).ok()?;
    Some(Frame::decode(&body).expect("what this side sends is well formed"))
}

impl Sender<'_> {
    /// Says it, unless nobody listens any more.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// From now on waits as long as it takes: what is waited for, or the end, is sure to come.
    pub fn insist(&mut self) {
        self.patience = Duration::from_secs(5);
    }

    /// Waits, a moment at most, until `enough` of what was heard so far, or the end; gives what it gave.
    pub fn wait<T>(&mut self, mut enough: impl FnMut(&[Frame]) -> Option<T>) -> Option<T> {
        let mut frames = self.heard.frames();
        loop {
            let found = enough(&frames.0);
            if found.is_some() || frames.1 {
                return found;
            }
            let waited = self.heard.more.wait_timeout(frames, self.patience);
            let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() {
                self.patience = Duration::from_millis(1);
                return None;
            }
            frames = guard;
        }
    }
}
