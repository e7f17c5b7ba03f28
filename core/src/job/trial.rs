//! `test-failover`: does a generation boot? A clone of it does, apart from everything, and goes again.
//!
//! Nothing of production is touched: no role, no epoch, neither the generation nor the head. The clone has no link to any
//! network. It is noted before it is made, so that one whose test was killed is swept by the next test or by `doctor`.

use crate::cli::units::human_time;
use crate::cli::Reporter;
use crate::clock;
use crate::cmd;
use crate::crash;
use crate::error::{Error, Kind, Result};
use crate::hypervisor::TrialHypervisor;
use crate::lock::Lock;
use crate::replica::{
    list_generations, note_boot, trials, Boot, BootSign, Generation, Layout, Role, TargetPair,
    Trial,
};
use crate::stop::Stop;
use serde_json::json;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long a clone must run that cannot be asked anything.
const SETTLED: Duration = Duration::from_secs(60);
/// Pause between two looks at the clone.
const POLL: Duration = Duration::from_millis(500);

/// What to test, and how.
#[derive(Debug, Clone)]
pub struct TrialOptions {
    /// The VM's id, here or at its source.
    pub vm: String,
    /// Number of the generation; the newest if `None`.
    pub generation: Option<u64>,
    /// Id of the clone; a spare one if `None`.
    pub test_vm: Option<String>,
    /// A program and its arguments that judges the clone by its exit code.
    pub script: Option<(PathBuf, Vec<OsString>)>,
    /// How long the verdict may take.
    pub limit: Duration,
    /// How long the clone goes on afterwards, for people to look at.
    pub keep_for: Duration,
}

/// Where a test happens.
pub struct TrialRun<'a> {
    /// State on this host.
    pub layout: &'a Layout,
    /// This host's hypervisor.
    pub hypervisor: &'a dyn TrialHypervisor,
    /// Who is told.
    pub reporter: &'a Reporter,
    /// Ends it early.
    pub stop: &'a Stop,
}

