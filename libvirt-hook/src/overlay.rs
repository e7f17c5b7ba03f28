//! What lies over the disks of a domain while it is moved without being paused: a qcow2 file beside each disk, to which the
//! guest writes, and whose name says all that is needed to take it away again: `/a/web.raw.rbs-over-raw` lies over
//! `/a/web.raw`, which is raw.
//!
//! For all but the move itself a disk is what lies below: [`lift`] shows a definition so.

use crate::domain::{disk_key, Domain};
use crate::xml::Element;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::files::remove_present;
use std::path::Path;

/// Stands before the format of what is below.
const SUFFIX: &str = ".rbs-over-";

/// Formats that something can lie over.
const FORMATS: [&str; 2] = ["raw", "qcow2"];

/// A disk that something lies over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// The disk's key: vda.
    pub key: String,
    /// What lies over it.
    pub path: String,
    /// The disk itself.
    pub base: String,
    /// Its format.
    pub format: String,
}

impl Overlay {
    /// What would lie over the disk `key`, which is the file `base`.
    fn over(key: &str, base: &str, format: &str) -> Overlay {
        Overlay {
            key: key.to_owned(),
            path: format!("{base}{SUFFIX}{format}"),
            base: base.to_owned(),
            format: format.to_owned(),
        }
    }

    /// Reads that from the name of a file.
    fn at(key: &str, path: &str) -> Option<Overlay> {
        let (base, format) = path.rsplit_once(SUFFIX)?;
        let known = FORMATS.contains(&format) && base.starts_with('/');
        known.then(|| Overlay::over(key, base, format))
    }
}

fn is_disk(disk: &Element) -> bool {
    disk.attribute("device").unwrap_or("disk") == "disk"
}

fn file_of(disk: &Element) -> Option<&str> {
    let is_file = disk.attribute("type") == Some("file") && is_disk(disk);
    disk.child("source")
        .filter(|_| is_file)
        .and_then(|source| source.attribute("file"))
}

fn format_of(disk: &Element) -> Option<&str> {
    disk.child("driver")
        .and_then(|driver| driver.attribute("type"))
}

/// What lies over disks in this definition.
pub fn used(domain: &Domain) -> Vec<Overlay> {
    let disks = domain.disks();
    disks
        .filter_map(|disk| Overlay::at(disk_key(disk), file_of(disk)?))
        .collect()
}

/// Whether something lies over all disks that the guest can write, and none is merged into: they stand still.
pub fn covers(domain: &Domain) -> bool {
    let mut written = domain
        .disks()
        .filter(|disk| is_disk(disk) && disk.child("readonly").is_none());
    let is_over = |disk: &Element| {
        let path = file_of(disk);
        let is_merged = disk.child("mirror").is_some();
        !is_merged && path.is_some_and(|path| Overlay::at(disk_key(disk), path).is_some())
    };
    !used(domain).is_empty() && written.all(is_over)
}

/// What can be laid over the disks that the guest can write. Refuses a domain where that is not all of them.
pub fn plan(domain: &Domain) -> Result<Vec<Overlay>> {
    let refused = |what: String| Err(Error::new(Kind::Refused, what));
    if domain.nvram().is_some() {
        return refused("its firmware keeps variables, which are no disk".into());
    }
    let mut planned = Vec::new();
    for disk in domain.disks() {
        let key = disk_key(disk);
        let device = disk.attribute("device").unwrap_or("disk");
        if matches!(device, "cdrom" | "floppy") || disk.child("readonly").is_some() {
            continue;
        }
        let (Some(file), Some(format)) = (file_of(disk), format_of(disk)) else {
            return refused(format!("its disk {key} is no file"));
        };
        if Overlay::at(key, file).is_some() {
            return refused(format!("something lies over its disk {key} already"));
        }
        if disk.child("mirror").is_some() {
            return refused(format!("a block job has its disk {key}"));
        }
        if !FORMATS.contains(&format) || !file.starts_with('/') {
            return refused(format!("its disk {key} is {format}"));
        }
        planned.push(Overlay::over(key, file, format));
    }
    match planned.is_empty() {
        true => refused("it has no disk that it writes to".into()),
        false => Ok(planned),
    }
}

