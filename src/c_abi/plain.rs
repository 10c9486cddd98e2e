//! How C's blocks are freed and resized: by what the page map says of them.

use crate::config::Config;
use crate::fatal::{Fatal, die};
#[cfg(target_arch = "x86_64")]
use crate::global::QUICK;
use crate::global::{ENGINE, Process};
use crate::heap::{Block, Class, Place};
use crate::thread;
use core::alloc::Layout;
use core::ffi::c_void;
use core::ptr::{NonNull, null_mut};

static CONFIG: Config = Config::new();

/// What the C names stand on.
pub(super) const HEAP: Process<'static> = Process::new(&CONFIG);

/// The alignment that is asked for.
#[cfg(not(feature = "malloc-debug"))]
pub(super) const ALIGN: usize = 8;

/// The class for a block of `size` bytes that is aligned for any object that fits: from 16 bytes on to 16, since all classes
/// from there on are multiples of 16 (`class.rs` proves it).
#[inline(always)]
fn class_of(size: usize) -> Option<Class> {
    Class::of_size(size, 1)
}

/// A block of `size` bytes from the thread's list.
#[inline(always)]
pub(super) fn pop(size: usize) -> Option<NonNull<u8>> {
    if let Some(class) = class_of(size)
        && let Some(cache) = thread::own()
        && let Some(block) = cache.pop(class)
    {
        // SAFETY: a block is never at address 0.
        return Some(unsafe { NonNull::new_unchecked(block.as_ptr()) });
    }
    None
}

/// Frees a block to the thread's list; false if it is not for that. Null is none.
///
/// # Safety
/// - `at` came from this heap and is live, or is null.
#[inline(always)]
pub(super) unsafe fn push(at: *mut c_void) -> bool {
    if let Some(class) = quick_class(at)
        && let Some(cache) = thread::own()
    {
        // SAFETY: it lies in a slab, so it is not null.
        let at = unsafe { NonNull::new_unchecked(at.cast()) };
        // SAFETY: the caller gives up a live block, which is one of that slab's.
        return cache.push(class, unsafe { Block::from_raw(at) });
    }
    false
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

/// Frees a block.
///
/// # Safety
/// - `at` came from this heap and is live.
pub(super) unsafe fn release(at: NonNull<u8>) {
    let place = place(at);
    match place {
        Place::Block(class) => {
            // SAFETY: the caller gives up a live block, which is of this class.
            HEAP.spill(unsafe { Block::from_raw(at) }, class);
        }
        Place::Run(bytes) => {
            // SAFETY: as above, of so many bytes.
            unsafe { HEAP.free_run(at, bytes, place.align()) };
        }
    }
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

/// Changes the size of a block to that of `new`, or says that there is no memory by null.
///
/// # Safety
/// - `old` came from this heap and is live.
pub(super) unsafe fn resize(old: NonNull<u8>, new: Layout) -> *mut u8 {
    let place = place(old);
    let Ok(was) = Layout::from_size_align(place.bytes(), place.align()) else {
        return null_mut();
    };
    match (place, class_of(new.size())) {
        (Place::Block(from), Some(to)) if from == to => old.as_ptr(),
        (Place::Block(from), Some(to)) => {
            // SAFETY: a live block of class `from`.
            let old = unsafe { Block::from_raw(old) };
            HEAP.move_block(old, from, to, from.size().min(new.size()))
        }
        // SAFETY: the block is live, and has so many bytes.
        _ => unsafe { ENGINE.resize_pages(&HEAP, old.as_ptr(), was, new) },
    }
}

/// Bytes that the block at `at` has.
pub(super) fn bytes(at: NonNull<u8>) -> usize {
    place(at).bytes()
}
