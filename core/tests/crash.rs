//! The target's disk loses power in the middle of a sync. What it had not flushed is there in part, in any
//! order and torn at its sectors. The next sync makes it equal all the same, and a sync that reported
//! success has lost nothing.
#![allow(clippy::unwrap_used)]

use rblocksync::digest::HashKind;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::fingerprint::Key;
use rblocksync::image::{Image, MemoryImage};
use rblocksync::range::ByteRange;
use rblocksync::stop::Stop;
use rblocksync::sync::{run_source, run_target, Compress, Geometry, Meter, Params};
use rblocksync::wire::Link;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

const LEAF: usize = 4096;
const SECTOR: usize = 512;
/// Three segments, the last of them short and not a multiple of a leaf.
const SIZE: usize = (2 << 20) + 5 * LEAF + 700;

/// An image whose n-th change, and all that comes after it, fails.
struct CrashDisk {
    live: MemoryImage,
    state: Mutex<State>,
}

struct State {
    durable: Vec<u8>,
    /// Changes since the last flush, in order.
    pending: Vec<(usize, Vec<u8>)>,
    changes_left: usize,
}

impl CrashDisk {
    fn new(content: &[u8], changes_left: usize) -> CrashDisk {
        CrashDisk {
            live: image(content),
            state: Mutex::new(State {
                durable: content.to_vec(),
                pending: Vec::new(),
                changes_left,
            }),
        }
    }

    fn change(&self, change: Option<(u64, Vec<u8>)>) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        let Some(left) = state.changes_left.checked_sub(1) else {
            return Err(Error::new(Kind::Io, "the power is gone"));
        };
        state.changes_left = left;
        match change {
            Some((offset, bytes)) => state.pending.push((offset as usize, bytes)),
            None => {
                state.durable = self.live.bytes();
                state.pending.clear();
            }
        }
        Ok(())
    }

    /// What is found when the power is back: of what was not flushed, some sectors.
    fn after_power_loss(&self, random: &mut Random) -> Vec<u8> {
        let state = self.state.lock().unwrap();
        let mut found = state.durable.clone();
        for (offset, bytes) in &state.pending {
            for (i, sector) in bytes.chunks(SECTOR).enumerate() {
                if random.next().is_multiple_of(2) {
                    let at = offset + i * SECTOR;
                    found[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
        found
    }
}

impl Image for CrashDisk {
    fn size(&self) -> u64 {
        self.live.size()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.live.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.change(Some((offset, buf.to_vec())))?;
        self.live.write_at(buf, offset)
    }
    fn zero(&self, range: ByteRange) -> Result<()> {
        self.change(Some((range.start, vec![0; range.len() as usize])))?;
        self.live.zero(range)
    }
    fn next_data(&self, offset: u64) -> Result<Option<ByteRange>> {
        self.live.next_data(offset)
    }
    fn flush(&self) -> Result<()> {
        self.change(None)
    }
    fn check_unchanged(&self) -> Result<()> {
        Ok(())
    }
    fn read_from_medium(&self) -> Result<()> {
        Ok(())
    }
    fn name(&self) -> String {
        "crash disk".into()
    }
}

/// xorshift64: the seed is the whole of a case.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn image(content: &[u8]) -> MemoryImage {
    let image = MemoryImage::new(content.len());
    for (i, leaf) in content.chunks(LEAF).enumerate() {
        if leaf.iter().any(|byte| *byte != 0) {
            image.write_at(leaf, (i * LEAF) as u64).unwrap();
        }
    }
    image
}

/// Leaves of zeros and of a few values, so that two such images have holes, equal and different leaves.
fn content(random: &mut Random) -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    for leaf in bytes.chunks_mut(LEAF) {
        leaf.fill((random.next() >> 32) as u8 % 4);
    }
    bytes
}

fn sync(src: &dyn Image, dst: &dyn Image) -> Result<()> {
    let params = Params {
        geometry: Geometry::new(SIZE as u64, LEAF as u32).unwrap(),
        hash: HashKind::Blake3,
        dry_run: false,
        verify: false,
        bytes_per_s_max: None,
        compress: Compress::Auto,
        threads: None,
        leaf_key: Key([7; 16]),
        map: false,
        first: 0,
        delta: None,
    };
    let (a, b) = UnixStream::pair().unwrap();
    let link = |end: UnixStream| {
        let input = end.try_clone().unwrap();
        Link::handshake(input.into(), end.into(), "test", "peer", Stop::new())
    };
    std::thread::scope(|scope| {
        let target = scope.spawn(|| run_target(dst, &params, &mut link(b)?, &Meter::new(), None));
        let source = run_source(src, &params, &mut link(a)?, &Meter::new(), None);
        let target = target.join().unwrap();
        assert_eq!(source.is_ok(), target.is_ok(), "the ends must agree");
        target.map(|_| ())
    })
}

#[test]
fn any_crash_is_made_good_by_the_next_sync() {
    let mut random = Random(0x5eed_0001);
    let (mut crashes, mut successes) = (0, 0);
    for case in 0..6 {
        let (old, new) = (content(&mut random), content(&mut random));
        let src = image(&new);
        for changes in (0..).step_by(37) {
            let disk = CrashDisk::new(&old, changes);
            let result = sync(&src, &disk);
            let found = disk.after_power_loss(&mut random);
            if result.is_ok() {
                successes += 1;
                assert!(found == new, "case {case}: success was reported too early");
                break;
            }
            crashes += 1;
            let again = CrashDisk::new(&found, usize::MAX);
            sync(&src, &again).unwrap();
            let found = again.after_power_loss(&mut random);
            assert!(found == new, "case {case}, crash at change {changes}");
        }
    }
    assert!(successes == 6 && crashes > 20, "{successes} and {crashes}");
}
