//! What the C names do: the rules of C23, POSIX.1-2024 and glibc, each noted where it decides. Sizes are in bytes.

use super::stratalloc_mallinfo as MallInfo;
use crate::config::Config;
use crate::fatal::{Fatal, die};
#[cfg(target_arch = "x86_64")]
use crate::global::QUICK;
use crate::global::{ENGINE, Process};
use crate::heap::{Block, Blocks, Class, Place};
use crate::os::{errno, keep_errno, set_errno};
use crate::{Stratalloc, thread};
use core::alloc::Layout;
use core::ffi::{c_int, c_void};
use core::ptr::{NonNull, null_mut};

static CONFIG: Config = Config::new();

/// What the C names stand on.
const HEAP: Process<'static> = Process::new(&CONFIG);

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

/// The class for a block of `size` bytes that is aligned for any object that fits: from 16 bytes on to 16, since all classes
/// from there on are multiples of 16 (`class.rs` proves it).
#[inline(always)]
fn class_of(size: usize) -> Option<Class> {
    Class::of_size(size, 1)
}

#[inline(always)]
pub(super) fn malloc(size: usize) -> *mut c_void {
    if let Some(class) = class_of(size)
        && let Some(cache) = thread::own()
        && let Some(block) = cache.pop(class)
    {
        return block.as_ptr().cast();
    }
    malloc_beyond(size)
}

#[cold]
#[inline(never)]
fn malloc_beyond(size: usize) -> *mut c_void {
    allocate(layout(size, 8))
}

/// A block for `layout`; without one, or without memory, null and ENOMEM.
fn allocate(layout: Option<Layout>) -> *mut c_void {
    // SAFETY: any layout may be asked for.
    or_out_of_memory(layout.map_or(null_mut(), |layout| unsafe { HEAP.alloc(layout) }))
}

/// `malloc` of `count` times `size` zero bytes. ENOMEM where the product is beyond every heap.
#[inline(always)]
pub(super) fn calloc(count: usize, size: usize) -> *mut c_void {
    let layout = count.checked_mul(size).and_then(|size| layout(size, 8));
    // SAFETY: any layout may be asked for.
    or_out_of_memory(layout.map_or(null_mut(), |layout| unsafe { HEAP.alloc_zeroed(layout) }))
}

/// Frees a block. Null is none. The error number stays what it is (POSIX.1-2024).
///
/// # Safety
/// - `at` came from this heap and is live, or is null.
#[inline(always)]
pub(super) unsafe fn free(at: *mut c_void) {
    if let Some(class) = quick_class(at)
        && let Some(cache) = thread::own()
    {
        // SAFETY: it lies in a slab, so it is not null.
        let at = unsafe { NonNull::new_unchecked(at.cast()) };
        // SAFETY: the caller gives up a live block, which is one of that slab's.
        if cache.push(class, unsafe { Block::from_raw(at) }) {
            return;
        }
    }
    // SAFETY: handed on.
    unsafe { free_beyond(at) }
}

/// The class of a block, where that can be known in a few instructions.
#[inline(always)]
fn quick_class(at: *mut c_void) -> Option<Class> {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: who has a block has been handed it, and so has heard of the heap; null is no address of its window.
    return unsafe { QUICK.class_at(at as usize) };
    #[cfg(not(target_arch = "x86_64"))]
    match ENGINE.place_at(at as usize)? {
        Place::Block(class) => Some(class),
        Place::Run(_) => None,
    }
}

/// `free` past the fast path.
///
/// # Safety
/// - `at` came from this heap and is live, or is null.
#[cold]
#[inline(never)]
unsafe fn free_beyond(at: *mut c_void) {
    let Some(at) = NonNull::new(at.cast::<u8>()) else {
        return;
    };
    keep_errno(|| match place(at) {
        Place::Block(class) => {
            // SAFETY: the caller gives up a live block, which is of this class.
            HEAP.spill(unsafe { Block::from_raw(at) }, class);
        }
        Place::Run(bytes) => {
            // SAFETY: as above, of so many bytes.
            unsafe { HEAP.free_run(at, bytes) };
        }
    });
}

/// What is at `at`; if no block begins there, the process ends.
fn place(at: NonNull<u8>) -> Place {
    if let Some(class) = quick_class(at.as_ptr().cast()) {
        return Place::Block(class);
    }
    match ENGINE.place_at(at.as_ptr() as usize) {
        Some(place) => place,
        None => die(Fatal::Foreign),
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
    let place = place(old);
    let (Some(new), Some(was)) = (layout(size, 8), layout(place.bytes(), 8)) else {
        set_errno(errno::ENOMEM);
        return null_mut();
    };
    let fresh = match (place, class_of(size)) {
        (Place::Block(from), Some(to)) if from == to => old.as_ptr(),
        (Place::Block(from), Some(to)) => {
            // SAFETY: a live block of class `from`.
            let old = unsafe { Block::from_raw(old) };
            HEAP.move_block(old, from, to, from.size().min(size))
        }
        // SAFETY: the block is live, and has so many bytes.
        _ => unsafe { ENGINE.resize_pages(&HEAP, old.as_ptr(), was, new) },
    };
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
    NonNull::new(at.cast::<u8>()).map_or(0, |at| place(at).bytes())
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
