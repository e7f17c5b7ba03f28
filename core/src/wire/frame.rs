//! The frames and their encoding.

use super::codec::{put_varint, Fields};
use super::hello::Hello;
use super::limits;
use super::payload::Payload;
use crate::digest::{self, Digest, GrainSet, GrainSum, HashKind, LeafSet};
use crate::error::{Error, Kind, Result};

/// One message. The number before each is its type byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// 0x01: first frame of each side.
    Hello(Hello),
    /// 0x02: the sender has failed; JSON of kind, message, advice. Last frame of its side.
    Error(Vec<u8>),
    /// 0x03: nothing but a sign of life.
    Ping,
    /// 0x04: what follows comes in chunks over this stream and as many more in turn.
    Lanes(u8),
    /// 0x10: driver to agent: a request, JSON.
    Request(Vec<u8>),
    /// 0x11: agent to driver: the answer to the oldest unanswered request, JSON.
    Reply(Vec<u8>),
    /// 0x20: source to target: which segments of a stretch hold data.
    Extents(Extents),
    /// 0x21: target to source: what it has in the next segments of those listed.
    Segments(Vec<Entry>),
    /// 0x22: source to target: send the fingerprints of this segment's leaves.
    Want(u64),
    /// 0x23: target to source: fingerprints of a segment's leaves, of the nonzero ones only.
    Leaves {
        /// Index of the segment.
        segment: u64,
        /// Which leaves are not zero.
        present: LeafSet,
        /// Their fingerprints in order.
        fingerprints: Vec<u64>,
    },
    /// 0x24: source to target: the next `0` segments are as the target has them.
    Same(u32),
    /// 0x25: source to target: the next segment is to be changed.
    Patch(Patch),
    /// 0x28: source to target: a segment is to be changed of which the target is not to read anything.
    Delta(Delta),
    /// 0x29: source to target: of these segments only these grains matter; read them.
    Grains(Vec<Grains>),
    /// 0x2a: target to source: what it has in the grains that were announced next.
    Held(Held),
    /// 0x26: source to target: all segments are settled. Image digest, then statistics as JSON.
    Done(Digest, Vec<u8>),
    /// 0x27: target to source: all is flushed. Image digest, then statistics as JSON.
    Finished(Digest, Vec<u8>),
}

/// Which segments in `start..end` hold data on the source; the others are zeros there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extents {
    /// First segment of the stretch.
    pub start: u64,
    /// Segment after the last of the stretch.
    pub end: u64,
    /// Segments without data and then segments with data, in turn, from `start`.
    pub runs: Vec<(u64, u64)>,
}

impl Extents {
    /// The segments that hold data, ascending.
    pub fn segments(&self) -> impl Iterator<Item = u64> + '_ {
        let mut at = self.start;
        self.runs.iter().flat_map(move |(skip, take)| {
            let first = at + skip;
            at = first + take;
            first..at
        })
    }
}

/// What the target has in one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Nothing: a hole.
    Absent,
    /// Allocated, and all zeros.
    Zero,
    /// Data with this segment digest.
    Digest(Digest),
}

/// How a segment is to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// Index of the segment.
    pub segment: u64,
    /// Digest of the segment after the change, or of those of its grains that were announced; `None` if that is then all
    /// zeros.
    pub digest: Option<Digest>,
    /// Leaves whose new bytes follow in `data`.
    pub changed: LeafSet,
    /// Leaves that become zeros.
    pub zeroed: LeafSet,
    /// The bytes of the `changed` leaves, in order.
    pub data: Payload,
}

/// How a segment is to be changed whose other leaves the target does not look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// What the segment's digest grows by.
    pub shift: GrainSum,
    /// The change; its digest is that of [`Delta::proof`].
    pub patch: Patch,
}

impl Delta {
    /// The digest by which the target knows that the change arrived as it was made. `leaves` are the bytes of the
    /// changed leaves, in order.
    pub fn proof(&self, kind: HashKind, leaves: &[&[u8]]) -> Digest {
        let patch = &self.patch;
        let head: [&[u8]; 4] = [
            &patch.segment.to_le_bytes(),
            &self.shift.0,
            &patch.changed.0,
            &patch.zeroed.0,
        ];
        digest::of_pieces(kind, &[&head, leaves].concat())
    }
}

/// Grains of a segment that may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grains {
    /// Index of the segment.
    pub segment: u64,
    /// At least one.
    pub set: GrainSet,
}

