//! The smallest hypervisor that knows roles: a host is a folder with a VM's disks, its configuration, and a file that is
//! there while the VM runs. It refuses what a hypervisor with a guard refuses, and notes if two hosts run the VM.

use rblocksync::error::{Error, Kind, Result};
use rblocksync::hypervisor::{
    GuestState, Hold, Incoming, LiveHypervisor, LiveProfile, Published, RoleHypervisor,
    TargetHypervisor,
};
use rblocksync::image::ImageFormat;
use rblocksync::replica::{
    read_json, write_json, DiskSpec, Generation, Location, Placement, ReplicaRequest, TargetPair,
};
use rblocksync::stop::Stop;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Files of a host's folder.
pub const CONFIG: &str = "vm.json";
pub const RUNNING: &str = "running";
/// In its place while the guest does something else: it is paused, has been sent, or waits for its memory.
pub const PAUSED: &str = "paused";
pub const SENT: &str = "sent";
pub const WAITING: &str = "waiting";
/// What a guest has in its memory: something that no other one has.
pub const MEMORY: &str = "memory";
/// Beside the folders: what must never have happened.
pub const VIOLATION: &str = "violation";
/// In a host's folder: its VM does not start any more.
pub const BROKEN: &str = "broken";

/// What the VM is on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// A VM that may be started.
    Vm,
    /// One that has gone.
    Retired,
    /// A replica of this pair.
    Replica(Uuid),
}

/// The configuration of a VM: what it is, and its disks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    pub state: State,
    pub disks: BTreeMap<String, String>,
}

pub struct Folder {
    pub dir: PathBuf,
}

pub struct Held;

impl Hold for Held {}

fn refused(what: impl Into<String>) -> Error {
    Error::new(Kind::Refused, what)
}

impl Folder {
    pub fn name(&self) -> String {
        let name = self.dir.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    pub fn read(&self) -> Result<Option<Config>> {
        read_json(&self.dir.join(CONFIG))
    }

    fn write(&self, config: &Config) -> Result<()> {
        write_json(&self.dir.join(CONFIG), config)
    }

    fn be(&self, state: State) -> Result<()> {
        match self.read()? {
            Some(config) => self.write(&Config { state, ..config }),
            None => Err(refused("there is no VM here")),
        }
    }

    /// A guest is there, whatever it does.
    fn runs(&self) -> bool {
        self.state() != GuestState::Off
    }

    pub fn state(&self) -> GuestState {
        let is = |file: &str| self.dir.join(file).exists();
        match () {
            () if is(RUNNING) => GuestState::Running,
            () if is(PAUSED) => GuestState::Paused,
            () if is(SENT) => GuestState::Sent,
            () if is(WAITING) => GuestState::Waiting,
            () => GuestState::Off,
        }
    }

    /// Notes if another host runs the VM, too.
    fn run_as(&self, was: Option<&str>) -> Result<()> {
        if self.others_run() {
            let violation = self.dir.with_file_name(VIOLATION);
            let _ = fs::write(violation, "two hosts run the VM");
        }
        let running = self.dir.join(RUNNING);
        match was {
            Some(was) => fs::rename(self.dir.join(was), running),
            None => fs::write(running, ""),
        }
        .map_err(|e| Error::io("cannot run", e))
    }

    /// Ends a guest that does not run.
    fn end(&self) -> Result<()> {
        match self.state() {
            GuestState::Running => Err(refused("it runs")),
            _ => self.stop(""),
        }
    }

    /// Waits for a guest's memory: the process that `receive` starts.
    pub fn wait(&self, socket: &Path) -> std::io::Result<()> {
        let listener = UnixListener::bind(socket)?;
        listener.set_nonblocking(true)?;
        fs::write(self.dir.join(WAITING), "")?;
        let mut stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                // It is not wanted any more.
                Err(_) if !self.dir.join(WAITING).exists() => return Ok(()),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        stream.set_nonblocking(false)?;
        let mut memory = Vec::new();
        stream.read_to_end(&mut memory)?;
        if memory.last() != Some(&b'.') {
            return fs::remove_file(self.dir.join(WAITING));
        }
        fs::write(self.dir.join(MEMORY), memory)?;
        fs::rename(self.dir.join(WAITING), self.dir.join(PAUSED))
    }

    fn others_run(&self) -> bool {
        let hosts = self.dir.parent().map(fs::read_dir);
        let hosts = hosts
            .and_then(std::result::Result::ok)
            .into_iter()
            .flatten();
        hosts
            .flatten()
            .any(|host| host.path() != self.dir && host.path().join(RUNNING).exists())
    }

    /// Only a guarded replica of this pair, or nothing, may be replaced.
    fn check_free(&self, pair: Uuid) -> Result<()> {
        match self.read()? {
            _ if self.runs() => Err(refused("the VM runs here")),
            Some(config) if config.state != State::Replica(pair) => {
                Err(refused(format!("the VM here is {:?}", config.state)))
            }
            _ => Ok(()),
        }
    }
}

impl TargetHypervisor for Folder {
    fn describe(&self) -> Result<(String, String)> {
        Ok(("folders".into(), self.name()))
    }

