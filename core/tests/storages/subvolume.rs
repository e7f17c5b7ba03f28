//! Disks on btrfs, each in a subvolume of its own.

use crate::run;
use rblocksync::digest::{Digest, HashKind};
use rblocksync::error::{Kind, Result};
use rblocksync::hypervisor::{Hold, Published, TargetHypervisor};
use rblocksync::image::ImageFormat;
use rblocksync::replica::{
    DiskRecord, DiskSpec, Generation, Layout, Location, Placement, ReplicaRequest, ReplicaTarget,
    Retention, TargetPair,
};
use rblocksync::snapshot::Consistency;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

/// A process that a test beside this one is just starting has our locks, too, until it becomes its program.
const PATIENCE: Duration = Duration::from_secs(2);

const SIZE: usize = 528 << 10;

/// A fresh btrfs, unmounted when dropped.
struct Btrfs {
    dir: tempfile::TempDir,
}

impl Btrfs {
    fn mount() -> Option<Btrfs> {
        let dir = tempfile::tempdir().unwrap();
        let (image, at) = (dir.path().join("image"), dir.path().join("at"));
        fs::File::create(&image)
            .unwrap()
            .set_len(256 << 20)
            .unwrap();
        fs::create_dir(&at).unwrap();
        let made = run("mkfs.btrfs", &[&"-q", &image]).is_some()
            && run("mount", &[&"-o", &"loop", &image, &at]).is_some();
        if !made {
            println!("skipped: cannot make and mount a btrfs here");
        }
        made.then_some(Btrfs { dir })
    }

    fn subvolume(&self) -> PathBuf {
        self.dir.path().join("at/images/101/vm-101-disk-0")
    }
}

impl Drop for Btrfs {
    fn drop(&mut self) {
        let at = self.dir.path().join("at");
        assert!(run("umount", &[&at]).is_some() || std::thread::panicking());
    }
}

/// One disk, in that subvolume.
struct Fake(PathBuf);

struct Held;

impl Hold for Held {}

impl TargetHypervisor for Fake {
    fn describe(&self) -> Result<(String, String)> {
        Ok(("fake".into(), "here".into()))
    }

    fn place(
        &self,
        request: &ReplicaRequest,
        _: &BTreeMap<String, String>,
    ) -> Result<Vec<Placement>> {
        let disks = request.disks.iter();
        Ok(disks
            .map(|disk| Placement {
                key: disk.key.clone(),
                volume: disk.volume.clone(),
                location: Location::File {
                    path: self.0.join("disk.raw"),
                    format: ImageFormat::Raw,
                    subvolume: true,
                },
            })
            .collect())
    }

    fn hold(&self, _: &TargetPair) -> Result<Box<dyn Hold>> {
        Ok(Box::new(Held))
    }

    fn publish(&self, _: &TargetPair, _: &[Published]) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

fn request(with_disk: bool) -> ReplicaRequest {
    let disk = DiskSpec {
        key: "efidisk0".into(),
        volume: "data:101/vm-101-disk-0.raw".into(),
        size: SIZE as u64,
        used: SIZE as u64,
        format: ImageFormat::Raw,
    };
    ReplicaRequest {
        run: Uuid::nil(),
        pair: Uuid::from_u128(7),
        source_host: Uuid::nil(),
        source_name: "there".into(),
        vm: "101".into(),
        target_vm: None,
        config: String::new(),
        described: None,
        disks: with_disk.then_some(disk).into_iter().collect(),
        excluded: Vec::new(),
        storage_map: Vec::new(),
        maps: Default::default(),
        formats: Vec::new(),
        retention: Retention {
            keep: if with_disk { 2 } else { 1 },
            within_s: None,
        },
        in_place: false,
        epoch: 1,
        newest: None,
        tracked: Vec::new(),
    }
}

/// A sync, in which the disk becomes full of `byte`, or goes if there is none.
fn sync(layout: &Layout, fake: &Fake, byte: Option<u8>) -> Result<Vec<u64>> {
    let request = request(byte.is_some());
    let mut target = ReplicaTarget::open(layout.clone(), fake, &request, PATIENCE)?;
    let prepared = target.prepare(&request)?;
    for fork in &prepared.forks {
        assert_eq!(fs::metadata(&fork.path).unwrap().len(), SIZE as u64);
        fs::write(&fork.path, vec![byte.unwrap(); SIZE]).unwrap();
    }
    let forks = prepared.forks.iter();
    let generation = Generation {
        state: None,
        version: Generation::VERSION,
        pair: request.pair,
        epoch: 1,
        number: prepared.number,
        parent: prepared.parent,
        taken_at: jiff::Timestamp::UNIX_EPOCH,
        consistency: Consistency::Offline,
        notes: Vec::new(),
        disks: forks
            .map(|fork| DiskRecord {
                key: fork.key.clone(),
                source: fork.placement.volume.clone(),
                target: fork.placement.volume.clone(),
                location: fork.placement.location.clone(),
                size: SIZE as u64,
                digest: Digest([0; 32]),
                hash: HashKind::Blake3,
                leaf_bytes: 4096,
                changed: 0,
            })
            .collect(),
        excluded: Vec::new(),
        config: String::new(),
        described: None,
    };
    Ok(target.seal(generation)?.kept)
}

fn is_subvolume(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_dir() && meta.ino() == 256)
}

#[test]
fn a_disk_on_btrfs_has_a_subvolume_with_its_generations_in_it() {
    let Some(btrfs) = Btrfs::mount() else { return };
    let subvolume = btrfs.subvolume();
    let layout = Layout::new(btrfs.dir.path().join("state"));
    let fake = Fake(subvolume.clone());
    assert_eq!(sync(&layout, &fake, Some(1)).unwrap(), [1]);
    assert!(is_subvolume(&subvolume));
    assert_eq!(fs::read(subvolume.join("disk.raw")).unwrap(), vec![1; SIZE]);
    assert_eq!(sync(&layout, &fake, Some(2)).unwrap(), [1, 2]);
    assert_eq!(fs::read(subvolume.join("disk.raw")).unwrap(), vec![2; SIZE]);
    let older = subvolume.join(".disk.raw.rbs1");
    assert_eq!(
        fs::read(older).unwrap(),
        vec![1; SIZE],
        "generations are kept"
    );
    assert_eq!(sync(&layout, &fake, Some(3)).unwrap(), [2, 3]);
    // The VM has the disk no more, and so in the end the replica.
    assert_eq!(sync(&layout, &fake, None).unwrap(), [4]);
    assert!(!subvolume.exists());
}

#[test]
fn what_is_no_subvolume_is_not_taken_for_one() {
    let Some(btrfs) = Btrfs::mount() else { return };
    let subvolume = btrfs.subvolume();
    fs::create_dir_all(&subvolume).unwrap();
    let layout = Layout::new(btrfs.dir.path().join("state"));
    let error = sync(&layout, &Fake(subvolume), Some(1)).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.message().contains("no subvolume"), "{error}");
}
