//! State files: JSON, replaced as a whole and durably. Read with a version check.

use super::layout::Layout;
use super::manifest::Generation;
use super::maps::Maps;
use super::role::Standing;
use crate::error::{Error, Kind, Result};
use crate::files::remove_present;
use crate::image::flush_parent;
use crate::lock::private_dir;
use crate::qemu::BitmapRecord;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Largest state file that is read, in bytes.
const STATE_BYTES_MAX: u64 = 16 << 20;

/// What the source remembers of a pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourcePair {
    /// Id of the pair.
    pub pair: Uuid,
    /// What tells this VM from another one that gets its id later: its SMBIOS UUID, if it has one.
    pub vm_identity: Option<String>,
    /// Name of the target host as it was last reached.
    pub target_name: String,
    /// How it was reached, for whoever has to ask it without being told: `[USER@]HOST`, `ssh://...`. By its name if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What this host is for the VM.
    #[serde(default = "Standing::primary")]
    pub standing: Standing,
}

/// What the target remembers of a pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetPair {
    /// Id of the pair.
    pub pair: Uuid,
    /// The source host.
    pub source_host: Uuid,
    /// Its name.
    pub source_name: String,
    /// The VM's id on the source.
    pub vm: String,
    /// Its id here.
    pub target_vm: String,
    /// Source volume to target volume, as placed at first.
    pub volumes: BTreeMap<String, String>,
    /// Source storage to target storage, where they differ.
    pub storage_map: Vec<(String, String)>,
    /// What else is called otherwise here.
    #[serde(default, skip_serializing_if = "Maps::is_empty")]
    pub maps: Maps,
    /// Where there may be forks of a run that was not sealed.
    #[serde(default)]
    pub forks: Vec<super::Location>,
    /// Generations that are not to be pruned.
    #[serde(default)]
    pub pinned: BTreeSet<u64>,
    /// Newest sealed generation.
    pub head: Option<u64>,
    /// Number of the newest generation that was overwritten in place; 0 for none.
    #[serde(default)]
    pub last: u64,
    /// What this host is for the VM.
    #[serde(default = "Standing::replica")]
    pub standing: Standing,
}

impl TargetPair {
    /// Whether there is a replica here, or was one until it was overwritten.
    pub fn was_sealed(&self) -> bool {
        self.head.is_some() || self.last > 0
    }
}

/// This host's id: a random UUID, made when first asked for. Not to `keep` it is for runs that may change
/// nothing.
pub fn host_id(layout: &Layout, keep: bool) -> Result<Uuid> {
    let path = layout.host_id();
    if let Some(id) = read_json(&path)? {
        return Ok(id);
    }
    let id = Uuid::new_v4();
    if keep {
        write_json(&path, &id)?;
    }
    Ok(id)
}

/// What this host knows of the pair of `vm` and the host `target`.
pub fn source_pair(layout: &Layout, vm: &str, target: Uuid) -> Result<Option<SourcePair>> {
    read_json(&layout.source_pair(vm, target))
}

/// The pairs of which `vm` is the source.
pub fn source_pairs(layout: &Layout, vm: &str) -> Result<Vec<SourcePair>> {
    let files = pair_files(layout, vm)?.into_iter();
    Ok(files.map(|(_, pair)| pair).collect())
}

/// The same, with the id of each pair's target host.
pub fn source_pairs_to(layout: &Layout, vm: &str) -> Result<Vec<(Uuid, SourcePair)>> {
    let with_host = |(path, pair): (PathBuf, SourcePair)| {
        let host = path.file_stem()?.to_str()?.parse().ok()?;
        Some((host, pair))
    };
    let files = pair_files(layout, vm)?.into_iter();
    Ok(files.filter_map(with_host).collect())
}

/// The VMs of which there is a pair, sorted.
pub fn source_vms(layout: &Layout) -> Result<Vec<String>> {
    names_in(&layout.pairs())
}

/// The VMs of this host of which a change of roles was begun and is not done, sorted.
pub fn handovers(layout: &Layout) -> Result<Vec<String>> {
    let files = files_in(&layout.handovers(), "json")?;
    let names = files.iter().filter_map(|path| path.file_stem()?.to_str());
    Ok(names.map(str::to_owned).collect())
}

