//! A clone of a replica's generation as a VM of its own, for a test whether it boots.

use crate::config_text::ConfigText;
use crate::disks;
use crate::drive::DriveTarget;
use crate::qm;
use crate::replica_config::{mark_of, OUR_LINE};
use crate::target::{core_location, vmid, PveTarget};
use crate::vm_config::VmConfig;
use crate::volid::{Format, Vmid, Volid};
use rblocksync::cli::units::human;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::hypervisor::{TrialHypervisor, VmSockets};
use rblocksync::image::ImageFormat;
use rblocksync::replica::{trials, Generation, Location, Placement, TargetPair, Trial};
use std::path::Path;

/// The tag of such a VM.
const TAG: &str = "rblocksync-test";
/// What stands before the test's id in its description.
const MARK: &str = "rblocksync-test:";
/// Ids that are tried if none is asked for.
const SPARE: std::ops::Range<u32> = 90_000..100_000;
/// What a VM must not have that only lives for a test: it may not be removed, or reaches out of its own world.
const LEFT_OUT: [&str; 6] = [
    "lock",
    "protection",
    "startup",
    "hookscript",
    "args",
    "parent",
];

impl TrialHypervisor for PveTarget {
    fn spare_vm(&self, wanted: Option<&str>) -> Result<String> {
        if let Some(wanted) = wanted {
            let id = vmid(wanted)?;
            return match self.tree.guest(id)? {
                None => Ok(id.to_string()),
                Some((node, _)) => Err(taken(id, &node)),
            };
        }
        let tested = trials(&self.layout)?;
        for number in SPARE {
            let id = Vmid::new(number)?;
            let is_tested = tested.iter().any(|t| t.vm == id.to_string());
            if !is_tested && self.tree.guest(id)?.is_none() {
                return Ok(id.to_string());
            }
        }
        Err(Error::new(
            Kind::Refused,
            format!(
                "all ids from {} to {} are taken",
                SPARE.start,
                SPARE.end - 1
            ),
        )
        .advise("name one with --test-vmid"))
    }

    fn place_clones(
        &self,
        vm: &str,
        generation: &Generation,
        formats: &[ImageFormat],
    ) -> Result<Vec<Placement>> {
        let id = vmid(vm)?;
        let storages = self.tree.storage_cfg()?;
        let node = self.tree.local_node()?;
        let mut placements = Vec::new();
        for ((disk, format), number) in generation.disks.iter().zip(formats).zip(0..) {
            let place = || -> Result<Placement> {
                let original = Volid::parse(&disk.target)?;
                let entry = storages.usable(original.storage(), &node)?;
                entry.check_present()?;
                let format = match format {
                    ImageFormat::Raw => Format::Raw,
                    ImageFormat::Qcow2 => Format::Qcow2,
                };
                let volid = entry.disk_volid(id, number, format)?;
                let location = core_location(&disks::locate(entry, &volid)?.1)?;
                match &location {
                    Location::File { path, .. } if path.symlink_metadata().is_ok() => Err(
                        Error::new(Kind::Refused, format!("{} exists already", path.display()))
                            .advise("remove it, or choose another id with --test-vmid"),
                    ),
                    _ => Ok(Placement {
                        key: disk.key.clone(),
                        volume: volid.to_string(),
                        location,
                    }),
                }
            };
            placements.push(place().map_err(|e| e.context(format!("disk {}", disk.key)))?);
        }
        Ok(placements)
    }

