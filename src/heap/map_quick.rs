//! The short way from an address to its size class, for who frees without knowing a size.
//!
//! It serves one shape of map, that of the process's own memory in pages of 4 KiB: what depends on the shape is constant.

use super::{AtomicU64, CLASS_SHIFT, KeptPtr, LEAF_PAGES, Map};
use crate::heap::class::Class;
use crate::sync::{Acquire, AtomicUsize, Relaxed};
use core::cell::UnsafeCell;
use core::ptr::NonNull;

const PAGE_SHIFT: u32 = 12;
const LEAVES: usize = (1 << 32) / LEAF_PAGES;

/// What is needed of a map.
#[derive(Debug)]
pub(crate) struct Quick {
    /// What to add to an address for its distance from page 0; until the map is open no address comes near by it. An atomic,
    /// since who frees null may ask while another thread opens the heap.
    offset: AtomicUsize,
    /// Read for addresses near page 0 alone.
    root: UnsafeCell<NonNull<KeptPtr>>,
}

// SAFETY: the root is written before the first block is handed out, and read for the address of a block by who has heard of
// that.
unsafe impl Sync for Quick {}

impl Quick {
    /// Of no map.
    pub(crate) const fn none() -> Self {
        Self { offset: AtomicUsize::new(1 << 63), root: UnsafeCell::new(NonNull::dangling()) }
    }

    /// Serves `map`, which is open, from now on; false if it is of another shape.
    ///
    /// # Safety
    /// - No block of the map's heap has been handed out; nobody else calls this.
    pub(crate) unsafe fn serve(&self, map: &Map) -> bool {
        let shape = (map.page_shift(), map.leaves.load(Relaxed), map.leaf_pages.load(Relaxed));
        let root = NonNull::new(map.root.load(Acquire)).filter(|_| shape == (PAGE_SHIFT, LEAVES, LEAF_PAGES));
        let Some(root) = root else {
            return false;
        };
        // SAFETY: nobody reads meanwhile, as the caller states.
        unsafe { self.root.get().write(root) };
        // Relaxed: who has a block has heard of its heap.
        self.offset.store(map.origin.load(Relaxed).wrapping_neg(), Relaxed);
        true
    }

    /// The class of the slab around `address`, if there is one. O(1).
    ///
    /// # Safety
    /// - If `address` lies in the heap's window, it is one of a live block, and this thread has learned of the block by what
    ///   synchronises; or the heap was open when this thread last synchronised.
    #[inline(always)]
    pub(crate) unsafe fn class_at(&self, address: usize) -> Option<Class> {
        let page = self.offset.load(Relaxed).wrapping_add(address) >> PAGE_SHIFT;
        let index = as_it_is(page / LEAF_PAGES);
        if index >= LEAVES {
            return None;
        }
        // SAFETY: the page is near the origin, so the map is open.
        let root = unsafe { *self.root.get() };
        // SAFETY: there are that many leaves.
        let slot = unsafe { root.add(index) };
        // SAFETY: as above; the root is never unmapped. Acquire: pairs with `make_leaf`.
        let leaf = NonNull::new(unsafe { slot.as_ref() }.pointer.load(Acquire))?.cast::<AtomicU64>();
        // SAFETY: a leaf begins with an entry for each of its pages.
        let cell = unsafe { leaf.add(page % LEAF_PAGES) };
        // SAFETY: as above; leaves are never unmapped.
        let class = unsafe { cell.as_ref() }.load(Relaxed) >> CLASS_SHIFT;
        if class == 0 {
            return None;
        }
        // SAFETY: `encode` wrote the index of a class, and one.
        Some(unsafe { Class::from_index(class as usize - 1) })
    }
}

/// The same number, in a register: the compiler would compare what it was made of, with one instruction more.
#[inline(always)]
fn as_it_is(mut number: usize) -> usize {
    // SAFETY: no instruction; the value is what it was.
    unsafe { core::arch::asm!("/* {0} */", inout(reg) number, options(pure, nomem, nostack, preserves_flags)) };
    number
}
