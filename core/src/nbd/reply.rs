//! Replies: simple ones, and chunks of structured ones (`doc/proto.md`, "Transmission phase"). No threads and no
//! sockets here, only a stream.

use super::errno::Refusal;
use super::limits::{CHUNKS_MAX, EXTENTS_MAX};
use super::proto;
use super::take::{violation, Take};
use crate::error::Result;
use crate::range::{ByteRange, RangeSet};
use std::io::Read;

/// What was asked of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    /// `NBD_CMD_...`.
    pub(super) command: u16,
    /// `NBD_CMD_FLAG_...`.
    pub(super) flags: u16,
    pub(super) range: ByteRange,
}

impl Request {
    pub(super) fn new(command: u16, range: ByteRange) -> Self {
        Request {
            command,
            flags: 0,
            range,
        }
    }

    /// The 28 bytes that go over the wire, before the data of a write.
    pub(super) fn encode(&self, cookie: u64) -> [u8; 28] {
        let mut bytes = [0; 28];
        bytes[..4].copy_from_slice(&proto::REQUEST_MAGIC.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.flags.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.command.to_be_bytes());
        bytes[8..16].copy_from_slice(&cookie.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.range.start.to_be_bytes());
        bytes[24..].copy_from_slice(&(self.range.len() as u32).to_be_bytes());
        bytes
    }
}

/// A stretch of an export whose bytes have the same status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it is, in bytes of the export. Never empty.
    pub range: ByteRange,
    /// What the flags mean is up to the context.
    pub flags: u32,
}

/// What comes before the payload of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// The number that the request had.
    pub(super) cookie: u64,
    body: Body,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Simple { errno: u32 },
    Chunk { done: bool, kind: u16, len: u32 },
}

impl Header {
    /// The next one; `structured` as it was agreed on.
    pub(super) fn read(input: &mut impl Read, structured: bool) -> Result<Header> {
        let mut take = Take(input);
        match take.u32()? {
            proto::SIMPLE_REPLY_MAGIC => {
                let errno = take.u32()?;
                Ok(Header {
                    cookie: take.u64()?,
                    body: Body::Simple { errno },
                })
            }
            proto::STRUCTURED_REPLY_MAGIC if structured => {
                let flags = take.u16()?;
                let kind = take.u16()?;
                let cookie = take.u64()?;
                let done = flags & proto::REPLY_FLAG_DONE != 0;
                let len = take.u32()?;
                Ok(Header {
                    cookie,
                    body: Body::Chunk { done, kind, len },
                })
            }
            other => Err(violation(format!(
                "it sent {other:#010x} where a reply should begin"
            ))),
        }
    }
}

/// The answer to one request, as far as it has come in.
pub(super) struct Answer {
    request: Request,
    structured: bool,
    /// What a read gives: as many bytes as were asked for. Before all has come, what was in the buffer before.
    data: Vec<u8>,
    /// Which bytes of a read have come, if it comes in chunks.
    covered: RangeSet,
    /// The context whose extents a block status is asked for. Of others only the form is checked.
    context: u32,
    extents: Vec<Extent>,
    /// Contexts whose extents have come.
    contexts_seen: Vec<u32>,
    refusal: Option<Refusal>,
    chunks: u32,
}

impl Answer {
    /// For `request`, which is not [`Answer::to_read`] or [`Answer::to_status`].
    pub(super) fn to(request: Request, structured: bool) -> Self {
        Answer {
            request,
            structured,
            data: Vec::new(),
            covered: RangeSet::new(),
            context: 0,
            extents: Vec::new(),
            contexts_seen: Vec::new(),
            refusal: None,
            chunks: 0,
        }
    }

    /// For a read of as many bytes as `data` has, whatever they are.
    pub(super) fn to_read(request: Request, structured: bool, data: Vec<u8>) -> Self {
        Answer {
            data,
            ..Answer::to(request, structured)
        }
    }

    /// For a block status in the context of this number.
    pub(super) fn to_status(request: Request, structured: bool, context: u32) -> Self {
        Answer {
            context,
            ..Answer::to(request, structured)
        }
    }

    /// Takes in what follows `header`. True: that was all. An error ends the connection.
    pub(super) fn take(&mut self, header: Header, input: &mut impl Read) -> Result<bool> {
        let mut input = Take(input);
        self.chunks += 1;
        let (done, kind, len) = match header.body {
            Body::Simple { errno } => return self.simple(errno, &mut input).map(|()| true),
            Body::Chunk { done, kind, len } => (done, kind, len),
        };
        let read = self.request.command == proto::CMD_READ;
        let status = self.request.command == proto::CMD_BLOCK_STATUS;
        match (kind, len) {
            (proto::REPLY_NONE, 0) if done => {}
            (proto::REPLY_OFFSET_DATA, 9..) if read => {
                let at = input.u64()?;
                input.fill(self.uncovered(at, u64::from(len - 8))?)?;
            }
            (proto::REPLY_OFFSET_HOLE, 12) if read => {
                let at = input.u64()?;
                let len = input.u32()?;
                self.uncovered(at, u64::from(len))?.fill(0);
            }
            (proto::REPLY_BLOCK_STATUS, 12..) if status && len % 8 == 4 => {
                self.status(len / 8, &mut input)?;
            }
            (_, 6..) if kind & proto::REPLY_ERROR_BIT != 0 => {
                self.refused(kind, len, &mut input)?;
            }
            _ => {
                return Err(violation(format!(
                    "it sent a chunk of type {kind} with {len} bytes in answer to command {}",
                    self.request.command
                )))
            }
        }
        if done {
            self.check_whole()?;
        } else if self.chunks >= CHUNKS_MAX {
            return Err(violation(format!(
                "it answered one request with more than {CHUNKS_MAX} chunks"
            )));
        }
        Ok(done)
    }

