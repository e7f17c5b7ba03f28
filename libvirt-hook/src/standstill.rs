//! What keeps a domain from being started that is defined, but not to run here: a replica, or one that has gone to another
//! host.
//!
//! The hook refuses it, but a hook can be missing: the package is removed, another daemon looks elsewhere. So in such a
//! definition the source of each disk is named as something that cannot be there: libvirt looks for all of them before it
//! starts QEMU, and says which one is missing. The real name is what follows, so that it can be put back whatever else in
//! the definition was changed. It also keeps `virsh undefine --remove-all-storage` off the disks of a replica.

use crate::domain::Domain;
use crate::xml::Element;

/// Stands before the path of a file or device. Debian's policy and others promise that there is no such directory.
pub const PREFIX: &str = "/nonexistent/not-to-be-started-on-this-host";
/// Stands before the name of a pool, or of a remote image.
const PREFIX_NAME: &str = "not-to-be-started-on-this-host.";

/// Attributes of a source that name something, with what is put before it.
const NAMING: [(&str, &str); 5] = [
    ("file", PREFIX),
    ("dev", PREFIX),
    ("dir", PREFIX),
    ("pool", PREFIX_NAME),
    ("name", PREFIX_NAME),
];

/// Makes the domain one that cannot be started. Safe to repeat.
pub fn impose(domain: &mut Domain) {
    each_source(domain, |source| {
        for (name, prefix) in NAMING {
            if let Some(value) = source.attribute(name).filter(|v| !v.starts_with(prefix)) {
                let value = format!("{prefix}{value}");
                source.set(name, value);
            }
        }
    });
}

/// Takes that back. Safe to repeat.
pub fn lift(domain: &mut Domain) {
    each_source(domain, |source| {
        for (name, prefix) in NAMING {
            let real = source.attribute(name).and_then(|v| v.strip_prefix(prefix));
            if let Some(real) = real.map(str::to_owned) {
                source.set(name, real);
            }
        }
    });
}

/// Whether all disks are so that it cannot be started.
pub fn is_imposed(domain: &Domain) -> bool {
    let mut imposed = domain.clone();
    impose(&mut imposed);
    imposed == *domain && domain.disks().any(is_disk)
}

fn is_disk(disk: &Element) -> bool {
    matches!(disk.attribute("device").unwrap_or("disk"), "disk" | "lun")
}

fn each_source(domain: &mut Domain, mut act: impl FnMut(&mut Element)) {
    for disk in domain.disks_mut().filter(|disk| is_disk(disk)) {
        if let Some(source) = disk.child_mut("source") {
            act(source);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TEXT: &str = "<domain><name>web</name><devices>\
        <disk type='file' device='disk'><source file='/a/b.qcow2'/><target dev='vda'/></disk>\
        <disk type='block' device='disk'><source dev='/dev/vg/lv'/><target dev='vdb'/></disk>\
        <disk type='volume' device='disk'><source pool='p' volume='v'/><target dev='vdc'/></disk>\
        <disk type='file' device='cdrom'><source file='/a/x.iso'/><target dev='sda'/></disk>\
        <disk type='file' device='cdrom'><target dev='sdb'/></disk>\
        </devices></domain>";

    #[test]
    fn what_was_imposed_is_lifted_again() {
        let before = Domain::parse(TEXT).unwrap();
        let mut domain = before.clone();
        assert!(!is_imposed(&domain));
        impose(&mut domain);
        assert!(is_imposed(&domain));
        let text = domain.to_string();
        for named in [
            "file='/nonexistent/not-to-be-started-on-this-host/a/b.qcow2'",
            "dev='/nonexistent/not-to-be-started-on-this-host/dev/vg/lv'",
            "pool='not-to-be-started-on-this-host.p'",
            "file='/a/x.iso'",
        ] {
            assert!(text.contains(named), "{named} in {text}");
        }
        let once = domain.clone();
        impose(&mut domain);
        assert_eq!(domain, once, "it is imposed once only");
        lift(&mut domain);
        assert_eq!(domain, before);
        lift(&mut domain);
        assert_eq!(domain, before);
    }

    #[test]
    fn one_disk_that_is_free_is_enough_to_start() {
        let mut domain = Domain::parse(TEXT).unwrap();
        impose(&mut domain);
        let disk = domain.disks_mut().next().unwrap();
        disk.child_mut("source").unwrap().set("file", "/a/b.qcow2");
        assert!(!is_imposed(&domain));
    }
}
