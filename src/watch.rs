//! Blocks that valgrind's memcheck knows: which are live, which bytes have been written, and which have been freed.
//!
//! [`Watched`] stands before a heap and tells memcheck of each block by client requests: a few instructions that do nothing
//! outside of valgrind. There the blocks are watched: what is read before it was written, what lies behind a block, and what
//! was freed is reported where it is used, and so is a block that is freed twice. What the heap itself does with free blocks
//! is its own affair: memcheck reports nothing meanwhile.
//!
//! The requests are those of valgrind's headers, which every valgrind since 3.0 knows; no header is needed to build this.

use crate::heap::Blocks;
use core::alloc::Layout;
use core::ptr::null_mut;

/// Bytes behind each block, while memcheck watches, that nobody may touch.
const REDZONE: usize = 16;

/// Client requests, and those of the tool `memcheck`.
const RUNNING: usize = 0x1001;
const MALLOC_LIKE: usize = 0x1301;
const FREE_LIKE: usize = 0x1302;
const CHANGE_REPORTING: usize = 0x1801;
const MEMCHECK: usize = 0x4d43_0000;
const NO_ACCESS: usize = MEMCHECK;
const CHECK_ADDRESSABLE: usize = MEMCHECK + 4;

/// Makes a client request. Outside of valgrind it does nothing and returns 0.
#[inline(always)]
fn request(number: usize, arguments: [usize; 4]) -> usize {
    let [first, second, third, fourth] = arguments;
    let block: [usize; 6] = [number, first, second, third, fourth, 0];
    let mut result = 0_usize;
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: four rotations that add up to none, and an exchange of a register with itself. Valgrind reads the block.
    unsafe {
        core::arch::asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") block.as_ptr(),
            inout("rdx") result,
            options(nostack),
        );
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!(
            "ror x12, x12, #3",
            "ror x12, x12, #13",
            "ror x12, x12, #51",
            "ror x12, x12, #61",
            "orr x10, x10, x10",
            in("x4") block.as_ptr(),
            inout("x3") result,
            options(nostack),
        );
    }
    let _ = (&block, &mut result);
    result
}

/// Whether the process runs under valgrind.
#[inline(always)]
pub(crate) fn is_watching() -> bool {
    request(RUNNING, [0; 4]) != 0
}

/// From now on this thread reports nothing: it touches blocks that are nobody's.
pub(crate) fn quieten() {
    request(CHANGE_REPORTING, [1, 0, 0, 0]);
}

/// Runs `work`, of the heap's own, without a report.
#[inline(always)]
pub(crate) fn quietly<R>(work: impl FnOnce() -> R) -> R {
    quieten();
    let result = work();
    request(CHANGE_REPORTING, [usize::MAX, 0, 0, 0]);
    result
}

/// A heap whose blocks memcheck knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watched<B>(pub(crate) B);

/// `layout` with room for what nobody may touch; `None` if it is beyond every heap.
fn padded(layout: Layout) -> Option<Layout> {
    Layout::from_size_align(layout.size().max(1).checked_add(REDZONE)?, layout.align()).ok()
}

impl<B: Blocks> Watched<B> {
    /// Tells of a fresh block for `layout`, followed by its redzone. Size 0 is watched like size 1.
    fn enter(block: *mut u8, layout: Layout, zeroed: bool) -> *mut u8 {
        let size = layout.size().max(1);
        if !block.is_null() {
            request(MALLOC_LIKE, [block as usize, size, 0, usize::from(zeroed)]);
            request(NO_ACCESS, [block as usize + size, REDZONE, 0, 0]);
        }
        block
    }
}

// SAFETY: blocks are those of the inner heap, for layouts that are somewhat larger.
unsafe impl<B: Blocks> Blocks for Watched<B> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !is_watching() {
            // SAFETY: handed on.
            return unsafe { self.0.alloc(layout) };
        }
        let Some(larger) = padded(layout) else { return null_mut() };
        // SAFETY: any layout may be asked for.
        Self::enter(quietly(|| unsafe { self.0.alloc(larger) }), layout, false)
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !is_watching() {
            // SAFETY: handed on.
            return unsafe { self.0.alloc_zeroed(layout) };
        }
        let Some(larger) = padded(layout) else { return null_mut() };
        // SAFETY: any layout may be asked for.
        Self::enter(quietly(|| unsafe { self.0.alloc_zeroed(larger) }), layout, true)
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if !is_watching() {
            // SAFETY: handed on.
            return unsafe { self.0.dealloc(block, layout) };
        }
        let is_live = quietly(|| request(CHECK_ADDRESSABLE, [block as usize, 1, 0, 0])) == 0;
        // Memcheck reports a block that is not live.
        request(FREE_LIKE, [block as usize, 0, 0, 0]);
        if let Some(larger) = padded(layout).filter(|_| is_live) {
            // SAFETY: the block came from the inner heap for `larger`, and the caller gives it up.
            quietly(|| unsafe { self.0.dealloc(block, larger) });
        }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if !is_watching() {
            // SAFETY: handed on.
            return unsafe { self.0.realloc(block, layout, new_size) };
        }
        let Ok(new) = Layout::from_size_align(new_size, layout.align()) else { return null_mut() };
        // SAFETY: any layout may be asked for.
        let fresh = unsafe { self.alloc(new) };
        if !fresh.is_null() {
            // SAFETY: both are live and apart, and have that many bytes.
            unsafe { fresh.copy_from_nonoverlapping(block, layout.size().min(new_size)) };
            // SAFETY: the caller gives the old block up.
            unsafe { self.dealloc(block, layout) };
        }
        fresh
    }

    fn usable_size(&self, layout: Layout) -> usize {
        if is_watching() { layout.size() } else { self.0.usable_size(layout) }
    }
}
