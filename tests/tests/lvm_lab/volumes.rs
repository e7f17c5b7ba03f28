//! Volumes: made, found, changed, removed; and not, if they are not ours.

use crate::{lv, owner, path, pool, sh};
use rblocksync::agent::BlockEnd;
use rblocksync::error::Kind;
use rblocksync::image::{ImageFormat, TargetOptions};
use rblocksync::lvm::{self, Listing, LvId, LvKind, OwnerTag, PoolMode, SnapshotOptions, Tag};
use rblocksync::stop::Stop;
use rblocksync::sync::{Geometry, Meter, Params, Tuning};
use std::path::Path;
use uuid::Uuid;

const MIB: u64 = 1 << 20;

fn made(name: &str, size: u64) -> lvm::Lv {
    let id = lvm::create_thin(&pool(), name, size, &[owner().tag().clone()]).expect("created");
    lvm::get(&id).expect("there")
}

/// What changed since an earlier snapshot is asked of the pool by the numbers in the listing: a wrong one would lose changes.
pub fn a_snapshot_that_is_active_at_once_is_known_without_a_look() {
    let origin = made("at-once", 16 * MIB).id;
    let listing = Listing::default();
    listing.get(&origin).expect("listed");
    let tags = [
        owner().tag().clone(),
        Tag::new("rbs.test=2").expect("a tag"),
    ];
    let options = SnapshotOptions {
        read_only: true,
        skip_activation: true,
        at_once: true,
        tags: tags.to_vec(),
        ..SnapshotOptions::default()
    };
    let snapshot = lvm::snapshot(&origin, "at-once-snapshot", &options).expect("snapshot");
    assert!(snapshot.path().exists(), "it is active");
    listing
        .snapshot_made(&origin, &snapshot, &tags)
        .expect("told");
    let (told, mut seen) = (
        listing.get(&snapshot).expect("told"),
        lvm::get(&snapshot).expect("there"),
    );
    assert!(told.thin_id.is_some(), "{told:?}");
    // What is mapped of it was not asked for.
    seen.data_percent = told.data_percent;
    assert_eq!(told, seen);

    lvm::deactivate(&snapshot).expect("deactivated");
    assert!(
        listing.snapshot_made(&origin, &snapshot, &tags).is_err(),
        "the kernel knows nothing of a volume that is not active"
    );
    let fresh = Listing::default();
    assert!(!fresh.get(&snapshot).expect("listed").active);
    lvm::activate(&snapshot).expect("activated");
    fresh.activated(std::slice::from_ref(&snapshot));
    assert!(fresh.get(&snapshot).expect("listed").active);
    lvm::remove_all(&[snapshot, origin], &owner()).expect("removed");
}

pub fn the_life_of_a_volume() {
    let id = lv("life-1");
    // A byte too much for 16 MiB: LVM rounds up to its extents of 4 MiB.
    let made = made("life-1", 16 * MIB + 1);
    assert_eq!(
        (made.size, made.kind, made.active),
        (20 * MIB, LvKind::Thin, true)
    );
    assert_eq!(made.pool, Some(pool()));
    assert!(made.thin_id.is_some() && made.is_owned_by(&owner()) && !made.read_only);
    let again = lvm::create_thin(&pool(), "life-1", MIB, &[]).unwrap_err();
    assert_eq!(again.kind(), Kind::Refused);

    let tag = Tag::new("rbs.test=1").expect("a tag");
    lvm::add_tag(&id, &tag, &owner()).expect("tagged");
    lvm::add_tag(&id, &tag, &owner()).expect("tagged twice");
    assert!(lvm::get(&id).expect("there").has_tag(&tag));
    lvm::del_tag(&id, &tag, &owner()).expect("untagged");
    lvm::del_tag(&id, &tag, &owner()).expect("untagged twice");
    assert!(!lvm::get(&id).expect("there").has_tag(&tag));

    assert_eq!(
        lvm::extend(&id, 21 * MIB, &owner()).expect("grown").size,
        24 * MIB
    );
    assert_eq!(
        lvm::extend(&id, 24 * MIB, &owner()).expect("as it is").size,
        24 * MIB
    );
    assert_eq!(
        lvm::extend(&id, MIB, &owner()).expect("not shrunk").size,
        24 * MIB
    );

    for _ in 0..2 {
        lvm::seal(&lvm::get(&id).expect("there"), &owner()).expect("sealed");
        let sealed = lvm::get(&id).expect("there");
        assert!(sealed.read_only && sealed.skip_activation && !sealed.active);
    }
    let new = lvm::rename(&id, "life-2", &owner()).expect("renamed");
    assert_eq!(
        lvm::rename(&id, "life-2", &owner()).expect("renamed already"),
        new
    );
    assert_eq!(lvm::find(&id).expect("looked"), None);

    let options = SnapshotOptions {
        read_only: true,
        skip_activation: true,
        tags: vec![owner().tag().clone(), tag.clone()],
        ..SnapshotOptions::default()
    };
    let snapshot = lvm::snapshot(&new, "life-3", &options).expect("snapshot");
    let found = lvm::get(&snapshot).expect("there");
    assert!(found.read_only && found.skip_activation && !found.active && !found.open);
    assert!(found.has_tag(&tag) && found.is_owned_by(&owner()));
    assert_eq!(found.origin.as_ref(), Some(&new));
    for _ in 0..2 {
        lvm::activate(&snapshot).expect("activated");
        assert!(lvm::get(&snapshot).expect("there").active && snapshot.path().exists());
    }
    let fork = lvm::snapshot(&new, "life-4", &SnapshotOptions::default()).expect("fork");
    let found = lvm::get(&fork).expect("there");
    assert!(!found.read_only && found.active && !found.skip_activation && found.tags.is_empty());
    sh("lvremove -qq -y pve/life-4");

    for _ in 0..2 {
        lvm::deactivate(&snapshot).expect("deactivated");
        assert!(!lvm::get(&snapshot).expect("there").active);
    }
    lvm::activate(&snapshot).expect("activated");
    for id in [&snapshot, &new, &new] {
        lvm::remove(id, &owner()).expect("removed, active or not, there or not");
        assert_eq!(lvm::find(id).expect("looked"), None);
    }
    let gone = lvm::get(&new).unwrap_err();
    assert_eq!(gone.kind(), Kind::NotFound);
    let group = lvm::list("nosuchgroup").unwrap_err();
    assert_eq!(group.kind(), Kind::NotFound, "{group}");
    let no_pool = lvm::create_thin(&lv("nopool"), "life-1", MIB, &[]).unwrap_err();
    assert_eq!(no_pool.kind(), Kind::NotFound, "{no_pool}");
}

