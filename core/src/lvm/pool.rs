//! Thin pools: how full they are and whether they are well.

use super::id::LvId;
use super::report::{Lv, LvKind};
use crate::cmd::{Cmd, Tool};
use crate::error::{Error, Kind, Result};
use crate::runbook::Runbook;

/// dm-thin keeps its metadata in blocks of this size.
const METADATA_BLOCK_BYTES: u64 = 4096;

/// How full a pool may become while we write to it, or keep snapshots in it: percent of data, and of metadata.
/// What is left keeps the pool's other volumes going until somebody looks after it.
pub const POOL_PERCENT_WRITING_MAX: f64 = 98.0;

/// A thin pool at the moment it was looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Its name.
    pub id: LvId,
    /// Room for data in bytes.
    pub size: u64,
    /// Room for metadata in bytes.
    pub metadata_size: u64,
    /// Data in use, in percent as LVM rounds it; unknown while the pool is inactive.
    pub data_percent: Option<f64>,
    /// Metadata in use, in percent as LVM rounds it; unknown while the pool is inactive.
    pub metadata_percent: Option<f64>,
    /// Allocation unit in bytes: what a first write maps, and the least a discard gives back.
    pub chunk_bytes: u64,
    /// The unwritten rest of a newly mapped chunk reads zero. If not, it may show another volume's bytes.
    pub zeroes_new: bool,
    /// A full pool fails writes at once instead of queueing them.
    pub errors_when_full: bool,
    /// What the kernel says; `None` while the pool is inactive.
    pub status: Option<PoolStatus>,
}

impl Pool {
    /// Bytes that can still be mapped, as exactly as is known. Writing into chunks shared with a snapshot
    /// takes from it too.
    pub fn free_bytes(&self) -> u64 {
        match (&self.status, self.data_percent) {
            (Some(status), _) => status
                .data_chunks_total
                .saturating_sub(status.data_chunks_used)
                .saturating_mul(self.chunk_bytes),
            // Rounded to two places by LVM: count a whole hundredth more as used.
            (None, Some(used)) => {
                (self.size as f64 * (1.0 - (used + 0.01) / 100.0)).max(0.0) as u64
            }
            (None, None) => 0,
        }
    }

    /// Bytes of metadata that are free, where known.
    pub fn metadata_free_bytes(&self) -> Option<u64> {
        let status = self.status.as_ref()?;
        let free = status
            .metadata_blocks_total
            .saturating_sub(status.metadata_blocks_used);
        Some(free.saturating_mul(METADATA_BLOCK_BYTES))
    }

    /// The same pool as it is now, by what the kernel says: LVM is not asked.
    pub fn look_again(&self) -> Result<Pool> {
        Ok(Pool {
            status: Some(pool_status(&self.id)?.1),
            ..self.clone()
        })
    }

    /// Bytes that may be mapped until `percent_max` of the pool are in use; an error if they are already, or if that
    /// much of its metadata is, or nothing can be mapped at all.
    pub fn spare_bytes(&self, percent_max: f64) -> Result<u64> {
        self.check_healthy()?;
        let of = |used: u64, total: u64| used as f64 * 100.0 / total.max(1) as f64;
        let (data, metadata) = match &self.status {
            Some(s) => (
                of(s.data_chunks_used, s.data_chunks_total),
                of(s.metadata_blocks_used, s.metadata_blocks_total),
            ),
            None => (0.0, 0.0),
        };
        let reserve = (self.size as f64 * (100.0 - percent_max) / 100.0) as u64;
        let spare = self.free_bytes().saturating_sub(reserve);
        if spare == 0 || metadata > percent_max {
            return Err(Error::new(
                Kind::Space,
                format!(
                    "thin pool {} is nearly full: {data:.1}% of data, {metadata:.1}% of metadata",
                    self.id
                ),
            )
            .advise("extend the pool, or remove volumes from it")
            .see(Runbook::PoolFull));
        }
        Ok(spare)
    }

