//! A connection to libvirt: every call bounded in time, every failure an [`Error`] that says what to do.
//!
//! A call to libvirt can hang: while a hook script runs, while another job has the domain, or because the daemon is gone
//! behind an SSH connection. Nothing can interrupt one. So each is made by a thread of its own, and when its time is up
//! the caller goes on without it; the thread ends whenever libvirt lets it. What the call was to do may still happen, which
//! is why [`Kind::Timeout`] never means that nothing was done.

mod domain;
mod error;
mod restart;
mod state;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use domain::{Domain, Job};
pub(crate) use error::{code_of, explain};
pub(crate) use restart::over_restarts;
pub use state::{DomainState, State};

use rblocksync::error::{Error, Kind, Result};
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::sync::{Arc, Once};
use std::time::Duration;
use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::Domain as VirDomain;
use virt::storage_pool::StoragePool;
use virt::storage_vol::StorageVol;

/// How long opening a connection may take, an SSH login included.
const OPEN_TIME: Duration = Duration::from_secs(40);

/// How long an ordinary call may take. libvirt itself gives up after 30 s to wait for a domain that has a job.
pub(crate) const CALL_TIME: Duration = Duration::from_secs(45);

/// What a call to the `virt` crate returns.
pub(crate) type VirResult<T> = std::result::Result<T, virt::error::Error>;

/// A connection to libvirt. Copies share it; the last one closes it.
#[derive(Debug, Clone)]
pub struct Connection {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    uri: String,
    connect: Connect,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The crate does not close it by itself. Closing sends a message, so it can hang as well.
        let mut connect = self.connect.clone();
        let _ = self.connect.close();
        std::thread::spawn(move || connect.close());
    }
}

/// Runs `call` in a thread of its own and waits for it at most `limit`. `what` says what is done to what.
pub(crate) fn bounded<T: Send + 'static>(
    what: &str,
    limit: Duration,
    call: impl FnOnce() -> VirResult<T> + Send + 'static,
) -> Result<T> {
    let (tell, told) = channel();
    std::thread::Builder::new()
        .name("libvirt".into())
        .spawn(move || drop(tell.send(call())))
        .map_err(|e| Error::io(format!("cannot start a thread that {what}"), e))?;
    match told.recv_timeout(limit) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(e)) => Err(explain(what, &e)),
        Err(RecvTimeoutError::Timeout) => Err(Error::new(
            Kind::Timeout,
            format!("cannot {what}: libvirt has not answered for {} s", limit.as_secs()),
        )
        .advise(
            "a hook script that hangs, or another job on the domain, keeps libvirt from answering: see 'virsh domjobinfo' \
             and the journal of libvirtd or virtqemud",
        )),
        Err(RecvTimeoutError::Disconnected) => Err(Error::new(
            Kind::Tool,
            format!("cannot {what}: the call to libvirt ended without an answer"),
        )),
    }
}

/// libvirt's strings end with a zero byte, so they cannot hold one.
pub(crate) fn plain(text: &str) -> Result<&str> {
    match text.contains('\0') {
        false => Ok(text),
        true => Err(Error::new(
            Kind::Usage,
            format!("libvirt cannot be given the text {text:?}"),
        )),
    }
}

impl Connection {
    /// Connects to the libvirt that `uri` names, as `qemu:///system` or `qemu+ssh://host/system`.
    pub fn open(uri: &str) -> Result<Connection> {
        static QUIET: Once = Once::new();
        // By default libvirt's library prints every error to stderr.
        QUIET.call_once(virt::error::clear_error_callback);
        let name = plain(uri)?.to_owned();
        let what = format!("connect to libvirt at {uri}");
        let opened = bounded(&what, OPEN_TIME, move || Connect::open(Some(&name)));
        let connect = opened.map_err(|e| match e.advice() {
            Some(_) if e.kind() != Kind::Remote => e,
            _ => e.advise(
                "is its daemon running? 'systemctl status libvirtd.service virtqemud.socket'",
            ),
        })?;
        Ok(Connection {
            shared: Arc::new(Shared {
                uri: uri.to_owned(),
                connect,
            }),
        })
    }

    /// The URI it was opened with.
    pub fn uri(&self) -> &str {
        &self.shared.uri
    }

