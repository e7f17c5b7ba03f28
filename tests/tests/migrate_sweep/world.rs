//! Two hosts in one: folders on an XFS, each with an agent behind a real sshd.

use crate::folder::{new_memory, Config, Folder, State, MEMORY, RUNNING, VIOLATION};
use crate::program::{FOLDER, HEALTH, PROGRAM, VM};
use rblocksync::hypervisor::GuestState;
use rblocksync::replica::{targets_of, verify, Layout, Role, VerifiedDisk, VerifyRequest};
use rblocksync::stop::Stop;
use rustix::process::{kill_process, waitid, Pid, Signal, WaitId, WaitIdOptions};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tests::cli::{scribble, sparse_image, Mount, MIB};
use tests::sshd::Sshd;

pub const DISKS: [&str; 2] = ["a", "b"];

/// The fields go in this order, the directory that all the others are in last.
pub struct World {
    hosts: [Sshd; 2],
    _mount: Mount,
    dir: tempfile::TempDir,
    changes: u64,
    /// The command that tells whether the VM does well.
    pub health: String,
}

impl World {
    /// The VM runs on the first host, and has never been synced. Files share blocks, or do not.
    pub fn new(shares_blocks: bool) -> World {
        let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
        let mount = match shares_blocks {
            true => Mount::xfs(dir.path(), 512 * MIB),
            false => Mount::ext4(dir.path(), 512 * MIB),
        };
        let folders = mount.dir().join("hosts");
        fs::create_dir(&folders).expect("a folder");
        let hosts = [0, 1].map(|host| {
            let folder = folders.join(name(host));
            fs::create_dir(&folder).expect("a folder");
            let state = dir.path().join(format!("state-{host}"));
            let dies_at = dir.path().join(format!("agent-{host}-dies-at"));
            fs::write(&dies_at, "").expect("a file");
            let env = [
                (FOLDER, folder.to_str().expect("text")),
                ("RBLOCKSYNC_STATE_DIR", state.to_str().expect("text")),
            ];
            let sshd = Sshd::start_with(&env, "");
            let me = std::env::current_exe().expect("this program");
            let script = format!(
                "#!/bin/sh\nRBLOCKSYNC_CRASH_AT=$(cat '{}') exec '{}' \"$@\"\n",
                dies_at.display(),
                me.display()
            );
            sshd.install(PROGRAM, script.as_bytes());
            sshd
        });
        let world = World {
            hosts,
            _mount: mount,
            dir,
            changes: 0,
            health: String::new(),
        };
        let folder = world.folder(0);
        for (seed, disk) in (1..).zip(DISKS) {
            let path = folder.dir.join(format!("{disk}.raw"));
            sparse_image(path, 6 * MIB, &[(0, 2), (4, 1)], seed);
        }
        let config = Config {
            state: State::Vm,
            disks: DISKS.map(|d| (d.to_owned(), format!("{d}.raw"))).into(),
        };
        rblocksync::replica::write_json(&folder.dir.join("vm.json"), &config).expect("a VM");
        fs::write(folder.dir.join(MEMORY), new_memory()).expect("a VM");
        fs::write(folder.dir.join(RUNNING), "").expect("a VM");
        world
    }

    pub fn folder(&self, host: usize) -> Folder {
        Folder {
            dir: self.dir.path().join("mounted/hosts").join(name(host)),
        }
    }

    pub fn state(&self, host: usize) -> PathBuf {
        self.dir.path().join(format!("state-{host}"))
    }

    fn disk(&self, host: usize, disk: &str) -> PathBuf {
        let folder = self.folder(host);
        let config = folder.read().expect("a VM").expect("a VM");
        folder.dir.join(&config.disks[disk])
    }

    /// The guest writes to both disks on the host where it runs.
    pub fn change(&mut self, host: usize) {
        self.changes += 1;
        let at = self.changes * 7919 * 4096 % (5 * MIB);
        for (seed, disk) in (self.changes * 2 + 100..).zip(DISKS) {
            scribble(self.disk(host, disk), at, 100_000, seed);
        }
    }

    /// What is on both disks.
    pub fn content(&self, host: usize) -> [blake3::Hash; 2] {
        DISKS.map(|disk| blake3::hash(&fs::read(self.disk(host, disk)).expect("a disk")))
    }

    /// The next agents of this host die at this point of theirs.
    pub fn agent_dies_at(&self, host: usize, point: &str) {
        let path = self.dir.path().join(format!("agent-{host}-dies-at"));
        fs::write(path, point).expect("a file");
    }

