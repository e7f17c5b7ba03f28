//! Compression of patches on the source: in the workers, at a level that follows the link.

use super::Params;
use crate::error::{Error, Kind, Result};
use crate::wire::Payload;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use zstd::bulk::Compressor;

/// Whether and how patches are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compress {
    /// Not at all.
    Off,
    /// At a level that follows the link: the slower it is, the more time is spent.
    #[default]
    Auto,
    /// Always at this level of Zstandard, 1 to 19.
    Level(u8),
}

/// Highest level of Zstandard that is used.
pub const LEVEL_MAX: u8 = 19;
/// Levels that [`Compress::Auto`] chooses from. Higher ones need too much memory for each thread.
const LEVELS: [i32; 5] = [1, 2, 3, 5, 7];
/// A patch is sent as it is if compression saves less than one part in this many.
const SAVING_MIN: usize = 32;
/// Patches that are passed over after ones that did not get smaller, at the most.
const SKIP_MAX: u32 = 15;

/// The level in use, chosen by the thread that writes to the link and read by the workers.
pub(super) struct Level {
    compress: Compress,
    index: AtomicUsize,
}

impl Level {
    pub(super) fn new(params: &Params) -> Self {
        Level {
            // A dry run throws its patches away.
            compress: match params.dry_run {
                true => Compress::Off,
                false => params.compress,
            },
            index: AtomicUsize::new(0),
        }
    }

    /// The level for the next patch; `None` to store it.
    fn get(&self) -> Option<i32> {
        match self.compress {
            Compress::Off => None,
            // Higher ones take more memory than was promised, whoever asks for them.
            Compress::Level(level) => Some(i32::from(level.clamp(1, LEVEL_MAX))),
            Compress::Auto => LEVELS.get(self.index.load(Ordering::Relaxed)).copied(),
        }
    }
}

/// Compresses the patches of one worker.
pub(super) struct Packer<'a> {
    level: &'a Level,
    compressor: Option<(i32, Compressor<'static>)>,
    gathered: Vec<u8>,
    packed: Vec<u8>,
    skip: u32,
    fruitless: u32,
}

impl<'a> Packer<'a> {
    pub(super) fn new(level: &'a Level) -> Self {
        Packer {
            level,
            compressor: None,
            gathered: Vec::new(),
            packed: Vec::new(),
            skip: 0,
            fruitless: 0,
        }
    }

    /// Packs a patch's bytes, which are the pieces in order; they are stored if compression brings nothing,
    /// or brought nothing just now.
    pub(super) fn pack(&mut self, pieces: &[&[u8]]) -> Result<Payload> {
        let Some(level) = self.level.get().filter(|_| !pieces.is_empty()) else {
            return Ok(Payload::Stored(pieces.concat()));
        };
        if self.skip > 0 {
            self.skip -= 1;
            return Ok(Payload::Stored(pieces.concat()));
        }
        let bytes = match pieces {
            [piece] => piece,
            pieces => {
                self.gathered.clear();
                pieces
                    .iter()
                    .for_each(|p| self.gathered.extend_from_slice(p));
                self.gathered.as_slice()
            }
        };
        let failed = |e| Error::new(Kind::Io, "cannot compress").because(e);
        let compressor = match &mut self.compressor {
            Some((at, compressor)) if *at == level => compressor,
            slot => {
                &mut slot
                    .insert((level, Compressor::new(level).map_err(failed)?))
                    .1
            }
        };
        // What would save too little does not fit, and compression may stop early.
        let room = bytes.len() - bytes.len() / SAVING_MIN;
        self.packed.resize(room.max(64), 0);
        match compressor.compress_to_buffer(bytes, &mut self.packed) {
            Ok(len) if len < room => {
                self.fruitless = 0;
                Ok(Payload::Zstd(self.packed[..len].to_vec()))
            }
            // The only other way to fail is a lack of memory, and stored bytes need none.
            Ok(_) | Err(_) => {
                self.fruitless = (self.fruitless * 2 + 1).min(SKIP_MAX);
                self.skip = self.fruitless;
                Ok(Payload::Stored(bytes.to_vec()))
            }
        }
    }
}

/// Time and patch bytes over which one level is judged.
const JUDGED_AFTER: Duration = Duration::from_millis(500);
const JUDGED_BYTES: u64 = 8 << 20;
/// Judgements after which a level that brought nothing is tried again.
const RETRY_AFTER: u32 = 40;
/// Share of the processors' time that must be left over before a level is raised.
const SPARE_MIN: f64 = 0.2;

/// Watches the link from the thread that writes to it, and sets the level.
///
/// It climbs: while the link is what takes the time, the next level is tried, and given up again if no
/// more data gets through by it. A link also looks slow where ssh gets no processor: then more work for the
/// processors is the last thing that helps, so it climbs only while they have time to spare.
pub(super) struct Pilot<'a> {
    level: &'a Level,
    processors: Processors,
    since: Instant,
    busy: Duration,
    bytes: u64,
    /// Bytes a second before the level was raised.
    before: Option<f64>,
    /// Level that brought nothing, and for how many judgements that still counts.
    ceiling: (usize, u32),
}

impl<'a> Pilot<'a> {
    pub(super) fn new(level: &'a Level) -> Self {
        Pilot {
            level,
            processors: Processors::new(),
            since: Instant::now(),
            busy: Duration::ZERO,
            bytes: 0,
            before: None,
            ceiling: (LEVELS.len(), 0),
        }
    }

