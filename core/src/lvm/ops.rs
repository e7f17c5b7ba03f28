//! What changes volumes. See the module's head for the rules.

use super::find::{find, get, no_such};
use super::id::{LvId, OwnerTag, Tag};
use super::listing::Listing;
use super::report::Lv;
use crate::cmd::{Cmd, Output, Tool};
use crate::error::{Error, Kind, Result};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A device is opened for moments by udev's probes after it was closed or changed; so long do we wait
/// before we say that it is in use.
const OPEN_PATIENCE: Duration = Duration::from_secs(3);
const OPEN_POLL: Duration = Duration::from_millis(100);

/// What all our tags begin with, and those that name an owner.
const OURS: &str = "rbs.";
const OWNER_PREFIX: &str = "rbs.owner=";

/// LVM takes sizes in whole sectors.
const SECTOR_BYTES: u64 = 512;

/// How a snapshot is to be made.
#[derive(Debug, Clone, Default)]
pub struct SnapshotOptions {
    /// Not writable.
    pub read_only: bool,
    /// Not activated now nor at boot, only by [`activate`]. Otherwise it is active at once.
    pub skip_activation: bool,
    /// Active at once, whatever `skip_activation` says of later: that takes longer than without, and less than a second
    /// call.
    pub at_once: bool,
    /// Not activated now, but like any other volume when somebody wants it.
    pub inactive: bool,
    /// Tags it has from its first moment on.
    pub tags: Vec<Tag>,
}

/// Creates a thin volume with at least `size` bytes: LVM rounds up to whole extents.
///
/// Fails with [`Kind::Refused`] if the name is taken, with [`Kind::Space`] if the pool is too full.
pub fn create_thin(pool: &LvId, name: &str, size: u64, tags: &[Tag]) -> Result<LvId> {
    let id = pool.sibling(name)?;
    let made = Cmd::new(Tool::Lvcreate)
        .args(["--yes", "--wipesignatures", "n"])
        .args(["-V", &format!("{}b", sectors(&id, size)?)])
        .args(["-n", id.name()])
        .args(["--thinpool", &pool.to_string()])
        .args(with_each("--addtag", tags))
        .run();
    created(id, made)
}

/// Creates a volume that takes at least `size` bytes in its group, active. Beyond what LVM wipes, it
/// holds what was on the disk before.
///
/// Fails with [`Kind::Refused`] if the name is taken, with [`Kind::Space`] if the group is too full.
pub fn create_thick(id: &LvId, size: u64, tags: &[Tag]) -> Result<()> {
    let made = Cmd::new(Tool::Lvcreate)
        .args(["--yes", "--wipesignatures", "y", "-a", "y"])
        .args(["-L", &format!("{}b", sectors(id, size)?)])
        .args(["-n", id.name()])
        .args(with_each("--addtag", tags))
        .arg(id.vg())
        .run();
    created(id.clone(), made).map(drop)
}

/// LVM itself refuses a name that is taken, in its own words.
fn created(id: LvId, made: Result<Output>) -> Result<LvId> {
    match made {
        Ok(_) => Ok(id),
        Err(e) => Err(match find(&id) {
            Ok(Some(_)) => Error::new(
                Kind::Refused,
                format!("cannot create {id}: a volume of this name exists"),
            ),
            _ => e,
        }),
    }
}

/// A size as LVM takes it, in bytes.
fn sectors(id: &LvId, size: u64) -> Result<u64> {
    size.max(1)
        .checked_next_multiple_of(SECTOR_BYTES)
        .ok_or_else(|| Error::new(Kind::Usage, format!("{size} bytes are too many for {id}")))
}

