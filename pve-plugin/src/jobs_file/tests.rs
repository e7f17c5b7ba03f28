use super::*;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

/// Takes all but what a test wants refused.
fn takes(words: &[OsString]) -> Result<()> {
    let bad = words
        .iter()
        .any(|w| w.to_str().is_some_and(|w| w.ends_with("=bad")));
    match bad {
        true => Err(Error::new(Kind::Usage, "it is auto, off or a level")),
        false => Ok(()),
    }
}

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let world = World { dir };
        fs::create_dir_all(world.jobs().dir).unwrap();
        for dir in ["etc/pvesync", "etc/pvesync/jobs.d"] {
            world.chmod(dir, 0o755);
        }
        world
    }

    fn jobs(&self) -> JobsDir<'static> {
        JobsDir::new(self.dir.path(), &takes)
    }

    fn chmod(&self, path: &str, mode: u32) {
        fs::set_permissions(self.dir.path().join(path), Permissions::from_mode(mode)).unwrap();
    }

    fn put(&self, name: &str, text: &str) {
        let path = self.jobs().path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    }

    /// What is wrong with a file of this text, without the directory.
    fn fault(&self, text: &str) -> String {
        self.put("x", text);
        let e = self.jobs().load("x").unwrap_err();
        assert_eq!(e.kind(), Kind::Usage, "{e}");
        let dir = format!("{}/", self.jobs().dir.display());
        e.message().replace(&dir, "")
    }
}

const FULL: &str = r#"# a comment
vms = "101,105-110"
tags = ["prod"]
pools = ["shop"]
exclude_vms = "107"
to = ["host2", "root@host3"]
schedule = "*:0/15"
rpo = "30m"
parallel = 3
per_host = 2
keep = 7
keep_within = "14d"
bwlimit = "100M"
compress = "auto"
in_place = true
cpu = "x86-64-v2-AES"

[storage]
local-lvm = "fast"

[bridge]
vmbr0 = "vmbr1"
"#;

#[test]
fn a_full_file_is_read_and_written() {
    let world = World::new();
    world.put("nightly", FULL);
    let job = world.jobs().load("nightly").unwrap();
    assert_eq!(job.to.hosts(), ["host2", "root@host3"]);
    assert_eq!(job.rpo.as_ref().unwrap().get().as_secs(), 1800);
    let options: Vec<_> = job
        .options()
        .into_iter()
        .map(|(_, o)| o.into_string().unwrap())
        .collect();
    assert_eq!(
        options,
        [
            "--keep=7",
            "--keep-within=14d",
            "--bwlimit=100M",
            "--compress=auto",
            "--storage=local-lvm=fast",
            "--bridge=vmbr0=vmbr1",
            "--cpu=x86-64-v2-AES",
            "--in-place"
        ]
    );
    assert!(!world.jobs().write("nightly", &job, false).unwrap());
    assert!(world.jobs().write("copy", &job, false).unwrap());
    assert_eq!(world.jobs().load("copy").unwrap(), job);
    assert_eq!(world.jobs().names().unwrap(), ["copy", "nightly"]);
    let other = JobFile { keep: None, ..job };
    let refused = world.jobs().write("copy", &other, false).unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused);
    assert!(world.jobs().write("copy", &other, true).unwrap());
    assert!(world.jobs().remove("copy").unwrap());
    assert!(!world.jobs().remove("copy").unwrap());
}

#[test]
fn the_example_is_a_job() {
    let world = World::new();
    world.put(
        "nightly",
        include_str!("../../../packaging/examples/nightly.toml"),
    );
    let job = world.jobs().load("nightly").unwrap();
    assert_eq!(job.storage["local-lvm"], "fast");
    // What is in it as a comment is allowed, too.
    let all: String = include_str!("../../../packaging/examples/nightly.toml")
        .lines()
        .filter(|line| !line.starts_with("# to ="))
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.contains(" = ") => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    world.put("all", &all);
    let job = world.jobs().load("all").unwrap();
    assert!(job.all && !job.in_place && job.hold_max == Some(8));
}