/// The replicas on this host, also those without a sealed generation, sorted.
pub(super) fn replicas(layout: &Layout) -> Result<Vec<Uuid>> {
    let names = names_in(&layout.replicas())?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

/// Sorted; what is no text is none of ours.
fn names_in(dir: &Path) -> Result<Vec<String>> {
    let paths = paths_in(dir)?;
    let names = paths.iter().filter_map(|path| path.file_name()?.to_str());
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort();
    Ok(names)
}

/// The files in a directory whose names end so, sorted. Temporary files of a run that was cut off end otherwise.
pub(super) fn files_in(dir: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut paths = paths_in(dir)?;
    paths.retain(|path| path.extension().is_some_and(|e| e == extension));
    paths.sort();
    Ok(paths)
}

/// What is in a directory; nothing if there is none.
fn paths_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let cannot = |e| Error::io(format!("cannot list {}", dir.display()), e);
    match std::fs::read_dir(dir) {
        Ok(entries) => entries
            .map(|entry| entry.map(|e| e.path()).map_err(cannot))
            .collect(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(cannot(e)),
    }
}

/// Reads a state file; `None` if there is none.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let cannot = |e| Error::io(format!("cannot read {}", path.display()), e);
    let size = match std::fs::metadata(path) {
        Ok(meta) => meta.len(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(cannot(e)),
    };
    if size > STATE_BYTES_MAX {
        return Err(Error::new(
            Kind::Io,
            format!("{} is too large for a state file", path.display()),
        ));
    }
    let text = std::fs::read(path).map_err(cannot)?;
    serde_json::from_slice(&text).map(Some).map_err(|e| {
        Error::new(
            Kind::Io,
            format!("{} is damaged or of another release", path.display()),
        )
        .because(e)
        .advise("restore it from a backup; no volume was touched")
    })
}

/// Replaces a state file; durable when this returns.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let json = serde_json::to_string_pretty(value)
        .map_err(|e| Error::new(Kind::Io, format!("cannot write {}", path.display())).because(e))?;
    write_text(path, &(json + "\n"))
}

/// Replaces a file of text; durable when this returns.
pub fn write_text(path: &Path, text: &str) -> Result<()> {
    let cannot = |e| Error::io(format!("cannot write {}", path.display()), e);
    let dir = path.parent().unwrap_or(Path::new("/"));
    private_dir(dir)?;
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(cannot)?;
    file.write_all(text.as_bytes()).map_err(cannot)?;
    file.as_file().sync_all().map_err(cannot)?;
    file.persist(path).map_err(|e| cannot(e.error))?;
    flush_parent(path)
}

/// Removes a state file durably; one that is gone is fine.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match remove_present(path)? {
        true => flush_parent(path),
        false => Ok(()),
    }
}

/// Copies a file that tells of a generation; durable when this returns.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    let cannot = |e| Error::io(format!("cannot copy {}", from.display()), e);
    let dir = to.parent().unwrap_or(Path::new("/"));
    private_dir(dir)?;
    let file = tempfile::NamedTempFile::new_in(dir).map_err(cannot)?;
    let mut source = std::fs::File::open(from).map_err(cannot)?;
    std::io::copy(&mut source, &mut file.as_file()).map_err(cannot)?;
    file.as_file().sync_all().map_err(cannot)?;
    file.persist(to).map_err(|e| cannot(e.error))?;
    flush_parent(to)
}

/// Makes what was written to a file durable.
pub(super) fn flush(path: &Path) -> Result<()> {
    std::fs::File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|e| Error::io(format!("cannot flush {}", path.display()), e))?;
    flush_parent(path)
}

/// The sealed generations of a pair, oldest first.
pub(super) fn generations(layout: &Layout, pair: Uuid) -> Result<Vec<Generation>> {
    manifests_in(&layout.generations(pair))
}