impl TrialRun<'_> {
    /// Boots a clone of the generation, waits for a sign of life, and removes the clone whatever happens.
    pub fn run(&self, options: &TrialOptions) -> Result<Boot> {
        for note in sweep_trials(self.layout, self.hypervisor)? {
            self.reporter.note(&note);
        }
        let (pair, generation) = self.find(options)?;
        let wanted = options.test_vm.as_deref();
        let vm = self.hypervisor.spare_vm(wanted)?;
        let formats = Trial::formats(&generation)?;
        let trial = Trial {
            id: Uuid::new_v4(),
            pair: pair.pair,
            generation: generation.number,
            replica: pair.target_vm.clone(),
            disks: self.hypervisor.place_clones(&vm, &generation, &formats)?,
            vm,
        };
        let _lock = Lock::take(
            &self.layout.trial_lock(&trial.vm),
            &format!("the test with VM {}", trial.vm),
        )?;
        self.reporter.say(
            format!(
                "generation {} of VM {} boots as VM {}, without any network",
                generation.name(),
                pair.target_vm,
                trial.vm
            ),
            json!({"event": "trial", "vm": pair.target_vm, "generation": generation.name(), "test_vm": trial.vm}),
        );
        trial.announce(self.layout)?;
        crash::point("trial announced");
        let verdict = self.attempt(&pair, &generation, &trial, options);
        crash::point("trial verdict");
        let cleared = clear(self.layout, self.hypervisor, &trial);
        match (verdict, cleared) {
            (Err(e), Ok(())) => Err(e),
            (Err(e), Err(also)) => Err(e.followed_by(also)),
            (Ok(_), Err(e)) => Err(e.context("the generation boots, but its clone stays")),
            (Ok(boot), Ok(())) => {
                self.reporter.say(
                    format!(
                        "generation {} of VM {} boots: {}; the clone is gone",
                        generation.name(),
                        pair.target_vm,
                        boot.sign
                    ),
                    json!({
                        "event": "boot-verified",
                        "vm": pair.target_vm,
                        "pair": pair.pair,
                        "generation": generation.name(),
                        "boot": boot,
                    }),
                );
                Ok(boot)
            }
        }
    }

    fn find(&self, options: &TrialOptions) -> Result<(TargetPair, Generation)> {
        let mut found = list_generations(self.layout, Some(&options.vm))?;
        found.retain(|(pair, _)| pair.standing.role == Role::Replica);
        found.sort_by_key(|(pair, _)| (pair.target_vm == options.vm, pair.standing.epoch));
        let missing = |what: String| {
            Error::new(Kind::NotFound, what).advise("'generations' lists what this host keeps")
        };
        let (pair, mut generations) = found
            .pop()
            .ok_or_else(|| missing(format!("there is no replica of VM {}", options.vm)))?;
        let at = match options.generation {
            Some(number) => generations.iter().position(|g| g.number == number),
            None => generations.len().checked_sub(1),
        };
        let generation = at.map(|at| generations.swap_remove(at)).ok_or_else(|| {
            missing(format!(
                "the replica of VM {} has no such generation",
                options.vm
            ))
        })?;
        Ok((pair, generation))
    }

    fn attempt(
        &self,
        pair: &TargetPair,
        generation: &Generation,
        trial: &Trial,
        options: &TrialOptions,
    ) -> Result<Boot> {
        // Nothing is pruned while the clones are made, nor as long as one of them reads the generation's own file.
        let what = format!("the replica of VM {}", pair.vm);
        let lock = Lock::take(&self.layout.pair_lock(pair.pair), &what)?;
        trial.make_clones(generation)?;
        crash::point("trial cloned");
        let lock = match trial.reads_original(generation)? {
            true => Some(lock),
            false => {
                drop(lock);
                None
            }
        };
        let notes = self.hypervisor.show_clone(pair, generation, trial)?;
        self.reporter.notes(&notes);
        crash::point("trial shown");
        self.hypervisor
            .start(&trial.vm)
            .map_err(|e| e.context(format!("generation {} does not boot", generation.name())))?;
        crash::point("trial started");
        let sign = self.judge(trial, options)?;
        let boot = Boot {
            at: clock::now(),
            sign,
        };
        note_boot(self.layout, pair.pair, generation.number, &boot)?;
        if !options.keep_for.is_zero() {
            self.reporter.say(
                format!(
                    "VM {} goes on for {}, or until this is interrupted",
                    trial.vm,
                    human_time(options.keep_for)
                ),
                json!({"event": "kept", "vm": trial.vm, "for_s": options.keep_for.as_secs()}),
            );
            let until = Instant::now() + options.keep_for;
            while Instant::now() < until && !self.stop.is_stopped() {
                std::thread::sleep(POLL);
            }
        }
        drop(lock);
        Ok(boot)
    }

    fn judge(&self, trial: &Trial, options: &TrialOptions) -> Result<BootSign> {
        if let Some((program, arguments)) = &options.script {
            return self.ask_script(trial, program, arguments, options.limit);
        }
        let until = Instant::now() + options.limit;
        match self.hypervisor.guest_answers(&trial.vm)? {
            None => self.wait_settled(trial, options.limit.min(SETTLED)),
            Some(true) => Ok(BootSign::Agent),
            Some(false) => loop {
                self.check_goes_on(trial)?;
                if self.hypervisor.guest_answers(&trial.vm)? == Some(true) {
                    return Ok(BootSign::Agent);
                }
                if Instant::now() >= until {
                    return Err(Error::new(
                        Kind::Timeout,
                        format!(
                            "the clone runs, but its guest's agent did not answer within {}",
                            human_time(options.limit)
                        ),
                    )
                    .advise("a slow guest may need a longer --timeout"));
                }
                std::thread::sleep(POLL);
            },
        }
    }

    fn wait_settled(&self, trial: &Trial, time: Duration) -> Result<BootSign> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.check_goes_on(trial)?;
            std::thread::sleep(POLL);
        }
        self.check_goes_on(trial)?;
        Ok(BootSign::Runs)
    }

    fn check_goes_on(&self, trial: &Trial) -> Result<()> {
        if self.stop.is_stopped() {
            return Err(self.stop.error());
        }
        match self.hypervisor.is_running(&trial.vm)? {
            true => Ok(()),
            false => Err(Error::new(
                Kind::Tool,
                format!("the clone, VM {}, ended by itself", trial.vm),
            )),
        }
    }

    fn ask_script(
        &self,
        trial: &Trial,
        program: &std::path::Path,
        arguments: &[OsString],
        limit: Duration,
    ) -> Result<BootSign> {
        let sockets = self.hypervisor.sockets(&trial.vm)?;
        let (monitor, agent) = (
            sockets.monitor.display().to_string(),
            sockets.agent.display().to_string(),
        );
        let told = [
            ("RBLOCKSYNC_VM", trial.vm.as_str()),
            ("RBLOCKSYNC_REPLICA", trial.replica.as_str()),
            ("RBLOCKSYNC_QMP", monitor.as_str()),
            ("RBLOCKSYNC_QGA", agent.as_str()),
        ];
        cmd::run_named(program, arguments, &told, limit)?.check("the script")?;
        Ok(BootSign::Script)
    }
}

/// Removes what tests have left that were cut off. Returns what was swept.
pub fn sweep_trials(layout: &Layout, hypervisor: &dyn TrialHypervisor) -> Result<Vec<String>> {
    let mut swept = Vec::new();
    for trial in trials(layout)? {
        let what = format!("the test with VM {}", trial.vm);
        let _lock = match Lock::take(&layout.trial_lock(&trial.vm), &what) {
            // It is under way.
            Err(e) if e.kind() == Kind::Busy => continue,
            other => other?,
        };
        clear(layout, hypervisor, &trial)?;
        swept.push(format!(
            "VM {}, left by a test of VM {} that was cut off, is removed",
            trial.vm, trial.replica
        ));
    }
    Ok(swept)
}

fn clear(layout: &Layout, hypervisor: &dyn TrialHypervisor, trial: &Trial) -> Result<()> {
    let advise = |e: Error| {
        e.context(format!(
            "VM {}, a clone for a test, is not removed",
            trial.vm
        ))
        .advise("doctor --repair tries again")
    };
    hypervisor.end_clone(trial).map_err(advise)?;
    trial.clear(layout).map_err(advise)
}