#[test]
fn mistakes_are_told_with_file_and_line() {
    let world = World::new();
    let cases = [
        (
            "vms = \"101\"\nto = \"h\"\nkeeep = 3\n",
            "x.toml:3: unknown field `keeep`",
        ),
        (
            "vms = \"101\"\n\nto = \"h\"\nkeep = \"3\"\n",
            "x.toml:4: invalid type",
        ),
        (
            "vms = \"101\"\nto = \"h\"\nrpo = \"15\"\n",
            "x.toml:3: 15 is not a time span",
        ),
        ("vms = \"99\"\nto = \"h\"\n", "x.toml:1: 99 is not a VM id"),
        ("vms = 101\nto = \"h\"\n", "x.toml:1: invalid type: integer"),
        (
            "to = \"h:1\"\nvms = \"101\"\n",
            "x.toml:1: \"h:1\" is not a host",
        ),
        (
            "vms = \"101\"\nto = [\"h\", \"-x\"]\n",
            "x.toml:2: \"-x\" is not a host",
        ),
        (
            "to = \"h\"\nvms = \"101\"\nbwlimit = \"0\"\n",
            "x.toml:3: a limit of 0",
        ),
        (
            "to = \"h\"\nvms = \"101\"\nschedule = \"a\\nb\"\n",
            "x.toml:3: \"a\\nb\" is no calendar",
        ),
        ("to = \"h\"\n", "x.toml:1: vms: it names no VMs"),
        ("vms = \"101\"\n", "x.toml:1: to: it is not said"),
        (
            "all = true\nto = \"h\"\nparallel = 0\n",
            "x.toml:3: parallel: it is a number",
        ),
        (
            "all = true\nto = \"h\"\n# c\ncompress = \"bad\"\n",
            "x.toml:4: compress: it is auto",
        ),
        (
            "all = true\nto = \"h\"\n[storage]\na = \"bad\"\n",
            "x.toml:3: storage: it is auto",
        ),
        (
            "all = true\nto = \"h\"\nrpo = \"0s\"\n",
            "x.toml:3: rpo: no replica",
        ),
        (
            "all = true\nto = \"h\"\ntags = [\"\"]\n",
            "x.toml:3: tags: one of them",
        ),
        ("all = true\nto = \"h\n", "x.toml:2: "),
        (
            "all = true\nall = true\nto = \"h\"\n",
            "x.toml:2: duplicate key",
        ),
    ];
    for (text, want) in cases {
        let said = world.fault(text);
        assert!(said.starts_with(want), "{text:?}: {said}");
    }
    fs::write(world.jobs().path("x"), b"all = true\n# \xff\n").unwrap();
    let e = world.jobs().load("x").unwrap_err().message();
    assert!(e.contains("x.toml:2: it is not UTF-8"), "{e}");
}

#[test]
fn a_file_that_others_may_write_is_refused() {
    let world = World::new();
    world.put("x", FULL);
    let refused = |why: &str| {
        let e = world.jobs().load("x").unwrap_err();
        assert_eq!(e.kind(), Kind::Refused, "{e}");
        assert!(e.message().contains(why), "{e}");
    };
    for (path, mode) in [
        ("etc/pvesync/jobs.d/x.toml", 0o644),
        ("etc/pvesync/jobs.d", 0o755),
        ("etc/pvesync", 0o755),
    ] {
        for bit in [0o020, 0o002] {
            world.chmod(path, mode | bit);
            refused("writable by others");
        }
        world.chmod(path, mode);
        world.jobs().load("x").unwrap();
    }
    let file = world.jobs().path("x");
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&file, Some(4242), None).unwrap();
        refused("owned by user 4242");
    }
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", &file).unwrap();
    refused("is a link");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    refused("is no file");
}

#[test]
fn names_and_sizes_have_bounds() {
    let world = World::new();
    for name in ["../x", "", "a b", "x.y"] {
        assert_eq!(
            world.jobs().load(name).unwrap_err().kind(),
            Kind::Usage,
            "{name}"
        );
    }
    assert_eq!(
        world.jobs().load("none").unwrap_err().kind(),
        Kind::NotFound
    );
    world.put("x", &"#".repeat(300_000));
    assert_eq!(world.jobs().load("x").unwrap_err().kind(), Kind::Refused);
    let nowhere = tempfile::tempdir().unwrap();
    assert!(JobsDir::new(nowhere.path(), &takes)
        .names()
        .unwrap()
        .is_empty());
}
