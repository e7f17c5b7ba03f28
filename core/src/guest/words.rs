//! Words for what has several kinds, and those that Proxmox VE and libvirt both have from QEMU.

use super::{Aio, Bus, Cache, WatchdogAction};

/// What disks and CD drives hang on.
pub const BUSES: [(&str, Bus); 4] = [
    ("ide", Bus::Ide),
    ("sata", Bus::Sata),
    ("scsi", Bus::Scsi),
    ("virtio", Bus::Virtio),
];

/// How QEMU caches a disk.
pub const CACHES: [(&str, Cache); 5] = [
    ("none", Cache::None),
    ("writethrough", Cache::Writethrough),
    ("writeback", Cache::Writeback),
    ("unsafe", Cache::Unsafe),
    ("directsync", Cache::Directsync),
];

/// How QEMU reads and writes a disk.
pub const AIOS: [(&str, Aio); 3] = [
    ("threads", Aio::Threads),
    ("native", Aio::Native),
    ("io_uring", Aio::IoUring),
];

/// What a watchdog does.
pub const ACTIONS: [(&str, WatchdogAction); 5] = [
    ("reset", WatchdogAction::Reset),
    ("shutdown", WatchdogAction::Shutdown),
    ("poweroff", WatchdogAction::Poweroff),
    ("pause", WatchdogAction::Pause),
    ("none", WatchdogAction::None),
];

/// Fields of what the firmware tells of the machine.
pub const SMBIOS: [&str; 6] = [
    "manufacturer",
    "product",
    "version",
    "serial",
    "sku",
    "family",
];

/// What a word means.
pub fn meaning<T: Copy>(words: &[(&str, T)], word: &str) -> Option<T> {
    words.iter().find(|(w, _)| *w == word).map(|(_, t)| *t)
}

/// The word for something.
pub fn word<T: PartialEq>(words: &[(&'static str, T)], thing: &T) -> Option<&'static str> {
    words.iter().find(|(_, t)| t == thing).map(|(w, _)| *w)
}
