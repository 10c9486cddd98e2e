//! The heap for who has no layout: as C has it.

use super::{SharedHeap, front};
use crate::heap::Blocks;
use core::alloc::Layout;
use core::ptr::{NonNull, null_mut};

/// What every block of at least so many bytes is aligned to; smaller ones are to 8 bytes.
const ALIGN: usize = 16;

/// The layout for `bytes` bytes; `None` if there can be none.
fn layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes.max(1), if bytes < ALIGN { 8 } else { ALIGN }).ok()
}

impl SharedHeap {
    /// A block of `bytes` bytes, aligned to 16 bytes, or to 8 if it is smaller than that; null if there is no memory.
    #[must_use]
    pub fn malloc(&self, bytes: usize) -> *mut u8 {
        layout(bytes).map_or(null_mut(), |layout| self.block(layout))
    }

    /// A block of `count` times `bytes` bytes that are zero; null if there is no memory, or the product is too large.
    #[must_use]
    pub fn calloc(&self, count: usize, bytes: usize) -> *mut u8 {
        let Some(layout) = count.checked_mul(bytes).and_then(layout) else {
            return null_mut();
        };
        // SAFETY: any layout may be asked for.
        self.with(|blocks| unsafe { blocks.alloc_zeroed(layout) }).unwrap_or(null_mut())
    }

    /// A block of `bytes` bytes at a multiple of `align`; null if there is no memory, or `align` is no power of two.
    #[must_use]
    pub fn memalign(&self, align: usize, bytes: usize) -> *mut u8 {
        let align = if align.is_power_of_two() { align.max(8) } else { align };
        Layout::from_size_align(bytes.max(1), align).map_or(null_mut(), |layout| self.block(layout))
    }

    fn block(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any layout may be asked for.
        self.with(|blocks| unsafe { blocks.alloc(layout) }).unwrap_or(null_mut())
    }

    /// Changes the size of a block to `bytes`, and returns where it is then; null, and the block as it was, if there is no memory.
    /// Of a null pointer it makes a new block; with 0 bytes it frees the block and returns null.
    ///
    /// # Safety
    /// - `block` is null, or a live block of this heap, of whatever process.
    #[must_use]
    pub unsafe fn realloc(&self, block: *mut u8, bytes: usize) -> *mut u8 {
        let Some(at) = NonNull::new(block) else {
            return self.malloc(bytes);
        };
        if bytes == 0 {
            // SAFETY: handed on.
            unsafe { self.free(block) };
            return null_mut();
        }
        self.with(|blocks| front::reallocate(blocks, at, bytes)).unwrap_or(null_mut())
    }

    /// Frees a block; of a null pointer nothing.
    ///
    /// # Safety
    /// - `block` is null, or a live block of this heap, of whatever process.
    pub unsafe fn free(&self, block: *mut u8) {
        if let Some(at) = NonNull::new(block) {
            let _ = self.with(|blocks| front::release(blocks, at));
        }
    }

    /// Bytes that a block really has, or, with the feature `malloc-debug`, those that were asked for; 0 for a null pointer.
    ///
    /// # Safety
    /// - `block` is null, or a live block of this heap, of whatever process.
    #[must_use]
    pub unsafe fn usable_size(&self, block: *const u8) -> usize {
        let size = |at| self.with(|blocks| front::layout_of(blocks, at).map_or(0, |layout| layout.size()));
        NonNull::new(block.cast_mut()).and_then(size).unwrap_or(0)
    }
}