    /// Fails unless new chunks can be mapped: the pool is active, writable, and not in need of repair.
    pub fn check_healthy(&self) -> Result<()> {
        let problem = match &self.status {
            None => "is not active",
            Some(s) if s.needs_check => "needs a check of its metadata (lvconvert --repair)",
            Some(s) => match s.mode {
                PoolMode::ReadWrite => return Ok(()),
                PoolMode::ReadOnly => "is read-only, as after an error in its metadata",
                PoolMode::OutOfData => {
                    return Err(Error::new(
                        Kind::Space,
                        format!("the thin pool {} has run out of data space", self.id),
                    )
                    .advise("extend the pool or remove volumes")
                    .see(Runbook::PoolFull))
                }
                PoolMode::Failed => "has failed",
            },
        };
        Err(Error::new(
            Kind::Io,
            format!("the thin pool {} {problem}", self.id),
        ))
    }
}

/// What a pool can do right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    /// All is well.
    ReadWrite,
    /// Metadata cannot be changed, so nothing new can be mapped.
    ReadOnly,
    /// No chunk is left.
    OutOfData,
    /// All I/O fails.
    Failed,
}

/// The kernel's view of an active pool: one line of `dmsetup status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolStatus {
    /// What it can do.
    pub mode: PoolMode,
    /// The metadata is flagged as damaged.
    pub needs_check: bool,
    /// The block of a reserved metadata snapshot, if there is one.
    pub held_root: Option<u64>,
    /// Chunks mapped by at least one volume.
    pub data_chunks_used: u64,
    /// Chunks there are.
    pub data_chunks_total: u64,
    /// Metadata blocks (4 KiB) in use.
    pub metadata_blocks_used: u64,
    /// Metadata blocks there are.
    pub metadata_blocks_total: u64,
}

/// Looks at a pool. Fails with [`Kind::NotFound`] if there is none, [`Kind::Usage`] if it is no pool.
pub fn pool(id: &LvId) -> Result<Pool> {
    pool_of(super::get(id)?)
}

/// Looks at a pool of which `lvs` was just asked.
pub fn pool_of(lv: Lv) -> Result<Pool> {
    if lv.kind != LvKind::ThinPool {
        return Err(Error::new(
            Kind::Usage,
            format!("{} is not a thin pool", lv.id),
        ));
    }
    let status = if lv.active {
        Some(pool_status(&lv.id)?.1)
    } else {
        None
    };
    Ok(Pool {
        id: lv.id,
        size: lv.size,
        metadata_size: lv.pool_row.metadata_bytes,
        data_percent: lv.data_percent,
        metadata_percent: lv.pool_row.metadata_percent,
        chunk_bytes: lv.pool_row.chunk_bytes,
        zeroes_new: lv.pool_row.zeroes_new,
        errors_when_full: lv.pool_row.errors_when_full,
        status,
    })
}

/// The device-mapper name of the active pool's `thin-pool` target, and its status. A pool that has (or had, since it was
/// activated) a volume has it in a hidden layer `-tpool`; one that is still empty is the target itself.
pub(crate) fn pool_status(id: &LvId) -> Result<(String, PoolStatus)> {
    let layer = format!("{}-tpool", id.mapper_name());
    match status_of_target(&layer) {
        Ok(status) => Ok((layer, status)),
        Err(e) if e.kind() == Kind::NotFound => {
            let target = id.mapper_name();
            let status = status_of_target(&target)?;
            Ok((target, status))
        }
        Err(e) => Err(e),
    }
}

/// The status line of a `thin-pool` target.
pub(crate) fn status_of_target(target: &str) -> Result<PoolStatus> {
    let out = Cmd::new(Tool::Dmsetup).args(["status", target]).run()?;
    let line = String::from_utf8_lossy(&out.stdout);
    parse_status(&line).ok_or_else(|| {
        Error::new(
            Kind::Tool,
            format!(
                "cannot read the status of the thin pool {target}: {:?}",
                line.trim()
            ),
        )
    })
}

