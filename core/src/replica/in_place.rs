//! Receiving into the head itself, where files cannot share blocks and there is no room for a second copy.
//!
//! What that gives up: from here until the seal the target has no generation at all. So it is done only if the user
//! says so, and the next sync goes on with what is there.

use super::file;
use super::layout::Layout;
use super::manifest::Generation;
use super::prune::GOING;
use super::store::{files_in, write_json, TargetPair};
use super::volume::Location;
use super::Placement;
use crate::crash;
use crate::error::{Error, Result};
use crate::hypervisor::TargetHypervisor;
use crate::image::flush_parent;
use std::path::Path;

/// A manifest's extension once its generation is being overwritten.
const OVERWRITTEN: &str = "overwritten";

/// Whether the file of this disk would have to be copied as a whole to be kept, and there is one.
pub(super) fn is_copied(location: &Location, pair: &TargetPair) -> Result<bool> {
    match location {
        Location::File { path, .. } => {
            Ok(file::is_without_fork(path, pair.pair)? && !file::shares_blocks(path)?)
        }
        Location::ThinLv { .. } => Ok(false),
    }
}

/// Turns the heads of such disks into forks. Returns notes.
pub(super) fn make_way(
    layout: &Layout,
    hypervisor: &dyn TargetHypervisor,
    pair: &mut TargetPair,
    newest: Option<&Generation>,
    placements: &[Placement],
) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for placement in placements {
        if is_copied(&placement.location, pair)? {
            files.extend(path_of(&placement.location));
        }
    }
    if files.is_empty() {
        return Ok(Vec::new());
    }
    // A replica that somebody uses is theirs.
    let _hold = hypervisor.hold(pair)?;
    let mut notes = Vec::new();
    if let Some(newest) = newest {
        rename(&layout.generation(pair.pair, newest.number), OVERWRITTEN)?;
        pair.last = pair.last.max(newest.number);
        pair.head = None;
        write_json(&layout.target_pair(pair.pair), pair)?;
        notes.push(format!(
            "generation {} is overwritten in place: until this sync is sealed, the target has none",
            newest.name()
        ));
    }
    crash::point("overwrite");
    for path in files {
        file::fork_in_place(path, pair.pair)?;
    }
    Ok(notes)
}

fn path_of(location: &Location) -> Option<&Path> {
    match location {
        Location::File { path, .. } => Some(path),
        Location::ThinLv { .. } => None,
    }
}

/// There is a newer generation: what is left of those that were overwritten is to be pruned.
pub(super) fn give_up_overwritten(layout: &Layout, pair: &TargetPair) -> Result<()> {
    let paths = files_in(&layout.generations(pair.pair), OVERWRITTEN)?;
    paths.iter().try_for_each(|path| rename(path, GOING))
}

fn rename(path: &Path, extension: &str) -> Result<()> {
    let to = path.with_extension(extension);
    std::fs::rename(path, &to)
        .map_err(|e| Error::io(format!("cannot rename {}", path.display()), e))?;
    flush_parent(&to)
}