    /// One run on `host`, which reaches the other one. It dies at the point, if one is named.
    pub fn run(&self, host: usize, word: &str, dies_at: &str) -> Output {
        let mut command = self.command(host, word);
        command.env("RBLOCKSYNC_CRASH_AT", dies_at);
        command.output().expect("a run")
    }

    /// One run that gets a signal (Ctrl-C) at the point.
    pub fn interrupt(&self, host: usize, word: &str, point: &str) -> Output {
        let mut command = self.command(host, word);
        command.env("RBLOCKSYNC_STOP_AT", point);
        let run = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a run");
        let pid = Pid::from_child(&run);
        let stopped = waitid(
            WaitId::Pid(pid),
            WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
        )
        .expect("a run")
        .expect("its state");
        assert!(stopped.stopped(), "{point} was not reached");
        for signal in [Signal::INT, Signal::CONT] {
            kill_process(pid, signal).expect("a signal");
        }
        run.wait_with_output().expect("a run")
    }

    fn command(&self, host: usize, word: &str) -> Command {
        let other = &self.hosts[1 - host];
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command
            .arg(word)
            .arg(other.client_config())
            .env(FOLDER, self.folder(host).dir)
            .env(HEALTH, &self.health)
            .env("RBLOCKSYNC_STATE_DIR", self.state(host))
            .env("TMPDIR", self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// The same, and it must go well.
    pub fn run_well(&self, host: usize, word: &str) -> String {
        let run = self.run(host, word, "");
        let said = String::from_utf8_lossy(&run.stdout).into_owned();
        let failed = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{word}: {said}{failed}");
        said
    }

    pub fn runs(&self, host: usize) -> bool {
        self.folder(host).dir.join(RUNNING).exists()
    }

    pub fn stop(&self, host: usize) {
        fs::remove_file(self.folder(host).dir.join(RUNNING)).expect("a VM that runs");
    }

    /// What the guest has in its memory.
    pub fn memory(&self, host: usize) -> String {
        fs::read_to_string(self.folder(host).dir.join(MEMORY)).expect("a guest")
    }

    /// The guest on `host` is not left paused: it runs before long, or is gone.
    pub fn expect_guest(&self, host: usize, wanted: GuestState) {
        let until = Instant::now() + Duration::from_secs(60);
        while self.folder(host).state() != wanted {
            let state = self.folder(host).state();
            assert!(
                Instant::now() < until,
                "host {host}: the guest is {state:?}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether this host has taken the VM over.
    fn is_primary(&self, host: usize) -> bool {
        let pairs = targets_of(&Layout::new(self.state(host)), VM).expect("pairs");
        pairs.iter().any(|pair| pair.standing.role == Role::Primary)
    }

    /// What the VM is on a host; nothing if it was never there.
    pub fn vm_is(&self, host: usize) -> Option<State> {
        self.folder(host)
            .read()
            .expect("a VM")
            .map(|config| config.state)
    }

    /// What must be true whatever has happened: one host at most may run the VM.
    pub fn check(&self) {
        let startable = [0, 1].map(|host| self.vm_is(host) == Some(State::Vm));
        assert!(startable != [true, true], "both hosts may start the VM");
        assert!(!(self.runs(0) && self.runs(1)), "both hosts run the VM");
        for host in [0, 1] {
            assert!(
                !self.runs(host) || startable[host] || self.is_primary(host),
                "host {host} runs a replica"
            );
        }
        let violation = self.dir.path().join("mounted/hosts").join(VIOLATION);
        assert!(!violation.exists(), "both hosts have run the VM");
    }

    /// The VM runs on `host`, with this content, and the other one is its replica host.
    pub fn check_is_on(&self, host: usize, content: &[blake3::Hash; 2]) {
        self.check();
        assert!(self.runs(host), "it does not run on host {host}");
        assert!(matches!(self.vm_is(1 - host), Some(State::Replica(_))));
        assert_eq!(self.content(host), *content, "the VM's disks");
        let handover = self
            .state(1 - host)
            .join("handover")
            .join(format!("{VM}.json"));
        assert!(!handover.exists(), "nothing is pending");
        self.verify(1 - host);
    }

    /// The newest generation on a host is what its manifest says.
    fn verify(&self, host: usize) {
        let request = VerifyRequest {
            vm: VM.into(),
            generation: None,
            slice: None,
        };
        let layout = Layout::new(self.state(host));
        let verified = verify(&layout, &request, &Stop::new()).expect("a generation");
        let right = verified.disks.iter().all(VerifiedDisk::is_right);
        assert!(right && verified.disks.len() == 2, "{verified:?}");
    }
}

fn name(host: usize) -> &'static str {
    ["first", "second"][host]
}