/// Takes a thin snapshot called `name`, in the same group. The origin may be active and in use; its
/// writes wait for the moment it takes.
pub fn snapshot(origin: &LvId, name: &str, options: &SnapshotOptions) -> Result<LvId> {
    let id = origin.sibling(name)?;
    Cmd::new(Tool::Lvcreate)
        .args(["--yes", "-s", "-n", id.name()])
        .args(["-p", if options.read_only { "r" } else { "rw" }])
        .args(["-k", if options.skip_activation { "y" } else { "n" }])
        .args(
            options
                .at_once
                .then_some(["-K", "-a", "y"])
                .into_iter()
                .flatten(),
        )
        .args(
            options
                .inactive
                .then_some(["-a", "n"])
                .into_iter()
                .flatten(),
        )
        .args(with_each("--addtag", &options.tags))
        .arg(origin.to_string())
        .run()?;
    Ok(id)
}

/// Makes the device node, also of volumes marked to be skipped.
pub fn activate(id: &LvId) -> Result<()> {
    activate_all(std::slice::from_ref(id))
}

/// Makes the device nodes of all these, or of some if it fails.
pub fn activate_all(ids: &[LvId]) -> Result<()> {
    lvchange(&["-ay", "-K"], ids)
}

/// Removes the device node. Fails with [`Kind::Busy`] if it stays open.
pub fn deactivate(id: &LvId) -> Result<()> {
    deactivate_all(std::slice::from_ref(id))
}

/// Removes the device nodes of all these. Fails with [`Kind::Busy`] if one stays open; the others are gone even so.
pub fn deactivate_all(ids: &[LvId]) -> Result<()> {
    let until = Instant::now() + OPEN_PATIENCE;
    loop {
        match lvchange(&["-an"], ids) {
            Err(e) if e.kind() == Kind::Busy && Instant::now() < until => sleep(OPEN_POLL),
            done => return done,
        }
    }
}

/// Grows a volume of ours to at least `size` bytes and returns it. One that is large enough is left alone.
pub fn extend(id: &LvId, size: u64, owner: &OwnerTag) -> Result<Lv> {
    let lv = idle(owned(id, owner, "extend")?, "extend")?;
    if lv.size >= size {
        return Ok(lv);
    }
    Cmd::new(Tool::Lvextend)
        .args(["-L", &format!("{}b", sectors(id, size)?)])
        .arg(id.to_string())
        .run()?;
    get(id)
}

/// Gives a volume of ours another name. Success, too, if that has happened already.
pub fn rename(id: &LvId, name: &str, owner: &OwnerTag) -> Result<LvId> {
    rename_listed(&Listing::default(), id, name, owner)
}

/// The same for a volume that `listing`, which is told, has just shown.
pub fn rename_listed(listing: &Listing, id: &LvId, name: &str, owner: &OwnerTag) -> Result<LvId> {
    let new = id.sibling(name)?;
    let Some(old) = listing.find(id)? else {
        return match listing.find(&new)? {
            Some(lv) if lv.is_owned_by(owner) => Ok(new),
            _ => Err(no_such(id)),
        };
    };
    idle(check_owned(old, owner, "rename")?, "rename")?;
    Cmd::new(Tool::Lvrename)
        .arg(id.to_string())
        .arg(new.to_string())
        .run()?;
    listing.renamed(id, &new);
    Ok(new)
}

/// Makes a volume of ours, as it was just seen, read-only and inactive unless activation is forced: as
/// Proxmox keeps its snapshots. Fails with [`Kind::Busy`] if it is open.
pub fn seal(lv: &Lv, owner: &OwnerTag) -> Result<()> {
    seal_all(std::slice::from_ref(lv), owner)
}

/// The same for all these, of one group.
pub fn seal_all(lvs: &[Lv], owner: &OwnerTag) -> Result<()> {
    for lv in lvs {
        check_owned(lv.clone(), owner, "seal")?;
    }
    deactivate_all(&ids(lvs.iter().filter(|lv| lv.active)))?;
    let marked = |lv: &&Lv| lv.read_only && !lv.skip_activation;
    let open: Vec<Lv> = lvs.iter().filter(|lv| !lv.read_only).cloned().collect();
    let unmarked: Vec<Lv> = lvs.iter().filter(marked).cloned().collect();
    // LVM refuses to make read-only what is so already.
    lvchange_owned(&["-p", "r", "-k", "y"], &open, owner)?;
    lvchange_owned(&["-k", "y"], &unmarked, owner)
}