pub fn strangers_and_open_volumes_are_left_alone() {
    made("mine", MIB);
    sh("lvcreate -qq -y -V 4m -n theirs --thinpool pve/data --addtag rbs.owner=00000000-0000-0000-0000-000000000008");
    let before = lvm::list("pve").expect("listed");
    let refused = |r: rblocksync::error::Result<()>| {
        assert_eq!(r.unwrap_err().kind(), Kind::Refused);
    };
    let theirs = lv("theirs");
    refused(lvm::remove(&theirs, &owner()));
    refused(lvm::remove_all(&[lv("mine"), theirs.clone()], &owner()));
    refused(lvm::rename(&theirs, "x", &owner()).map(drop));
    refused(lvm::extend(&theirs, 1 << 40, &owner()).map(drop));
    refused(lvm::seal(&lvm::get(&theirs).expect("there"), &owner()));
    refused(lvm::add_tag(&theirs, owner().tag(), &owner()));
    refused(lvm::del_tag(&theirs, owner().tag(), &owner()));
    refused(lvm::remove(&lv("vm-101-disk-0"), &owner()));
    refused(lvm::remove(&pool(), &owner()));
    assert_eq!(lvm::list("pve").expect("listed"), before);

    let mine = lv("mine");
    let open = std::fs::File::open(mine.path()).expect("opened");
    let busy = |r: rblocksync::error::Result<()>| {
        let error = r.unwrap_err();
        assert_eq!(error.kind(), Kind::Busy, "{error}");
    };
    busy(lvm::remove(&mine, &owner()));
    busy(lvm::extend(&mine, 1 << 30, &owner()).map(drop));
    busy(lvm::seal(&lvm::get(&mine).expect("there"), &owner()));
    busy(lvm::deactivate(&mine));
    let held = lvm::get(&mine).expect("there");
    assert!(held.open && held.active && !held.read_only && held.size == 4 * MIB);
    drop(open);
    lvm::remove(&mine, &owner()).expect("removed");
    let other = OwnerTag::new(Uuid::from_u128(8));
    lvm::remove(&theirs, &other).expect("removed by its owner");

    // Ours by its tag, but a pool all the same.
    sh("lvchange -qq --addtag rbs.owner=00000000-0000-0000-0000-000000000007 pve/data");
    let refused = lvm::remove(&pool(), &owner()).unwrap_err();
    sh("lvchange -qq --deltag rbs.owner=00000000-0000-0000-0000-000000000007 pve/data");
    assert_eq!(refused.kind(), Kind::Refused, "{refused}");
}

pub fn volumes_are_found_by_any_path() {
    let made = made("find-me", MIB);
    let id = &made.id;
    sh("ln -sfn /dev/pve/find-me '/tmp/a link'");
    let node = sh("readlink -f /dev/pve/find-me");
    for text in [
        "/dev/pve/find-me",
        "/dev/mapper/pve-find--me",
        "/tmp/a link",
        &node,
    ] {
        let found = lvm::find_by_path(&path(text))
            .expect(text)
            .expect("a volume");
        assert_eq!(found.uuid, made.uuid, "{text}");
    }
    lvm::deactivate(id).expect("deactivated");
    let found = lvm::find_by_path(&id.path())
        .expect("found")
        .expect("a volume");
    assert!(found.uuid == made.uuid && !found.active);
    lvm::remove(id, &owner()).expect("removed");
    for gone in [
        "/dev/pve/find-me",
        "/dev/nogroup/x",
        "/dev/pve/-x",
        "/nowhere",
    ] {
        let error = lvm::find_by_path(&path(gone)).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "{gone}: {error}");
    }
    for other in [
        "/dev/vda",
        "/dev/mapper/pve-data-tpool",
        "/dev/mapper/pve-data_tmeta",
        "/etc/passwd",
        "/dev/null",
    ] {
        assert_eq!(
            lvm::find_by_path(&path(other)).expect(other),
            None,
            "{other}"
        );
    }
    sh("rm '/tmp/a link'");
}

