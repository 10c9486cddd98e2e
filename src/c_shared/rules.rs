//! What the C names of shared heaps do: which heap is open, and which error has which number.

use crate::fatal::{Fatal, die};
use crate::os::{self, errno, keep_errno, set_errno};
use crate::shared::{SharedConfig, SharedError, SharedHeap};
use crate::sync::{AcqRel, Acquire, AtomicPtr, AtomicU64, Relaxed, Release};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr::null_mut;
use std::boxed::Box;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// The heap that is open, in a box; null if none is.
static HEAP: AtomicPtr<SharedHeap> = AtomicPtr::new(null_mut());

/// The thread that opens or closes the heap, by its process's number and its own; 0 if none does.
static CHANGING: AtomicU64 = AtomicU64::new(0);

/// The heap that is open.
#[inline(always)]
fn heap<'a>() -> Option<&'a SharedHeap> {
    // Acquire: pairs with `init`.
    // SAFETY: a heap that is closed was taken out before, and nobody else uses it then, as `fini` wants.
    unsafe { HEAP.load(Acquire).as_ref() }
}

/// Runs `section`, while no other thread opens or closes the heap: 0, or -1 with the number of its error.
fn change(section: impl FnOnce() -> Result<(), c_int>) -> c_int {
    let me = u64::from(os::process_number()) << 32 | u64::from(os::thread_id());
    // Acquire: pairs with the store below.
    while let Err(other) = CHANGING.compare_exchange(0, me, Acquire, Relaxed) {
        if other == me {
            return answer(Err(errno::EBUSY));
        }
        if other >> 32 == me >> 32 {
            os::rest();
        } else {
            // A thread of the process that this one was forked from: it is not here.
            let _ = CHANGING.compare_exchange(other, 0, Relaxed, Relaxed);
        }
    }
    let result = section();
    CHANGING.store(0, Release);
    answer(result)
}

/// What C is told.
fn answer(result: Result<(), c_int>) -> c_int {
    match result {
        Ok(()) => 0,
        Err(number) => {
            set_errno(number);
            -1
        }
    }
}

/// The number that stands for an error.
fn number(error: SharedError) -> c_int {
    match error {
        SharedError::System { errno, .. } => errno,
        SharedError::NotAFile => errno::ENODEV,
        SharedError::Network => errno::EREMOTE,
        SharedError::NotAHeap | SharedError::Path => errno::EINVAL,
        SharedError::Other { .. } | SharedError::OtherScheme { .. } => errno::ENOTSUP,
        SharedError::Damaged { .. } | SharedError::Records { .. } | SharedError::Length { .. } => errno::EUCLEAN,
        SharedError::Taken { .. } => errno::EADDRINUSE,
        // The settings are right; the places for open heaps are all taken.
        SharedError::Setting { .. } => errno::EMFILE,
        SharedError::Full => errno::EUSERS,
        SharedError::Unborn => errno::ETIMEDOUT,
    }
}

/// Opens the heap.
///
/// # Safety
/// - `path` is null, or ends with a zero byte.
pub(super) unsafe fn init(path: *const c_char, init: Option<extern "C" fn()>) -> c_int {
    if path.is_null() {
        return answer(Err(errno::EINVAL));
    }
    // SAFETY: the caller's promise.
    let path = unsafe { CStr::from_ptr(path) };
    change(|| match heap() {
        Some(heap) if heap.is_at(path) => Ok(()),
        Some(_) => Err(errno::EBUSY),
        None => open(path, init).map_err(number),
    })
}

fn open(path: &CStr, init: Option<extern "C" fn()>) -> Result<(), SharedError> {
    let keep = |heap| {
        let kept = Box::into_raw(Box::new(heap));
        // Release: pairs with `heap`. It is there before `init` runs, and stays where it is.
        HEAP.store(kept, Release);
        // SAFETY: just made; it goes in `close`.
        unsafe { &*kept }
    };
    let begin = |_: &SharedHeap| {
        if let Some(init) = init {
            init();
        }
    };
    SharedHeap::open_as(OsStr::from_bytes(path.to_bytes()), SharedConfig::new(), keep, begin).map(|_: &SharedHeap| ())
}

