//! Whether a guest can leave its host while it runs, and go on at another one.

use crate::drive::{Bus, DriveTarget};
use crate::node::PveTree;
use crate::vm_config::VmConfig;
use crate::volid::Vmid;
use rblocksync::cmd::{Cmd, Tool};
use rblocksync::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

/// Refuses a VM that uses something that does not go along.
pub(super) fn check_leaves(vm: Vmid, config: &VmConfig) -> Result<()> {
    let refused = |what: String| {
        Err(Error::new(
            Kind::Refused,
            format!("VM {vm} cannot be moved while it runs: {what}"),
        )
        .advise("move it without --live: it is shut down for a moment then"))
    };
    for (key, value) in config.main().entries() {
        let kind = key.trim_end_matches(|c: char| c.is_ascii_digit());
        match kind {
            "hostpci" | "parallel" | "virtiofs" | "ivshmem" => {
                return refused(format!("{key} is a device of this host"))
            }
            "usb"
                if !value
                    .split(',')
                    .any(|part| matches!(part, "spice" | "host=spice")) =>
            {
                return refused(format!("{key} is a device of this host"))
            }
            "serial" if value != "socket" => {
                return refused(format!("{key} is a device of this host"))
            }
            _ => {}
        }
    }
    for drive in config.drives() {
        let key = drive.key;
        match &drive.target {
            _ if key.is_unused() => {}
            _ if key.bus() == Bus::Tpmstate => {
                return refused(format!("the state of its TPM ({key}) is kept outside QEMU"))
            }
            DriveTarget::None => {}
            DriveTarget::CloudInit(_) => {
                return refused(format!(
                    "{key} is made anew at a start, which there is none of"
                ))
            }
            _ if drive.is_cdrom() => return refused(format!("there is a CD in {key}")),
            DriveTarget::Volume(_) => {}
            _ => return refused(format!("{key} is a disk of this host")),
        }
    }
    Ok(())
}

/// Whether the guest sees the host's own processor.
pub(super) fn sees_host(config: &VmConfig) -> bool {
    let Some(cpu) = config.get("cpu") else {
        return false;
    };
    let kind = cpu.split(',').find_map(|part| match part.split_once('=') {
        None => Some(part),
        Some(("cputype", kind)) => Some(kind),
        Some(_) => None,
    });
    matches!(kind, Some("host" | "max"))
}

/// A host's processor, as far as a guest can see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cpu {
    vendor: String,
    model: String,
    flags: BTreeSet<String>,
}

impl Cpu {
    pub fn of(tree: &PveTree) -> Result<Cpu> {
        let path = tree.below_root(Path::new("/proc/cpuinfo"));
        let text = std::fs::read_to_string(&path)
            .map_err(|e| Error::io(format!("cannot read {}", path.display()), e))?;
        let value = |name: &str| {
            let line = text.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                (key.trim() == name).then(|| value.trim().to_owned())
            });
            line.unwrap_or_default()
        };
        Ok(Cpu {
            vendor: value("vendor_id"),
            model: format!("{} {}", value("cpu family"), value("model")),
            flags: value("flags")
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
        })
    }

    /// Refuses a guest of `other`, which has seen that as it is.
    pub fn check_like(&self, other: &Cpu) -> Result<()> {
        if self == other {
            return Ok(());
        }
        let lacks: Vec<&str> = other
            .flags
            .difference(&self.flags)
            .map(String::as_str)
            .collect();
        let why = match lacks.is_empty() {
            true => "it is of another model".to_owned(),
            false => format!("it lacks {}", lacks.join(" ")),
        };
        Err(Error::new(
            Kind::Refused,
            "the guest sees the processor of its host, and the one here is not the same",
        )
        .because(why)
        .advise("give the VM a CPU type that both hosts have, or move it without --live"))
    }
}

