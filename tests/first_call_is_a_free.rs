//! Threads made by C code, whose first call is a free: the cache begins there.

use std::alloc::{Layout, alloc, dealloc};
use std::ffi::c_void;
use std::ptr::null_mut;
use stratalloc::Stratalloc;

#[global_allocator]
static A: Stratalloc = Stratalloc::new();

const LAYOUT: Layout = Layout::new::<[u64; 5]>();

/// Frees the block it is given, then needs more blocks than lists that are only said to be full could give.
extern "C" fn free_then_allocate(block: *mut c_void) -> *mut c_void {
    // SAFETY: the block was allocated for the layout and is this thread's.
    unsafe { dealloc(block.cast(), LAYOUT) };
    // SAFETY: the size is not 0.
    let blocks = [(); 1000].map(|()| unsafe { alloc(LAYOUT) });
    let served = blocks.iter().filter(|block| !block.is_null()).count();
    for block in blocks.into_iter().filter(|block| !block.is_null()) {
        // SAFETY: allocated above for the layout.
        unsafe { dealloc(block, LAYOUT) };
    }
    std::ptr::without_provenance_mut(served)
}

/// Runs `free_then_allocate` in a thread that Rust knows nothing of; how many blocks it was served.
fn in_a_c_thread(block: *mut u8) -> usize {
    let (mut thread, mut served) = (0, null_mut());
    // SAFETY: the function takes the block, and nothing else of this thread.
    let made = unsafe { libc::pthread_create(&mut thread, std::ptr::null(), free_then_allocate, block.cast()) };
    assert_eq!(made, 0);
    // SAFETY: the thread was made above and is joined once.
    assert_eq!(unsafe { libc::pthread_join(thread, &mut served) }, 0);
    served.addr()
}

#[test]
fn g11_a_thread_of_c_code_may_begin_with_a_free() {
    for _ in 0..100 {
        // SAFETY: the size is not 0.
        let block = unsafe { alloc(LAYOUT) };
        assert!(!block.is_null());
        assert_eq!(in_a_c_thread(block), 1000);
    }
    let class = Stratalloc::stats().class_of(LAYOUT).copied().expect("a block's layout");
    assert!(class.allocs - class.frees < 1000, "{class}");
}
