//! One byte stream over several: cut into chunks that go over the streams in turn.
//!
//! The turn is fixed, so that nothing has to be put in order at the other end, and a stream that is
//! held up holds up the others: they are alike. With one stream there are no chunks.

use super::stream::{StreamReader, StreamWriter};
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::time::Duration;

/// Most bytes of one chunk, its length field not counted.
const CHUNK_BYTES_MAX: usize = 64 << 10;
/// Bytes read at once, if they are there.
const READ_BYTES: usize = 256 << 10;

/// The reading end.
pub(super) struct Inlet {
    streams: Vec<BufReader<StreamReader>>,
    /// The stream whose turn it is.
    at: usize,
    /// Bytes left of the current chunk.
    left: usize,
}

/// The writing end.
pub(super) struct Outlet {
    streams: Vec<StreamWriter>,
    at: usize,
    chunk: Vec<u8>,
}

impl Inlet {
    pub(super) fn new(stream: StreamReader) -> Self {
        Inlet {
            streams: vec![BufReader::with_capacity(READ_BYTES, stream)],
            at: 0,
            left: 0,
        }
    }

    /// From here on chunks come, the first of them on the stream that was there before.
    pub(super) fn widen(&mut self, more: Vec<StreamReader>) {
        let limit = self.current().silence_max();
        for mut stream in more {
            stream.set_silence_max(limit);
            let buffered = BufReader::with_capacity(CHUNK_BYTES_MAX, stream);
            self.streams.push(buffered);
        }
    }

    fn is_wide(&self) -> bool {
        self.streams.len() > 1
    }

    /// The stream that the next byte comes from.
    pub(super) fn current(&self) -> &StreamReader {
        self.streams[self.at].get_ref()
    }

    /// The same, to be changed.
    pub(super) fn current_mut(&mut self) -> &mut StreamReader {
        self.streams[self.at].get_mut()
    }

    /// Whether bytes lie ready that need no waiting.
    pub(super) fn has_buffered(&self) -> bool {
        !self.streams[self.at].buffer().is_empty()
    }

    pub(super) fn set_silence_max(&mut self, limit: Duration) {
        let streams = self.streams.iter_mut();
        streams.for_each(|stream| stream.get_mut().set_silence_max(limit));
    }

    /// Reads a chunk's length; false at the end of the stream.
    fn next_chunk(&mut self) -> io::Result<bool> {
        let stream = &mut self.streams[self.at];
        let mut head = [0; 4];
        match stream.read(&mut head)? {
            0 => return Ok(false),
            n => stream.read_exact(&mut head[n..]).map_err(cut_off)?,
        }
        self.left = u32::from_le_bytes(head) as usize;
        match (1..=CHUNK_BYTES_MAX).contains(&self.left) {
            true => Ok(true),
            false => Err(io::Error::new(
                ErrorKind::InvalidData,
                format!("a chunk of {} bytes", self.left),
            )),
        }
    }
}

impl Read for Inlet {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if !self.is_wide() {
            return self.streams[0].read(buf);
        }
        if buf.is_empty() || (self.left == 0 && !self.next_chunk()?) {
            return Ok(0);
        }
        let want = buf.len().min(self.left);
        let got = self.streams[self.at].read(&mut buf[..want])?;
        if got == 0 {
            return Err(cut_off(ErrorKind::UnexpectedEof.into()));
        }
        self.left -= got;
        if self.left == 0 {
            self.at = (self.at + 1) % self.streams.len();
        }
        Ok(got)
    }
}

/// A stream that ends within a chunk is a link that broke off.
fn cut_off(e: io::Error) -> io::Error {
    match e.kind() {
        ErrorKind::UnexpectedEof => ErrorKind::ConnectionReset.into(),
        _ => e,
    }
}

impl Outlet {
    pub(super) fn new(stream: StreamWriter) -> Self {
        Outlet {
            streams: vec![stream],
            at: 0,
            chunk: Vec::new(),
        }
    }

