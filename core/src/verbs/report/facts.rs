//! What the page is about, read from the state of this host. Nothing is changed and no lock is taken: files of state
//! are replaced as a whole, and the journal is a database.

use super::stores::{self, Store};
use crate::error::Result;
use crate::job::fleet::{with_status, Ages, Expected};
use crate::job::{statuses, PairStatus};
use crate::journal::{Journal, RunRecord, Side};
use crate::replica::{
    list_generations, sent, source_pairs_to, told, told_by, BlockMap, Generation, Layout, Location,
    Told,
};
use crate::snapshot::Consistency;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// Runs of a replication that are looked at.
const RUNS_MAX: usize = 60;

/// All that goes into a page.
pub(super) struct Facts {
    /// The front end's program.
    pub program: &'static str,
    /// This host's name.
    pub host: String,
    /// When the page is written.
    pub now: Timestamp,
    /// How old newest generations may be.
    pub limit: Limit,
    /// What was found here.
    pub found: Found,
}

/// How old a newest generation may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// That was not said.
    None,
    /// All of them so many seconds.
    All(u64),
    /// Each as its job says; others may be as old as they like.
    Jobs,
}

/// What was found on this host.
#[derive(Default)]
pub(super) struct Found {
    /// All replications that it has a part in.
    pub replications: Vec<Replication>,
    /// Pools and file systems that its replicas are in.
    pub stores: Vec<Store>,
    /// What could not be looked at.
    pub notes: Vec<String>,
}

/// One VM and one other host.
pub(super) struct Replication {
    /// How it stands.
    pub status: PairStatus,
    /// How old its newest generation may be, in seconds.
    pub rpo_s: Option<u64>,
    /// The VM's id on its source.
    pub source_vm: String,
    /// Generations that are kept, as far as this side knows, oldest first.
    pub generations: Vec<Point>,
    /// The newest of them.
    pub newest: Option<Newest>,
    /// The last runs, oldest first.
    pub runs: Vec<RunRecord>,
}

/// A generation.
#[derive(Clone)]
pub(super) struct Point {
    /// Its name.
    pub name: String,
    /// Its epoch.
    pub epoch: u64,
    /// When it was taken.
    pub taken_at: Timestamp,
    /// What kind of point in time it is.
    pub consistency: Consistency,
    /// Bytes that were sent for it.
    pub sent: u64,
    /// What somebody has done with it since.
    pub marks: Marks,
}

/// What was done with a sealed generation; as far as it is known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Marks {
    /// It is not pruned.
    pub pinned: bool,
    /// When it was read again and found to be what was sealed.
    pub verified: Option<Timestamp>,
    /// When a part of it was read again, and was what had been sealed; all of it never was.
    pub partly: Option<Timestamp>,
    /// When it was read again and found to be something else.
    pub damaged: Option<Timestamp>,
    /// When it was booted in a test.
    pub booted: Option<Timestamp>,
}

/// What is told of the newest generation only.
pub(super) struct Newest {
    /// Its disks.
    pub disks: Vec<DiskPart>,
    /// Keys of the disks that were left out.
    pub excluded: Vec<String>,
    /// What the user should know of it.
    pub notes: Vec<String>,
}

/// A disk of it.
pub(super) struct DiskPart {
    /// The disk's key.
    pub key: String,
    /// The volume on the target.
    pub volume: String,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes that were sent for it.
    pub sent: u64,
    /// Where it has data, and where it changed.
    pub map: Option<BlockMap>,
}

/// Finds a VM's name in the configuration of a generation.
pub(super) type NameOf<'a> = &'a dyn Fn(&Generation) -> Option<String>;

