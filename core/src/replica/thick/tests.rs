use super::*;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use uuid::Uuid;

const EXTENT: u64 = 4 << 20;
/// A disk that does not fill its volume, and ends within a block.
const SIZE: u64 = (1 << 20) + 512;

/// A group whose volumes are files, full of what was on the disk before.
struct Fake {
    dir: tempfile::TempDir,
    volumes: RefCell<BTreeMap<LvId, Vec<String>>>,
    open: RefCell<Vec<LvId>>,
    /// So many changes are made before all others fail.
    left: Cell<usize>,
}

impl Fake {
    fn new() -> Fake {
        Fake {
            dir: tempfile::tempdir().unwrap(),
            volumes: RefCell::default(),
            open: RefCell::default(),
            left: Cell::new(usize::MAX),
        }
    }

    fn path(&self, id: &LvId) -> PathBuf {
        self.dir.path().join(id.name())
    }

    fn change(&self) -> Result<()> {
        match self.left.get().checked_sub(1) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => Err(Error::new(Kind::Tool, "injected")),
        }
    }

    fn ours(&self, id: &LvId, owner: &OwnerTag) -> Result<Option<Found>> {
        match self.owned(id, owner)? {
            Some(found) if found.open => Err(in_use(id)),
            other => Ok(other),
        }
    }

    fn names(&self) -> Vec<String> {
        let volumes = self.volumes.borrow();
        volumes.keys().map(|id| id.name().to_owned()).collect()
    }
}

impl Group for Fake {
    fn find(&self, id: &LvId) -> Result<Option<Found>> {
        let volumes = self.volumes.borrow();
        Ok(volumes.get(id).map(|tags| Found {
            size: std::fs::metadata(self.path(id)).unwrap().len(),
            active: true,
            open: self.open.borrow().contains(id),
            tags: tags.clone(),
        }))
    }

    fn owned(&self, id: &LvId, owner: &OwnerTag) -> Result<Option<Found>> {
        match self.find(id)? {
            Some(found) if !found.has(owner.tag()) => {
                Err(Error::new(Kind::Refused, "a stranger's"))
            }
            other => Ok(other),
        }
    }

    fn look_again(&self) {}

    fn create(&self, id: &LvId, size: u64, tags: &[Tag]) -> Result<()> {
        self.change()?;
        assert!(self.find(id)?.is_none());
        let stale = vec![0xee; size.next_multiple_of(EXTENT) as usize];
        std::fs::write(self.path(id), stale).unwrap();
        let tags = tags.iter().map(|t| t.as_str().to_owned()).collect();
        self.volumes.borrow_mut().insert(id.clone(), tags);
        Ok(())
    }

    fn extend(&self, id: &LvId, size: u64, owner: &OwnerTag) -> Result<()> {
        self.change()?;
        assert!(self.ours(id, owner)?.is_some());
        let mut bytes = std::fs::read(self.path(id)).unwrap();
        bytes.resize(size.next_multiple_of(EXTENT) as usize, 0xee);
        std::fs::write(self.path(id), bytes).unwrap();
        Ok(())
    }

    fn rename(&self, from: &LvId, to: &LvId, owner: &OwnerTag) -> Result<()> {
        self.change()?;
        assert!(self.ours(from, owner)?.is_some() && self.find(to)?.is_none());
        std::fs::rename(self.path(from), self.path(to)).unwrap();
        let tags = self.volumes.borrow_mut().remove(from).unwrap();
        self.volumes.borrow_mut().insert(to.clone(), tags);
        Ok(())
    }

    fn remove(&self, id: &LvId, owner: &OwnerTag) -> Result<()> {
        if self.ours(id, owner)?.is_some() {
            self.change()?;
            std::fs::remove_file(self.path(id)).unwrap();
            self.volumes.borrow_mut().remove(id);
        }
        Ok(())
    }

    fn rebase(&self, id: &LvId, base: &Tag, owner: &OwnerTag) -> Result<()> {
        self.change()?;
        assert!(self.owned(id, owner)?.is_some());
        let mut volumes = self.volumes.borrow_mut();
        let tags = volumes.get_mut(id).unwrap();
        tags.retain(|tag| !tag.starts_with(BASE));
        tags.push(base.as_str().to_owned());
        Ok(())
    }

