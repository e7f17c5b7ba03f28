//! A server that says what a test wants, right or wrong.

use rblocksync::error::{Error, Result};
use rblocksync::nbd::{Client, Options};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

pub const ACK: u32 = 1;
pub const INFO: u32 = 3;
pub const META_CONTEXT: u32 = 4;
pub const GO: u32 = 7;
pub const STRUCTURED_REPLY: u32 = 8;
pub const SET_META_CONTEXT: u32 = 10;

pub const READ: u16 = 0;
pub const WRITE: u16 = 1;
pub const DISC: u16 = 2;
pub const FLUSH: u16 = 3;

pub const DONE: u16 = 1;
pub const NONE: u16 = 0;
pub const DATA: u16 = 1;
pub const HOLE: u16 = 2;
pub const STATUS: u16 = 5;
pub const ERROR: u16 = 0x8001;
pub const ERROR_OFFSET: u16 = 0x8002;

/// Numbers in network byte order, one after the other.
#[macro_export]
macro_rules! bytes {
    ($($number:expr),* $(,)?) => {{
        #[allow(unused_mut)]
        let mut bytes: Vec<u8> = Vec::new();
        $( bytes.extend_from_slice(&$number.to_be_bytes()); )*
        bytes
    }};
}

/// The server's end of a connection. What it cannot do any more because the client has gone, it does not do.
pub struct Far(UnixStream);

pub struct Request {
    pub flags: u16,
    pub command: u16,
    pub cookie: u64,
    pub offset: u64,
    pub len: u32,
    pub data: Vec<u8>,
}

impl Far {
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// Sends a byte again and again, much more often than the client's patience ends, until the client has gone.
    pub fn trickle(&mut self) {
        while self.0.write_all(&[7]).is_ok() {
            std::thread::sleep(HASTY / 20);
        }
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }

    pub fn greet(&mut self) {
        self.send(b"NBDMAGICIHAVEOPT\0\x03");
    }

    pub fn client_flags(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    /// The next option and its data.
    pub fn option(&mut self) -> Option<(u32, Vec<u8>)> {
        assert_eq!(&self.take::<8>()?, b"IHAVEOPT");
        let option = u32::from_be_bytes(self.take()?);
        let mut data = vec![0; u32::from_be_bytes(self.take()?) as usize];
        self.0.read_exact(&mut data).ok()?;
        Some((option, data))
    }

    pub fn reply(&mut self, option: u32, kind: u32, data: &[u8]) {
        self.send(&bytes![0x3e889045565a9u64, option, kind, data.len() as u32]);
        self.send(data);
    }

    /// Greets and answers options as it should until one is `up_to`, which is left to the test.
    pub fn options_up_to(&mut self, up_to: u32, size: u64) {
        self.greet();
        assert_eq!(self.client_flags(), Some(3));
        loop {
            let (option, data) = self.option().unwrap();
            if option == up_to {
                return;
            }
            if option == SET_META_CONTEXT {
                let count = data[data.len().min(4)..]
                    .windows(15)
                    .filter(|w| w == b"base:allocation");
                for _ in count {
                    self.reply(option, META_CONTEXT, b"\0\0\0\x09base:allocation");
                }
            }
            if option == GO {
                self.reply(option, INFO, &bytes![0u16, size, 0x4du16]);
                self.reply(option, INFO, &bytes![3u16, 1u32, 4096u32, 1u32 << 25]);
            }
            self.reply(option, ACK, &[]);
            if option == GO {
                return;
            }
        }
    }

    pub fn handshake(&mut self, size: u64) {
        self.options_up_to(u32::MAX, size);
    }

    /// The next request, with the data of a write.
    pub fn request(&mut self) -> Option<Request> {
        assert_eq!(self.take()?, 0x25609513u32.to_be_bytes());
        let mut request = Request {
            flags: u16::from_be_bytes(self.take()?),
            command: u16::from_be_bytes(self.take()?),
            cookie: u64::from_be_bytes(self.take()?),
            offset: u64::from_be_bytes(self.take()?),
            len: u32::from_be_bytes(self.take()?),
            data: Vec::new(),
        };
        if request.command == WRITE {
            request.data.resize(request.len as usize, 0);
            self.0.read_exact(&mut request.data).ok()?;
        }
        Some(request)
    }

    pub fn simple(&mut self, cookie: u64, errno: u32) {
        self.send(&bytes![0x67446698u32, errno, cookie]);
    }

    pub fn chunk(&mut self, cookie: u64, flags: u16, kind: u16, payload: &[u8]) {
        self.head(cookie, flags, kind, payload.len() as u32);
        self.send(payload);
    }

    pub fn head(&mut self, cookie: u64, flags: u16, kind: u16, len: u32) {
        self.send(&bytes![0x668e33efu32, flags, kind, cookie, len]);
    }

    /// Reads until the client has gone, so that it is never the server that ends the connection.
    pub fn hold(&mut self) {
        let _ = std::io::copy(&mut self.0, &mut std::io::sink());
    }
}

/// Long enough never to be the reason.
pub const PATIENT: Duration = Duration::from_secs(30);
/// Short enough to wait for.
pub const HASTY: Duration = Duration::from_millis(300);

/// Runs `server` and, against it, `client`; gives what the client gives. Neither may hang.
pub fn play<T>(
    timeout: Duration,
    server: impl FnOnce(&mut Far) + Send,
    client: impl FnOnce(Result<Client>) -> T,
) -> T {
    let (near, far) = UnixStream::pair().unwrap();
    far.set_read_timeout(Some(4 * PATIENT)).unwrap();
    let mut options = Options::new("disk", "vda");
    options.contexts = vec!["base:allocation".into(), "qemu:dirty-bitmap:b".into()];
    options.timeout = timeout;
    std::thread::scope(|scope| {
        scope.spawn(|| server(&mut Far(far)));
        client(Client::over(near, &options))
    })
}

/// How connecting to such a server fails; it ends the connection after that.
pub fn refused(server: impl FnOnce(&mut Far) + Send) -> Error {
    play(PATIENT, server, |client| client.err().unwrap())
}

/// Of the export in tests of replies.
pub const SIZE: u64 = 64 << 20;

/// Bytes 4096 to 12288.
pub fn read(client: &Client) -> Result<()> {
    client.read(&mut [0; 8192], 4096)
}

/// The payload of a chunk with data.
pub fn data(offset: u64, len: usize) -> Vec<u8> {
    [bytes![offset], vec![7; len]].concat()
}
