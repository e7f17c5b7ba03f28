//! The guest's file systems, by its agent; and the end of a domain's job.

use super::done;
use crate::connect::VirResult;
use virt::domain::Domain as VirDomain;
use virt_sys as sys;

/// How long libvirt waits for the guest's agent, in seconds, whoever asks for it. -2 is its default: as long as that takes.
pub(crate) fn set_agent_timeout(domain: &VirDomain, seconds: i32) -> VirResult<()> {
    // SAFETY: the domain is valid.
    done(unsafe { sys::virDomainAgentSetResponseTimeout(domain.as_ptr(), seconds, 0) }).map(drop)
}

/// Flushes and freezes all file systems of the guest; returns how many.
pub(crate) fn fs_freeze(domain: &VirDomain) -> VirResult<u32> {
    // SAFETY: the domain is valid; no names of file systems means all of them.
    let count =
        done(unsafe { sys::virDomainFSFreeze(domain.as_ptr(), std::ptr::null_mut(), 0, 0) })?;
    Ok(count.unsigned_abs())
}

/// Thaws all file systems of the guest; returns how many.
pub(crate) fn fs_thaw(domain: &VirDomain) -> VirResult<u32> {
    // SAFETY: the domain is valid; no names of file systems means all of them.
    let count = done(unsafe { sys::virDomainFSThaw(domain.as_ptr(), std::ptr::null_mut(), 0, 0) })?;
    Ok(count.unsigned_abs())
}

/// Ends the domain's job: a backup, a migration.
pub(crate) fn abort_job(domain: &VirDomain) -> VirResult<()> {
    // SAFETY: the domain is valid.
    done(unsafe { sys::virDomainAbortJob(domain.as_ptr()) }).map(drop)
}
