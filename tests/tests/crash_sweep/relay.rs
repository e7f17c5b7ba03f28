//! The way to sshd, to be cut after any number of bytes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::Arc;

/// A listener on loopback that passes all connections on to another port.
pub struct Relay {
    port: u16,
    allowance: Arc<Allowance>,
}

/// Bytes that may pass until all is cut.
struct Allowance {
    left: AtomicI64,
    /// New connections are fine again after the cut.
    once: AtomicBool,
}

impl Relay {
    pub fn to(port: u16) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let relay = Relay {
            port: listener.local_addr().expect("an address").port(),
            allowance: Arc::new(Allowance {
                left: AtomicI64::new(i64::MAX),
                once: AtomicBool::new(false),
            }),
        };
        let allowance = relay.allowance.clone();
        // It ends with the process.
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if let Ok(far) = TcpStream::connect(("127.0.0.1", port)) {
                    pass_both_ways(&near, &far, &allowance);
                }
            }
        });
        relay
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// After so many bytes more, of both directions, all connections are cut, and new ones too.
    pub fn cut_after(&self, bytes: i64) {
        self.allowance.once.store(false, Ordering::SeqCst);
        self.allowance.left.store(bytes, Ordering::SeqCst);
    }

    /// The same, but new connections are not cut.
    pub fn cut_once_after(&self, bytes: i64) {
        self.cut_after(bytes);
        self.allowance.once.store(true, Ordering::SeqCst);
    }

    /// No more cutting. Returns how many bytes had been left.
    pub fn mend(&self) -> i64 {
        self.allowance.once.store(false, Ordering::SeqCst);
        self.allowance.left.swap(i64::MAX, Ordering::SeqCst)
    }
}

fn pass_both_ways(near: &TcpStream, far: &TcpStream, allowance: &Arc<Allowance>) {
    for (from, to) in [(near, far), (far, near)] {
        let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else {
            return;
        };
        let allowance = allowance.clone();
        std::thread::spawn(move || {
            pass(&from, &to, &allowance);
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, allowance: &Allowance) {
    let mut chunk = [0; 16 << 10];
    while let Ok(len @ 1..) = from.read(&mut chunk) {
        let before = allowance.left.fetch_sub(len as i64, Ordering::SeqCst);
        let may = usize::try_from(before).unwrap_or(0).min(len);
        if to.write_all(&chunk[..may]).is_err() || may < len {
            if may < len && allowance.once.swap(false, Ordering::SeqCst) {
                allowance.left.store(i64::MAX, Ordering::SeqCst);
            }
            return;
        }
    }
}
