//! Variables of UEFI firmware: the same bytes on both sides, and another size.
//!
//! The store has 528 KiB (128 KiB for firmware of 2 MiB). On a directory Proxmox VE keeps it in a file of that size, but on
//! LVM in a volume that is rounded up, of which its QEMU shows the beginning. A domain's file is mapped into the guest as a
//! whole, so that a longer one would be in the wrong place, and the firmware would find no variables.

use rblocksync::error::{Error, Kind, Result};
use rblocksync::guest::{Firmware, Guest, Vars};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// What the VM's firmware keeps its variables in.
pub fn vars_of(guest: &Guest) -> Option<&Vars> {
    match &guest.firmware {
        Firmware::Uefi { vars } => vars.as_ref(),
        Firmware::Bios => None,
    }
}

/// Copies the variables that are at the beginning of `disk`, a raw file or a device, into a file of their size, durably.
/// What was there is replaced.
pub fn cut_vars(disk: &Path, to: &Path, bytes: u64) -> Result<()> {
    let failed = |what: &str, path: &Path, e| Error::io(format!("{what} {}", path.display()), e);
    let source = File::open(disk).map_err(|e| failed("cannot read", disk, e))?;
    let mut store = Vec::new();
    let read = source.take(bytes).read_to_end(&mut store);
    read.map_err(|e| failed("cannot read", disk, e))?;
    if u64::try_from(store.len()) != Ok(bytes) {
        return Err(Error::new(
            Kind::Refused,
            format!(
                "{} has {} bytes, and the firmware's variables have {bytes}",
                disk.display(),
                store.len()
            ),
        ));
    }
    let dir = to.parent().unwrap_or(Path::new("/"));
    let mut new = tempfile::NamedTempFile::new_in(dir)
        .map_err(|e| failed("cannot make a file in", dir, e))?;
    let written = new
        .write_all(&store)
        .and_then(|()| new.as_file().sync_all());
    written.map_err(|e| failed("cannot write", to, e))?;
    new.persist(to)
        .map_err(|e| failed("cannot write", to, e.error))?;
    let dir_file = File::open(dir).and_then(|dir| dir.sync_all());
    dir_file.map_err(|e| failed("cannot flush", dir, e))
}
