//! Board, firmware, processors, memory: what a guest has exactly one of.

use super::{Display, Guest, ScsiController};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What runs in a VM. It decides on defaults, and on what a Windows guest is told of its hypervisor.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Os {
    /// Which kind.
    pub family: OsFamily,
    /// Which one exactly, as a name of libosinfo: `http://debian.org/debian/12`.
    pub id: Option<String>,
}

/// Kinds of operating systems, as far as they are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OsFamily {
    /// Not said, or something else.
    #[default]
    Other,
    /// Linux 2.6 and later.
    Linux,
    /// Linux 2.4.
    Linux24,
    /// Solaris and its relatives.
    Solaris,
    /// Windows XP.
    WindowsXp,
    /// Windows 2000.
    Windows2000,
    /// Windows 2003.
    Windows2003,
    /// Windows 2008.
    Windows2008,
    /// Windows Vista.
    WindowsVista,
    /// Windows 7 and 2008r2.
    Windows7,
    /// Windows 8, 2012 and 2012r2.
    Windows8,
    /// Windows 10, 2016 and 2019.
    Windows10,
    /// Windows 11, 2022 and 2025.
    Windows11,
}

impl OsFamily {
    /// All of them.
    pub const ALL: [OsFamily; 13] = [
        OsFamily::Other,
        OsFamily::Linux,
        OsFamily::Linux24,
        OsFamily::Solaris,
        OsFamily::WindowsXp,
        OsFamily::Windows2000,
        OsFamily::Windows2003,
        OsFamily::Windows2008,
        OsFamily::WindowsVista,
        OsFamily::Windows7,
        OsFamily::Windows8,
        OsFamily::Windows10,
        OsFamily::Windows11,
    ];

    /// Whether it is Windows.
    pub fn is_windows(self) -> bool {
        !matches!(
            self,
            OsFamily::Other | OsFamily::Linux | OsFamily::Linux24 | OsFamily::Solaris
        )
    }
}

/// A board.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Which one.
    pub chipset: Chipset,
    /// QEMU's version of it, `9.2`; `None`: the newest.
    pub version: Option<String>,
}

/// Boards of QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Chipset {
    /// i440FX, of 1996, with PCI.
    #[default]
    I440fx,
    /// Q35, of 2007, with PCI Express.
    Q35,
}

/// Firmware of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Firmware {
    /// SeaBIOS.
    #[default]
    Bios,
    /// OVMF.
    Uefi {
        /// Where it keeps its variables, if anywhere.
        vars: Option<Vars>,
    },
}

/// Variables of UEFI firmware.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vars {
    /// Key of the disk that holds them. The store is at its beginning.
    pub disk: String,
    /// Size of the flash that code and variables share: 4 MiB, or the 2 MiB of earlier years.
    pub flash_mib: u8,
    /// Whether the keys for Secure Boot are enrolled in them.
    pub secure_boot: bool,
}

impl Vars {
    /// Bytes of the variable store. All else in the disk is of no meaning.
    pub fn bytes(&self) -> u64 {
        match self.flash_mib {
            2 => 128 << 10,
            _ => 528 << 10,
        }
    }
}

/// Processors of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    /// Which one the guest sees.
    pub model: CpuModel,
    /// What it can do beyond its model, or not.
    pub flags: Vec<CpuFlag>,
    /// Hides from the guest that this is a VM (KVM's signature).
    pub hidden: bool,
    /// Sockets.
    pub sockets: u32,
    /// Cores of a socket.
    pub cores: u32,
    /// Threads of a core.
    pub threads: u32,
    /// How many of all are plugged in at the start; `None`: all.
    pub online: Option<u32>,
}

impl Cpu {
    /// How many processors there are at the most.
    pub fn total(&self) -> u32 {
        self.sockets
            .saturating_mul(self.cores)
            .saturating_mul(self.threads)
    }
}

/// Models of processors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum CpuModel {
    /// The host's own.
    Host,
    /// A named model that comes close to the host's.
    HostModel,
    /// All that can be emulated.
    Max,
    /// A model of QEMU: `kvm64`, `Skylake-Server`.
    Named(String),
    /// A level of the x86-64 ABI: `x86-64-v2`, and with AES `x86-64-v2-AES`.
    Level(String),
}

/// A feature of a processor that is added or taken away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuFlag {
    /// Its name: `aes`.
    pub name: String,
    /// Whether the guest has it.
    pub on: bool,
}

/// Memory of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// How much, in KiB.
    pub kib: u64,
    /// Whether there is a device by which the host can ask for some of it.
    pub balloon: bool,
}

/// What the clock shows that the guest finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clock {
    /// UTC.
    #[default]
    Utc,
    /// Local time, as Windows wants it.
    LocalTime,
}

/// A TPM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tpm {
    /// Which.
    pub version: TpmVersion,
    /// Key of the disk that holds its state, if it is in one.
    pub disk: Option<String>,
}

/// Versions of the TPM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TpmVersion {
    /// 1.2
    #[serde(rename = "1.2")]
    V12,
    /// 2.0
    #[serde(rename = "2.0")]
    V20,
}

impl Default for Guest {
    /// A VM with one processor and 512 MiB, and no devices.
    fn default() -> Guest {
        Guest {
            version: Guest::VERSION,
            name: None,
            uuid: None,
            smbios: BTreeMap::new(),
            generation_id: None,
            description: String::new(),
            tags: Vec::new(),
            autostart: false,
            os: Os::default(),
            machine: Machine::default(),
            firmware: Firmware::Bios,
            cpu: Cpu {
                model: CpuModel::Named("qemu64".into()),
                flags: Vec::new(),
                hidden: false,
                sockets: 1,
                cores: 1,
                threads: 1,
                online: None,
            },
            memory: Memory {
                kib: 512 << 10,
                balloon: false,
            },
            clock: Clock::Utc,
            acpi: true,
            scsi: ScsiController::Lsi,
            disks: Vec::new(),
            cds: Vec::new(),
            nics: Vec::new(),
            serials: Vec::new(),
            agent: false,
            rng: None,
            watchdog: None,
            display: Display::default(),
            tablet: false,
            tpm: None,
            boot: Vec::new(),
            unknown: Vec::new(),
        }
    }
}
