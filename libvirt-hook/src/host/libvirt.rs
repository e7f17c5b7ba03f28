//! The same, asked of libvirt itself.

use super::{Found, Host, PoolFound, State};
use crate::connect::{self, over_restarts, Connection, Domain};
use crate::running;
use crate::whereabouts::{self, Whereabouts};
use rblocksync::error::{Error, Kind, Result};
use rblocksync::snapshot::GuestManager;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use uuid::Uuid;
use virt::domain::Domain as VirDomain;
use virt::storage_pool::StoragePool;

/// libvirt on this host, connected to when it is asked something for the first time.
pub struct Libvirt {
    uri: String,
    connection: Mutex<Option<Connection>>,
}

impl Libvirt {
    /// At `uri`, or where libvirt's own programs look for it as root.
    pub fn new(uri: Option<&str>) -> Libvirt {
        Libvirt {
            uri: whereabouts::uri(uri),
            connection: Mutex::new(None),
        }
    }

    /// The connection. One that broke is made anew by the next who asks, who waits for a daemon that is restarted.
    pub fn connection(&self) -> Result<Connection> {
        check_local(&self.uri)?;
        let mut kept = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let connection = match kept.as_ref() {
            Some(connection) if connection.is_alive() => return Ok(connection.clone()),
            Some(_) => over_restarts(|| Connection::open(&self.uri))?,
            None => Connection::open(&self.uri)?,
        };
        *kept = Some(connection.clone());
        Ok(connection)
    }

    /// Asks what can be asked twice, again if the connection is lost meanwhile.
    fn ask<T>(&self, ask: impl Fn(&Connection) -> Result<T>) -> Result<T> {
        // If there is no libvirt at all, that is said at once.
        self.connection()?;
        over_restarts(|| ask(&self.connection()?))
    }

    fn named(&self, name: &str) -> Result<Option<Domain>> {
        self.ask(|connection| named(connection, name))
    }

    fn present(&self, name: &str) -> Result<Domain> {
        self.named(name)?.ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                format!("there is no domain {name} on this host"),
            )
            .advise("'virsh list --all' shows them")
        })
    }
}

fn named(connection: &Connection, name: &str) -> Result<Option<Domain>> {
    let found = connection.find(name)?;
    // It takes UUIDs as well, which are names to us.
    Ok(found.filter(|domain| domain.name() == name))
}

/// The disks that libvirt tells of must be those of this host.
fn check_local(uri: &str) -> Result<()> {
    match Whereabouts::of(uri)? {
        Whereabouts::Here => Ok(()),
        Whereabouts::There(_) => Err(Error::new(
            Kind::Usage,
            format!("{uri} is another host's libvirt, and only this host's disks can be read"),
        )
        .advise(
            "name it with --connect before the verb, or run this on that host, with qemu:///system",
        )),
    }
}

fn found(domain: &Domain) -> Result<Found> {
    let state = match domain.state()?.state {
        connect::State::Off => State::Off,
        connect::State::Paused => State::Paused,
        connect::State::Crashed if domain.is_active()? => State::Crashed,
        connect::State::Crashed => State::Off,
        connect::State::Sleeping => State::Asleep,
        connect::State::ShuttingDown => State::Ending,
        connect::State::Running | connect::State::Unknown => State::Running,
    };
    let live = match state.is_active() {
        true => Some(domain.live_xml()?),
        false => None,
    };
    let persistent = domain.is_persistent()?;
    let xml = match (persistent, &live) {
        (false, Some(live)) => live.clone(),
        _ => domain.inactive_xml()?,
    };
    Ok(Found {
        name: domain.name().to_owned(),
        uuid: domain.uuid(),
        xml,
        live,
        state,
        persistent,
        autostart: persistent && domain.autostart()?,
        saved: domain.call("ask for the saved memory of", |d| d.has_managed_save(0))?,
    })
}

impl Host for Libvirt {
    fn name(&self) -> Result<String> {
        self.ask(Connection::host_name)
    }

    fn version(&self) -> Result<u64> {
        self.ask(Connection::version).map(u64::from)
    }

    fn qemu(&self) -> Option<(u32, u32)> {
        let connection = self.connection().ok()?;
        let version = connection.call("ask libvirt for QEMU's version", |c| c.get_hyp_version());
        version.ok().map(|v| (v / 1_000_000, v / 1000 % 1000))
    }

