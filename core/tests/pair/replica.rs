//! A replica that is in step with its source, and follows it.
#![allow(clippy::unwrap_used)]

use crate::pair::{self, Wire};
use rblocksync::error::Result;
use rblocksync::image::{Image, MemoryImage};
use rblocksync::range::{ByteRange, RangeSet};
use rblocksync::sync::{
    run_delta_source, run_source, run_target, Compress, DeltaMode, DigestTable, Geometry, Meter,
    Params, Since, Summary, Tuning,
};
use uuid::Uuid;

pub const GRAIN: u64 = 64 << 10;
pub const LEAF: usize = 4096;

/// A replica that is in step with its source, and the source as it is now.
pub struct Replica {
    pub dir: tempfile::TempDir,
    pub params: Params,
    pub was: MemoryImage,
    pub is: MemoryImage,
    pub changed: RangeSet,
    pub target: MemoryImage,
    pub tables: [DigestTable; 2],
}

impl Replica {
    pub fn new(mode: DeltaMode, len: usize) -> Replica {
        let bytes: Vec<u8> = (0..len)
            .map(|i| match i / LEAF % 7 {
                0 => 0,
                leaf => (i / 13 + leaf) as u8,
            })
            .collect();
        Replica::of(mode, &bytes)
    }

    /// With holes where these bytes are zeros.
    pub fn of(mode: DeltaMode, bytes: &[u8]) -> Replica {
        let len = bytes.len();
        let image = || {
            let image = MemoryImage::new(len);
            for (i, leaf) in bytes.chunks(LEAF).enumerate() {
                if leaf.iter().any(|b| *b != 0) {
                    image.write_at(leaf, (i * LEAF) as u64).unwrap();
                }
            }
            image
        };
        let tuning = Tuning {
            verify: true,
            compress: Compress::Off,
            ..Tuning::default()
        };
        let params = Params::new(Geometry::new(len as u64, 4096).unwrap(), &tuning);
        let dir = tempfile::tempdir().unwrap();
        let table = |name| {
            let point = Uuid::nil();
            DigestTable::create(&dir.path().join(name), params.hash, params.geometry, point)
                .unwrap()
        };
        let tables = [table("source"), table("target")];
        let (was, target) = (image(), MemoryImage::new(len));
        let (done, _) = pair::run(
            Wire::SOUND,
            |link| run_source(&was, &params, link, &Meter::new(), Some(&tables[0])),
            |link| run_target(&target, &params, link, &Meter::new(), Some(&tables[1])),
        );
        done.unwrap();
        Replica {
            dir,
            params: Params {
                delta: Some(mode),
                ..params
            },
            is: image(),
            was,
            changed: RangeSet::new(),
            target,
            tables,
        }
    }

    /// What a guest does; it is known by whole grains.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.is.write_at(bytes, offset as u64).unwrap();
        let end = (offset + bytes.len()) as u64;
        let range = ByteRange::new(offset as u64, end).align_out(GRAIN);
        let all = ByteRange::new(0, self.is.size());
        self.changed.insert(range.intersection(&all));
    }

    pub fn sync(&self, params: &Params, wire: Wire) -> (Result<Summary>, Result<Summary>) {
        self.sync_of(&self.is, &self.target, params, wire)
    }

    /// The same with these images in the place of ours.
    pub fn sync_of(
        &self,
        is: &dyn Image,
        target: &dyn Image,
        params: &Params,
        wire: Wire,
    ) -> (Result<Summary>, Result<Summary>) {
        let since = Since {
            image: match params.delta {
                Some(DeltaMode::Image) => Some(&self.was),
                _ => None,
            },
            changed: &self.changed,
        };
        let meters = [Meter::new(), Meter::new()];
        let done = pair::run(
            wire,
            |link| run_delta_source(is, &since, params, link, &meters[0], &self.tables[0]),
            |link| run_target(target, params, link, &meters[1], Some(&self.tables[1])),
        );
        if let Ok(done) = &done.0 {
            for progress in meters.map(|meter| meter.read()) {
                let seen = (progress.changed, progress.zeroed);
                assert_eq!(seen, (done.changed, done.zeroed));
            }
        }
        done
    }

    /// The digest that a sync of all of it has.
    pub fn digest(&self) -> rblocksync::digest::Digest {
        let params = Params {
            delta: None,
            ..self.params
        };
        let (copy, meter) = (MemoryImage::new(self.is.size() as usize), Meter::new());
        let (done, _) = pair::run(
            Wire::SOUND,
            |link| run_source(&self.is, &params, link, &meter, None),
            |link| run_target(&copy, &params, link, &Meter::new(), None),
        );
        done.unwrap().digest
    }
}
