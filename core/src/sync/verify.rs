//! Verification: what was written is read again from the medium and must have the digests it was
//! written with. Digests are kept per group of segments, so memory stays small however much was written.

use super::failure::Failure;
use super::{segment, Params};
use crate::digest::{self, Digest, ImageDigest};
use crate::error::{Error, Kind, Result};
use crate::image::Image;
use crate::range::{ByteRange, RangeSet};

/// Patched segments whose digests are kept as one.
const GROUP: usize = 256;

/// The segments that were patched, in ascending order.
pub(super) struct Touched {
    params: Params,
    groups: Vec<Group>,
    open: Option<(ImageDigest, usize)>,
}

struct Group {
    segments: RangeSet,
    digest: Option<Digest>,
}

impl Touched {
    pub(super) fn new(params: &Params) -> Self {
        Touched {
            params: *params,
            groups: Vec::new(),
            open: None,
        }
    }

    /// Notes that segment `index` was given `digest`. Indices must ascend.
    pub(super) fn patched(&mut self, index: u64, digest: Option<Digest>) {
        if !self.params.verify {
            return;
        }
        let (hash, count) = self.open.get_or_insert_with(|| {
            self.groups.push(Group {
                segments: RangeSet::new(),
                digest: None,
            });
            (self.params.image_digest(), 0)
        });
        hash.add(index, digest);
        *count += 1;
        let full = *count == GROUP;
        if let Some(group) = self.groups.last_mut() {
            group.segments.insert(ByteRange::new(index, index + 1));
        }
        if full {
            self.close();
        }
    }

    fn close(&mut self) {
        if let (Some((hash, _)), Some(group)) = (self.open.take(), self.groups.last_mut()) {
            group.digest = Some(hash.finish(0));
        }
    }

    /// Reads all of it again; returns how many bytes were found right.
    pub(super) fn verify(
        &mut self,
        image: &dyn Image,
        params: &Params,
        failure: &Failure,
    ) -> Result<u64> {
        self.close();
        image.read_from_medium()?;
        let geometry = &params.geometry;
        let pool = geometry.buffers();
        let mut verified = 0;
        for group in &self.groups {
            let mut hash = params.image_digest();
            for index in group.segments.iter().flat_map(|r| r.start..r.end) {
                failure.check()?;
                let data = segment::read(image, geometry, index, &pool)?;
                let digest =
                    digest::segment(params.hash, data.bytes(), geometry.leaf_bytes() as usize);
                hash.add(index, digest);
                verified += data.len as u64;
            }
            if group.digest != Some(hash.finish(0)) {
                let first = group.segments.iter().next().map_or(0, |r| r.start);
                let end = group.segments.iter().last().map_or(0, |r| r.end);
                return Err(Error::new(
                    Kind::Digest,
                    format!(
                        "{} does not hold what was written to it, somewhere in bytes {}",
                        image.name(),
                        geometry.span(first, end)
                    ),
                )
                .advise("the disk or its controller is failing; do not use this copy"));
            }
        }
        Ok(verified)
    }
}
