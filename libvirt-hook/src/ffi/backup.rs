//! Backup jobs: <https://libvirt.org/formatbackup.html>.

use super::{done, taken, text};
use crate::connect::VirResult;
use virt::domain::Domain as VirDomain;
use virt_sys as sys;

/// Begins a backup, with a checkpoint in the same instant if one is described.
pub(crate) fn backup_begin(
    domain: &VirDomain,
    backup: &str,
    checkpoint: Option<&str>,
    scratch_is_there: bool,
) -> VirResult<()> {
    let backup = text(backup);
    let checkpoint = checkpoint.map(text);
    let flags = match scratch_is_there {
        true => sys::VIR_DOMAIN_BACKUP_BEGIN_REUSE_EXTERNAL,
        false => 0,
    };
    let checkpoint = checkpoint.as_ref().map_or(std::ptr::null(), |c| c.as_ptr());
    // SAFETY: the domain is valid, and both texts live until the call returns. Null means: no checkpoint.
    let returned =
        unsafe { sys::virDomainBackupBegin(domain.as_ptr(), backup.as_ptr(), checkpoint, flags) };
    done(returned).map(drop)
}

/// The backup that is under way. Fails with `NoDomainBackup` if there is none.
pub(crate) fn backup_xml(domain: &VirDomain) -> VirResult<String> {
    // SAFETY: the domain is valid; the text that is returned is ours.
    taken(unsafe { sys::virDomainBackupGetXMLDesc(domain.as_ptr(), 0) })
}
