//! Decides for every disk of a domain: replicated, left out, or in the way of a replica that deserves the name.
//!
//! Only the definition is looked at. What is not understood is refused by its name: a replica without a disk would look
//! whole and not be.

mod hidden;

pub(crate) use hidden::hostdev;
#[cfg(test)]
mod tests;

use crate::domain::{disk_key, Domain};
use crate::tpm;
use crate::xml::Element;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::image::ImageFormat;
use std::path::PathBuf;

/// Key of the file that the firmware keeps its variables in.
pub const NVRAM: &str = "nvram";
/// What leaves out the state of an emulated TPM.
pub const TPM: &str = "tpm";
/// What leaves out the memory devices that are files of this host.
pub const NVDIMM: &str = "nvdimm";
/// What leaves out drives that QEMU gets without libvirt's knowing.
pub const COMMANDLINE: &str = "commandline";

/// Which disks are wanted.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// Keys of disks that are left out.
    pub exclude: Vec<String>,
    /// Pass over what cannot be replicated, instead of refusing it: for whoever only looks.
    pub passes_over: bool,
}

impl Choice {
    /// All disks but these.
    pub fn without(exclude: &[String]) -> Choice {
        Choice {
            exclude: exclude.to_vec(),
            passes_over: false,
        }
    }

    /// All that can be replicated.
    pub fn everything() -> Choice {
        Choice {
            exclude: Vec::new(),
            passes_over: true,
        }
    }

    fn excludes(&self, key: &str) -> bool {
        self.exclude.iter().any(|e| e == key)
    }
}

/// Where a disk's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file or a block device.
    Path(PathBuf),
    /// A volume of a pool, which has to be asked for its path.
    Volume {
        /// The pool.
        pool: String,
        /// The volume.
        volume: String,
    },
}

/// A disk that is replicated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Its key.
    pub key: String,
    /// Where it is.
    pub place: Place,
    /// What its bytes are.
    pub format: ImageFormat,
}

/// What was decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decided {
    /// Disks that are replicated.
    pub disks: Vec<Disk>,
    /// Keys of disks that are left out because somebody said so, and why.
    pub excluded: Vec<(String, String)>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Decides about all disks. Refuses the domain if one of them can be neither replicated nor left out.
pub fn decide(domain: &Domain, choice: &Choice) -> Result<Decided> {
    let mut decided = Decided::default();
    for disk in domain.disks() {
        decided.disk(disk, choice)?;
    }
    decided.nvram(domain, choice)?;
    decided.tpm(domain, choice)?;
    for what in hidden::hidden(domain) {
        decided.leave(
            what.key,
            &what.what,
            choice,
            "it is not part of the replica",
        )?;
    }
    if let Some(unknown) = choice.exclude.iter().find(|e| !decided.is_known(e, domain)) {
        return Err(Error::new(
            Kind::Usage,
            format!("--exclude {unknown}: the domain has no such disk"),
        )
        .advise("'virsh domblklist' shows the targets of its disks"));
    }
    decided.notes.extend(hidden::notes(domain));
    if decided.disks.is_empty() && !choice.passes_over {
        return Err(Error::new(
            Kind::Refused,
            format!(
                "domain {} has no disk that could be replicated",
                domain.name()
            ),
        ));
    }
    Ok(decided)
}

impl Decided {
    fn disk(&mut self, disk: &Element, choice: &Choice) -> Result<()> {
        let key = disk_key(disk);
        check_key(key)?;
        if self.disks.iter().any(|d| d.key == key) || self.excluded.iter().any(|(k, _)| k == key) {
            let what = format!("there are two disks {key} in the definition");
            return Err(Error::new(Kind::Protocol, what));
        }
        let device = disk.attribute("device").unwrap_or("disk");
        if matches!(device, "cdrom" | "floppy") {
            if disk.child("source").is_some() {
                self.notes.push(format!(
                    "{key}: what is in the {device} drive is not replicated"
                ));
            }
            return Ok(());
        }
        if choice.excludes(key) {
            self.excluded.push((key.to_owned(), "--exclude".to_owned()));
            return Ok(());
        }
        match replicable(disk, device) {
            Ok(found) => self.disks.push(found),
            Err(_) if choice.passes_over => {}
            Err(e) => {
                return Err(e.context(format!("disk {key}")).advise(format!(
                    "if the replica is to do without it: --exclude {key}"
                )))
            }
        }
        if disk.child("readonly").is_some() {
            self.notes.push(format!(
                "{key}: the guest only reads it; it is replicated all the same"
            ));
        }
        Ok(())
    }

    fn nvram(&mut self, domain: &Domain, choice: &Choice) -> Result<()> {
        let Some(path) = domain.nvram() else {
            return Ok(());
        };
        if choice.excludes(NVRAM) {
            self.excluded
                .push((NVRAM.to_owned(), "--exclude".to_owned()));
            return Ok(());
        }
        let format = domain.nvram_format().parse();
        let format = format.map_err(|e: Error| e.context("the firmware's variables"))?;
        self.disks.push(Disk {
            key: NVRAM.to_owned(),
            place: Place::Path(path.into()),
            format,
        });
        Ok(())
    }