/// What the target has in some grains of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Index of the segment.
    pub segment: u64,
    /// What these grains add to the segment's digest.
    pub sum: GrainSum,
    /// Which of their leaves are not zero.
    pub present: LeafSet,
    /// The fingerprints of those, in order.
    pub fingerprints: Vec<u64>,
}

impl Frame {
    /// Appends the frame with its length field.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        self.encode_body(out);
        let len = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        match self {
            Frame::Hello(hello) => {
                out.push(0x01);
                hello.encode(out);
            }
            Frame::Error(json) => put(out, 0x02, json),
            Frame::Ping => out.push(0x03),
            Frame::Lanes(count) => put(out, 0x04, &[*count]),
            Frame::Request(json) => put(out, 0x10, json),
            Frame::Reply(json) => put(out, 0x11, json),
            Frame::Extents(extents) => {
                put(out, 0x20, &extents.start.to_le_bytes());
                out.extend_from_slice(&extents.end.to_le_bytes());
                out.extend_from_slice(&(extents.runs.len() as u32).to_le_bytes());
                for (skip, take) in &extents.runs {
                    put_varint(out, *skip);
                    put_varint(out, *take);
                }
            }
            Frame::Segments(entries) => {
                put(out, 0x21, &(entries.len() as u16).to_le_bytes());
                for entry in entries {
                    match entry {
                        Entry::Absent => out.push(0),
                        Entry::Zero => out.push(1),
                        Entry::Digest(digest) => put(out, 2, &digest.0),
                    }
                }
            }
            Frame::Want(segment) => put(out, 0x22, &segment.to_le_bytes()),
            Frame::Leaves {
                segment,
                present,
                fingerprints,
            } => {
                put(out, 0x23, &segment.to_le_bytes());
                encode_leaves(present, fingerprints, out);
            }
            Frame::Same(count) => put(out, 0x24, &count.to_le_bytes()),
            Frame::Patch(patch) => {
                out.push(0x25);
                encode_patch(patch, out);
            }
            Frame::Delta(delta) => {
                put(out, 0x28, &delta.shift.0);
                encode_patch(&delta.patch, out);
            }
            Frame::Grains(grains) => {
                put(out, 0x29, &(grains.len() as u16).to_le_bytes());
                for Grains { segment, set } in grains {
                    out.extend_from_slice(&segment.to_le_bytes());
                    out.extend_from_slice(&set.0.to_le_bytes());
                }
            }
            Frame::Held(held) => {
                put(out, 0x2a, &held.segment.to_le_bytes());
                out.extend_from_slice(&held.sum.0);
                encode_leaves(&held.present, &held.fingerprints, out);
            }
            Frame::Done(digest, stats) => {
                put(out, 0x26, &digest.0);
                out.extend_from_slice(stats);
            }
            Frame::Finished(digest, stats) => {
                put(out, 0x27, &digest.0);
                out.extend_from_slice(stats);
            }
        }
    }

    /// Decodes what follows the length field: the type byte and the payload.
    pub fn decode(body: &[u8]) -> Result<Frame> {
        let mut fields = Fields::new(body);
        let kind = fields.u8()?;
        let frame = match kind {
            0x01 => return Hello::decode(fields).map(Frame::Hello),
            0x02 => return Ok(Frame::Error(fields.rest().to_vec())),
            0x03 => Frame::Ping,
            0x04 => Frame::Lanes(fields.u8()?),
            0x10 => return Ok(Frame::Request(fields.rest().to_vec())),
            0x11 => return Ok(Frame::Reply(fields.rest().to_vec())),
            0x20 => Frame::Extents(decode_extents(&mut fields)?),
            0x21 => Frame::Segments(decode_entries(&mut fields)?),
            0x22 => Frame::Want(fields.u64()?),
            0x23 => {
                let segment = fields.u64()?;
                let (present, fingerprints) = decode_leaves(&mut fields)?;
                Frame::Leaves {
                    segment,
                    present,
                    fingerprints,
                }
            }
            0x24 => Frame::Same(fields.u32()?),
            0x25 => return decode_patch(fields).map(Frame::Patch),
            0x28 => {
                let shift = GrainSum(fields.digest()?.0);
                let patch = decode_patch(fields)?;
                return Ok(Frame::Delta(Delta { shift, patch }));
            }
            0x29 => Frame::Grains(decode_grains(&mut fields)?),
            0x2a => {
                let segment = fields.u64()?;
                let sum = GrainSum(fields.digest()?.0);
                let (present, fingerprints) = decode_leaves(&mut fields)?;
                Frame::Held(Held {
                    segment,
                    sum,
                    present,
                    fingerprints,
                })
            }
            0x26 => return Ok(Frame::Done(fields.digest()?, fields.rest().to_vec())),
            0x27 => return Ok(Frame::Finished(fields.digest()?, fields.rest().to_vec())),
            other => {
                return Err(Error::new(
                    Kind::Protocol,
                    format!("a frame of unknown type {other:#04x}"),
                ))
            }
        };
        fields.end()?;
        Ok(frame)
    }
}

