//! Sync one VM to one target: plan, point in time, transfer of all disks, seal.

use super::base::Base;
use super::messages::HostRequest;
use super::retry::Patience;
use super::track::{Track, QEMU_PREFIX};
use super::transfer::{Carried, Ready, Transfers};
use super::vm::{Context, Sent, SourceDisk, SourceVm, SyncOptions, SyncOutcome};
use crate::agent::Client;
use crate::digest::HashKind;
use crate::driver::{RemoteAgent, Streams};
use crate::error::{Error, Kind, Result};
use crate::hypervisor::HostDescription;
use crate::journal::{Beginning, Journal, Run, Sealed, Side, State};
use crate::lock::{private_dir, Lock};
use crate::lvm::{Listing, LvId, OwnerTag, Pool};
use crate::qemu::BitmapRecord;
use crate::remote::Remote;
use crate::replica::{
    host_id, newest_sent, note_sent, note_told, read_json, source_pairs, write_json, DiskRecord,
    Fork, Generation, Prepared, Proof, ReplicaRequest, SealReport, SourcePair, Standing,
    TargetPlan, POOL_PERCENT_MAX,
};
use crate::runbook::Runbook;
use crate::snapshot::{self, Consistency, DiskSource, PointInTime, VmRuntime};
use crate::stop::Stop;
use crate::sync::{DigestTable, Geometry, Summary};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Leaf size of all replicas, in bytes.
pub(super) const LEAF_BYTES: u32 = 4096;

/// Syncs `vm` to the context's host. `runtime` says how to hold the VM still.
pub fn sync(
    context: &Context,
    vm: &SourceVm,
    runtime: VmRuntime,
    options: &SyncOptions,
) -> Result<SyncOutcome> {
    // Looking needs no lock, and leaves neither a lock file nor a line in the journal.
    if options.dry_run {
        return Job::new(context, vm, options, None).run(runtime);
    }
    let lock = lock(context, &vm.id)?;
    sync_holding(context, vm, runtime, options, &lock)
}

/// Takes the lock that all runs on a VM of this host take.
pub(super) fn lock(context: &Context, vm: &str) -> Result<Lock> {
    Lock::take(&context.layout.vm_lock(vm), &format!("VM {vm}"))
}

/// The same for somebody who holds the VM's lock: a workflow of which the sync is a part.
pub(super) fn sync_holding(
    context: &Context,
    vm: &SourceVm,
    runtime: VmRuntime,
    options: &SyncOptions,
    lock: &Lock,
) -> Result<SyncOutcome> {
    sync_around(context, vm, runtime, options, lock, None)
}

/// Called once heads are to be written where they are.
type OnHeads<'a> = &'a dyn Fn(&Prepared) -> Result<()>;

/// What a workflow does in the middle of a sync, for which the VM stands still.
pub(super) struct Around<'a> {
    /// The target may have the heads brought up to date where they are, for a guest that waits on them: what is done once
    /// it is ready for that, before `stop`. `None`: they are not wanted.
    pub on_heads: Option<OnHeads<'a>>,
    /// All is ready for the point in time: ends or pauses the VM, and tells how it is now.
    pub stop: &'a dyn Fn() -> Result<VmRuntime>,
    /// It is sealed, and that is all that somebody waits for. An error is the sync's, once that has cleaned up.
    pub sealed: &'a dyn Fn(SyncOutcome) -> Result<()>,
    /// Its guest runs all the same, and its disks stand still since then.
    pub runs: bool,
}

/// [`sync_holding`] with something in its middle.
pub(super) fn sync_around(
    context: &Context,
    vm: &SourceVm,
    runtime: VmRuntime,
    options: &SyncOptions,
    _lock: &Lock,
    around: Option<&Around>,
) -> Result<SyncOutcome> {
    let journal = open_journal(context)?;
    tell_cut_off(context, &journal, &vm.id)?;
    let run = journal.begin(&beginning(context, &vm.id, &vm.name))?;
    let mut job = Job::new(context, vm, options, Some(&run));
    job.around = around;
    let result = job.run(runtime);
    finish(run, result)
}

/// Removes what killed runs left of their points in time. The caller holds the VM's lock.
pub(super) fn sweep_left(context: &Context, vm: &SourceVm, options: &SyncOptions) -> Result<()> {
    Job::new(context, vm, options, None).sweep()
}