    fn place(
        &self,
        request: &ReplicaRequest,
        known: &BTreeMap<String, String>,
    ) -> Result<Vec<Placement>> {
        self.check_free(request.pair)?;
        let place = |disk: &DiskSpec| {
            let fresh = || format!("{}-{}.raw", self.name(), disk.key);
            let volume = known.get(&disk.volume).cloned().unwrap_or_else(fresh);
            Placement {
                key: disk.key.clone(),
                location: Location::File {
                    subvolume: false,
                    path: self.dir.join(&volume),
                    format: disk.format,
                },
                volume,
            }
        };
        Ok(request.disks.iter().map(place).collect())
    }

    fn hold(&self, pair: &TargetPair) -> Result<Box<dyn Hold>> {
        self.check_free(pair.pair)?;
        Ok(Box::new(Held))
    }

    fn publish(&self, pair: &TargetPair, generations: &[Published]) -> Result<Vec<String>> {
        self.check_free(pair.pair)?;
        let Some(newest) = generations.last() else {
            return Ok(Vec::new());
        };
        let config: BTreeMap<String, String> = serde_json::from_str(&newest.generation.config)
            .map_err(|e| refused("no configuration").because(e))?;
        let disks = newest.generation.disks.iter();
        let target = |source: &String| {
            let mut disks = disks.clone();
            disks
                .find(|d| d.source == *source)
                .map(|d| d.target.clone())
        };
        let mut mapped = BTreeMap::new();
        for (key, source) in &config {
            let volume = target(source).ok_or_else(|| refused(format!("{key} has no volume")))?;
            mapped.insert(key.clone(), volume);
        }
        self.write(&Config {
            state: State::Replica(pair.pair),
            disks: mapped,
        })?;
        Ok(Vec::new())
    }
}

impl RoleHypervisor for Folder {
    fn is_running(&self, _: &str) -> Result<bool> {
        Ok(self.runs())
    }

    fn promote(&self, pair: &TargetPair, generation: &Generation) -> Result<Vec<String>> {
        match self.read()?.map(|config| config.state) {
            Some(State::Vm) => return Ok(Vec::new()),
            Some(State::Replica(of)) if of == pair.pair => {}
            other => return Err(refused(format!("cannot promote {other:?}"))),
        }
        let disks = generation.disks.iter();
        self.write(&Config {
            state: State::Vm,
            disks: disks.map(|d| (d.key.clone(), d.target.clone())).collect(),
        })?;
        Ok(Vec::new())
    }

    fn retire(&self, _: &str, _: &str) -> Result<Vec<String>> {
        match self.read()?.map(|config| config.state) {
            _ if self.runs() => Err(refused("it runs")),
            Some(State::Vm | State::Retired) => self.be(State::Retired).map(|()| Vec::new()),
            other => Err(refused(format!("cannot retire {other:?}"))),
        }
    }

    fn reinstate(&self, _: &str) -> Result<Vec<String>> {
        match self.read()?.map(|config| config.state) {
            Some(State::Vm | State::Retired) => self.be(State::Vm).map(|()| Vec::new()),
            other => Err(refused(format!("cannot reinstate {other:?}"))),
        }
    }

    fn config(&self, _: &str) -> Result<String> {
        let config = self.read()?.ok_or_else(|| refused("there is no VM here"))?;
        serde_json::to_string(&config.disks).map_err(|e| refused("no configuration").because(e))
    }

    fn locate(&self, volume: &str) -> Result<(Location, u64)> {
        let path = self.dir.join(volume);
        let size = fs::metadata(&path)
            .map_err(|e| Error::io(format!("cannot stat {}", path.display()), e))?
            .len();
        let format = ImageFormat::Raw;
        Ok((
            Location::File {
                path,
                format,
                subvolume: false,
            },
            size,
        ))
    }

