//! Jobs of single disks: committing an overlay into what is below it.

use super::{done, text};
use crate::connect::VirResult;
use virt::domain::Domain as VirDomain;
use virt_sys as sys;

/// How far a disk's job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockJob {
    /// What kind of job: `VIR_DOMAIN_BLOCK_JOB_TYPE_...`.
    pub kind: i32,
    /// How much is done, of how much.
    pub done: u64,
    /// See there.
    pub all: u64,
}

impl BlockJob {
    /// All is copied, and what is written goes to both: it can be ended by [`block_job_pivot`].
    pub fn is_ready(&self) -> bool {
        self.all > 0 && self.done == self.all
    }
}

/// Begins to commit the topmost image of `disk`, which the guest writes, into the one right below it.
pub(crate) fn block_commit(domain: &VirDomain, disk: &str) -> VirResult<()> {
    let disk = text(disk);
    let flags = sys::VIR_DOMAIN_BLOCK_COMMIT_ACTIVE | sys::VIR_DOMAIN_BLOCK_COMMIT_SHALLOW;
    let topmost = std::ptr::null();
    // SAFETY: the domain is valid, and the text lives until the call returns. Null means: the topmost one, the next one.
    let returned = unsafe {
        sys::virDomainBlockCommit(domain.as_ptr(), disk.as_ptr(), topmost, topmost, 0, flags)
    };
    done(returned).map(drop)
}

/// The job of `disk`, if it has one.
pub(crate) fn block_job(domain: &VirDomain, disk: &str) -> VirResult<Option<BlockJob>> {
    let disk = text(disk);
    let mut info = sys::virDomainBlockJobInfo {
        type_: 0,
        bandwidth: 0,
        cur: 0,
        end: 0,
    };
    // SAFETY: the domain is valid, the text and what is written to live until the call returns.
    let found = done(unsafe {
        sys::virDomainGetBlockJobInfo(domain.as_ptr(), disk.as_ptr(), &mut info, 0)
    })?;
    Ok((found > 0).then_some(BlockJob {
        kind: info.type_,
        done: info.cur,
        all: info.end,
    }))
}

fn end(domain: &VirDomain, disk: &str, flags: u32) -> VirResult<()> {
    let disk = text(disk);
    // SAFETY: the domain is valid, and the text lives until the call returns.
    done(unsafe { sys::virDomainBlockJobAbort(domain.as_ptr(), disk.as_ptr(), flags) }).map(drop)
}

/// Ends a job of `disk` that is ready: the guest goes on with the image that was committed to.
pub(crate) fn block_job_pivot(domain: &VirDomain, disk: &str) -> VirResult<()> {
    end(domain, disk, sys::VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
}

/// Gives the job of `disk` up: all stays as it is.
pub(crate) fn block_job_cancel(domain: &VirDomain, disk: &str) -> VirResult<()> {
    end(domain, disk, 0)
}