pub fn pools_tell_how_full_they_are() {
    // One that has never had a volume has its target under another name than one that has.
    sh("lvcreate -qq -y -L 64m --type thin-pool -c 128k -Zn -n p-ool pve; lvchange -qq --errorwhenfull y pve/p-ool");
    let id = lv("p-ool");
    let look = || lvm::pool(&id).expect("a pool");
    let empty = look();
    assert_eq!(
        (empty.size, empty.chunk_bytes, empty.free_bytes()),
        (64 * MIB, 131_072, 64 * MIB)
    );
    assert!(!empty.zeroes_new && empty.errors_when_full);
    empty.check_healthy().expect("healthy");
    let volume =
        lvm::create_thin(&id, "in-p", 16 * MIB, &[owner().tag().clone()]).expect("created");
    sh("dd if=/dev/urandom of=/dev/pve/in-p bs=1M count=16 oflag=direct conv=fsync status=none");
    let used = look();
    assert_eq!(
        (used.free_bytes(), used.data_percent),
        (48 * MIB, Some(25.0))
    );
    assert!(used
        .metadata_free_bytes()
        .is_some_and(|free| free > 0 && free < used.metadata_size));
    assert_eq!(used.status.expect("active").mode, PoolMode::ReadWrite);

    lvm::deactivate(&volume).expect("deactivated");
    lvm::deactivate(&id).expect("deactivated");
    let inactive = look();
    assert_eq!((inactive.status.clone(), inactive.free_bytes()), (None, 0));
    assert!(inactive.check_healthy().is_err());
    lvm::activate(&id).expect("activated");
    assert_eq!(look().free_bytes(), 48 * MIB);
    lvm::remove(&volume, &owner()).expect("removed");
    assert_eq!(look().free_bytes(), 64 * MIB);
    sh("lvremove -qq -y pve/p-ool");
    let no_pool: LvId = lv("vm-101-disk-0");
    assert_eq!(lvm::pool(&no_pool).unwrap_err().kind(), Kind::Usage);
}

pub fn a_full_pool_is_told_as_such() {
    sh("lvcreate -qq -y -L 32m --type thin-pool -n small pve; lvchange -qq --errorwhenfull y pve/small");
    let id = lv("small");
    lvm::create_thin(&id, "in-small", 64 * MIB, &[owner().tag().clone()]).expect("created");
    let full = "dd if=/dev/urandom of=/dev/pve/in-small bs=1M count=40 oflag=direct status=none 2>&1 || true";
    assert!(sh(full).contains("No space left"));
    let error = lvm::pool(&id).expect("a pool").check_healthy().unwrap_err();
    assert_eq!(error.kind(), Kind::Space, "{error}");
    for result in [
        lvm::create_thin(&id, "more", MIB, &[]).map(drop),
        lvm::snapshot(&lv("in-small"), "more", &SnapshotOptions::default()).map(drop),
    ] {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), Kind::Space, "{error}");
    }
    sh("lvremove -qq -y pve/in-small pve/small");
}

/// A sync into a pool that it would fill stops before that, and says so.
pub fn a_sync_does_not_fill_the_pool() {
    sh("lvcreate -qq -y -L 64m --type thin-pool -n tight pve; lvchange -qq --errorwhenfull y pve/tight");
    let id = lv("tight");
    lvm::create_thin(&id, "in-tight", 128 * MIB, &[owner().tag().clone()]).expect("created");
    sh("dd if=/dev/urandom of=/root/too-much bs=1M count=128 status=none");
    let (mut source, from) =
        BlockEnd::source(Path::new("/root/too-much"), ImageFormat::Raw, false).expect("a source");
    let target = Path::new("/dev/pve/in-tight");
    let (mut target, to) = BlockEnd::target(target, TargetOptions::default()).expect("a target");
    assert_eq!((from.size, to.size), (128 * MIB, 128 * MIB));
    let geometry = Geometry::new(from.size, 4096).expect("a geometry");
    let params = Params::new(geometry, &Tuning::default());
    let error = target
        .sync_from(&mut source, &params, &Meter::new(), &Stop::new())
        .expect_err("there is no room for it");
    assert_eq!(error.kind(), Kind::Space, "{error}");
    let text = error.to_string();
    assert!(
        text.contains("pve/tight") && text.contains("nearly full"),
        "{text}"
    );
    let pool = lvm::pool(&id).expect("a pool");
    pool.check_healthy().expect("still well");
    let free = pool.free_bytes();
    assert!((MIB..4 * MIB).contains(&free), "{free} bytes are free");
    drop((source, target));
    sh("rm /root/too-much; lvremove -qq -y pve/in-tight pve/tight");
}