/// Makes a sealed volume of ours, as it was just seen, writable and active, until it is sealed again.
pub fn unseal(lv: &Lv, owner: &OwnerTag) -> Result<()> {
    let lv = check_owned(lv.clone(), owner, "unseal")?;
    if lv.read_only {
        // An active one would only take it over when it is activated the next time.
        if lv.active {
            deactivate(&lv.id)?;
        }
        lvchange_owned(&["-p", "rw"], std::slice::from_ref(&lv), owner)?;
    }
    activate(&lv.id)
}

/// Adds a tag to a volume of ours.
pub fn add_tag(id: &LvId, tag: &Tag, owner: &OwnerTag) -> Result<()> {
    let lv = owned(id, owner, "tag")?;
    lvchange_owned(&["--addtag", tag.as_str()], &[lv], owner)
}

/// Takes a tag off a volume of ours.
pub fn del_tag(id: &LvId, tag: &Tag, owner: &OwnerTag) -> Result<()> {
    let lv = owned(id, owner, "untag")?;
    lvchange_owned(&["--deltag", tag.as_str()], &[lv], owner)
}

/// Gives volumes of ours, of one group, as they were just seen, the tag `add` instead of `del`, in one step.
pub fn exchange_tag(lvs: &[Lv], del: &Tag, add: &Tag, owner: &OwnerTag) -> Result<()> {
    for lv in lvs {
        check_owned(lv.clone(), owner, "tag")?;
    }
    let what = ["--deltag", del.as_str(), "--addtag", add.as_str()];
    lvchange_owned(&what, lvs, owner)
}

/// Gives a volume of ours `tag` instead of its other tags that begin with `prefix`, in one step.
pub fn retag(id: &LvId, prefix: &str, tag: &Tag, owner: &OwnerTag) -> Result<()> {
    let lv = owned(id, owner, "tag")?;
    let others = lv.tags.iter();
    let others = others.filter(|t| t.starts_with(prefix) && *t != tag.as_str());
    let mut what: Vec<&str> = others.flat_map(|t| ["--deltag", t.as_str()]).collect();
    if !lv.has_tag(tag) {
        what.extend(["--addtag", tag.as_str()]);
    }
    match what.is_empty() {
        true => Ok(()),
        false => lvchange_owned(&what, std::slice::from_ref(&lv), owner),
    }
}

/// Makes a volume that was nobody's, or one of `former` owners, that of `owner`, with these further tags; what it was made
/// from as somebody else's is forgotten. In one step: it is never without an owner. Fails with [`Kind::Refused`] if it is a
/// stranger's, with [`Kind::Busy`] if it is open.
pub fn claim(id: &LvId, owner: &OwnerTag, former: &[OwnerTag], tags: &[Tag]) -> Result<()> {
    let lv = idle(get(id)?, "claim")?;
    let mut change = Vec::new();
    for tag in lv.tags.iter().filter(|tag| tag.starts_with(OURS)) {
        let is_owner = tag.starts_with(OWNER_PREFIX) && *tag != owner.to_string();
        if is_owner && !former.iter().any(|former| *tag == former.to_string()) {
            return Err(Error::new(
                Kind::Refused,
                format!("will not claim {id}: it belongs to another replica ({tag})"),
            ));
        }
        let stays = tags.iter().any(|new| tag == new.as_str());
        if is_owner || (!stays && !tag.starts_with(OWNER_PREFIX)) {
            change.extend(["--deltag".to_owned(), tag.clone()]);
        }
    }
    for tag in std::iter::once(owner.tag()).chain(tags) {
        if !lv.has_tag(tag) {
            change.extend(["--addtag".to_owned(), tag.as_str().to_owned()]);
        }
    }
    if change.is_empty() {
        return Ok(());
    }
    Cmd::new(Tool::Lvchange)
        .args(change)
        .args(["-S", &format!("lv_uuid=\"{}\"", lv.uuid)])
        .arg(id.to_string())
        .run()
        .map(drop)
}

