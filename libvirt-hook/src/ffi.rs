//! What the `virt` crate lacks of libvirt: backups, block jobs, checkpoints, the guest's file systems, jobs, events.
//!
//! Each function is one function of libvirt's, with the crate's own types and errors, to be called as that crate's are: in
//! [`crate::connect::Domain::call`], which bounds it in time. This is the only module of the crate with unsafe code. What
//! makes it sound is the same everywhere: a [`VirDomain`] holds a valid `virDomainPtr` as long as it lives, strings are
//! ended by a zero byte and live until the call returns, and what libvirt allocates for us is copied and freed here.
#![allow(unsafe_code)]

mod backup;
mod block;
mod checkpoint;
mod events;
mod guest;
mod job;

pub(crate) use backup::{backup_begin, backup_xml};
pub(crate) use block::{commit_begin, commit_cancel, commit_pivot};
pub(crate) use checkpoint::{
    checkpoint_delete, checkpoint_names, checkpoint_redefine, checkpoint_xml, CheckpointDelete,
};
pub(crate) use events::{run_events, watch_lifecycle, Lifecycle};
pub(crate) use guest::{abort_job, fs_freeze, fs_thaw, set_agent_timeout};

pub(crate) use job::job_stats;

use crate::connect::VirResult;
use std::ffi::{c_char, c_int, CStr, CString};
use virt::error::Error as VirError;

/// A text for libvirt. One with a zero byte in it ends there, as it would in C: callers refuse such texts before.
fn text(text: &str) -> CString {
    let bytes = text.as_bytes();
    let end = bytes.iter().position(|byte| *byte == 0);
    CString::new(&bytes[..end.unwrap_or(bytes.len())]).unwrap_or_default()
}

/// What a call returned: negative is a failure, of which the calling thread has the details.
fn done(returned: c_int) -> VirResult<c_int> {
    match returned {
        0.. => Ok(returned),
        _ => Err(VirError::last_error()),
    }
}

/// A text that libvirt allocated, which is freed; null is a failure.
fn taken(pointer: *mut c_char) -> VirResult<String> {
    if pointer.is_null() {
        return Err(VirError::last_error());
    }
    // SAFETY: libvirt returned it as a text that is ours, ended by a zero byte, allocated by malloc. It is not used again.
    unsafe {
        let text = CStr::from_ptr(pointer).to_string_lossy().into_owned();
        libc::free(pointer.cast());
        Ok(text)
    }
}
