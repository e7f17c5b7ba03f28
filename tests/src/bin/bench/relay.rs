//! A long way to the other end: a TCP relay that delays each direction, and does nothing else.
//!
//! What came in waits in a queue, with the time at which it is due. So bandwidth is not limited: the
//! queue holds [`QUEUE_CHUNKS`] chunks, more than comes in during one delay.

use crate::Outcome;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const CHUNK_BYTES: usize = 64 << 10;
/// 128 MiB a direction: 12 GB/s for 10 ms.
const QUEUE_CHUNKS: usize = 2048;

/// Listens on a port of its own, until the process ends.
pub struct Relay {
    port: u16,
    bytes: Arc<AtomicU64>,
}

impl Relay {
    /// To `port` on this machine, with `round_trip` there and back.
    pub fn start(port: u16, round_trip: Duration) -> Outcome<Relay> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let relay = Relay {
            port: listener.local_addr()?.port(),
            bytes: Arc::default(),
        };
        let bytes = Arc::clone(&relay.bytes);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let bytes = Arc::clone(&bytes);
                thread::spawn(move || {
                    // The kernel has accepted at once; a far peer would have taken a round trip.
                    thread::sleep(round_trip);
                    if let Err(error) = join(near, port, round_trip / 2, &bytes) {
                        eprintln!("relay: {error}");
                    }
                });
            }
        });
        Ok(relay)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Bytes that went through so far, both directions.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

fn join(near: TcpStream, port: u16, delay: Duration, bytes: &Arc<AtomicU64>) -> Outcome<()> {
    let far = TcpStream::connect(("127.0.0.1", port))?;
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
    }
    for (from, to) in [
        (near.try_clone()?, far.try_clone()?),
        (far.try_clone()?, near.try_clone()?),
    ] {
        let (queue, due) = sync_channel(QUEUE_CHUNKS);
        let bytes = Arc::clone(bytes);
        thread::spawn(move || take(from, &queue, delay, &bytes));
        thread::spawn(move || give(to, due));
    }
    Ok(())
}

/// An end that has gone is nothing to report: the ssh processes do.
fn take(
    mut from: TcpStream,
    queue: &SyncSender<(Instant, Vec<u8>)>,
    delay: Duration,
    bytes: &AtomicU64,
) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(n @ 1..) = from.read(&mut chunk) {
        bytes.fetch_add(n as u64, Ordering::Relaxed);
        if queue
            .send((Instant::now() + delay, chunk[..n].to_vec()))
            .is_err()
        {
            break;
        }
    }
}

fn give(mut to: TcpStream, due: Receiver<(Instant, Vec<u8>)>) {
    for (time, chunk) in due {
        thread::sleep(time.saturating_duration_since(Instant::now()));
        if to.write_all(&chunk).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo_server() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut write = stream.try_clone().expect("a second handle");
                    std::io::copy(&mut stream, &mut write)
                });
            }
        });
        port
    }

    #[test]
    fn an_answer_takes_a_round_trip_and_a_stream_is_not_held_up() {
        let round_trip = Duration::from_millis(100);
        let relay = Relay::start(echo_server(), round_trip).expect("a relay");
        let mut stream = TcpStream::connect(("127.0.0.1", relay.port())).expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        let mut answer = [0];
        for _ in 0..2 {
            let began = Instant::now();
            stream.write_all(b"x").expect("sent");
            stream.read_exact(&mut answer).expect("answered");
            assert!(began.elapsed() >= round_trip);
        }

        const LEN: usize = 32 << 20;
        let began = Instant::now();
        let mut write = stream.try_clone().expect("a second handle");
        let sender = thread::spawn(move || {
            write.write_all(&vec![7; LEN]).expect("sent");
            write.shutdown(Shutdown::Write).expect("ended");
        });
        let mut back = Vec::new();
        stream.read_to_end(&mut back).expect("all of it");
        sender.join().expect("the sender");
        assert_eq!(back.len(), LEN);
        // A chunk a round trip would take 51 s.
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(relay.bytes(), 2 * (LEN as u64 + 2));
    }
}
