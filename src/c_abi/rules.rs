//! What the C names do: the rules of C23, POSIX.1-2024 and glibc, each noted where it decides. Sizes are in bytes.

use super::{stratalloc_mallinfo as MallInfo, way};
use crate::Stratalloc;
use crate::global::ENGINE;
use crate::heap::Blocks;
use crate::os::{errno, keep_errno, set_errno};
use core::alloc::Layout;
use core::ffi::{c_int, c_void};
use core::ptr::{NonNull, null_mut};

/// `at`, or, where it is null, null and an error number.
fn or_out_of_memory(at: *mut u8) -> *mut c_void {
    if at.is_null() {
        set_errno(errno::ENOMEM);
    }
    at.cast()
}

/// The layout of `size` bytes at `align`, a power of two; `None` beyond `PTRDIFF_MAX`. Size 0 is served like 1.
fn layout(size: usize, align: usize) -> Option<Layout> {
    Layout::from_size_align(size.max(1), align).ok()
}

/// The layout of an object of `size` bytes, whatever it is. All classes from 16 bytes on are multiples of 16.
fn object(size: usize) -> Option<Layout> {
    layout(size, way::ALIGN)
}

#[inline(always)]
pub(super) fn malloc(size: usize) -> *mut c_void {
    if let Some(block) = way::pop(size) {
        return block.as_ptr().cast();
    }
    malloc_beyond(size)
}

#[cold]
#[inline(never)]
fn malloc_beyond(size: usize) -> *mut c_void {
    allocate(object(size))
}

/// A block for `layout`; without one, or without memory, null and ENOMEM.
fn allocate(layout: Option<Layout>) -> *mut c_void {
    // SAFETY: any layout may be asked for.
    or_out_of_memory(layout.map_or(null_mut(), |layout| unsafe { way::HEAP.alloc(layout) }))
}

/// `malloc` of `count` times `size` zero bytes. ENOMEM where the product is beyond every heap.
#[inline(always)]
pub(super) fn calloc(count: usize, size: usize) -> *mut c_void {
    let layout = count.checked_mul(size).and_then(object);
    // SAFETY: any layout may be asked for.
    or_out_of_memory(layout.map_or(null_mut(), |layout| unsafe { way::HEAP.alloc_zeroed(layout) }))
}

/// Frees a block. Null is none. The error number stays what it is (POSIX.1-2024).
///
/// # Safety
/// - `at` came from this heap and is live, or is null.
#[inline(always)]
pub(super) unsafe fn free(at: *mut c_void) {
    // SAFETY: handed on.
    if !unsafe { way::push(at) } {
        // SAFETY: handed on.
        unsafe { free_beyond(at) };
    }
}

/// `free` past the fast path.
///
/// # Safety
/// - `at` came from this heap and is live, or is null.
#[cold]
#[inline(never)]
unsafe fn free_beyond(at: *mut c_void) {
    if let Some(at) = NonNull::new(at.cast::<u8>()) {
        // SAFETY: handed on.
        keep_errno(|| unsafe { way::release(at) });
    }
}

/// Null is `malloc`; size 0 frees and is null (glibc). Without memory null and ENOMEM, and the block is as it was.
///
/// # Safety
/// - `at` came from this heap and is live, or is null.
pub(super) unsafe fn realloc(at: *mut c_void, size: usize) -> *mut c_void {
    let Some(old) = NonNull::new(at.cast::<u8>()) else {
        return malloc(size);
    };
    if size == 0 {
        // SAFETY: handed on.
        unsafe { free(at) };
        return null_mut();
    }
    // SAFETY: handed on.
    let fresh = object(size).map_or(null_mut(), |new| unsafe { way::resize(old, new) });
    or_out_of_memory(fresh)
}

/// `realloc` of `count` times `size` bytes (POSIX.1-2024). ENOMEM where the product is beyond every heap.
///
/// # Safety
/// - `at` came from this heap and is live, or is null.
pub(super) unsafe fn reallocarray(at: *mut c_void, count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        // SAFETY: handed on.
        Some(bytes) => unsafe { realloc(at, bytes) },
        None => {
            set_errno(errno::ENOMEM);
            null_mut()
        }
    }
}

/// A block at a multiple of `align`. EINVAL where that is no power of two (C23).
pub(super) fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    if !align.is_power_of_two() {
        set_errno(errno::EINVAL);
        return null_mut();
    }
    allocate(layout(size, align))
}

/// As `aligned_alloc`; an alignment that is no power of two is rounded up to one (glibc).
pub(super) fn memalign(align: usize, size: usize) -> *mut c_void {
    match align.checked_next_power_of_two() {
        Some(align) => aligned_alloc(align, size),
        None => {
            set_errno(errno::EINVAL);
            null_mut()
        }
    }
}

/// As `aligned_alloc`, but the error is returned, and what `at` points to and the error number stay what they are.
///
/// # Safety
/// - `at` may be written.
pub(super) unsafe fn posix_memalign(at: *mut *mut c_void, align: usize, size: usize) -> c_int {
    if !align.is_power_of_two() || !align.is_multiple_of(size_of::<*mut c_void>()) {
        return errno::EINVAL;
    }
    let fresh = keep_errno(|| allocate(layout(size, align)));
    if fresh.is_null() {
        return errno::ENOMEM;
    }
    // SAFETY: handed on.
    unsafe { at.write(fresh) };
    0
}

/// A block at a multiple of the page size.
pub(super) fn valloc(size: usize) -> *mut c_void {
    allocate(layout(size, ENGINE.page_size()))
}

/// `valloc` of whole pages. ENOMEM where there are too many.
pub(super) fn pvalloc(size: usize) -> *mut c_void {
    let page = ENGINE.page_size();
    allocate(size.max(1).checked_next_multiple_of(page).and_then(|size| layout(size, page)))
}

/// Bytes that the block at `at` has, all of them usable; 0 for null.
pub(super) fn malloc_usable_size(at: *mut c_void) -> usize {
    NonNull::new(at.cast::<u8>()).map_or(0, way::bytes)
}

/// Gives free memory back, whatever `_pad` asks to keep; 1 if some of it was resident, else 0.
pub(super) fn malloc_trim(_pad: usize) -> c_int {
    let resident = || Stratalloc::stats().resident;
    let before = resident();
    keep_errno(Stratalloc::collect);
    c_int::from(resident() < before)
}

pub(super) fn mallinfo2() -> MallInfo {
    let stats = Stratalloc::stats();
    MallInfo {
        arena: stats.mapped,
        ordblks: stats.classes.iter().map(|class| (class.cached + class.in_depot) as usize).sum(),
        uordblks: stats.allocated,
        fordblks: stats.mapped.saturating_sub(stats.allocated),
        keepcost: stats.retained,
        ..MallInfo::default()
    }
}
