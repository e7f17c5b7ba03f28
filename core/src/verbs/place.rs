//! Whom a verb asks: this host or another.

use crate::cli::{Reporter, SshArgs};
use crate::error::Result;
use crate::hypervisor::TargetHypervisor;
use crate::job::{ask, HostRequest};
use crate::remote::{HostSpec, Remote};
use crate::replica::Layout;
use crate::stop::Stop;
use serde::de::DeserializeOwned;

/// What is needed to ask a host, be it this one or another.
pub struct Place<'a> {
    /// The front end's program.
    pub program: &'static str,
    /// State on this host.
    pub layout: &'a Layout,
    /// This host's hypervisor.
    pub hypervisor: &'a dyn TargetHypervisor,
    /// How other hosts are reached.
    pub ssh: &'a SshArgs,
    /// Who is told.
    pub reporter: &'a Reporter,
    /// Ends it early.
    pub stop: &'a Stop,
}

impl Place<'_> {
    /// Asks another host's agent one thing.
    pub fn ask<T: DeserializeOwned>(&self, host: &str, request: &HostRequest) -> Result<T> {
        let host = HostSpec::parse(host)?;
        Remote::during(&host, &self.ssh.options(self.stop), |session| {
            ask(session, self.program, request, self.stop)
        })
    }
}