fn lvchange(what: &[&str], ids: &[LvId]) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    Cmd::new(Tool::Lvchange)
        .args(what)
        .args(ids.iter().map(LvId::to_string))
        .run()
        .map(drop)
}

fn lvchange_owned(what: &[&str], lvs: &[Lv], owner: &OwnerTag) -> Result<()> {
    if lvs.is_empty() {
        return Ok(());
    }
    Cmd::new(Tool::Lvchange)
        .args(what)
        .args(["-S", &any_of(lvs, owner)])
        .args(lvs.iter().map(|lv| lv.id.to_string()))
        .run()
        .map(drop)
}

fn ids<'a>(lvs: impl Iterator<Item = &'a Lv>) -> Vec<LvId> {
    lvs.map(|lv| lv.id.clone()).collect()
}

/// LVM's selection of exactly these volumes while they carry the mark: evaluated under LVM's own lock, so nothing can be
/// exchanged between the check and the deed.
pub(super) fn any_of(lvs: &[Lv], owner: &OwnerTag) -> String {
    let uuids: Vec<String> = lvs
        .iter()
        .map(|lv| format!("lv_uuid=\"{}\"", lv.uuid))
        .collect();
    format!("({}) && lv_tags=\"{owner}\"", uuids.join(" || "))
}

fn owned(id: &LvId, owner: &OwnerTag, verb: &str) -> Result<Lv> {
    check_owned(get(id)?, owner, verb)
}

pub(super) fn check_owned(lv: Lv, owner: &OwnerTag, verb: &str) -> Result<Lv> {
    if lv.is_owned_by(owner) {
        return Ok(lv);
    }
    Err(Error::new(
        Kind::Refused,
        format!(
            "will not {verb} {}: it does not carry our tag {owner}",
            lv.id
        ),
    )
    .advise("if it is a leftover that nobody needs, remove it by hand"))
}

/// Waits a little for the device to be closed. Fails with [`Kind::Busy`].
pub(super) fn idle(mut lv: Lv, verb: &str) -> Result<Lv> {
    let until = Instant::now() + OPEN_PATIENCE;
    while lv.open {
        if Instant::now() >= until {
            return Err(
                Error::new(Kind::Busy, format!("will not {verb} {}: it is open", lv.id))
                    .advise("find out who uses it with fuser or lsblk"),
            );
        }
        sleep(OPEN_POLL);
        lv = get(&lv.id)?;
    }
    Ok(lv)
}

fn with_each<'a>(option: &'a str, tags: &'a [Tag]) -> impl Iterator<Item = &'a str> {
    tags.iter().flat_map(move |tag| [option, tag.as_str()])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::report;
    use super::*;
    use uuid::Uuid;

    fn recorded(name: &str) -> Lv {
        let lvs = report::parse(include_bytes!("testdata/lvs.json")).unwrap();
        lvs.into_iter().find(|lv| lv.id.name() == name).unwrap()
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let owner = OwnerTag::new(Uuid::new_v4());
        let mut lv = recorded("vm-101-disk-0");
        let error = check_owned(lv.clone(), &owner, "remove").unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
        assert!(
            error
                .to_string()
                .contains("will not remove pve/vm-101-disk-0"),
            "{error}"
        );
        lv.tags.push(OwnerTag::new(Uuid::new_v4()).to_string());
        assert!(check_owned(lv.clone(), &owner, "remove").is_err());
        lv.tags.push(owner.to_string());
        assert!(check_owned(lv, &owner, "remove").is_ok());
    }

    #[test]
    fn selection_names_id_and_mark() {
        let owner = OwnerTag::new(Uuid::nil());
        assert_eq!(
            any_of(&[recorded("lin")], &owner),
            "(lv_uuid=\"CNicMS-HqfO-1jUE-fTeG-nU6a-tzh4-OqM7aj\") && \
             lv_tags=\"rbs.owner=00000000-0000-0000-0000-000000000000\""
        );
    }
}
