//! This node in a change of roles: the replica becomes the VM, the VM is retired, and both are started and ended.

use crate::guard;
use crate::guest::{describe, ours};
use crate::node::VmLock;
use crate::qm;
use crate::replica_config::{standing, was_pair_of, Standing};
use crate::role_config::{self, is_locked_while_held, is_retired, was_retired};
use crate::source::{has_agent, smbios_uuid};
use crate::target::{vmid, PveTarget};
use crate::vm_config::VmConfig;
use crate::volid::Vmid;
use crate::way_back;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::guest::Described;
use rblocksync::hypervisor::RoleHypervisor;
use rblocksync::qemu::agent::{GuestAgent, PING_TIMEOUT};
use rblocksync::replica::{write_text, Generation, Location, TargetPair};
use std::path::PathBuf;
use std::time::Duration;
use uuid::Uuid;

impl RoleHypervisor for PveTarget {
    fn is_running(&self, vm: &str) -> Result<bool> {
        self.tree.is_running(vmid(vm)?)
    }

    fn promote(&self, pair: &TargetPair, generation: &Generation) -> Result<Vec<String>> {
        let target = vmid(&pair.target_vm)?;
        let translated = ours(generation, &pair.maps.networks)?;
        let generation = translated.generation.as_ref();
        let lock = self.tree.hold_vm(target)?;
        let Some(present) = self.to_promote(&lock, target, pair, generation)? else {
            return Ok(Vec::new());
        };
        if !self.lives && self.tree.is_running(target)? {
            return Err(Error::new(Kind::Busy, format!("VM {target} is running"))
                .advise("it was started in spite of its guard: stop it, and run this again"));
        }
        let mut notes = Vec::new();
        let hookscript = guard::install(&self.tree, &self.layout)?;
        if hookscript.is_none() {
            notes.push(guard::NO_SNIPPETS.to_owned());
        }
        // The source's own script is none of this host's.
        guard::chain(&self.tree, &self.layout, target, None)?;
        let rendered = self.replica_text(pair, generation, &[], None)?;
        let text = role_config::promoted(
            pair,
            generation,
            &rendered,
            present.as_ref(),
            hookscript.as_deref(),
        )?;
        self.tree.replace_config(&lock, target, &text)?;
        // It is in place now; if this fails, it is only in the way.
        let _ = std::fs::remove_file(self.aside_path(pair.pair, target));
        Ok(notes)
    }

    fn retire(&self, vm: &str, why: &str) -> Result<Vec<String>> {
        let vm = vmid(vm)?;
        let lock = self.tree.hold_vm(vm)?;
        if self.is_on_another_node(vm)? {
            // It has gone, configuration and all: nobody can start it here.
            return Ok(Vec::new());
        }
        let mut config = self.tree.vm_config(vm)?;
        if !self.lives && self.tree.is_running(vm)? {
            return Err(Error::new(Kind::Busy, format!("VM {vm} is running"))
                .advise("it must be stopped before it can be retired"));
        }
        if is_retired(&config) {
            return Ok(Vec::new());
        }
        if is_locked_while_held(&config) {
            config = VmConfig::parse(&role_config::released(&config))?;
        }
        if let Some(other) = config.lock() {
            return Err(
                Error::new(Kind::Busy, format!("VM {vm} is locked ({other})")).advise(format!(
                    "wait for the running task; if none is left: qm unlock {vm}"
                )),
            );
        }
        let (hookscript, notes) = self.hookscript_for(vm, &config)?;
        // Somebody may have unlocked a retired one; what it was like before is known then.
        if !was_retired(&config) {
            write_text(&self.retired_path(vm), &config.to_string())?;
        }
        let text = role_config::retired(&config, why, hookscript.as_deref());
        self.tree.replace_config(&lock, vm, &text)?;
        Ok(notes)
    }

    fn reinstate(&self, vm: &str) -> Result<Vec<String>> {
        let vm = vmid(vm)?;
        let lock = self.tree.hold_vm(vm)?;
        let now = self.tree.vm_config(vm)?;
        let path = self.retired_path(vm);
        if !was_retired(&now) {
            return Ok(Vec::new());
        }
        let before = std::fs::read_to_string(&path).map_err(|e| {
            Error::io(format!("cannot read {}", path.display()), e)
                .advise("it says what the VM was like before it was retired")
        })?;
        let before = VmConfig::parse(&before).map_err(|e| e.context(path.display()))?;
        self.tree
            .replace_config(&lock, vm, &role_config::reinstated(&now, &before))?;
        if !before.get("hookscript").is_some_and(guard::is_ours) {
            guard::chain(&self.tree, &self.layout, vm, None)?;
        }
        Ok(Vec::new())
    }

    fn keep_off(&self, vm: &str, why: &str) -> Result<Vec<String>> {
        let vm = vmid(vm)?;
        let lock = self.tree.hold_vm(vm)?;
        if self.is_on_another_node(vm)? {
            return Ok(Vec::new());
        }
        let config = self.tree.vm_config(vm)?;
        if self.tree.is_running(vm)? {
            return Err(Error::new(Kind::Busy, format!("VM {vm} is running")));
        }
        let (hookscript, notes) = self.hookscript_for(vm, &config)?;
        let is_guarded = match &hookscript {
            Some(_) => config.get("hookscript") == hookscript.as_deref(),
            // Whoever has locked it keeps it off as well.
            None => config.lock().is_some(),
        };
        if !is_guarded {
            let text = role_config::held(&config, why, hookscript.as_deref());
            self.tree.replace_config(&lock, vm, &text)?;
        }
        Ok(notes)
    }

