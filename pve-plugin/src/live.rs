//! A VM of this node that is moved while it runs, or comes to it: through QEMU's own migration of the memory, and Proxmox's
//! own `qm`, which starts a QEMU that waits for it.

mod fits;
mod monitor;

use crate::node::PveTree;
use crate::qm;
use crate::target::{vmid, PveTarget};
use crate::vm_config::VmConfig;
use crate::volid::Vmid;
use monitor::Monitor;
use rblocksync::cli::units::human;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::files::remove_present;
use rblocksync::hypervisor::{
    GuestState, Hold, Incoming, LiveHypervisor, LiveProfile, RoleHypervisor,
};
use rblocksync::replica::{write_text, Generation, TargetPair};
use rblocksync::stop::Stop;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long letting a guest go on is tried again.
const RESUME_MAX: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(200);

/// What the guest sees of its host, beside its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Details {
    /// The machine type as QEMU has it now, with Proxmox's own version behind it.
    machine: String,
    /// QEMU's version.
    qemu: (u64, u64),
    /// The processor, if the guest sees the host's own.
    cpu: Option<fits::Cpu>,
}

impl LiveHypervisor for PveTarget {
    fn profile(&self, vm: &str) -> Result<LiveProfile> {
        let vm = vmid(vm)?;
        let config = self.tree.vm_config(vm)?;
        fits::check_leaves(vm, &config)?;
        let mut monitor = Monitor::of(&self.tree, vm)?;
        let details = Details {
            machine: monitor.machine()?,
            qemu: monitor.version()?,
            cpu: fits::sees_host(&config)
                .then(|| fits::Cpu::of(&self.tree))
                .transpose()?,
        };
        let details = serde_json::to_string(&details)
            .map_err(|e| Error::new(Kind::Protocol, "cannot encode a profile").because(e))?;
        Ok(LiveProfile {
            memory: monitor.memory()?,
            details,
        })
    }

    fn pause(&self, vm: &str) -> Result<Box<dyn Hold>> {
        let vm = vmid(vm)?;
        // Proxmox's own commands that would let it go on wait for this.
        let lock = self.tree.hold_vm(vm)?;
        Monitor::of(&self.tree, vm)?.stop()?;
        Ok(Box::new(lock))
    }

    fn send_memory(&self, vm: &str, sockets: &[PathBuf], stop: &Stop) -> Result<()> {
        let [socket] = sockets else {
            return Err(Error::new(Kind::Protocol, "QEMU sends memory one way only"));
        };
        monitor::send_memory(&self.tree, vmid(vm)?, socket, stop)
    }

    fn retire_paused(&self, vm: &str, why: &str) -> Result<Vec<String>> {
        self.with_guest().retire(vm, why)
    }

    fn end_paused(&self, vm: &str) -> Result<()> {
        end(&self.tree, vmid(vm)?)
    }

    fn check_incoming(&self, pair: &TargetPair, profile: &LiveProfile) -> Result<Vec<String>> {
        let vm = vmid(&pair.target_vm)?;
        if self.aside(pair.pair, vm)?.is_some() {
            return Err(Error::new(
                Kind::Refused,
                format!("VM {vm} stays within its cluster, where its configuration goes with it"),
            )
            .advise("leave --live out"));
        }
        let config = self.tree.vm_config(vm)?;
        let details: Details = serde_json::from_str(&profile.details)
            .map_err(|e| Error::new(Kind::Protocol, "cannot read a profile").because(e))?;
        fits::check_qemu(&details.machine, details.qemu)?;
        if let Some(cpu) = &details.cpu {
            fits::Cpu::of(&self.tree)?.check_like(cpu)?;
        }
        if let Some(free) = self.memory_free().filter(|free| *free < profile.memory) {
            return Err(Error::new(
                Kind::Space,
                format!(
                    "VM {vm} needs {} of memory, but this host has {} to spare",
                    human(profile.memory),
                    human(free)
                ),
            ));
        }
        Ok(pending_note(&config))
    }

