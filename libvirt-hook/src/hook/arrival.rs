//! A domain is about to arrive from another host: whether it may, where its disks are here, and what is made for it.

use super::config::{Config, Size};
use super::state::{announce, away, door, uuid_in, Door, Guard};
use super::{note, Answer};
use crate::xml::Element;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::qemu;
use rblocksync::replica::Layout;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use uuid::Uuid;

pub(super) fn arrives(
    layout: &Layout,
    config: &Path,
    vm: &str,
    document: Result<Vec<u8>>,
) -> Result<Answer> {
    let guard = Guard::find(layout, vm)?;
    let note = note::find(layout, vm)?;
    // A configuration that cannot be read is no reason to refuse a domain that it may not even name.
    let config = Config::read(config);
    let wanted = config.as_ref().ok().and_then(|c| c.domain(vm));
    if guard.is_none() && note.is_none() && wanted.is_none() {
        return Ok(Answer::of(match &config {
            Ok(_) => "it arrives; nothing is known of it".to_owned(),
            Err(e) => format!("it arrives; nothing is known of it; {e}"),
        }));
    }
    let text = document?;
    let text = std::str::from_utf8(&text)
        .map_err(|e| Error::new(Kind::Protocol, "the domain's definition is no text").because(e))?;
    let mut domain = Element::parse("the domain that arrives", text)?;
    let uuid = uuid_in(&domain)?;
    let told = match &note {
        Some(note) => {
            expected(layout, vm, note, guard.as_ref(), uuid)?;
            "it arrives as it was agreed"
        }
        None if door(layout, vm) == Door::Open => "it arrives as it was agreed",
        None => {
            unexpected(layout, vm, guard.as_ref())?;
            "it arrives, moved by libvirt alone"
        }
    };
    let moved = note.map(|note| rename(&mut domain, &note.paths));
    let made = match wanted {
        Some(wanted) => make(&domain, |disk| wanted.disks.get(disk).copied())?,
        None => Vec::new(),
    };
    if guard.is_some() {
        announce(layout, vm, uuid)?;
    }
    let mut told = told.to_owned();
    for path in &made {
        told.push_str(&format!("; made {path}"));
    }
    let renamed = moved.unwrap_or(0);
    if renamed > 0 {
        told.push_str(&format!("; {renamed} paths are others here"));
    }
    Ok(Answer {
        document: (renamed > 0).then(|| domain.to_string()),
        told,
    })
}

/// A move of ours has announced it.
fn expected(
    layout: &Layout,
    vm: &str,
    note: &note::Note,
    guard: Option<&Guard>,
    uuid: Uuid,
) -> Result<()> {
    note.check_lease(layout, vm)?;
    if uuid != note.uuid {
        return Err(Error::new(
            Kind::Refused,
            format!(
                "another domain is called {vm} there: its UUID is {uuid}, not {}",
                note.uuid
            ),
        ));
    }
    if let Some(guard) = guard {
        if guard.is_primary() || guard.epoch > note.epoch {
            return Err(Error::new(
                Kind::Refused,
                format!(
                    "this host is {} for domain {vm} since epoch {}, and it is sent in epoch {}",
                    guard.role, guard.epoch, note.epoch
                ),
            )
            .advise("the roles were changed: look which host runs it ('virt-blocksync status')"));
        }
    }
    note.check_bases(vm)
}

/// libvirt moves it by itself. What would become of a replica's disks here nobody could say afterwards.
fn unexpected(layout: &Layout, vm: &str, guard: Option<&Guard>) -> Result<()> {
    let Some(guard) = guard.filter(|guard| !guard.is_primary()) else {
        return Ok(());
    };
    if guard.role == "held" && away(layout, vm)?.is_some() {
        // It comes back the way it went.
        return Ok(());
    }
    Err(Error::new(
        Kind::Refused,
        format!(
            "this host is {} for domain {vm} since epoch {}: a migration that only libvirt knows of would write over that",
            guard.role, guard.epoch
        ),
    )
    .advise(format!(
        "move it by 'virt-blocksync migrate {vm}' on the host that runs it"
    )))
}

/// The sources of the domain's disks.
fn disks(domain: &Element) -> impl Iterator<Item = &Element> {
    domain.child("devices").into_iter().flat_map(|devices| {
        let disk = |e: &&Element| !matches!(e.attribute("device"), Some("cdrom" | "floppy"));
        devices.all("disk").filter(disk)
    })
}

/// Gives disks the paths that they have here, and returns how many have another one.
fn rename(domain: &mut Element, paths: &[(String, String)]) -> usize {
    let mut renamed = 0;
    let Some(devices) = domain.child_mut("devices") else {
        return 0;
    };
    for disk in devices.elements_mut().filter(|e| e.name == "disk") {
        let Some(source) = disk.child_mut("source") else {
            continue;
        };
        for attribute in ["file", "dev"] {
            let here = source
                .attribute(attribute)
                .and_then(|there| paths.iter().find(|(from, _)| from == there))
                .map(|(_, to)| to.clone());
            if let Some(here) = here {
                source.set(attribute, here);
                renamed += 1;
            }
        }
    }
    renamed
}

/// Makes the files that are not there, as large as `size` says, and returns their paths.
fn make(domain: &Element, size: impl Fn(&str) -> Option<Size>) -> Result<Vec<String>> {
    let mut made = Vec::new();
    for disk in disks(domain) {
        let target = disk.child("target").and_then(|t| t.attribute("dev"));
        let file = disk.child("source").and_then(|s| s.attribute("file"));
        let format = disk.child("driver").and_then(|d| d.attribute("type"));
        let (Some(file), Some(Size(size))) = (file, target.and_then(&size)) else {
            continue;
        };
        let path = Path::new(file);
        if path.exists() {
            continue;
        }
        let cannot = |e| Error::io(format!("cannot make {file} for the domain"), e);
        let new = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(cannot)?;
        let done = match format {
            Some("raw") => new.set_len(size).map_err(cannot),
            Some("qcow2") => qemu::img::create(path, size),
            other => Err(Error::new(
                Kind::Refused,
                format!(
                    "cannot make {file} for the domain: it is of format {}",
                    other.unwrap_or("none")
                ),
            )),
        };
        if done.is_err() {
            // What matters is told below.
            std::fs::remove_file(path).ok();
        }
        done?;
        made.push(file.to_owned());
    }
    Ok(made)
}
