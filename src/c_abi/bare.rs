//! The bare C names, each the prefixed one. Whoever links them gets all of C's allocation from this heap.

use super::*;

/// Exports each name as a call of a prefixed one, which is inlined.
macro_rules! bare {
    ($($name:ident = $prefixed:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)?;)*) => { $(
        #[unsafe(no_mangle)]
        #[allow(unused_unsafe, reason = "some of them may be called by anybody")]
        unsafe extern "C" fn $name($($arg: $ty),*) $(-> $ret)? {
            // SAFETY: handed on.
            unsafe { $prefixed($($arg),*) }
        }
    )* };
}

bare! {
    malloc = stratalloc_malloc(size: usize) -> *mut c_void;
    calloc = stratalloc_calloc(count: usize, size: usize) -> *mut c_void;
    realloc = stratalloc_realloc(block: *mut c_void, size: usize) -> *mut c_void;
    reallocarray = stratalloc_reallocarray(block: *mut c_void, count: usize, size: usize) -> *mut c_void;
    free = stratalloc_free(block: *mut c_void);
    free_sized = stratalloc_free_sized(block: *mut c_void, size: usize);
    free_aligned_sized = stratalloc_free_aligned_sized(block: *mut c_void, align: usize, size: usize);
    aligned_alloc = stratalloc_aligned_alloc(align: usize, size: usize) -> *mut c_void;
    memalign = stratalloc_memalign(align: usize, size: usize) -> *mut c_void;
    posix_memalign = stratalloc_posix_memalign(block: *mut *mut c_void, align: usize, size: usize) -> c_int;
    valloc = stratalloc_valloc(size: usize) -> *mut c_void;
    pvalloc = stratalloc_pvalloc(size: usize) -> *mut c_void;
    malloc_usable_size = stratalloc_malloc_usable_size(block: *mut c_void) -> usize;
    malloc_trim = stratalloc_malloc_trim(pad: usize) -> c_int;
    mallinfo2 = stratalloc_mallinfo2() -> stratalloc_mallinfo;
}
