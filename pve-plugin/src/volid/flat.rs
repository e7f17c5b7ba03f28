//! Volume names on storages whose volumes are no files: `vm-101-disk-0`, and with what stands before it on some of them
//! the base of a linked clone.

use super::{owner_and_role, Format, Role, Volid, Volume, MAX_NAME_BYTES};
use rblocksync::error::{Error, Kind, Result};

impl Volume {
    /// Reads the name of a volume on an `lvmthin` storage: `vm-101-disk-0`, `base-...`, `vm-101-cloudinit`.
    pub fn on_lvm_thin(volid: &Volid) -> Result<Volume> {
        flat(volid, volid.volname(), "an LVM-thin storage", "LVM")
    }

    /// Reads the name of a volume on an `lvm` storage. It has the ending `.qcow2` if there is a qcow2 image in it, which
    /// Proxmox VE 9 does by option.
    pub fn on_lvm(volid: &Volid) -> Result<Volume> {
        let mut volume = flat(volid, volid.volname(), "an LVM storage", "LVM")?;
        if volume.name.ends_with(".qcow2") {
            volume.format = Format::Qcow2;
        }
        Ok(volume)
    }

    /// Reads the name of a volume on a `zfspool` storage: `vm-101-disk-0`, or of a linked clone
    /// `base-100-disk-0/vm-101-disk-0`.
    pub fn on_zfs(volid: &Volid) -> Result<Volume> {
        clone_or_flat(volid, "a ZFS storage", "ZFS")
    }

    /// Reads the name of a volume on an `rbd` storage, which is like one on ZFS.
    pub fn on_rbd(volid: &Volid) -> Result<Volume> {
        clone_or_flat(volid, "a Ceph storage", "our Ceph")
    }
}

fn clone_or_flat(volid: &Volid, place: &str, names: &str) -> Result<Volume> {
    let Some((base, name)) = volid.volname().split_once('/') else {
        return flat(volid, volid.volname(), place, names);
    };
    let is_base = flat(volid, base, place, names)?.role == Role::Base;
    let volume = flat(volid, name, place, names)?;
    match is_base {
        true => Ok(Volume {
            base: Some(base.to_owned()),
            ..volume
        }),
        false => Err(wrong(
            volid,
            place,
            "what it is a clone of is not named base-VMID-...",
        )),
    }
}

fn flat(volid: &Volid, name: &str, place: &str, names: &str) -> Result<Volume> {
    if !name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"+_.-".contains(&b))
    {
        let why = format!("{names} names hold only letters, digits and + _ . -");
        return Err(wrong(volid, place, &why));
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(wrong(volid, place, "the name is too long"));
    }
    match owner_and_role(name) {
        Some((owner, role)) => Ok(Volume {
            owner,
            role,
            name: name.to_owned(),
            format: Format::Raw,
            base: None,
        }),
        None => Err(wrong(
            volid,
            place,
            "it is not named vm-VMID-... or base-VMID-...",
        )),
    }
}

fn wrong(volid: &Volid, place: &str, why: &str) -> Error {
    Error::new(
        Kind::Refused,
        format!("{volid} cannot be a volume of {place}: {why}"),
    )
}
