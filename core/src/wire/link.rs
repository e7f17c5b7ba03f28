//! A framed link to one peer: handshake done, frames in and out, the peer's errors turned into ours.

use super::frame::Frame;
use super::hello::Hello;
use super::lanes::Lanes;
use super::limits;
use super::link_writer::{ErrorReport, LinkWriter};
use super::stream::{Ready, StreamReader, StreamWriter};
use super::stripe::Inlet;
use crate::bell::Bell;
use crate::error::{Error, Kind, Result};
use crate::stop::Stop;
use rustix::fd::OwnedFd;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Both directions of a link whose handshake is done.
pub struct Link {
    /// Frames from the peer.
    pub reader: LinkReader,
    /// Frames to the peer.
    pub writer: LinkWriter,
}

/// The reading half.
pub struct LinkReader {
    stream: Inlet,
    lanes: Arc<Lanes>,
    frame_max: u32,
    peer: String,
    stop: Stop,
    /// The peer has said hello.
    greeted: bool,
    bytes: u64,
    /// When what has come is paid for, and what a byte costs.
    toll: Option<Toll>,
    body: Vec<u8>,
}

/// A limit of what a peer may send.
struct Toll {
    bytes_per_s: u64,
    paid_at: Instant,
}

/// What a read gave.
pub enum Received {
    /// A frame that is neither a ping nor an error.
    Frame(Frame),
    /// The peer closed the link between two frames.
    End,
}

impl Toll {
    fn pay(&mut self, bytes: u64) {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64);
        let now = Instant::now();
        self.paid_at = self.paid_at.max(now) + cost;
        std::thread::sleep(self.paid_at - now);
    }
}

impl Link {
    /// Says hello on both descriptors and waits for the peer's; `peer` names it in errors.
    pub fn handshake(
        input: OwnedFd,
        output: OwnedFd,
        program: &str,
        peer: &str,
        stop: Stop,
    ) -> Result<Link> {
        let limit = Duration::from_secs(limits::SILENCE_S_MAX);
        Link::handshake_within(limit, input, output, program, peer, stop)
    }

    /// The same with another limit for the time until the whole of the peer's hello is there.
    pub fn handshake_within(
        limit: Duration,
        input: OwnedFd,
        output: OwnedFd,
        program: &str,
        peer: &str,
        stop: Stop,
    ) -> Result<Link> {
        let (reading, writing) = (stop.child(), stop.child());
        let lanes = Arc::new(Lanes::default());
        let output = StreamWriter::new(output, writing.clone())?;
        let mut link = Link {
            reader: LinkReader {
                stream: Inlet::new(StreamReader::new(input, reading.clone())?),
                lanes: Arc::clone(&lanes),
                frame_max: limits::HELLO_FRAME_MAX,
                peer: peer.to_owned(),
                stop: reading,
                greeted: false,
                bytes: 0,
                toll: None,
                body: Vec::new(),
            },
            writer: LinkWriter::new(output, lanes, peer, writing)?,
        };
        let ours = Hello::ours(program);
        link.writer.send(&Frame::Hello(ours.clone()))?;
        link.writer.flush()?;
        // A peer that sends its hello byte by byte would keep us here for hours.
        let deadline = Some(Instant::now() + limit);
        link.reader.stream.current_mut().set_deadline(deadline);
        let first = link.reader.next().map_err(|e| {
            match link.reader.stream.current().is_late() && e.kind() == Kind::Remote {
                true => Error::new(
                    Kind::Remote,
                    format!("{peer} said no hello within {limit:?}"),
                ),
                false => e,
            }
        })?;
        link.reader.stream.current_mut().set_deadline(None);
        match first {
            Some(Received::Frame(Frame::Hello(theirs))) => {
                ours.agree(&theirs).map_err(|e| e.context(peer))?;
            }
            // A ping included: a peer that only pings would keep us here for ever.
            Some(Received::Frame(_)) | None => {
                return Err(Error::new(
                    Kind::Protocol,
                    format!("{peer} did not say hello first"),
                ))
            }
            Some(Received::End) => return Err(link.reader.vanished()),
        }
        link.reader.greeted = true;
        link.reader.frame_max = limits::CONTROL_FRAME_MAX;
        Ok(link)
    }
}

impl Link {
    /// Where more streams for this link are brought to.
    pub fn lanes(&self) -> &Arc<Lanes> {
        &self.reader.lanes
    }
}

impl LinkReader {
    /// Sets the largest frame that is accepted from now on.
    pub fn set_frame_max(&mut self, bytes: u32) {
        self.frame_max = bytes.min(limits::FRAME_MAX);
    }

    /// Set it to make a waiting [`LinkReader::receive`] end.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Bytes received so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Sets how long the peer may say nothing before it counts as gone.
    pub fn set_silence_max(&mut self, limit: Duration) {
        self.stream.set_silence_max(limit);
    }

    /// Takes in no more than so many bytes a second: the peer has to wait.
    pub fn set_rate_max(&mut self, bytes_per_s: Option<u64>) {
        self.toll = bytes_per_s.map(|bytes_per_s| Toll {
            bytes_per_s: bytes_per_s.max(1),
            paid_at: Instant::now(),
        });
    }

