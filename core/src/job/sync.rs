//! Sync one VM to one target: plan, point in time, transfer of all disks, seal.

use super::messages::HostRequest;
use super::transfer::Transfers;
use crate::agent::Client;
use crate::cli::units::{human, human_time};
use crate::cli::Reporter;
use crate::digest::HashKind;
use crate::driver::{RemoteAgent, Streams};
use crate::error::{Error, Kind, Result};
use crate::hypervisor::HostDescription;
use crate::journal::{Beginning, Journal, Run, Sealed, Side, State};
use crate::lock::Lock;
use crate::lvm::OwnerTag;
use crate::remote::{HostSpec, Remote, SshOptions};
use crate::replica::{
    check_pools_of, host_id, read_json, source_pairs, write_json, DiskRecord, DiskSpec, Generation,
    Layout, Placement, Prepared, ReplicaRequest, Retention, SealReport, SourcePair, TargetPlan,
    POOL_PERCENT_MAX,
};
use crate::snapshot::{self, DiskSource, PointInTime, VmRuntime};
use crate::stop::Stop;
use crate::sync::{Summary, Tuning};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::rc::Rc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A VM on this host, as its hypervisor knows it.
pub struct SourceVm {
    /// The front end's program, which is also the agent's: "pvesync".
    pub program: &'static str,
    /// Its id: a plain word.
    pub id: String,
    /// Its name, for people.
    pub name: String,
    /// This host's name, for people.
    pub host: String,
    /// What tells it from another VM that gets its id later.
    pub identity: Option<String>,
    /// Its configuration text.
    pub config: String,
    /// Reads that text anew.
    pub config_now: Box<dyn Fn() -> Result<String> + Send + Sync>,
    /// Disks to be replicated.
    pub disks: Vec<SourceDisk>,
    /// Keys of the disks that are left out, and why.
    pub excluded: Vec<(String, String)>,
    /// What the user should know.
    pub notes: Vec<String>,
}

impl SourceVm {
    /// The pools here must have room for what the guest overwrites while the point in time is kept: less than
    /// `percent_max` of them in use.
    pub(super) fn check_pools(&self, percent_max: f64) -> Result<()> {
        let volumes = self.disks.iter().filter_map(|d| match &d.source {
            DiskSource::Lv(id) => Some(id),
            DiskSource::Path(_) => None,
        });
        check_pools_of(volumes, percent_max)
    }
}

/// A disk to be replicated.
pub struct SourceDisk {
    /// What the target is told of it.
    pub spec: DiskSpec,
    /// What it is on this host.
    pub source: DiskSource,
}

/// How to sync.
#[derive(Debug, Clone)]
pub struct SyncOptions {
    /// Id on the target, if another one.
    pub target_vm: Option<String>,
    /// Source storage to target storage.
    pub storage_map: Vec<(String, String)>,
    /// Generations to keep.
    pub retention: Retention,
    /// Disks at once.
    pub jobs: usize,
    /// Only tell what would be done.
    pub dry_run: bool,
    /// Hash function, compression and so on; the rate is that of all disks together.
    pub tuning: Tuning,
    /// Streams for each disk.
    pub streams: Streams,
    /// Past the page cache, also where disks are files.
    pub direct: bool,
    /// Longest time that the guest may be held still.
    pub hold_max: Duration,
}

/// What a sync came to.
pub struct SyncOutcome {
    /// The sealed generation; `None` after a dry run.
    pub generation: Option<Generation>,
}

/// Leaf size of all replicas, in bytes.
pub(super) const LEAF_BYTES: u32 = 4096;

/// Where a workflow's state is, whom it is about, and who hears of it.
pub struct Context<'a> {
    /// State on this host.
    pub layout: &'a Layout,
    /// The other host.
    pub host: &'a HostSpec,
    /// How it is reached.
    pub ssh: &'a SshOptions,
    /// Who is told what happens.
    pub reporter: &'a Reporter,
    /// Ends it early.
    pub stop: &'a Stop,
}

