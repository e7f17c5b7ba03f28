//! A hypervisor that is a folder: disks are files, what it was told is in files too, so that it outlives a process.

use rblocksync::digest::{Digest, HashKind};
use rblocksync::error::{Error, Kind, Result};
use rblocksync::hypervisor::{
    Hold, Published, RoleHypervisor, TargetHypervisor, TrialHypervisor, VmSockets,
};
use rblocksync::image::ImageFormat;
use rblocksync::replica::{
    read_json, write_json, DiskRecord, DiskSpec, Generation, Layout, Location, Placement,
    ReplicaRequest, ReplicaTarget, Retention, TargetPair, Trial,
};
use rblocksync::snapshot::Consistency;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// A process that a test beside this one is just starting has our locks, too, until it becomes its program.
const PATIENCE: Duration = Duration::from_secs(2);

pub const PAIR: Uuid = Uuid::from_u128(0x1234);
pub const DISKS: [&str; 2] = ["a.raw", "b.raw"];

pub struct Folder {
    pub dir: PathBuf,
}

pub struct Held;

impl Hold for Held {}

impl Folder {
    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn set(&self, name: &str, text: &str) {
        fs::write(self.file(name), text).unwrap();
    }

    pub fn get(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.file(name)).ok()
    }

    /// Everything that is in the folder of images.
    pub fn images(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.file("images"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl TargetHypervisor for Folder {
    fn describe(&self) -> Result<(String, String)> {
        Ok(("folder".into(), "here".into()))
    }

    fn place(
        &self,
        request: &ReplicaRequest,
        _: &BTreeMap<String, String>,
    ) -> Result<Vec<Placement>> {
        let place = |disk: &DiskSpec| Placement {
            key: disk.key.clone(),
            volume: disk.volume.clone(),
            location: Location::File {
                subvolume: false,
                path: self.file("images").join(&disk.volume),
                format: disk.format,
            },
        };
        Ok(request.disks.iter().map(place).collect())
    }

    fn hold(&self, _: &TargetPair) -> Result<Box<dyn Hold>> {
        match self.get("in-use") {
            Some(_) => Err(Error::new(Kind::Refused, "the replica is in use")),
            None => Ok(Box::new(Held)),
        }
    }

    fn publish(&self, _: &TargetPair, _: &[Published]) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

impl RoleHypervisor for Folder {
    fn is_running(&self, vm: &str) -> Result<bool> {
        Ok(self.get(&format!("running-{vm}")).is_some())
    }

    fn promote(&self, pair: &TargetPair, generation: &Generation) -> Result<Vec<String>> {
        let layout = Layout::new(self.dir.join("state"));
        let state: TargetPair = read_json(&layout.target_pair(pair.pair))?.unwrap();
        assert_eq!(state.standing, pair.standing, "the role is durable first");
        self.set("promoted", &generation.number.to_string());
        Ok(Vec::new())
    }

    fn retire(&self, vm: &str, why: &str) -> Result<Vec<String>> {
        if self.is_running(vm)? {
            return Err(Error::new(Kind::Busy, "it runs"));
        }
        if let Some(why) = self.get("retire-fails") {
            return Err(Error::new(Kind::Busy, why));
        }
        self.set(&format!("retired-{vm}"), why);
        Ok(Vec::new())
    }

    fn reinstate(&self, _: &str) -> Result<Vec<String>> {
        unreachable!("nobody takes that back here")
    }

    fn keep_off(&self, vm: &str, why: &str) -> Result<Vec<String>> {
        if self.is_running(vm)? {
            return Err(Error::new(Kind::Busy, "it runs"));
        }
        self.set(&format!("off-{vm}"), why);
        Ok(Vec::new())
    }

    fn let_start(&self, vm: &str) -> Result<Vec<String>> {
        let _ = fs::remove_file(self.file(&format!("off-{vm}")));
        Ok(Vec::new())
    }

    /// The identity is all that it says.
    fn config(&self, vm: &str) -> Result<String> {
        let config = self.get(&format!("config-{vm}"));
        config.ok_or_else(|| Error::new(Kind::NotFound, format!("there is no VM {vm}")))
    }

    fn locate(&self, _: &str) -> Result<(Location, u64)> {
        unreachable!("nor goes the other way")
    }

    fn yield_to(&self, _: &str, _: Uuid) -> Result<()> {
        unreachable!("nor goes the other way")
    }

    fn start(&self, vm: &str) -> Result<()> {
        if let Some(why) = self.get("start-fails") {
            return Err(Error::new(Kind::Tool, why));
        }
        self.set(&format!("running-{vm}"), "");
        Ok(())
    }

    fn shut_down(&self, vm: &str, _: Duration) -> Result<bool> {
        self.stop(vm).map(|()| true)
    }

    fn stop(&self, vm: &str) -> Result<()> {
        let _ = fs::remove_file(self.file(&format!("running-{vm}")));
        Ok(())
    }

    fn guest_answers(&self, _: &str) -> Result<Option<bool>> {
        Ok(match self.get("agent").as_deref() {
            Some("answers") => Some(true),
            Some(_) => Some(false),
            None => None,
        })
    }
}

impl TrialHypervisor for Folder {
    fn spare_vm(&self, wanted: Option<&str>) -> Result<String> {
        Ok(wanted.unwrap_or("900").to_owned())
    }

    fn place_clones(
        &self,
        vm: &str,
        generation: &Generation,
        formats: &[ImageFormat],
    ) -> Result<Vec<Placement>> {
        let disks = generation.disks.iter().zip(formats);
        let place = |(disk, format): (&DiskRecord, &ImageFormat)| Placement {
            key: disk.key.clone(),
            volume: format!("{vm}-{}", disk.target),
            location: Location::File {
                subvolume: false,
                path: self.file("images").join(format!("{vm}-{}", disk.target)),
                format: *format,
            },
        };
        Ok(disks.map(place).collect())
    }

    fn show_clone(&self, _: &TargetPair, _: &Generation, trial: &Trial) -> Result<Vec<String>> {
        let name = format!("vm-{}", trial.vm);
        match self.get(&name) {
            Some(_) => Err(Error::new(Kind::Refused, "the id is taken")),
            None => {
                self.set(&name, &trial.id.to_string());
                Ok(Vec::new())
            }
        }
    }

    fn end_clone(&self, trial: &Trial) -> Result<()> {
        let name = format!("vm-{}", trial.vm);
        if self.get(&name) == Some(trial.id.to_string()) {
            self.stop(&trial.vm)?;
            fs::remove_file(self.file(&name)).unwrap();
        }
        Ok(())
    }

    fn sockets(&self, vm: &str) -> Result<VmSockets> {
        Ok(VmSockets {
            monitor: self.file(&format!("{vm}.qmp")),
            agent: self.file(&format!("{vm}.qga")),
        })
    }
}

/// Tests take turns: programs that others start have our locks for a moment.
static TURN: Mutex<()> = Mutex::new(());

/// A host with a replica.
pub struct World {
    _dir: Option<tempfile::TempDir>,
    _turn: Option<MutexGuard<'static, ()>>,
    pub layout: Layout,
    pub folder: Folder,
}

impl World {
    /// One at a time: in a test, too.
    pub fn new() -> World {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut world = World::at(dir.path());
        fs::create_dir(dir.path().join("images")).unwrap();
        world._dir = Some(dir);
        world._turn = Some(turn);
        world
    }

    /// The same from another process.
    pub fn at(dir: &Path) -> World {
        World {
            _dir: None,
            _turn: None,
            layout: Layout::new(dir.join("state")),
            folder: Folder { dir: dir.into() },
        }
    }

    pub fn request(&self) -> ReplicaRequest {
        let disk = |(key, volume): (&str, &str)| DiskSpec {
            key: key.into(),
            volume: volume.into(),
            size: 8192,
            used: 8192,
            format: ImageFormat::Raw,
        };
        ReplicaRequest {
            run: Uuid::nil(),
            pair: PAIR,
            source_host: Uuid::nil(),
            source_name: "there".into(),
            vm: "101".into(),
            target_vm: None,
            config: String::new(),
            described: None,
            disks: [("scsi0", DISKS[0]), ("scsi1", DISKS[1])]
                .into_iter()
                .map(disk)
                .collect(),
            excluded: Vec::new(),
            storage_map: Vec::new(),
            maps: Default::default(),
            formats: Vec::new(),
            retention: Retention {
                keep: 3,
                within_s: None,
            },
            in_place: false,
            epoch: 1,
            newest: None,
            tracked: Vec::new(),
        }
    }

    /// A whole sync, after which both disks are full of `byte`.
    pub fn sync(&self, byte: u8) -> Result<Vec<u64>> {
        let request = self.request();
        let mut target =
            ReplicaTarget::open(self.layout.clone(), &self.folder, &request, PATIENCE)?;
        let prepared = target.prepare(&request)?;
        let mut disks = Vec::new();
        for fork in &prepared.forks {
            fs::write(&fork.path, [byte; 8192]).unwrap();
            disks.push(DiskRecord {
                key: fork.key.clone(),
                source: fork.placement.volume.clone(),
                target: fork.placement.volume.clone(),
                location: fork.placement.location.clone(),
                size: 8192,
                digest: Digest([0; 32]),
                hash: HashKind::Blake3,
                leaf_bytes: 4096,
                changed: 0,
            });
        }
        let sealed = target.seal(Generation {
            state: None,
            version: Generation::VERSION,
            pair: PAIR,
            epoch: 1,
            number: prepared.number,
            parent: prepared.parent,
            taken_at: jiff::Timestamp::UNIX_EPOCH,
            consistency: Consistency::Offline,
            notes: Vec::new(),
            disks,
            excluded: Vec::new(),
            config: String::new(),
            described: None,
        })?;
        Ok(sealed.kept)
    }

    pub fn pair(&self) -> TargetPair {
        read_json(&self.layout.target_pair(PAIR)).unwrap().unwrap()
    }

    pub fn change_pair(&self, change: impl FnOnce(&mut TargetPair)) {
        let mut pair = self.pair();
        change(&mut pair);
        write_json(&self.layout.target_pair(PAIR), &pair).unwrap();
    }

    pub fn head(&self, volume: &str) -> u8 {
        let bytes = fs::read(self.folder.dir.join("images").join(volume)).unwrap();
        assert!(
            bytes.len() == 8192 && bytes.iter().all(|b| *b == bytes[0]),
            "{volume} is torn"
        );
        bytes[0]
    }

    pub fn heads(&self) -> [u8; 2] {
        DISKS.map(|disk| self.head(disk))
    }

    /// Whether older generations are kept here.
    pub fn keeps_generations(&self) -> bool {
        let file = || tempfile::tempfile_in(&self.folder.dir).unwrap();
        let (from, to) = (file(), file());
        from.set_len(4096).unwrap();
        rustix::fs::ioctl_ficlone(&to, &from).is_ok()
    }
}
