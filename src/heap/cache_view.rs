//! A thread's cache in a heap's file, for who reads it from outside.

use super::{Bins, Cache, CacheCounts, PAGE_LISTS, State};
use crate::heap::class::{CLASSES, Class};
use crate::heap::list::Block;
use crate::heap::side::{SLOTS, Side};
use crate::image::{Field, Image, Plain, Words, field};
use core::mem::offset_of;
use std::vec::Vec;

impl Plain for State {
    const BYTES: usize = size_of::<Self>();
}

impl Plain for Option<Block> {
    const BYTES: usize = size_of::<Self>();
}

/// A copy of a cache.
#[derive(Debug)]
pub(crate) struct CacheView {
    /// Where it lies.
    pub(crate) at: usize,
    image: Image<Cache>,
}

/// What a list has: its first block, and how many there are, as far as that can be.
pub(crate) type Held = (usize, Option<u32>);

/// The words of one class: they are others once its thread has been at it.
pub(crate) type Stamp = Vec<u64>;

impl CacheView {
    /// Copies that at `at`.
    pub(crate) fn take(from: &dyn Words, at: usize) -> Option<Self> {
        Image::take(from, at).map(|image| Self { at, image })
    }

    /// The cache that came before it into the heap's list of caches, and the one after it; 0 if there is none.
    pub(crate) fn neighbours(&self) -> (usize, usize) {
        (self.image.address(field!(Cache, older)), self.image.address(field!(Cache, newer)))
    }

    /// Whether it is one of a heap's; `None` if it says what cannot be.
    pub(crate) fn is_live(&self) -> Option<bool> {
        let state = State(self.image.get(field!(Cache, state)) as u8);
        let known = [State::FRESH, State::LIVE, State::DEAD].contains(&state);
        known.then_some(state == State::LIVE)
    }

    fn main(&self, field: Field<Bins<CLASSES>>, class: Class) -> u64 {
        self.image.nth(field.inside(offset_of!(Cache, mains)), class.index())
    }

    fn run(&self, field: Field<Bins<PAGE_LISTS>>, pages: usize) -> u64 {
        self.image.nth(field.inside(offset_of!(Cache, runs)), super::run_index(pages))
    }

    fn side(&self, field: Field<Side>, class: Class) -> u64 {
        self.in_ring(field, class, 0)
    }

    fn in_ring(&self, field: Field<Side>, class: Class, slot: usize) -> u64 {
        let at = offset_of!(Cache, sides) + class.index() * size_of::<Side>();
        self.image.nth(field.inside(at), slot)
    }

    fn for_run(&self, field: Field<Cache>, pages: usize) -> u64 {
        self.image.nth(field, super::run_index(pages))
    }

    /// Blocks in a list of `class`.
    pub(crate) fn target(&self, class: Class) -> u32 {
        self.side(field!(Side, target), class) as u32
    }

    /// `main` of `class`.
    pub(crate) fn main_list(&self, class: Class) -> Held {
        let room = self.main(field!(Bins<CLASSES>, rooms), class) as i32;
        let head = self.main(field!(Bins<CLASSES>, heads), class) as usize;
        (head, self.target(class).checked_sub(room.max(0) as u32))
    }

    /// The slots for full lists of `class`: the first block, or 0, and whether the slot is in the part of the ring that may have
    /// a list, or beside it: where its thread is just putting one, or taking one away.
    pub(crate) fn full_lists(&self, class: Class) -> impl Iterator<Item = (usize, bool)> {
        let [oldest, newest] = [field!(Side, oldest), field!(Side, newest)].map(|end| self.side(end, class) as u32);
        let head = move |at: u32| self.in_ring(field!(Side, heads), class, oldest.wrapping_add(at) as usize % SLOTS);
        (0..SLOTS as u32)
            .map(move |at| (head(at) as usize, at <= newest.wrapping_sub(oldest) || at + 1 == SLOTS as u32))
    }

    /// The runs of `pages` pages.
    pub(crate) fn run_list(&self, pages: usize) -> Held {
        let room = self.run(field!(Bins<PAGE_LISTS>, rooms), pages) as i32;
        let head = self.run(field!(Bins<PAGE_LISTS>, heads), pages) as usize;
        let admitted = self.for_run(field!(Cache, admitted), pages) as u32;
        (head, admitted.checked_sub(room.max(0) as u32))
    }

    /// The words of `class` that its thread changes.
    pub(crate) fn stamp(&self, class: Class) -> Stamp {
        let (head, held) = self.main_list(class);
        let allocs = self.main(field!(Bins<CLASSES>, allocs), class);
        let ring = self.full_lists(class).map(|(head, _)| head as u64);
        [head as u64, u64::from(held.unwrap_or(u32::MAX)), allocs].into_iter().chain(ring).collect()
    }

    /// The words of the runs of `pages` pages that its thread changes.
    pub(crate) fn run_stamp(&self, pages: usize) -> Stamp {
        let (head, held) = self.run_list(pages);
        let allocs = self.run(field!(Bins<PAGE_LISTS>, allocs), pages);
        std::vec![head as u64, u64::from(held.unwrap_or(u32::MAX)), allocs]
    }

    /// What it counted for `class`.
    pub(in crate::heap) fn counts(&self, class: Class) -> CacheCounts {
        let side = |field| self.side(field, class);
        let full = self.full_lists(class).filter(|(head, _)| *head != 0).count() as u64;
        let main = u64::from(self.main_list(class).1.unwrap_or(0));
        CacheCounts {
            allocs: self.main(field!(Bins<CLASSES>, allocs), class),
            taken: side(field!(Side, taken)),
            given: side(field!(Side, given)).wrapping_add(side(field!(Side, stolen))),
            held: main + full * u64::from(self.target(class)),
            trips_in: side(field!(Side, trips_in)),
            trips_out: side(field!(Side, trips_out)),
            stowed: 0,
        }
    }

    /// What it counted for runs of `pages` pages.
    pub(in crate::heap) fn run_counts(&self, pages: usize) -> CacheCounts {
        CacheCounts {
            allocs: self.run(field!(Bins<PAGE_LISTS>, allocs), pages),
            taken: self.for_run(field!(Cache, runs_taken), pages),
            given: self.for_run(field!(Cache, runs_given), pages),
            held: u64::from(self.run_list(pages).1.unwrap_or(0)),
            trips_in: 0,
            trips_out: 0,
            stowed: self.for_run(field!(Cache, runs_stowed), pages),
        }
    }
}
