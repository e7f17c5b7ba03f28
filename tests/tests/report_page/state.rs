//! The state of a host with replicas of every kind, some of which have names that are markup.

use jiff::Timestamp;
use rblocksync::digest::{of_pieces, HashKind};
use rblocksync::error::{Error, Kind};
use rblocksync::image::ImageFormat;
use rblocksync::journal::{Beginning, Journal, Sealed, Side, State};
use rblocksync::replica::{
    host_id, note_boot, write_json, Boot, BootSign, Checked, DiskRecord, Generation, Layout,
    Location, Standing, TargetPair,
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
    replica(layout, dir, "101", "host1", 24, minutes(10));
    replica(layout, dir, "102", MARKUP, 3, minutes(2000));
    let (journal, _) = Journal::open(&layout.journal()).unwrap();
    for (vm, name, peer, error) in [
        ("201", "web01", "host2", None),
        ("202", LONG, "host2", None),
        ("203", MARKUP, MARKUP, Some(MARKUP)),
    ] {
        let beginning = Beginning {
            id: Uuid::new_v4(),
            side: Side::Source,
            vm,
            name,
            peer,
        };
        let run = journal.begin(&beginning).unwrap();
        run.is_of(Uuid::new_v4(), Uuid::new_v4()).unwrap();
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
            }
        }
    }
}

/// A replica with so many generations, one every `every`, the newest of half of that ago.
fn replica(layout: &Layout, dir: &Path, vm: &str, source: &str, count: u64, every: Duration) {
    let pair = Uuid::new_v4();
    for number in 1..=count {
        let ago = every / 2 + every * u32::try_from(count - number).unwrap();
        let generation = Generation {
            state: None,
            version: Generation::VERSION,
            pair,
            epoch: 1,
            number,
            parent: (number > 1).then(|| number - 1),
            taken_at: before(ago),
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
            config: format!("cores: 1\nname: replica-of-{vm}\n"),
            described: None,
        };
        write_json(&layout.generation(pair, number), &generation).unwrap();
    }
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
    let found = Checked {
        at: before(minutes(2)),
        whole: Some(before(minutes(2))),
        damaged: Vec::new(),
    };
    write_json(&layout.checked(pair, count), &found).unwrap();
}
