//! What libvirt has stored of its domains, read while it does not run: before it starts those that start with the host.
//!
//! Its files are only read. What must not start meanwhile is kept off by the hook, which reads the guards.

use super::{Found, Host, PoolFound, State};
use crate::connect::Connection;
use crate::domain::{check_name, Domain};
use rblocksync::error::{Error, Kind, Result};
use rblocksync::snapshot::GuestManager;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// libvirt's files on this host.
pub struct Stored {
    /// Its definitions, `NAME.xml` each.
    definitions: PathBuf,
    /// What it notes of domains that run, by the same names.
    running: PathBuf,
}

impl Default for Stored {
    fn default() -> Self {
        Stored::new("/etc/libvirt/qemu", "/run/libvirt/qemu")
    }
}

impl Stored {
    /// The definitions in one directory, and what is noted of domains that run in another.
    pub fn new(definitions: impl Into<PathBuf>, running: impl Into<PathBuf>) -> Stored {
        Stored {
            definitions: definitions.into(),
            running: running.into(),
        }
    }

    fn read(&self, name: &str) -> Result<Option<Found>> {
        check_name(name)?;
        let file = format!("{name}.xml");
        let path = self.definitions.join(&file);
        let xml = match fs::read_to_string(&path) {
            Ok(xml) => xml,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(format!("cannot read {}", path.display()), e)),
        };
        let uuid = Domain::parse(&xml)?.uuid();
        let uuid = uuid.ok_or_else(|| {
            Error::new(
                Kind::Protocol,
                format!("there is no UUID in {}", path.display()),
            )
        })?;
        let runs = self.running.join(&file).exists();
        Ok(Some(Found {
            name: name.to_owned(),
            uuid,
            live: runs.then(|| xml.clone()),
            xml,
            state: if runs { State::Running } else { State::Off },
            persistent: true,
            autostart: self.definitions.join("autostart").join(&file).exists(),
            saved: false,
        }))
    }

    fn names(&self) -> Result<Vec<String>> {
        let cannot = |e| Error::io(format!("cannot list {}", self.definitions.display()), e);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.definitions).map_err(cannot)? {
            let path = entry.map_err(cannot)?.path();
            let is_xml = path.extension().is_some_and(|e| e == "xml") && path.is_file();
            let name = path.file_stem().and_then(|stem| stem.to_str());
            names.extend(name.filter(|_| is_xml).map(str::to_owned));
        }
        Ok(names)
    }
}

fn not_yet<T>(what: &str) -> Result<T> {
    let what = format!("cannot {what}: libvirt does not run yet");
    Err(Error::new(Kind::Busy, what).advise("run again when it does"))
}

impl Host for Stored {
    fn uri(&self) -> &str {
        "qemu:///system"
    }

    fn name(&self) -> Result<String> {
        let path = Path::new("/proc/sys/kernel/hostname");
        let name = fs::read_to_string(path);
        let name = name.map_err(|e| Error::io("cannot tell the name of this host", e))?;
        Ok(name.trim().to_owned())
    }

    fn version(&self) -> Result<u64> {
        not_yet("ask libvirt for its version")
    }

    fn domain(&self, name: &str) -> Result<Option<Found>> {
        self.read(name)
    }

    fn domain_of(&self, uuid: Uuid) -> Result<Option<Found>> {
        let mut all = self.domains()?.into_iter();
        Ok(all.find(|found| found.uuid == uuid))
    }

    fn domains(&self) -> Result<Vec<Found>> {
        let mut all = Vec::new();
        for name in self.names()? {
            all.extend(self.read(&name)?);
        }
        Ok(all)
    }

    fn defines(&self) -> bool {
        false
    }

    fn define(&self, _: &str) -> Result<()> {
        not_yet("define a domain")
    }

    fn undefine(&self, name: &str) -> Result<()> {
        not_yet(&format!("undefine domain {name}"))
    }

    fn set_autostart(&self, name: &str, _: bool) -> Result<()> {
        not_yet(&format!("change the autostart of domain {name}"))
    }

    fn start(&self, name: &str) -> Result<()> {
        not_yet(&format!("start domain {name}"))
    }

    fn ask_to_shut_down(&self, name: &str) -> Result<()> {
        not_yet(&format!("shut domain {name} down"))
    }

    fn destroy(&self, name: &str) -> Result<()> {
        not_yet(&format!("end domain {name}"))
    }

    fn agent_answers(&self, _: &str, _: Duration) -> bool {
        false
    }

    /// None is started.
    fn pools(&self) -> Result<Vec<PoolFound>> {
        Ok(Vec::new())
    }

    fn volume_path(&self, pool: &str, volume: &str) -> Result<String> {
        not_yet(&format!("find the volume {volume} of pool {pool}"))
    }

    fn refresh(&self, pool: &str) -> Result<()> {
        not_yet(&format!("refresh pool {pool}"))
    }

    fn manager(&self, _: Uuid) -> Result<Arc<dyn GuestManager>> {
        not_yet("hold a guest")
    }

    fn connection(&self) -> Result<Connection> {
        not_yet("connect to libvirt")
    }

    fn networks(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::source;
    use crate::target::VirtTarget;
    use rblocksync::hypervisor::RoleHypervisor;
    use rblocksync::replica::Layout;

    /// As libvirt writes it, warning and all.
    const WEB: &str = "<!--\nWARNING: THIS IS AN AUTO-GENERATED FILE.\n  virsh edit web01\n-->\n\n\
        <domain type='kvm'>\n  <name>web01</name>\n  <uuid>5b1c0ae8-7d2c-4b8d-9a70-1f2f34a2f0aa</uuid>\n</domain>\n";

    #[test]
    fn a_domain_is_known_before_libvirt_runs_and_is_kept_off_without_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for dir in ["qemu/autostart", "qemu/networks", "run", "state"] {
            fs::create_dir_all(at(dir)).unwrap();
        }
        fs::write(at("qemu/web01.xml"), WEB).unwrap();
        fs::write(at("qemu/autostart/web01.xml"), WEB).unwrap();
        let host = Stored::new(at("qemu"), at("run"));
        let found = host.domain("web01").unwrap().unwrap();
        assert!(found.autostart && !found.state.is_active());
        assert_eq!(host.domains().unwrap(), std::slice::from_ref(&found));
        assert_eq!(host.domain("web02").unwrap(), None);
        assert_eq!(
            source::identity_of(&found.xml),
            Some("5b1c0ae8-7d2c-4b8d-9a70-1f2f34a2f0aa".into())
        );
        let target = VirtTarget::new(Arc::new(host), Layout::new(at("state")));
        target.config("web01").unwrap();
        let notes = target.retire("web01", "it has gone to b").unwrap();
        assert!(notes[0].contains("hook"), "{notes:?}");
        assert_eq!(fs::read_to_string(at("qemu/web01.xml")).unwrap(), WEB);
        // One that runs all the same is left alone.
        fs::write(at("run/web01.xml"), WEB).unwrap();
        assert!(target.is_running("web01").unwrap());
        assert!(target.retire("web01", "it has gone to b").is_err());
    }
}
