//! Two hosts in one: folders on an XFS, a QEMU to hold still, a real sshd, and a way there that can be cut.

use crate::checker::{self, Versions};
use crate::guest::Guest;
use crate::program::{DISKS, PROGRAM, RETRY, TARGET, WITHIN};
use crate::relay::Relay;
use rustix::process::{kill_process, Pid, Signal};
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tests::cli::{scribble, sparse_image, started_with, Mount, MIB};
use tests::sshd::{eventually, Sshd};

/// The fields go in this order, the directory that all the others are in last.
pub struct World {
    _guest: Guest,
    relay: Relay,
    sshd: Sshd,
    _mount: Mount,
    dir: tempfile::TempDir,
    versions: Versions,
    version: u64,
    shown: Option<u64>,
    /// How far the source's clock is ahead, in seconds.
    pub clock_s: i64,
    /// How long generations are kept besides the newest, in seconds.
    pub within_s: u64,
    /// How long runs try again after a lost connection, in seconds.
    pub retry_s: u64,
}

impl World {
    pub fn new() -> World {
        let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
        let mount = Mount::xfs(dir.path(), 512 * MIB);
        for name in ["source", "target"] {
            fs::create_dir(mount.dir().join(name)).expect("a folder");
        }
        let target = mount.dir().join("target").display().to_string();
        let state = dir.path().join("target-state").display().to_string();
        let env = [(TARGET, target.as_str()), ("RBLOCKSYNC_STATE_DIR", &state)];
        let sshd = Sshd::start_with(&env, "");
        let me = std::env::current_exe().expect("this program");
        let script = format!(
            "#!/bin/sh\nRBLOCKSYNC_CRASH_AT=$(cat '{}') exec '{}' \"$@\"\n",
            dir.path().join("agent-dies-at").display(),
            me.display()
        );
        sshd.install(PROGRAM, script.as_bytes());
        let relay = Relay::to(sshd.port());
        let config = fs::read_to_string(sshd.client_config()).expect("a configuration");
        let config = config.replace(&sshd.port().to_string(), &relay.port().to_string())
            + &format!("HostKeyAlias [127.0.0.1]:{}\n", sshd.port());
        fs::write(dir.path().join("ssh-config"), config).expect("a configuration");
        let guest = Guest::start(dir.path());
        let mut world = World {
            _mount: mount,
            sshd,
            relay,
            _guest: guest,
            versions: Versions::default(),
            version: 0,
            shown: None,
            clock_s: 0,
            within_s: 0,
            retry_s: 0,
            dir,
        };
        world.agent_dies_at("");
        for (seed, disk) in (1..).zip(DISKS) {
            sparse_image(world.disk(disk), 6 * MIB, &[(0, 2), (4, 1)], seed);
        }
        world.change();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn source(&self) -> PathBuf {
        self.path("mounted/source")
    }

    fn target(&self) -> PathBuf {
        self.path("mounted/target")
    }

    fn disk(&self, disk: &str) -> PathBuf {
        self.source().join(format!("{disk}.raw"))
    }

    /// The guest writes to both disks.
    pub fn change(&mut self) {
        self.version += 1;
        let at = self.version * 7919 * 4096 % (5 * MIB);
        for (seed, disk) in (self.version * 2..).zip(DISKS) {
            scribble(self.disk(disk), at, 300_000, seed);
        }
        self.versions.note(&self.source(), self.version);
    }

    /// The next agents die at this point of theirs.
    pub fn agent_dies_at(&self, point: &str) {
        let path = self.path("agent-dies-at");
        fs::write(&path, point).expect("a file");
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("a file");
    }

    /// The way to the target is cut after so many bytes.
    pub fn cut_after(&self, bytes: i64) {
        self.relay.cut_after(bytes);
    }

    /// The same, but the next connection holds.
    pub fn cut_once_after(&self, bytes: i64) {
        self.relay.cut_once_after(bytes);
    }

    /// Bytes that were left of what was allowed.
    pub fn mend(&self) -> i64 {
        self.relay.mend()
    }

    /// One run. The driver dies at the point, if one is named.
    pub fn run(&self, driver_dies_at: &str) -> Output {
        let mut run = self.command();
        run.env("RBLOCKSYNC_CRASH_AT", driver_dies_at);
        run.output().expect("a run")
    }

    /// One run that finds its state on another disk.
    pub fn run_with_state(&self, state: &Path) -> Output {
        let mut run = self.command();
        run.env("RBLOCKSYNC_STATE_DIR", state);
        run.output().expect("a run")
    }

    /// One run that is stopped at that point until `meanwhile` is done.
    pub fn run_stopped_at(&self, point: &str, meanwhile: impl FnOnce(&World)) -> Output {
        let mut run = self.command();
        run.env("RBLOCKSYNC_STOP_AT", point);
        let run = run.stdout(Stdio::piped()).stderr(Stdio::piped());
        let run = run.spawn().expect("a run");
        let pid = Pid::from_child(&run);
        eventually("the run has stopped", || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", run.id()));
            let stat = stat.unwrap_or_default();
            stat.rsplit_once(") ")
                .is_some_and(|(_, rest)| rest.starts_with('T'))
        });
        meanwhile(self);
        kill_process(pid, Signal::CONT).expect("a signal");
        run.wait_with_output().expect("a run")
    }

