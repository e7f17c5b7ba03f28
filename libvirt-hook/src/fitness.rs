//! Whether a domain may be moved from this host at all.

use crate::host::Host;
use crate::source;
use rblocksync::error::{Error, Kind, Result};

/// Refuses a domain that would not start again elsewhere from what is sent. Returns notes for the user.
pub fn check(host: &dyn Host, name: &str) -> Result<Vec<String>> {
    let found = source::found(host, name)?;
    if !found.persistent {
        return Err(Error::new(
            Kind::Refused,
            format!("domain {name} is transient: it would be gone once it is off"),
        )
        .advise("define it first: virsh dumpxml, virsh define"));
    }
    Ok(Vec::new())
}
