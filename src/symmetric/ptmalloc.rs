//! The component `ptmalloc`: Doug Lea's allocator, as the crate `dlmalloc` has it, bounded to the heap's range.
//!
//! (Open MPI's component of that name wraps a ptmalloc, which is the same allocator in arenas; a symmetric heap has one caller.) It takes
//! the range from its begin on, a stretch at a time, each behind the last: so it sees one segment that grows. Its records lie between the
//! blocks, in the heap. Beside it, outside of the heap, is a bit for each place where a block may begin.

use super::memheap::{Component, Declined, INTERFACE, Module};
use crate::os::{self, Span};
use crate::sync::{AtomicUsize, Relaxed};
use core::alloc::Layout;
use core::fmt;
use core::ptr::{NonNull, null_mut};
use dlmalloc::Dlmalloc;
use std::boxed::Box;

/// The component.
pub(super) static PTMALLOC: Component = Component {
    name: "ptmalloc",
    interface: INTERFACE,
    priority: 10,
    data: &(),
    init: |component, range| {
        let module = Ptmalloc::new(component, range).ok_or(Declined("no memory for its table".into()))?;
        Ok(Box::new(module))
    },
};

/// What `dlmalloc` aligns every block to.
const ALIGN: usize = 16;
/// The word before a block: the size of its chunk, and flags in the lowest bits. That word, and the one before where it is not the
/// neighbour's, are not the user's.
const WORD: usize = size_of::<usize>();
const FLAGS: usize = 7;

/// The range, as `dlmalloc` wants it: it takes from its low end, and gives nothing back.
struct Taken {
    range: Span,
    used: AtomicUsize,
}

// SAFETY: what was taken is nobody else's, and lies in the range.
unsafe impl dlmalloc::Allocator for Taken {
    fn alloc(&self, bytes: usize) -> (*mut u8, usize, u32) {
        let used = self.used.load(Relaxed);
        if bytes > self.range.bytes - used {
            return (null_mut(), 0, 0);
        }
        self.used.store(used + bytes, Relaxed);
        (core::ptr::with_exposed_provenance_mut(self.range.at + used), bytes, 0)
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        null_mut()
    }

    fn free_part(&self, _: *mut u8, _: usize, _: usize) -> bool {
        false
    }

    fn free(&self, _: *mut u8, _: usize) -> bool {
        false
    }

    fn can_release_part(&self, _: u32) -> bool {
        false
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        os::page_bytes()
    }
}

/// The allocator over a range.
struct Ptmalloc {
    component: &'static Component,
    range: Span,
    dlmalloc: Dlmalloc<Taken>,
    /// A bit for each 16 bytes of the range: set iff a live block begins there.
    live: Span,
}

impl fmt::Debug for Ptmalloc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ptmalloc").field("range", &self.range).finish_non_exhaustive()
    }
}

// SAFETY: it points into its range and its table, which are its own.
unsafe impl Send for Ptmalloc {}

impl Ptmalloc {
    fn new(component: &'static Component, range: Span) -> Option<Self> {
        let live = os::map_sparse((range.bytes / ALIGN / 8 + 1).next_multiple_of(os::page_bytes()))?;
        let dlmalloc = Dlmalloc::new_with_allocator(Taken { range, used: AtomicUsize::new(0) });
        Some(Self { component, range, dlmalloc, live })
    }

    /// The byte, and the bit in it, that tells whether a block begins at `block`, if one may.
    fn bit(&self, block: NonNull<u8>) -> Option<(*mut u8, u8)> {
        let offset = (block.as_ptr() as usize).wrapping_sub(self.range.at);
        let (number, is_place) = (offset / ALIGN, offset < self.range.bytes && offset.is_multiple_of(ALIGN));
        is_place.then(|| (core::ptr::with_exposed_provenance_mut(self.live.at + number / 8), 1 << (number % 8)))
    }

    fn set_live(&self, block: NonNull<u8>, is_live: bool) {
        if let Some((byte, bit)) = self.bit(block) {
            // SAFETY: the table has a byte for each place.
            let old = unsafe { byte.read() };
            // SAFETY: as above.
            unsafe { byte.write(if is_live { old | bit } else { old & !bit }) };
        }
    }

    fn is_live(&self, block: NonNull<u8>) -> bool {
        // SAFETY: the table has a byte for each place.
        self.bit(block).is_some_and(|(byte, bit)| unsafe { byte.read() } & bit != 0)
    }

    fn note(&self, block: *mut u8) -> Option<NonNull<u8>> {
        let block = NonNull::new(block)?;
        self.set_live(block, true);
        Some(block)
    }
}

// SAFETY: `dlmalloc` hands out disjoint parts of what it has taken of the range.
unsafe impl Module for Ptmalloc {
    fn component(&self) -> &'static Component {
        self.component
    }

    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: any size and alignment of a layout may be asked for.
        let block = unsafe { self.dlmalloc.malloc(layout.size(), layout.align()) };
        self.note(block)
    }

    fn bytes_of(&self, block: NonNull<u8>) -> Option<usize> {
        self.is_live(block).then(|| {
            let head = block.as_ptr().cast::<usize>().wrapping_sub(1);
            // SAFETY: the word before a live block is that of its chunk.
            let head = unsafe { head.read() };
            (head & !FLAGS).saturating_sub(WORD)
        })
    }

    unsafe fn free(&mut self, block: NonNull<u8>) {
        self.set_live(block, false);
        // SAFETY: the caller's promise.
        unsafe { self.dlmalloc.c_free(block.as_ptr()) };
    }

    unsafe fn realloc(&mut self, block: NonNull<u8>, layout: Layout) -> Option<NonNull<u8>> {
        if layout.align() <= ALIGN {
            // SAFETY: the caller's promise.
            let moved = unsafe { self.dlmalloc.c_realloc(block.as_ptr(), layout.size()) };
            if !moved.is_null() {
                self.set_live(block, false);
            }
            return self.note(moved);
        }
        // SAFETY: handed on.
        unsafe { self.move_block(block, layout) }
    }

    fn finalize(&mut self) {
        os::unmap(self.live);
    }
}
