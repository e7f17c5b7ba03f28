//! A libvirt that only exists in a test.

#![allow(clippy::unwrap_used)]

use super::{Found, Host, PoolFound, State};
use crate::domain::Domain;
use crate::tpm::TpmStore;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::snapshot::GuestManager;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use uuid::Uuid;

#[derive(Default)]
pub(crate) struct Memory {
    pub domains: Mutex<Vec<Found>>,
    pub pools: Vec<PoolFound>,
    pub networks: Vec<String>,
    pub tpms: TpmStore,
}

impl Memory {
    pub fn with_dir_pool(mut self, name: &str, dir: &Path) -> Memory {
        self.pools.push(PoolFound {
            name: name.into(),
            xml: format!(
                "<pool type='dir'><name>{name}</name><target><path>{}</path></target></pool>",
                dir.display()
            ),
            active: true,
        });
        self
    }

    pub fn change(&self, name: &str, act: impl FnOnce(&mut Found)) {
        let mut domains = self.domains.lock().unwrap();
        act(domains.iter_mut().find(|d| d.name == name).unwrap());
    }
}

fn missing(name: &str) -> Error {
    Error::new(Kind::NotFound, format!("no domain {name}"))
}

impl Host for Memory {
    fn tpms(&self) -> TpmStore {
        self.tpms.clone()
    }

    fn name(&self) -> Result<String> {
        Ok("hostb".into())
    }

    fn version(&self) -> Result<u64> {
        Ok(9_000_000)
    }

    fn domain(&self, name: &str) -> Result<Option<Found>> {
        let domains = self.domains.lock().unwrap();
        Ok(domains.iter().find(|d| d.name == name).cloned())
    }

    fn domain_of(&self, uuid: Uuid) -> Result<Option<Found>> {
        let domains = self.domains.lock().unwrap();
        Ok(domains.iter().find(|d| d.uuid == uuid).cloned())
    }

    fn uri(&self) -> &str {
        "test:///default"
    }

    fn connection(&self) -> Result<crate::connect::Connection> {
        Err(Error::new(Kind::Refused, "there is no libvirt"))
    }

    fn manager(&self, _: Uuid) -> Result<Arc<dyn GuestManager>> {
        Err(Error::new(Kind::Refused, "nothing runs here"))
    }

    fn domains(&self) -> Result<Vec<Found>> {
        Ok(self.domains.lock().unwrap().clone())
    }

    /// As libvirt does: name and UUID belong together.
    fn define(&self, xml: &str) -> Result<()> {
        let domain = Domain::parse(xml)?;
        let (name, uuid) = (domain.name(), domain.uuid().unwrap());
        let mut domains = self.domains.lock().unwrap();
        if domains.iter().any(|d| (d.name == name) != (d.uuid == uuid)) {
            return Err(Error::new(
                Kind::Refused,
                format!("domain {name} exists with another uuid"),
            ));
        }
        match domains.iter_mut().find(|d| d.name == name) {
            Some(found) => found.xml = xml.to_owned(),
            None => domains.push(Found {
                name,
                uuid,
                xml: xml.to_owned(),
                live: None,
                state: State::Off,
                persistent: true,
                autostart: false,
                saved: false,
            }),
        }
        Ok(())
    }

    fn undefine(&self, name: &str) -> Result<()> {
        self.domains.lock().unwrap().retain(|d| d.name != name);
        Ok(())
    }

    fn set_autostart(&self, name: &str, autostart: bool) -> Result<()> {
        self.change(name, |d| d.autostart = autostart);
        Ok(())
    }

    /// As libvirt does: all files must be there.
    fn start(&self, name: &str) -> Result<()> {
        let found = self.domain(name)?.ok_or_else(|| missing(name))?;
        for disk in Domain::parse(&found.xml)?.disks() {
            let path = disk
                .child("source")
                .and_then(|s| s.attribute("file").or(s.attribute("dev")));
            if path.is_some_and(|path| !Path::new(path).exists()) {
                let what = format!("Cannot access storage file '{}'", path.unwrap_or_default());
                return Err(Error::new(Kind::Tool, what));
            }
        }
        self.change(name, |d| {
            d.state = State::Running;
            d.live = Some(d.xml.clone());
        });
        Ok(())
    }

    fn ask_to_shut_down(&self, name: &str) -> Result<()> {
        self.destroy(name)
    }

    fn destroy(&self, name: &str) -> Result<()> {
        self.change(name, |d| {
            d.state = State::Off;
            d.live = None;
        });
        Ok(())
    }

    fn agent_answers(&self, _name: &str, _limit: Duration) -> bool {
        false
    }

    fn pools(&self) -> Result<Vec<PoolFound>> {
        Ok(self.pools.clone())
    }

    fn volume_path(&self, pool: &str, volume: &str) -> Result<String> {
        let pools = crate::pools::all(self)?;
        let pool = crate::pools::usable(&pools, pool, "hostb")?;
        match &pool.kind {
            crate::pools::PoolKind::Dir(dir) => Ok(dir.join(volume).display().to_string()),
            _ => Err(missing(volume)),
        }
    }

    fn refresh(&self, _pool: &str) -> Result<()> {
        Ok(())
    }

    fn networks(&self) -> Result<Vec<String>> {
        Ok(self.networks.clone())
    }
}
