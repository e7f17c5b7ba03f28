//! The disks of a running domain, as QEMU has them open: which of libvirt's names belongs to which file.

use crate::connect::{Connection, Domain};
use crate::xml::Element;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::image::ImageFormat;
use std::path::{Path, PathBuf};

/// A disk of a running domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LiveDisk {
    /// libvirt's name for it: the target's, as "vda".
    pub name: String,
    /// What QEMU has open, without links; nothing if it is no path.
    pub path: Option<PathBuf>,
    /// What its bytes are.
    pub format: Option<ImageFormat>,
    /// The guest may not write it, or it is another kind of drive.
    pub read_only: bool,
    /// What is in the way of a new image over it, as its type: "file", "block".
    pub kind: String,
}

/// The XML of what runs, as a tree.
pub(crate) fn live(domain: &Domain) -> Result<Element> {
    parse(&domain.live_xml()?, domain.name())
}

pub(crate) fn parse(xml: &str, name: &str) -> Result<Element> {
    Element::parse(&format!("the domain {name}"), xml)
}

/// All disks of the domain that `xml` describes.
pub(crate) fn disks(connection: &Connection, xml: &Element) -> Result<Vec<LiveDisk>> {
    let Some(devices) = xml.child("devices") else {
        return Ok(Vec::new());
    };
    devices
        .all("disk")
        .map(|disk| live_disk(connection, disk))
        .collect()
}

fn live_disk(connection: &Connection, disk: &Element) -> Result<LiveDisk> {
    let name = disk
        .at(&["target"])
        .and_then(|target| target.attribute("dev"));
    let Some(name) = name else {
        return Err(Error::new(
            Kind::Protocol,
            "libvirt shows a disk without a target",
        ));
    };
    let source = disk.child("source");
    let of = |attribute: &str| source.and_then(|source| source.attribute(attribute));
    let path = match disk.attribute("type") {
        Some("file") => of("file").map(PathBuf::from),
        Some("block") => of("dev").map(PathBuf::from),
        Some("volume") => match (of("pool"), of("volume")) {
            (Some(pool), Some(volume)) => Some(connection.volume_path(pool, volume)?.into()),
            _ => None,
        },
        _ => None,
    };
    let kind = disk.attribute("device").unwrap_or("disk");
    Ok(LiveDisk {
        name: name.to_owned(),
        path: path.map(|path| std::fs::canonicalize(&path).unwrap_or(path)),
        format: match disk
            .at(&["driver"])
            .and_then(|driver| driver.attribute("type"))
        {
            Some("raw") => Some(ImageFormat::Raw),
            Some("qcow2") => Some(ImageFormat::Qcow2),
            _ => None,
        },
        read_only: kind != "disk" || disk.child("readonly").is_some(),
        kind: disk.attribute("type").unwrap_or_default().to_owned(),
    })
}

/// The disk in the file or device `path`.
pub(crate) fn of_path<'a>(
    disks: &'a [LiveDisk],
    path: &Path,
    format: ImageFormat,
) -> Result<&'a LiveDisk> {
    let real = std::fs::canonicalize(path)
        .map_err(|e| Error::io(format!("cannot find {}", path.display()), e))?;
    let mut found = disks
        .iter()
        .filter(|disk| disk.path.as_deref() == Some(&real));
    let advice = "the definition may have been changed since the domain was started: restart it";
    match (found.next(), found.next()) {
        (Some(disk), None) if disk.format == Some(format) => Ok(disk),
        (Some(disk), None) => Err(Error::new(
            Kind::Refused,
            format!(
                "QEMU has {} open as {:?}, not as {format:?}",
                path.display(),
                disk.format
            ),
        )
        .advise(advice)),
        (Some(_), Some(_)) => Err(Error::new(
            Kind::Refused,
            format!("QEMU has {} open more than once", path.display()),
        )),
        (None, _) => Err(Error::new(
            Kind::NotFound,
            format!("the running domain does not have {} open", path.display()),
        )
        .advise(advice)),
    }
}