    fn let_start(&self, vm: &str) -> Result<Vec<String>> {
        let vm = vmid(vm)?;
        let lock = self.tree.hold_vm(vm)?;
        if self.is_on_another_node(vm)? {
            return Ok(Vec::new());
        }
        let config = self.tree.vm_config(vm)?;
        if is_locked_while_held(&config) {
            // The hookscript stays: it lets a primary's VM start.
            self.tree
                .replace_config(&lock, vm, &role_config::released(&config))?;
        }
        Ok(Vec::new())
    }

    fn config(&self, vm: &str) -> Result<String> {
        Ok(self.tree.vm_config(vmid(vm)?)?.to_string())
    }

    fn described(&self, config: &str) -> Option<Described> {
        VmConfig::parse(config).ok().map(|config| describe(&config))
    }

    fn locate(&self, volume: &str) -> Result<(Location, u64)> {
        way_back::locate(&self.tree, volume)
    }

    fn yield_to(&self, vm: &str, pair: Uuid) -> Result<()> {
        way_back::yield_to(&self.tree, vm, pair)
    }

    fn start(&self, vm: &str) -> Result<()> {
        qm::start(&self.tree, vmid(vm)?)
    }

    fn shut_down(&self, vm: &str, limit: Duration) -> Result<bool> {
        qm::shut_down(&self.tree, vmid(vm)?, limit)
    }

    fn stop(&self, vm: &str) -> Result<()> {
        qm::stop(&self.tree, vmid(vm)?)
    }

    fn guest_answers(&self, vm: &str) -> Result<Option<bool>> {
        let vm = vmid(vm)?;
        if !has_agent(&self.tree.vm_config(vm)?) {
            return Ok(None);
        }
        let connected = GuestAgent::connect(&self.tree.qga_socket(vm), PING_TIMEOUT);
        // Whatever is wrong with it, it did not answer.
        Ok(Some(connected.and_then(|mut agent| agent.ping()).is_ok()))
    }
}

impl PveTarget {
    fn is_on_another_node(&self, vm: Vmid) -> Result<bool> {
        match self.tree.guest(vm)? {
            Some((at, _)) => Ok(at != self.tree.local_node()?),
            None => Ok(false),
        }
    }

    /// Puts our hookscript in its place, to call the one that the VM has. `None`: there is no place for it, as the notes
    /// tell.
    fn hookscript_for(&self, vm: Vmid, config: &VmConfig) -> Result<(Option<String>, Vec<String>)> {
        let Some(hookscript) = guard::install(&self.tree, &self.layout)? else {
            return Ok((None, vec![guard::NO_SNIPPETS.to_owned()]));
        };
        let own = config.get("hookscript");
        if !own.is_some_and(guard::is_ours) {
            guard::chain(&self.tree, &self.layout, vm, own)?;
        }
        Ok((Some(hookscript), Vec::new()))
    }

    /// What a VM was like before it was retired.
    fn retired_path(&self, vm: Vmid) -> PathBuf {
        self.layout
            .root()
            .join("retired")
            .join(format!("{vm}.conf"))
    }

    /// What is to become the VM's configuration, as it is now: the replica's, or nothing where that was kept aside or is
    /// lost. `None`: it has become that already. Refuses what is not this pair's.
    fn to_promote(
        &self,
        lock: &VmLock,
        target: Vmid,
        pair: &TargetPair,
        generation: &Generation,
    ) -> Result<Option<Option<VmConfig>>> {
        let node = self.tree.local_node()?;
        let aside = self.aside(pair.pair, target)?;
        match self.tree.guest(target)? {
            None => return Ok(Some(aside)),
            Some((at, "qemu-server")) if at == node => {}
            Some((at, "qemu-server")) if aside.is_some() => {
                let theirs = self.tree.vm_config_at(target, &at)?;
                if !is_retired(&theirs) {
                    return Err(Error::new(
                        Kind::Refused,
                        format!("VM {target} belongs to node {at} of this cluster, and was not retired there"),
                    )
                    .advise(format!(
                        "if {at} is down for good: mv /etc/pve/nodes/{at}/qemu-server/{target}.conf \
                         /etc/pve/nodes/{node}/qemu-server/, then run this again"
                    )));
                }
                self.tree.move_here(lock, target, &at)?;
            }
            Some((at, _)) => {
                return Err(Error::new(
                    Kind::Refused,
                    format!("the id {target} is taken by another guest of node {at}"),
                ));
            }
        }
        let present = self.tree.vm_config(target)?;
        if was_pair_of(&present) == Some(pair.pair) {
            return Ok(None);
        }
        match aside {
            Some(aside) if standing(&present, pair.pair) == Standing::Foreign => {
                let source = VmConfig::parse(&generation.config)?;
                let is_source = |uuid: &String| smbios_uuid(&source).as_ref() == Some(uuid);
                match is_retired(&present) || smbios_uuid(&present).as_ref().is_some_and(is_source)
                {
                    true => Ok(Some(Some(aside))),
                    false => self
                        .tree
                        .check_replaceable(target, pair.pair)
                        .map(|()| Some(Some(present))),
                }
            }
            _ => self
                .tree
                .check_replaceable(target, pair.pair)
                .map(|()| Some(Some(present))),
        }
    }
}