    fn domain(&self, name: &str) -> Result<Option<Found>> {
        self.ask(|connection| named(connection, name)?.as_ref().map(found).transpose())
    }

    fn domain_of(&self, uuid: Uuid) -> Result<Option<Found>> {
        self.ask(|connection| connection.find_uuid(uuid)?.as_ref().map(found).transpose())
    }

    fn uri(&self) -> &str {
        &self.uri
    }

    fn connection(&self) -> Result<Connection> {
        Libvirt::connection(self)
    }

    fn manager(&self, uuid: Uuid) -> Result<Arc<dyn GuestManager>> {
        Ok(running::manager(&self.uri, uuid))
    }

    fn domains(&self) -> Result<Vec<Found>> {
        self.ask(|connection| {
            let mut all = Vec::new();
            for domain in connection.domains()? {
                match found(&domain) {
                    // It went meanwhile.
                    Err(e) if e.kind() == Kind::NotFound => {}
                    other => all.push(other?),
                }
            }
            Ok(all)
        })
    }

    fn define(&self, xml: &str) -> Result<()> {
        // Not checked against libvirt's schema: what was defined once may not fit in all respects.
        self.ask(|connection| {
            let xml = xml.to_owned();
            let defined =
                connection.call("define a domain", move |c| VirDomain::define_xml(c, &xml));
            defined.map(drop)
        })
    }

    fn undefine(&self, name: &str) -> Result<()> {
        self.ask(|connection| match named(connection, name)? {
            Some(domain) => domain.undefine(),
            None => Ok(()),
        })
    }

    fn set_autostart(&self, name: &str, autostart: bool) -> Result<()> {
        self.present(name)?.set_autostart(autostart)
    }

    fn start(&self, name: &str) -> Result<()> {
        self.present(name)?.start()
    }

    fn ask_to_shut_down(&self, name: &str) -> Result<()> {
        self.present(name)?.ask_to_shut_down()
    }

    fn destroy(&self, name: &str) -> Result<()> {
        self.ask(|connection| match named(connection, name)? {
            Some(domain) => domain.destroy(),
            None => Ok(()),
        })
    }

    fn agent_answers(&self, name: &str, limit: Duration) -> bool {
        // Only the agent can tell what time it is for the guest.
        let ask = |domain: Domain| domain.call_within(limit, "ask the guest of", |d| d.get_time(0));
        self.present(name).and_then(ask).is_ok()
    }

    fn pools(&self) -> Result<Vec<PoolFound>> {
        self.ask(|connection| {
            connection.call("list the pools", |c| {
                let pools = if_driven(c.list_all_storage_pools(0))?;
                let of = |pool: &StoragePool| {
                    Ok(PoolFound {
                        name: pool.get_name()?,
                        xml: pool.get_xml_desc(0)?,
                        active: pool.is_active()?,
                    })
                };
                pools.iter().map(of).collect()
            })
        })
    }

    fn volume_path(&self, pool: &str, volume: &str) -> Result<String> {
        self.ask(|connection| connection.volume_path(pool, volume))
    }

    fn refresh(&self, pool: &str) -> Result<()> {
        self.ask(|connection| {
            let (what, pool) = (format!("refresh pool {pool}"), pool.to_owned());
            connection.call(&what, move |c| {
                StoragePool::lookup_by_name(c, &pool)?.refresh(0).map(drop)
            })
        })
    }

    fn networks(&self) -> Result<Vec<String>> {
        self.ask(|connection| {
            connection.call("list the networks", |c| {
                if_driven(c.list_all_networks(0))?
                    .iter()
                    .map(|n| n.get_name())
                    .collect()
            })
        })
    }
}

/// What libvirt lists; nothing if the driver for it, a package of its own, is not installed.
fn if_driven<T>(
    listed: std::result::Result<Vec<T>, virt::error::Error>,
) -> std::result::Result<Vec<T>, virt::error::Error> {
    match listed {
        Err(e) if e.code() == virt::error::ErrorNumber::NoSupport => Ok(Vec::new()),
        other => other,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_this_host_s_libvirt_is_asked() {
        check_local("qemu:///system").unwrap();
        let refused = check_local("qemu+ssh://host/system").unwrap_err();
        assert_eq!(refused.kind(), Kind::Usage);
        assert!(refused.message().contains("another host's"), "{refused}");
    }
}