    /// Uses the handle in a call that is bounded in time already.
    pub(crate) fn with_handle<T>(&self, act: impl FnOnce(&Connect) -> T) -> T {
        act(&self.shared.connect)
    }

    /// Makes any other call of the `virt` crate, bounded in time as all are. `what` completes "cannot ...".
    pub fn call<T: Send + 'static>(
        &self,
        what: &str,
        call: impl FnOnce(&Connect) -> VirResult<T> + Send + 'static,
    ) -> Result<T> {
        let shared = Arc::clone(&self.shared);
        bounded(what, CALL_TIME, move || call(&shared.connect))
    }

    /// The same for a call of which it matters whether the thing exists: `None` if it does not.
    pub fn call_for<T: Send + 'static>(
        &self,
        what: &str,
        call: impl FnOnce(&Connect) -> VirResult<T> + Send + 'static,
    ) -> Result<Option<T>> {
        match self.call(what, call) {
            Ok(found) => Ok(Some(found)),
            Err(e) if e.kind() == Kind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Whether the daemon is still there and answers. libvirt's library notices that one is gone only when it writes to it,
    /// so it is asked something.
    pub fn is_alive(&self) -> bool {
        self.version().is_ok()
    }

    /// The host's name, as libvirt knows it.
    pub fn host_name(&self) -> Result<String> {
        self.call("ask libvirt for its host's name", |c| c.get_hostname())
    }

    /// The version of libvirt there: 9000000 is 9.0.0.
    pub fn version(&self) -> Result<u32> {
        self.call("ask libvirt for its version", |c| c.get_lib_version())
    }

    /// What the host can do, in libvirt's XML.
    pub fn capabilities(&self) -> Result<String> {
        self.call("ask libvirt what the host can do", |c| c.get_capabilities())
    }

    /// The domain of this name or UUID. Fails with [`Kind::NotFound`] if there is none.
    pub fn domain(&self, name: &str) -> Result<Domain> {
        match self.find(name)? {
            Some(domain) => Ok(domain),
            None => Err(Error::new(
                Kind::NotFound,
                format!("libvirt at {} has no domain {name}", self.uri()),
            )
            .advise("'virsh list --all' lists them")),
        }
    }

    /// The domain of this name or UUID, if there is one. A name goes before a UUID.
    pub fn find(&self, name: &str) -> Result<Option<Domain>> {
        let wanted = plain(name)?.to_owned();
        let what = format!("look up the domain {name}");
        let found = self.call_for(&what, move |c| VirDomain::lookup_by_name(c, &wanted))?;
        match (found, Uuid::parse_str(name)) {
            (Some(found), _) => Domain::new(self, found).map(Some),
            (None, Ok(uuid)) => self.find_uuid(uuid),
            (None, Err(_)) => Ok(None),
        }
    }

    /// The domain of this UUID, if there is one.
    pub fn find_uuid(&self, uuid: Uuid) -> Result<Option<Domain>> {
        let text = uuid.to_string();
        let what = format!("look up the domain {uuid}");
        let found = self.call_for(&what, move |c| VirDomain::lookup_by_uuid_string(c, &text))?;
        found.map(|found| Domain::new(self, found)).transpose()
    }

    /// All domains, running or not.
    pub fn domains(&self) -> Result<Vec<Domain>> {
        let all = self.call("list the domains", |c| c.list_all_domains(0))?;
        all.into_iter()
            .map(|domain| Domain::new(self, domain))
            .collect()
    }

    /// The path of a volume in a pool.
    pub fn volume_path(&self, pool: &str, volume: &str) -> Result<String> {
        let what = format!("find the volume {volume} of the pool {pool}");
        let (pool, volume) = (pool.to_owned(), volume.to_owned());
        self.call(&what, move |c| {
            let pool = StoragePool::lookup_by_name(c, &pool)?;
            StorageVol::lookup_by_name(&pool, &volume)?.get_path()
        })
    }

    /// Defines a domain, or changes the definition of the one with its name and UUID. The XML is checked against
    /// libvirt's schema first.
    pub fn define(&self, xml: &str) -> Result<Domain> {
        let xml = plain(xml)?.to_owned();
        let defined = self.call("define a domain", move |c| {
            VirDomain::define_xml_flags(c, &xml, virt_sys::VIR_DOMAIN_DEFINE_VALIDATE)
        })?;
        Domain::new(self, defined)
    }
}
