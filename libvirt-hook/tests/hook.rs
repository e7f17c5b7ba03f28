//! `virt-blocksync hook` as libvirtd calls it: what it answers, prints and leaves, for whatever state there is.
#![allow(clippy::unwrap_used)]

use rblocksync::replica::{set_guard, Layout, Role, Standing};
use rustix::fs::{flock, FlockOperation};
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use uuid::Uuid;
use virt_blocksync::hook::events;
use virt_blocksync::hook::note::{self, Base, Note};

const UUID: &str = "8f3d6a1c-0000-4000-8000-000000000001";

struct Host {
    dir: tempfile::TempDir,
}

/// What a call came to.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Host {
    fn new() -> Host {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("images")).unwrap();
        Host { dir }
    }

    fn layout(&self) -> Layout {
        Layout::new(self.dir.path().join("state"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn guard(&self, role: Role, epoch: u64) {
        set_guard(&self.layout(), "web01", Standing { role, epoch }, "a test").unwrap();
    }

    fn xml(&self) -> String {
        let images = self.path("images");
        let images = images.display();
        format!(
            "<domain type='kvm'><name>web01</name><uuid>{UUID}</uuid><devices>
             <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{images}/a.raw'/><target dev='vda'/></disk>
             <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{images}/b.qcow2'/><target dev='vdb'/></disk>
             <disk type='file' device='cdrom'><source file='{images}/c.iso'/><target dev='sda'/></disk>
             </devices></domain>"
        )
    }

    fn call(&self, words: &str) -> Said {
        let words: Vec<&str> = words.split(' ').collect();
        self.call_with(&words, self.xml().as_bytes())
    }

    fn call_with(&self, words: &[&str], document: &[u8]) -> Said {
        let mut child = Command::new(env!("CARGO_BIN_EXE_virt-blocksync"))
            .arg("hook")
            .args(words)
            .env_clear()
            .env("RBLOCKSYNC_STATE_DIR", self.path("state"))
            .env("VIRT_BLOCKSYNC_HOOK_CONFIG", self.path("hook.toml"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A hook that has heard enough may have closed it.
        child.stdin.take().unwrap().write_all(document).ok();
        let output = child.wait_with_output().unwrap();
        Said {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn passes(&self, words: &str) {
        let said = self.call(words);
        let quiet = said.stdout.is_empty() && said.stderr.is_empty();
        assert!(said.code == Some(0) && quiet, "{words}: {said:?}");
    }

    fn refuses(&self, words: &str, why: &str) {
        let said = self.call(words);
        assert!(
            said.code == Some(1) && said.stdout.is_empty(),
            "{words}: {said:?}"
        );
        assert!(said.stderr.contains(why), "{words}: {said:?}");
    }

    /// The lease of a move that is under way for as long as this lives.
    fn lease(&self) -> File {
        let file = File::create(self.path("lease")).unwrap();
        flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        file
    }

    fn note(&self, epoch: u64, bases: Vec<Base>) -> Note {
        Note {
            uuid: Uuid::parse_str(UUID).unwrap(),
            epoch,
            lease: self.path("lease"),
            bases,
            paths: Vec::new(),
        }
    }

    fn events(&self) -> Vec<String> {
        let pending = events::pending(&self.layout()).unwrap();
        let texts = pending.into_iter().map(|(_, event)| {
            let event = event.unwrap();
            format!("{} {} {}", event.domain, event.operation, event.extra)
        });
        texts.collect()
    }
}

/// All calls of libvirt 9.0, but for the arrival.
const CALLS: [&str; 11] = [
    "prepare begin -",
    "start begin -",
    "started begin -",
    "stopped end -",
    "release end -",
    "reconnect begin -",
    "attach begin -",
    "restore begin -",
    "migrate begin -",
    "daemon - start",
    "",
];

#[test]
fn an_unknown_domain_may_do_everything() {
    let host = Host::new();
    for call in CALLS {
        host.passes(&format!("web01 {call}"));
    }
    assert!(!host.path("state").exists(), "nothing is noted of it");
    for name in [
        "",
        ".",
        "..",
        "../../etc/passwd",
        ".hidden",
        "a\nb",
        &"x".repeat(5000),
    ] {
        let said = host.call_with(&[name, "prepare", "begin", "-"], b"");
        assert_eq!(said.code, Some(0), "{name:?}");
    }
}

#[test]
fn only_a_primary_may_start() {
    let host = Host::new();
    host.guard(Role::Primary, 3);
    for call in CALLS {
        host.passes(&format!("web01 {call}"));
    }
    for (role, name) in [
        (Role::Replica, "replica"),
        (Role::Retired, "retired"),
        (Role::Held, "held"),
    ] {
        host.guard(role, 3);
        for call in ["prepare begin -", "start begin -"] {
            let why = format!("which is {name} for it since epoch 3: a test");
            host.refuses(&format!("web01 {call}"), &why);
        }
        host.refuses("web01 migrate begin -", "virt-blocksync migrate web01");
        for call in [
            "started begin -",
            "reconnect begin -",
            "restore begin -",
            "release end -",
        ] {
            host.passes(&format!("web01 {call}"));
        }
        host.passes("web02 prepare begin -");
    }
}

#[test]
fn refusals_say_what_to_do() {
    let host = Host::new();
    let mut texts = String::new();
    for role in [Role::Replica, Role::Retired, Role::Held] {
        host.guard(role, 2);
        texts += &host.call("web01 prepare begin -").stderr;
        texts += &host.call("web01 migrate begin -").stderr;
    }
    insta::assert_snapshot!(texts);
}

#[test]
fn a_damaged_guard_keeps_the_domain_off_and_a_guest_that_runs_alive() {
    let host = Host::new();
    host.guard(Role::Primary, 1);
    let guard = host.layout().guard("web01");
    for damage in [
        &b""[..],
        b"primary",
        b"primary x why",
        b"king 3 why",
        b"\xff\xfe",
        &[b'a'; 100_000],
    ] {
        fs::write(&guard, damage).unwrap();
        host.refuses("web01 prepare begin -", "is damaged");
        host.refuses("web01 migrate begin -", "is damaged");
        host.passes("web01 reconnect begin -");
        host.passes("web01 release end -");
    }
    fs::remove_file(&guard).unwrap();
    fs::create_dir(&guard).unwrap();
    host.refuses("web01 prepare begin -", "is damaged");
    host.passes("web01 reconnect begin -");
}

#[test]
fn without_a_state_directory_nothing_is_known() {
    let host = Host::new();
    fs::write(host.path("state"), "a file").unwrap();
    for call in CALLS {
        host.passes(&format!("web01 {call}"));
    }
}

#[test]
fn a_definition_that_cannot_be_read_is_no_arrival() {
    let host = Host::new();
    let huge = vec![b' '; 5 << 20];
    let bomb = b"<!DOCTYPE d [<!ENTITY a 'b'>]><domain><uuid>&a;</uuid></domain>";
    let deep = "<a>".repeat(10_000);
    let documents = [
        &huge[..],
        bomb,
        deep.as_bytes(),
        b"",
        b"<domain",
        b"\xff",
        b"<domain/>",
    ];
    for document in documents {
        let arrival = |name| host.call_with(&[name, "migrate", "begin", "-"], document);
        let start = |op| host.call_with(&["web01", op, "begin", "-"], document);
        fs::remove_dir_all(host.path("state")).ok();
        assert_eq!(
            arrival("web01").code,
            Some(0),
            "unknown: libvirt's own affair"
        );
        host.guard(Role::Primary, 1);
        let said = arrival("web01");
        assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""));
        assert_eq!(start("prepare").code, Some(0));
        host.guard(Role::Replica, 1);
        assert_eq!(start("prepare").code, Some(1));
        assert_eq!(start("reconnect").code, Some(0));
    }
}

#[test]
fn a_move_of_ours_arrives_and_a_local_start_does_not() {
    let host = Host::new();
    host.guard(Role::Replica, 2);
    let lease = host.lease();
    let base = host.path("images/a.raw");
    fs::write(&base, "a").unwrap();
    let note = host.note(2, vec![Base::of(&base).unwrap()]);
    note::leave(&host.layout(), "web01", &note).unwrap();
    host.refuses("web01 prepare begin -", "must not start");
    for call in [
        "migrate begin -",
        "prepare begin -",
        "start begin -",
        "started begin -",
    ] {
        host.passes(&format!("web01 {call}"));
    }
    assert_eq!(host.events(), ["web01 started -"]);
    host.refuses("web01 prepare begin -", "must not start");

    // One that fails on its way leaves nothing that lets somebody start it.
    host.passes("web01 migrate begin -");
    host.passes("web01 release end -");
    host.refuses("web01 prepare begin -", "must not start");

    // Another domain of that name.
    host.passes("web01 migrate begin -");
    let other = host
        .xml()
        .replace(UUID, "8f3d6a1c-0000-4000-8000-000000000002");
    let said = host.call_with(&["web01", "prepare", "begin", "-"], other.as_bytes());
    assert_eq!(said.code, Some(1));
    let said = host.call_with(&["web01", "migrate", "begin", "-"], other.as_bytes());
    assert!(
        said.stderr.contains("another domain is called web01"),
        "{said:?}"
    );

    // The move has died in between.
    host.passes("web01 migrate begin -");
    drop(lease);
    host.refuses("web01 prepare begin -", "must not start");
    host.refuses("web01 migrate begin -", "has ended");
}

#[test]
fn a_move_may_leave_the_door_open_while_it_lives() {
    let host = Host::new();
    host.guard(Role::Replica, 2);
    let door = host.layout().guard("web01.incoming");
    // Nobody is to have this number, and everybody knows the other one.
    for (pid, lives) in [
        ("4194305", false),
        ("x", false),
        (&*std::process::id().to_string(), true),
    ] {
        fs::write(&door, format!("{pid}\n")).unwrap();
        host.refuses("web01 prepare begin -", "must not start");
        if !lives {
            host.refuses("web01 migrate begin -", "virt-blocksync migrate web01");
            continue;
        }
        host.passes("web01 migrate begin -");
        host.passes("web01 prepare begin -");
        fs::write(&door, "4194305\n").unwrap();
        host.refuses("web01 start begin -", "must not start");
    }
    fs::remove_file(&door).unwrap();
}

#[test]
fn a_stale_base_and_an_old_epoch_are_refused() {
    let host = Host::new();
    let _lease = host.lease();
    let base = host.path("images/a.raw");
    fs::write(&base, "a").unwrap();
    let note = host.note(2, vec![Base::of(&base).unwrap()]);
    note::leave(&host.layout(), "web01", &note).unwrap();
    host.passes("web01 migrate begin -");
    fs::write(&base, "other").unwrap();
    host.refuses("web01 migrate begin -", "a.raw has changed");
    note::leave(&host.layout(), "web01", &host.note(2, Vec::new())).unwrap();
    for (role, epoch) in [(Role::Replica, 3), (Role::Primary, 1)] {
        host.guard(role, epoch);
        host.refuses("web01 migrate begin -", "the roles were changed");
    }
    fs::write(note_path(&host), "{").unwrap();
    host.refuses("web01 migrate begin -", "is damaged");
    note::withdraw(&host.layout(), "web01").unwrap();
    note::withdraw(&host.layout(), "web01").unwrap();
    host.passes("web01 migrate begin -");
}

fn note_path(host: &Host) -> PathBuf {
    host.path("state/hook/expected/web01.json")
}

#[test]
fn paths_are_mapped_only_if_asked_for() {
    let host = Host::new();
    let _lease = host.lease();
    let mut note = host.note(1, Vec::new());
    let here = |name: &str| host.path(name).display().to_string();
    note.paths = vec![
        (here("images/a.raw"), "/srv/a & b.raw".into()),
        (here("images/other"), "/srv/other".into()),
    ];
    note::leave(&host.layout(), "web01", &note).unwrap();
    let said = host.call("web01 migrate begin -");
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    assert!(
        said.stdout.contains("file='/srv/a &amp; b.raw'"),
        "{}",
        said.stdout
    );
    assert!(said.stdout.contains(&here("images/b.qcow2")));
    assert!(!said.stdout.contains(&here("images/a.raw")));
}

#[test]
fn disks_of_a_configured_domain_are_made_sparse() {
    let host = Host::new();
    let config = "[domain.web01]\ndisks = { vda = \"3G\", vdb = \"20M\", sda = \"1M\" }\n";
    fs::write(host.path("hook.toml"), config).unwrap();
    host.passes("web01 migrate begin -");
    let raw = fs::metadata(host.path("images/a.raw")).unwrap();
    assert_eq!(raw.len(), 3 << 30);
    assert_eq!(std::os::unix::fs::MetadataExt::blocks(&raw), 0);
    let qcow2 = fs::read(host.path("images/b.qcow2")).unwrap();
    assert_eq!(qcow2[..4], *b"QFI\xfb");
    assert_eq!(qcow2[24..32], (20u64 << 20).to_be_bytes());
    assert!(!host.path("images/c.iso").exists(), "no medium for a drive");
    // What is there stays as it is.
    fs::write(host.path("images/a.raw"), "mine").unwrap();
    host.passes("web01 migrate begin -");
    assert_eq!(fs::read(host.path("images/a.raw")).unwrap(), b"mine");
    fs::remove_dir_all(host.path("images")).unwrap();
    host.refuses("web01 migrate begin -", "cannot make");
    host.passes("web02 migrate begin -");
    fs::write(
        host.path("hook.toml"),
        "[domain.web01]\ndisks = { vda = \"3X\" }\n",
    )
    .unwrap();
    host.passes("web02 migrate begin -");
}

#[test]
fn the_end_of_a_known_domain_is_left_for_the_worker() {
    let host = Host::new();
    host.passes("web01 release end -");
    assert!(host.events().is_empty());
    host.guard(Role::Primary, 1);
    host.passes("web01 stopped end -");
    host.passes("web01 release end migrated");
    assert_eq!(host.events(), ["web01 release migrated"]);
    // A full or broken disk is no reason to bother libvirt.
    fs::remove_dir_all(host.path("state/hook")).unwrap();
    fs::write(host.path("state/hook"), "").unwrap();
    for call in ["stopped end -", "release end -", "reconnect begin -"] {
        assert_eq!(host.call(&format!("web01 {call}")).code, Some(0));
    }
}