    fn command(&self) -> Command {
        let mut run = Command::new(std::env::current_exe().expect("this program"));
        run.arg("sync")
            .arg(self.source())
            .arg(self.path("monitor"))
            .arg(self.path("ssh-config"))
            .env("RBLOCKSYNC_STATE_DIR", self.path("source-state"))
            .env("RBLOCKSYNC_CLOCK_AHEAD_S", self.clock_s.to_string())
            .env(WITHIN, self.within_s.to_string())
            .env(RETRY, self.retry_s.to_string())
            .env("TMPDIR", self.dir.path())
            .stdin(Stdio::null());
        run
    }

    /// Kills the agents. Returns how many there were.
    pub fn kill_agents(&self) -> usize {
        let agents = tests::cli::agents(&self.sshd);
        for pid in &agents {
            let pid = Pid::from_raw(*pid as i32).expect("a process");
            // One that ends by itself meanwhile is fine.
            let _ = kill_process(pid, Signal::KILL);
        }
        agents.len()
    }

    /// Has either host put right what was left on it.
    pub fn doctor(&self) -> String {
        self.agent_dies_at("");
        let hosts = [
            (self.source(), "source-state"),
            (self.target(), "target-state"),
        ];
        let mut said = String::new();
        for (folder, state) in hosts {
            let run = Command::new(std::env::current_exe().expect("this program"))
                .arg("doctor")
                .arg(folder)
                .env("RBLOCKSYNC_STATE_DIR", self.path(state))
                .output()
                .expect("a run");
            said += &String::from_utf8_lossy(&run.stdout);
            assert!(run.status.success(), "{run:?}");
        }
        checker::nothing_else(&self.source());
        said
    }

    /// Presses the guest's reset button.
    pub fn reset_guest(&self) {
        let answer = checker::qemu(&self.path("side"), "system_reset");
        assert!(answer["return"].is_object(), "{answer}");
    }

    /// What is on both disks.
    pub fn save(&self) -> [Vec<u8>; 2] {
        DISKS.map(|disk| fs::read(self.disk(disk)).expect("a disk"))
    }

    /// Rolls both disks back.
    pub fn roll_back(&mut self, to: &[Vec<u8>; 2]) {
        for (disk, bytes) in DISKS.iter().zip(to) {
            fs::write(self.disk(disk), bytes).expect("a disk");
        }
        self.version += 1;
        self.versions.note(&self.source(), self.version);
    }

    /// Has the target's replica verified, from the source's host.
    pub fn verify(&self, options: &[&str]) -> Output {
        let mut run = Command::new(std::env::current_exe().expect("this program"));
        run.args(["verify", "101", "--to", tests::sshd::HOST])
            .args(options)
            .arg("--ssh-config")
            .arg(self.path("ssh-config"))
            .arg("--folder")
            .arg(self.source())
            .env("RBLOCKSYNC_STATE_DIR", self.path("source-state"))
            .env("TMPDIR", self.dir.path());
        run.output().expect("a run")
    }

    /// Turns the bits of a block of disk `a` over, in the newest generation and in what boots.
    pub fn damage(&self, block: u64) {
        let newest = checker::shown(&self.target()).into_iter().last();
        let sealed = format!(".a.raw.rbs{}", newest.expect("a generation"));
        for name in [&sealed, "a.raw"] {
            turn_over(&self.target().join(name), block);
        }
    }

    /// The same at the source; twice, and it is as it was.
    pub fn turn_source_over(&self, block: u64) {
        turn_over(&self.disk("a"), block);
    }

    /// What must be true whatever has happened.
    pub fn check_after_a_crash(&mut self, head: bool) {
        checker::source_is(&self.versions, &self.source(), self.version);
        let shown = checker::newest_shown(&self.versions, &self.target(), head);
        assert!(shown >= self.shown, "a generation was lost");
        self.shown = shown;
        let monitor = self.path("side");
        eventually("the guest runs", || {
            checker::guest_is(&monitor) == "running"
        });
    }

    /// A plain run, after which all must be well.
    pub fn converge(&mut self) {
        self.agent_dies_at("");
        self.mend();
        let run = self.run("");
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{said}");
        self.check_after_a_crash(true);
        assert_eq!(self.shown, Some(self.version), "{said}");
        checker::nothing_else(&self.source());
        checker::nothing_else(&self.target());
        eventually("nobody is left", || self.processes().is_empty());
    }

    /// Programs that runs have started. The master of a killed driver goes by itself, some seconds later.
    fn processes(&self) -> Vec<(u32, String)> {
        started_with(self.dir.path(), |args| !args.starts_with("ssh "))
    }

    /// How many generations are shown.
    pub fn generations(&self) -> usize {
        checker::shown(&self.target()).len()
    }

    /// The newest version that is shown.
    pub fn shown(&self) -> Option<u64> {
        self.shown
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    /// What sshd has logged.
    pub fn log(&self) -> String {
        self.sshd.log()
    }
}

fn turn_over(path: &Path, block: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path);
    let file = file.expect("a disk");
    let mut bytes = [0; 4096];
    file.read_exact_at(&mut bytes, block * 4096)
        .expect("a block");
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
    file.write_all_at(&bytes, block * 4096).expect("a block");
    file.sync_all().expect("a disk");
}
