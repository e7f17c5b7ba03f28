//! Removing volumes. See the module's head for the rules.

use super::find::list;
use super::id::{LvId, OwnerTag};
use super::listing::Listing;
use super::ops::{any_of, check_owned, idle};
use super::report::{Lv, LvKind};
use crate::cmd::{Cmd, Tool};
use crate::error::{Error, Kind, Result};
use std::collections::BTreeSet;

/// Removes a volume of ours. Success if there is none of this name.
pub fn remove(id: &LvId, owner: &OwnerTag) -> Result<()> {
    remove_all(std::slice::from_ref(id), owner)
}

/// Removes volumes of ours, those that exist. A stranger's or an open one among them, and none is removed.
pub fn remove_all(ids: &[LvId], owner: &OwnerTag) -> Result<()> {
    remove_listed(&Listing::default(), ids, owner)
}

/// The same for volumes that `listing`, which is told, has just shown: what has been exchanged since, or has another
/// owner, LVM itself leaves alone, and what was opened since it refuses.
pub fn remove_listed(listing: &Listing, ids: &[LvId], owner: &OwnerTag) -> Result<()> {
    let groups: BTreeSet<&str> = ids.iter().map(LvId::vg).collect();
    for vg in groups {
        let wanted = |lv: &Lv| ids.contains(&lv.id);
        let mut going = Vec::new();
        for lv in listing.group(vg)?.into_iter().filter(wanted) {
            let lv = check_owned(lv, owner, "remove")?;
            if lv.kind == LvKind::ThinPool {
                return Err(Error::new(
                    Kind::Refused,
                    format!("will not remove {}: it is a thin pool", lv.id),
                ));
            }
            going.push(idle(lv, "remove")?);
        }
        if going.is_empty() {
            continue;
        }
        let done = Cmd::new(Tool::Lvremove)
            .args(["--yes", "-S", &any_of(&going, owner)])
            .args(going.iter().map(|lv| lv.id.to_string()))
            .run()?;
        // A selection that does not match is no error to LVM. So what it does not report as removed is looked for.
        let said = String::from_utf8_lossy(&done.stdout);
        if !going.iter().all(|lv| is_reported(&said, &lv.id)) {
            check_gone(vg, &going, owner)?;
        }
        listing.removed(&going);
    }
    Ok(())
}

/// Whether lvremove has reported that this volume is gone. Up to 2.03.22 or so it gives the bare name, later the
/// group's as well.
fn is_reported(said: &str, id: &LvId) -> bool {
    let names = [id.name().to_owned(), id.to_string()];
    said.lines().any(|line| {
        names.iter().any(|name| {
            let told = format!("Logical volume \"{name}\" successfully removed");
            line.trim().trim_end_matches('.') == told
        })
    })
}

fn check_gone(vg: &str, going: &[Lv], owner: &OwnerTag) -> Result<()> {
    let is_left = |left: &Lv| going.iter().any(|lv| lv.uuid == left.uuid);
    match list(vg)?.into_iter().find(is_left) {
        None => Ok(()),
        Some(left) => {
            let left = check_owned(left, owner, "remove")?;
            Err(Error::new(
                Kind::Tool,
                format!("lvremove left {} in place and gave no reason", left.id),
            ))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_a_report_of_just_this_volume_counts() {
        let id = LvId::new("pve", "vm-101-disk-1").unwrap();
        for said in [
            "  Logical volume \"vm-101-disk-1\" successfully removed\n",
            "  Logical volume \"x\" successfully removed.\n  Logical volume \"pve/vm-101-disk-1\" successfully removed.\n",
        ] {
            assert!(is_reported(said, &id), "{said}");
        }
        for said in [
            "",
            "  Logical volume \"vm-101-disk-10\" successfully removed\n",
            "  Logical volume \"other/vm-101-disk-1\" successfully removed\n",
            "  Logical volume \"vm-101-disk-1\" changed.\n",
        ] {
            assert!(!is_reported(said, &id), "{said}");
        }
    }
}
