//! Whether a guest can be moved without being held still, and the end of what that lays over its disks. See
//! [`crate::hypervisor::SeededHypervisor`].

use super::handover::{Handing, Handover};
use super::keeper::EARLIER_MAX;
use super::live::Live;
use super::messages::HostRequest;
use super::migrate::Migration;
use crate::agent::Client;
use crate::cli::units::human_time;
use crate::error::{Error, Kind, Result};
use crate::hypervisor::{LiveHypervisor, LiveProfile, SeededHypervisor};
use crate::lock::Lock;
use crate::replica::Layout;
use std::time::Duration;

/// How long such a move may take before its keeper gives it up: it costs the guest nothing but speed.
pub(super) const SEEDED_MAX: Duration = Duration::from_secs(24 * 3600);

/// Merges what a move that was cut off has left over the disks of a VM of this host. Its lock is the caller's. Returns notes.
pub fn settle(layout: &Layout, live: &dyn LiveHypervisor, vm: &str) -> Result<Vec<String>> {
    let Some(seeded) = live.seeded() else {
        return Ok(Vec::new());
    };
    // A keeper that is still about it.
    let what = format!("letting VM {vm} go");
    let _lock = Lock::take_within(EARLIER_MAX, &layout.keeper_lock(vm), &what)?;
    let settled = seeded.settle(vm);
    settled.map_err(|e| e.context(format!("cannot merge the disks of VM {vm} again")))
}

/// What a hypervisor needs that was said to be able to do it.
pub(super) fn seeder(live: &dyn LiveHypervisor) -> Result<&dyn SeededHypervisor> {
    live.seeded().ok_or_else(|| {
        let what = "this hypervisor lays nothing over the disks of a guest";
        Error::new(Kind::Protocol, what)
    })
}

impl Migration<'_> {
    /// The same for this VM, before anything else is done to it.
    pub(super) fn settle_left(&self) -> Result<()> {
        let Some(live) = self.live else {
            return Ok(());
        };
        let notes = settle(self.context.layout, live.hypervisor, self.vm)?;
        self.context.reporter.notes(&notes);
        Ok(())
    }

    /// Whether it looks as if the guest need not be held still: then nothing has to be short.
    pub(super) fn may_seed(&self) -> bool {
        let live = self
            .live
            .filter(|_| self.options.live && !self.options.pause);
        let seeded = live.and_then(|live| live.hypervisor.seeded());
        seeded.is_some_and(|seeded| seeded.check_seeding(self.vm).is_ok())
    }

    /// Refuses to pause a guest for longer than was agreed to, where only the other host has turned out to need that.
    pub(super) fn check_pause(&self, predicted: Duration) -> Result<()> {
        if predicted <= self.options.downtime_max {
            return Ok(());
        }
        Err(Error::new(
            Kind::Timeout,
            format!(
                "VM {} would be paused for about {}, which is more than --max-downtime",
                self.vm,
                human_time(predicted)
            ),
        )
        .advise(
            "it runs on here. Run again with --live=pause, which syncs until the rest is small",
        ))
    }

    /// Whether the guest need not be held still: both hosts must be able to. Says why not, unless that was asked for.
    pub(super) fn can_seed(
        &self,
        live: &Live,
        handover: &Handover,
        profile: &LiveProfile,
        client: &mut Client,
    ) -> Result<bool> {
        let Some(seeded) = live.hypervisor.seeded().filter(|_| !self.options.pause) else {
            return Ok(false);
        };
        let request = HostRequest::CheckSeeded {
            pair: handover.pair,
            profile: Box::new(profile.clone()),
        };
        let checked = seeded
            .check_seeding(self.vm)
            .and_then(|()| client.host::<_, ()>(&request));
        match checked {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == Kind::Refused => {
                self.context.reporter.note(&format!(
                    "the guest has to be paused for the move: {}",
                    e.message()
                ));
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }
}

impl Handing<'_> {
    /// What lies over the disks there is merged into them. What lies over those here is needed until then.
    pub(super) fn settle_there(&self, handover: &Handover, client: &mut Client) -> Result<()> {
        let settled = client.host::<_, Vec<String>>(&HostRequest::Settle {
            pair: handover.pair,
        });
        let notes = settled.map_err(|e| {
            e.context(format!(
                "VM {} runs on {}, but its disks could not be merged there yet",
                self.vm, handover.target_name
            ))
            .advise("run the same command again: what is left is done then")
        })?;
        self.context.reporter.notes(&notes);
        Ok(())
    }

    /// The same here, where the VM stays.
    pub(super) fn settle_here(&self) {
        let settled = match self.live {
            Some(live) => settle(self.layout(), live, self.vm),
            None => Ok(Vec::new()),
        };
        let notes = settled.unwrap_or_else(|e| vec![e.message()]);
        self.context.reporter.notes(&notes);
    }
}
