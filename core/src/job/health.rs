//! Whether a VM does well on the host that it has gone to.

use super::handover::{Handing, Handover};
use super::messages::HostRequest;
use crate::agent::Client;
use crate::cmd::run_named;
use crate::error::{Error, Kind, Result};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Pause between two looks at a guest that does not answer yet.
const HEALTH_POLL: Duration = Duration::from_secs(1);
/// Longest time that a single try of the user's command may take.
const HEALTH_TRY_MAX: Duration = Duration::from_secs(60);

/// How it is to be found out whether the VM does well on the other host.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// A program by its absolute path, with arguments, run on this host with VMID and HOST in its environment: it exits with
    /// 0 if all is well.
    pub command: Option<(PathBuf, Vec<OsString>)>,
    /// How long to wait for it, or for the guest's agent.
    pub timeout: Duration,
}

impl Handing<'_> {
    /// Waits until the guest's agent answers, if there is one, and the user's command is content.
    pub(super) fn is_well(&self, handover: &Handover, client: &mut Client) -> Result<()> {
        let until = Instant::now() + self.health.timeout;
        let answers = HostRequest::Answers {
            vm: handover.target_vm.clone(),
        };
        loop {
            let why = match client.host::<_, Option<bool>>(&answers) {
                Ok(Some(true)) => break,
                Ok(None) => {
                    if self.health.command.is_none() {
                        self.context.reporter.note(
                            "the VM has no guest agent: it runs, and whether its guest is well is not known",
                        );
                    }
                    break;
                }
                Ok(Some(false)) => Error::new(
                    Kind::Timeout,
                    format!(
                        "the guest agent did not answer within {} s",
                        self.health.timeout.as_secs()
                    ),
                ),
                Err(e) => e,
            };
            self.wait(until, why)?;
        }
        let Some((program, arguments)) = &self.health.command else {
            return Ok(());
        };
        loop {
            let told = [
                ("VMID", handover.target_vm.as_str()),
                ("HOST", self.context.host.host()),
            ];
            let limit = HEALTH_TRY_MAX.min(self.health.timeout);
            let tried = run_named(program, arguments, &told, limit)
                .and_then(|ended| ended.check("the health command"));
            match tried {
                Ok(()) => return Ok(()),
                Err(e) => self.wait(until, e)?,
            }
        }
    }

    /// Waits a little, or fails with `why` when it is late.
    fn wait(&self, until: Instant, why: Error) -> Result<()> {
        if Instant::now() >= until || self.context.stop.is_stopped() {
            return Err(why);
        }
        std::thread::sleep(HEALTH_POLL);
        Ok(())
    }
}
