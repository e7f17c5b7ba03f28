//! What libvirt does to a domain at the moment.

use super::done;
use crate::connect::VirResult;
use std::ffi::{c_int, CStr};
use virt::domain::Domain as VirDomain;
use virt_sys as sys;

/// The job of a domain: what kind it is (`VIR_DOMAIN_JOB_...`), and what it does (`VIR_DOMAIN_JOB_OPERATION_...`), if
/// libvirt says so. The crate's own function takes the empty list that there is without a job for a pointer.
pub(crate) fn job_stats(domain: &VirDomain) -> VirResult<(u32, Option<u32>)> {
    let mut kind: c_int = 0;
    let mut list: sys::virTypedParameterPtr = std::ptr::null_mut();
    let mut count: c_int = 0;
    // SAFETY: the domain is valid. libvirt writes the kind, and a pointer to an array of as many parameters as it says,
    // which is ours; without any it is null or not to be read.
    done(unsafe {
        sys::virDomainGetJobStats(domain.as_ptr(), &mut kind, &mut list, &mut count, 0)
    })?;
    let mut operation = None;
    for index in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: the array has `count` parameters, whose names are ended by a zero byte. The value is read as the type
        // that it says it has.
        unsafe {
            let parameter = &*list.add(index);
            let name = CStr::from_ptr(parameter.field.as_ptr());
            let is_int = u32::try_from(parameter.type_) == Ok(sys::VIR_TYPED_PARAM_INT);
            if is_int && name == sys::VIR_DOMAIN_JOB_OPERATION {
                operation = u32::try_from(parameter.value.i).ok();
            }
        }
    }
    // SAFETY: the array is ours and not used again. Nothing is done if it is null.
    unsafe { sys::virTypedParamsFree(list, count) };
    Ok((u32::try_from(kind).unwrap_or(0), operation))
}
