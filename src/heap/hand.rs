//! What a thread of a heap that processes share has in hand: see `note.rs`. Heaps of one process have no hands, and nothing is
//! noted there.

use super::depot::Depot;
use super::list::{Block, List};
use super::note::Note;
use super::slab::Slabs;

#[cfg(feature = "shared")]
pub use on::Hand;
#[cfg(feature = "shared")]
pub(super) use on::HandCell;

#[cfg(not(feature = "shared"))]
pub use off::Hand;
#[cfg(not(feature = "shared"))]
pub(super) use off::HandCell;

#[cfg(feature = "shared")]
mod on {
    use super::{Block, Depot, List, Note, Slabs};
    use crate::heap::batch::Batch;
    use crate::heap::class::Class;
    use crate::heap::note::{Chain, Kind};
    use crate::sync::{AtomicU64, Relaxed, in_order};
    use core::cell::{Cell, UnsafeCell};
    use core::ptr::NonNull;

    /// Lists that a thread has in hand at once, at the most: each step of a way down may find that another must go first.
    const CHAINS: usize = 6;

    /// The place of the class in the word of a record.
    const CLASS_SHIFT: u32 = 56;

    /// What a thread has in hand. It lies in the heap's memory, and must not move while it is in use.
    #[derive(Debug)]
    #[repr(C)]
    pub struct Hand {
        /// Its number, from 1 to [`Hand::MOST`]: the keeper of what is in transit.
        keeper: Cell<u32>,
        chains: [Chain; CHAINS],
        /// The record of a slab that is no slab yet, or no more: its address, and above it its class, and one; or 0.
        record: AtomicU64,
        /// Blocks on their way out of slabs.
        batch: UnsafeCell<Batch>,
    }

    impl Hand {
        /// Hands that a heap may have.
        pub(crate) const MOST: u32 = crate::heap::note::OF_USER - 1;

        /// Where its number lies.
        #[cfg(feature = "cli")]
        pub(crate) const KEEPER: crate::image::Field<Self> = crate::image::field!(Self, keeper);

        /// The empty hand of number `keeper`.
        pub(crate) const fn new(keeper: u32) -> Self {
            Self {
                keeper: Cell::new(keeper),
                chains: [const { Chain::new() }; CHAINS],
                record: AtomicU64::new(0),
                batch: UnsafeCell::new(Batch::new()),
            }
        }

        pub(crate) fn keeper(&self) -> u32 {
            self.keeper.get()
        }

        /// Notes a list.
        pub(in crate::heap) fn hold(&self, kind: Kind, head: Option<Block>) -> Note {
            let place = self.chains.iter().find(|chain| chain.is_empty());
            debug_assert!(place.is_some());
            head.zip(place).map_or(Note::NONE, |(head, place)| place.write(kind, head))
        }

        /// Notes the list that `depot`, which is locked, hands out next.
        pub(in crate::heap) fn hold_newest(&self, class: Class, depot: &mut Depot) -> Note {
            self.hold(Kind::Blocks(class), depot.newest())
        }

        /// Notes the blocks of the batch as the list that they are now.
        pub(in crate::heap) fn hold_batch(&self, class: Class, list: List) -> List {
            let note = self.hold(Kind::Blocks(class), list.parts().0);
            self.batch().clear();
            list.noted(note)
        }

        /// Notes one run of `pages` pages, which its user gives up.
        pub(in crate::heap) fn hold_run(&self, pages: usize, run: Block) -> Note {
            run.set_next(None);
            self.hold(Kind::Runs(pages), Some(run))
        }

        /// Each list that is noted.
        pub(in crate::heap) fn chains(&self) -> impl Iterator<Item = (Kind, Option<Block>)> {
            self.chains.iter().filter_map(Chain::read)
        }

        /// Notes a record for a slab of `class`.
        pub(in crate::heap) fn hold_record(&self, class: Class, at: usize) {
            self.record.store((class.index() as u64 + 1) << CLASS_SHIFT | at as u64, Relaxed);
            in_order();
        }

        /// Notes the record that `slabs` of `class`, which are locked, give next.
        pub(in crate::heap) fn hold_spare(&self, class: Class, slabs: &Slabs) {
            if let Some(at) = slabs.next_record() {
                self.hold_record(class, at);
            }
        }