/// Refuses a definition that says more of a disk's file than its name: libvirt forgets that when it lays something over it.
pub fn check_plain(defined: &Domain) -> Result<()> {
    for disk in defined.disks().filter(|disk| file_of(disk).is_some()) {
        let source = disk.child("source");
        let says_more = source.is_some_and(|source| {
            let mut names = source.attributes.iter().map(|(name, _)| name.as_str());
            source.elements().next().is_some() || names.any(|name| name != "file")
        });
        if says_more && disk.child("readonly").is_none() {
            let what = format!(
                "the file of its disk {} has settings of its own",
                disk_key(disk)
            );
            return Err(Error::new(Kind::Refused, what));
        }
    }
    Ok(())
}

/// Gives disks the names of what lies over them.
pub fn impose(domain: &mut Domain, overlays: &[Overlay]) {
    for disk in domain.disks_mut() {
        let key = disk_key(disk).to_owned();
        if let Some(overlay) = overlays.iter().find(|overlay| overlay.key == key) {
            set(disk, &overlay.path, "qcow2");
        }
    }
}

/// The same for the definition of the replica: over its disks of the same keys. Refuses one that has others.
pub fn impose_like(replica: &mut Domain, overlays: &[Overlay]) -> Result<()> {
    let mut planned = plan(replica)?;
    planned.retain(|there| overlays.iter().any(|here| here.key == there.key));
    if planned.len() != overlays.len() {
        return Err(Error::new(
            Kind::Refused,
            format!("the replica has other disks than domain {}", replica.name()),
        ));
    }
    impose(replica, &planned);
    Ok(())
}

/// What could lie over any disk that is a file.
fn possible(domain: &Domain) -> Vec<Overlay> {
    let disks = domain.disks().filter_map(|disk| {
        let format = format_of(disk).filter(|format| FORMATS.contains(format))?;
        Some(Overlay::over(disk_key(disk), file_of(disk)?, format))
    });
    disks.collect()
}

/// The same where no guest tells what lies over its disks: what is there, as files of this host.
pub fn impose_present(domain: &mut Domain) {
    let mut possible = possible(domain);
    possible.retain(|overlay| Path::new(&overlay.path).exists());
    impose(domain, &possible);
}

/// Shows the disks that are below. Safe to repeat.
pub fn lift(domain: &mut Domain) {
    for overlay in used(domain) {
        for disk in domain.disks_mut() {
            if file_of(disk) == Some(&overlay.path) {
                set(disk, &overlay.base, &overlay.format);
            }
        }
    }
}

fn set(disk: &mut Element, file: &str, format: &str) {
    if let Some(source) = disk.child_mut("source") {
        source.set("file", file);
    }
    if let Some(driver) = disk.child_mut("driver") {
        driver.set("type", format);
    }
    disk.retain(|e| e.name != "backingStore");
}

/// Removes the files that would lie over the disks of this definition, which nobody uses. What is not there is fine.
pub fn remove_all(domain: &Domain) -> Result<()> {
    let mut below = domain.clone();
    lift(&mut below);
    remove(&possible(&below))
}

/// Removes these files.
pub fn remove(overlays: &[Overlay]) -> Result<()> {
    for overlay in overlays {
        remove_present(Path::new(&overlay.path))?;
    }
    Ok(())
}

