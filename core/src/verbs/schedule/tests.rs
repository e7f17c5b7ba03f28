use super::*;
use std::cell::RefCell;

const TEMPLATES: Templates = Templates {
    program: "pvesync",
    job: include_str!("../../../../packaging/systemd/pvesync-job@.service"),
    notify: include_str!("../../../../packaging/systemd/pvesync-notify@.service"),
};

/// Does what systemctl does to the file tree, and refuses what it would refuse.
struct FakeSystemd {
    root: PathBuf,
    calls: RefCell<Vec<String>>,
    fails_at: RefCell<Option<&'static str>>,
}

impl FakeSystemd {
    fn wants(&self, unit: &str) -> PathBuf {
        let dir = "etc/systemd/system/timers.target.wants";
        self.root.join(dir).join(unit)
    }
}

impl Systemd for FakeSystemd {
    fn call(&self, args: &[&str]) -> Result<String> {
        self.calls.borrow_mut().push(args.join(" "));
        if *self.fails_at.borrow() == Some(args[0]) {
            return Err(Error::new(Kind::Tool, "systemctl failed with exit code 1"));
        }
        let unit = args.last().unwrap();
        let file = self.root.join("etc/systemd/system").join(unit);
        match args[0] {
            "enable" => {
                assert!(file.is_file(), "{unit} must be there before it is enabled");
                let wants = self.wants(unit);
                fs::create_dir_all(wants.parent().unwrap()).unwrap();
                if !wants.exists() {
                    std::os::unix::fs::symlink(&file, wants).unwrap();
                }
            }
            "disable" => {
                assert!(file.is_file(), "{unit} must be there when it is disabled");
                fs::remove_file(self.wants(unit)).unwrap();
            }
            "show" if unit.ends_with(".timer") => {
                return Ok(
                    "NextElapseUSecRealtime=@1790000900\nLastTriggerUSec=@1790000000\n\
                           ActiveState=active\nUnitFileState=enabled\n"
                        .into(),
                )
            }
            "show" => {
                return Ok("ActiveState=inactive\nResult=exit-code\nExecMainStatus=5\n\
                           ExecMainExitTimestamp=@1790000060\n"
                    .into())
            }
            _ => {}
        }
        Ok(String::new())
    }
}

struct World {
    dir: tempfile::TempDir,
    systemd: FakeSystemd,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("etc/systemd/system")).unwrap();
        let systemd = FakeSystemd {
            root: dir.path().to_owned(),
            calls: RefCell::default(),
            fails_at: RefCell::default(),
        };
        World { dir, systemd }
    }

    fn schedules(&self) -> Schedules<'_> {
        Schedules {
            root: self.dir.path().to_owned(),
            templates: &TEMPLATES,
            executable: "/usr/local/sbin/pvesync".into(),
            systemd: &self.systemd,
        }
    }

    fn add(&self, name: &str, calendar: &str) -> Result<()> {
        let delay = Duration::from_secs(90);
        self.schedules().add(name, &calendar.parse()?, delay)
    }

    /// All files below etc, without directories.
    fn files(&self) -> Vec<String> {
        fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => walk(&path, found),
                    false => found.push(path),
                }
            }
        }
        let mut found = Vec::new();
        walk(self.dir.path(), &mut found);
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        let mut names: Vec<String> = found.iter().map(name).collect();
        names.sort();
        names
    }

    fn unit(&self, file: &str) -> PathBuf {
        self.dir.path().join("etc/systemd/system").join(file)
    }
}

#[test]
fn a_schedule_is_added_twice_and_removed_twice_and_leaves_nothing() {
    let world = World::new();
    world.add("web", "*:0/15").unwrap();
    let once = world.files();
    assert_eq!(
        once,
        [
            "pvesync-job@.service",
            "pvesync-job@web.timer",
            "pvesync-job@web.timer",
            "pvesync-notify@.service"
        ]
    );
    world.add("web", "*:0/15").unwrap();
    assert_eq!(world.files(), once);
    let timer = fs::read_to_string(world.unit("pvesync-job@web.timer")).unwrap();
    for line in [
        "OnCalendar=*:0/15",
        "RandomizedDelaySec=90s",
        "Persistent=true",
    ] {
        assert!(timer.lines().any(|l| l == line), "{timer}");
    }
    let service = fs::read_to_string(world.unit("pvesync-job@.service")).unwrap();
    assert!(service.contains("ExecStart=/usr/local/sbin/pvesync --progress never job run %i"));
    let want = [
        "daemon-reload",
        "enable --now -- pvesync-job@web.timer",
        "daemon-reload",
        "enable --now -- pvesync-job@web.timer",
    ];
    assert_eq!(*world.systemd.calls.borrow(), want);

    world.add("db", "daily").unwrap();
    assert_eq!(world.schedules().timers().unwrap(), ["db", "web"]);
    assert!(world.schedules().remove("web").unwrap());
    assert!(world.files().contains(&"pvesync-job@.service".to_owned()));
    assert!(world.schedules().remove("db").unwrap());
    assert!(world.files().is_empty(), "{:?}", world.files());
    assert!(!world.schedules().remove("db").unwrap());
}

