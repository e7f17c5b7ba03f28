//! Which of two hosts a VM belongs to. The epoch only grows: whoever acts on an older one has missed that the roles
//! were changed, and is refused.

use crate::error::{Error, Kind, Result};
use crate::runbook::Runbook;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a host is for a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The VM runs here.
    Primary,
    /// Generations are received here.
    Replica,
    /// The VM has gone to the other host.
    Retired,
    /// Not known: somebody has to decide.
    Held,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Primary => "primary",
            Role::Replica => "replica",
            Role::Retired => "retired",
            Role::Held => "held",
        })
    }
}

/// A host's role for a pair, and since which change of roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// The role.
    pub role: Role,
    /// The epoch, from 1.
    pub epoch: u64,
}

impl Standing {
    /// Of the source of a pair whose roles were never changed.
    pub fn primary() -> Standing {
        Standing {
            role: Role::Primary,
            epoch: 1,
        }
    }

    /// Of its target.
    pub fn replica() -> Standing {
        Standing {
            role: Role::Replica,
            epoch: 1,
        }
    }

    /// Whether this host may send generations of `vm`; fails with [`Kind::Refused`].
    pub fn check_sends(&self, vm: &str) -> Result<()> {
        match self.role {
            Role::Primary => Ok(()),
            role => Err(Error::new(
                Kind::Refused,
                format!(
                    "this host is {role} for VM {vm} since epoch {}, so it sends no generations",
                    self.epoch
                ),
            )
            .advise("sync from the host that is primary; 'status' tells the roles")
            .see(Runbook::SplitBrain)),
        }
    }

    /// Whether the VM's disks here are a replica's, which may be made anew from a generation; fails with
    /// [`Kind::Refused`] if they are the VM's own.
    pub fn check_is_replica(&self, vm: &str) -> Result<()> {
        match self.role {
            Role::Replica => Ok(()),
            role => Err(Error::new(
                Kind::Refused,
                format!(
                    "this host is {role} for VM {vm} since epoch {}: its disks are not a replica's any more",
                    self.epoch
                ),
            )
            .advise("'status' tells the roles")),
        }
    }

    /// What this host is once it has received from a source in `epoch`; fails with [`Kind::Refused`] if it may not.
    pub fn receiving(&self, vm: &str, epoch: u64) -> Result<Standing> {
        if self.role != Role::Replica {
            return Err(Error::new(
                Kind::Refused,
                format!(
                    "the target is {} for VM {vm} since epoch {}, so it takes no generations",
                    self.role, self.epoch
                ),
            )
            .advise("the VM may have been taken over there: look before anything is overwritten")
            .see(Runbook::SplitBrain));
        }
        if epoch < self.epoch {
            return Err(Error::new(
                Kind::Refused,
                format!(
                    "the source of VM {vm} is in epoch {epoch}, but the target has seen epoch {}: the roles were changed",
                    self.epoch
                ),
            )
            .advise("this source was replaced: look which host runs the VM now")
            .see(Runbook::SplitBrain));
        }
        Ok(Standing { epoch, ..*self })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_a_primary_sends_and_only_a_replica_receives() {
        for role in [Role::Replica, Role::Retired, Role::Held] {
            let error = Standing { role, epoch: 4 }.check_sends("101").unwrap_err();
            assert_eq!(error.kind(), Kind::Refused);
            assert!(error.message().contains(&role.to_string()));
        }
        Standing::primary().check_sends("101").unwrap();
        for role in [Role::Primary, Role::Retired, Role::Held] {
            assert!(Standing { role, epoch: 4 }.receiving("101", 9).is_err());
        }
    }

    #[test]
    fn epochs_only_grow() {
        let standing = Standing {
            epoch: 4,
            ..Standing::replica()
        };
        assert!(standing.receiving("101", 3).is_err());
        assert_eq!(standing.receiving("101", 4).unwrap(), standing);
        assert_eq!(standing.receiving("101", 6).unwrap().epoch, 6);
    }
}