    fn yield_to(&self, _: &str, pair: Uuid) -> Result<()> {
        match self.read()?.map(|config| config.state) {
            Some(State::Retired | State::Replica(_)) => self.be(State::Replica(pair)),
            other => Err(refused(format!("cannot yield {other:?}"))),
        }
    }

    fn start(&self, _: &str) -> Result<()> {
        if self.runs() {
            return Ok(());
        }
        fs::write(self.dir.join(MEMORY), new_memory()).map_err(|e| Error::io("no memory", e))?;
        match self.read()?.map(|config| config.state) {
            _ if self.dir.join(BROKEN).exists() => {
                return Err(Error::new(Kind::Tool, "QEMU says no"))
            }
            Some(State::Vm) => {}
            other => return Err(refused(format!("cannot start {other:?}"))),
        }
        self.run_as(None)
    }

    fn shut_down(&self, vm: &str, _: Duration) -> Result<bool> {
        self.stop(vm).map(|()| true)
    }

    fn stop(&self, _: &str) -> Result<()> {
        for file in [RUNNING, PAUSED, SENT, WAITING, MEMORY] {
            match fs::remove_file(self.dir.join(file)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("cannot stop", e))
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn guest_answers(&self, _: &str) -> Result<Option<bool>> {
        Ok(None)
    }
}

pub fn new_memory() -> String {
    format!("{}.", Uuid::new_v4())
}

impl LiveHypervisor for Folder {
    fn profile(&self, _: &str) -> Result<LiveProfile> {
        Ok(LiveProfile {
            memory: 37,
            details: "a folder".into(),
        })
    }

    fn pause(&self, _: &str) -> Result<Box<dyn Hold>> {
        fs::rename(self.dir.join(RUNNING), self.dir.join(PAUSED))
            .map_err(|e| Error::io("cannot pause", e))?;
        Ok(Box::new(Held))
    }

    fn send_memory(&self, _: &str, sockets: &[PathBuf], _: &Stop) -> Result<()> {
        let sent = fs::read(self.dir.join(MEMORY)).and_then(|memory| {
            UnixStream::connect(&sockets[0])?.write_all(&memory)?;
            fs::rename(self.dir.join(PAUSED), self.dir.join(SENT))
        });
        sent.map_err(|e| Error::io("cannot send", e))
    }

    fn retire_paused(&self, _: &str, _: &str) -> Result<Vec<String>> {
        match self.read()?.map(|config| config.state) {
            Some(State::Vm | State::Retired) => self.be(State::Retired).map(|()| Vec::new()),
            other => Err(refused(format!("cannot retire {other:?}"))),
        }
    }

    fn end_paused(&self, _: &str) -> Result<()> {
        self.end()
    }

    fn check_incoming(&self, _: &TargetPair, profile: &LiveProfile) -> Result<Vec<String>> {
        match self.dir.join(BROKEN).exists() {
            true => Err(refused("it could not go on here")),
            false => Ok(vec![format!("it comes from {}", profile.details)]),
        }
    }

    fn receive(&self, _: &TargetPair, _: &Generation, _: &LiveProfile) -> Result<Incoming> {
        let name = Uuid::new_v4().simple().to_string();
        let socket = std::env::temp_dir().join(&name[..12]);
        let cannot = |e| Error::io("nobody waits", e);
        Command::new(std::env::current_exe().map_err(cannot)?)
            .arg("waits")
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(cannot)?;
        let until = Instant::now() + Duration::from_secs(30);
        while self.state() != GuestState::Waiting {
            if Instant::now() > until {
                return Err(refused("nobody waits"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Incoming {
            sockets: vec![socket],
        })
    }

    fn end_received(&self, _: &TargetPair) -> Result<()> {
        self.end()
    }

    fn promote_received(&self, pair: &TargetPair, generation: &Generation) -> Result<Vec<String>> {
        self.promote(pair, generation)
    }

    fn guest(&self, _: &str) -> Result<GuestState> {
        Ok(self.state())
    }

    fn resume(&self, _: &str) -> Result<()> {
        match self.state() {
            GuestState::Running => Ok(()),
            GuestState::Paused => self.run_as(Some(PAUSED)),
            GuestState::Sent => self.run_as(Some(SENT)),
            state => Err(refused(format!("it is {state:?}"))),
        }
    }
}
