//! What the hook leaves for the worker (`virt-blocksync work`): the last thing that happened to each domain.
//!
//! libvirt says that a domain has ended also after it has moved away, after its arrival has failed, and after a start
//! that the hook refused. Why it has ended the worker asks libvirt, which cannot be asked while the hook runs.

use rblocksync::error::{Error, Result};
use rblocksync::files::remove_present;
use rblocksync::lock::private_dir;
use rblocksync::replica::{read_json, write_json, Layout};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Something that happened to a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// The domain.
    pub domain: String,
    /// What libvirt called it: `started`, `stopped`, `release`.
    pub operation: String,
    /// What it said about the reason: `-` before libvirt 10.5.
    pub extra: String,
}

/// Where they are, a file for each domain. Nothing else is in it, so a unit may wait for it not to be empty.
pub fn directory(layout: &Layout) -> PathBuf {
    layout.root().join("hook/events")
}

/// Leaves an event; durable when this returns. It replaces the domain's last one.
pub(crate) fn queue(layout: &Layout, vm: &str, operation: &str, extra: &str) -> Result<()> {
    let event = Event {
        domain: vm.to_owned(),
        operation: operation.to_owned(),
        extra: extra.to_owned(),
    };
    // Not written there: the worker, and what starts it, see whole files only.
    let new = layout.root().join("hook/new").join(format!("{vm}.json"));
    write_json(&new, &event)?;
    let dir = directory(layout);
    private_dir(&dir)?;
    std::fs::rename(&new, dir.join(format!("{vm}.json")))
        .and_then(|()| File::open(&dir)?.sync_all())
        .map_err(|e| Error::io(format!("cannot write into {}", dir.display()), e))
}

/// All events, with their files, sorted by domain. What cannot be read is there as an error.
pub fn pending(layout: &Layout) -> Result<Vec<(PathBuf, Result<Event>)>> {
    let dir = directory(layout);
    let cannot = |e| Error::io(format!("cannot list {}", dir.display()), e);
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(cannot(e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(cannot)?.path();
        match read_json(&path) {
            Ok(Some(event)) => found.push((path, Ok(event))),
            Ok(None) => {}
            Err(e) => found.push((path, Err(e))),
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// Takes an event away, unless another one has come since.
pub fn done(path: &Path, event: &Event) -> Result<()> {
    if read_json::<Event>(path)?.as_ref() == Some(event) {
        remove_present(path)?;
    }
    Ok(())
}

/// Puts an event aside that nothing could be done about.
pub fn put_aside(layout: &Layout, path: &Path) -> Result<()> {
    let dir = layout.root().join("hook/failed");
    private_dir(&dir)?;
    let to = dir.join(path.file_name().unwrap_or_default());
    std::fs::rename(path, &to).map_err(|e| Error::io(format!("cannot move {}", path.display()), e))
}
