//! A connection to an export, for several threads at once: each sends its requests, and one thread reads the answers
//! and hands them to whoever waits.

use super::export::Export;
use super::flight::Failure;
use super::handshake::{negotiate, Wish};
use super::limits::TIMEOUT;
use super::pending::Connection;
use super::proto;
use super::reply::{Answer, Extent, Request};
use super::socket::{connect, Patient, Until};
use super::take::violation;
use crate::error::{Error, Kind, Result};
use crate::range::ByteRange;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How to connect, and to what.
#[derive(Debug, Clone)]
pub struct Options {
    /// What messages call the export.
    pub name: String,
    /// The export's name for the server; empty for its default.
    pub export: String,
    /// Metadata contexts to ask for. The server may lack some: see [`Export::contexts`].
    pub contexts: Vec<String>,
    /// Quiet time after which the server counts as gone; the whole handshake may take as long. Ten times as long for
    /// a flush, and for any request in all.
    pub timeout: Duration,
}

impl Options {
    /// For this export, without contexts, with the usual timeout.
    pub fn new(name: impl Into<String>, export: impl Into<String>) -> Self {
        Options {
            name: name.into(),
            export: export.into(),
            contexts: Vec::new(),
            timeout: TIMEOUT,
        }
    }
}

/// A connection to an export of an NBD server.
///
/// All methods may be called from several threads at once. When the server breaks the protocol, does not answer in
/// time, or goes away, the connection has ended for good: every call from then on fails and tells the same reason.
pub struct Client {
    pub(super) connection: Arc<Connection>,
    pub(super) export: Arc<Export>,
    pub(super) name: String,
    /// Held while a request and its data are sent.
    pub(super) sending: Mutex<()>,
    /// Buffers of reads that have been, to be used again.
    pub(super) buffers: Mutex<Vec<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// Connects to the server that listens on `socket`.
    ///
    /// Fails with [`Kind::NotFound`] if there is no such socket, server or export, with [`Kind::Timeout`] if the
    /// server does not answer, and with [`Kind::Protocol`] if it speaks something else.
    pub fn connect(socket: &Path, options: &Options) -> Result<Client> {
        let stream = connect(socket, Instant::now() + options.timeout)?;
        Client::over(stream, options)
    }

    /// The same over a socket that is connected already.
    pub fn over(stream: UnixStream, options: &Options) -> Result<Client> {
        let name = options.name.clone();
        let cannot = |e: Error| e.context(format!("cannot connect to {name}"));
        let wish = Wish {
            export: options.export.clone(),
            contexts: options.contexts.clone(),
        };
        let mut patient = Patient {
            socket: &stream,
            wait: Until {
                deadline: Instant::now() + options.timeout,
                timeout: options.timeout,
            },
        };
        let export = Arc::new(negotiate(&mut patient, &wish).map_err(cannot)?);
        let connection = Arc::new(Connection::new(stream, options.timeout));
        let shared = (connection.clone(), export.clone());
        let reader = std::thread::Builder::new()
            .name("nbd".into())
            .spawn(move || shared.0.receive(&shared.1))
            .map_err(|e| cannot(Error::io("cannot start a thread", e)))?;
        Ok(Client {
            connection,
            export,
            name,
            sending: Mutex::new(()),
            buffers: Mutex::default(),
            reader: Some(reader),
        })
    }

    /// What the server said about the export.
    pub fn export(&self) -> &Export {
        &self.export
    }

