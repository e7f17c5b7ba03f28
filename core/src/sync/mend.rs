//! Single segments, sent to put right what is damaged: each only if it is exactly what it should be.

use super::apply::{Applier, Base};
use super::compare::Patcher;
use super::failure::Failure;
use super::pack::Level;
use super::table::DigestTable;
use super::verify::Touched;
use super::{segment, Meter, Params};
use crate::digest::{self, Digest};
use crate::error::{Error, Kind, Result};
use crate::image::Image;
use crate::wire::{limits, Frame, Link, Received, Unpacker};

/// What a frame has where a sync has a digest.
const NONE: Digest = Digest([0; 32]);

/// Sends those of the `wanted` segments that `image` still has with these digests. Tells which these were, once the
/// other side has them on the medium.
pub fn send(
    image: &dyn Image,
    params: &Params,
    link: &mut Link,
    wanted: &[(u64, Option<Digest>)],
) -> Result<Vec<u64>> {
    link.reader.set_frame_max(limits::CONTROL_FRAME_MAX);
    let geometry = &params.geometry;
    let level = Level::new(params);
    let mut patcher = Patcher::new(params, &level);
    let pool = geometry.buffers();
    let mut sent = Vec::new();
    for (index, wanted) in wanted {
        link.writer.stop().check()?;
        let data = segment::read(image, geometry, *index, &pool)?;
        let found = digest::segment(params.hash, data.bytes(), geometry.leaf_bytes() as usize);
        if found == *wanted {
            let patch = patcher.whole(*index, &data, found)?;
            link.writer.send(&Frame::Patch(patch))?;
            sent.push(*index);
        }
    }
    link.writer.send(&Frame::Done(NONE, Vec::new()))?;
    link.writer.flush()?;
    match link.reader.receive()? {
        Received::Frame(Frame::Finished(..)) => Ok(sent),
        Received::Frame(other) => Err(link.reader.unexpected(&other)),
        Received::End => Err(link.reader.vanished()),
    }
}

/// Takes segments in. A segment that is not what `table` says ends it before a byte of it is written.
pub fn receive(
    image: &dyn Image,
    params: &Params,
    link: &mut Link,
    table: &DigestTable,
) -> Result<()> {
    let received = take(image, params, link, table);
    if let Err(error) = &received {
        link.writer.report(error);
    }
    received?;
    link.writer.send(&Frame::Finished(NONE, Vec::new()))?;
    link.writer.flush()
}

fn take(image: &dyn Image, params: &Params, link: &mut Link, table: &DigestTable) -> Result<()> {
    let geometry = &params.geometry;
    let frame_max = (geometry.segment_bytes() + 4096).max(limits::CONTROL_FRAME_MAX);
    link.reader.set_frame_max(frame_max);
    let failure = Failure::new(&[link]);
    let meter = Meter::new();
    let applier = Applier::new(image, params, &meter);
    let mut touched = Touched::new(params);
    let mut unpacker = Unpacker::default();
    let mut next = 0;
    loop {
        match link.reader.receive()? {
            Received::Frame(Frame::Patch(patch)) => {
                let index = patch.segment;
                if !(next..geometry.segments()).contains(&index) {
                    return Err(Error::new(Kind::Protocol, "a segment came out of turn"));
                }
                if table.get(index)? != patch.digest {
                    return Err(Error::new(
                        Kind::Digest,
                        format!("segment {index} came as something else than it was"),
                    ));
                }
                applier.apply(&patch, Base::Zeros, &mut unpacker)?;
                touched.patched(index, patch.digest);
                next = index + 1;
            }
            Received::Frame(Frame::Done(..)) => break,
            Received::Frame(other) => return Err(link.reader.unexpected(&other)),
            Received::End => return Err(link.reader.vanished()),
        }
    }
    image.flush()?;
    image.check_unchanged()?;
    touched.verify(image, params, &failure).map(drop)
}