/// `START LENGTH thin-pool TRANSACTION USED/TOTAL USED/TOTAL HELD-ROOT MODE FLAGS...`, metadata first; or
/// just `Fail` or `Error` after the target's name. Layout: Linux, admin-guide/device-mapper/thin-provisioning.
fn parse_status(line: &str) -> Option<PoolStatus> {
    let mut words = line.split_whitespace().skip_while(|w| *w != "thin-pool");
    words.next()?;
    let transaction = words.next()?;
    if matches!(transaction, "Fail" | "Error") {
        return Some(PoolStatus {
            mode: PoolMode::Failed,
            needs_check: false,
            held_root: None,
            data_chunks_used: 0,
            data_chunks_total: 0,
            metadata_blocks_used: 0,
            metadata_blocks_total: 0,
        });
    }
    let fraction = |word: &str| {
        let (used, total) = word.split_once('/')?;
        Some((used.parse::<u64>().ok()?, total.parse::<u64>().ok()?))
    };
    let (metadata_blocks_used, metadata_blocks_total) = fraction(words.next()?)?;
    let (data_chunks_used, data_chunks_total) = fraction(words.next()?)?;
    let held_root = match words.next()? {
        "-" => None,
        root => Some(root.parse().ok()?),
    };
    let mode = match words.next()? {
        "rw" => PoolMode::ReadWrite,
        "ro" => PoolMode::ReadOnly,
        "out_of_data_space" => PoolMode::OutOfData,
        _ => return None,
    };
    Some(PoolStatus {
        mode,
        needs_check: words.any(|w| w == "needs_check"),
        held_root,
        data_chunks_used,
        data_chunks_total,
        metadata_blocks_used,
        metadata_blocks_total,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(status: Option<PoolStatus>) -> Pool {
        Pool {
            id: LvId::new("pve", "data").unwrap(),
            size: 100 << 20,
            metadata_size: 4 << 20,
            data_percent: Some(50.0),
            metadata_percent: Some(10.0),
            chunk_bytes: 65536,
            zeroes_new: true,
            errors_when_full: false,
            status,
        }
    }

    #[test]
    fn recorded_status_lines() {
        let idle = "0 40124416 thin-pool 2 849/8192 49/313472 - rw discard_passdown queue_if_no_space - 1024 \n";
        let status = parse_status(idle).unwrap();
        assert_eq!(
            status,
            PoolStatus {
                mode: PoolMode::ReadWrite,
                needs_check: false,
                held_root: None,
                data_chunks_used: 49,
                data_chunks_total: 313_472,
                metadata_blocks_used: 849,
                metadata_blocks_total: 8192,
            }
        );
        let pool = sample(Some(status));
        assert_eq!(pool.free_bytes(), (313_472 - 49) * 65536);
        assert_eq!(pool.metadata_free_bytes(), Some((8192 - 849) * 4096));
        assert!(pool.check_healthy().is_ok());

        let held = "0 40124416 thin-pool 2 849/8192 49/313472 45 rw discard_passdown queue_if_no_space - 1024";
        assert_eq!(parse_status(held).unwrap().held_root, Some(45));
    }

    #[test]
    fn a_pool_in_trouble_says_so() {
        let cases = [
            (
                "- out_of_data_space discard_passdown error_if_no_space - 1024",
                Kind::Space,
                "run out",
            ),
            (
                "- ro discard_passdown queue_if_no_space needs_check 1024",
                Kind::Io,
                "needs a check",
            ),
            (
                "- ro no_discard_passdown queue_if_no_space - 1024",
                Kind::Io,
                "read-only",
            ),
        ];
        for (tail, kind, text) in cases {
            let status = parse_status(&format!("0 8 thin-pool 0 1/2 3/4 {tail}")).unwrap();
            let error = sample(Some(status)).check_healthy().unwrap_err();
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().contains(text), "{error}");
        }
        let failed = sample(parse_status("0 8 thin-pool Fail"));
        assert!(failed
            .check_healthy()
            .unwrap_err()
            .to_string()
            .contains("has failed"));
        let inactive = sample(None);
        assert!(inactive
            .check_healthy()
            .unwrap_err()
            .to_string()
            .contains("not active"));
        assert!(inactive.free_bytes() < 50 << 20);
    }

    #[test]
    fn other_lines_are_not_understood() {
        for line in [
            "",
            "0 8 linear",
            "0 8 thin-pool",
            "0 8 thin-pool 0 1/2 3/4 - odd x",
            "0 8 thin-pool 0 1/x 3/4 - rw",
        ] {
            assert_eq!(parse_status(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn junk_is_survived(junk: String) {
            let _ = parse_status(&junk);
            let _ = parse_status(&format!("0 8 thin-pool {junk}"));
        }
    }
}
