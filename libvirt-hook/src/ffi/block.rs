//! Block jobs: merging what lies over a disk into it while the domain runs.

use super::{done, text};
use crate::connect::VirResult;
use virt::domain::Domain as VirDomain;
use virt_sys as sys;

/// Begins to merge the topmost image of the disk `target` (vda) into the one below. It goes on until it is ended: what the
/// guest writes meanwhile goes to both.
pub(crate) fn commit_begin(domain: &VirDomain, target: &str) -> VirResult<()> {
    let target = text(target);
    let flags = sys::VIR_DOMAIN_BLOCK_COMMIT_ACTIVE | sys::VIR_DOMAIN_BLOCK_COMMIT_SHALLOW;
    let none = std::ptr::null();
    // SAFETY: the domain is valid, and the text lives until the call returns. Null means: the topmost, and what it lies over.
    let returned = unsafe {
        sys::virDomainBlockCommit(domain.as_ptr(), target.as_ptr(), none, none, 0, flags)
    };
    done(returned).map(drop)
}

/// Ends it, with the lower image as the disk. Fails if not all has been merged yet.
pub(crate) fn commit_pivot(domain: &VirDomain, target: &str) -> VirResult<()> {
    abort(domain, target, sys::VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
}

/// Ends a block job of the disk, which stays as it is.
pub(crate) fn commit_cancel(domain: &VirDomain, target: &str) -> VirResult<()> {
    abort(domain, target, 0)
}

fn abort(domain: &VirDomain, target: &str, flags: u32) -> VirResult<()> {
    let target = text(target);
    // SAFETY: the domain is valid, and the text lives until the call returns.
    done(unsafe { sys::virDomainBlockJobAbort(domain.as_ptr(), target.as_ptr(), flags) }).map(drop)
}
