//! This host as the target of a replication: where volumes go, and the replica's definition.

use crate::disks::{self, Choice, Place, NVRAM};
use crate::domain::{check_name, Domain};
use crate::foreign::{here, told};
use crate::host::{Found, Host};
use crate::marks::{self, mark_of, set_mark, Mark};
use crate::placement::Placing;
use crate::pools;
use crate::replica_xml::{render, Here, Wanted};
use crate::source;
use crate::standstill;
use libvirt_domain::guest::{cut_vars, foreign, ours, Put, FORM};
use rblocksync::error::{Error, Kind, Result};
use rblocksync::hypervisor::{Hold, Published, TargetHypervisor};
use rblocksync::replica::{
    set_guard, Generation, Layout, Placement, ReplicaRequest, Role, TargetPair,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;

/// A host with libvirt that keeps replicas.
pub struct VirtTarget {
    pub(crate) host: Arc<dyn Host>,
    pub(crate) layout: Layout,
    /// Where variables of firmware are kept that come out of larger volumes.
    pub(crate) nvram: PathBuf,
}

/// Nothing has to be held: a replica cannot be started while it is one.
struct Held;

impl Hold for Held {}

impl VirtTarget {
    /// The host that `host` speaks for, with the suite's state under `layout`.
    pub fn new(host: Arc<dyn Host>, layout: Layout) -> Self {
        VirtTarget {
            host,
            layout,
            nvram: PathBuf::from("/var/lib/libvirt/qemu/nvram"),
        }
    }

    /// The file for the variables of a domain's firmware, where they come out of a larger volume.
    pub(crate) fn vars_file(&self, name: &str) -> PathBuf {
        self.nvram.join(format!("{name}_VARS.fd"))
    }

    /// Refuses a name that another domain has, and a replica that is in use. Gives what is there.
    fn check_free(&self, pair: Uuid, name: &str) -> Result<Option<Found>> {
        check_name(name)?;
        let Some(found) = self.host.domain(name)? else {
            return Ok(None);
        };
        let here = self.host.name()?;
        match mark_of(&Domain::parse(&found.xml)?) {
            Some(Mark::Replica { pair: of, .. }) if of == pair => {}
            Some(Mark::TakenOver { pair: of, .. }) if of == pair => {
                return Err(Error::new(
                    Kind::Refused,
                    format!(
                        "on {here}: the replica {name} was taken over, and is the VM itself now"
                    ),
                )
                .advise("'status' on both hosts tells the roles"))
            }
            _ => {
                return Err(Error::new(
                    Kind::Refused,
                    format!("on {here} there is another domain {name}, which is not this replica"),
                )
                .advise("choose another name for the replica with --target-name"))
            }
        }
        match found.state.is_active() {
            false => Ok(Some(found)),
            true => Err(
                Error::new(Kind::Busy, format!("on {here}: domain {name} is running"))
                    .advise("the replica cannot be brought up to date while it is in use"),
            ),
        }
    }

    /// The UUID that the replica has here: what it has already, the source's, or one of its own if its name is another.
    fn uuid_of(pair: Uuid, names: (&str, &str), present: Option<&Found>) -> Option<Uuid> {
        match present {
            Some(found) => Some(found.uuid),
            None => (names.0 != names.1).then_some(pair),
        }
    }

    /// Refuses a UUID that another domain has: libvirt would take the one for the other.
    fn check_uuid(&self, uuid: Option<Uuid>, name: &str) -> Result<()> {
        let Some(uuid) = uuid else { return Ok(()) };
        match self.host.domain_of(uuid)? {
            Some(other) if other.name != name => Err(Error::new(
                Kind::Refused,
                format!(
                    "on {} the domain {} has the UUID {uuid} already",
                    self.host.name()?,
                    other.name
                ),
            )
            .advise("with --target-name the replica gets another name, and a UUID of its own")),
            _ => Ok(()),
        }
    }

    /// The definition as of `generation` with its disks under their own names, and notes.
    pub(crate) fn rendered(
        &self,
        (name, uuid): (&str, Option<Uuid>),
        map: &[(String, String)],
        generation: &Generation,
    ) -> Result<(Domain, Vec<String>)> {
        let networks = self.host.networks()?;
        let translated = ours(generation, &here(self.host.as_ref(), map)?)?;
        let wanted = Wanted {
            generation: &translated.generation,
            name,
            uuid,
            // What comes from another kind of hypervisor has been mapped already.
            map: if translated.keys.is_empty() { map } else { &[] },
        };
        let exists = |path: &Path| path.exists();
        let here = Here {
            networks: &networks,
            exists: &exists,
        };
        let (mut domain, mut notes) = render(&wanted, &here)?;
        if translated.vars_bytes.is_some() {
            domain.set_nvram(&self.vars_file(name).display().to_string());
        }
        notes.extend(told(&translated.left));
        Ok((domain, notes))
    }

    /// Cuts the variables of the firmware out of a volume that is larger, where another kind of hypervisor made it so.
    pub(crate) fn cut_vars(&self, name: &str, generation: &Generation) -> Result<()> {
        let translated = ours(generation, &Put::default())?;
        let disks = translated.generation.disks.iter();
        let vars = disks
            .filter(|disk| disk.key == NVRAM)
            .zip(translated.vars_bytes)
            .next();
        let Some((disk, bytes)) = vars else {
            return Ok(());
        };
        if !disk.location.format().is_raw() {
            return Err(Error::new(
                Kind::Refused,
                format!(
                    "the variables of the firmware are in {}, which is not raw",
                    disk.location
                ),
            ));
        }
        let file = self.vars_file(name);
        std::fs::create_dir_all(&self.nvram)
            .map_err(|e| Error::io(format!("cannot make {}", self.nvram.display()), e))?;
        cut_vars(Path::new(&disk.target), &file, bytes)
    }

    /// Makes the state of the domain's TPM what it was in `generation`. Returns notes.
    pub(crate) fn place_tpm(
        &self,
        domain: &Domain,
        generation: &Generation,
    ) -> Result<Vec<String>> {
        match &generation.state {
            Some(state) => self.host.tpms().write(domain, state),
            None => Ok(Vec::new()),
        }
    }

    /// The same for the replica of `pair`, which is `present` already or not.
    pub(crate) fn rendered_replica(
        &self,
        pair: &TargetPair,
        generation: &Generation,
        present: Option<&Found>,
    ) -> Result<(Domain, Vec<String>)> {
        let uuid = match foreign(generation.described.as_deref()) {
            None => Self::uuid_of(pair.pair, (&pair.vm, &pair.target_vm), present),
            // Ids have another form there, so another name means nothing.
            Some(_) => present.map(|found| found.uuid),
        };
        self.rendered((&pair.target_vm, uuid), &pair.maps.networks, generation)
    }

    /// Defines what is not to be started here.
    pub(crate) fn define_still(&self, mut domain: Domain) -> Result<()> {
        standstill::impose(&mut domain);
        self.host.define(&domain.to_string())?;
        self.host.set_autostart(&domain.name(), false)
    }

    /// Pools tell of new volumes only when they have looked.
    fn refresh_pools(&self, generation: &Generation) {
        let Ok(pools) = pools::all(self.host.as_ref()) else {
            return;
        };
        for pool in pools.iter().filter(|pool| pool.active) {
            let mut targets = generation.disks.iter().map(|d| Path::new(&d.target));
            if targets.any(|path| pool.holds(path)) {
                // It only shows them later.
                let _ = self.host.refresh(&pool.name);
            }
        }
    }
}

impl TargetHypervisor for VirtTarget {
    fn describe(&self) -> Result<(String, String)> {
        Ok(("libvirt".into(), self.host.name()?))
    }

    fn form(&self) -> &'static str {
        FORM
    }

    fn place(
        &self,
        request: &ReplicaRequest,
        known: &BTreeMap<String, String>,
    ) -> Result<Vec<Placement>> {
        let name = request.target_vm.as_deref().unwrap_or(&request.vm);
        let present = self.check_free(request.pair, name)?;
        let source_pools = match foreign(request.described.as_deref()) {
            None => {
                let config = Domain::parse(&request.config)?;
                let uuid = Self::uuid_of(request.pair, (&request.vm, name), present.as_ref());
                self.check_uuid(uuid.or(config.uuid()), name)?;
                marks::pools_of(&config)
            }
            Some(described) => {
                let guest = described.guest()?;
                let uuid = present.as_ref().map(|found| found.uuid);
                self.check_uuid(uuid.or(guest.uuid), name)?;
                BTreeMap::new()
            }
        };
        let present = match &present {
            Some(found) => disks::decide(&source::definition(found)?, &Choice::everything())?.disks,
            None => Vec::new(),
        };
        let host = self.host.name()?;
        let pools = pools::all(self.host.as_ref())?;
        let placing = Placing {
            host: &host,
            pools: &pools,
            map: &request.storage_map,
            vm: &request.vm,
            target_vm: name,
        };
        let mut taken: BTreeSet<String> = known.values().cloned().collect();
        let mut placements = Vec::new();
        for disk in &request.disks {
            let wanted = request.formats.iter().find(|(key, _)| *key == disk.key);
            let wanted = wanted.map(|(_, format)| *format);
            let placed = match known.get(&disk.volume) {
                Some(volume) => {
                    let is_it = |d: &&disks::Disk| {
                        d.key == disk.key || d.place == Place::Path(PathBuf::from(volume))
                    };
                    let defined = present.iter().find(is_it).map(|d| d.format);
                    let format = defined.or(wanted).unwrap_or(disk.format);
                    let location = placing.again(volume, format);
                    location.and_then(|location| {
                        match wanted.is_some_and(|w| w != location.format()) {
                            false => Ok((volume.clone(), location)),
                            true => Err(Error::new(
                                Kind::Refused,
                                format!(
                                    "{volume} is {}, and cannot be another format",
                                    location.format()
                                ),
                            )
                            .advise("leave --format out")),
                        }
                    })
                }
                None => {
                    let pool = source_pools.get(&disk.key).map(String::as_str);
                    placing.fresh(disk, pool, wanted, &taken)
                }
            };
            let (volume, location) = placed.map_err(|e| e.context(format!("disk {}", disk.key)))?;
            taken.insert(volume.clone());
            placements.push(Placement {
                key: disk.key.clone(),
                volume,
                location,
            });
        }
        Ok(placements)
    }

    fn hold(&self, pair: &TargetPair) -> Result<Box<dyn Hold>> {
        self.check_free(pair.pair, &pair.target_vm)?;
        Ok(Box::new(Held))
    }

    fn publish(&self, pair: &TargetPair, generations: &[Published]) -> Result<Vec<String>> {
        let Some(newest) = generations.last().map(|p| p.generation) else {
            return Ok(Vec::new());
        };
        let present = self.check_free(pair.pair, &pair.target_vm)?;
        let (mut domain, notes) = self.rendered_replica(pair, newest, present.as_ref())?;
        self.check_uuid(domain.uuid(), &pair.target_vm)?;
        if pair.standing.role == Role::Replica {
            let why = format!(
                "it is the replica of {} on {}, and the next sync overwrites it",
                pair.vm, pair.source_name
            );
            set_guard(&self.layout, &pair.target_vm, pair.standing, &why)?;
        }
        let note = format!(
            "Replica of {} on {}, generation {} of {}. To start it: {} failover {}",
            pair.vm,
            pair.source_name,
            newest.name(),
            newest.taken_at,
            source::PROGRAM,
            pair.target_vm
        );
        set_mark(
            &mut domain,
            Some(&Mark::Replica {
                pair: pair.pair,
                note,
            }),
        );
        self.define_still(domain)?;
        self.refresh_pools(newest);
        Ok(notes)
    }
}
