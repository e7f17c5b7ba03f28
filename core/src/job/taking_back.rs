//! A VM that was given up, or was about to be, stays where it was.

use super::handover::{Handing, Handover};
use super::messages::HostRequest;
use crate::crash;
use crate::error::{Kind, Result};
use crate::replica::{self, Decline, Role, Standing};
use serde_json::json;

impl Handing<'_> {
    /// Takes the VM back that was given up, once the target has made sure that it will not take it over; or, if somebody
    /// says that it is lost for good (`is_lost`), without asking.
    pub fn take_back(&self, handover: &mut Handover, is_lost: bool) -> Result<()> {
        let layout = self.layout();
        handover.undoing = true;
        handover.keep(layout, self.vm)?;
        crash::point("undo begun");
        let standing = Standing {
            role: Role::Primary,
            epoch: handover.epoch + 1,
        };
        if replica::newest_epoch(layout, self.vm)? >= handover.epoch {
            if !is_lost {
                let order = Decline {
                    pair: handover.pair,
                    epoch: standing.epoch,
                };
                let declined = self.with_target(|client| {
                    if handover.live {
                        client.host::<_, ()>(&HostRequest::Leave { pair: order.pair })?;
                    }
                    client.host::<_, ()>(&HostRequest::Decline(order.clone()))
                });
                if declined.as_ref().is_err_and(|e| e.kind() == Kind::Refused) {
                    // It has taken the VM over, so there is only one way from here.
                    handover.undoing = false;
                    handover.keep(layout, self.vm)?;
                }
                declined?;
            }
            crash::point("undo confirmed");
            replica::stand(layout, self.vm, standing)?;
            replica::set_guard(layout, self.vm, standing, "it was taken back")?;
            crash::point("undo standing");
            let notes = self.roles.reinstate(self.vm)?;
            self.context.reporter.notes(&notes);
        }
        self.start_again(handover)
    }

    fn run_again(&self, handover: &Handover) -> Result<()> {
        if !self.roles.is_running(self.vm)? {
            return self.roles.start(self.vm);
        }
        if !handover.live {
            return Ok(());
        }
        self.live()?.resume(self.vm)?;
        // If it cannot be reached now, the next one that wants the replica does it.
        let _ = self.with_target(|client| {
            client.host::<_, ()>(&HostRequest::Leave {
                pair: handover.pair,
            })
        });
        Ok(())
    }

    /// The VM stays here: it runs again if it did, and nothing is pending.
    pub fn start_again(&self, handover: &Handover) -> Result<()> {
        if handover.runs {
            self.run_again(handover)?;
        }
        crash::point("undo started");
        let adopting = self.layout().adopting(handover.reverse);
        replica::remove(&adopting)?;
        Handover::forget(self.layout(), self.vm)?;
        self.settle_here();
        self.context.reporter.say(
            format!("VM {} stays on this host", self.vm),
            json!({"event": "undone", "vm": self.vm, "runs": handover.runs}),
        );
        Ok(())
    }
}
