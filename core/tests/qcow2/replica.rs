//! A replica that is a qcow2 file, received by a real agent: generations, damage, what a killed agent leaves.

use crate::args;
use crate::tools::*;
use rblocksync::agent::{
    path_bytes, serve, BlockEnd, BlockRequest, Client, Mend, NoService, OpenTarget, Opened, Role,
    Table,
};
use rblocksync::digest::Digest;
use rblocksync::error::{Kind, Result};
use rblocksync::hypervisor::{Hold, Published, TargetHypervisor};
use rblocksync::image::ImageFormat;
use rblocksync::replica::{
    prune, verify, DiskRecord, DiskSpec, Fork, Generation, Layout, Location, Mending, Placement,
    Prepared, ReplicaRequest, ReplicaTarget, Retention, TargetPair, Verified, VerifyRequest,
};
use rblocksync::snapshot::Consistency;
use rblocksync::stop::Stop;
use rblocksync::sync::{Geometry, Meter, Params, Summary, Tuning};
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

/// A process that a test beside this one is just starting has our locks, too, until it becomes its program.
const PATIENCE: Duration = Duration::from_secs(2);

const SIZE: u64 = 16 * MIB;

/// Keeps everything in one directory, each disk in the format that the volume's name says.
struct Folder(PathBuf);

struct Held;

impl Hold for Held {}

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
                path: self.0.join(&disk.volume),
                format: match disk.volume.ends_with("qcow2") {
                    true => QCOW2,
                    false => RAW,
                },
                subvolume: false,
            },
        };
        Ok(request.disks.iter().map(place).collect())
    }

    fn hold(&self, _: &TargetPair) -> Result<Box<dyn Hold>> {
        Ok(Box::new(Held))
    }

    fn publish(&self, _: &TargetPair, _: &[Published]) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

struct World {
    dir: Dir,
    layout: Layout,
    folder: Folder,
    pair: Uuid,
    volume: &'static str,
    _xfs: Option<Xfs>,
}

impl World {
    /// On a file system where files share blocks, if wanted and possible.
    fn new(volume: &'static str, shared: bool) -> Option<World> {
        let dir = Dir::new();
        let images = dir.path("images");
        std::fs::create_dir(&images).unwrap();
        let xfs = match shared {
            true => Some(Xfs::mount(&dir, &images)?),
            false => None,
        };
        Some(World {
            layout: Layout::new(dir.path("state")),
            folder: Folder(images),
            pair: Uuid::new_v4(),
            volume,
            dir,
            _xfs: xfs,
        })
    }

    fn request(&self, size: u64) -> ReplicaRequest {
        ReplicaRequest {
            run: Uuid::nil(),
            pair: self.pair,
            source_host: Uuid::nil(),
            source_name: "there".into(),
            vm: "101".into(),
            target_vm: None,
            config: String::new(),
            described: None,
            disks: vec![DiskSpec {
                key: "scsi0".into(),
                volume: self.volume.into(),
                size,
                used: size,
                format: RAW,
            }],
            excluded: Vec::new(),
            storage_map: Vec::new(),
            maps: Default::default(),
            formats: Vec::new(),
            retention: Retention {
                keep: 2,
                within_s: None,
            },
            in_place: false,
            epoch: 1,
            newest: None,
            tracked: Vec::new(),
        }
    }

    fn prepare(&self, size: u64) -> (ReplicaTarget<'_>, Prepared) {
        let layout = self.layout.clone();
        let request = self.request(size);
        let patience = Duration::from_secs(20);
        let mut target = ReplicaTarget::open(layout, &self.folder, &request, patience).unwrap();
        let prepared = target.prepare(&request).unwrap();
        (target, prepared)
    }

    /// A whole sync of this source.
    fn sync(&self, source: Disk, size: u64) -> Summary {
        let (mut target, prepared) = self.prepare(size);
        let summary = receive(source, &prepared.forks[0]).unwrap();
        target.seal(self.generation(&prepared, &summary)).unwrap();
        summary
    }

    fn generation(&self, prepared: &Prepared, summary: &Summary) -> Generation {
        let fork = &prepared.forks[0];
        Generation {
            state: None,
            version: Generation::VERSION,
            pair: self.pair,
            epoch: 1,
            number: prepared.number,
            parent: prepared.parent,
            taken_at: jiff::Timestamp::UNIX_EPOCH,
            consistency: Consistency::Offline,
            notes: Vec::new(),
            disks: vec![DiskRecord {
                key: fork.key.clone(),
                source: self.volume.into(),
                target: self.volume.into(),
                location: fork.placement.location.clone(),
                size: summary.size,
                digest: summary.digest,
                hash: params(summary.size).hash,
                leaf_bytes: 4096,
                changed: summary.changed,
            }],
            excluded: Vec::new(),
            config: String::new(),
            described: None,
        }
    }

