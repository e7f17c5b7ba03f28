//! Receiving into the head itself, where volumes cannot share blocks and there is no room for a second copy.
//!
//! What that gives up: from here until the seal the target has no generation at all. So it is done only if the user
//! says so, and the next sync goes on with what is there.

use super::layout::Layout;
use super::listing::Listing;
use super::manifest::Generation;
use super::prune::GOING;
use super::store::{files_in, write_json, TargetPair};
use super::volume::{Location, Volume};
use super::Placement;
use crate::crash;
use crate::error::{Error, Result};
use crate::hypervisor::TargetHypervisor;
use crate::image::flush_parent;
use std::path::Path;

/// A manifest's extension once its generation is being overwritten.
const OVERWRITTEN: &str = "overwritten";

fn volume<'a>(location: &'a Location, pair: &TargetPair, listing: &'a Listing) -> Volume<'a> {
    Volume {
        location,
        pair: pair.pair,
        listing,
    }
}

/// Whether the volume of this disk would have to be copied as a whole to be kept, and there is one.
pub(super) fn is_copied(location: &Location, pair: &TargetPair, listing: &Listing) -> Result<bool> {
    volume(location, pair, listing).is_copied()
}

/// Turns the heads of such disks into forks. Returns notes.
pub(super) fn make_way(
    layout: &Layout,
    hypervisor: &dyn TargetHypervisor,
    pair: &mut TargetPair,
    newest: Option<&Generation>,
    placements: &[Placement],
) -> Result<Vec<String>> {
    let listing = Listing::default();
    let mut copied = Vec::new();
    for placement in placements {
        if is_copied(&placement.location, pair, &listing)? {
            copied.push(&placement.location);
        }
    }
    if copied.is_empty() {
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
    for location in copied {
        volume(location, pair, &listing).fork_in_place()?;
    }
    Ok(notes)
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
