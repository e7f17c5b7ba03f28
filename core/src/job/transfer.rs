//! Moves the disks of a point in time into the target's forks, some of them at a time.

use super::sync::LEAF_BYTES;
use super::track::Track;
use super::vm::{SourceVm, SyncOptions};
use crate::agent::{
    path_bytes, BlockEnd, BlockRequest, Client, OpenTarget, Opened, Role, Table, TableBase,
};
use crate::bell::Bell;
use crate::cli::Reporter;
use crate::driver::RemoteAgent;
use crate::error::{Error, Kind, Result};
use crate::image::ImageFormat;
use crate::lvm::{Pool, POOL_PERCENT_WRITING_MAX};
use crate::remote::Remote;
use crate::replica::{Fork, Prepared};
use crate::snapshot::{PointInTime, SnapshotDisk, SnapshotKind};
use crate::stop::Stop;
use crate::sync::{DeltaMode, DigestTable, Geometry, Meter, Params, Progress, Summary};
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use uuid::Uuid;

pub(super) struct Transfers<'a> {
    pub vm: &'a SourceVm,
    /// Those that keep the point in time.
    pub pools: &'a [Pool],
    pub session: &'a Remote,
    pub options: &'a SyncOptions,
    pub reporter: &'a Reporter,
    /// Of these transfers alone: the first failure stops the others.
    pub stop: &'a Stop,
    pub run: Uuid,
}

/// A fork that is open before there is anything to be written to it: finding out what it maps takes its time.
pub(super) struct Ready {
    agent: RemoteAgent,
    opened: Opened,
}

/// How far a disk is, over all connections of a run.
pub(super) struct Carried {
    table: DigestTable,
    meter: Arc<Meter>,
}

impl Carried {
    /// Not begun; the segments' digests will be in `table`.
    pub fn new(table: DigestTable) -> Carried {
        Carried {
            table,
            meter: Arc::new(Meter::new()),
        }
    }
}

impl Track {
    /// What the target is to begin from.
    fn target_base(&self) -> TableBase {
        TableBase {
            path: path_bytes(&self.table),
            digest: self.changes.base.digest,
        }
    }
}

/// How often the pools are looked at that keep the point in time. Those that are written look for themselves.
const POOLS_LOOK_EVERY: Duration = Duration::from_secs(5);

/// One disk's way.
struct Way<'a> {
    key: &'a str,
    from: &'a SnapshotDisk,
    format: ImageFormat,
    fork: &'a Fork,
    size: u64,
    carried: &'a Carried,
    track: Option<&'a Track>,
}