    fn head(&self) -> PathBuf {
        self.folder.0.join(self.volume)
    }

    fn sealed(&self, number: u64) -> PathBuf {
        self.folder.0.join(format!(".{}.rbs{number}", self.volume))
    }

    fn verify(&self, generation: Option<u64>) -> Verified {
        let request = VerifyRequest {
            vm: "101".into(),
            generation,
            slice: None,
        };
        verify(&self.layout, &request, &Stop::new()).unwrap()
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.folder.0).unwrap();
        let mut names: Vec<String> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// A file system in a file, unmounted when dropped.
struct Xfs(PathBuf);

impl Xfs {
    fn mount(dir: &Dir, at: &Path) -> Option<Xfs> {
        let image = dir.raw("xfs", 400 * MIB, &[]);
        let did = |program: &str, args: &[&std::ffi::OsStr]| {
            let mut command = std::process::Command::new(program);
            command
                .args(args)
                .output()
                .is_ok_and(|out| out.status.success())
        };
        let mounted = did("/usr/sbin/mkfs.xfs", &args!["-q", &image])
            && did("mount", &args!["-o", "loop", &image, at]);
        if !mounted {
            println!("skipped: cannot make and mount an XFS here");
        }
        mounted.then(|| Xfs(at.to_owned()))
    }
}

impl Drop for Xfs {
    fn drop(&mut self) {
        run("umount", args![&self.0]);
    }
}

fn params(size: u64) -> Params {
    let tuning = Tuning {
        verify: true,
        ..Tuning::default()
    };
    Params::new(Geometry::new(size, 4096).unwrap(), &tuning)
}

/// Drives an agent in another thread.
fn with_agent<T>(work: impl FnOnce(&mut Client) -> Result<T>) -> Result<T> {
    let (near, far) = UnixStream::pair().unwrap();
    std::thread::scope(|scope| {
        let agent = scope.spawn(move || {
            let input = far.try_clone().unwrap();
            let service = &mut NoService;
            serve(
                "agent",
                input.into(),
                far.into(),
                None,
                Stop::new(),
                service,
            )
        });
        let input = near.try_clone().unwrap();
        let done = Client::connect(input.into(), near.into(), "test", "agent", Stop::new())
            .and_then(|mut client| work(&mut client));
        let _ = agent.join().unwrap();
        done
    })
}

fn open(client: &mut Client, path: &Path, format: ImageFormat) -> Result<Opened> {
    client.block(BlockRequest::OpenTarget(OpenTarget {
        path: path_bytes(path),
        create: false,
        dry_run: false,
        direct: false,
        format,
    }))
}

/// Has an agent receive a source into a fork, as the workflow does.
fn receive(source: Disk, fork: &Fork) -> Result<Summary> {
    let (mut from, opened) = BlockEnd::source(source.0, source.1, false)?;
    let params = params(opened.size);
    with_agent(|client| {
        let there = open(client, &fork.path, fork.placement.location.format())?;
        assert_eq!(there.size, opened.size);
        let first: u64 = client.block(BlockRequest::Table(Table {
            path: path_bytes(&fork.table),
            point: Uuid::nil(),
            geometry: params.geometry,
            hash: params.hash,
            base: None,
        }))?;
        assert_eq!(first, 0);
        client.block::<()>(BlockRequest::Sync(Role::Target, params))?;
        let summary = from.sync(Role::Source, &params, client.link(), &Meter::new(), None)?;
        client.block::<()>(BlockRequest::Commit)?;
        Ok(summary)
    })
}

/// Puts a byte somewhere into the guest's data, behind QEMU's back.
fn damage(image: &Path, guest_offset: u64) {
    let map = run(
        "qemu-img",
        args!["map", "--output=json", "-f", "qcow2", image],
    );
    let number = |line: &str, key: &str| -> Option<u64> {
        let rest = line.split(&format!("\"{key}\": ")).nth(1)?;
        rest.split([',', '}']).next()?.trim().parse().ok()
    };
    let at = map
        .lines()
        .find_map(|line| {
            let (start, len) = (number(line, "start")?, number(line, "length")?);
            let offset = number(line, "offset")?;
            (start..start + len)
                .contains(&guest_offset)
                .then(|| offset + guest_offset - start)
        })
        .unwrap();
    let file = std::fs::File::options().write(true).open(image).unwrap();
    file.write_all_at(&[0xee; 16], at).unwrap();
    file.sync_all().unwrap();
}

fn two_generations(world: &World) {
    let source = world
        .dir
        .raw("a.raw", SIZE, &[(0, 3 * MIB), (9 * MIB, MIB)]);
    let then = world.dir.path("then.raw");
    let first = world.sync((&source, RAW), SIZE);
    assert_eq!(first.changed, 4 * MIB);
    assert_equal((&source, RAW), (&world.head(), QCOW2));
    std::fs::copy(&source, &then).unwrap();

    guest(&source, RAW, "write -P 3 1M 8k");
    let second = world.sync((&source, RAW), SIZE);
    assert_eq!(second.changed, 8 * KIB, "only changed leaves travel");
    assert_equal((&source, RAW), (&world.head(), QCOW2));
    if world._xfs.is_some() {
        assert_equal((&then, RAW), (&world.sealed(1), QCOW2));
        assert_equal((&source, RAW), (&world.sealed(2), QCOW2));
        assert!(world.verify(Some(1)).disks[0].is_right());
        // What boots does not change what was sealed.
        guest(&world.head(), QCOW2, "write -P 9 0 1M");
        assert_equal((&source, RAW), (&world.sealed(2), QCOW2));
    }
    let verified = world.verify(None);
    assert!(verified.disks[0].is_right(), "{verified:?}");
    assert_eq!(verified.disks[0].size, SIZE);
}

#[test]
fn generations_are_kept_where_blocks_are_shared() {
    let Some(world) = World::new("vm.qcow2", true) else {
        return;
    };
    two_generations(&world);
    let keep = Retention {
        keep: 1,
        within_s: None,
    };
    let pruned = prune(&world.layout, &world.folder, "101", keep, false).unwrap();
    assert_eq!((pruned.gone, pruned.kept), (vec![1], vec![2]));
    assert_eq!(world.files(), [".vm.qcow2.rbs2", "vm.qcow2"]);
}

#[test]
fn elsewhere_the_newest_is_the_head() {
    let world = World::new("vm.qcow2", false).unwrap();
    two_generations(&world);
    assert_eq!(world.files(), ["vm.qcow2"]);
}

#[test]
fn a_disk_that_grows_grows_there_and_one_that_shrinks_starts_anew() {
    let world = World::new("vm.qcow2", false).unwrap();
    let mut source = world.dir.raw("a.raw", SIZE, &[(0, MIB)]);
    for (size, sent) in [(SIZE, MIB), (2 * SIZE, 4 * KIB), (SIZE, MIB)] {
        let file = std::fs::File::options().write(true).open(&source).unwrap();
        file.set_len(size).unwrap();
        if size > SIZE {
            guest(&source, RAW, "write -P 5 20M 4k");
        }
        let summary = world.sync((&source, RAW), size);
        assert_eq!(summary.changed, sent);
        assert_equal((&source, RAW), (&world.head(), QCOW2));
        source = world.dir.path("a.raw");
    }
}

#[test]
fn any_source_goes_into_any_replica() {
    for (volume, target) in [("vm.qcow2", QCOW2), ("vm.raw", RAW)] {
        let world = World::new(volume, false).unwrap();
        let source = world.dir.qcow2("a.qcow2", SIZE, &[(MIB, MIB)]);
        for byte in ["1", "2"] {
            guest(&source, QCOW2, &format!("write -P {byte} 5M 4k"));
            world.sync((&source, QCOW2), SIZE);
            assert_equal((&source, QCOW2), (&world.head(), target));
            assert!(world.verify(None).disks[0].is_right());
        }
    }
}

#[test]
fn damage_is_found_and_put_right() {
    for shared in [false, true] {
        let Some(world) = World::new("vm.qcow2", shared) else {
            return;
        };
        let source = world.dir.qcow2("a.qcow2", SIZE, &[(0, 4 * MIB)]);
        world.sync((&source, QCOW2), SIZE);
        let sealed = match shared {
            true => world.sealed(1),
            false => world.head(),
        };
        damage(&sealed, 2 * MIB + 4096);
        let found = world.verify(None);
        let damaged = &found.disks[0].damaged;
        assert!(!found.disks[0].is_right());
        assert_eq!(damaged.iter().map(|d| d.segment).collect::<Vec<_>>(), [2]);

        let disks = ["scsi0".to_owned()];
        let (mending, unsealed) =
            Mending::begin(&world.layout, &world.folder, "101", 1, &disks).unwrap();
        let to = &unsealed[0];
        assert_eq!(to.format, QCOW2);
        let wanted: Vec<(u64, Option<Digest>)> =
            damaged.iter().map(|d| (d.segment, d.digest)).collect();
        let (mut image, _) = BlockEnd::source(&source, QCOW2, false).unwrap();
        let sent = with_agent(|client| {
            open(client, &to.path, to.format)?;
            client.block::<()>(BlockRequest::Mend(Mend {
                params: to.params,
                table: path_bytes(&to.table),
                digest: to.digest,
            }))?;
            let sent = image.send_segments(&to.params, client.link(), &wanted)?;
            client.block::<()>(BlockRequest::Commit)?;
            Ok(sent)
        });
        assert_eq!(sent.unwrap(), [2]);
        mending.finish(&world.folder).unwrap();
        assert!(world.verify(None).disks[0].is_right());
        assert_equal((&source, QCOW2), (&world.head(), QCOW2));
    }
}

#[test]
fn damage_to_the_container_is_found_too() {
    let world = World::new("vm.qcow2", false).unwrap();
    let source = world.dir.raw("a.raw", SIZE, &[(0, 4 * MIB)]);
    world.sync((&source, RAW), SIZE);
    let file = std::fs::File::options()
        .write(true)
        .open(world.head())
        .unwrap();
    file.write_all_at(b"nonsense", 0).unwrap();
    let found = world.verify(None);
    assert!(!found.disks[0].is_right());
    let problem = found.disks[0].problem.as_deref().unwrap();
    assert!(problem.contains("no qcow2 image"), "{problem}");
}

#[test]
fn a_fork_that_was_cut_off_is_gone_on_with_and_a_corrupt_one_is_not() {
    let world = World::new("vm.qcow2", false).unwrap();
    let source = world.dir.raw("a.raw", SIZE, &[(0, 8 * MIB)]);
    let (target, prepared) = world.prepare(SIZE);
    let fork = &prepared.forks[0];
    // What a run that was killed had got.
    sync((&source, RAW), (&fork.path, QCOW2)).unwrap();
    std::fs::write(&fork.table, "what had arrived").unwrap();
    drop(target);
    let (target, prepared) = world.prepare(SIZE);
    assert_equal((&source, RAW), (&prepared.forks[0].path, QCOW2));
    assert!(fork.table.exists() && prepared.notes.is_empty());
    drop(target);

    let file = std::fs::File::options()
        .write(true)
        .open(&fork.path)
        .unwrap();
    file.write_all_at(&[0x77; 4096], 3 * 65536).unwrap();
    let (mut target, prepared) = world.prepare(SIZE);
    assert!(
        prepared.notes[0].contains("thrown away"),
        "{:?}",
        prepared.notes
    );
    assert!(!fork.table.exists(), "what told of it has gone with it");
    let summary = receive((&source, RAW), &prepared.forks[0]).unwrap();
    assert_eq!(summary.changed, 8 * MIB);
    target.seal(world.generation(&prepared, &summary)).unwrap();
    assert_equal((&source, RAW), (&world.head(), QCOW2));
}

#[test]
fn nothing_is_sealed_while_somebody_writes_it() {
    let world = World::new("vm.qcow2", false).unwrap();
    let source = world.dir.raw("a.raw", SIZE, &[(0, MIB)]);
    let layout = world.layout.clone();
    let request = world.request(SIZE);
    let mut target = ReplicaTarget::open(layout, &world.folder, &request, PATIENCE).unwrap();
    let prepared = target.prepare(&request).unwrap();
    let summary = receive((&source, RAW), &prepared.forks[0]).unwrap();
    let (end, _) = BlockEnd::target(&prepared.forks[0].path, options(QCOW2)).unwrap();
    let refused = target
        .seal(world.generation(&prepared, &summary))
        .unwrap_err();
    assert_eq!(refused.kind(), Kind::Busy, "{refused}");
    assert!(!world.layout.sealing(world.pair).exists());
    drop(end);
    target.seal(world.generation(&prepared, &summary)).unwrap();
}

#[test]
fn a_replica_of_opaque_containers_becomes_one_of_disks() {
    let world = World::new("vm.qcow2", false).unwrap();
    let container = world.dir.qcow2("a.qcow2", SIZE, &[(0, MIB)]);
    let size = std::fs::metadata(&container).unwrap().len();
    // As a version before this one did it: the container's bytes.
    world.sync((&container, QCOW2), SIZE);
    let plain = Location::File {
        path: world.head(),
        format: RAW,
        subvolume: false,
    };
    let path = world.layout.generation(world.pair, 1);
    let mut old: Generation = rblocksync::replica::read_json(&path).unwrap().unwrap();
    old.disks[0].location = plain;
    old.disks[0].size = size;
    rblocksync::replica::write_json(&path, &old).unwrap();

    guest(&container, QCOW2, "write -P 4 3M 4k");
    world.sync((&container, QCOW2), SIZE);
    assert_equal((&container, QCOW2), (&world.head(), QCOW2));
    assert_eq!(
        world.files(),
        ["vm.qcow2"],
        "the old one went, and not the new head with it"
    );
}
