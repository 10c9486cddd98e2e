//! A block of any size and alignment, straight from the global allocator.

use std::alloc::{Layout, alloc, dealloc};
use std::ptr::NonNull;

/// Memory that is freed when it is dropped. Its first and last bytes hold a mark, unless it was left untouched.
pub(super) struct Block {
    at: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a block owns its memory.
unsafe impl Send for Block {}

impl Block {
    /// An untouched block; `None` if there is no memory, or no such layout.
    pub(super) fn untouched(size: usize, align: usize) -> Option<Self> {
        let layout = Layout::from_size_align(size, align).ok().filter(|layout| layout.size() > 0)?;
        // SAFETY: the size is not 0.
        NonNull::new(unsafe { alloc(layout) }).map(|at| Self { at, layout })
    }

    /// A block whose first and last bytes are `mark`.
    pub(super) fn new(size: usize, mark: u8) -> Self {
        Self::aligned(size, 8, mark)
    }

    /// A block of that alignment, marked like those of `new`.
    pub(super) fn aligned(size: usize, align: usize, mark: u8) -> Self {
        let block = Self::untouched(size, align).expect("there is memory for a block");
        // SAFETY: the first byte of a block that has at least one.
        unsafe { block.at.write(mark) };
        // SAFETY: the last byte of it.
        unsafe { block.at.add(size - 1).write(mark) };
        block
    }

    /// The block's marks, added up.
    pub(super) fn marks(&self) -> u64 {
        // SAFETY: written by `aligned`.
        let first = unsafe { self.at.read() };
        // SAFETY: as above.
        let last = unsafe { self.at.add(self.layout.size() - 1).read() };
        u64::from(first) + u64::from(last)
    }

    pub(super) fn size(&self) -> usize {
        self.layout.size()
    }

    pub(super) fn is_aligned(&self) -> bool {
        self.at.addr().get().is_multiple_of(self.layout.align())
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and freed once.
        unsafe { dealloc(self.at.as_ptr(), self.layout) };
    }
}