    /// From here on chunks go out, the first of them on the stream that was there before.
    pub(super) fn widen(&mut self, more: Vec<StreamWriter>) {
        let limit = self.streams[self.at].stall_max();
        for mut stream in more {
            stream.set_stall_max(limit);
            self.streams.push(stream);
        }
    }

    pub(super) fn set_stall_max(&mut self, limit: Duration) {
        let streams = self.streams.iter_mut();
        streams.for_each(|stream| stream.set_stall_max(Some(limit)));
    }

    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let [stream] = self.streams.as_mut_slice() {
            return stream.write_all(bytes);
        }
        for piece in bytes.chunks(CHUNK_BYTES_MAX) {
            self.chunk.clear();
            self.chunk
                .extend_from_slice(&(piece.len() as u32).to_le_bytes());
            self.chunk.extend_from_slice(piece);
            self.streams[self.at].write_all(&self.chunk)?;
            self.at = (self.at + 1) % self.streams.len();
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::stop::Stop;
    use std::os::unix::net::UnixStream;

    fn ways(count: usize) -> (Vec<StreamWriter>, Vec<StreamReader>) {
        (0..count)
            .map(|_| {
                let (a, b) = UnixStream::pair().unwrap();
                (
                    StreamWriter::new(a.into(), Stop::new()).unwrap(),
                    StreamReader::new(b.into(), Stop::new()).unwrap(),
                )
            })
            .unzip()
    }

    fn joined(count: usize) -> (Outlet, Inlet) {
        let (mut writers, mut readers) = ways(count);
        let mut outlet = Outlet::new(writers.remove(0));
        let mut inlet = Inlet::new(readers.remove(0));
        outlet.widen(writers);
        inlet.widen(readers);
        (outlet, inlet)
    }

    #[test]
    fn what_goes_in_comes_out_in_order_over_all_streams() {
        for count in [1, 2, 5] {
            let (mut outlet, mut inlet) = joined(count);
            let bytes: Vec<u8> = (0..3 << 20).map(|i: u32| (i % 251) as u8).collect();
            let sent = bytes.clone();
            let writer = std::thread::spawn(move || {
                let mut rest = sent.as_slice();
                for len in [1, 4, 65_535, 65_536, 65_537, 300_000].iter().cycle() {
                    let (head, tail) = rest.split_at(rest.len().min(*len));
                    outlet.write_all(head).unwrap();
                    rest = tail;
                    if rest.is_empty() {
                        break;
                    }
                }
            });
            let mut back = Vec::new();
            inlet.read_to_end(&mut back).unwrap();
            writer.join().unwrap();
            assert!(back == bytes, "{count}");
        }
    }

    #[test]
    fn one_stream_becomes_several_in_the_middle() {
        let (mut writers, mut readers) = ways(3);
        let mut outlet = Outlet::new(writers.remove(0));
        let mut inlet = Inlet::new(readers.remove(0));
        outlet.write_all(b"alone").unwrap();
        outlet.widen(writers);
        outlet.write_all(b"together").unwrap();
        outlet.write_all(b"again").unwrap();
        let mut text = [0; 5];
        inlet.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"alone");
        inlet.widen(readers);
        drop(outlet);
        let mut rest = String::new();
        inlet.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "togetheragain");
    }

    #[test]
    fn broken_chunks_are_errors() {
        for (raw, kind) in [
            (&[0, 0, 0, 0][..], ErrorKind::InvalidData),
            (&[1, 0, 1, 0], ErrorKind::InvalidData),
            (&[4, 0, 0, 0, 7], ErrorKind::ConnectionReset),
            (&[4, 0], ErrorKind::ConnectionReset),
        ] {
            let (mut writers, mut readers) = ways(2);
            writers[0].write_all(raw).unwrap();
            let mut inlet = Inlet::new(readers.remove(0));
            inlet.widen(readers);
            drop(writers);
            let e = inlet.read_to_end(&mut Vec::new()).unwrap_err();
            assert_eq!(e.kind(), kind, "{raw:?}");
        }
    }
}