    fn activate(&self, id: &LvId) -> Result<PathBuf> {
        Ok(self.path(id))
    }

    fn rest(&self, _: &LvId) {}
}

fn disk() -> (LvId, OwnerTag) {
    let lv = LvId::new("vg0", "vm-901-disk-0").unwrap();
    (lv, OwnerTag::new(Uuid::from_u128(7)))
}

fn fill(path: &Path, byte: u8) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[..SIZE as usize].fill(byte);
    std::fs::write(path, bytes).unwrap();
}

/// The byte that the disk in this volume is full of; what is behind the disk must be zeros.
fn content(path: &Path) -> u8 {
    let bytes = std::fs::read(path).unwrap();
    let (disk, behind) = bytes.split_at(SIZE as usize);
    assert!(disk.iter().all(|b| *b == disk[0]), "torn");
    assert!(
        behind.iter().all(|b| *b == 0),
        "what was on the disk before shows"
    );
    disk[0]
}

fn receive(group: &Fake, parent: Option<u64>, byte: u8) -> Result<()> {
    let (lv, owner) = disk();
    let path = ensure_fork(group, &lv, &owner, parent, SIZE, Instant::now())?;
    if parent.is_some() {
        assert_eq!(content(&path), byte - 1, "the fork is a copy of its parent");
    }
    fill(&path, byte);
    Ok(())
}

fn seal_all(group: &Fake, number: u64) -> Result<()> {
    let (lv, owner) = disk();
    seal(group, &lv, &owner, number)?;
    swap_head(group, &lv, &owner, number)
}

fn generation_content(group: &Fake, number: u64) -> Option<u8> {
    let (lv, owner) = disk();
    let has = has_generation(group, &lv, &owner, number).unwrap();
    has.then(|| content(&sealed(group, &lv, &owner, number).unwrap().path))
}

#[test]
fn wherever_a_run_is_cut_off_there_is_a_whole_generation() {
    for left in 0.. {
        let group = Fake::new();
        receive(&group, None, 1).unwrap();
        seal_all(&group, 1).unwrap();
        assert_eq!(group.names(), ["vm-901-disk-0"]);
        group.left.set(left);
        let received = receive(&group, Some(1), 2);
        let done = match &received {
            Ok(()) => seal_all(&group, 2).is_ok(),
            Err(_) => false,
        };
        let stopped_at = group.names();
        let kept = (generation_content(&group, 1), generation_content(&group, 2));
        assert!(kept.0 == Some(1) || kept.1 == Some(2), "{stopped_at:?}");
        group.left.set(usize::MAX);
        // The seal was announced only if all had arrived; then it is finished, else the next run begins again.
        if received.is_err() {
            assert_eq!(kept, (Some(1), None), "{stopped_at:?}");
            receive(&group, Some(1), 2).unwrap();
        }
        seal_all(&group, 2).unwrap();
        assert_eq!(generation_content(&group, 2), Some(2));
        assert_eq!(group.names(), ["vm-901-disk-0"], "{stopped_at:?}");
        if done {
            assert!(left > 4, "each step was cut off once");
            return;
        }
    }
}

#[test]
fn a_fork_left_behind_is_used_again_for_the_same_parent_only() {
    let (lv, owner) = disk();
    let group = Fake::new();
    receive(&group, None, 1).unwrap();
    assert!(has_fork(&group, &lv, &owner, None).unwrap());
    let again = ensure_fork(&group, &lv, &owner, None, SIZE, Instant::now()).unwrap();
    assert_eq!(content(&again), 1);
    seal_all(&group, 1).unwrap();
    receive(&group, Some(1), 2).unwrap();
    // Another run has sealed meanwhile, by its own words.
    let base = base_tag(Some(9)).unwrap();
    group.rebase(&fork_of(&lv).unwrap(), &base, &owner).unwrap();
    assert!(!has_fork(&group, &lv, &owner, Some(1)).unwrap());
    receive(&group, Some(1), 2).unwrap();
}

#[test]
fn a_disk_that_grew_gets_a_larger_fork_without_old_bytes_behind_it() {
    let (lv, owner) = disk();
    let group = Fake::new();
    receive(&group, None, 1).unwrap();
    let size = EXTENT + 4096;
    let path = ensure_fork(&group, &lv, &owner, None, size, Instant::now()).unwrap();
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(bytes.len() as u64, 2 * EXTENT);
    assert!(bytes[size as usize..].iter().all(|b| *b == 0));
    assert_eq!(bytes[..SIZE as usize], vec![1; SIZE as usize]);
}

