//! The C names, on the process heap: `stratalloc_malloc` and so on, as in `include/stratalloc.h`, and with the feature
//! `c-override` the bare ones, too.
//!
//! What C passes to `free` says nothing of its size: the page map does. A pointer at which no block begins ends the process
//! with a line that says so. Blocks of at least 16 bytes are aligned to 16, smaller ones to 8, which is enough for any object
//! that fits.

#[cfg(feature = "c-override")]
mod bare;
#[cfg(feature = "malloc-debug")]
mod hunted;
mod plain;
mod rules;

// How a block is freed of which only the address is known.
#[cfg(feature = "malloc-debug")]
use hunted as way;
#[cfg(not(feature = "malloc-debug"))]
use plain as way;

use core::ffi::{c_int, c_void};

/// Called by the loader, as early as it gets: handlers of fork that are registered before this heap's run while its locks are
/// held.
#[used]
#[unsafe(link_section = ".init_array")]
static REGISTER: extern "C" fn() = {
    extern "C" fn register() {
        crate::thread::register_fork();
    }
    register
};

/// What `mallinfo2` tells, as in `<malloc.h>`: bytes, unless said otherwise.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(non_camel_case_types, reason = "it is C's")]
pub struct stratalloc_mallinfo {
    /// Taken from the system for pages.
    pub arena: usize,
    /// Free blocks in the caches and depots (how many).
    pub ordblks: usize,
    /// Always 0, as are `hblks`, `hblkhd`, `usmblks` and `fsmblks`: there are no such things here.
    pub smblks: usize,
    /// See `smblks`.
    pub hblks: usize,
    /// See `smblks`.
    pub hblkhd: usize,
    /// See `smblks`.
    pub usmblks: usize,
    /// See `smblks`.
    pub fsmblks: usize,
    /// In live blocks.
    pub uordblks: usize,
    /// Free.
    pub fordblks: usize,
    /// Free pages that are resident: what `malloc_trim` may give back.
    pub keepcost: usize,
}

/// A block of `size` bytes; size 0 is served like 1. Null and `ENOMEM` without memory.
#[unsafe(no_mangle)]
pub extern "C" fn stratalloc_malloc(size: usize) -> *mut c_void {
    rules::malloc(size)
}

/// A block of `count` times `size` zero bytes. Null and `ENOMEM` without memory, and where the product overflows.
#[unsafe(no_mangle)]
pub extern "C" fn stratalloc_calloc(count: usize, size: usize) -> *mut c_void {
    rules::calloc(count, size)
}

/// Changes the size of a block to `size` bytes, moving it if need be; null is `malloc`, size 0 frees and is null. Null and
/// `ENOMEM` without memory: then the block is as it was.
///
/// # Safety
/// - `block` came from this heap and is live, or is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stratalloc_realloc(block: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: handed on.
    unsafe { rules::realloc(block, size) }
}

/// `realloc` to `count` times `size` bytes. Null and `ENOMEM` also where the product overflows.
///
/// # Safety
/// - `block` came from this heap and is live, or is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stratalloc_reallocarray(block: *mut c_void, count: usize, size: usize) -> *mut c_void {
    // SAFETY: handed on.
    unsafe { rules::reallocarray(block, count, size) }
}

/// Frees a block; null is none. `errno` stays as it is. O(1), but for every `target`-th call of a class.
///
/// # Safety
/// - `block` came from this heap and is live, or is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stratalloc_free(block: *mut c_void) {
    // SAFETY: handed on.
    unsafe { rules::free(block) }
}

/// `free` of a block that `size` bytes were asked for (C23).
///
/// # Safety
/// - `block` came from this heap and is live, or is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stratalloc_free_sized(block: *mut c_void, _size: usize) {
    // SAFETY: handed on.
    unsafe { rules::free(block) }
}

/// `free` of a block that `size` bytes at a multiple of `align` were asked for (C23).
///
/// # Safety
/// - `block` came from this heap and is live, or is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stratalloc_free_aligned_sized(block: *mut c_void, _align: usize, _size: usize) {
    // SAFETY: handed on.
    unsafe { rules::free(block) }
}

/// A block of `size` bytes at a multiple of `align`, a power of two; null and `EINVAL` if it is none.
#[unsafe(no_mangle)]
pub extern "C" fn stratalloc_aligned_alloc(align: usize, size: usize) -> *mut c_void {
    rules::aligned_alloc(align, size)
}

/// As `aligned_alloc`, with an alignment that is rounded up to a power of two.
#[unsafe(no_mangle)]
pub extern "C" fn stratalloc_memalign(align: usize, size: usize) -> *mut c_void {
    rules::memalign(align, size)
}

/// As `aligned_alloc`, with the block in `*block`, and 0, `EINVAL` or `ENOMEM` returned; `errno` stays as it is. The alignment
/// must be a multiple of a pointer's size, too.
///
/// # Safety
/// - `*block` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stratalloc_posix_memalign(block: *mut *mut c_void, align: usize, size: usize) -> c_int {
    // SAFETY: handed on.
    unsafe { rules::posix_memalign(block, align, size) }
}

/// A block of `size` bytes at a multiple of the page size.
#[unsafe(no_mangle)]
pub extern "C" fn stratalloc_valloc(size: usize) -> *mut c_void {
    rules::valloc(size)
}

/// A block of `size` bytes, rounded up to whole pages, at a multiple of the page size.
#[unsafe(no_mangle)]
pub extern "C" fn stratalloc_pvalloc(size: usize) -> *mut c_void {
    rules::pvalloc(size)
}

/// Bytes that a block has, all of them usable; 0 for null.
///
/// # Safety
/// - `block` came from this heap and is live, or is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stratalloc_malloc_usable_size(block: *mut c_void) -> usize {
    rules::malloc_usable_size(block)
}

/// Gives free memory back to the system; 1 if any was given, else 0. `pad` is not looked at.
#[unsafe(no_mangle)]
pub extern "C" fn stratalloc_malloc_trim(pad: usize) -> c_int {
    rules::malloc_trim(pad)
}

/// The figures of the heap.
#[unsafe(no_mangle)]
pub extern "C" fn stratalloc_mallinfo2() -> stratalloc_mallinfo {
    rules::mallinfo2()
}
