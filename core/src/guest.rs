//! A VM as no hypervisor in particular has it: what it is made of, in plain words, so that one hypervisor's VM can become
//! another's.
//!
//! A front end reads its own configuration into a [`Guest`] and writes a [`Guest`] as its own configuration. Whatever has no
//! counterpart is told as a [`Left`], by name and value: a reader puts it into [`Guest::unknown`], a writer returns it.
//! Nothing is dropped without that. Values are resolved: where a hypervisor has a default for what is not said, the reader
//! says it, because the other one's default is another.

mod devices;
mod hardware;
pub mod words;

pub use devices::{
    Aio, Bus, Cache, CdDrive, Disk, DiskUse, Display, Network, Nic, Rates, Rng, ScsiController,
    Video, Watchdog, WatchdogAction,
};
pub use hardware::{
    Chipset, Clock, Cpu, CpuFlag, CpuModel, Firmware, Machine, Memory, Os, OsFamily, Tpm,
    TpmVersion, Vars,
};

use crate::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use uuid::Uuid;

/// A VM's configuration in a neutral form, and whose own form its text has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Described {
    /// The form of the text that it was read from: `pve` or `libvirt`. A target of the same form takes the text.
    pub form: String,
    /// What it says, or why that cannot be told: then only a target of the same form can take it.
    pub guest: std::result::Result<Guest, String>,
}

impl Described {
    /// The VM, for a target that needs its neutral form. Refuses one that could not be read, or makes no sense.
    pub fn guest(&self) -> Result<&Guest> {
        match &self.guest {
            Ok(guest) => guest.check().map(|()| guest),
            Err(why) => Err(Error::new(
                Kind::Refused,
                format!("the VM cannot be brought into another hypervisor's form: {why}"),
            )
            .advise("choose a target of the same kind")),
        }
    }
}

/// A VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guest {
    /// Version of this form.
    pub version: u32,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// The id that its firmware tells the guest (SMBIOS).
    pub uuid: Option<Uuid>,
    /// What else the firmware tells the guest: manufacturer, product, version, serial, sku, family.
    pub smbios: BTreeMap<String, String>,
    /// The id by which the guest notices that it was cloned or rolled back.
    pub generation_id: Option<Uuid>,
    /// Notes of people.
    pub description: String,
    /// Labels of people.
    pub tags: Vec<String>,
    /// Whether it is started with its host. For information: a replica never is.
    pub autostart: bool,
    /// What runs in it, as far as somebody said.
    pub os: Os,
    /// Its board.
    pub machine: Machine,
    /// Its firmware.
    pub firmware: Firmware,
    /// Its processors.
    pub cpu: Cpu,
    /// Its memory.
    pub memory: Memory,
    /// What its clock shows.
    pub clock: Clock,
    /// Power management by ACPI.
    pub acpi: bool,
    /// What SCSI disks hang on.
    pub scsi: ScsiController,
    /// Its disks, those of firmware and TPM among them.
    pub disks: Vec<Disk>,
    /// Its CD drives. Their media stay behind.
    pub cds: Vec<CdDrive>,
    /// Its network cards.
    pub nics: Vec<Nic>,
    /// Numbers of serial ports that can be reached from the host, from 0.
    pub serials: Vec<u8>,
    /// Whether there is a channel to QEMU's agent in the guest.
    pub agent: bool,
    /// A source of random numbers.
    pub rng: Option<Rng>,
    /// A watchdog.
    pub watchdog: Option<Watchdog>,
    /// What it shows.
    pub display: Display,
    /// Whether the pointer's position is absolute (a USB tablet).
    pub tablet: bool,
    /// Its TPM.
    pub tpm: Option<Tpm>,
    /// Keys of the disks, CD drives and network cards that are booted from, in their order.
    pub boot: Vec<String>,
    /// What this form has no word for.
    pub unknown: Vec<Left>,
}

/// Something that has no counterpart, or only one that differs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Left {
    /// What it is called where it comes from: `hostpci0`, `scsi0 backup`.
    pub name: String,
    /// Its value there.
    pub value: String,
    /// What becomes of it, if that is more than nothing.
    pub instead: Option<String>,
}

impl Left {
    /// Something that is left out.
    pub fn out(name: impl Into<String>, value: impl Into<String>) -> Left {
        Left {
            name: name.into(),
            value: value.into(),
            instead: None,
        }
    }