/// Where the generations of `vm` were sent to, and what its source knows of them, oldest first.
pub fn sent(layout: &Layout, vm: &str) -> Result<Vec<(SourcePair, Vec<Generation>)>> {
    let with_generations = |(path, pair): (PathBuf, SourcePair)| {
        let mut generations = manifests_in(&path.with_extension(""))?;
        generations.retain(|g| g.pair == pair.pair);
        Ok((pair, generations))
    };
    let files = pair_files(layout, vm)?.into_iter();
    files.map(with_generations).collect()
}

pub(super) fn pair_files(layout: &Layout, vm: &str) -> Result<Vec<(PathBuf, SourcePair)>> {
    let mut found = Vec::new();
    for path in files_in(&layout.source_pairs(vm), "json")? {
        if let Some(pair) = read_json(&path)? {
            found.push((path, pair));
        }
    }
    Ok(found)
}

/// The newest generation on `target` that its source knows of.
pub fn newest_sent(layout: &Layout, vm: &str, target: Uuid) -> Result<Option<Generation>> {
    match files_in(&layout.sent(vm, target), "json")?.pop() {
        Some(path) => read_json(&path),
        None => Ok(None),
    }
}

/// Notes at the source that a generation was sealed, and which ones the target has now.
pub fn note_sent(
    layout: &Layout,
    vm: &str,
    target: Uuid,
    sealed: &Generation,
    kept: &[u64],
) -> Result<()> {
    let dir = layout.sent(vm, target);
    let path = |number: u64| layout.sent_generation(vm, target, number);
    write_json(&path(sealed.number), sealed)?;
    let kept: Vec<PathBuf> = kept.iter().map(|number| path(*number)).collect();
    let mut old = files_in(&dir, "json")?;
    old.retain(|path| !kept.contains(path));
    old.iter().try_for_each(|path| remove(path))
}

/// The records of QEMU's bitmaps that [`keep_sent_tables`] keeps of `vm`, whatever the target.
pub fn sent_bitmaps(layout: &Layout, vm: &str) -> Result<Vec<BitmapRecord>> {
    let mut records = Vec::new();
    for target in paths_in(&layout.source_pairs(vm))? {
        if target.is_dir() {
            for path in files_in(&target, "bitmap")? {
                records.extend(read_json::<BitmapRecord>(&path)?);
            }
        }
    }
    Ok(records)
}

/// Keeps what will be needed to send only what changed since what was just sealed as generation `number`: for each disk
/// the table of its segments' digests, and what QEMU's bitmap is called if there is one. What is older goes.
pub fn keep_sent_tables(
    layout: &Layout,
    vm: &str,
    target: Uuid,
    number: u64,
    bitmaps: &[Option<BitmapRecord>],
) -> Result<()> {
    let dir = layout.sent(vm, target);
    for path in files_in(&dir, "bitmap")? {
        remove(&path)?;
    }
    let mut old = files_in(&dir, "digests")?;
    for (index, bitmap) in bitmaps.iter().enumerate() {
        if let Some(bitmap) = bitmap {
            write_json(&layout.sent_bitmap(vm, target, number, index), bitmap)?;
        }
        let from = layout.sending_table(vm, target, index);
        let to = layout.sent_table(vm, target, number, index);
        // It is to outlive a power cut.
        std::fs::File::open(&from)
            .and_then(|table| table.sync_all())
            .and_then(|()| std::fs::rename(&from, &to))
            .map_err(|e| Error::io(format!("cannot keep {}", from.display()), e))?;
        old.retain(|path| *path != from && *path != to);
        flush_parent(&to)?;
    }
    old.iter().try_for_each(|path| remove(path))
}

fn manifests_in(dir: &Path) -> Result<Vec<Generation>> {
    let mut found = Vec::new();
    for path in files_in(dir, "json")? {
        found.extend(read_json::<Generation>(&path)?);
    }
    found.sort_by_key(|g| (g.epoch, g.number));
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_host_keeps_its_id() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("state"));
        host_id(&layout, false).unwrap();
        assert!(!layout.root().exists());
        let id = host_id(&layout, true).unwrap();
        assert_eq!(host_id(&layout, true).unwrap(), id);
        assert_eq!(host_id(&layout, false).unwrap(), id);
        std::fs::write(layout.host_id(), "junk").unwrap();
        assert!(host_id(&layout, true)
            .unwrap_err()
            .message()
            .contains("damaged"));
    }
}