        /// The record is where it belongs.
        pub(in crate::heap) fn drop_record(&self) {
            in_order();
            self.record.store(0, Relaxed);
            in_order();
        }

        /// The record that is noted.
        pub(in crate::heap) fn record(&self) -> Option<(Class, usize)> {
            let word = self.record.load(Relaxed);
            let class = Class::all().nth(((word >> CLASS_SHIFT) as usize).checked_sub(1)?)?;
            Some((class, (word & ((1 << CLASS_SHIFT) - 1)) as usize))
        }

        /// Blocks on their way out of slabs.
        #[allow(clippy::mut_from_ref, reason = "one thread uses it, at one step of its way")]
        pub(in crate::heap) fn batch(&self) -> &mut Batch {
            // SAFETY: only the thread whose hand it is asks for it, once until it is empty again.
            unsafe { &mut *self.batch.get() }
        }

        /// The blocks that a dead thread had in its batch.
        pub(in crate::heap) fn left_in_batch(&self) -> impl Iterator<Item = usize> {
            // SAFETY: its thread is dead.
            unsafe { &*self.batch.get() }.addresses()
        }
    }

    /// The hand of a cache's thread.
    #[derive(Debug)]
    pub(in crate::heap) struct HandCell(Cell<Option<NonNull<Hand>>>);

    impl HandCell {
        pub(in crate::heap) const fn new() -> Self {
            Self(Cell::new(None))
        }

        pub(in crate::heap) fn set(&self, hand: &Hand) {
            self.0.set(Some(NonNull::from(hand)));
        }

        pub(in crate::heap) fn get(&self) -> Option<&Hand> {
            // SAFETY: `set` says so: it stays while the cache does.
            self.0.get().map(|hand| unsafe { hand.as_ref() })
        }

        /// Notes a list of blocks that is about to leave the cache.
        #[inline]
        pub(in crate::heap) fn hold_blocks(&self, class: Class, head: impl FnOnce() -> Option<Block>) -> Note {
            self.get().map_or(Note::NONE, |hand| hand.hold(Kind::Blocks(class), head()))
        }

        /// Notes a list of runs that is about to leave the cache.
        #[inline]
        pub(in crate::heap) fn hold_runs(&self, pages: usize, head: impl FnOnce() -> Option<Block>) -> Note {
            self.get().map_or(Note::NONE, |hand| hand.hold(Kind::Runs(pages), head()))
        }
    }
}

#[cfg(not(feature = "shared"))]
mod off {
    use super::{Block, Depot, List, Note, Slabs};
    use crate::heap::batch::Batch;
    use crate::heap::class::Class;

    /// There is none.
    #[derive(Debug)]
    pub enum Hand {}

    impl Hand {
        pub(crate) fn keeper(&self) -> u32 {
            match *self {}
        }

        pub(in crate::heap) fn hold_record(&self, _: Class, _: usize) {
            match *self {}
        }

        pub(in crate::heap) fn hold_spare(&self, _: Class, _: &Slabs) {
            match *self {}
        }

        pub(in crate::heap) fn drop_record(&self) {
            match *self {}
        }

        pub(in crate::heap) fn hold_newest(&self, _: Class, _: &mut Depot) -> Note {
            match *self {}
        }

        pub(in crate::heap) fn hold_batch(&self, _: Class, _: List) -> List {
            match *self {}
        }

        pub(in crate::heap) fn hold_run(&self, _: usize, _: Block) -> Note {
            match *self {}
        }

        #[allow(clippy::mut_from_ref, reason = "there is none")]
        pub(in crate::heap) fn batch(&self) -> &mut Batch {
            match *self {}
        }
    }

    #[derive(Debug)]
    pub(in crate::heap) struct HandCell;

    impl HandCell {
        pub(in crate::heap) const fn new() -> Self {
            Self
        }

        #[inline(always)]
        pub(in crate::heap) fn hold_blocks(&self, _: Class, _: impl FnOnce() -> Option<Block>) -> Note {
            Note::NONE
        }

        #[inline(always)]
        pub(in crate::heap) fn hold_runs(&self, _: usize, _: impl FnOnce() -> Option<Block>) -> Note {
            Note::NONE
        }
    }
}
