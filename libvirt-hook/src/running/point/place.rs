//! Where the scratch files of a backup are, and its socket.
//!
//! As a rule with our own state. But QEMU may run as a user who cannot get there, and be confined to what libvirt lets it
//! open. Then it is the directory that libvirt makes for each domain that runs, which is that user's, and which goes when
//! the domain ends.

use crate::connect::Domain;
use crate::xml::Element;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::lock::private_dir;
use rblocksync::qemu::ScratchSpace;
use std::path::{Path, PathBuf};

/// Where libvirt's system daemon has these directories.
const QEMU_DIR: &str = "/var/lib/libvirt/qemu";

/// See the module.
pub(super) enum Place {
    /// A directory of this run's own.
    Own {
        /// It.
        dir: PathBuf,
        /// The one in which runs have theirs.
        base: PathBuf,
    },
    /// Files in a directory with others, by what their names begin with.
    Shared {
        /// It.
        dir: PathBuf,
        /// The beginning.
        prefix: String,
    },
}

/// The user as whom QEMU runs, if it is said.
fn user(xml: &Element) -> Option<u32> {
    let labels = xml.all("seclabel");
    let mut dac = labels.filter(|label| label.attribute("model") == Some("dac"));
    let label = dac.find_map(|label| Some(label.child("label")?.text()))?;
    let user = label.split(':').next()?;
    user.trim_start_matches('+').parse().ok()
}

impl Place {
    pub fn of(domain: &Domain, xml: &Element, space: &ScratchSpace, prefix: &str) -> Result<Place> {
        if user(xml).is_none_or(|user| user == 0) {
            return Ok(Place::Own {
                dir: space.dir.join(prefix),
                base: space.dir.clone(),
            });
        }
        Ok(Place::Shared {
            dir: domain_dir(domain)?,
            prefix: format!("{prefix}-"),
        })
    }

    /// The same room, where it really is.
    pub fn space(&self, space: &ScratchSpace) -> ScratchSpace {
        match self {
            Place::Own { .. } => space.clone(),
            Place::Shared { dir, .. } => ScratchSpace {
                dir: dir.clone(),
                bytes_max: space.bytes_max,
            },
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        match self {
            Place::Own { dir, .. } => dir.join(name),
            Place::Shared { dir, prefix } => dir.join(format!("{prefix}{name}")),
        }
    }

    pub fn make(&self) -> Result<()> {
        match self {
            Place::Own { dir, base } => private_dir(base).and_then(|()| private_dir(dir)),
            Place::Shared { .. } => Ok(()),
        }
    }

    /// Removes what runs left whose names begin so.
    pub fn sweep(&self, prefix: &str) -> Result<()> {
        let dir = match self {
            Place::Own { base, .. } => base,
            Place::Shared { dir, .. } => dir,
        };
        remove(dir, prefix)
    }

    /// Removes what this run has made.
    pub fn clear(&self) -> Result<()> {
        match self {
            Place::Own { dir, .. } => remove_one(dir),
            Place::Shared { dir, prefix } => remove(dir, prefix),
        }
    }
}

/// libvirt's directory of a domain that runs.
fn domain_dir(domain: &Domain) -> Result<PathBuf> {
    let missing = || {
        Error::new(
            Kind::NotFound,
            format!("libvirt has no directory for the running domain {}", domain.name()),
        )
        .advise(format!("it is looked for below {QEMU_DIR}; only libvirt's system daemon on this host is supported"))
    };
    let id = domain.running_id().ok_or_else(missing)?;
    let beginning = format!("domain-{id}-");
    let entries = std::fs::read_dir(QEMU_DIR).map_err(|e| missing().because(e))?;
    let mut entries = entries.filter_map(|entry| entry.ok());
    let found = entries.find(|entry| {
        entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(beginning.as_bytes())
    });
    found.map(|entry| entry.path()).ok_or_else(missing)
}

fn remove(dir: &Path, prefix: &str) -> Result<()> {
    let failed = |e| Error::io(format!("cannot clear {}", dir.display()), e);
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(prefix.as_bytes())
        {
            remove_one(&entry.path())?;
        }
    }
    Ok(())
}

fn remove_one(path: &Path) -> Result<()> {
    let is_dir = path.symlink_metadata().is_ok_and(|found| found.is_dir());
    let removed = match is_dir {
        true => std::fs::remove_dir_all(path),
        false => std::fs::remove_file(path),
    };
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("cannot remove {}", path.display()), e))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_that_of_the_dac_label() {
        let xml = |label: &str| {
            let text = format!("<domain><seclabel type='dynamic' model='apparmor'><label>x</label></seclabel>{label}</domain>");
            Element::parse("a domain", &text).unwrap()
        };
        let dac = "<seclabel type='dynamic' model='dac' relabel='yes'><label>+64055:+109</label></seclabel>";
        assert_eq!(user(&xml(dac)), Some(64055));
        assert_eq!(user(&xml("")), None);
        let root = "<seclabel model='dac'><label>0:0</label></seclabel>";
        assert_eq!(user(&xml(root)), Some(0));
    }

    #[test]
    fn only_what_is_ours_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["rbs-1-0", "rbs-1-nbd", "rbs-2-0", "monitor.sock"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let place = Place::Shared {
            dir: dir.path().to_owned(),
            prefix: "rbs-1-".into(),
        };
        place.clear().unwrap();
        assert!(!place.path("0").exists() && !place.path("nbd").exists());
        assert!(dir.path().join("rbs-2-0").exists());
        place.sweep("rbs-").unwrap();
        assert!(!dir.path().join("rbs-2-0").exists());
        assert!(dir.path().join("monitor.sock").exists());
    }
}
