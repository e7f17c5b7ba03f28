//! libvirt's words for what has several kinds.

pub(super) use rblocksync::guest::words::{meaning, word, ACTIONS, AIOS, BUSES, CACHES, SMBIOS};
use rblocksync::guest::{OsFamily, ScsiController, Video};

/// Names of libosinfo's that stand for a family. The first of a family is written.
pub(super) const SYSTEMS: [(&str, OsFamily); 12] = [
    ("http://libosinfo.org/linux/2022", OsFamily::Linux),
    ("http://libosinfo.org/linux/2.4", OsFamily::Linux24),
    ("http://oracle.com/solaris/11", OsFamily::Solaris),
    ("http://microsoft.com/win/xp", OsFamily::WindowsXp),
    ("http://microsoft.com/win/2k", OsFamily::Windows2000),
    ("http://microsoft.com/win/2k3", OsFamily::Windows2003),
    ("http://microsoft.com/win/2k8", OsFamily::Windows2008),
    ("http://microsoft.com/win/vista", OsFamily::WindowsVista),
    ("http://microsoft.com/win/7", OsFamily::Windows7),
    ("http://microsoft.com/win/8", OsFamily::Windows8),
    ("http://microsoft.com/win/10", OsFamily::Windows10),
    ("http://microsoft.com/win/11", OsFamily::Windows11),
];

/// More names of Windows, by what follows `http://microsoft.com/win/`.
const WINDOWS: [(&str, OsFamily); 8] = [
    ("2k8r2", OsFamily::Windows7),
    ("2k12", OsFamily::Windows8),
    ("2k12r2", OsFamily::Windows8),
    ("8.1", OsFamily::Windows8),
    ("2k16", OsFamily::Windows10),
    ("2k19", OsFamily::Windows10),
    ("2k22", OsFamily::Windows11),
    ("2k25", OsFamily::Windows11),
];

/// Makers of Linux distributions, as libosinfo has them.
const LINUX: [&str; 16] = [
    "alpinelinux.org",
    "almalinux.org",
    "amazon.com",
    "archlinux.org",
    "centos.org",
    "debian.org",
    "fedoraproject.org",
    "gentoo.org",
    "libosinfo.org/linux",
    "nixos.org",
    "opensuse.org",
    "oracle.com/ol",
    "redhat.com",
    "rockylinux.org",
    "suse.com",
    "ubuntu.com",
];

/// The family of an operating system by libosinfo's name.
pub(super) fn family(id: &str) -> OsFamily {
    if let Some(family) = meaning(&SYSTEMS, id) {
        return family;
    }
    let rest = id
        .trim_start_matches("http://")
        .trim_start_matches("https://");
    match rest.strip_prefix("microsoft.com/win/") {
        Some(windows) => meaning(&WINDOWS, windows).unwrap_or_default(),
        None if LINUX.iter().any(|maker| rest.starts_with(maker)) => OsFamily::Linux,
        None => OsFamily::Other,
    }
}

pub(super) const SCSI: [(&str, ScsiController); 4] = [
    ("lsilogic", ScsiController::Lsi),
    ("virtio-scsi", ScsiController::Virtio),
    ("lsisas1078", ScsiController::Megasas),
    ("vmpvscsi", ScsiController::Pvscsi),
];

pub(super) const VIDEOS: [(&str, Video); 7] = [
    ("vga", Video::Std),
    ("bochs", Video::Std),
    ("cirrus", Video::Cirrus),
    ("vmvga", Video::Vmware),
    ("qxl", Video::Qxl(1)),
    ("virtio", Video::Virtio),
    ("none", Video::None),
];

/// What the levels of the x86-64 ABI have beyond `qemu64`, the highest first.
pub(super) const LEVELS: [(&str, &[&str]); 4] = [
    (
        "x86-64-v4",
        &[
            "popcnt", "pni", "sse4.1", "sse4.2", "ssse3", "aes", "avx", "avx2", "bmi1", "bmi2",
            "f16c", "fma", "abm", "movbe", "xsave", "avx512f", "avx512bw", "avx512cd", "avx512dq",
            "avx512vl",
        ],
    ),
    (
        "x86-64-v3",
        &[
            "popcnt", "pni", "sse4.1", "sse4.2", "ssse3", "aes", "avx", "avx2", "bmi1", "bmi2",
            "f16c", "fma", "abm", "movbe", "xsave",
        ],
    ),
    (
        "x86-64-v2-AES",
        &["popcnt", "pni", "sse4.1", "sse4.2", "ssse3", "aes"],
    ),
    ("x86-64-v2", &["popcnt", "pni", "sse4.1", "sse4.2", "ssse3"]),
];

/// What a Windows guest is told of its hypervisor, so that it does not wait for it in vain.
pub(super) const HYPERV: [&str; 3] = ["relaxed", "vapic", "spinlocks"];
