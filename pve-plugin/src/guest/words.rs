//! Proxmox VE's words for what has several kinds.

pub(super) use rblocksync::guest::words::{meaning, word, ACTIONS, AIOS, BUSES, CACHES, SMBIOS};
use rblocksync::guest::{OsFamily, ScsiController, Video};

pub(super) const OSTYPES: [(&str, OsFamily); 13] = [
    ("other", OsFamily::Other),
    ("l26", OsFamily::Linux),
    ("l24", OsFamily::Linux24),
    ("solaris", OsFamily::Solaris),
    ("wxp", OsFamily::WindowsXp),
    ("w2k", OsFamily::Windows2000),
    ("w2k3", OsFamily::Windows2003),
    ("w2k8", OsFamily::Windows2008),
    ("wvista", OsFamily::WindowsVista),
    ("win7", OsFamily::Windows7),
    ("win8", OsFamily::Windows8),
    ("win10", OsFamily::Windows10),
    ("win11", OsFamily::Windows11),
];

pub(super) const SCSI: [(&str, ScsiController); 6] = [
    ("lsi", ScsiController::Lsi),
    ("lsi53c810", ScsiController::Lsi53c810),
    ("virtio-scsi-pci", ScsiController::Virtio),
    ("virtio-scsi-single", ScsiController::VirtioSingle),
    ("megasas", ScsiController::Megasas),
    ("pvscsi", ScsiController::Pvscsi),
];

pub(super) const VIDEOS: [(&str, Video); 14] = [
    ("std", Video::Std),
    ("cirrus", Video::Cirrus),
    ("vmware", Video::Vmware),
    ("qxl", Video::Qxl(1)),
    ("qxl2", Video::Qxl(2)),
    ("qxl3", Video::Qxl(3)),
    ("qxl4", Video::Qxl(4)),
    ("virtio", Video::Virtio),
    ("virtio-gl", Video::VirtioGl),
    ("serial0", Video::Serial(0)),
    ("serial1", Video::Serial(1)),
    ("serial2", Video::Serial(2)),
    ("serial3", Video::Serial(3)),
    ("none", Video::None),
];

pub(super) const WATCHDOGS: [&str; 2] = ["i6300esb", "ib700"];

pub(super) const RNG_SOURCES: [&str; 3] = ["/dev/urandom", "/dev/random", "/dev/hwrng"];

pub(super) const NICS: [&str; 14] = [
    "virtio",
    "e1000",
    "e1000-82540em",
    "e1000-82544gc",
    "e1000-82545em",
    "e1000e",
    "i82551",
    "i82557b",
    "i82559er",
    "ne2k_isa",
    "ne2k_pci",
    "pcnet",
    "rtl8139",
    "vmxnet3",
];

/// Levels of the x86-64 ABI, as Proxmox VE names them.
pub(super) const LEVELS: [&str; 4] = ["x86-64-v2", "x86-64-v2-AES", "x86-64-v3", "x86-64-v4"];

/// Features of processors that a VM's own line may name.
pub(super) const FLAGS: [&str; 10] = [
    "md-clear",
    "pcid",
    "spec-ctrl",
    "ssbd",
    "ibpb",
    "virt-ssbd",
    "amd-ssbd",
    "amd-no-ssb",
    "pdpe1gb",
    "aes",
];
