//! Blocks on their way between lists and slabs: noted outside the lock, moved inside it.

use super::class::TARGET_MAX;
use super::list::{Block, List};
use super::slab::SlabRef;
use crate::sync::in_order;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

/// Up to a list's blocks on their way up, by address: their memory is touched only when the lock is released.
#[repr(C)]
pub(crate) struct Batch {
    blocks: [MaybeUninit<usize>; TARGET_MAX],
    len: usize,
}

impl Batch {
    pub(crate) const fn new() -> Self {
        Self { blocks: [MaybeUninit::uninit(); TARGET_MAX], len: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    pub(super) fn push(&mut self, address: usize) {
        if let Some(slot) = self.blocks.get_mut(self.len) {
            slot.write(address);
            in_order();
            self.len += 1;
        }
    }

    /// The blocks are elsewhere.
    #[cfg(feature = "shared")]
    pub(super) fn clear(&mut self) {
        in_order();
        self.len = 0;
        in_order();
    }

    /// The blocks' addresses in the order they came.
    pub(super) fn addresses(&self) -> impl DoubleEndedIterator<Item = usize> {
        // SAFETY: the first `len` are written.
        self.blocks.iter().take(self.len).map(|slot| unsafe { slot.assume_init() })
    }

    /// The blocks as a list in the order they came.
    pub(crate) fn list(&self) -> List {
        let mut list = List::EMPTY;
        for address in self.addresses().rev() {
            let Some(at) = NonNull::new(core::ptr::with_exposed_provenance_mut(address)) else {
                continue;
            };
            // SAFETY: a slab has let the block out to us alone.
            list.push(unsafe { Block::from_raw(at) });
        }
        list
    }
}

/// Up to a list's blocks on their way down: each one's slab and its place there, looked up before the lock is taken.
pub(crate) struct Returns {
    blocks: [MaybeUninit<(SlabRef, u32)>; TARGET_MAX],
    len: usize,
}

impl Returns {
    pub(crate) const fn new() -> Self {
        Self { blocks: [MaybeUninit::uninit(); TARGET_MAX], len: 0 }
    }

    pub(crate) fn push(&mut self, slab: SlabRef, index: u32) {
        if let Some(slot) = self.blocks.get_mut(self.len) {
            slot.write((slab, index));
            self.len += 1;
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn is_full(&self) -> bool {
        self.len == TARGET_MAX
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SlabRef, u32)> {
        // SAFETY: the first `len` are written.
        self.blocks.iter().take(self.len).map(|slot| unsafe { slot.assume_init() })
    }
}