/// Notes in the journal that a VM could not even be looked at: whoever asks for the state of its replica is to hear
/// of it. A VM that was never synced is nobody's concern.
pub fn note_failure(context: &Context, vm: &str, error: Error) -> Error {
    let note = || -> Result<()> {
        if source_pairs(context.layout, vm)?.is_empty() {
            return Ok(());
        }
        let (journal, _) = Journal::open(&context.layout.journal())?;
        let run = journal.begin(&beginning(context, vm, ""))?;
        run.end(Some(&error))
    };
    match note() {
        Ok(()) => error,
        Err(also) => error.followed_by(also),
    }
}

pub(super) fn beginning<'a>(context: &'a Context, vm: &'a str, name: &'a str) -> Beginning<'a> {
    Beginning {
        id: Uuid::new_v4(),
        side: Side::Source,
        vm,
        name,
        peer: context.host.host(),
    }
}

pub(super) fn open_journal(context: &Context) -> Result<Rc<Journal>> {
    let (journal, note) = Journal::open(&context.layout.journal())?;
    if let Some(note) = note {
        context.reporter.note(&note);
    }
    Ok(journal)
}

/// The caller holds the VM's lock, so a run that has not ended is dead.
fn tell_cut_off(context: &Context, journal: &Journal, vm: &str) -> Result<()> {
    let last = journal.newest(Side::Source, vm)?;
    if let Some(last) = last.filter(|run| run.was_cut_off()) {
        context.reporter.say(
            format!("  the last run was cut off in its step {}", last.state),
            json!({"event": "cut-off", "run": last}),
        );
    }
    Ok(())
}

/// The run's end goes into the journal. If that fails, what it came to is as true as before.
pub(super) fn finish<T>(run: Run, result: Result<T>) -> Result<T> {
    match result {
        Err(e) => Err(run.fail(e)),
        Ok(done) => match run.end(None) {
            Ok(()) => Ok(done),
            Err(e) => Err(e.context("all is done, but its end could not be noted")),
        },
    }
}

/// What a run needs from its point in time on, also when the connection has to be made again.
pub(super) struct Taken {
    pub target: Uuid,
    request: ReplicaRequest,
    prepared: Prepared,
    pub point: PointInTime,
    carried: Vec<Carried>,
    /// For each disk what changed since the parent, if that is known for sure.
    pub tracks: Vec<Option<Track>>,
    /// Bitmaps in the files of a VM that is off: what they mark since an earlier generation, they do since this one.
    pub bitmaps: Vec<Option<BitmapRecord>>,
    /// The pools that keep the point in time.
    pools: Vec<Pool>,
    /// The target may have sealed it: from here on only a new run can tell.
    sealing: Cell<bool>,
    /// Since when the transfer goes on over the present connection.
    since: Cell<Option<Instant>>,
}

/// One sync, under way.
pub(super) struct Job<'a> {
    pub context: &'a Context<'a>,
    pub vm: &'a SourceVm,
    pub options: &'a SyncOptions,
    /// Its page in the journal; none for a dry run.
    run: Option<&'a Run>,
    /// What LVM knows of this host's volumes.
    pub listing: Listing,
    around: Option<&'a Around<'a>>,
    pub began: Instant,
    /// When each step was begun, and what was sent.
    steps: RefCell<Vec<(State, Instant)>>,
    sent: Cell<Sent>,
}

impl<'a> Job<'a> {
    fn new(
        context: &'a Context<'a>,
        vm: &'a SourceVm,
        options: &'a SyncOptions,
        run: Option<&'a Run>,
    ) -> Self {
        Job {
            context,
            vm,
            options,
            run,
            listing: Listing::default(),
            around: None,
            began: Instant::now(),
            steps: RefCell::default(),
            sent: Cell::default(),
        }
    }
}