/// Closes the heap.
///
/// # Safety
/// - No other thread uses it.
pub(super) unsafe fn fini() -> c_int {
    let way = |heap: SharedHeap| {
        heap.close();
        Ok(())
    };
    // SAFETY: handed on.
    unsafe { close(way) }
}

/// Closes the heap and removes its file.
///
/// # Safety
/// - No other thread uses it.
pub(super) unsafe fn destroy() -> c_int {
    // SAFETY: handed on.
    unsafe { close(SharedHeap::destroy) }
}

/// Closes the heap in one way or the other.
///
/// # Safety
/// - No other thread uses it.
unsafe fn close(way: impl FnOnce(SharedHeap) -> Result<(), SharedError>) -> c_int {
    change(|| {
        let kept = HEAP.swap(null_mut(), AcqRel);
        if kept.is_null() {
            return Err(errno::EINVAL);
        }
        // SAFETY: made by `open`, and taken out just now: nobody else has it.
        let heap = unsafe { Box::from_raw(kept) };
        way(*heap).map_err(number)
    })
}

/// Registers a forked process.
pub(super) fn child() -> c_int {
    answer(heap().ok_or(errno::EINVAL).and_then(|heap| heap.register_child().map_err(number)))
}

/// A block of the open heap; null and an error number if there is none.
#[inline(always)]
fn block(of: impl FnOnce(&SharedHeap) -> *mut u8) -> *mut c_void {
    let (at, number) = match heap() {
        Some(heap) => (of(heap), errno::ENOMEM),
        None => (null_mut(), errno::EINVAL),
    };
    if at.is_null() {
        set_errno(number);
    }
    at.cast()
}

#[inline]
pub(super) fn malloc(size: usize) -> *mut c_void {
    block(|heap| heap.malloc(size))
}

pub(super) fn calloc(count: usize, size: usize) -> *mut c_void {
    block(|heap| heap.calloc(count, size))
}

/// A block at a multiple of `align`. EINVAL where that is no power of two.
pub(super) fn memalign(align: usize, size: usize) -> *mut c_void {
    if !align.is_power_of_two() {
        set_errno(errno::EINVAL);
        return null_mut();
    }
    block(|heap| heap.memalign(align, size))
}

/// Null is `malloc`; size 0 frees and is null, which is no error.
///
/// # Safety
/// - `at` is null, or a live block of the heap.
pub(super) unsafe fn realloc(at: *mut c_void, size: usize) -> *mut c_void {
    if size == 0 && !at.is_null() && heap().is_some() {
        // SAFETY: handed on.
        unsafe { free(at) };
        return null_mut();
    }
    // SAFETY: handed on.
    block(|heap| unsafe { heap.realloc(at.cast(), size) })
}

/// Frees a block. Null is none. The error number stays what it is.
///
/// # Safety
/// - `at` is null, or a live block of the heap.
#[inline]
pub(super) unsafe fn free(at: *mut c_void) {
    if at.is_null() {
        return;
    }
    match heap() {
        // SAFETY: handed on.
        Some(heap) => keep_errno(|| unsafe { heap.free(at.cast()) }),
        None => die(Fatal::Foreign),
    }
}

/// The root.
pub(super) fn global() -> *mut c_void {
    match heap() {
        Some(heap) => heap.global_ptr(),
        None => {
            set_errno(errno::EINVAL);
            null_mut()
        }
    }
}

/// Sets the root.
pub(super) fn set_global(root: *mut c_void) -> c_int {
    answer(heap().ok_or(errno::EINVAL).map(|heap| heap.set_global(root)))
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
