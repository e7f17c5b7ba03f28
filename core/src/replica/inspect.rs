//! What is unfinished or broken in the replicas of this host.

use super::listing::Listing;
use super::replicas::list_generations;
use super::seal::recover;
use super::store::{self, read_json, write_json, TargetPair};
use super::thin::check_pools_in;
use super::volume::{lost_disks, remove_forks, Location};
use super::{Generation, Layout, POOL_PERCENT_MAX};
use crate::error::{Error, Kind, Result};
use crate::hypervisor::TargetHypervisor;
use crate::lock::Lock;
use serde::Serialize;
use std::time::{Duration, SystemTime};
use uuid::Uuid;

/// Forks older than this are not worth going on with.
const FORK_TTL: Duration = Duration::from_secs(7 * 24 * 3600);

/// Something that is not as it should be.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// What is wrong, on what.
    pub what: String,
    /// What to do about it.
    pub advice: String,
    /// It was put right.
    pub repaired: bool,
}

impl Finding {
    /// Nothing that could be put right by us.
    pub fn new(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Finding {
            what: what.into(),
            advice: advice.into(),
            repaired: false,
        }
    }

    /// Something that `repair` puts right, if it is asked to.
    pub fn repairable(
        what: impl Into<String>,
        wanted: bool,
        repair: impl FnOnce() -> Result<()>,
    ) -> Self {
        let mut finding = Finding::new(what, "the next sync or doctor --repair puts it right");
        if wanted {
            match repair() {
                Ok(()) => finding.repaired = true,
                Err(e) => finding.advice = format!("it could not be put right: {e}"),
            }
        }
        finding
    }
}

/// Looks at all replicas, and with `repair` finishes what was cut off and removes forks that nobody came back for. A
/// replica that a run is busy with is passed over.
pub fn inspect(
    layout: &Layout,
    hypervisor: &dyn TargetHypervisor,
    repair: bool,
) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for pair in store::replicas(layout)? {
        let lock = Lock::take(&layout.pair_lock(pair), &format!("replica {pair}"));
        match lock {
            Err(e) if e.kind() == Kind::Busy => continue,
            Err(e) => return Err(e),
            Ok(_lock) => one(layout, hypervisor, pair, repair, &mut findings)?,
        }
    }
    let listing = Listing::default();
    for (pair, generations) in list_generations(layout, None)? {
        volumes(&pair, &generations, &listing, &mut findings)?;
    }
    Ok(findings)
}

/// The caller holds the pair's lock.
fn one(
    layout: &Layout,
    hypervisor: &dyn TargetHypervisor,
    id: Uuid,
    repair: bool,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let Some(pair) = read_json::<TargetPair>(&layout.target_pair(id))? else {
        return Ok(());
    };
    let name = format!(
        "replica {} of VM {} on {}",
        pair.target_vm, pair.vm, pair.source_name
    );
    // A guest may have the heads open: whoever moves it finishes all of it.
    if layout.landing(id).exists() {
        return Ok(());
    }
    let sealing: Option<Generation> = read_json(&layout.sealing(id))?;
    let finish = || recover(layout, hypervisor, id).map(drop);
    if let Some(generation) = &sealing {
        let what = format!(
            "{name}: the seal of generation {} was cut off",
            generation.name()
        );
        findings.push(Finding::repairable(what, repair, finish));
    } else if let Some(order) = super::takeover::pending_take_over(layout, id)? {
        let what = format!(
            "{name}: the take-over from generation {} was cut off",
            order.generation
        );
        let mut finding = Finding::repairable(what, repair, finish);
        if !finding.repaired {
            finding.advice = format!("run failover {} again", pair.target_vm);
        }
        findings.push(finding);
    } else if layout.mending(id).exists() {
        let what = format!("{name}: the repair of a damaged generation was cut off");
        findings.push(Finding::repairable(what, repair, finish));
    } else if super::prune::is_unfinished(layout, id)? {
        let what = format!("{name}: a prune was cut off");
        findings.push(Finding::repairable(what, repair, finish));
    }
    if sealing.is_none() && !pair.forks.is_empty() && is_old(layout, id)? {
        let drop_forks = || drop_forks(layout, pair.clone());
        let what = format!("{name}: the forks of a run that was never finished take up space");
        findings.push(Finding::repairable(what, repair, drop_forks));
    }
    Ok(())
}

/// The state was written when the forks were made.
fn is_old(layout: &Layout, id: Uuid) -> Result<bool> {
    let path = layout.target_pair(id);
    let written = std::fs::metadata(&path).and_then(|meta| meta.modified());
    let written = written.map_err(|e| Error::io(format!("cannot stat {}", path.display()), e))?;
    Ok(SystemTime::now()
        .duration_since(written)
        .is_ok_and(|age| age > FORK_TTL))
}

fn drop_forks(layout: &Layout, mut pair: TargetPair) -> Result<()> {
    remove_forks(pair.forks.iter(), pair.pair)?;
    for index in 0..pair.forks.len() {
        store::remove(&layout.fork_table(pair.pair, index))?;
    }
    pair.forks.clear();
    write_json(&layout.target_pair(pair.pair), &pair)
}

/// Generations without a volume, and pools without room.
fn volumes(
    pair: &TargetPair,
    generations: &[Generation],
    listing: &Listing,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    for generation in generations {
        for disk in lost_disks(generation, listing)? {
            let what = format!(
                "generation {} of VM {} has lost its disk {}: {} is gone",
                generation.name(),
                pair.target_vm,
                disk.key,
                disk.location
            );
            let advice = "do not boot it; the next sync makes a whole one";
            findings.push(Finding::new(what, advice));
        }
    }
    let thin = generations
        .iter()
        .flat_map(|g| &g.disks)
        .filter_map(|d| match &d.location {
            Location::ThinLv { lv, .. } => Some(lv),
            Location::ThickLv { .. } | Location::File { .. } => None,
        });
    if let Err(e) = check_pools_in(listing, thin, POOL_PERCENT_MAX) {
        findings.push(Finding::new(
            e.to_string(),
            "no sync will start before there is room",
        ));
    }
    Ok(())
}