/// libvirt's description of laying them over the domain's disks, and nothing over others.
pub fn snapshot_xml(domain: &Domain, overlays: &[Overlay]) -> String {
    let mut disks = Element::new("disks");
    for disk in domain.disks() {
        let key = disk_key(disk);
        let element = Element::new("disk").with("name", key);
        disks.push(match overlays.iter().find(|o| o.key == key) {
            Some(overlay) => element
                .with("snapshot", "external")
                .with("type", "file")
                .holding(Element::new("driver").with("type", "qcow2"))
                .holding(Element::new("source").with("file", overlay.path.as_str())),
            None => element.with("snapshot", "no"),
        });
    }
    Element::new("domainsnapshot").holding(disks).to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn domain(disks: &str) -> Domain {
        Domain::parse(&format!(
            "<domain><name>web</name><devices>{disks}</devices></domain>"
        ))
        .unwrap()
    }

    const TWO: &str = "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/a/b &amp; c.qcow2'/><target dev='vda'/></disk>\
        <disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/><source file='/a/d'/><target dev='vdb'/></disk>\
        <disk type='file' device='cdrom'><source file='/a/x.iso'/><target dev='sda'/><readonly/></disk>";

    #[test]
    fn what_was_laid_over_is_lifted_again() {
        let before = domain(TWO);
        let planned = plan(&before).unwrap();
        let paths: Vec<_> = planned.iter().map(|o| o.path.as_str()).collect();
        assert_eq!(
            paths,
            ["/a/b & c.qcow2.rbs-over-qcow2", "/a/d.rbs-over-raw"]
        );
        assert!(!covers(&before) && used(&before).is_empty());
        let mut over = before.clone();
        impose(&mut over, &planned);
        assert!(covers(&over));
        assert_eq!(used(&over), planned);
        assert_eq!(plan(&over).unwrap_err().kind(), Kind::Refused);
        lift(&mut over);
        assert_eq!(over, before);
        lift(&mut over);
        assert_eq!(over, before);
    }

    #[test]
    fn one_of_two_is_not_all() {
        let mut over = domain(TWO);
        let planned = plan(&over).unwrap();
        impose(&mut over, &planned[..1]);
        assert!(!covers(&over));
        assert_eq!(used(&over), planned[..1]);
    }

    #[test]
    fn a_disk_that_is_merged_into_does_not_stand_still() {
        let mut over = domain(TWO);
        let planned = plan(&over).unwrap();
        impose(&mut over, &planned);
        let disk = over.disks_mut().next().unwrap();
        disk.push(Element::new("mirror").with("job", "active-commit"));
        assert!(!covers(&over));
    }

    #[test]
    fn a_name_that_only_looks_like_it_is_a_disk_of_its_own() {
        for path in ["/a/b.rbs-over-vmdk", "b.rbs-over-raw", "/a/b.rbs-over"] {
            assert_eq!(Overlay::at("vda", path), None, "{path}");
        }
    }

    #[test]
    fn what_is_no_file_is_refused_by_name() {
        for (disk, why) in [
            ("<disk type='block' device='disk'><driver type='raw'/><source dev='/dev/a'/><target dev='vdq'/></disk>", "vdq is no file"),
            ("<disk type='file' device='disk'><driver type='vmdk'/><source file='/a'/><target dev='vdq'/></disk>", "vdq is vmdk"),
            ("<disk type='file' device='disk'><driver type='raw'/><source file='/a'/><mirror/><target dev='vdq'/></disk>", "block job"),
            ("", "no disk"),
        ] {
            let error = plan(&domain(disk)).unwrap_err();
            assert_eq!(error.kind(), Kind::Refused);
            assert!(error.message().contains(why), "{error}");
        }
    }

    #[test]
    fn a_file_with_settings_of_its_own_is_refused() {
        check_plain(&domain(TWO)).unwrap();
        for source in [
            "<source file='/a'><seclabel model='dac' relabel='no'/></source>",
            "<source file='/a' startupPolicy='optional'/>",
        ] {
            let disk =
                format!("<disk type='file' device='disk'>{source}<target dev='vdq'/></disk>");
            let error = check_plain(&domain(&disk)).unwrap_err();
            assert!(error.message().contains("vdq"), "{error}");
        }
    }

    #[test]
    fn the_snapshot_names_every_disk() {
        let before = domain(TWO);
        let text = snapshot_xml(&before, &plan(&before).unwrap());
        assert!(text.contains("<disk name='sda' snapshot='no'/>"), "{text}");
        assert!(text.contains("/a/b &amp; c.qcow2.rbs-over-qcow2"), "{text}");
    }
}
