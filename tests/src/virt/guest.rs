//! A VM in a node, from the outside: what libvirt says of it, and how far its guest has come.

use super::{Error, Node, Result, Vm};
use std::time::{Duration, Instant};

/// How long anything of a guest may take: it is emulated, and the machine may be loaded.
const PATIENCE: Duration = Duration::from_secs(120);

impl Node {
    /// Defines a VM.
    ///
    /// # Errors
    /// libvirt refuses it.
    pub fn define(&self, vm: &Vm) -> Result<()> {
        self.virsh_with("define", &vm.xml()).map(drop)
    }

    /// Makes a VM's disks, defines it, starts it, and waits until it has written to each of its disks.
    ///
    /// # Errors
    /// Any of that fails.
    pub fn boot(&self, vm: &Vm) -> Result<()> {
        self.make_disks(vm)?;
        self.define(vm)?;
        self.virsh_ok(&format!("start {}", vm.name))?;
        self.wait_for_writes(vm, vm.disks.len() as u32 + 1)
    }

    /// Ends a VM, takes its definition away, and its disks, as far as any of it is there.
    ///
    /// # Errors
    /// The disks cannot be removed.
    pub fn forget(&self, vm: &Vm) -> Result<()> {
        // None of it need be there.
        self.virsh(&format!("destroy {}", vm.name))?;
        self.virsh(&format!(
            "undefine {} --nvram --checkpoints-metadata --managed-save",
            vm.name
        ))?;
        self.run_ok(&format!("rm -f '{}'", vm.serial()))?;
        self.remove_disks(vm)
    }

    /// What libvirt says of a domain: "running", "shut off", "paused"; `None` if it has none of that name.
    ///
    /// # Errors
    /// libvirtd does not answer.
    pub fn state(&self, name: &str) -> Result<Option<String>> {
        let output = self.virsh(&format!("domstate {name}"))?;
        if output.success() {
            return Ok(Some(output.stdout.trim().to_owned()));
        }
        if output.stderr.contains("failed to get domain") {
            return Ok(None);
        }
        Err(Error::new(format!("{}: {}", self.name(), output.stderr)))
    }

    /// The number of the last write that the guest of a VM has finished in this node; 0 for none.
    pub fn writes(&self, vm: &Vm) -> u32 {
        let serial = self.logs().join(format!("{}.serial", vm.name));
        // None yet, while it has not been started.
        let text = std::fs::read_to_string(serial).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
        let last = whole.rsplit('\n').next().unwrap_or_default();
        u32::from_str_radix(last, 16).unwrap_or(0)
    }

    /// Waits until the guest of a VM has finished write `number` in this node.
    ///
    /// # Errors
    /// Not within two minutes.
    pub fn wait_for_writes(&self, vm: &Vm, number: u32) -> Result<()> {
        self.until(&format!("write {number} of {}", vm.name), || {
            Ok(self.writes(vm) >= number)
        })
    }

    /// Asks until it is so.
    ///
    /// # Errors
    /// It is not so within two minutes, or cannot be asked.
    pub fn until(&self, what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !is_so()? {
            if Instant::now() > deadline {
                let domains = self.virsh_ok("list --all")?;
                return Err(Error::new(format!(
                    "{what}: not within {PATIENCE:?}; {} has\n{domains}",
                    self.name()
                )));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}