/// Reads it all.
///
/// What jobs promise shows even where nothing was ever tried. `rpo_s` is for all, if it is said.
pub(super) fn collect(
    layout: &Layout,
    name_of: NameOf,
    promised: &[Expected],
    rpo_s: Option<u64>,
) -> Result<Found> {
    let runs = Runs::read(layout)?;
    let mut kept = BTreeMap::new();
    let mut places: Vec<Location> = Vec::new();
    for (pair, generations) in list_generations(layout, None)? {
        if let Some(head) = generations.last() {
            places.extend(head.disks.iter().map(|d| d.location.clone()));
        }
        let history = History::of(&generations, &told(layout, &generations)?, &pair.pinned);
        let name = generations.last().and_then(name_of).unwrap_or_default();
        kept.insert(pair.pair.to_string(), (pair.vm.clone(), name, history));
    }
    let mut found = Found::default();
    let mut statuses = statuses(layout, None)?;
    let limits = limits(promised, &mut statuses, &Ages::read(layout)?);
    for (at, mut status) in statuses.into_iter().enumerate() {
        let (source_vm, history) = match status.side {
            Side::Target => {
                let here = status.pair.as_ref().and_then(|id| kept.remove(id));
                match here {
                    Some((source_vm, name, history)) => {
                        // The status knows names of sources only.
                        status.name = name;
                        (source_vm, history)
                    }
                    None => (status.vm.clone(), History::default()),
                }
            }
            Side::Source => {
                let sent = sent(layout, &status.vm)?.into_iter();
                let mut of_pair = sent.filter(|(p, _)| Some(p.pair.to_string()) == status.pair);
                let history = match of_pair.next() {
                    Some((pair, generations)) => {
                        let mut targets = source_pairs_to(layout, &status.vm)?.into_iter();
                        let told = targets
                            .find(|(_, known)| known.pair == pair.pair)
                            .map(|(target, _)| told_by(layout, &status.vm, target, pair.pair));
                        History::of(&generations, &told.unwrap_or_default(), &BTreeSet::new())
                    }
                    None => History::default(),
                };
                (status.vm.clone(), history)
            }
        };
        found.replications.push(Replication {
            runs: runs.of(&status),
            rpo_s: rpo_s.or(limits.get(&at).copied()),
            status,
            source_vm,
            generations: history.points,
            newest: history.newest,
        });
    }
    (found.stores, found.notes) = stores::look(&places);
    Ok(found)
}

/// The limits of those among the statuses that jobs are about, by their place. Those that nothing is known of are added.
/// Where two jobs are about one, the stricter counts.
fn limits(
    promised: &[Expected],
    statuses: &mut Vec<PairStatus>,
    ages: &Ages,
) -> BTreeMap<usize, u64> {
    let mut limits = BTreeMap::new();
    for (expected, rpo_s) in with_status(promised, statuses, ages) {
        let is_it = |s: &PairStatus| {
            s.side == expected.side && s.vm == expected.vm && s.peer == expected.peer
        };
        let at = statuses.iter().position(is_it).unwrap_or_else(|| {
            statuses.push(expected.clone());
            statuses.len() - 1
        });
        let least = limits.entry(at).or_insert(rpo_s);
        *least = rpo_s.min(*least);
    }
    limits
}

/// The generations of a replication, without what takes up room.
#[derive(Default)]
struct History {
    points: Vec<Point>,
    newest: Option<Newest>,
}

impl History {
    fn of(generations: &[Generation], told: &Told, pinned: &BTreeSet<u64>) -> History {
        let marks = |g: &Generation| {
            let found = told.checked.get(&g.number);
            let damaged = found.filter(|found| !found.damaged.is_empty());
            let partly = found.filter(|found| found.damaged.is_empty() && found.whole.is_none());
            Marks {
                pinned: pinned.contains(&g.number),
                verified: found.and_then(|found| found.whole),
                partly: partly.map(|found| found.at),
                damaged: damaged.map(|found| found.at),
                booted: told.booted.get(&g.number).map(|boot| boot.at),
            }
        };
        let point = |g: &Generation| Point {
            name: g.name(),
            epoch: g.epoch,
            taken_at: g.taken_at,
            consistency: g.consistency,
            sent: g.disks.iter().map(|d| d.changed).sum(),
            marks: marks(g),
        };
        let points = generations.iter().map(point).collect();
        let newest = generations.last().map(|g| Newest {
            disks: g
                .disks
                .iter()
                .map(|d| DiskPart {
                    key: d.key.clone(),
                    volume: d.target.clone(),
                    size: d.size,
                    sent: d.changed,
                    map: (told.maps.iter())
                        .find(|map| map.key == d.key && told.newest == Some(g.number))
                        .cloned(),
                })
                .collect(),
            excluded: g.excluded.clone(),
            notes: g.notes.clone(),
        });
        History { points, newest }
    }
}

/// The runs of this host.
struct Runs {
    source: Vec<RunRecord>,
    target: Vec<RunRecord>,
}

impl Runs {
    fn read(layout: &Layout) -> Result<Runs> {
        let (mut source, mut target) = (Vec::new(), Vec::new());
        if let Some(journal) = Journal::look(&layout.journal())? {
            source = journal.runs(Side::Source)?;
            target = journal.runs(Side::Target)?;
        }
        Ok(Runs { source, target })
    }

    /// Those of one replication. A run that did not reach the other host knows no pair, but the name that it tried.
    fn of(&self, status: &PairStatus) -> Vec<RunRecord> {
        let all = match status.side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        };
        let is_of = |run: &&RunRecord| match (&run.pair, status.side) {
            (Some(pair), _) => status.pair.as_ref() == Some(pair),
            (None, Side::Source) => run.vm == status.vm && run.peer == status.peer,
            (None, Side::Target) => false,
        };
        let newest_first = all.iter().rev().filter(is_of).take(RUNS_MAX);
        let mut runs: Vec<RunRecord> = newest_first.cloned().collect();
        runs.reverse();
        runs
    }
}
