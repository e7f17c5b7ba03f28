//! How full the thin pools and file systems are that replicas on this host lie in: one question a volume group, one a
//! directory.

use crate::lvm::{self, LvId};
use crate::replica::Location;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Something that can be full.
#[derive(Debug, Clone)]
pub(super) struct Store {
    /// Its name, for people.
    pub name: String,
    /// What it is.
    pub kind: &'static str,
    /// Bytes there are.
    pub size: u64,
    /// Data in use, in percent; `None` if that is not known.
    pub data_percent: Option<f64>,
    /// Metadata in use, in percent, where there is such a thing.
    pub metadata_percent: Option<f64>,
}

impl Store {
    /// The fuller of both.
    pub(super) fn percent(&self) -> Option<f64> {
        let both = [self.data_percent, self.metadata_percent];
        both.into_iter().flatten().reduce(f64::max)
    }
}

/// Looks at all stores of these volumes. What cannot be looked at is a note, not an error: the page is about replicas.
pub(super) fn look(places: &[Location]) -> (Vec<Store>, Vec<String>) {
    let mut pools: BTreeMap<String, BTreeSet<LvId>> = BTreeMap::new();
    let mut dirs: BTreeSet<PathBuf> = BTreeSet::new();
    for place in places {
        match place {
            Location::ThinLv { pool, .. } => {
                let group = pools.entry(pool.vg().to_owned()).or_default();
                group.insert(pool.clone());
            }
            // It has all of its size already.
            Location::ThickLv { .. } => {}
            Location::File { path, .. } => dirs.extend(path.parent().map(Path::to_owned)),
        }
    }
    let (mut stores, mut notes) = (Vec::new(), Vec::new());
    for (group, pools) in pools {
        match lvm::list(&group) {
            Ok(all) => {
                let of_replicas = all.into_iter().filter(|lv| pools.contains(&lv.id));
                for lv in of_replicas {
                    match lvm::pool_of(lv) {
                        Ok(pool) => stores.push(Store {
                            name: pool.id.to_string(),
                            kind: "thin pool",
                            size: pool.size,
                            data_percent: pool.data_percent,
                            metadata_percent: pool.metadata_percent,
                        }),
                        Err(e) => notes.push(e.to_string()),
                    }
                }
            }
            Err(e) => notes.push(format!("how full volume group {group} is: {e}")),
        }
    }
    let mut seen = BTreeSet::new();
    for dir in dirs {
        match file_system(&dir) {
            Ok((id, store)) if seen.insert(id) => stores.push(store),
            Ok(_) => {}
            Err(e) => notes.push(format!("how full {} is: {e}", dir.display())),
        }
    }
    (stores, notes)
}

/// The file system that a directory is on, and the number that tells it from others.
fn file_system(dir: &Path) -> std::io::Result<(u64, Store)> {
    use std::os::unix::fs::MetadataExt;
    let device = std::fs::metadata(dir)?.dev();
    let stat = rustix::fs::statvfs(dir)?;
    // What is kept for root alone counts as free: a sync runs as root.
    let used = stat.f_blocks.saturating_sub(stat.f_bfree);
    let percent = used as f64 * 100.0 / stat.f_blocks.max(1) as f64;
    let store = Store {
        name: dir.display().to_string(),
        kind: "file system",
        size: stat.f_blocks.saturating_mul(stat.f_frsize),
        data_percent: Some(percent),
        metadata_percent: None,
    };
    Ok((device, store))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::image::ImageFormat;

    #[test]
    fn a_file_system_is_told_once_and_what_is_gone_is_a_note() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("101")).unwrap();
        let file = |name: &str| Location::File {
            subvolume: false,
            path: dir.path().join(name),
            format: ImageFormat::Raw,
        };
        let places = [file("a"), file("101/b"), file("none/c")];
        let (stores, notes) = look(&places);
        assert_eq!(stores.len(), 1, "{stores:?}");
        let percent = stores[0].percent().unwrap();
        assert!(stores[0].size > 0 && (0.0..=100.0).contains(&percent));
        assert_eq!(notes.len(), 1);
        assert!(notes[0].contains("none"), "{notes:?}");
    }
}
