//! The short way from an address to its size class, for who frees without knowing a size.
//!
//! It serves one shape of map, that of the process's own memory in pages of 4 KiB: what depends on the shape is constant.

use super::{AtomicU64, CLASS_SHIFT, KeptPtr, LEAF_PAGES, Map};
use crate::heap::class::Class;
use crate::sync::{Acquire, Relaxed};
use core::cell::UnsafeCell;
use core::ptr::NonNull;

const PAGE_SHIFT: u32 = 12;
const LEAVES: usize = (1 << 32) / LEAF_PAGES;

/// What is needed of a map.
#[derive(Debug)]
pub(crate) struct Quick {
    /// The address of page 0; until the map is open one from which no address is near.
    origin: UnsafeCell<usize>,
    root: UnsafeCell<NonNull<KeptPtr>>,
}

// SAFETY: written before the first block is handed out; who has a block has heard of that.
unsafe impl Sync for Quick {}

impl Quick {
    /// Of no map.
    pub(crate) const fn none() -> Self {
        Self { origin: UnsafeCell::new(1 << 63), root: UnsafeCell::new(NonNull::dangling()) }
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
        // SAFETY: as above.
        unsafe { self.origin.get().write(map.origin.load(Relaxed)) };
        true
    }

    /// The class of the slab around `address`, if there is one. O(1).
    ///
    /// # Safety
    /// - If `address` is one of a live block, this thread has learned of the block by what synchronises.
    #[inline(always)]
    pub(crate) unsafe fn class_at(&self, address: usize) -> Option<Class> {
        // SAFETY: no longer written once there are blocks.
        let origin = unsafe { *self.origin.get() };
        let page = address.wrapping_sub(origin) >> PAGE_SHIFT;
        if page >= LEAVES * LEAF_PAGES {
            return None;
        }
        // SAFETY: the page is near the origin, so the map is open.
        let root = unsafe { *self.root.get() };
        // SAFETY: there are that many leaves.
        let slot = unsafe { root.add(page / LEAF_PAGES) };
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
