//! The C names of shared heaps: `shm_malloc` and so on, as in `include/stratalloc_shm.h`, on the one heap that a process opens by
//! `shm_init`.
//!
//! They are of [`SharedHeap`](crate::SharedHeap), with the settings that [`SharedConfig::new`](crate::SharedConfig::new) has: up to
//! 64 GiB, robust mutexes. Functions that return an `int` return 0, or -1 with an error number in `errno`. Sizes are in bytes.
//!
//! Any thread may call any of them at any time, but for `shm_fini` and `shm_destroy`: these end what other threads may be in.

mod rules;

use core::ffi::{c_char, c_int, c_void};

/// Called by the loader: so a heap's handlers of forks are registered before the program's. A child's handler that uses the heap
/// finds it as the child's then.
#[used]
#[unsafe(link_section = ".init_array")]
static REGISTER: extern "C" fn() = {
    extern "C" fn register() {
        crate::shared::SharedHeap::survive_forks();
    }
    register
};

/// Opens the heap in the file at `path`, which is this process's from now on. If there is no such file it is made, for its owner
/// alone, and `init`, unless null, runs once: in one process, before any other gets the heap. `init` may use the heap, and must
/// return; if its process ends before, the next who opens the heap begins anew.
///
/// The heap lies at the same addresses in all processes. Where one of them makes it, the others wait, for a minute at most.
/// To open the same file again is 0, and does nothing. O(512), but O(pages of the heap) for the first process in it, and if one
/// died there.
///
/// Errors, beside those of `open`, `ftruncate`, `fallocate` and `mmap`:
///
/// | `errno` | why |
/// |---|---|
/// | `EINVAL` | `path` is null, or the file is no heap |
/// | `EBUSY` | another heap is open, or the file of the open one was replaced; or the call comes out of `init` |
/// | `ENODEV` | `path` names no regular file |
/// | `EREMOTE` | the file is on a network file system |
/// | `ENOTSUP` | the heap is of another version, page size, ladder of classes or build than this library's |
/// | `EUCLEAN` | the heap's header or records are damaged, or the file was cut off or appended to |
/// | `EADDRINUSE` | something else is mapped at the heap's addresses |
/// | `EUSERS` | 512 processes have it open |
/// | `EMFILE` | this process has 64 shared heaps open, by whatever names, or too many files |
/// | `ETIMEDOUT` | another process is making the heap, and has not finished in a minute |
///
/// # Safety
/// - `path` is null, or ends with a zero byte;
/// - `init` neither throws nor jumps out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shm_init(path: *const c_char, init: Option<extern "C" fn()>) -> c_int {
    // SAFETY: handed on.
    unsafe { rules::init(path, init) }
}

/// Closes the heap: what this process has cached goes back, and the addresses are free again. What was allocated stays. A process
/// that just ends need not call it, whatever ends it. `EINVAL` if no heap is open, `EBUSY` out of `init`. O(what is cached).
///
/// # Safety
/// - No other thread of the process uses the heap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shm_fini() -> c_int {
    // SAFETY: handed on.
    unsafe { rules::fini() }
}

/// Closes the heap and removes its file. Processes that have it open go on with it; whoever opens the path makes a new one.
/// Errors are those of `shm_fini` and of `unlink`; `ENOENT` also if the file had been removed before, or another one has its name,
/// which stays. But for `EINVAL` and `EBUSY` the heap is closed all the same.
///
/// # Safety
/// - No other thread of the process uses the heap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shm_destroy() -> c_int {
    // SAFETY: handed on.
    unsafe { rules::destroy() }
}

/// Registers a process that was forked after `shm_init`. It need not be called: the first call that uses the heap does the same,
/// and a child that only ends, or begins another program, need not be registered. But this one says what went wrong: `EUSERS` if
/// 512 processes have the heap open, `EBADF` if its file could not be opened again when the process was forked (too many files, no
/// `/proc`, or no right to it any more), `ETIMEDOUT`, and the system's. `EINVAL` if no heap is open. In a process that is
/// registered it does nothing. O(512).
#[unsafe(no_mangle)]
pub extern "C" fn shm_child() -> c_int {
    rules::child()
}

/// A block of `size` bytes, which any process may free; at a multiple of 16, or of 8 if it is smaller than that. Size 0 is served
/// like 1. Null and `ENOMEM` if neither the heap nor the disk has room, `EINVAL` if no heap is open. O(1), but for every
/// `target`-th call of a size class, and O(log) of free runs from half a page on.
#[unsafe(no_mangle)]
pub extern "C" fn shm_malloc(size: usize) -> *mut c_void {
    rules::malloc(size)
}

/// As `shm_malloc`, a block of `count` times `size` bytes that are zero. Null and `ENOMEM` also where the product overflows.
/// O(size of the block), where it was used before.
#[unsafe(no_mangle)]
pub extern "C" fn shm_calloc(count: usize, size: usize) -> *mut c_void {
    rules::calloc(count, size)
}

/// Changes the size of a block to `size` bytes and returns where it is then: the first bytes are the same. Null is `shm_malloc`;
/// size 0 frees the block and is null. Where it fails it is null, and the block is as it was: `ENOMEM` without memory, `EINVAL` if
/// no heap is open. O(1) where the block stays, else O(size).
///
/// # Safety
/// - `block` is null, or a live block of the heap, whatever process made it. Where no block begins the process ends.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shm_realloc(block: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: handed on.
    unsafe { rules::realloc(block, size) }
}

/// Frees a block; null is none. `errno` stays as it is. O(1), but for every `target`-th call of a size class.
///
/// # Safety
/// - `block` is null, or a live block of the heap, whatever process made it. Where no block begins the process ends, and so it
///   does if no heap is open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shm_free(block: *mut c_void) {
    // SAFETY: handed on.
    unsafe { rules::free(block) }
}

/// As `shm_malloc`, a block of `size` bytes at a multiple of `align`, a power of two; null and `EINVAL` if it is none.
#[unsafe(no_mangle)]
pub extern "C" fn shm_memalign(align: usize, size: usize) -> *mut c_void {
    rules::memalign(align, size)
}

/// The root that was set last, by whatever process; null in a new heap. Null and `EINVAL` if no heap is open. O(1).
#[unsafe(no_mangle)]
pub extern "C" fn shm_global() -> *mut c_void {
    rules::global()
}

/// Sets the root, by which processes find what is in the heap; null is one, too. What was written before is seen by whoever gets
/// the root by `shm_global`. `EINVAL` if no heap is open. O(1).
#[unsafe(no_mangle)]
pub extern "C" fn shm_set_global(root: *mut c_void) -> c_int {
    rules::set_global(root)
}
