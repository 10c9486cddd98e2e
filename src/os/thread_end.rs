//! The last call in a thread: by C's thread-specific data, whose destructors run after those of thread-locals.

use crate::sync::{AcqRel, Acquire, AtomicUsize};
#[cfg(not(feature = "c-abi"))]
use core::ptr::null_mut;

/// The key of [`at_thread_end`], and one; 0 before there is one.
static END_KEY: AtomicUsize = AtomicUsize::new(0);

/// Lets `end`, the same in every call, run when this thread ends, after the destructors of its thread-locals; also when
/// those have run already; false if there is no memory for that. (But for a thread whose keys' destructors have gone on setting keys for as many rounds as the
/// system goes along with.)
pub(crate) fn at_thread_end(end: extern "C" fn(*mut libc::c_void)) -> bool {
    end_key().or_else(|| make_end_key(end)).is_some_and(|key| {
        // SAFETY: the key exists as long as the process; any value but null will do.
        unsafe { libc::pthread_setspecific(key, (&raw const END_KEY).cast()) == 0 }
    })
}

/// Takes back what [`at_thread_end`] has arranged for this thread.
#[cfg(not(feature = "c-abi"))]
pub(crate) fn not_at_thread_end() {
    if let Some(key) = end_key() {
        // SAFETY: the key exists as long as the process.
        let _ = unsafe { libc::pthread_setspecific(key, null_mut()) };
    }
}

fn end_key() -> Option<libc::pthread_key_t> {
    // Acquire: pairs with the exchange below; the C library knows the key.
    let key = END_KEY.load(Acquire).checked_sub(1)?;
    libc::pthread_key_t::try_from(key).ok()
}

fn make_end_key(end: extern "C" fn(*mut libc::c_void)) -> Option<libc::pthread_key_t> {
    let mut key = 0;
    // SAFETY: the function stays as long as the program's code. Without a key left there is nobody to tell.
    if unsafe { libc::pthread_key_create(&raw mut key, Some(end)) } != 0 {
        return None;
    }
    if END_KEY.compare_exchange(0, key as usize + 1, AcqRel, Acquire).is_err() {
        // SAFETY: made above and known to nobody: another thread was faster, and its key is everybody's.
        let _ = unsafe { libc::pthread_key_delete(key) };
    }
    end_key()
}