    fn show_clone(
        &self,
        pair: &TargetPair,
        generation: &Generation,
        trial: &Trial,
    ) -> Result<Vec<String>> {
        let id = vmid(&trial.vm)?;
        let mut of_clone = generation.clone();
        for (disk, placement) in of_clone.disks.iter_mut().zip(&trial.disks) {
            disk.target = placement.volume.clone();
        }
        let pair = TargetPair {
            target_vm: trial.vm.clone(),
            ..pair.clone()
        };
        let rendered = self.replica_text(&pair, &of_clone, &[], None)?;
        let (text, notes) = clone_text(&rendered, generation, trial)?;
        self.check_memory(&text)?;
        let lock = self.tree.hold_vm(id)?;
        if let Some((node, _)) = self.tree.guest(id)? {
            return Err(taken(id, &node));
        }
        self.tree.replace_config(&lock, id, &text)?;
        Ok(notes)
    }

    fn end_clone(&self, trial: &Trial) -> Result<()> {
        let id = vmid(&trial.vm)?;
        if !self.is_clone(id, trial)? {
            return Ok(());
        }
        qm::stop(&self.tree, id)?;
        let lock = self.tree.hold_vm(id)?;
        match self.is_clone(id, trial)? {
            true => self.tree.remove_config(&lock, id),
            false => Ok(()),
        }
    }

    fn sockets(&self, vm: &str) -> Result<VmSockets> {
        let id = vmid(vm)?;
        Ok(VmSockets {
            monitor: self.tree.qmp_socket(id),
            agent: self.tree.qga_socket(id),
        })
    }
}

impl PveTarget {
    /// Bytes of memory that this host has to spare, if it says so.
    pub(crate) fn memory_free(&self) -> Option<u64> {
        let meminfo = self.tree.below_root(Path::new("/proc/meminfo"));
        available(&std::fs::read_to_string(meminfo).ok()?)
    }

    /// Refuses a clone that this host has not the memory for: the kernel would take it from VMs that matter.
    fn check_memory(&self, text: &str) -> Result<()> {
        let needed = memory_of(&VmConfig::parse(text)?);
        let Some(free) = self.memory_free() else {
            return Ok(());
        };
        if needed <= free {
            return Ok(());
        }
        Err(Error::new(
            Kind::Space,
            format!(
                "the clone would need {} of memory, but this host has {} to spare",
                human(needed),
                human(free)
            ),
        )
        .advise("test it when fewer VMs run here"))
    }

    /// Whether the VM of this id is the clone of this very test.
    fn is_clone(&self, id: Vmid, trial: &Trial) -> Result<bool> {
        match self.tree.guest(id)? {
            Some((node, "qemu-server")) if node == self.tree.local_node()? => {
                let mark = mark_of(&self.tree.vm_config(id)?, MARK);
                Ok(mark == Some(trial.id.to_string()))
            }
            _ => Ok(false),
        }
    }
}

/// Bytes of memory that a VM of this configuration may take.
fn memory_of(config: &VmConfig) -> u64 {
    // Proxmox's default is 512 MiB; newer releases may write `current=`.
    let value = config.get("memory").unwrap_or("512");
    let mut parts = value
        .split(',')
        .map(|p| p.strip_prefix("current=").unwrap_or(p));
    let mib = parts.find_map(|part| part.trim().parse::<u64>().ok());
    mib.unwrap_or(512).saturating_mul(1 << 20)
}

/// Bytes that proc(5) calls available.
fn available(meminfo: &str) -> Option<u64> {
    let mut lines = meminfo.lines();
    let line = lines.find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib.saturating_mul(1 << 10))
}

fn taken(id: Vmid, node: &str) -> Error {
    Error::new(
        Kind::Refused,
        format!("the id {id} is taken by a guest of node {node}"),
    )
    .advise("choose another one with --test-vmid")
}

