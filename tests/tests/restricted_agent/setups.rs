//! `setup`: a restricted key is installed over the access that is there, tried, used, and taken away.

use crate::host;
use crate::program::{PROGRAM, TARGET};
use rblocksync::remote::{Remote, SshOptions};
use rblocksync::replica::Layout;
use std::fs;
use std::os::unix::fs::{symlink, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tests::sshd::{Sshd, HOST};

const FOREIGN: &str = "# somebody else's\n";

/// `setup` of the host that `sshd` is, with its own state in `state`.
pub fn setup(sshd: &Sshd, state: &Path, options: &[&str]) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["setup", HOST])
        .args(options)
        .arg("--ssh-config")
        .arg(sshd.client_config())
        .env("RBLOCKSYNC_STATE_DIR", state)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

struct World {
    sshd: Sshd,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let env = [
            ("HOME", path("home")),
            (TARGET, path("target")),
            ("RBLOCKSYNC_POLICY_DIR", path("policies")),
            ("RBLOCKSYNC_STATE_DIR", path("target-state")),
        ];
        let env: Vec<(&str, &str)> = env.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let sshd = Sshd::start_with(&env, "");
        let me = std::env::current_exe().unwrap();
        let script = format!("#!/bin/sh\nexec '{}' \"$@\"\n", me.display());
        sshd.install(PROGRAM, script.as_bytes());
        fs::create_dir_all(dir.path().join("home/.ssh")).unwrap();
        fs::write(sshd.more_keys(), FOREIGN).unwrap();
        // As on Proxmox VE.
        symlink(
            sshd.more_keys(),
            dir.path().join("home/.ssh/authorized_keys"),
        )
        .unwrap();
        World { sshd, dir }
    }

    fn setup(&self, options: &[&str]) -> Output {
        setup(&self.sshd, &self.dir.path().join("source-state"), options)
    }

    fn set_up(&self, options: &[&str]) -> String {
        let run = self.setup(options);
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{said}");
        String::from_utf8_lossy(&run.stdout).into_owned()
    }

    fn keys(&self) -> PathBuf {
        Layout::new(self.dir.path().join("source-state")).keys()
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.sshd.more_keys()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn policies(&self) -> Vec<PathBuf> {
        let dir = fs::read_dir(self.dir.path().join("policies"));
        dir.map_or(Vec::new(), |dir| dir.map(|e| e.unwrap().path()).collect())
    }

    /// Whether a run that uses our keys is served an agent alone.
    fn is_restricted(&self) -> bool {
        let options = SshOptions {
            config_file: Some(self.sshd.client_config()),
            keys: Some(self.keys()),
            idle_exit: Duration::from_secs(2),
            ..SshOptions::default()
        };
        Remote::during(&host(), &options, |session| {
            let is_restricted = session.is_restricted(PROGRAM)?;
            let run = session.run("true", &[""; 0], None)?;
            assert_eq!(run.status.success(), !is_restricted);
            Ok(is_restricted)
        })
        .unwrap()
    }
}

pub fn there_and_back() {
    let world = World::new();
    assert!(!world.is_restricted());
    let said = world.set_up(&[]);
    assert!(said.contains("there answers the key"), "{said}");
    assert!(world.is_restricted());
    let key = world.keys().join(format!("to-{HOST}"));
    assert_eq!(fs::metadata(&key).unwrap().mode() & 0o7777, 0o600);
    let private = fs::read(&key).unwrap();

    let said = world.set_up(&[
        "--access",
        "append",
        "--allow-vm",
        "10?",
        "--bandwidth",
        "9M",
    ]);
    assert!(said.contains("is there already"), "{said}");
    assert_eq!(fs::read(&key).unwrap(), private);
    let lines = world.lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(format!("{}\n", lines[0]), FOREIGN);
    assert!(lines[1].starts_with("restrict,command=\""), "{lines:?}");
    let policies = world.policies();
    assert_eq!(policies.len(), 1, "{policies:?}");
    let policy = fs::read_to_string(&policies[0]).unwrap();
    for word in ["append", "10?", "9M", "peer"] {
        assert!(policy.contains(word), "{policy}");
    }
    assert!(world.is_restricted());
    let link = world.dir.path().join("home/.ssh/authorized_keys");
    assert!(fs::symlink_metadata(link).unwrap().is_symlink());

    for _ in 0..2 {
        world.set_up(&["--remove"]);
        assert_eq!(fs::read_to_string(world.sshd.more_keys()).unwrap(), FOREIGN);
        assert_eq!(fs::read_dir(world.keys()).unwrap().count(), 0);
        assert!(world.policies().is_empty());
    }
    assert!(!world.is_restricted());
}

pub fn host_key() {
    let mut world = World::new();
    world.sshd.change_host_key();
    let run = world.setup(&[]);
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(!run.status.success() && said.contains("host key"), "{said}");
    fs::write(world.sshd.known_hosts(), "").unwrap();
    let run = world.setup(&[]);
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(
        !run.status.success() && said.contains("not known here"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(world.sshd.more_keys()).unwrap(), FOREIGN);
    assert!(world.policies().is_empty());
}