#[test]
fn strangers_volumes_and_such_in_use_are_refused() {
    let (lv, owner) = disk();
    let other = OwnerTag::new(Uuid::from_u128(8));
    let group = Fake::new();
    group.create(&lv, SIZE, &[other.tag().clone()]).unwrap();
    assert_eq!(
        check(&group, &lv, &owner).unwrap_err().kind(),
        Kind::Refused
    );
    assert!(!has_generation(&group, &lv, &owner, 1).unwrap());
    receive(&group, None, 1).unwrap();
    assert_eq!(seal_all(&group, 1).unwrap_err().kind(), Kind::Refused);
    assert_eq!(
        std::fs::read(group.path(&lv)).unwrap()[0],
        0xee,
        "untouched"
    );

    let group = Fake::new();
    receive(&group, None, 1).unwrap();
    seal_all(&group, 1).unwrap();
    receive(&group, Some(1), 2).unwrap();
    group.open.borrow_mut().push(lv.clone());
    assert_eq!(check(&group, &lv, &owner).unwrap_err().kind(), Kind::Busy);
    assert_eq!(seal_all(&group, 2).unwrap_err().kind(), Kind::Busy);
    assert_eq!(
        content(&group.path(&lv)),
        1,
        "the head stays as long as it is used"
    );
}

#[test]
fn in_place_the_head_becomes_the_fork() {
    let (lv, owner) = disk();
    let group = Fake::new();
    receive(&group, None, 1).unwrap();
    seal_all(&group, 1).unwrap();
    for left in 0..3 {
        group.left.set(left);
        let done = fork_in_place(&group, &lv, &owner);
        group.left.set(usize::MAX);
        if done.is_ok() {
            break;
        }
        assert!(
            is_without_fork(&group, &lv, &owner).unwrap(),
            "it is tried again"
        );
    }
    assert!(has_fork(&group, &lv, &owner, None).unwrap());
    assert_eq!(generation_content(&group, 1), None);
    let path = ensure_fork(&group, &lv, &owner, None, SIZE, Instant::now()).unwrap();
    assert_eq!(content(&path), 1, "what is there need not be sent again");
    fill(&path, 2);
    seal_all(&group, 2).unwrap();
    assert_eq!(generation_content(&group, 2), Some(2));
}

/// A loop device, gone when dropped.
struct Loop(PathBuf);

impl Loop {
    fn attach(file: &Path) -> Option<Loop> {
        let mut losetup = std::process::Command::new("losetup");
        let out = losetup.args(["--find", "--show"]).arg(file).output().ok()?;
        let name = String::from_utf8(out.stdout).ok()?;
        out.status.success().then(|| Loop(name.trim().into()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let mut losetup = std::process::Command::new("losetup");
        assert!(losetup.arg("-d").arg(&self.0).status().is_ok());
    }
}

#[test]
fn devices_are_copied_and_zeroed_by_the_byte() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    // Larger than a piece, and no multiple of it.
    let size = 5 * EXTENT / 4 + 512;
    let content: Vec<u8> = (0..2 * EXTENT).map(|at| (at / 512) as u8 | 1).collect();
    std::fs::write(&from, &content).unwrap();
    std::fs::write(&to, vec![0xee; 3 * EXTENT as usize]).unwrap();
    let (Some(source), Some(target)) = (Loop::attach(&from), Loop::attach(&to)) else {
        println!("skipped: no loop devices here");
        return;
    };
    copy::copy(&source.0, &target.0, size).unwrap();
    copy::zero_from(&target.0, size).unwrap();
    copy::zero_from(&target.0, size).unwrap();
    let small = copy::copy(&target.0, &source.0, 3 * EXTENT).unwrap_err();
    assert_eq!(small.kind(), Kind::Io, "it does not fit");
    drop((source, target));
    let copied = std::fs::read(&to).unwrap();
    let (disk, behind) = copied.split_at(size as usize);
    assert!(disk == &content[..size as usize]);
    assert!(behind.iter().all(|b| *b == 0));
}
