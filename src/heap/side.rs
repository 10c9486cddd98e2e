//! What a class of a cache has beside its `main` list: full lists in a ring of slots, and counters.
//!
//! The owner fills a slot, and it or the purger empties it, by an exchange: so a list has one taker.

use super::list::{Block, List};
use crate::sync::{Acquire, AtomicPtr, AtomicU32, AtomicU64, Relaxed, Release, array_of, step};
use core::cell::Cell;
use core::ptr::{NonNull, null_mut};

/// Full lists of one class beside `main`, at the most.
pub(super) const SLOTS: usize = 16;

/// A place for a full list, whose owner fills it, and which its owner or the purger empties.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot<'a> {
    /// The first block; null if there is no list.
    pub(super) head: &'a AtomicPtr<u8>,
    /// How many looks the purger had had when it came. For the purger, who may be late and see that of a later list.
    pub(super) look: &'a AtomicU32,
}

impl Slot<'_> {
    pub(super) fn is_empty(self) -> bool {
        self.head.load(Relaxed).is_null()
    }

    /// The first block.
    pub(super) fn first(self) -> Option<Block> {
        // SAFETY: the head of a list that was put here.
        NonNull::new(self.head.load(Relaxed)).map(|head| unsafe { Block::from_raw(head) })
    }

    /// By the owner, into an empty slot.
    pub(super) fn put(self, list: List, look: u32) {
        self.look.store(look, Relaxed);
        let head = list.parts().0.map_or(null_mut(), Block::as_ptr);
        // Release: publishes the links of the list; pairs with the exchange in `take`.
        self.head.store(head, Release);
        step();
    }

    /// Takes the list, of `len` blocks, unless somebody else has.
    pub(super) fn take(self, len: u32) -> Option<List> {
        // Acquire: the links of the list are there.
        let head = NonNull::new(self.head.swap(null_mut(), Acquire))?;
        step();
        // SAFETY: the head of a list that was put here, and that nobody else can take any more.
        Some(List::from_parts(Some(unsafe { Block::from_raw(head) }), len))
    }
}

/// What a class of a cache has beside its `main` list.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Side {
    /// The halves of slots in a ring: those from `oldest` to `newest`, modulo `SLOTS`, hold full lists, or held them until the
    /// purger came; the others are empty.
    pub(super) heads: [AtomicPtr<u8>; SLOTS],
    pub(super) looks: [AtomicU32; SLOTS],
    /// The paper's `target`; 0 until a heap adopts the cache. Written once; the purger reads it.
    pub(super) target: AtomicU32,
    pub(super) oldest: Cell<u32>,
    pub(super) newest: Cell<u32>,
    /// Blocks in `main`, when they were last counted.
    pub(super) main_held: AtomicU32,
    /// Full lists there may be: from 1 to `SLOTS` while a heap has adopted the cache, else 0.
    pub(super) limit: Cell<u32>,
    /// The fewest full lists since the last look.
    pub(super) low: Cell<u32>,
    /// Blocks received from below, and blocks handed down.
    pub(super) taken: AtomicU64,
    pub(super) given: AtomicU64,
    /// Blocks that the purger took: they are handed down, too.
    pub(super) stolen: AtomicU64,
    /// Trips to the depot for a list, and with one.
    pub(super) trips_in: AtomicU64,
    pub(super) trips_out: AtomicU64,
}

impl Side {
    crate::sync::const_unless_loom! {
        pub(super) fn new() -> Self {
            Self {
                target: AtomicU32::new(0),
                main_held: AtomicU32::new(0),
                heads: array_of!(AtomicPtr::new(null_mut())),
                looks: array_of!(AtomicU32::new(0)),
                oldest: Cell::new(0),
                newest: Cell::new(0),
                limit: Cell::new(0),
                low: Cell::new(0),
                taken: AtomicU64::new(0),
                given: AtomicU64::new(0),
                stolen: AtomicU64::new(0),
                trips_in: AtomicU64::new(0),
                trips_out: AtomicU64::new(0),
            }
        }
    }

    /// Full lists there are, or were until the purger came.
    pub(super) fn len(&self) -> u32 {
        self.newest.get().wrapping_sub(self.oldest.get())
    }

    pub(super) fn target(&self) -> u32 {
        self.target.load(Relaxed)
    }

    pub(super) fn slot(&self, at: u32) -> Slot<'_> {
        let at = at as usize % SLOTS;
        Slot { head: &self.heads[at], look: &self.looks[at] }
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        self.heads.iter().zip(&self.looks).map(|(head, look)| Slot { head, look })
    }

    /// Blocks in the full lists that are there. Any thread may ask.
    #[inline(never)]
    pub(super) fn full_blocks(&self) -> u32 {
        self.slots().filter(|slot| !slot.is_empty()).count() as u32 * self.target()
    }

    /// The slot at one end of the ring, which is not empty.
    pub(super) fn end(&self, end: End) -> Slot<'_> {
        match end {
            End::Oldest => self.slot(self.oldest.get()),
            End::Newest => self.slot(self.newest.get().wrapping_sub(1)),
        }
    }

    /// Empties the slot at one end of the ring; `None` if the purger has come before.
    pub(super) fn remove(&self, end: End, target: u32) -> Option<List> {
        let at = match end {
            End::Oldest => self.oldest.replace(self.oldest.get().wrapping_add(1)),
            End::Newest => {
                self.newest.set(self.newest.get().wrapping_sub(1));
                self.newest.get()
            }
        };
        self.low.set(self.low.get().min(self.len()));
        self.slot(at).take(target)
    }

    pub(super) fn append(&self, list: List, look: u32) {
        self.slot(self.newest.get()).put(list, look);
        self.newest.set(self.newest.get().wrapping_add(1));
    }
}

/// An end of the ring of full lists.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Oldest,
    Newest,
}