    fn simple<R: Read>(&mut self, errno: u32, input: &mut Take<R>) -> Result<()> {
        let carries = match self.request.command {
            proto::CMD_READ => self.structured,
            proto::CMD_BLOCK_STATUS => true,
            _ => false,
        };
        if self.chunks > 1 || (carries && errno == 0) {
            return Err(violation(
                "it sent a simple reply where chunks are called for",
            ));
        }
        if errno != 0 {
            self.refusal = Some(Refusal {
                errno,
                text: String::new(),
                offset: None,
            });
        } else if self.request.command == proto::CMD_READ {
            input.fill(&mut self.data)?;
        }
        Ok(())
    }

    /// The part of the data that a chunk at `at` fills; it must be part of what was asked for, and new.
    fn uncovered(&mut self, at: u64, len: u64) -> Result<&mut [u8]> {
        let asked = self.request.range;
        let chunk = ByteRange::new(at, at.saturating_add(len));
        if chunk.is_empty() || chunk.intersection(&asked) != chunk {
            return Err(violation(format!(
                "it sent bytes {chunk} when it was asked for {asked}"
            )));
        }
        if self.covered.within(chunk).next().is_some() {
            return Err(violation(format!("it sent some of bytes {chunk} twice")));
        }
        self.covered.insert(chunk);
        let start = (chunk.start - asked.start) as usize;
        let slice = self.data.get_mut(start..start + chunk.len() as usize);
        slice.ok_or_else(|| violation("it sent more than was asked for"))
    }

    fn status<R: Read>(&mut self, count: u32, input: &mut Take<R>) -> Result<()> {
        let asked = self.request.range;
        let id = input.u32()?;
        if count > EXTENTS_MAX {
            return Err(violation(format!(
                "it sent {count} extents, where {EXTENTS_MAX} are allowed"
            )));
        }
        if self.contexts_seen.contains(&id) {
            return Err(violation(format!(
                "it sent the status of bytes {asked} twice"
            )));
        }
        self.contexts_seen.push(id);
        let mut at = asked.start;
        for _ in 0..count {
            let len = u64::from(input.u32()?);
            let flags = input.u32()?;
            if len == 0 || at >= asked.end {
                return Err(violation(format!(
                    "it sent an extent of {len} bytes at byte {at} when it was asked for {asked}"
                )));
            }
            let range = ByteRange::new(at, at.saturating_add(len));
            at = range.end;
            match self.extents.last_mut() {
                _ if id != self.context => {}
                Some(last) if last.flags == flags => last.range.end = range.end,
                _ => self.extents.push(Extent { range, flags }),
            }
        }
        Ok(())
    }

    fn refused<R: Read>(&mut self, kind: u16, len: u32, input: &mut Take<R>) -> Result<()> {
        let errno = input.u32()?;
        let text_len = input.u16()?;
        let rest = (len - 6).checked_sub(u32::from(text_len));
        let has_offset = kind == proto::REPLY_ERROR_OFFSET;
        let Some(rest) = rest.filter(|rest| !has_offset || *rest == 8) else {
            return Err(violation(format!(
                "it sent an error of {len} bytes with a text of {text_len}"
            )));
        };
        let text = input.text(usize::from(text_len))?;
        let offset = match has_offset {
            true => Some(input.u64()?),
            false => {
                // Types that are not known yet may say more.
                if rest > 64 {
                    return Err(violation(format!("it sent an error of {len} bytes")));
                }
                input.fill(&mut vec![0; rest as usize])?;
                None
            }
        };
        if errno == 0 {
            return Err(violation("it sent an error without a number"));
        }
        self.refusal.get_or_insert(Refusal {
            errno,
            text,
            offset,
        });
        Ok(())
    }

    /// After the last chunk: either an error was told, or all that was asked for has come.
    fn check_whole(&self) -> Result<()> {
        let asked = self.request.range;
        let missing = match self.request.command {
            proto::CMD_READ => self.covered.total() != asked.len(),
            proto::CMD_BLOCK_STATUS => self.extents.is_empty(),
            _ => false,
        };
        match missing && self.refusal.is_none() {
            true => Err(violation(format!(
                "it did not send all it was asked for of bytes {asked}"
            ))),
            false => Ok(()),
        }
    }

    /// What came: the bytes of a read, or the extents of a status; or the server's error.
    pub(super) fn finish(self) -> std::result::Result<Done, Refusal> {
        match self.refusal {
            Some(refusal) => Err(refusal),
            None => Ok(Done {
                data: self.data,
                extents: self.extents,
            }),
        }
    }
}

/// What came of a request that was done.
pub(super) struct Done {
    /// All that a read asked for.
    pub(super) data: Vec<u8>,
    /// What a block status gives: from the first byte that was asked about, without gaps, and at least one.
    pub(super) extents: Vec<Extent>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_never_a_simple_reply() {
        let request = Request::new(proto::CMD_BLOCK_STATUS, ByteRange::new(0, 4096));
        let mut reply = proto::SIMPLE_REPLY_MAGIC.to_be_bytes().to_vec();
        reply.extend([0; 12]);
        for structured in [false, true] {
            let input = &mut &reply[..];
            let header = Header::read(input, structured).unwrap();
            let mut answer = Answer::to_status(request, structured, 1);
            assert!(answer.take(header, input).is_err());
        }
    }
}