    /// Something that becomes something else.
    pub fn changed(
        name: impl Into<String>,
        value: impl Into<String>,
        instead: impl Into<String>,
    ) -> Left {
        Left {
            instead: Some(instead.into()),
            ..Left::out(name, value)
        }
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values are other people's text: one line, and not all of a long one.
        const SHOWN_CHARS_MAX: usize = 160;
        let line = self.value.replace(char::is_control, " ");
        let shown: String = line.chars().take(SHOWN_CHARS_MAX).collect();
        let more = if shown.len() < line.len() { "..." } else { "" };
        write!(f, "{}: {shown}{more}", self.name)?;
        match &self.instead {
            Some(instead) => write!(f, " ({instead})"),
            None => Ok(()),
        }
    }
}

/// One line about what got lost on the way from another kind of hypervisor.
pub fn told(left: &[Left]) -> Option<String> {
    let mut names: Vec<&str> = left.iter().map(|left| left.name.as_str()).collect();
    names.dedup();
    (!names.is_empty()).then(|| {
        format!(
            "not the same as on the other kind of hypervisor, or left out: {}; --print-config tells more",
            names.join(", ")
        )
    })
}

impl Guest {
    /// Version of the form written here.
    pub const VERSION: u32 = 1;

    /// Refuses what cannot be a VM: a form that is not known here, two devices of one key, or a boot device that is none.
    pub fn check(&self) -> Result<()> {
        let odd = |why: String| {
            Err(Error::new(
                Kind::Protocol,
                format!("the description of the VM cannot be used: {why}"),
            ))
        };
        if self.version != Guest::VERSION {
            return odd(format!(
                "its form has version {}, and this program knows {}",
                self.version,
                Guest::VERSION
            ));
        }
        let mut keys = BTreeSet::new();
        for key in self.keys() {
            if !keys.insert(key) {
                return odd(format!("there are two devices {key:?}"));
            }
        }
        if let Some(key) = self.boot.iter().find(|key| !keys.contains(key.as_str())) {
            return odd(format!("it boots from {key:?}, which it does not have"));
        }
        Ok(())
    }

    /// Keys of all disks, CD drives and network cards.
    fn keys(&self) -> impl Iterator<Item = &str> {
        let disks = self.disks.iter().map(|d| d.key.as_str());
        let cds = self.cds.iter().map(|d| d.key.as_str());
        disks
            .chain(cds)
            .chain(self.nics.iter().map(|n| n.key.as_str()))
    }

    /// The disk that is in this volume, or else the one of this key: after a move the keys are another host's.
    pub fn disk(&self, volume: &str, key: &str) -> Option<&Disk> {
        let in_it = self.disks.iter().find(|d| d.volume == volume);
        in_it.or_else(|| self.disks.iter().find(|d| d.key == key))
    }

    /// Its place in the order of booting, from 1.
    pub fn boot_place(&self, key: &str) -> Option<usize> {
        let place = self.boot.iter().position(|k| k == key);
        place.map(|place| place + 1)
    }

    /// Renames devices, where `key` gives another name, in the boot order as well.
    pub fn rename(&mut self, key: impl Fn(&str) -> String) {
        let disks = self.disks.iter_mut().map(|d| &mut d.key);
        let cds = self.cds.iter_mut().map(|d| &mut d.key);
        let nics = self.nics.iter_mut().map(|n| &mut n.key);
        for old in disks.chain(cds).chain(nics).chain(&mut self.boot) {
            *old = key(old);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_in_one_line() {
        let left = Left::out("args", "-device x\n-device y");
        assert_eq!(left.to_string(), "args: -device x -device y");
        let left = Left::changed("scsi0 aio", "native", "needs cache=none");
        assert_eq!(left.to_string(), "scsi0 aio: native (needs cache=none)");
        assert!(Left::out("a", "x".repeat(500)).to_string().len() < 200);
    }

    #[test]
    fn the_form_is_settled() {
        let guest = Guest::default();
        let text = serde_json::to_string(&guest).unwrap();
        assert_eq!(serde_json::from_str::<Guest>(&text).unwrap(), guest);
        let more = text.replacen('{', "{\"floppy\":1,", 1);
        assert!(serde_json::from_str::<Guest>(&more).is_err());
        guest.check().unwrap();
        for broken in [
            Guest {
                version: 2,
                ..Guest::default()
            },
            Guest {
                boot: vec!["net0".into()],
                ..Guest::default()
            },
            Guest {
                cds: vec![CdDrive::new("ide2", Bus::Ide, 2); 2],
                ..Guest::default()
            },
        ] {
            assert_eq!(broken.check().unwrap_err().kind(), Kind::Protocol);
        }
    }
}