#[test]
fn a_changed_schedule_is_started_anew() {
    let world = World::new();
    world.add("web", "*:0/15").unwrap();
    world.add("web", "*:0/30").unwrap();
    let last = world.systemd.calls.borrow().last().unwrap().clone();
    assert_eq!(last, "restart -- pvesync-job@web.timer");
}

#[test]
fn what_others_made_is_left_alone() {
    let world = World::new();
    fs::write(world.unit("pvesync-job@web.timer"), "[Timer]\n").unwrap();
    assert_eq!(world.add("web", "daily").unwrap_err().kind(), Kind::Refused);
    assert!(!world.schedules().remove("web").unwrap());
    assert!(world.unit("pvesync-job@web.timer").exists());
}

#[test]
fn units_of_a_package_are_used_as_they_are() {
    let world = World::new();
    let packaged = world.dir.path().join("usr/lib/systemd/system");
    fs::create_dir_all(&packaged).unwrap();
    fs::write(packaged.join("pvesync-job@.service"), TEMPLATES.job).unwrap();
    fs::write(packaged.join("pvesync-notify@.service"), TEMPLATES.notify).unwrap();
    world.add("web", "daily").unwrap();
    assert!(!world.unit("pvesync-job@.service").exists());
    world.schedules().remove("web").unwrap();
    assert!(packaged.join("pvesync-job@.service").exists());
}

#[test]
fn a_step_that_failed_is_made_up_for_by_the_next_try() {
    for step in ["daemon-reload", "enable"] {
        let world = World::new();
        *world.systemd.fails_at.borrow_mut() = Some(step);
        world.add("web", "daily").unwrap_err();
        *world.systemd.fails_at.borrow_mut() = None;
        world.add("web", "daily").unwrap();
        *world.systemd.fails_at.borrow_mut() = Some("disable");
        world.schedules().remove("web").unwrap_err();
        *world.systemd.fails_at.borrow_mut() = None;
        assert!(world.schedules().remove("web").unwrap());
        assert!(world.files().is_empty());
    }
}

#[test]
fn the_state_is_read() {
    let world = World::new();
    let state = world.schedules().state("web").unwrap();
    let want = TimerState {
        active: true,
        enabled: true,
        next_s: Some(1_790_000_900),
        last_s: Some(1_790_000_000),
        running: false,
        result: "exit-code".into(),
        exit_code: Some(5),
    };
    assert_eq!(state, want);
    let never = Properties("A=\nB=n/a\nC=@0\nAB=@5\n".into());
    assert_eq!(
        [never.time("A"), never.time("B"), never.time("C")],
        [None; 3]
    );
    assert_eq!(never.time("AB"), Some(5));
}

#[test]
fn names_that_mean_something_to_files_or_systemd_are_refused() {
    for bad in [
        "",
        "-a",
        "_a",
        "a b",
        "a/b",
        "..",
        "a@b",
        "a.b",
        "%i",
        "\u{e4}",
        &"a".repeat(65),
    ] {
        assert!(check_name(bad).is_err(), "{bad:?}");
    }
    check_name("web-1_x").unwrap();
    let world = World::new();
    assert!(world.add("../x", "daily").is_err());
    let odd = Schedules {
        executable: "/opt/my progs/pvesync".into(),
        ..world.schedules()
    };
    let refused = odd.add("web", &"daily".parse().unwrap(), Duration::ZERO);
    assert_eq!(refused.unwrap_err().kind(), Kind::Refused);
    assert!(world.files().is_empty());
}

/// systemd itself must accept what is written: it is on every host that the product is for.
#[test]
fn systemd_accepts_the_units() {
    let world = World::new();
    let schedules = Schedules {
        // A program that is there, or systemd complains.
        executable: "/bin/true".into(),
        ..world.schedules()
    };
    let calendar = Calendar::every(Duration::from_secs(900)).unwrap();
    schedules
        .add("web", &calendar, Duration::from_secs(90))
        .unwrap();
    // Beside the instance there must be its template.
    let units = [
        "pvesync-job@web.timer",
        "pvesync-job@.service",
        "pvesync-notify@.service",
    ];
    let verify = |units: &[PathBuf]| {
        Cmd::new(Tool::SystemdAnalyze)
            .args(["verify", "--man=no", "--recursive-errors=one"])
            .args(units)
            .run()
    };
    let paths = units.map(|unit| world.unit(unit));
    let verified = verify(&paths).unwrap();
    assert_eq!(verified.stderr, "", "systemd-analyze has something to say");
    // And it does find what is wrong.
    let text = fs::read_to_string(&paths[0]).unwrap();
    fs::write(&paths[0], text.replace("OnCalendar=", "OnCalender=")).unwrap();
    let refused = verify(&paths);
    assert!(refused.is_err() || refused.is_ok_and(|o| !o.stderr.is_empty()));
}