    /// How long the peer may say nothing.
    pub fn silence_max(&self) -> Duration {
        self.stream.current().silence_max()
    }

    /// The next frame. Pings are passed over; an error report of the peer becomes an error here.
    pub fn receive(&mut self) -> Result<Received> {
        loop {
            if let Some(received) = self.next()? {
                return Ok(received);
            }
        }
    }

    /// Watches the peer while nothing but signs of life is due from it, until `done` is rung. Whatever
    /// else comes, the end of the link included, is an error.
    pub fn watch(&mut self, done: &Bell) -> Result<()> {
        let mut heard = Instant::now();
        while !done.is_rung() {
            if !self.stream.has_buffered() {
                let stream = self.stream.current();
                match stream.wait_or(done).map_err(|e| self.io_error(e))? {
                    Ready::Input => {}
                    Ready::Rung => continue,
                    Ready::Nothing => {
                        stream.check_silence(heard).map_err(|e| self.io_error(e))?;
                        continue;
                    }
                }
            }
            match self.next()? {
                None => heard = Instant::now(),
                Some(Received::Frame(frame)) => return Err(self.unexpected(&frame)),
                Some(Received::End) => return Err(self.vanished()),
            }
        }
        Ok(())
    }

    /// The next frame, or `None` for a ping.
    fn next(&mut self) -> Result<Option<Received>> {
        let mut head = [0; 4];
        if !self.fill(&mut head)? {
            return Ok(Some(Received::End));
        }
        let len = u32::from_le_bytes(head);
        if len == 0 || len > self.frame_max {
            return Err(self.bad_length(len));
        }
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        // Grows with what arrives, so that a length that lies costs no memory.
        let got = (&mut self.stream)
            .take(len.into())
            .read_to_end(&mut body)
            .map_err(|e| self.io_error(e))?;
        self.bytes += 4 + got as u64;
        self.lanes.moved(4 + got as u64);
        if let Some(toll) = &mut self.toll {
            toll.pay(4 + got as u64);
        }
        if got < len as usize {
            return Err(self.vanished());
        }
        let frame = Frame::decode(&body).map_err(|e| e.context(format!("from {}", self.peer)))?;
        self.body = body;
        match frame {
            Frame::Ping => Ok(None),
            Frame::Lanes(count) if self.greeted => self.widen(count).map(|()| None),
            Frame::Error(json) => Err(self.reported(&json)),
            frame => Ok(Some(Received::Frame(frame))),
        }
    }

    fn widen(&mut self, count: u8) -> Result<()> {
        let lanes = self.lanes.take_announced(count);
        let lanes = lanes.map_err(|e| e.context(&self.peer))?;
        let streams = lanes
            .into_iter()
            .map(|fd| StreamReader::new(fd, self.stop.clone()))
            .collect::<Result<_>>()?;
        self.stream.widen(streams);
        Ok(())
    }

    fn bad_length(&self, len: u32) -> Error {
        let peer = &self.peer;
        match self.greeted {
            true => Error::new(
                Kind::Protocol,
                format!(
                    "{peer} sent a frame of {len} bytes; at most {} are allowed here",
                    self.frame_max
                ),
            ),
            // Most likely text: a shell's greeting, or another program.
            false => Error::new(
                Kind::Protocol,
                format!("{peer} does not speak this protocol"),
            )
            .advise("what answers there must be this program, and its shell must print nothing"),
        }
    }

    /// The error for a link that ended where a frame was due.
    pub fn vanished(&self) -> Error {
        Error::new(Kind::Remote, format!("{} ended the connection", self.peer))
            .advise("running again is safe, and goes on with what has arrived")
    }

    /// The error for a frame that does not belong here.
    pub fn unexpected(&self, frame: &Frame) -> Error {
        let text = format!("{frame:?}");
        let name = text.split(['(', ' ', '{']).next().unwrap_or_default();
        Error::new(
            Kind::Protocol,
            format!("{} sent {name} out of turn", self.peer),
        )
    }

    /// Fills `head`; false if the stream ends before its first byte.
    fn fill(&mut self, head: &mut [u8]) -> Result<bool> {
        let mut done = 0;
        while done < head.len() {
            match self.stream.read(&mut head[done..]) {
                Ok(0) if done == 0 => return Ok(false),
                Ok(0) => return Err(self.vanished()),
                Ok(n) => done += n,
                Err(e) => return Err(self.io_error(e)),
            }
        }
        Ok(true)
    }

    fn io_error(&self, e: std::io::Error) -> Error {
        match self.stop.is_stopped() {
            true => self.stop.error(),
            false if e.kind() == std::io::ErrorKind::ConnectionReset => self.vanished(),
            false => Error::new(Kind::Remote, format!("lost {}", self.peer)).because(e),
        }
    }

    fn reported(&self, json: &[u8]) -> Error {
        match serde_json::from_slice::<ErrorReport>(json) {
            Ok(report) => report.into_error().context(&self.peer),
            Err(e) => Error::new(
                Kind::Protocol,
                format!("{} sent a malformed error", self.peer),
            )
            .because(e),
        }
    }
}
