//! Heaps that processes share: every block has guards, whatever else is hunted, since other processes free it. Its record lies with
//! it in the heap's memory, and begins of blocks are noted there, too. None is held back, and none has pages of its own. Symmetric heaps
//! are guarded by the same: what happens in them must follow from the calls alone.

use super::begins::State;
use super::guarded::{Guarded, whole};
use super::report::{Call, Passed};
use crate::heap::Blocks;
use core::alloc::Layout;
use core::ptr::{NonNull, null_mut};

/// Heaps that processes share have numbers from this one on.
#[cfg(feature = "shared")]
pub(crate) const SHARED: u8 = 128;

/// `B` with guards around each block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Always<B>(pub(crate) Guarded<'static, B>);

impl<B: Blocks + Copy> Always<B> {
    fn allocate(&self, layout: Layout, zeroed: bool) -> *mut u8 {
        if !self.0.is_open() {
            return null_mut();
        }
        self.0.allocate_guarded(whole(layout), zeroed, self.0.call())
    }

    /// Changes the size of the block at `at`, which `layout` is passed with, if that is known.
    fn reallocate(&self, at: NonNull<u8>, layout: Option<Layout>, new_size: usize) -> *mut u8 {
        let hunter = self.0.hunter;
        let passed =
            Passed { call: Call::Realloc, at: at.as_ptr() as usize, layout: layout.map(whole), heap: self.0.number };
        let Some(facts) = hunter.look_at_live(at, passed) else { return null_mut() };
        let Ok(new) = Layout::from_size_align(new_size, facts.layout.align()) else { return null_mut() };
        let Some(fresh) = NonNull::new(self.allocate(new, false)) else { return null_mut() };
        // SAFETY: both are live and apart, and have that many bytes.
        unsafe { fresh.copy_from_nonoverlapping(at, facts.layout.size().min(new_size)) };
        self.0.release(at, layout, Call::Realloc);
        fresh.as_ptr()
    }

    /// `dealloc` by the address alone.
    pub(crate) fn release_unsized(&self, at: NonNull<u8>) {
        if self.0.is_open() {
            self.0.release(at, None, Call::Free);
        }
    }

    /// `realloc` by the address alone.
    pub(crate) fn reallocate_unsized(&self, at: NonNull<u8>, new_size: usize) -> *mut u8 {
        if self.0.is_open() { self.reallocate(at, None, new_size) } else { null_mut() }
    }

    /// Bytes that the block at `at` was asked for with; a pointer to none is reported.
    #[cfg(feature = "shared")]
    pub(crate) fn size(&self, at: NonNull<u8>) -> usize {
        let passed = Passed { call: Call::Realloc, at: at.as_ptr() as usize, layout: None, heap: self.0.number };
        self.0.hunter.look_at_live(at, passed).map_or(0, |facts| facts.layout.size())
    }
}

// SAFETY: blocks lie in blocks of the inner heap, which are larger; see `guard.rs`.
unsafe impl<B: Blocks + Copy> Blocks for Always<B> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.allocate(layout, false)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.allocate(layout, true)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(at) = NonNull::new(block).filter(|_| self.0.is_open()) {
            self.0.release(at, Some(layout), Call::Free);
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        NonNull::new(block).map_or(null_mut(), |at| self.reallocate(at, Some(layout), new_size))
    }

    fn usable_size(&self, layout: Layout) -> usize {
        layout.size()
    }
}

const _: () = assert!(State::Live as u8 == 1, "what lies in a heap's file is its format");