impl Job<'_> {
    fn enter(&self, state: State) -> Result<()> {
        self.steps.borrow_mut().push((state, Instant::now()));
        self.run.map_or(Ok(()), |run| run.enter(state))
    }

    fn outcome(&self, generation: Option<Generation>) -> SyncOutcome {
        let mut steps = self.steps.borrow_mut();
        // Making the connection comes before the first one.
        if let Some((_, first)) = steps.first_mut() {
            *first = self.began;
        }
        let ends = steps.iter().skip(1).map(|(_, at)| *at);
        let ends = ends.chain(std::iter::once(Instant::now()));
        SyncOutcome {
            generation,
            sent: self.sent.get(),
            steps: steps
                .iter()
                .zip(ends)
                .map(|((state, at), end)| (*state, end.duration_since(*at)))
                .collect(),
        }
    }

    fn run(&self, runtime: VmRuntime) -> Result<SyncOutcome> {
        let (mut runtime, mut taken) = (Some(runtime), None);
        let mut patience = Patience::new(self.options.retry_for);
        let result = loop {
            let result = self.attempt(&mut runtime, &mut taken);
            let Some(Taken { sealing, since, .. }) = &taken else {
                break result;
            };
            let held = since.take().map_or(Duration::ZERO, |since| since.elapsed());
            match result {
                Err(e) if !sealing.get() => match patience.wait(&e, held, self.context) {
                    Ok(true) => {}
                    Ok(false) => break Err(e),
                    Err(stopped) => break Err(stopped),
                },
                other => break other,
            }
        };
        let Some(mut taken) = taken else {
            return Ok(self.outcome(result?));
        };
        // What QEMU keeps has to go while QEMU is there.
        let waits = self.around.filter(|_| !taken.point.is_in_qemu());
        let mut behind = match (waits, &result) {
            (Some(around), Ok(Some(sealed))) => (around.sealed)(self.outcome(Some(sealed.clone()))),
            _ => Ok(()),
        };
        let noted = match &result {
            Ok(_) => self.enter(State::Release),
            Err(_) => Ok(()),
        };
        if let Ok(Some(generation)) = &result {
            if let Err(e) = self.keep_bases(&mut taken, generation) {
                self.note(&format!(
                    "the next sync has to compare everything: {}",
                    e.message()
                ));
            }
        }
        let released = taken.point.release();
        if let (None, Some(around), Ok(Some(sealed)), Ok(())) =
            (waits, self.around, &result, &released)
        {
            behind = (around.sealed)(self.outcome(Some(sealed.clone())));
        }
        behind?;
        let generation = result?;
        let sealed = |e: Error| match &generation {
            Some(generation) => {
                e.context(format!("generation {} is sealed, but", generation.name()))
            }
            None => e,
        };
        released.map_err(sealed)?;
        noted.map_err(sealed)?;
        Ok(self.outcome(generation))
    }

    /// Goes as far as one connection lets it. No generation results of a dry run only.
    fn attempt(
        &self,
        runtime: &mut Option<VmRuntime>,
        taken: &mut Option<Taken>,
    ) -> Result<Option<Generation>> {
        let Context {
            host, ssh, stop, ..
        } = self.context;
        let mut is_connected = false;
        let done = Remote::during(host, ssh, |session| {
            is_connected = true;
            let control = RemoteAgent::start(session, self.vm.program, Streams::Fixed(1), stop)?;
            control.during(|agent| {
                let client = agent.client();
                let mut ready = Vec::new();
                let stop = &stop.child();
                match (&taken, runtime.take()) {
                    (Some(taken), _) => self.take_up(client, taken)?,
                    (None, Some(runtime)) => {
                        *taken = self.prepare((client, session, stop), runtime, &mut ready)?;
                    }
                    (None, None) => return Err(stop.error()),
                }
                match taken {
                    Some(taken) => {
                        let by = (client, session, stop);
                        self.transfer_and_seal(by, taken, ready).map(Some)
                    }
                    None => Ok(None),
                }
            })
        });
        done.map_err(|e| match e.kind() {
            Kind::Remote if !is_connected => e.see(Runbook::TargetHostDead),
            _ => e,
        })
    }

    /// All before the transfer; nothing results of a dry run.
    fn prepare(
        &self,
        (client, session, stop): (&mut Client, &Remote, &Stop),
        runtime: VmRuntime,
        ready: &mut Vec<Ready>,
    ) -> Result<Option<Taken>> {
        self.enter(State::Plan)?;
        let target: HostDescription = client.host(&HostRequest::Describe {
            keep: !self.options.dry_run,
        })?;
        if self.options.moves {
            // Once the VM is given up here it is too late for the other host to say that its policy forbids it.
            client.host::<_, ()>(&HostRequest::CheckRoles)?;
        }
        let (pair, standing) = self.pair(&target)?;
        standing.check_sends(&self.vm.id)?;
        if let Some(run) = self.run {
            run.is_of(pair, target.id)?;
        }
        let mut request = self.request(pair, standing, target.id)?;
        let owner = OwnerTag::new(pair);
        let id = request.run.simple().to_string();
        let mut wanted = snapshot::Request {
            run: &id,
            disks: self.disks_wanted(),
            owner: &owner,
            hold_max: self.options.hold_max,
            scratch: Some(self.scratch()),
            bitmaps: format!("{QEMU_PREFIX}{}-", pair.simple()),
            bitmap_next: None,
        };
        snapshot::check(&self.listing, &wanted, &runtime)?;
        let bases = self.bases(&request, target.id);
        let disks = self.vm.disks.iter().zip(&bases);
        request.tracked = disks
            .filter(|(_, base)| base.is_ok())
            .map(|(disk, _)| disk.spec.key.clone())
            .collect();
        let plan: TargetPlan = client.host(&HostRequest::Plan(Box::new(request.clone())))?;
        let pools = self.vm.pools(&self.listing)?;
        for pool in &pools {
            pool.spare_bytes(POOL_PERCENT_MAX)?;
        }
        self.tell_plan(&target, &plan);
        if self.options.dry_run {
            self.predict(bases, &runtime, plan.head.is_none())?;
            return Ok(None);
        }
        self.remember(pair, standing, &target)?;
        self.enter(State::Sweep)?;
        self.sweep()?;
        self.context.stop.check()?;
        // The target first: what it refuses must not cost the guest a pause.
        self.enter(State::Fork)?;
        let asked = Box::new(request.clone());
        let on_heads = self.around.and_then(|around| around.on_heads);
        let prepared: Prepared = client.host(&match on_heads {
            Some(_) => HostRequest::PrepareOnHeads(asked),
            None => HostRequest::Prepare(asked),
        })?;
        prepared.notes.iter().for_each(|note| self.note(note));
        let carried = self.carried(&request, target.id)?;
        let read: Vec<LvId> = bases
            .iter()
            .zip(&prepared.forks)
            .filter_map(|pair| match pair {
                (Ok(base), fork) if matches!(fork.proof, Some(Proof::Sealed(_))) => base.volume(),
                _ => None,
            })
            .cloned()
            .collect();
        if self.around.is_some() {
            if let (Some(on_heads), true) = (on_heads, prepared.on_heads) {
                on_heads(&prepared)?;
            }
            // What need not wait until the VM stands still.
            *ready = self
                .transfers(session, stop, request.run, &pools)
                .ready(&prepared)?;
            if snapshot::make_readable(&self.listing, &read).is_err() {
                // What cannot be read is told when everything is compared instead.
                self.listing.forget();
            }
        }
        self.context.stop.check()?;
        self.enter(State::Snap)?;
        let (runtime, at_once) = match self.around {
            Some(around) => ((around.stop)()?, true),
            None => (runtime, false),
        };
        if self.options.keep_base {
            wanted.bitmap_next = Some(format!("{}{}", wanted.bitmaps, prepared.number));
        }
        let is_off = !runtime.runs();
        let in_file = |base: &Base| base.bitmap().filter(|b| is_off && b.persistent).cloned();
        let bitmaps = bases.iter().map(|base| in_file(base.as_ref().ok()?));
        let bitmaps = bitmaps.collect();
        for (disk, base) in wanted.disks.iter_mut().zip(&bases) {
            let bitmap = base.as_ref().ok().and_then(Base::bitmap);
            disk.since = bitmap.map(|bitmap| bitmap.name.clone());
        }
        let mut point = match at_once {
            true => snapshot::take_at_once(&self.listing, &wanted, runtime, read)?,
            false => snapshot::take_in(&self.listing, &wanted, runtime, read)?,
        };
        if self.around.is_some_and(|around| around.runs) {
            point.consistency = Consistency::Crash;
        }
        let tracks = self.tracks(&request, &prepared, bases, &point);
        if let Err(e) = self.check_config().and_then(|()| {
            self.tell_point(&point);
            self.enter(State::Transfer)
        }) {
            return Err(match point.release() {
                Ok(()) => e,
                Err(left) => e.followed_by(left),
            });
        }
        Ok(Some(Taken {
            target: target.id,
            request,
            prepared,
            point,
            carried,
            tracks,
            bitmaps,
            pools,
            sealing: Cell::new(false),
            since: Cell::new(None),
        }))
    }

    /// For each disk what tells how far it is.
    fn carried(&self, request: &ReplicaRequest, target: Uuid) -> Result<Vec<Carried>> {
        let layout = self.context.layout;
        private_dir(&layout.sent(&self.vm.id, target))?;
        let disks = self.vm.disks.iter().enumerate();
        disks
            .map(|(index, disk)| {
                let geometry = Geometry::new(disk.spec.size, LEAF_BYTES)?;
                let path = layout.sending_table(&self.vm.id, target, index);
                let hash = self.options.tuning.hash;
                let table = DigestTable::create(&path, hash, geometry, request.run)?;
                Ok(Carried::new(table))
            })
            .collect()
    }

    /// Makes the forks ready again on a new connection. They must be the ones there were.
    fn take_up(&self, client: &mut Client, taken: &Taken) -> Result<()> {
        let target: HostDescription = client.host(&HostRequest::Describe { keep: true })?;
        let mut request = taken.request.clone();
        // The forks are to be used again, and are no longer what was sealed.
        request.tracked.clear();
        let request = HostRequest::Prepare(Box::new(request));
        if target.id == taken.target {
            let again: Prepared = client.host(&request)?;
            let (old, new) = (&taken.prepared, &again);
            let places = |prepared: &Prepared| -> Vec<_> {
                let forks = prepared.forks.iter().cloned();
                forks
                    .map(|fork| Fork {
                        proof: None,
                        ..fork
                    })
                    .collect()
            };
            if (old.parent, old.number, places(old)) == (new.parent, new.number, places(new)) {
                self.note("connected again: the transfer goes on");
                return Ok(());
            }
        }
        Err(Error::new(
            Kind::Busy,
            "while the connection was lost, the replica was changed by somebody else",
        )
        .advise("run again"))
    }

    /// The pair of this VM and that host: the one remembered, or a new one.
    fn pair(&self, target: &HostDescription) -> Result<(Uuid, Standing)> {
        let known: Option<SourcePair> =
            read_json(&self.context.layout.source_pair(&self.vm.id, target.id))?;
        match known {
            Some(known) if known.vm_identity == self.vm.identity => {
                Ok((known.pair, known.standing))
            }
            Some(known) => {
                self.context.reporter.say(
                    format!("VM {} is not the one that was replicated under this id before: a new pair begins", self.vm.id),
                    json!({"event": "new-pair", "old": known.pair}),
                );
                Ok((Uuid::new_v4(), Standing::primary()))
            }
            None => Ok((Uuid::new_v4(), Standing::primary())),
        }
    }

    fn remember(&self, pair: Uuid, standing: Standing, target: &HostDescription) -> Result<()> {
        let path = self.context.layout.source_pair(&self.vm.id, target.id);
        let record = SourcePair {
            pair,
            vm_identity: self.vm.identity.clone(),
            target_name: target.name.clone(),
            address: Some(self.context.host.to_string()),
            standing,
        };
        match read_json::<SourcePair>(&path)? {
            Some(same) if same == record => Ok(()),
            _ => write_json(&path, &record),
        }
    }

    fn request(&self, pair: Uuid, standing: Standing, target: Uuid) -> Result<ReplicaRequest> {
        let newest = newest_sent(self.context.layout, &self.vm.id, target)?;
        Ok(ReplicaRequest {
            run: self.run.map_or_else(Uuid::new_v4, Run::id),
            pair,
            source_host: host_id(self.context.layout, !self.options.dry_run)?,
            source_name: self.vm.host.clone(),
            vm: self.vm.id.clone(),
            target_vm: self.options.target_vm.clone(),
            config: self.vm.config.clone(),
            described: self.vm.described.clone(),
            disks: self.vm.disks.iter().map(|d| d.spec.clone()).collect(),
            excluded: self
                .vm
                .excluded
                .iter()
                .map(|(key, _)| key.clone())
                .collect(),
            storage_map: self.options.storage_map.clone(),
            maps: self.options.maps.clone(),
            formats: self.options.formats.clone(),
            retention: self.options.retention,
            in_place: self.options.in_place,
            tracked: Vec::new(),
            epoch: standing.epoch,
            newest: newest.filter(|g| g.pair == pair),
        })
    }

    /// What was resolved must be what the snapshots were taken of: a disk that was added in between would be
    /// missing.
    fn check_config(&self) -> Result<()> {
        if (self.vm.config_now)()? == self.vm.config {
            return Ok(());
        }
        Err(Error::new(
            Kind::Busy,
            format!(
                "the configuration of VM {} was changed while the snapshots were taken",
                self.vm.id
            ),
        )
        .advise("run again"))
    }

    /// Removes what killed runs left of their points in time, whatever their target was.
    fn sweep(&self) -> Result<()> {
        let sources: Vec<DiskSource> = self.vm.disks.iter().map(|d| d.source.clone()).collect();
        let pairs = source_pairs(self.context.layout, &self.vm.id)?;
        let owners: Vec<OwnerTag> = pairs.iter().map(|p| OwnerTag::new(p.pair)).collect();
        let swept = snapshot::sweep_in(&self.listing, &owners, &sources)?;
        for name in swept.removed {
            self.context.reporter.say(
                format!("  removed {name}, left by a run that was cut off"),
                json!({"event": "swept", "name": name}),
            );
        }
        match swept.problems.into_iter().next() {
            Some(problem) => Err(problem.context("cannot remove what a run that was cut off left")),
            None => Ok(()),
        }
    }

    fn transfers<'t>(
        &'t self,
        session: &'t Remote,
        stop: &'t Stop,
        run: Uuid,
        pools: &'t [Pool],
    ) -> Transfers<'t> {
        Transfers {
            vm: self.vm,
            pools,
            session,
            options: self.options,
            reporter: self.context.reporter,
            stop,
            run,
        }
    }

    fn transfer_and_seal(
        &self,
        (client, session, stop): (&mut Client, &Remote, &Stop),
        taken: &Taken,
        ready: Vec<Ready>,
    ) -> Result<Generation> {
        let Taken {
            prepared, point, ..
        } = taken;
        let transfers = self.transfers(session, stop, taken.request.run, &taken.pools);
        taken.since.set(Some(Instant::now()));
        let known = (taken.carried.as_slice(), taken.tracks.as_slice());
        let summaries = transfers.run(client, prepared, point, known, ready)?;
        point.still_valid()?;
        self.context.stop.check()?;
        let generation = self.generation(&taken.request, prepared, point, &summaries);
        self.enter(State::Seal)?;
        taken.sealing.set(true);
        let report: SealReport = client.host(&HostRequest::Seal(Box::new(generation.clone())))?;
        let sum = |of: fn(&Summary) -> u64| summaries.iter().map(of).sum::<u64>();
        self.sent.set(Sent {
            changed: sum(|s| s.changed),
            compared: sum(|s| s.compared),
            wire: sum(|s| s.wire_out + s.wire_in),
        });
        let noted = match self.run {
            Some(run) => run.sealed(&Sealed {
                generation: generation.number,
                taken_at: generation.taken_at,
                changed: sum(|s| s.changed),
                wire: Some(sum(|s| s.wire_out + s.wire_in)),
            }),
            None => Ok(()),
        };
        let noted = noted
            .and(note_sent(
                self.context.layout,
                &self.vm.id,
                taken.target,
                &generation,
                &report.kept,
            ))
            .and_then(|()| {
                let layout = self.context.layout;
                note_told(
                    layout,
                    &self.vm.id,
                    taken.target,
                    generation.pair,
                    &report.told,
                )
            });
        self.tell_sealed(&generation, &summaries, &report);
        if let Err(e) = noted {
            self.note(&e.message());
        }
        Ok(generation)
    }

    fn generation(
        &self,
        request: &ReplicaRequest,
        prepared: &Prepared,
        point: &PointInTime,
        summaries: &[Summary],
    ) -> Generation {
        let disks = self.vm.disks.iter().zip(&prepared.forks).zip(summaries);
        Generation {
            version: Generation::VERSION,
            pair: request.pair,
            epoch: request.epoch,
            number: prepared.number,
            parent: prepared.parent,
            taken_at: point.taken_at,
            consistency: point.consistency,
            notes: point.notes.clone(),
            disks: disks
                .map(|((disk, fork), summary)| {
                    record(disk, fork, summary, self.options.tuning.hash)
                })
                .collect(),
            excluded: request.excluded.clone(),
            config: request.config.clone(),
            described: request.described.clone(),
            state: point.state.clone(),
        }
    }
}

fn record(disk: &SourceDisk, fork: &Fork, summary: &Summary, hash: HashKind) -> DiskRecord {
    DiskRecord {
        key: fork.key.clone(),
        source: disk.spec.volume.clone(),
        target: fork.placement.volume.clone(),
        location: fork.placement.location.clone(),
        size: disk.spec.size,
        digest: summary.digest,
        hash,
        leaf_bytes: LEAF_BYTES,
        changed: summary.changed,
    }
}

/// Asks the target's agent behind `session` one thing.
pub fn ask<T: DeserializeOwned>(
    session: &Remote,
    program: &str,
    request: &HostRequest,
    stop: &Stop,
) -> Result<T> {
    RemoteAgent::start(session, program, Streams::Fixed(1), stop)?
        .during(|agent| agent.client().host(request))
}
