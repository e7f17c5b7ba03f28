//! What happens to domains, as libvirt tells it.

use super::done;
use crate::connect::VirResult;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Once, PoisonError, RwLock};
use virt::connect::Connect;
use virt::domain::Domain as VirDomain;
use virt_sys as sys;

/// How often a domain was made to run since it is watched.
#[derive(Debug, Default)]
pub(crate) struct Lifecycle {
    resumed: AtomicU32,
}

impl Lifecycle {
    /// How often.
    pub fn resumed(&self) -> u32 {
        self.resumed.load(Ordering::Acquire)
    }
}

unsafe extern "C" fn happened(
    _connect: sys::virConnectPtr,
    _domain: sys::virDomainPtr,
    event: c_int,
    _detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    let runs = [sys::VIR_DOMAIN_EVENT_STARTED, sys::VIR_DOMAIN_EVENT_RESUMED];
    if runs.iter().any(|run| u32::try_from(event) == Ok(*run)) {
        // SAFETY: it is the pointer that was registered, to a `Lifecycle` that the registration keeps alive.
        let lifecycle = unsafe { &*opaque.cast::<Lifecycle>() };
        lifecycle.resumed.fetch_add(1, Ordering::AcqRel);
    }
    0
}

unsafe extern "C" fn forget(opaque: *mut c_void) {
    // SAFETY: it is the pointer that `Arc::into_raw` gave to the registration, which gives it back once.
    drop(unsafe { Arc::from_raw(opaque.cast::<Lifecycle>()) });
}

/// Lets a thread handle what libvirt's connections are told. To be called before the first connection is opened that is to
/// tell anything; it lasts as long as the process.
pub(crate) fn run_events() -> VirResult<()> {
    static ONCE: Once = Once::new();
    static FAILED: RwLock<Option<virt::error::Error>> = RwLock::new(None);
    let failed = |e| *FAILED.write().unwrap_or_else(PoisonError::into_inner) = Some(e);
    ONCE.call_once(|| match virt::event::event_register_default_impl() {
        Ok(()) => {
            let thread = std::thread::Builder::new().name("libvirt events".into());
            // If it cannot be started, no event comes, which is noticed where one is waited for.
            let _ = thread.spawn(|| while virt::event::event_run_default_impl().is_ok() {});
        }
        Err(e) => failed(e),
    });
    let failed = FAILED.read().unwrap_or_else(PoisonError::into_inner);
    failed.clone().map_or(Ok(()), Err)
}

/// Counts from now on how often `domain` is made to run.
pub(crate) fn watch_lifecycle(connect: &Connect, domain: &VirDomain) -> VirResult<Arc<Lifecycle>> {
    let lifecycle = Arc::new(Lifecycle::default());
    let opaque = Arc::into_raw(Arc::clone(&lifecycle)).cast_mut();
    type Specific = unsafe extern "C" fn(
        sys::virConnectPtr,
        sys::virDomainPtr,
        c_int,
        c_int,
        *mut c_void,
    ) -> c_int;
    type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
    // SAFETY: libvirt calls it with the type that belongs to the event's number, whatever the type of the parameter is
    // (`VIR_DOMAIN_EVENT_CALLBACK` in its header).
    let callback = unsafe { std::mem::transmute::<Specific, Generic>(happened) };
    // SAFETY: connection and domain are valid. The opaque pointer stays valid until libvirt gives it to `forget`.
    let registered = done(unsafe {
        sys::virConnectDomainEventRegisterAny(
            connect.as_ptr(),
            domain.as_ptr(),
            sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE as c_int,
            Some(callback),
            opaque.cast(),
            Some(forget),
        )
    });
    match registered {
        Ok(_) => Ok(lifecycle),
        Err(e) => {
            // SAFETY: it was not registered, so libvirt does not have the pointer, and it is given back once.
            drop(unsafe { Arc::from_raw(opaque) });
            Err(e)
        }
    }
}
