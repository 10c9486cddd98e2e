//! The C names of symmetric heaps: `shmem_malloc` and so on, as OpenSHMEM 1.5 has them. `include/shmem.h` declares them, and has the names for
//! each type in terms of these.
//!
//! What C cannot be told by a result is said on file descriptor 2: bad arguments, and in builds with debug assertions or with
//! `SHMEM_DEBUG` set that PEs differ. Nothing has been done then. A transfer or an atomic operation that would touch what is no symmetric
//! object ends the job: there is nothing sensible to go on with.

mod rules;

use core::ffi::{c_char, c_int, c_long, c_void};

/// Called by the loader, before the program.
#[used]
#[unsafe(link_section = ".init_array")]
static REGISTER: extern "C" fn() = {
    extern "C" fn register() {
        crate::os::survive_forks();
    }
    register
};

/// Makes this process a PE; ends it, with a line that says why, if that cannot be. Collective.
#[unsafe(no_mangle)]
pub extern "C" fn shmem_init() {
    rules::init();
}

/// As `shmem_init`: 0, and `*provided` is `SHMEM_THREAD_MULTIPLE`, whatever is `requested`; or another number, with a line that says why.
///
/// # Safety
/// - `provided` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmem_init_thread(_requested: c_int, provided: *mut c_int) -> c_int {
    // SAFETY: handed on.
    unsafe { rules::init_thread(provided) }
}

/// Ends what `shmem_init` began; the process goes on. Collective. Without effect where nothing was begun.
#[unsafe(no_mangle)]
pub extern "C" fn shmem_finalize() {
    rules::finalize();
}

/// Ends all PEs with this status.
#[unsafe(no_mangle)]
pub extern "C" fn shmem_global_exit(status: c_int) -> ! {
    crate::symmetric::global_exit(status)
}

/// The number of this PE, from 0 on.
#[unsafe(no_mangle)]
pub extern "C" fn shmem_my_pe() -> c_int {
    crate::symmetric::my_pe() as c_int
}

/// How many PEs there are.
#[unsafe(no_mangle)]
pub extern "C" fn shmem_n_pes() -> c_int {
    crate::symmetric::n_pes() as c_int
}

/// 1 if there is such a PE, else 0.
#[unsafe(no_mangle)]
pub extern "C" fn shmem_pe_accessible(pe: c_int) -> c_int {
    rules::pe_accessible(pe)
}

/// 1 if `address` is that of a symmetric object, and there is such a PE; else 0.
#[unsafe(no_mangle)]
pub extern "C" fn shmem_addr_accessible(address: *const c_void, pe: c_int) -> c_int {
    rules::addr_accessible(address, pe)
}

/// Where this process can load and store what is at `address` on PE `pe`; null if it cannot.
#[unsafe(no_mangle)]
pub extern "C" fn shmem_ptr(address: *const c_void, pe: c_int) -> *mut c_void {
    rules::ptr(address, pe)
}

/// A block of at least `bytes` bytes on every PE, at one address; null of 0 bytes, or if there is no room. Collective.
#[unsafe(no_mangle)]
pub extern "C" fn shmem_malloc(bytes: usize) -> *mut c_void {
    rules::block(|| crate::symmetric::malloc(bytes))
}

/// A block of `count` times `bytes` bytes that are zero; else as `shmem_malloc`.
#[unsafe(no_mangle)]
pub extern "C" fn shmem_calloc(count: usize, bytes: usize) -> *mut c_void {
    rules::block(|| crate::symmetric::calloc(count, bytes))
}

/// A block at a multiple of `alignment`, a power of two from 8 on; else as `shmem_malloc`.
#[unsafe(no_mangle)]
pub extern "C" fn shmem_align(alignment: usize, bytes: usize) -> *mut c_void {
    rules::block(|| crate::symmetric::align(alignment, bytes))
}

/// As `shmem_malloc`, for what the hints say.
#[unsafe(no_mangle)]
pub extern "C" fn shmem_malloc_with_hints(bytes: usize, hints: c_long) -> *mut c_void {
    rules::block(|| crate::symmetric::malloc_with_hints(bytes, hints as u64))
}

/// Makes a block one of `bytes` bytes: where it is then; null, and the block as it was, if there is no room. Of null a new block; with 0
/// bytes it is freed, and null comes back. Collective.
///
/// # Safety
/// - `block` is null or a live block, which nobody uses meanwhile, on whatever PE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmem_realloc(block: *mut c_void, bytes: usize) -> *mut c_void {
    // SAFETY: handed on.
    rules::block(|| unsafe { crate::symmetric::realloc(block.cast(), bytes) })
}

/// Frees a block on all PEs; of null nothing. Collective.
///
/// # Safety
/// - `block` is null or a live block, which nobody uses any more, on whatever PE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmem_free(block: *mut c_void) {
    // SAFETY: handed on.
    rules::done(|| unsafe { crate::symmetric::free(block.cast()) });
}

/// Copies `bytes` bytes from `source` to `dest` on PE `pe`.
///
/// # Safety
/// - `source` is so many bytes, and `dest` a symmetric object of so many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmem_putmem(dest: *mut c_void, source: *const c_void, bytes: usize, pe: c_int) {
    // SAFETY: handed on.
    unsafe { rules::put(dest, source, bytes, pe) };
}

/// Copies `bytes` bytes from `source` on PE `pe` to `dest`.
///
/// # Safety
/// - `dest` is so many bytes, and `source` a symmetric object of so many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmem_getmem(dest: *mut c_void, source: *const c_void, bytes: usize, pe: c_int) {
    // SAFETY: handed on.
    unsafe { rules::get(dest, source, bytes, pe) };
}

/// What was put to one PE arrives before what is put to it later.
#[unsafe(no_mangle)]
pub extern "C" fn shmem_fence() {
    crate::symmetric::fence();
}

/// Waits until all that was put has arrived.
#[unsafe(no_mangle)]
pub extern "C" fn shmem_quiet() {
    crate::symmetric::quiet();
}

/// Waits until all PEs are here, and all that was put has arrived.
#[unsafe(no_mangle)]
pub extern "C" fn shmem_barrier_all() {
    crate::symmetric::barrier_all();
}

/// An atomic operation, for the header: `op` is the number of one, `word` a symmetric word of `bytes` bytes, 4 or 8; what it was.
///
/// # Safety
/// - `word` is one, and used by such operations alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stratalloc_shmem_atomic(
    op: c_int,
    word: *mut c_void,
    value: u64,
    expected: u64,
    bytes: usize,
    pe: c_int,
) -> u64 {
    // SAFETY: handed on.
    unsafe { rules::atomic(op, word, value, expected, bytes, pe) }
}

/// A rest in a loop of the header's that waits for another PE; `round` counts its turns from 0 on.
#[unsafe(no_mangle)]
pub extern "C" fn stratalloc_shmem_rest(round: u32) {
    rules::rest(round);
}

/// Says on file descriptor 2 what was wrong, and ends the job with status 1: for the header.
///
/// # Safety
/// - `text` ends with a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stratalloc_shmem_die(text: *const c_char) -> ! {
    // SAFETY: handed on.
    unsafe { rules::die_of(text) }
}
