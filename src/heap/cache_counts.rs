//! What a cache counts: for statistics alone. Others read what its owner published last, so it lags by a list at the most.

use super::{Cache, PAGE_LISTS, run_index};
use crate::heap::class::Class;
use crate::sync::Relaxed;

impl Cache {
    /// Says how many blocks `main` of `class` holds. Called on trips, so what others see lags by a list at the most.
    pub(super) fn publish(&self, class: Class) {
        let (side, room) = (self.side(class), self.main(class).room.get().max(0) as u32);
        side.main_held.store(side.target().saturating_sub(room), Relaxed);
    }

    /// Says what the cache holds of everything: for the owner, before it asks for statistics.
    pub(crate) fn publish_all(&self) {
        Class::all().for_each(|class| self.publish(class));
        (1..=PAGE_LISTS).for_each(|pages| self.publish_runs(pages));
    }

    /// Says how many runs of `pages` pages the cache holds. Called on the slow paths, so what others see lags by less than
    /// the budget.
    pub(super) fn publish_runs(&self, pages: usize) {
        let (at, room) = (run_index(pages), self.run_bin(pages).room.get().max(0) as u32);
        self.runs_held[at].store(self.admitted[at].get().saturating_sub(room), Relaxed);
    }

    /// What the cache counted for `class`. Any thread may ask, with the registry's lock held.
    pub(in crate::heap) fn counts(&self, class: Class) -> CacheCounts {
        let (bin, side) = (self.main(class), self.side(class));
        CacheCounts {
            allocs: bin.allocs.load(Relaxed),
            taken: side.taken.load(Relaxed),
            given: side.given.load(Relaxed) + side.stolen.load(Relaxed),
            held: u64::from(side.main_held.load(Relaxed) + side.full_blocks()),
            trips_in: side.trips_in.load(Relaxed),
            trips_out: side.trips_out.load(Relaxed),
            stowed: 0,
        }
    }

    /// What the cache counted for runs of `pages` pages. Any thread may ask, with the registry's lock held.
    pub(in crate::heap) fn run_counts(&self, pages: usize) -> CacheCounts {
        let (bin, at) = (self.run_bin(pages), run_index(pages));
        CacheCounts {
            allocs: bin.allocs.load(Relaxed),
            taken: self.runs_taken[at].load(Relaxed),
            given: self.runs_given[at].load(Relaxed),
            held: u64::from(self.runs_held[at].load(Relaxed)),
            trips_in: 0,
            trips_out: 0,
            stowed: self.runs_stowed[at].load(Relaxed),
        }
    }
}

/// What one cache counted for one class or run length.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(in crate::heap) struct CacheCounts {
    /// Blocks handed out.
    pub(in crate::heap) allocs: u64,
    /// Blocks received from below.
    pub(in crate::heap) taken: u64,
    /// Blocks handed down.
    pub(in crate::heap) given: u64,
    /// Blocks in the cache.
    pub(in crate::heap) held: u64,
    /// Trips to the depot for a list.
    pub(in crate::heap) trips_in: u64,
    /// Trips to the depot with a list.
    pub(in crate::heap) trips_out: u64,
    /// Runs handed to the depots of runs less those received from there, wrapping.
    pub(in crate::heap) stowed: u64,
}

impl CacheCounts {
    pub(in crate::heap) const ZERO: Self =
        Self { allocs: 0, taken: 0, given: 0, held: 0, trips_in: 0, trips_out: 0, stowed: 0 };

    pub(in crate::heap) fn add(&mut self, other: Self) {
        self.allocs = self.allocs.wrapping_add(other.allocs);
        self.taken = self.taken.wrapping_add(other.taken);
        self.given = self.given.wrapping_add(other.given);
        self.held = self.held.wrapping_add(other.held);
        self.trips_in = self.trips_in.wrapping_add(other.trips_in);
        self.trips_out = self.trips_out.wrapping_add(other.trips_out);
        self.stowed = self.stowed.wrapping_add(other.stowed);
    }

    /// Drops figures that no heap has.
    #[cfg(feature = "shared")]
    pub(in crate::heap) fn limit(&mut self) {
        let Self { allocs, taken, given, held, trips_in, trips_out, stowed: _ } = self;
        for count in [allocs, taken, given, held, trips_in, trips_out] {
            *count = crate::heap::verify::plausible(*count);
        }
    }

    /// Blocks that were freed into the cache: what went in and out otherwise tells.
    pub(in crate::heap) fn frees(&self) -> u64 {
        // What other threads count meanwhile may be missing on one side: then it is less than nothing for a moment.
        let out = self.held.wrapping_add(self.given).wrapping_add(self.allocs);
        let frees = out.wrapping_add(self.stowed).wrapping_sub(self.taken);
        (frees as i64).max(0) as u64
    }
}