    /// The state of an emulated TPM, which is no disk, and goes with the generation all the same.
    fn tpm(&mut self, domain: &Domain, choice: &Choice) -> Result<()> {
        let Some(backend) = tpm::emulated(domain) else {
            return Ok(());
        };
        match (tpm::out_of_reach(backend), choice.excludes(TPM)) {
            (None, false) => {
                self.notes.extend(tpm::notes(backend));
                Ok(())
            }
            (why, _) => self.leave(
                TPM,
                why.unwrap_or("the state of its emulated TPM is left out"),
                choice,
                "the replica gets a new TPM: what the guest has sealed with this one, like the key of \
                 its encrypted disk, it will not find there",
            ),
        }
    }

    /// Something that cannot be replicated, and is a part of the VM.
    fn leave(&mut self, key: &str, what: &str, choice: &Choice, then: &str) -> Result<()> {
        if choice.excludes(key) {
            self.excluded.push((key.to_owned(), "--exclude".to_owned()));
            self.notes.push(format!("{what}: {then}"));
            return Ok(());
        }
        match choice.passes_over {
            true => Ok(()),
            false => Err(Error::new(Kind::Refused, what).advise(format!(
                "if the replica is to do without it: --exclude {key}"
            ))),
        }
    }

    fn is_known(&self, key: &str, domain: &Domain) -> bool {
        self.excluded.iter().any(|(k, _)| k == key)
            || self.disks.iter().any(|d| d.key == key)
            || domain.disks().any(|d| disk_key(d) == key)
    }
}

/// A key becomes a part of options and of files' names.
fn check_key(key: &str) -> Result<()> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    match !key.is_empty() && key.len() <= 64 && key.bytes().all(fits) && key != NVRAM {
        true => Ok(()),
        false => Err(Error::new(
            Kind::Refused,
            format!("a disk has the target {key:?}, which cannot be used as its name"),
        )),
    }
}

/// The disk, or why it cannot be replicated.
fn replicable(disk: &Element, device: &str) -> Result<Disk> {
    let refused = |why: &str| Err(Error::new(Kind::Refused, why));
    if device != "disk" {
        return refused(&format!(
            "it is of the kind {device:?}, whose content is not this host's to read"
        ));
    }
    if disk.child("transient").is_some() {
        return refused("it is transient: what the guest writes to it is thrown away when it ends");
    }
    if disk.child("shareable").is_some() {
        return refused(
            "it is shareable: other guests may write to it, so it has no state of its own",
        );
    }
    if disk.child("mirror").is_some() {
        return refused("a block job of libvirt's copies it at the moment");
    }
    let Some(source) = disk.child("source") else {
        return refused("nothing is in it");
    };
    for (child, why) in [
        ("encryption", "it is encrypted by QEMU"),
        ("slices", "it is a part of a file only"),
        ("reservations", "it has reservations of SCSI"),
        ("dataStore", "its data are in a file of their own"),
    ] {
        if source.child(child).or(disk.child(child)).is_some() {
            return refused(&format!("{why}, which cannot be replicated"));
        }
    }
    Ok(Disk {
        key: disk_key(disk).to_owned(),
        place: place(disk, source)?,
        format: format_of(disk)?,
    })
}

fn place(disk: &Element, source: &Element) -> Result<Place> {
    let refused = |why: String| Err(Error::new(Kind::Refused, why));
    let path = |name: &str| match source.attribute(name) {
        Some(path) if path.starts_with('/') => Ok(Place::Path(path.into())),
        Some(path) => refused(format!("{path:?} is no absolute path")),
        None => refused("its source has no name".to_owned()),
    };
    match disk.attribute("type").unwrap_or("file") {
        "file" => path("file"),
        "block" => path("dev"),
        "volume" => match (source.attribute("pool"), source.attribute("volume")) {
            (Some(pool), Some(volume)) => Ok(Place::Volume {
                pool: pool.to_owned(),
                volume: volume.to_owned(),
            }),
            _ => refused("its source names no volume of a pool".to_owned()),
        },
        "network" => refused(format!(
            "it is reached over the network by {}, so it is not this host's alone",
            source
                .attribute("protocol")
                .unwrap_or("an unknown protocol")
        )),
        other => refused(format!(
            "it is of the type {other:?}, which cannot be replicated"
        )),
    }
}

/// Never found by looking: a guest can write any header to its own disk.
fn format_of(disk: &Element) -> Result<ImageFormat> {
    match disk.child("driver").and_then(|d| d.attribute("type")) {
        Some(format) => format.parse().map_err(|_| {
            Error::new(
                Kind::Refused,
                format!("it is of the format {format:?}: only raw and qcow2 can be replicated"),
            )
        }),
        None => Err(Error::new(
            Kind::Refused,
            "its definition does not tell its format, and guessing it is not safe",
        )),
    }
}
