//! How C's blocks are freed and resized where corruption is hunted: by what is recorded of them.

use super::plain;
use crate::config::Config;
use crate::global::{Base, base};
use core::alloc::Layout;
use core::ffi::c_void;
use core::ptr::NonNull;

static CONFIG: Config = Config::new();

/// What the C names stand on.
pub(super) const HEAP: Base<'static> = base(&CONFIG);

/// The alignment that is asked for.
pub(super) const ALIGN: usize = 16;

/// A block of `size` bytes from the thread's list, if the hunter lets it pass.
#[inline(always)]
pub(super) fn pop(size: usize) -> Option<NonNull<u8>> {
    if Base::passes_by() { plain::pop(size) } else { None }
}

/// Frees a block to the thread's list; false if it is not for that. Null is none.
///
/// # Safety
/// - `at` came from this heap and is live, or is null; else it is reported if it is one of the hunter's.
#[inline(always)]
pub(super) unsafe fn push(at: *mut c_void) -> bool {
    // A block with pages of its own lies in no slab.
    // SAFETY: handed on.
    !HEAP.may_have_in_slabs() && unsafe { plain::push(at) }
}

/// Frees a block.
///
/// # Safety
/// - `at` came from this heap and is live; else it is reported.
pub(super) unsafe fn release(at: NonNull<u8>) {
    if HEAP.has(at) {
        HEAP.release_unsized(at);
        return;
    }
    // SAFETY: handed on.
    unsafe { plain::release(at) };
}

/// Changes the size of a block to that of `new`, or says that there is no memory by null.
///
/// # Safety
/// - `old` came from this heap and is live; else it is reported.
pub(super) unsafe fn resize(old: NonNull<u8>, new: Layout) -> *mut u8 {
    if HEAP.has(old) {
        return HEAP.reallocate_unsized(old, new.size());
    }
    // SAFETY: handed on.
    unsafe { plain::resize(old, new) }
}

/// Bytes that the block at `at` has: those that were asked for.
pub(super) fn bytes(at: NonNull<u8>) -> usize {
    if HEAP.has(at) { HEAP.size(at) } else { plain::bytes(at) }
}
