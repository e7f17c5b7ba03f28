//! A VM that is moved while it runs, and what shows that it is the same guest on the other side and that nothing was lost.

use super::{Disk, Medium, Node, Result, Vm};

/// What the bed's VMs boot from.
const BOOT: &str = "/usr/share/bed/writer.img";

/// Where replicas of a VM's disks are, and as what: all are files in the pool "default".
fn replicas(vm: &Vm) -> Vec<(String, &'static str)> {
    let image = |disk: &Disk| {
        let (target, format) = (&disk.target, disk.medium.format());
        let path = format!("/var/lib/libvirt/images/{}-{target}.{format}", vm.name);
        (path, format)
    };
    vm.disks.iter().map(image).collect()
}

/// How often guests are moved: `VIRT_REPEAT`. The usual run is short.
#[must_use]
pub fn repetitions() -> u32 {
    let often = std::env::var("VIRT_REPEAT").ok();
    often.and_then(|often| often.parse().ok()).unwrap_or(1)
}

impl Node {
    /// The number of the last write in the replica's disks, which must show one instant.
    ///
    /// # Errors
    /// They do not.
    pub fn replica_writes(&self, vm: &Vm) -> Result<u32> {
        let images = replicas(vm);
        let named: Vec<_> = images.iter().map(|(p, f)| (p.as_str(), *f)).collect();
        Ok(self.check_images(&named)?.writes)
    }

    /// Whether the VM runs.
    ///
    /// # Errors
    /// libvirtd does not answer.
    pub fn is_running(&self, vm: &Vm) -> Result<bool> {
        Ok(self.state(&vm.name)?.as_deref() == Some("running"))
    }

    /// What lies over disks on this node, by the names of the files.
    ///
    /// # Errors
    /// The node does not answer.
    pub fn overlays(&self) -> Result<String> {
        self.run_ok("find /var/lib/libvirt/images -name '*.rbs-over-*'")
    }

    /// Waits until nothing lies over the VM's disks, and neither what runs nor its definition says so.
    ///
    /// # Errors
    /// That takes too long.
    pub fn until_settled(&self, vm: &Vm) -> Result<()> {
        let name = &vm.name;
        self.until(&format!("the disks of {name} to be merged"), || {
            let live = self.virsh_ok(&format!("domblklist {name}"))?;
            let defined = self.virsh_ok(&format!("domblklist {name} --inactive"))?;
            let over = live.contains(".rbs-over-") || defined.contains(".rbs-over-");
            Ok(!over && self.overlays()?.is_empty())
        })
    }

    /// A VM whose disks can all become a replica's, running from a boot disk of its own, which goes with it.
    ///
    /// # Errors
    /// It does not come up.
    pub fn boot_of_its_own(&self, name: &str) -> Result<Vm> {
        let vm = Vm::new(name).disk(Medium::Qcow2).disk(Medium::Raw);
        self.make_disks(&vm)?;
        self.define_of_its_own(&vm)?;
        self.virsh_ok(&format!("start {name}"))?;
        self.wait_for_writes(&vm, 6)?;
        Ok(vm)
    }

    /// Defines such a VM on the disks that are there.
    ///
    /// # Errors
    /// libvirt refuses it.
    pub fn define_of_its_own(&self, vm: &Vm) -> Result<()> {
        let boot = format!("/var/lib/libvirt/images/{}-boot.img", vm.name);
        self.run_ok(&format!("cp {BOOT} {boot}"))?;
        self.virsh_with("define", &vm.xml().replace(BOOT, &boot))
            .map(drop)
    }

    /// Moves the running guest to `to` by `virt-blocksync migrate` with the words `how`, and shows that it is the same one
    /// on the other side and that this side keeps still. Gives what was said.
    ///
    /// # Errors
    /// It fails.
    ///
    /// # Panics
    /// The guest is another one, or runs on both sides.
    pub fn moves(&self, to: &Node, vm: &Vm, how: &str) -> Result<String> {
        let name = &vm.name;
        let before = self.writes(vm);
        let said = self.run_ok(&format!(
            "virt-blocksync migrate {name} --to {} {how}",
            to.name()
        ))?;
        let told = said.lines().filter(|line| line.contains("of downtime"));
        told.for_each(|line| println!("{how}: {}", line.trim()));
        assert!(to.is_running(vm)?, "{said}");
        let refused = self.virsh(&format!("start {name}"))?;
        assert!(!refused.success(), "the old side starts it: {refused:?}");
        assert_eq!(self.state(name)?.as_deref(), Some("shut off"));
        assert_eq!(
            self.virsh_ok(&format!("checkpoint-list {name} --name"))?,
            ""
        );
        let gone = self.writes(vm);
        assert!(gone >= before);
        // One that had been booted would have had to read first, and told nothing of the next number.
        to.wait_for_writes(vm, gone + 12)?;
        let serial = to.logs().join(format!("{name}.serial"));
        let text = std::fs::read_to_string(serial).unwrap_or_default();
        let numbers: Vec<u32> = text
            .lines()
            .filter_map(|line| u32::from_str_radix(line, 16).ok())
            .collect();
        let first = numbers.iter().position(|number| *number > before);
        let told = &numbers[first.unwrap_or(0)..];
        let whole = told.windows(2).all(|pair| pair[1] == pair[0] + 1);
        assert!(whole, "the guest went on where it stood: {told:x?}");
        Ok(said)
    }
}