/// The clone's configuration, from what it would be as a replica, and notes.
fn clone_text(
    rendered: &str,
    generation: &Generation,
    trial: &Trial,
) -> Result<(String, Vec<String>)> {
    let config = VmConfig::parse(rendered)?;
    let mut text = ConfigText::new(rendered);
    let mut notes = Vec::new();
    for (key, value) in config.main().entries() {
        let is_net = |rest: &str| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit());
        if key.strip_prefix("net").is_some_and(is_net) {
            text.set(key, Some(&without_link(value)));
        }
    }
    for drive in config.drives() {
        // Proxmox would make one anew, and it would not be swept.
        if matches!(drive.target, DriveTarget::CloudInit(_)) {
            text.set(&drive.key.to_string(), Some("none,media=cdrom"));
        }
    }
    if config.get("args").is_some() {
        notes.push("its 'args' are left out: they may reach out of the test".to_owned());
    }
    for key in LEFT_OUT {
        text.set(key, None);
    }
    let name = config.name().unwrap_or("vm");
    text.set("name", Some(&format!("{name}-test")));
    text.set("onboot", Some("0"));
    text.set("tags", Some(TAG));
    text.drop_notes(|_| true);
    text.add_note(&format!("{OUR_LINE} {MARK} {}", trial.id));
    text.add_note(&format!(
        "{OUR_LINE} Test of generation {} of replica {}. It goes by itself, with its disks.",
        generation.name(),
        trial.replica
    ));
    Ok((text.to_string(), notes))
}

/// A network device that has its cable pulled.
fn without_link(value: &str) -> String {
    let parts: Vec<&str> = value
        .split(',')
        .filter(|part| !part.starts_with("link_down="))
        .chain(["link_down=1"])
        .collect();
    parts.join(",")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rblocksync::snapshot::Consistency;
    use uuid::Uuid;

    #[test]
    fn memory_is_counted_as_proxmox_does() {
        let of = |text: &str| memory_of(&VmConfig::parse(text).unwrap()) >> 20;
        for (text, mib) in [
            ("memory: 4096\n", 4096),
            ("memory: current=2048\n", 2048),
            ("", 512),
        ] {
            assert_eq!(of(text), mib);
        }
        let meminfo = "MemTotal:       16000000 kB\nMemAvailable:    2048000 kB\n";
        assert_eq!(available(meminfo), Some(2_048_000 << 10));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn a_clone_reaches_nothing_and_may_be_removed() {
        let rendered = "#[rblocksync] rblocksync-pair%3A x\n#mine\nagent: 1\nargs: -device vfio-pci\nide2: st:vm-90000-cloudinit,media=cdrom\n\
                        lock: migrate\nname: web\nnet0: virtio=AA:BB:CC:DD:EE:FF,bridge=vmbr0,link_down=0,firewall=1\nnet11: e1000\n\
                        onboot: 0\nprotection: 1\nscsi0: st:vm-90000-disk-0,size=8M\ntags: a;rblocksync-replica\n";
        let generation = Generation {
            state: None,
            version: Generation::VERSION,
            pair: Uuid::nil(),
            epoch: 1,
            number: 7,
            parent: None,
            taken_at: jiff::Timestamp::UNIX_EPOCH,
            consistency: Consistency::Crash,
            notes: Vec::new(),
            disks: Vec::new(),
            excluded: Vec::new(),
            config: String::new(),
            described: None,
        };
        let trial = Trial {
            id: Uuid::nil(),
            pair: Uuid::nil(),
            generation: 7,
            replica: "101".into(),
            vm: "90000".into(),
            disks: Vec::new(),
        };
        let (text, notes) = clone_text(rendered, &generation, &trial).unwrap();
        assert_eq!(
            text,
            "#[rblocksync] Test of generation rbs7 of replica 101. It goes by itself, with its disks.\n\
             #[rblocksync] rblocksync-test%3A 00000000-0000-0000-0000-000000000000\n\
             agent: 1\nide2: none,media=cdrom\nname: web-test\n\
             net0: virtio=AA:BB:CC:DD:EE:FF,bridge=vmbr0,firewall=1,link_down=1\nnet11: e1000,link_down=1\n\
             onboot: 0\nscsi0: st:vm-90000-disk-0,size=8M\ntags: rblocksync-test\n"
        );
        assert_eq!(notes.len(), 1);
    }
}
