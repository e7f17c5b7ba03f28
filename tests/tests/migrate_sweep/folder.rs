//! The smallest hypervisor that knows roles: a host is a folder with a VM's disks, its configuration, and a file that is
//! there while the VM runs. It refuses what a hypervisor with a guard refuses, and notes if two hosts run the VM.

use rblocksync::error::{Error, Kind, Result};
use rblocksync::hypervisor::{Hold, Published, RoleHypervisor, TargetHypervisor};
use rblocksync::image::ImageFormat;
use rblocksync::replica::{
    read_json, write_json, DiskSpec, Generation, Location, Placement, ReplicaRequest, TargetPair,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use uuid::Uuid;

/// Files of a host's folder.
pub const CONFIG: &str = "vm.json";
pub const RUNNING: &str = "running";
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

    fn runs(&self) -> bool {
        self.dir.join(RUNNING).exists()
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
        match self.read()?.map(|config| config.state) {
            _ if self.dir.join(BROKEN).exists() => {
                return Err(Error::new(Kind::Tool, "QEMU says no"))
            }
            Some(State::Vm) => {}
            other => return Err(refused(format!("cannot start {other:?}"))),
        }
        if self.others_run() {
            let violation = self.dir.with_file_name(VIOLATION);
            let _ = fs::write(violation, "two hosts run the VM");
        }
        fs::write(self.dir.join(RUNNING), "").map_err(|e| Error::io("cannot start", e))
    }

    fn shut_down(&self, vm: &str, _: Duration) -> Result<bool> {
        self.stop(vm).map(|()| true)
    }

    fn stop(&self, _: &str) -> Result<()> {
        match fs::remove_file(self.dir.join(RUNNING)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("cannot stop", e)),
            _ => Ok(()),
        }
    }

    fn guest_answers(&self, _: &str) -> Result<Option<bool>> {
        Ok(None)
    }
}