/// Syncs `vm` to the context's host. `runtime` says how to hold the VM still.
pub fn sync(
    context: &Context,
    vm: &SourceVm,
    runtime: VmRuntime,
    options: &SyncOptions,
) -> Result<SyncOutcome> {
    // Looking needs no lock, and leaves neither a lock file nor a line in the journal.
    if options.dry_run {
        return connect(context, vm, runtime, options, None);
    }
    let lock = context.layout.vm_lock(&vm.id);
    let _lock = Lock::take(&lock, &format!("VM {}", vm.id))?;
    let journal = open_journal(context)?;
    tell_cut_off(context, &journal, &vm.id)?;
    let run = journal.begin(&beginning(context, &vm.id, &vm.name))?;
    let result = connect(context, vm, runtime, options, Some(&run));
    finish(run, result)
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

fn beginning<'a>(context: &'a Context, vm: &'a str, name: &'a str) -> Beginning<'a> {
    Beginning {
        id: Uuid::new_v4(),
        side: Side::Source,
        vm,
        name,
        peer: context.host.host(),
    }
}

fn open_journal(context: &Context) -> Result<Rc<Journal>> {
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
fn finish<T>(run: Run, result: Result<T>) -> Result<T> {
    match result {
        Err(e) => Err(run.fail(e)),
        Ok(done) => match run.end(None) {
            Ok(()) => Ok(done),
            Err(e) => Err(e.context("the sync is done, but its end could not be noted")),
        },
    }
}

fn connect(
    context: &Context,
    vm: &SourceVm,
    runtime: VmRuntime,
    options: &SyncOptions,
    run: Option<&Run>,
) -> Result<SyncOutcome> {
    Remote::during(context.host, context.ssh, |session| {
        let control = RemoteAgent::start(session, vm.program, Streams::Fixed(1), context.stop)?;
        control.during(|agent| {
            let mut job = Job {
                layout: context.layout,
                vm,
                session,
                options,
                reporter: context.reporter,
                stop: context.stop,
                run,
            };
            job.run(agent.client(), runtime)
        })
    })
}

struct Job<'a> {
    layout: &'a Layout,
    vm: &'a SourceVm,
    session: &'a Remote,
    options: &'a SyncOptions,
    reporter: &'a Reporter,
    stop: &'a Stop,
    /// Its page in the journal; none for a dry run.
    run: Option<&'a Run>,
}

