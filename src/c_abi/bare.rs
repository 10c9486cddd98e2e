//! The bare C names. Whoever links them gets all of C's allocation from this heap.

use super::{MallInfo, rules};
use core::ffi::{c_int, c_void};

#[unsafe(no_mangle)]
unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
    rules::malloc(size)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    rules::calloc(count, size)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    rules::realloc(block, size)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn reallocarray(block: *mut c_void, count: usize, size: usize) -> *mut c_void {
    rules::reallocarray(block, count, size)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn free(block: *mut c_void) {
    rules::free(block)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn free_sized(block: *mut c_void, _size: usize) {
    rules::free(block)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn free_aligned_sized(block: *mut c_void, _align: usize, _size: usize) {
    rules::free(block)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    rules::aligned_alloc(align, size)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    rules::memalign(align, size)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn posix_memalign(block: *mut *mut c_void, align: usize, size: usize) -> c_int {
    // SAFETY: handed on.
    unsafe { rules::posix_memalign(block, align, size) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn valloc(size: usize) -> *mut c_void {
    rules::valloc(size)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pvalloc(size: usize) -> *mut c_void {
    rules::pvalloc(size)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn malloc_usable_size(block: *mut c_void) -> usize {
    rules::malloc_usable_size(block)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn malloc_trim(pad: usize) -> c_int {
    rules::malloc_trim(pad)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mallinfo2() -> MallInfo {
    rules::mallinfo2()
}
