//! Memory of a debugger's own, and pages of it that fault when they are touched.

#![allow(clippy::disallowed_methods, reason = "this folder is where the system is called")]

use super::Span;
use super::release::going;
use core::ffi::{c_int, c_void};

/// Makes whole pages a guard: whatever touches them faults, and what was in them goes. By `MADV_GUARD_INSTALL` where the
/// kernel has it, which costs no mapping.
///
/// # Safety
/// - The pages are ours and nobody uses them.
pub(crate) unsafe fn install_guard(span: Span) -> bool {
    const MADV_GUARD_INSTALL: c_int = 102;
    going(span);
    // SAFETY: as the caller states.
    unsafe { libc::madvise(span.at as *mut c_void, span.bytes, MADV_GUARD_INSTALL) == 0 }
}

/// Takes guards away: the pages read zero.
///
/// # Safety
/// - The pages are ours and nobody uses them.
pub(crate) unsafe fn remove_guard(span: Span) -> bool {
    const MADV_GUARD_REMOVE: c_int = 103;
    // SAFETY: as the caller states.
    unsafe { libc::madvise(span.at as *mut c_void, span.bytes, MADV_GUARD_REMOVE) == 0 }
}

/// Makes whole pages accessible, or takes their memory and all access away; at the price of up to two mappings.
///
/// # Safety
/// - The pages are ours and nobody uses them.
pub(crate) unsafe fn set_access(span: Span, accessible: bool) -> bool {
    let at = span.at as *mut c_void;
    if !accessible {
        going(span);
        // SAFETY: as the caller states. If it is refused the memory stays.
        let _ = unsafe { libc::madvise(at, span.bytes, libc::MADV_DONTNEED) };
    }
    let access = if accessible { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_NONE };
    // SAFETY: as the caller states.
    unsafe { libc::mprotect(at, span.bytes, access) == 0 }
}