/// Refuses a guest that this host's QEMU is too old for.
pub(super) fn check_qemu(machine: &str, version: (u64, u64)) -> Result<()> {
    let said = Cmd::new(Tool::Qemu).arg("--version").run()?;
    let here = version_in(&String::from_utf8_lossy(&said.stdout));
    if here.is_some_and(|here| here < version) {
        return Err(Error::new(
            Kind::Refused,
            format!(
                "the QEMU here is older than the guest's, {}.{}",
                version.0, version.1
            ),
        )
        .advise("update this host, or move the VM without --live"));
    }
    let name = machine.split('+').next().unwrap_or(machine);
    let said = Cmd::new(Tool::Qemu).args(["-machine", "help"]).run()?;
    let known = String::from_utf8_lossy(&said.stdout).into_owned();
    if known
        .lines()
        .any(|line| line.split_whitespace().next() == Some(name))
    {
        return Ok(());
    }
    Err(Error::new(
        Kind::Refused,
        format!("the QEMU here knows no machine {name}"),
    )
    .advise("update this host, or move the VM without --live"))
}

/// Major and minor, out of what `--version` prints.
fn version_in(text: &str) -> Option<(u64, u64)> {
    let word = text
        .split_whitespace()
        .skip_while(|word| *word != "version")
        .nth(1)?;
    let mut numbers = word.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn leaves(lines: &str) -> Result<()> {
        let config = VmConfig::parse(&format!("name: x\n{lines}")).unwrap();
        check_leaves("101".parse().unwrap(), &config)
    }

    #[test]
    fn what_is_the_hosts_stays() {
        leaves(
            "scsi0: local-lvm:vm-101-disk-0,size=8M\nide2: none,media=cdrom\nserial0: socket\n\
             usb0: spice\nunused0: local-lvm:vm-101-disk-9\n",
        )
        .unwrap();
        for (line, why) in [
            ("hostpci0: 01:00", "hostpci0"),
            ("usb0: host=1234:5678", "usb0"),
            ("serial1: /dev/ttyS0", "serial1"),
            ("virtiofs0: dir", "virtiofs0"),
            ("tpmstate0: local:101/vm-101-disk-1.raw,size=4M", "TPM"),
            ("ide2: local:iso/x.iso,media=cdrom", "CD in ide2"),
            (
                "ide2: local-lvm:vm-101-cloudinit,media=cdrom",
                "ide2 is made anew",
            ),
            ("scsi1: /dev/sdx", "scsi1 is a disk of this host"),
        ] {
            let error = leaves(line).unwrap_err();
            assert!(error.message().contains(why), "{line}: {error}");
        }
    }

    #[test]
    fn only_some_processors_are_the_hosts() {
        for (line, seen) in [
            ("", false),
            ("cpu: x86-64-v2-AES", false),
            ("cpu: host", true),
            ("cpu: cputype=host,flags=+aes", true),
            ("cpu: host,hidden=1", true),
            ("cpu: max", true),
        ] {
            let config = VmConfig::parse(&format!("name: x\n{line}\n")).unwrap();
            assert_eq!(sees_host(&config), seen, "{line}");
        }
    }

    #[test]
    fn a_processor_that_lacks_something_is_told() {
        let cpu = |flags: &str| Cpu {
            vendor: "V".into(),
            model: "6 1".into(),
            flags: flags.split(' ').map(str::to_owned).collect(),
        };
        cpu("a b").check_like(&cpu("a b")).unwrap();
        let error = cpu("a").check_like(&cpu("a b")).unwrap_err();
        assert!(error.to_string().contains("lacks b"), "{error}");
        assert!(cpu("a b c").check_like(&cpu("a b")).is_err());
    }

    #[test]
    fn versions_are_read() {
        for (text, want) in [
            ("QEMU emulator version 7.2.22 (Debian 1:7.2)", Some((7, 2))),
            (
                "QEMU emulator version 10.1.0 (pve-qemu-kvm_10.1.0-3)",
                Some((10, 1)),
            ),
            ("no", None),
        ] {
            assert_eq!(version_in(text), want);
        }
    }
}