    fn receive(
        &self,
        pair: &TargetPair,
        _: &Generation,
        profile: &LiveProfile,
    ) -> Result<Incoming> {
        let vm = vmid(&pair.target_vm)?;
        let details: Details = serde_json::from_str(&profile.details)
            .map_err(|e| Error::new(Kind::Protocol, "cannot read a profile").because(e))?;
        // The guard lets it through as long as this very process lives.
        let door = self.layout.guard(&format!("{vm}.incoming"));
        write_text(&door, &format!("{}\n", me()?))?;
        let started = qm::start_waiting(&self.tree, vm, &details.machine);
        remove_present(&door)?;
        Ok(Incoming {
            sockets: vec![started?],
        })
    }

    fn vm_of_incoming(&self, socket: &Path) -> Option<String> {
        let vm = vmid(socket.file_stem()?.to_str()?).ok()?;
        (self.tree.migrate_socket(vm) == socket).then(|| vm.to_string())
    }

    fn receives_early(&self) -> bool {
        // Until it has its memory QEMU has disks open for reading only, without locks, and takes nothing it has read for
        // true: so it does where storage is shared.
        true
    }

    fn end_received(&self, pair: &TargetPair) -> Result<()> {
        let vm = vmid(&pair.target_vm)?;
        remove_present(&self.layout.guard(&format!("{vm}.incoming")))?;
        end(&self.tree, vm)
    }

    fn promote_received(&self, pair: &TargetPair, generation: &Generation) -> Result<Vec<String>> {
        self.with_guest().promote(pair, generation)
    }

    fn guest(&self, vm: &str) -> Result<GuestState> {
        let vm = vmid(vm)?;
        if !self.tree.is_running(vm)? {
            return Ok(GuestState::Off);
        }
        match Monitor::of(&self.tree, vm).and_then(|mut monitor| monitor.guest()) {
            // It has ended meanwhile.
            Err(_) if !self.tree.is_running(vm)? => Ok(GuestState::Off),
            state => state,
        }
    }

    fn resume(&self, vm: &str) -> Result<()> {
        let vm = vmid(vm)?;
        let until = Instant::now() + RESUME_MAX;
        loop {
            let resumed = Monitor::of(&self.tree, vm).and_then(|mut monitor| monitor.resume());
            match resumed {
                Err(e)
                    if !matches!(e.kind(), Kind::Refused | Kind::NotFound)
                        && Instant::now() < until
                        && self.tree.is_running(vm)? =>
                {
                    std::thread::sleep(RETRY);
                }
                done => return done,
            }
        }
    }
}

impl PveTarget {
    /// The same node, for a change of roles with a guest that is there all the while.
    fn with_guest(&self) -> PveTarget {
        PveTarget {
            tree: self.tree.clone(),
            layout: self.layout.clone(),
            lives: true,
        }
    }
}

/// Ends a guest that does not run; one that is not there is fine.
fn end(tree: &PveTree, vm: Vmid) -> Result<()> {
    if !tree.is_running(vm)? {
        return Ok(());
    }
    if Monitor::of(tree, vm)?.guest()? == GuestState::Running {
        return Err(
            Error::new(Kind::Busy, format!("VM {vm} runs, although it should not"))
                .advise("'pvesync status' on both hosts tells which one has it"),
        );
    }
    qm::stop_locked(tree, vm)
}

/// This process, as the guard's script finds it: its number, and when it began.
fn me() -> Result<String> {
    let stat = std::fs::read_to_string("/proc/self/stat")
        .map_err(|e| Error::io("cannot read /proc/self/stat", e))?;
    let began = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(19));
    let Some(began) = began else {
        return Err(Error::new(Kind::Protocol, "cannot read /proc/self/stat"));
    };
    Ok(format!("{} {began}", std::process::id()))
}

/// What is to be changed at the next start is not, because there is none.
fn pending_note(config: &VmConfig) -> Vec<String> {
    match config.pending() {
        None => Vec::new(),
        Some(_) => vec!["pending changes of its configuration do not go along".into()],
    }
}
