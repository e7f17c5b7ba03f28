//! What a driver may touch that is bound to one host's pairs by a policy.

use super::heads;
use super::layout::Layout;
use super::listing::Listing;
use super::mend;
use super::role::Role;
use super::stand::target_pairs;
use super::store::{self, TargetPair};
use super::volume::{Location, Volume};
use crate::agent::restrict::{OwnFiles, OwnImage, Policy};
use crate::error::Result;
use std::path::PathBuf;

/// Whether a pair is one that a policy is about.
pub trait PeersPair {
    /// It is with the policy's peer, and of a VM that it names.
    fn is_allowed(&self, policy: &Policy) -> bool;
}

impl PeersPair for TargetPair {
    fn is_allowed(&self, policy: &Policy) -> bool {
        let with_peer = policy.peer.is_none_or(|peer| peer == self.source_host);
        with_peer && policy.allows_vm(&self.target_vm)
    }
}

/// The forks of all replicas that the policy is about, and the tables of their digests. Where roles may be changed: also the
/// heads on which a guest waits that comes with its memory. Where generations may be overwritten: also those that are being
/// put right.
pub fn own_files(layout: &Layout, policy: &Policy) -> Result<OwnFiles> {
    let mut own = OwnFiles::default();
    if !policy.access.adds() {
        return Ok(own);
    }
    let listing = Listing::default();
    let mut pairs = target_pairs(layout)?;
    pairs.retain(|pair| pair.standing.role == Role::Replica && pair.is_allowed(policy));
    for pair in &pairs {
        let volume = |location| Volume {
            location,
            pair: pair.pair,
            listing: &listing,
        };
        for (index, location) in pair.forks.iter().enumerate() {
            own.images
                .push(image(location, volume(location).fork_path()?));
            own.tables.push(layout.fork_table(pair.pair, index));
        }
        if policy.roles && heads::are_written(layout, pair)? {
            for location in &pair.forks {
                if let Location::ThinLv { lv, .. } = location {
                    own.images.push(image(location, lv.path()));
                }
            }
        }
        let generations = store::generations(layout, pair.pair)?;
        for generation in &generations {
            let tables = 0..generation.disks.len();
            let table = |index| layout.table(pair.pair, generation.number, index);
            own.bases.extend(tables.map(table));
        }
        if !policy.access.overwrites() {
            continue;
        }
        let Some(number) = mend::under_way(layout, pair.pair)? else {
            continue;
        };
        for disk in generations
            .iter()
            .filter(|g| g.number == number)
            .flat_map(|g| &g.disks)
        {
            // One that cannot be read is not open to be written either.
            if let Ok(sealed) = volume(&disk.location).sealed(number) {
                own.images.push(image(&disk.location, sealed.path.clone()));
            }
        }
    }
    Ok(own)
}

fn image(location: &Location, path: PathBuf) -> OwnImage {
    OwnImage {
        path,
        format: location.format(),
        is_lv: !matches!(location, Location::File { .. }),
    }
}
