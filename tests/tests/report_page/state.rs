//! The state of a host with replicas of every kind, some of which have names that are markup.

use jiff::Timestamp;
use rblocksync::digest::{of_pieces, HashKind};
use rblocksync::error::{Error, Kind};
use rblocksync::image::ImageFormat;
use rblocksync::journal::{Beginning, Journal, Sealed, Side, State};
use rblocksync::replica::{
    host_id, note_boot, note_told, write_json, BlockMap, Boot, BootSign, Checked, DiskRecord,
    Generation, Layout, Location, SourcePair, Standing, TargetPair, Told,
};
use rblocksync::snapshot::Consistency;
use std::path::Path;
use std::time::Duration;
use uuid::Uuid;

/// As a name: it changes the title if it is ever run, and fetches something if it ever becomes an image.
pub const MARKUP: &str =
    "<script>document.title='injected'</script><img src=http://127.0.0.1:9/x onerror=\"document.title='injected'\">'&\"";

/// A name as long as any that people give.
pub const LONG: &str =
    "an-unbroken-name-of-a-database-server-that-somebody-gave-years-ago-and-nobody-dares-to-change";

/// `ago` before now.
fn before(ago: Duration) -> Timestamp {
    Timestamp::now().checked_sub(ago).unwrap()
}

fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

/// Fills the state of a host whose volumes are in `dir`.
pub fn fill(layout: &Layout, dir: &Path) {
    host_id(layout, true).unwrap();
    let names = ["replica-of-101", "replica-of-102"];
    replica(layout, dir, ["101", names[0], "host1"], 24, minutes(10));
    replica(layout, dir, ["102", names[1], MARKUP], 3, minutes(2000));
    sources(
        layout,
        dir,
        &[
            ("201", "web01", "host2", None),
            ("202", LONG, "host2", None),
            ("203", MARKUP, MARKUP, Some(MARKUP)),
        ],
    );
}

/// The same with the names that pictures for the documentation show.
pub fn fill_for_pictures(layout: &Layout, dir: &Path) {
    host_id(layout, true).unwrap();
    replica(layout, dir, ["101", "shop", "host1"], 24, minutes(10));
    let error =
        "cannot connect to root@host3: ssh: connect to host host3 port 22: No route to host";
    sources(
        layout,
        dir,
        &[
            ("201", "mail", "host1", None),
            ("202", "files", "host3", Some(error)),
        ],
    );
}

/// A VM, its name, the host that it is sent to, and why that failed.
type Sent<'a> = (&'a str, &'a str, &'a str, Option<&'a str>);

fn sources(layout: &Layout, dir: &Path, all: &[Sent]) {
    let (journal, _) = Journal::open(&layout.journal()).unwrap();
    for &(vm, name, peer, error) in all {
        let beginning = Beginning {
            id: Uuid::new_v4(),
            side: Side::Source,
            vm,
            name,
            peer,
        };
        let run = journal.begin(&beginning).unwrap();
        let (pair, target) = (Uuid::new_v4(), Uuid::new_v4());
        run.is_of(pair, target).unwrap();
        run.enter(State::Transfer).unwrap();
        match error {
            Some(error) => drop(run.fail(Error::new(Kind::Remote, error))),
            None => {
                let sealed = Sealed {
                    generation: 7,
                    taken_at: before(minutes(1)),
                    changed: 300 << 20,
                    wire: Some(100 << 20),
                };
                run.sealed(&sealed).unwrap();
                run.end(None).unwrap();
                let known = SourcePair {
                    pair,
                    vm_identity: None,
                    target_name: peer.into(),
                    address: None,
                    standing: Standing::primary(),
                };
                write_json(&layout.source_pair(vm, target), &known).unwrap();
                for number in 1..=7 {
                    let ago = minutes(1 + (7 - number) * 15);
                    let sent = generation(dir, pair, [vm, name, "here"], number, before(ago));
                    write_json(&layout.sent_generation(vm, target, number), &sent).unwrap();
                }
                let told = Told {
                    newest: Some(7),
                    maps: vec![map()],
                    checked: [(5, found(minutes(40)))].into(),
                    booted: Default::default(),
                };
                note_told(layout, vm, target, pair, &told).unwrap();
            }
        }
    }
}

fn generation(dir: &Path, pair: Uuid, of: [&str; 3], number: u64, at: Timestamp) -> Generation {
    let [vm, name, source] = of;
    Generation {
        state: None,
        version: Generation::VERSION,
        pair,
        epoch: 1,
        number,
        parent: (number > 1).then(|| number - 1),
        taken_at: at,
        consistency: Consistency::Crash,
        notes: vec![format!("a note of {source}")],
        disks: vec![DiskRecord {
            key: "scsi0".into(),
            source: format!("local:{vm}/vm-{vm}-disk-0.raw"),
            target: format!("local:{vm}/vm-{vm}-disk-0.raw"),
            location: Location::File {
                subvolume: false,
                path: dir.join(format!("vm-{vm}-disk-0.raw")),
                format: ImageFormat::Raw,
            },
            size: 32 << 30,
            digest: of_pieces(HashKind::Blake3, &[b"x"]),
            hash: HashKind::Blake3,
            leaf_bytes: 4096,
            changed: number << 20,
        }],
        excluded: vec!["scsi9".into()],
        config: format!("cores: 1\nname: {name}\n"),
        described: None,
    }
}

/// A disk that is half full, and was written in its logs and here and there.
fn map() -> BlockMap {
    let data = |cell: u8| match cell {
        0..=40 => 100,
        41..=52 => 100 - (cell - 40) * 7,
        70..=74 => 35,
        _ => 0,
    };
    let changed = |cell: u8| match cell {
        2 => 12,
        9..=11 => 70,
        30 => 4,
        50..=52 => 100,
        _ => 0,
    };
    BlockMap {
        key: "scsi0".into(),
        data: (0..96).map(data).collect(),
        changed: Some((0..96).map(changed).collect()),
    }
}

fn found(ago: Duration) -> Checked {
    Checked {
        at: before(ago),
        whole: Some(before(ago)),
        damaged: Vec::new(),
    }
}

/// A replica of a VM, its name and its source, with so many generations, one every `every`, the newest of half of that ago.
fn replica(layout: &Layout, dir: &Path, of: [&str; 3], count: u64, every: Duration) {
    let [vm, _, source] = of;
    let pair = Uuid::new_v4();
    for number in 1..=count {
        let ago = every / 2 + every * u32::try_from(count - number).unwrap();
        let generation = generation(dir, pair, of, number, before(ago));
        write_json(&layout.generation(pair, number), &generation).unwrap();
    }
    write_json(&layout.block_maps(pair, count), &[map()]).unwrap();
    let state = TargetPair {
        pair,
        source_host: Uuid::new_v4(),
        source_name: source.into(),
        vm: vm.into(),
        target_vm: vm.into(),
        volumes: Default::default(),
        storage_map: Vec::new(),
        maps: Default::default(),
        forks: Vec::new(),
        pinned: [1].into(),
        head: Some(count),
        last: 0,
        standing: Standing::replica(),
    };
    write_json(&layout.target_pair(pair), &state).unwrap();
    let boot = Boot {
        at: before(minutes(3)),
        sign: BootSign::Agent,
    };
    note_boot(layout, pair, count, &boot).unwrap();
    write_json(&layout.checked(pair, count), &found(minutes(2))).unwrap();
}
