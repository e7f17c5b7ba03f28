use super::*;
use crate::cli::{OutputOptions, Reporter};
use crate::replica::Layout;
use crate::stop::Stop;
use crate::verbs::jobs::testing::{pick, Cli, Verb, KIND};
use clap::FromArgMatches;
use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

/// Notes what it is told, and keeps the one link that systemctl makes.
#[derive(Default)]
struct Fake {
    root: PathBuf,
    calls: RefCell<Vec<String>>,
    is_deaf: RefCell<bool>,
}

impl Systemd for Fake {
    fn call(&self, args: &[&str]) -> Result<String> {
        self.calls.borrow_mut().push(args.join(" "));
        let units = self.root.join("etc/systemd/system");
        let unit = args.last().unwrap();
        let link = units.join("timers.target.wants").join(unit);
        match args[0] {
            "enable" if !link.exists() => {
                fs::create_dir_all(link.parent().unwrap()).unwrap();
                std::os::unix::fs::symlink(units.join(unit), link).unwrap();
            }
            "disable" => fs::remove_file(link).unwrap(),
            "show" if *self.is_deaf.borrow() => {
                return Err(Error::new(Kind::Tool, "systemctl failed"));
            }
            "show" => {
                return Ok("ActiveState=active\nUnitFileState=enabled\n".into());
            }
            _ => {}
        }
        Ok(String::new())
    }
}

struct World {
    dir: tempfile::TempDir,
    fake: Fake,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake {
            root: dir.path().to_owned(),
            ..Fake::default()
        };
        World { dir, fake }
    }

    fn run(&self, line: &str) -> Result<()> {
        let words = ["prog", "schedule"]
            .into_iter()
            .chain(line.split_whitespace());
        let usage = |e: clap::Error| Error::new(Kind::Usage, e.to_string());
        let matches = (KIND.program.command)()
            .try_get_matches_from(words)
            .map_err(usage)?;
        let Verb::Schedule(args) = Cli::from_arg_matches(&matches).map_err(usage)?.verb else {
            panic!("{line}");
        };
        let layout = Layout::new(self.dir.path().join("state"));
        let quiet = OutputOptions {
            quiet: true,
            ..OutputOptions::default()
        };
        let front = JobFront {
            kind: &KIND,
            root: self.dir.path().to_owned(),
            layout: &layout,
            reporter: &Reporter::new(quiet),
            quiet: true,
            stop: &Stop::new(),
            matches: &matches,
            pick: &pick,
        };
        let schedules = Schedules {
            root: self.dir.path().to_owned(),
            templates: KIND.templates,
            executable: "/usr/bin/prog".into(),
            systemd: &self.fake,
        };
        act(&args, &front, &schedules, &Calendar::check)
    }

    fn files(&self) -> Vec<String> {
        fn walk(dir: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(dir).into_iter().flatten() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => walk(&path, found),
                    false => found.push(path.file_name().unwrap().to_str().unwrap().to_owned()),
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.dir.path().join("etc/systemd"), &mut found);
        walk(&self.dir.path().join("etc/prog"), &mut found);
        found.sort();
        found
    }

    fn job(&self, name: &str) -> String {
        let path = self
            .dir
            .path()
            .join("etc/prog/jobs.d")
            .join(format!("{name}.toml"));
        fs::read_to_string(path).unwrap()
    }
}

#[test]
fn a_schedule_is_a_job_and_a_timer_and_both_go_again() {
    let world = World::new();
    let add = "add web a b --to host2 --every 15m --rpo 30m --keep 5 --storage a=b --verify \
               --exclude vda --exclude vdb --ssh-config /root/c --format vdc=raw";
    world.run(add).unwrap();
    let files = world.files();
    assert_eq!(
        files,
        [
            "prog-job@.service",
            "prog-job@web.timer",
            "prog-job@web.timer",
            "prog-notify@.service",
            "web.toml"
        ]
    );
    let text = "vms = [\"a\", \"b\"]\nparallel = 2\nrpo = \"1800s\"\nschedule = \"*:0/15\"\nto = \"host2\"\n\
                exclude = [\"vda\", \"vdb\"]\nkeep = 5\nssh_config = \"/root/c\"\nverify = true\n\n\
                [format]\nvdc = \"raw\"\n\n[storage]\na = \"b\"\n";
    assert_eq!(world.job("web"), text);
    // Once more changes nothing; something else needs to be asked for.
    world.run(add).unwrap();
    assert_eq!(world.files(), files);
    let other = "add web a --to host2 --on-calendar daily";
    assert_eq!(world.run(other).unwrap_err().kind(), Kind::Refused);
    assert_eq!(world.job("web"), text);
    world.run(&format!("{other} --replace")).unwrap();
    assert!(world.job("web").contains("schedule = \"daily\""));
    world.run("list").unwrap();
    *world.fake.is_deaf.borrow_mut() = true;
    assert_eq!(world.run("list").unwrap_err().kind(), Kind::Tool);
    world.run("remove web").unwrap();
    assert!(world.files().is_empty(), "{:?}", world.files());
    world.run("remove web").unwrap();
    world.run("list").unwrap();
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_written() {
    let world = World::new();
    for bad in [
        "add web a --to host2",
        "add web --to host2 --every 15m",
        "add web a --every 15m",
        "add web a --to host2 --every 17m",
        "add web a --to host2 --every 15m --on-calendar daily",
        "add web a --to host2 --on-calendar 25:00",
        "add web a --to -oProxyCommand=x --every 15m",
        "add web a --to h --every 15m --rpo 0s",
        "add we/b a --to host2 --every 15m",
        "add web none --to host2 --every 15m",
        "add web a --to h --every 15m --storage a=b --storage a=c",
        "add web a --to h --every 15m --bwlimit 0",
        "add web a --to h --every 15m --scratch here",
        "add web a --to h --every 15m --dry-run",
        "add web a --to h --every 15m --target-name x",
    ] {
        world.run(bad).unwrap_err();
        assert!(world.files().is_empty(), "{bad}: {:?}", world.files());
    }
    assert!(world.fake.calls.borrow().is_empty());
}

#[test]
fn a_job_file_that_is_broken_is_listed_and_an_error() {
    let world = World::new();
    world.run("add web a --to host2 --every 15m").unwrap();
    let path = world.dir.path().join("etc/prog/jobs.d/web.toml");
    fs::write(path, "vms = 1\n").unwrap();
    assert_eq!(world.run("list").unwrap_err().kind(), Kind::Usage);
    world.run("remove web").unwrap();
    assert!(world.files().is_empty());
}