impl Job<'_> {
    fn enter(&self, state: State) -> Result<()> {
        self.run.map_or(Ok(()), |run| run.enter(state))
    }

    fn run(&mut self, client: &mut Client, runtime: VmRuntime) -> Result<SyncOutcome> {
        let began = Instant::now();
        self.enter(State::Plan)?;
        let target: HostDescription = client.host(&HostRequest::Describe {
            keep: !self.options.dry_run,
        })?;
        let sources: Vec<DiskSource> = self.vm.disks.iter().map(|d| d.source.clone()).collect();
        snapshot::check(&sources, &runtime)?;
        let pair = self.pair(&target)?;
        if let Some(run) = self.run {
            run.is_of(pair, target.id)?;
        }
        let request = self.request(pair)?;
        let plan: TargetPlan = client.host(&HostRequest::Plan(Box::new(request.clone())))?;
        self.vm.check_pools(POOL_PERCENT_MAX)?;
        self.tell_plan(&target, &plan);
        if self.options.dry_run {
            return Ok(SyncOutcome { generation: None });
        }
        self.remember(pair, &target)?;
        let owner = OwnerTag::new(pair);
        self.enter(State::Sweep)?;
        self.sweep(&sources)?;
        self.stop.check()?;
        // The target first: what it refuses must not cost the guest a pause.
        self.enter(State::Fork)?;
        let id = request.run.simple().to_string();
        let prepared: Prepared = client.host(&HostRequest::Prepare(Box::new(request)))?;
        prepared.notes.iter().for_each(|note| self.note(note));
        self.stop.check()?;
        self.enter(State::Snap)?;
        let mut point = snapshot::take(&id, &sources, runtime, &owner, self.options.hold_max)?;
        let result = self
            .check_config()
            .and_then(|()| self.transfer_and_seal(client, pair, &prepared, &point, began));
        let noted = match &result {
            Ok(_) => self.enter(State::Release),
            Err(_) => Ok(()),
        };
        let released = point.release();
        let generation = result?;
        let sealed =
            |e: Error| e.context(format!("generation {} is sealed, but", generation.name()));
        released.map_err(sealed)?;
        noted.map_err(sealed)?;
        Ok(SyncOutcome {
            generation: Some(generation),
        })
    }

    /// The pair of this VM and that host: the one remembered, or a new one.
    fn pair(&self, target: &HostDescription) -> Result<Uuid> {
        let known: Option<SourcePair> =
            read_json(&self.layout.source_pair(&self.vm.id, target.id))?;
        match known {
            Some(known) if known.vm_identity == self.vm.identity => Ok(known.pair),
            Some(known) => {
                self.reporter.say(
                    format!("VM {} is not the one that was replicated under this id before: a new pair begins", self.vm.id),
                    json!({"event": "new-pair", "old": known.pair}),
                );
                Ok(Uuid::new_v4())
            }
            None => Ok(Uuid::new_v4()),
        }
    }

    fn remember(&self, pair: Uuid, target: &HostDescription) -> Result<()> {
        let path = self.layout.source_pair(&self.vm.id, target.id);
        let record = SourcePair {
            pair,
            vm_identity: self.vm.identity.clone(),
            target_name: target.name.clone(),
        };
        match read_json::<SourcePair>(&path)? {
            Some(same) if same == record => Ok(()),
            _ => write_json(&path, &record),
        }
    }

    fn request(&self, pair: Uuid) -> Result<ReplicaRequest> {
        Ok(ReplicaRequest {
            run: self.run.map_or_else(Uuid::new_v4, Run::id),
            pair,
            source_host: host_id(self.layout, !self.options.dry_run)?,
            source_name: self.vm.host.clone(),
            vm: self.vm.id.clone(),
            target_vm: self.options.target_vm.clone(),
            config: self.vm.config.clone(),
            disks: self.vm.disks.iter().map(|d| d.spec.clone()).collect(),
            excluded: self
                .vm
                .excluded
                .iter()
                .map(|(key, _)| key.clone())
                .collect(),
            storage_map: self.options.storage_map.clone(),
            retention: self.options.retention,
        })
    }

    fn tell_plan(&self, target: &HostDescription, plan: &TargetPlan) {
        let say = |text: String| self.reporter.say(text, json!({"event": "plan-line"}));
        let what = match plan.head {
            Some(n) => format!("generation {} onto {n}", plan.number),
            None => "first generation".to_owned(),
        };
        let disks: Vec<_> = self.vm.disks.iter().zip(&plan.placements).collect();
        self.reporter.say(
            format!("VM {} ({}) to {} ({}): {what}", self.vm.id, self.vm.name, target.name, target.hypervisor),
            json!({
                "event": "plan",
                "vm": self.vm.id,
                "target": target,
                "target_vm": plan.vm,
                "parent": plan.head,
                "number": plan.number,
                "disks": disks.iter().map(|(d, p)| json!({"spec": d.spec, "placement": p})).collect::<Vec<_>>(),
                "excluded": self.vm.excluded,
                "notes": self.vm.notes.iter().chain(&plan.notes).collect::<Vec<_>>(),
            }),
        );
        if self.reporter.is_json() {
            return;
        }
        for (disk, placement) in disks {
            say(format!(
                "  {}: {} -> {} ({}, {} used)",
                disk.spec.key,
                disk.spec.volume,
                placement.volume,
                human(disk.spec.size),
                human(disk.spec.used)
            ));
        }
        for (key, why) in &self.vm.excluded {
            say(format!("  {key}: not replicated: {why}"));
        }
        for note in self.vm.notes.iter().chain(&plan.notes) {
            say(format!("  note: {note}"));
        }
    }

    fn note(&self, note: &str) {
        self.reporter.note(note);
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
    fn sweep(&self, sources: &[DiskSource]) -> Result<()> {
        let pairs = source_pairs(self.layout, &self.vm.id)?;
        let owners: Vec<OwnerTag> = pairs.iter().map(|p| OwnerTag::new(p.pair)).collect();
        let swept = snapshot::sweep(&owners, sources)?;
        for name in swept.removed {
            self.reporter.say(
                format!("  removed {name}, left by a run that was cut off"),
                json!({"event": "swept", "name": name}),
            );
        }
        match swept.problems.into_iter().next() {
            Some(problem) => Err(problem.context("cannot remove what a run that was cut off left")),
            None => Ok(()),
        }
    }

    fn transfer_and_seal(
        &self,
        client: &mut Client,
        pair: Uuid,
        prepared: &Prepared,
        point: &PointInTime,
        began: Instant,
    ) -> Result<Generation> {
        self.reporter.say(
            format!(
                "  point in time: {} consistent{}",
                point.consistency,
                match point.held_ms {
                    0 => String::new(),
                    ms => format!(", guest held for {ms} ms"),
                }
            ),
            json!({"event": "point-in-time", "consistency": point.consistency, "held_ms": point.held_ms, "notes": point.notes}),
        );
        point.notes.iter().for_each(|note| self.note(note));
        let transfers = Transfers {
            vm: self.vm,
            session: self.session,
            options: self.options,
            reporter: self.reporter,
            stop: self.stop,
        };
        self.enter(State::Transfer)?;
        let summaries = transfers.run(client, prepared, point)?;
        point.still_valid()?;
        self.stop.check()?;
        let generation = self.generation(pair, prepared, point, &summaries);
        self.enter(State::Seal)?;
        let report: SealReport = client.host(&HostRequest::Seal(Box::new(generation.clone())))?;
        let sum = |of: fn(&Summary) -> u64| summaries.iter().map(of).sum::<u64>();
        let noted = match self.run {
            Some(run) => run.sealed(&Sealed {
                generation: generation.number,
                taken_at: generation.taken_at,
                changed: sum(|s| s.changed),
                wire: Some(sum(|s| s.wire_out + s.wire_in)),
            }),
            None => Ok(()),
        };
        self.reporter.say(
            format!(
                "generation {} sealed: {} sent, {} compared, {} on the wire, {}; kept: {}",
                generation.name(),
                human(sum(|s| s.changed)),
                human(sum(|s| s.compared)),
                human(sum(|s| s.wire_out + s.wire_in)),
                human_time(began.elapsed()),
                report.kept.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
            ),
            json!({
                "event": "sealed",
                "generation": generation.name(),
                "consistency": generation.consistency,
                "seconds": began.elapsed().as_secs_f64(),
                "disks": generation.disks.iter().zip(&summaries)
                    .map(|(d, s)| json!({"key": d.key, "volume": d.target, "summary": s})).collect::<Vec<_>>(),
                "kept": report.kept,
                "notes": report.notes,
            }),
        );
        report.notes.iter().for_each(|note| self.note(note));
        if let Err(e) = noted {
            self.note(&e.message());
        }
        Ok(generation)
    }

    fn generation(
        &self,
        pair: Uuid,
        prepared: &Prepared,
        point: &PointInTime,
        summaries: &[Summary],
    ) -> Generation {
        let disks = self.vm.disks.iter().zip(&prepared.forks).zip(summaries);
        Generation {
            version: Generation::VERSION,
            pair,
            epoch: 1,
            number: prepared.number,
            parent: prepared.parent,
            taken_at: point.taken_at,
            consistency: point.consistency,
            notes: point.notes.clone(),
            disks: disks
                .map(|((disk, (key, placement, _)), summary)| {
                    record(disk, key, placement, summary, self.options.tuning.hash)
                })
                .collect(),
            excluded: self
                .vm
                .excluded
                .iter()
                .map(|(key, _)| key.clone())
                .collect(),
            config: self.vm.config.clone(),
        }
    }
}

fn record(
    disk: &SourceDisk,
    key: &str,
    placement: &Placement,
    summary: &Summary,
    hash: HashKind,
) -> DiskRecord {
    DiskRecord {
        key: key.to_owned(),
        source: disk.spec.volume.clone(),
        target: placement.volume.clone(),
        location: placement.location.clone(),
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
