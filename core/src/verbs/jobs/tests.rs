use super::testing::{make_dir, Names, KIND};
use super::*;
use crate::error::Kind;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let world = World { dir };
        make_dir(world.dir.path());
        world
    }

    fn jobs(&self) -> JobsDir<'static, Names> {
        JobsDir::new(self.dir.path(), &KIND)
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
vms = ["a", "b"]
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
verify = false
exclude = ["scsi1", "scsi2"]
ssh_config = "/root/a config"

[storage]
local-lvm = "fast"
"#;

#[test]
fn a_full_file_is_read_and_written() {
    let world = World::new();
    world.put("nightly", FULL);
    let job = world.jobs().load("nightly").unwrap();
    let plan = &job.plan;
    assert_eq!(plan.to.hosts(), ["host2", "root@host3"]);
    assert_eq!(plan.rpo.as_ref().unwrap().get().as_secs(), 1800);
    let words = |job: &Job<Names>, stronger: &[&str]| {
        let stronger: Vec<OsString> = stronger.iter().map(Into::into).collect();
        let words = job.options.words(&stronger).into_iter();
        words.map(|w| w.into_string().unwrap()).collect::<Vec<_>>()
    };
    let want = [
        "--bwlimit=100M",
        "--compress=auto",
        "--exclude=scsi1",
        "--exclude=scsi2",
        "--in-place",
        "--keep=7",
        "--keep-within=14d",
        "--ssh-config=/root/a config",
        "--storage=local-lvm=fast",
    ];
    assert_eq!(words(&job, &[]), want);
    // What is given to this run is stronger.
    let left = words(&job, &["--ssh-config=/x", "--keep=1", "--exclude=scsi7"]);
    assert_eq!(left.len(), want.len() - 4);

    assert!(!world.jobs().write("nightly", &job, false).unwrap());
    assert!(world.jobs().write("copy", &job, false).unwrap());
    let copy = world.jobs().load("copy").unwrap();
    assert_eq!((&copy.plan, &copy.options), (plan, &job.options));
    assert_eq!(copy.selection, job.selection);
    assert_eq!(world.jobs().names().unwrap(), ["copy", "nightly"]);
    let other = Job {
        options: Options::default(),
        ..job
    };
    let refused = world.jobs().write("copy", &other, false).unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused);
    assert!(world.jobs().write("copy", &other, true).unwrap());
    assert!(world.jobs().remove("copy").unwrap());
    assert!(!world.jobs().remove("copy").unwrap());
}

/// A new option of `vm` is one of jobs, or somebody has said that it is not.
#[test]
fn every_option_of_vm_is_one_of_jobs_or_is_known_not_to_be() {
    let built = KIND.built();
    let vm = built.find_subcommand("vm").unwrap();
    let keys = KIND.keys();
    let longs: Vec<&str> = vm.get_arguments().filter_map(|a| a.get_long()).collect();
    for long in &longs {
        let is_out = NOT_IN_JOBS.contains(long)
            || KIND.not_in_jobs.contains(long)
            || Names::FIELDS.contains(long);
        let key = long.replace('-', "_");
        assert_ne!(keys.contains(&key), is_out, "{long}");
    }
    for long in NOT_IN_JOBS.iter().filter(|long| **long != "config") {
        assert!(longs.contains(long), "vm has no --{long} any more");
    }
    let add = built.find_subcommand("schedule").unwrap();
    let add = add.find_subcommand("add").unwrap();
    for key in &keys {
        let found = add.get_arguments().any(|arg| arg.get_id() == key.as_str());
        assert!(found, "schedule add has no --{key}");
    }
}

#[test]
fn mistakes_are_told_with_file_and_line() {
    let world = World::new();
    let cases = [
        (
            "vms = [\"a\"]\nto = \"h\"\nkeeep = 3\n",
            "x.toml:3: unknown field `keeep`; did you mean keep?",
        ),
        (
            "vms = [\"a\"]\nto = \"h\"\nkeep-within = \"3d\"\n",
            "x.toml:3: unknown field `keep-within`; did you mean keep_within?",
        ),
        (
            "vms = [\"a\"]\nto = \"h\"\ndry_run = true\n",
            "x.toml:3: unknown field `dry_run`",
        ),
        (
            "vms = [\"a\"]\n\nto = \"h\"\nkeep = 3.5\n",
            "x.toml:4: keep: write it in quotes",
        ),
        (
            "vms = [\"a\"]\nto = \"h\"\nkeep = [1, 2]\n",
            "x.toml:3: keep: it takes one value",
        ),
        (
            "vms = [\"a\"]\nto = \"h\"\nrpo = \"15\"\n",
            "x.toml:3: 15 is not a time span",
        ),
        ("vms = 101\nto = \"h\"\n", "x.toml:1: invalid type: integer"),
        (
            "to = \"h:1\"\nvms = [\"a\"]\n",
            "x.toml:1: \"h:1\" is not a host",
        ),
        (
            "vms = [\"a\"]\nto = [\"h\", \"-x\"]\n",
            "x.toml:2: \"-x\" is not a host",
        ),
        (
            "to = \"h\"\nvms = [\"a\"]\nbwlimit = \"0\"\n",
            "x.toml:3: bwlimit: invalid value '0'",
        ),
        (
            "to = \"h\"\nvms = [\"a\"]\nschedule = \"a\\nb\"\n",
            "x.toml:3: \"a\\nb\" is no calendar",
        ),
        ("to = \"h\"\n", "x.toml:1: vms: it names no VMs"),
        ("vms = [\"a\"]\n", "x.toml:1: to: it is not said"),
        (
            "all = true\nto = \"h\"\nparallel = 0\n",
            "x.toml:3: parallel: it is a number",
        ),
        (
            "all = true\nto = \"h\"\n# c\ncompress = \"bad\"\n",
            "x.toml:4: compress: invalid value 'bad'",
        ),
        (
            "all = true\nto = \"h\"\n[storage]\na = \"\"\n",
            "x.toml:3: storage: invalid value",
        ),
        (
            "all = true\nto = \"h\"\nstorage = [\"a=b\", \"a=c\"]\n",
            "x.toml:3: storage: a is given twice",
        ),
        (
            "all = true\nto = \"h\"\nscratch = \"here\"\n",
            "x.toml:3: scratch: write the path from / on",
        ),
        (
            "all = true\nto = \"h\"\nverify = 1\n",
            "x.toml:3: verify: it is true or false",
        ),
        (
            "all = true\nto = \"h\"\nrpo = \"0s\"\n",
            "x.toml:3: rpo: no replica",
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
        ("etc/prog/jobs.d/x.toml", 0o644),
        ("etc/prog/jobs.d", 0o755),
        ("etc/prog", 0o755),
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
    assert!(JobsDir::<Names>::new(nowhere.path(), &KIND)
        .names()
        .unwrap()
        .is_empty());
}