impl Transfers<'_> {
    /// Opens the forks of the disks that will be the first ones, so that [`Transfers::run`] can begin at once.
    pub fn ready(&self, prepared: &Prepared) -> Result<Vec<Ready>> {
        let first = prepared.forks.iter().take(self.jobs());
        first
            .map(|fork| {
                let context = |e: Error| e.context(format!("disk {}", fork.key));
                let mut agent = self.agent().map_err(context)?;
                let opened = self.open_fork(&mut agent, fork).map_err(context)?;
                Ok(Ready { agent, opened })
            })
            .collect()
    }

    fn jobs(&self) -> usize {
        self.options.jobs.clamp(1, self.vm.disks.len().max(1))
    }

    fn agent(&self) -> Result<RemoteAgent> {
        let streams = self.options.streams;
        RemoteAgent::start(self.session, self.vm.program, streams, self.stop)
    }

    fn open_fork(&self, agent: &mut RemoteAgent, fork: &Fork) -> Result<Opened> {
        let open = OpenTarget {
            path: path_bytes(&fork.path),
            create: false,
            dry_run: false,
            direct: self.options.direct,
            format: fork.placement.location.format(),
        };
        agent.client().block(BlockRequest::OpenTarget(open))
    }

    /// Syncs all disks, the first of which may be `ready`; the first failure stops the others, and so does the loss of the
    /// `control` agent, which holds the replica's lock.
    pub fn run(
        &self,
        control: &mut Client,
        prepared: &Prepared,
        point: &PointInTime,
        (carried, tracks): (&[Carried], &[Option<Track>]),
        ready: Vec<Ready>,
    ) -> Result<Vec<Summary>> {
        let count = self.vm.disks.len();
        let jobs = self.jobs();
        let stop = self.stop;
        let mut ready: Vec<Option<Ready>> = ready.into_iter().map(Some).collect();
        ready.resize_with(count, || None);
        let ready = Mutex::new(ready);
        let next = Mutex::new(0..count);
        let done: Mutex<Vec<Option<Summary>>> = Mutex::new(vec![None; count]);
        let first_error = Mutex::new(None);
        let (finished, running) = (Bell::new()?, AtomicUsize::new(jobs));
        let fail = |e: Error| {
            stop.stop();
            let mut first = first_error.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(e);
        };
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| loop {
                    let index = next.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(index) = index.filter(|_| !stop.is_stopped()) else {
                        if running.fetch_sub(1, Ordering::AcqRel) == 1 {
                            finished.ring();
                        }
                        return;
                    };
                    let fork = &prepared.forks[index];
                    let key = &fork.key;
                    let way = Way {
                        key,
                        from: &point.disks[index],
                        format: self.vm.disks[index].spec.format,
                        fork,
                        size: self.vm.disks[index].spec.size,
                        carried: &carried[index],
                        track: tracks[index].as_ref(),
                    };
                    let open = ready.lock().unwrap_or_else(PoisonError::into_inner)[index].take();
                    match self.one(&way, open, jobs) {
                        Ok(summary) => {
                            done.lock().unwrap_or_else(PoisonError::into_inner)[index] =
                                Some(summary);
                        }
                        Err(e) => fail(e.context(format!("disk {key}"))),
                    }
                });
            }
            scope.spawn(|| {
                while !finished.wait(POOLS_LOOK_EVERY) {
                    if let Err(e) = self.check_pools() {
                        return fail(e.context("the source's point in time could not be kept"));
                    }
                }
            });
            if let Err(e) = control.link().reader.watch(&finished) {
                fail(e);
            }
        });
        if let Some(error) = first_error
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
        {
            return Err(error);
        }
        let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.into_iter()
            .map(|summary| summary.ok_or_else(|| self.stop.error()))
            .collect()
    }

    /// The source's pools must have room for what the guest overwrites. The kernel tells: LVM would take its lock.
    fn check_pools(&self) -> Result<()> {
        self.pools.iter().try_for_each(|pool| {
            let now = pool.look_again()?;
            now.spare_bytes(POOL_PERCENT_WRITING_MAX).map(drop)
        })
    }

    fn one(&self, way: &Way, ready: Option<Ready>, jobs: usize) -> Result<Summary> {
        let geometry = Geometry::new(way.size, LEAF_BYTES)?;
        let mut params = Params::new(geometry, &self.options.tuning);
        params.bytes_per_s_max = params.bytes_per_s_max.map(|max| (max / jobs as u64).max(1));
        let Carried { table, meter } = way.carried;
        let before = meter.read();
        let _watch = self.reporter.watch(way.key, meter.clone());
        std::thread::scope(|scope| {
            // Finding out what is mapped takes its time at both ends: at once.
            let source = scope.spawn(|| self.open_source(way));
            let (agent, opened) = match ready {
                Some(Ready { agent, opened }) => (agent, Some(opened)),
                None => (self.agent()?, None),
            };
            agent.during(|agent| {
                let opened = match opened {
                    Some(opened) => opened,
                    None => self.open_fork(agent, way.fork)?,
                };
                self.tell(way, &opened);
                if opened.size < way.size {
                    return Err(Error::new(
                        Kind::Remote,
                        format!("{} is too small", way.fork.path.display()),
                    ));
                }
                let mut source = source.join().unwrap_or_else(|_| Err(self.stop.error()))?;
                let wanted = Table {
                    path: path_bytes(&way.fork.table),
                    point: self.run,
                    geometry,
                    hash: params.hash,
                    base: way.track.map(Track::target_base),
                };
                params.first = agent.client().block(BlockRequest::Table(wanted))?;
                params.delta = way.track.map(|track| match track.changes.snapshot() {
                    Some(_) => DeltaMode::Image,
                    None => DeltaMode::Ranges,
                });
                let mut since = match way.track {
                    Some(Track { changes, .. }) => {
                        table.fill_from(&changes.base.table, params.first)?;
                        let before = changes.snapshot().map(|lv| lv.id.path());
                        let before = before.map(|path| self.open_path(way, &path)).transpose()?;
                        Some((before, changes))
                    }
                    None => None,
                };
                let done = agent.carry(self.session, |client| {
                    client.block::<()>(BlockRequest::Sync(Role::Target, params))?;
                    let link = client.link();
                    match &mut since {
                        None => source.sync(Role::Source, &params, link, meter, Some(table)),
                        Some((since, changes)) => {
                            let since = (since.as_mut(), &changes.ranges);
                            source.sync_since(since, &params, link, meter, table)
                        }
                    }
                });
                if let Some(why) = agent.lacks() {
                    self.reporter.note(&why.message());
                }
                let done = done?;
                // Before anybody seals it: a container is whole only once it was closed.
                agent.client().block::<()>(BlockRequest::Commit)?;
                Ok(done)
            })
        })
        .map(|summary| whole(summary, &before, &meter.read()))
    }

    /// Opens the disk as it was at the point in time.
    fn open_source(&self, way: &Way) -> Result<BlockEnd> {
        match &way.from.kind {
            SnapshotKind::Export(export) => {
                let name = format!("{} as QEMU shows it", way.from.source);
                let opened = BlockEnd::export(export, name)?;
                self.of_size(way, opened, &way.from.source)
            }
            _ => self.open_path(way, &way.from.path),
        }
    }

    /// Opens the disk as it was at some time. What is not mapped is of no interest where it is known what changed.
    fn open_path(&self, way: &Way, from: &Path) -> Result<BlockEnd> {
        let opened = match (way.track, way.format) {
            (Some(_), ImageFormat::Raw) => BlockEnd::plain_source(from, self.options.direct)?,
            _ => BlockEnd::source(from, way.format, self.options.direct)?,
        };
        self.of_size(way, opened, from.display())
    }

    fn of_size(
        &self,
        way: &Way,
        (source, opened): (BlockEnd, Opened),
        from: impl fmt::Display,
    ) -> Result<BlockEnd> {
        self.tell(way, &opened);
        if opened.size == way.size {
            return Ok(source);
        }
        Err(Error::new(
            Kind::Io,
            format!(
                "{from} has {} bytes, but the VM's disk had {}",
                opened.size, way.size
            ),
        )
        .advise("the disk was resized meanwhile; run again"))
    }

    fn tell(&self, way: &Way, opened: &Opened) {
        if let Some(note) = &opened.note {
            self.reporter.note(&format!("{}: {note}", way.key));
        }
    }
}

/// What all connections of a run came to, the last of which had `summary`.
fn whole(summary: Summary, before: &Progress, after: &Progress) -> Summary {
    Summary {
        compared: after.compared,
        changed: after.changed,
        zeroed: summary.zeroed.max(after.zeroed),
        wire_out: summary.wire_out + before.sent,
        ..summary
    }
}
