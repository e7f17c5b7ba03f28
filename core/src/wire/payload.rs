//! The bytes of a patch as they travel: as they are, or compressed.

use crate::error::{Error, Kind, Result};
use zstd::bulk::Decompressor;

/// A patch's bytes, packed one way or the other. The number before each is its encoding byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// 0: as they are.
    Stored(Vec<u8>),
    /// 1: one Zstandard frame (RFC 8878).
    Zstd(Vec<u8>),
}

impl Payload {
    /// Bytes that it takes in a frame, its encoding byte not counted.
    pub fn packed_len(&self) -> usize {
        let (Payload::Stored(bytes) | Payload::Zstd(bytes)) = self;
        bytes.len()
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let (kind, bytes) = match self {
            Payload::Stored(bytes) => (0, bytes),
            Payload::Zstd(bytes) => (1, bytes),
        };
        out.push(kind);
        out.extend_from_slice(bytes);
    }

    pub(super) fn decode(kind: u8, bytes: &[u8]) -> Result<Payload> {
        match kind {
            0 => Ok(Payload::Stored(bytes.to_vec())),
            1 => Ok(Payload::Zstd(bytes.to_vec())),
            _ => Err(malformed("has an unknown encoding")),
        }
    }
}

/// Gives the bytes of payloads, one after the other.
#[derive(Default)]
pub struct Unpacker {
    decompressor: Option<Decompressor<'static>>,
    bytes: Vec<u8>,
}

impl Unpacker {
    /// The bytes of `payload`, which must be `len`; no more than that is ever made of it.
    pub fn unpack<'a>(&'a mut self, payload: &'a Payload, len: usize) -> Result<&'a [u8]> {
        if let Payload::Stored(bytes) = payload {
            check_len(bytes.len(), len)?;
            return Ok(bytes);
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.resize(bytes.len().max(len), 0);
        let unpacked = self.unpack_into(payload, &mut bytes[..len]);
        self.bytes = bytes;
        unpacked?;
        Ok(&self.bytes[..len])
    }

    /// Fills `place` with the bytes of `payload`, which must be as many. After an error there may be anything in it.
    pub fn unpack_into(&mut self, payload: &Payload, place: &mut [u8]) -> Result<()> {
        match payload {
            Payload::Stored(bytes) => {
                check_len(bytes.len(), place.len())?;
                place.copy_from_slice(bytes);
                Ok(())
            }
            Payload::Zstd(packed) => {
                let bad = |e| malformed("cannot be decompressed").because(e);
                let decompressor = match &mut self.decompressor {
                    Some(decompressor) => decompressor,
                    none => none.insert(Decompressor::new().map_err(bad)?),
                };
                let made = decompressor.decompress_to_buffer(packed, place);
                check_len(made.map_err(bad)?, place.len())
            }
        }
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Payload::Stored(bytes)
    }
}

fn check_len(is: usize, due: usize) -> Result<()> {
    match is == due {
        true => Ok(()),
        false => Err(malformed("has not as many bytes as it changes")),
    }
}

fn malformed(how: &str) -> Error {
    Error::new(Kind::Protocol, format!("a malformed patch: it {how}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_comes_out() {
        let bytes: Vec<u8> = (0..1 << 20).map(|i: u32| (i >> 8) as u8).collect();
        let packed = zstd::bulk::compress(&bytes, 3).unwrap();
        assert!(packed.len() < bytes.len() / 10);
        let payload = Payload::Zstd(packed.clone());
        let mut unpacker = Unpacker::default();
        for len in [0, 1, bytes.len() - 1, bytes.len() + 1] {
            assert!(unpacker.unpack(&payload, len).is_err(), "{len}");
        }
        assert_eq!(unpacker.unpack(&payload, bytes.len()).unwrap(), bytes);
        for cut in [0, 1, packed.len() / 2, packed.len() - 1] {
            let cut = Payload::Zstd(packed[..cut].to_vec());
            assert!(unpacker.unpack(&cut, bytes.len()).is_err());
        }
        let mut more = packed.clone();
        more.extend_from_slice(&packed);
        let more = Payload::Zstd(more);
        assert!(unpacker.unpack(&more, bytes.len()).is_err());
    }

    #[test]
    fn a_bomb_makes_no_more_than_is_asked_for() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
        assert!(bomb.len() < 16 << 10);
        let bomb = Payload::Zstd(bomb);
        let mut unpacker = Unpacker::default();
        assert!(unpacker.unpack(&bomb, 4096).is_err());
        assert_eq!(unpacker.bytes.len(), 4096);
    }
}
