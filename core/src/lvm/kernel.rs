//! What the kernel tells of an active volume. Other than LVM it takes no lock and scans no disks, and so answers at once.

use super::find::at_device;
use super::id::LvId;
use crate::cmd::{Cmd, Tool};
use crate::error::{Error, Kind, Result};
use std::os::unix::fs::MetadataExt;

/// The groups of characters that LVM writes a volume's id in.
const UUID_GROUPS: [usize; 7] = [6, 4, 4, 4, 4, 4, 6];

/// LVM's id of an active thin volume, and the number by which its pool knows it.
pub(super) fn thin_volume(id: &LvId) -> Result<(String, u32)> {
    let path = id.path();
    let device = std::fs::metadata(&path)
        .map_err(|e| Error::io(format!("cannot look at {}", path.display()), e))?
        .rdev();
    let unexpected =
        |what: &str| Error::new(Kind::Tool, format!("{what} of {id} is not understood"));
    let uuid = match at_device(device) {
        Some((found, uuid)) if found == *id => dashed(&uuid),
        _ => None,
    };
    let table = Cmd::new(Tool::Dmsetup)
        .args(["table", &id.mapper_name()])
        .run()?;
    let thin_id = thin_id(&String::from_utf8_lossy(&table.stdout));
    Ok((
        uuid.ok_or_else(|| unexpected("the kernel's id"))?,
        thin_id.ok_or_else(|| unexpected("the kernel's table"))?,
    ))
}

fn dashed(uuid: &str) -> Option<String> {
    let mut rest = uuid;
    let mut groups = Vec::new();
    for len in UUID_GROUPS {
        groups.push(rest.get(..len)?);
        rest = rest.get(len..)?;
    }
    rest.is_empty().then(|| groups.join("-"))
}

/// From `START LENGTH thin POOL NUMBER`, as Linux's admin-guide/device-mapper/thin-provisioning has it.
fn thin_id(table: &str) -> Option<u32> {
    let words: Vec<&str> = table.split_whitespace().collect();
    match words.as_slice() {
        ["0", _, "thin", _, number] => number.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_one_thin_volume_is_understood_and_nothing_else() {
        assert_eq!(thin_id("0 20971520 thin 253:2 7\n"), Some(7));
        for other in [
            "",
            "0 20971520 thin 253:2\n",
            "0 20971520 thin 253:2 7 253:9\n",
            "0 8192 linear 254:0 2048\n",
            "0 8 thin 253:2 7\n8 8 thin 253:2 8\n",
            "0 20971520 thin 253:2 -7\n",
        ] {
            assert_eq!(thin_id(other), None, "{other:?}");
        }
    }

    #[test]
    fn ids_are_written_as_lvm_does() {
        let shown = dashed("LIpXj1eVWjM6Ixp8HAOGUzDQ0bKfpYRQ");
        assert_eq!(
            shown.as_deref(),
            Some("LIpXj1-eVWj-M6Ix-p8HA-OGUz-DQ0b-KfpYRQ")
        );
        assert_eq!(dashed("LIpXj1eVWjM6Ixp8"), None);
        assert_eq!(dashed("LIpXj1eVWjM6Ixp8HAOGUzDQ0bKfpYRQx"), None);
    }
}
