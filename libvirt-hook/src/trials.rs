//! A clone of a replica's generation as a domain of its own, for a test whether it boots.

use crate::domain::{check_name, Domain};
use crate::marks::{mark_of, set_mark, Mark};
use crate::replica_xml::isolate;
use crate::target::VirtTarget;
use crate::volumes;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::files::remove_present;
use rblocksync::hypervisor::{RoleHypervisor, TrialHypervisor, VmSockets};
use rblocksync::image::ImageFormat;
use rblocksync::lvm::LvId;
use rblocksync::replica::{trials, Generation, Location, Placement, TargetPair, Trial};
use std::path::{Path, PathBuf};

/// How many names are tried if none is asked for.
const SPARE_MAX: u32 = 1000;

impl TrialHypervisor for VirtTarget {
    fn spare_vm(&self, wanted: Option<&str>) -> Result<String> {
        if let Some(wanted) = wanted {
            check_name(wanted)?;
            return match self.host.domain(wanted)? {
                None => Ok(wanted.to_owned()),
                Some(_) => Err(taken(wanted)),
            };
        }
        let tested = trials(&self.layout)?;
        for number in 1..=SPARE_MAX {
            let name = format!("rblocksync-test-{number}");
            if !tested.iter().any(|t| t.vm == name) && self.host.domain(&name)?.is_none() {
                return Ok(name);
            }
        }
        Err(Error::new(Kind::Refused, "no name is left for a clone")
            .advise("name one with --test-name"))
    }

    fn place_clones(
        &self,
        vm: &str,
        generation: &Generation,
        formats: &[ImageFormat],
    ) -> Result<Vec<Placement>> {
        let placed = generation.disks.iter().zip(formats).map(|(disk, format)| {
            let name = format!("{vm}-{}", disk.key);
            let location = match &disk.location {
                Location::ThinLv { lv, pool } => Location::ThinLv {
                    lv: LvId::new(lv.vg(), &name)?,
                    pool: pool.clone(),
                },
                Location::ThickLv { lv } => Location::ThickLv {
                    lv: LvId::new(lv.vg(), &name)?,
                },
                Location::File { path, .. } => {
                    let path = path.with_file_name(format!("{name}.{format}"));
                    if path.symlink_metadata().is_ok() {
                        let what = format!("{} exists already", path.display());
                        return Err(Error::new(Kind::Refused, what)
                            .advise("remove it, or choose another name with --test-name"));
                    }
                    Location::File {
                        path,
                        format: *format,
                        subvolume: false,
                    }
                }
            };
            Ok(Placement {
                key: disk.key.clone(),
                volume: volume_of(&location).display().to_string(),
                location,
            })
        });
        placed.collect()
    }

    fn show_clone(
        &self,
        _pair: &TargetPair,
        generation: &Generation,
        trial: &Trial,
    ) -> Result<Vec<String>> {
        let mut of_clone = generation.clone();
        for (disk, placement) in of_clone.disks.iter_mut().zip(&trial.disks) {
            disk.target = placement.volume.clone();
            disk.location = placement.location.clone();
        }
        let (mut domain, mut notes) = self.rendered((&trial.vm, Some(trial.id)), &[], &of_clone)?;
        notes.extend(isolate(&mut domain, self.without_null()));
        let note = format!(
            "Test of generation {} of replica {}. It goes by itself, with its disks.",
            generation.name(),
            trial.replica
        );
        set_mark(&mut domain, Some(&Mark::Trial { id: trial.id, note }));
        if self.host.domain(&trial.vm)?.is_some() {
            return Err(taken(&trial.vm));
        }
        self.cut_vars(&trial.vm, &of_clone)?;
        volumes::activate(&of_clone)?;
        self.host.define(&domain.to_string())?;
        notes.extend(self.place_tpm(&domain, generation)?);
        Ok(notes)
    }

    fn end_clone(&self, trial: &Trial) -> Result<()> {
        if !self.is_clone(trial)? {
            return Ok(());
        }
        self.stop(&trial.vm)?;
        match self.is_clone(trial)? {
            true => {
                self.host.tpms().remove(trial.id)?;
                self.host.undefine(&trial.vm)?;
                // Only a clone of another kind of hypervisor's VM has one of its own.
                let vars = self.vars_file(&trial.vm);
                remove_present(&vars).map(drop)
            }
            false => Ok(()),
        }
    }

    /// libvirt has the only connection to both.
    fn sockets(&self, vm: &str) -> Result<VmSockets> {
        Ok(VmSockets {
            monitor: PathBuf::new(),
            agent: self.agent_socket(vm)?,
        })
    }
}

impl VirtTarget {
    /// Whether the domain of this name is the clone of this very test.
    fn is_clone(&self, trial: &Trial) -> Result<bool> {
        let Some(found) = self.host.domain(&trial.vm)? else {
            return Ok(false);
        };
        let mark = mark_of(&Domain::parse(&found.xml)?);
        Ok(matches!(mark, Some(Mark::Trial { id, .. }) if id == trial.id))
    }

    /// Releases before 8.7 know no network device that is connected to nothing.
    fn without_null(&self) -> bool {
        self.host.version().is_ok_and(|version| version < 8_007_000)
    }

    fn agent_socket(&self, vm: &str) -> Result<PathBuf> {
        let found = crate::source::found(self.host.as_ref(), vm)?;
        let domain = Domain::parse(found.live.as_ref().unwrap_or(&found.xml))?;
        let mut channels = domain.devices().filter(|d| d.name == "channel");
        let path = channels.find_map(|d| d.child("source")?.attribute("path"));
        Ok(path.map(PathBuf::from).unwrap_or_default())
    }
}

/// The path by which a volume of this host is named.
fn volume_of(location: &Location) -> PathBuf {
    match location {
        Location::ThinLv { lv, .. } | Location::ThickLv { lv } => {
            Path::new("/dev").join(lv.vg()).join(lv.name())
        }
        Location::File { path, .. } => path.clone(),
    }
}

fn taken(name: &str) -> Error {
    Error::new(Kind::Refused, format!("there is a domain {name} already"))
        .advise("choose another name with --test-name")
}