    /// Fills `buf` from byte `offset` of the export. Any alignment will do.
    pub fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let range = self.inside("read", offset, buf.len() as u64)?;
        let blocks = range.align_out(u64::from(self.export.min_block));
        self.pieces(
            "read",
            blocks,
            self.export.piece(),
            |piece| {
                let mut data = locked(&self.buffers).pop().unwrap_or_default();
                data.resize(piece.len() as usize, 0);
                let request = Request::new(proto::CMD_READ, piece);
                let answer = Answer::to_read(request, self.export.structured, data);
                self.send(request, &[], answer)
            },
            |piece, done| {
                let part = piece.intersection(&range);
                let from = (part.start - piece.start) as usize;
                let to = (part.start - range.start) as usize;
                let len = part.len() as usize;
                buf[to..to + len].copy_from_slice(&done.data[from..from + len]);
                locked(&self.buffers).push(done.data);
            },
        )
    }

    /// Writes all of `buf` at byte `offset` of the export. Both must be whole blocks: [`Export::min_block`]. It is
    /// durable after [`Client::flush`] only. After an error, any of it may have been written.
    pub fn write(&self, buf: &[u8], offset: u64) -> Result<()> {
        let range = self.inside("write", offset, buf.len() as u64)?;
        self.whole_blocks("write", range)?;
        self.pieces(
            "write",
            range,
            self.export.piece(),
            |piece| {
                let start = (piece.start - range.start) as usize;
                let bytes = &buf[start..start + piece.len() as usize];
                self.order(Request::new(proto::CMD_WRITE, piece), bytes)
            },
            |_, _| {},
        )
    }

    /// Makes `range` read as zeros, which must be whole blocks. With `may_punch` the server may free what is there;
    /// without, it must keep room allocated. Durable after [`Client::flush`] only.
    pub fn write_zeroes(&self, range: ByteRange, may_punch: bool) -> Result<()> {
        let range = self.inside("zero", range.start, range.len())?;
        self.whole_blocks("zero", range)?;
        if !self.export.can_zero {
            return Err(self.cannot(
                "zero",
                range,
                Error::new(
                    Kind::Usage,
                    "the NBD server does not offer NBD_CMD_WRITE_ZEROES",
                ),
            ));
        }
        let flags = if may_punch {
            0
        } else {
            proto::CMD_FLAG_NO_HOLE
        };
        self.pieces(
            "zero",
            range,
            self.export.zero_piece(),
            |piece| {
                let request = Request {
                    flags,
                    ..Request::new(proto::CMD_WRITE_ZEROES, piece)
                };
                self.order(request, &[])
            },
            |_, _| {},
        )
    }

    /// Makes durable what was written before. Fails if the server does not offer that.
    pub fn flush(&self) -> Result<()> {
        let cannot = |e: Error| e.context(format!("cannot flush {}", self.name));
        if !self.export.can_flush {
            let what = "the NBD server does not offer NBD_CMD_FLUSH";
            return Err(cannot(Error::new(Kind::Usage, what)));
        }
        let request = Request::new(proto::CMD_FLUSH, ByteRange::new(0, 0));
        let ticket = self.order(request, &[]).map_err(cannot)?;
        match self.wait(ticket) {
            Ok(_) => Ok(()),
            Err(Failure::Ended(e)) => Err(cannot(e)),
            Err(Failure::Refused(_, refusal)) => {
                Err(refusal.error(&format!("cannot flush {}", self.name)))
            }
        }
    }

    /// The status of the bytes from `range.start` on in the context of this name: extents without gaps, at least one,
    /// which may end before `range.end`, or after it, but within the export. Neighbours differ in their flags.
    /// `range.start` must be that of a block, and the range must not be empty.
    pub fn block_status(&self, context: &str, range: ByteRange) -> Result<Vec<Extent>> {
        let what = "find out the status of";
        let range = self.inside(what, range.start, range.len())?;
        let Some(context) = self.export.contexts.iter().find(|c| c.name == context) else {
            let why = format!("the NBD server does not offer {context} of this export");
            return Err(self.cannot(what, range, Error::new(Kind::NotFound, why)));
        };
        let end = range.start + range.len().min(self.export.status_piece());
        let asked = ByteRange::new(range.start, end).align_out(u64::from(self.export.min_block));
        if asked.is_empty() || asked.start != range.start {
            return Err(self.cannot(what, range, Error::new(Kind::Usage, "these are not blocks")));
        }
        let request = Request::new(proto::CMD_BLOCK_STATUS, asked);
        let answer = Answer::to_status(request, self.export.structured, context.id);
        let ticket = self
            .send(request, &[], answer)
            .map_err(|e| self.cannot(what, asked, e))?;
        let extents = self.wait(ticket).map_err(|f| self.failed(what, f))?.extents;
        self.whole_extents(extents, asked).ok_or_else(|| {
            let e = violation(format!("it sent no {} of whole blocks", context.name));
            self.connection.fail(&e);
            self.cannot(what, asked, e)
        })
    }

    /// Extents cut off where the export ends, or where no whole block is left; None if there is nothing then.
    fn whole_extents(&self, mut extents: Vec<Extent>, asked: ByteRange) -> Option<Vec<Extent>> {
        let end = extents.last()?.range.end.min(self.export.size);
        let end = end - end % u64::from(self.export.min_block);
        extents.retain(|e| e.range.start < end);
        let last = extents.last_mut()?;
        last.range.end = last.range.end.min(end);
        Some(extents).filter(|_| end > asked.start)
    }

    /// Fails if the connection has ended, as far as that is known without asking the server.
    pub fn check(&self) -> Result<()> {
        let ended = self.connection.check();
        ended.map_err(|e| e.context(format!("cannot use {}", self.name)))
    }

    fn inside(&self, what: &str, offset: u64, len: u64) -> Result<ByteRange> {
        match offset.checked_add(len) {
            Some(end) if end <= self.export.size => Ok(ByteRange::new(offset, end)),
            _ => Err(Error::new(
                Kind::Usage,
                format!(
                    "cannot {what} {len} bytes at byte {offset} of {}: it has {} bytes",
                    self.name, self.export.size
                ),
            )),
        }
    }

    fn whole_blocks(&self, what: &str, range: ByteRange) -> Result<()> {
        let block = u64::from(self.export.min_block);
        match range.align_out(block) == range {
            true => Ok(()),
            false => Err(self.cannot(
                what,
                range,
                Error::new(
                    Kind::Usage,
                    format!("the NBD server takes whole blocks of {block} bytes only"),
                ),
            )),
        }
    }
}

impl Drop for Client {
    /// Takes leave of the server and does not wait for it.
    fn drop(&mut self) {
        let farewell = Request::new(proto::CMD_DISC, ByteRange::new(0, 0));
        // Nobody sends any more. If the socket is full, the server finds out by the end of the stream.
        let socket = &self.connection.socket;
        let flags = rustix::net::SendFlags::NOSIGNAL | rustix::net::SendFlags::DONTWAIT;
        let _ = rustix::net::send(socket, &farewell.encode(0), flags);
        let _ = socket.shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            // It ends as the socket does, and panics are not what it ends with.
            let _ = reader.join();
        }
    }
}
