//! Checkpoints: <https://libvirt.org/formatcheckpoint.html>.

use super::{done, taken, text};
use crate::connect::VirResult;
use std::ffi::CStr;
use virt::domain::Domain as VirDomain;
use virt::error::Error as VirError;
use virt_sys as sys;

/// A checkpoint's handle.
struct Checkpoint(sys::virDomainCheckpointPtr);

impl Checkpoint {
    fn new(pointer: sys::virDomainCheckpointPtr) -> VirResult<Checkpoint> {
        match pointer.is_null() {
            true => Err(VirError::last_error()),
            false => Ok(Checkpoint(pointer)),
        }
    }

    fn find(domain: &VirDomain, name: &str) -> VirResult<Checkpoint> {
        let name = text(name);
        // SAFETY: the domain is valid, and the text lives until the call returns.
        Checkpoint::new(unsafe {
            sys::virDomainCheckpointLookupByName(domain.as_ptr(), name.as_ptr(), 0)
        })
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        // SAFETY: the pointer came from libvirt with a reference that is ours, and nobody else has it.
        unsafe { sys::virDomainCheckpointFree(self.0) };
    }
}

/// The names of a domain's checkpoints, each behind those that it depends on.
pub(crate) fn checkpoint_names(domain: &VirDomain) -> VirResult<Vec<String>> {
    let mut list: *mut sys::virDomainCheckpointPtr = std::ptr::null_mut();
    let flags = sys::VIR_DOMAIN_CHECKPOINT_LIST_TOPOLOGICAL;
    // SAFETY: the domain is valid. libvirt writes a pointer to an array of as many handles as it returns, which are ours.
    let count =
        done(unsafe { sys::virDomainListAllCheckpoints(domain.as_ptr(), &mut list, flags) })?;
    let count = usize::try_from(count).unwrap_or(0);
    let mut names = Vec::new();
    for index in 0..count {
        // SAFETY: the array has `count` handles; each is taken over once, and its name lives as long as it does.
        unsafe {
            let checkpoint = Checkpoint(*list.add(index));
            let name = sys::virDomainCheckpointGetName(checkpoint.0);
            if !name.is_null() {
                names.push(CStr::from_ptr(name).to_string_lossy().into_owned());
            }
        }
    }
    // SAFETY: the array is ours, allocated by malloc, and not used again.
    unsafe { libc::free(list.cast()) };
    Ok(names)
}

/// Describes a checkpoint. With `size`, QEMU is asked how much has changed since: that fails if its bitmaps are not sound.
pub(crate) fn checkpoint_xml(domain: &VirDomain, name: &str, size: bool) -> VirResult<String> {
    let checkpoint = Checkpoint::find(domain, name)?;
    let flags = match size {
        true => sys::VIR_DOMAIN_CHECKPOINT_XML_SIZE | sys::VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN,
        false => 0,
    };
    // SAFETY: the handle is valid; the text that is returned is ours.
    taken(unsafe { sys::virDomainCheckpointGetXMLDesc(checkpoint.0, flags) })
}

/// Has libvirt know a checkpoint whose bitmaps are in the disks already. Fails with `CheckpointInconsistent` if they are not,
/// or have missed something.
pub(crate) fn checkpoint_redefine(domain: &VirDomain, xml: &str) -> VirResult<()> {
    let xml = text(xml);
    let flags = sys::VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE
        | sys::VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE;
    // SAFETY: the domain is valid, and the text lives until the call returns; the handle that is returned is ours.
    let made = unsafe { sys::virDomainCheckpointCreateXML(domain.as_ptr(), xml.as_ptr(), flags) };
    Checkpoint::new(made).map(drop)
}

/// What goes with a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CheckpointDelete {
    /// Its bitmaps: what they mark goes to those of the checkpoint before.
    Bitmaps,
    /// Only what libvirt knows of it.
    Metadata,
}

/// Deletes a checkpoint.
pub(crate) fn checkpoint_delete(
    domain: &VirDomain,
    name: &str,
    what: CheckpointDelete,
) -> VirResult<()> {
    let checkpoint = Checkpoint::find(domain, name)?;
    let flags = match what {
        CheckpointDelete::Bitmaps => 0,
        CheckpointDelete::Metadata => sys::VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY,
    };
    // SAFETY: the handle is valid; it stays ours, and is freed when it is dropped.
    done(unsafe { sys::virDomainCheckpointDelete(checkpoint.0, flags) }).map(drop)
}