fn put(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    out.push(kind);
    out.extend_from_slice(bytes);
}

fn encode_leaves(present: &LeafSet, fingerprints: &[u64], out: &mut Vec<u8>) {
    out.extend_from_slice(&present.0);
    out.extend(fingerprints.iter().flat_map(|f| f.to_le_bytes()));
}

fn decode_leaves(fields: &mut Fields) -> Result<(LeafSet, Vec<u64>)> {
    let present = fields.leaf_set()?;
    let fingerprints = (0..present.len())
        .map(|_| fields.u64())
        .collect::<Result<_>>()?;
    Ok((present, fingerprints))
}

fn encode_patch(patch: &Patch, out: &mut Vec<u8>) {
    out.extend_from_slice(&patch.segment.to_le_bytes());
    match patch.digest {
        None => out.push(0),
        Some(digest) => put(out, 1, &digest.0),
    }
    out.extend_from_slice(&patch.changed.0);
    out.extend_from_slice(&patch.zeroed.0);
    patch.data.encode(out);
}

fn decode_extents(fields: &mut Fields) -> Result<Extents> {
    let bad = |why: &str| {
        Err(Error::new(
            Kind::Protocol,
            format!("bad extents frame: {why}"),
        ))
    };
    let (start, end) = (fields.u64()?, fields.u64()?);
    let count = fields.u32()? as usize;
    if end < start || end > limits::SEGMENTS_MAX {
        return bad("it ends before it starts, or far too late");
    }
    if count > limits::RUNS_MAX {
        return bad("too many runs");
    }
    let mut runs = Vec::with_capacity(count);
    let mut at = start;
    for _ in 0..count {
        let (skip, take) = (fields.varint()?, fields.varint()?);
        at = match at.checked_add(skip).and_then(|at| at.checked_add(take)) {
            Some(next) if next <= end && take > 0 => next,
            _ => return bad("its runs go past its end"),
        };
        runs.push((skip, take));
    }
    Ok(Extents { start, end, runs })
}

/// The number of entries of a frame that is a list.
fn decode_count(fields: &mut Fields, what: &str) -> Result<usize> {
    let count = fields.u16()? as usize;
    match count <= limits::ENTRIES_MAX {
        true => Ok(count),
        false => Err(Error::new(
            Kind::Protocol,
            format!("a {what} frame has too many entries"),
        )),
    }
}

fn decode_grains(fields: &mut Fields) -> Result<Vec<Grains>> {
    let count = decode_count(fields, "grains")?;
    (0..count)
        .map(|_| {
            let segment = fields.u64()?;
            let set = GrainSet(fields.u16()?);
            Ok(Grains { segment, set })
        })
        .collect()
}

fn decode_entries(fields: &mut Fields) -> Result<Vec<Entry>> {
    let count = decode_count(fields, "segments")?;
    (0..count)
        .map(|_| match fields.u8()? {
            0 => Ok(Entry::Absent),
            1 => Ok(Entry::Zero),
            2 => Ok(Entry::Digest(fields.digest()?)),
            _ => Err(Error::new(
                Kind::Protocol,
                "a segments frame has an unknown entry",
            )),
        })
        .collect()
}

fn decode_patch(mut fields: Fields) -> Result<Patch> {
    let segment = fields.u64()?;
    let digest = match fields.u8()? {
        0 => None,
        1 => Some(fields.digest()?),
        _ => {
            return Err(Error::new(
                Kind::Protocol,
                "a patch has an unknown digest flag",
            ))
        }
    };
    let (changed, zeroed) = (fields.leaf_set()?, fields.leaf_set()?);
    let encoding = fields.u8()?;
    Ok(Patch {
        segment,
        digest,
        changed,
        zeroed,
        data: Payload::decode(encoding, fields.rest())?,
    })
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