    /// Notes that a patch of `bytes`, as they were before packing, kept the link for `busy`.
    pub(super) fn sent(&mut self, bytes: u64, busy: Duration) {
        self.bytes += bytes;
        self.busy += busy;
        let elapsed = self.since.elapsed();
        if elapsed >= JUDGED_AFTER && self.bytes >= JUDGED_BYTES {
            let spare = self.processors.spare();
            self.judge(elapsed, spare);
            (self.since, self.busy, self.bytes) = (Instant::now(), Duration::ZERO, 0);
        }
    }

    /// `spare` is the share of the processors' time that nobody used.
    fn judge(&mut self, elapsed: Duration, spare: f64) {
        let rate = self.bytes as f64 / elapsed.as_secs_f64();
        let load = self.busy.as_secs_f64() / elapsed.as_secs_f64();
        let at = self.level.index.load(Ordering::Relaxed);
        self.ceiling = match self.ceiling {
            (_, 0) => (LEVELS.len(), 0),
            (level, left) => (level, left - 1),
        };
        let next = match self.before.take() {
            Some(before) if rate < before * 1.02 => {
                self.ceiling = (at, RETRY_AFTER);
                at - 1
            }
            _ if load > 0.7 && spare > SPARE_MIN && at + 1 < self.ceiling.0 => {
                self.before = Some(rate);
                at + 1
            }
            _ if load < 0.3 => at.saturating_sub(1),
            _ => at,
        };
        self.level.index.store(next, Ordering::Relaxed);
    }
}

/// What this host's processors have done, for all programs: proc(5), `/proc/stat`.
struct Processors {
    /// Idle and all ticks of the clock at the last look.
    seen: Option<(u64, u64)>,
}

impl Processors {
    fn new() -> Self {
        Processors {
            seen: Self::ticks(),
        }
    }

    /// The share of the time since the last call in which processors had nothing to do. Where that cannot
    /// be told, all of it.
    fn spare(&mut self) -> f64 {
        let before = std::mem::replace(&mut self.seen, Self::ticks());
        match (before, self.seen) {
            (Some((idle, all)), Some((idle_now, all_now))) if all_now > all => {
                idle_now.saturating_sub(idle) as f64 / (all_now - all) as f64
            }
            _ => 1.0,
        }
    }

    fn ticks() -> Option<(u64, u64)> {
        let stat = std::fs::read_to_string("/proc/stat").ok()?;
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        // user nice system idle iowait irq softirq steal; guests' time is in the first two already.
        let ticks: Vec<u64> = line
            .split_whitespace()
            .take(8)
            .filter_map(|n| n.parse().ok())
            .collect();
        Some((ticks.get(3)? + ticks.get(4)?, ticks.iter().sum()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn level(compress: Compress) -> Level {
        Level {
            compress,
            index: AtomicUsize::new(0),
        }
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn what_gets_no_smaller_is_stored_and_not_tried_every_time() {
        let level = level(Compress::Auto);
        let mut packer = Packer::new(&level);
        let text = b"a block of text ".repeat(4096);
        let is_stored = |p: Payload| matches!(p, Payload::Stored(_));
        assert!(!is_stored(packer.pack(&[&text]).unwrap()));
        assert!(is_stored(packer.pack(&[&noise(1 << 16)]).unwrap()));
        assert!(is_stored(packer.pack(&[&text]).unwrap()), "skipped");
        assert!(!is_stored(packer.pack(&[&text]).unwrap()));
        for n in 0..200 {
            packer.pack(&[&noise(1 << 16)]).unwrap();
            assert!(packer.skip <= SKIP_MAX, "{n}");
        }
        for _ in 0..SKIP_MAX {
            packer.pack(&[&text]).unwrap();
        }
        assert!(!is_stored(packer.pack(&[&text]).unwrap()));
    }

    #[test]
    fn a_level_that_takes_too_much_memory_is_not_used() {
        for (asked, used) in [(0, 1), (7, 7), (22, 19), (255, 19)] {
            assert_eq!(level(Compress::Level(asked)).get(), Some(used));
        }
    }

    #[test]
    fn the_processors_time_is_known() {
        let mut processors = Processors::new();
        let (idle, all) = processors.seen.unwrap();
        assert!(all > idle);
        processors.seen = Some((idle.saturating_sub(50), all - 100));
        let spare = processors.spare();
        assert!((0.4..=1.0).contains(&spare), "{spare}");
        processors.seen = None;
        assert_eq!(processors.spare(), 1.0);
    }

    #[test]
    fn the_level_follows_the_link() {
        let level = level(Compress::Auto);
        let mut pilot = Pilot::new(&level);
        let mut judge_with = |rate: u64, load: f64, spare: f64| {
            pilot.bytes = rate;
            pilot.busy = Duration::from_secs_f64(load);
            pilot.judge(Duration::from_secs(1), spare);
            level.get().unwrap()
        };
        assert_eq!(judge_with(100, 0.9, 0.1), 1, "the processors are");
        let mut judge = |rate, load| judge_with(rate, load, 0.5);
        assert_eq!(judge(100, 0.9), 2, "the link is slow");
        assert_eq!(judge(110, 0.9), 3, "that helped, and more may");
        assert_eq!(judge(110, 0.9), 2, "that did not");
        assert_eq!(judge(110, 0.9), 2, "and is not tried again soon");
        assert_eq!(judge(110, 0.1), 1, "the link waits for us");
        assert_eq!(judge(110, 0.1), 1);
        for _ in 0..RETRY_AFTER {
            judge(110, 0.5);
        }
        assert_eq!(judge(100, 0.9), 2);
        assert_eq!(judge(110, 0.9), 3, "after a while it is");
    }
}
