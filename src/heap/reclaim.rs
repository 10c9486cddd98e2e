//! Memory that comes back.
//!
//! The idle bound: resident free pages, in free runs and inside slabs, are at most `max(idle_bytes, live / idle_share)`,
//! a second after the last call at the latest. Whoever frees past seven eighths of it (the rest is for what counters lag
//! by) summons the purger, which looks every now and then how much was retained all the time since it looked last, and
//! purges that, outside the locks: runs with whole granules first, then the runs freed longest ago, then pages inside
//! slabs. So a swing of the program's, however large, costs nothing while it goes on. Where there is no purger, the one
//! who frees purges at once. Pages that the depot pins beyond its own bound are taken
//! off what may be retained, down to a quarter of the bound, so that the sum holds.

use super::cache::Cache;
use super::class::Class;
use super::depot;
use super::map::{Page, Stretch};
use super::slab::Slabs;
use super::{Attached, Engine};
use crate::lock::RawLock;
use crate::os::Source;
use crate::sync::Relaxed;
use crate::twin::{self, Twin};

/// Bytes of a run from which on it does not wait for the purger: the next one of its kind costs faults by huge pages.
const PURGE_AT_ONCE: usize = 16 << 20;
/// Before the heap grows the depots are emptied if they pin more than this part of it.
const HOARD_SHARE: usize = 16;
/// Before the heap grows idle pages of slabs are purged, and depots of runs emptied, if that is more than this part of it
/// and so many bytes.
const PAGE_HOARD_SHARE: usize = 32;
const PAGE_HOARD_MIN: usize = 1 << 20;

impl<S: Source, L: RawLock> Engine<S, L> {
    /// Purges if more pages are resident and free than the idle bound allows.
    pub(crate) fn keep_idle_bound(&self) {
        if !self.source.is_purger_at_work() && self.is_over_bound() && !twin::is(Twin::G14) && !self.summon_purger() {
            // What is live may fall while pages are purged: the goal is set anew each time.
            self.purge_down_to(&|| self.allowed_pages() / 8 * 7);
        }
    }

    /// Sees to it that a purger comes; false if none does. What was put into depots in the hope of one is sorted then.
    pub(crate) fn summon_purger(&self) -> bool {
        let hoped = self.source.has_purger();
        let comes = self.source.summon_purger();
        if hoped && !comes {
            Class::all().for_each(|class| self.drain_depot(class));
            self.drain_run_depots();
        }
        comes
    }

    /// When more has been mapped than may be retained: until now nobody was asked to look after caches.
    pub(crate) fn look_at_caches(&self) {
        if self.is_beyond_bound() && !self.source.is_purger_at_work() && self.registry.with(|all| all.need_purger()) {
            self.summon_purger();
        }
    }

    /// Keeps the idle bound after a run of `pages` pages was freed: for a large one at once, as it would be elsewhere.
    pub(crate) fn keep_idle_bound_after(&self, pages: u32) {
        if (pages as usize) << self.map.page_shift() < PURGE_AT_ONCE || twin::is(Twin::G14) {
            return self.keep_idle_bound();
        }
        let least = self.tally.retained_pages().saturating_sub(pages as usize);
        if self.is_over_bound() {
            self.purge_down_to(&|| least.max(self.allowed_pages() / 8 * 7));
        }
    }

    /// Whether more pages are resident and free, or pinned by lists, than the idle bound allows.
    #[inline(never)]
    pub(crate) fn is_over_bound(&self) -> bool {
        if !self.is_beyond_bound() {
            return false;
        }
        let (bound, retained) = (self.idle_bound_pages(), self.tally.retained_pages());
        retained + self.excess_pages() > bound - bound / 8
    }

    /// Whether the depots may pin more than they may when nobody uses them.
    #[inline(never)]
    pub(crate) fn depots_are_large(&self) -> bool {
        self.excess_pages() > 0
    }

    /// Whether more is mapped than may be retained: only then can the bound be passed.
    pub(crate) fn is_beyond_bound(&self) -> bool {
        self.tally.mapped() > self.settings.idle_bytes.load(Relaxed)
    }

    /// Whether the depots pin so much that it is worth sorting before the heap grows.
    pub(crate) fn depots_hoard(&self) -> bool {
        let share = (self.tally.mapped() / HOARD_SHARE) >> self.map.page_shift();
        self.tally.depot_pages() > share.max(depot::pages_max(self.map.page_shift()) as usize)
    }

    /// Whether so many pages of slabs are resident and idle that it is worth purging them before more become resident.
    pub(crate) fn slabs_hoard(&self) -> bool {
        !self.source.is_shared() && self.tally.idle_pages() > self.hoard_pages()
    }

    /// Free pages, of one kind that does not serve every request, that may be there when the heap grows.
    pub(crate) fn hoard_pages(&self) -> usize {
        (self.tally.mapped() / PAGE_HOARD_SHARE).max(PAGE_HOARD_MIN) >> self.map.page_shift()
    }

    /// Purges idle pages of slabs until they are few; false if none were purged.
    #[cold]
    #[inline(never)]
    pub(crate) fn purge_slabs(&self) -> bool {
        let few = self.hoard_pages() / 2;
        let mut any = false;
        while self.tally.idle_pages() > few && self.purge_some_slab() {
            any = true;
        }
        any
    }

    /// Pages that may be retained at this moment, so that the idle bound holds.
    #[inline(never)]
    pub(crate) fn allowed_pages(&self) -> usize {
        let bound = self.idle_bound_pages();
        let listed = self.tally.depot_pages().saturating_sub(depot::pages_max(self.map.page_shift()) as usize);
        (bound - bound / 8).saturating_sub(listed).max(bound / 4)
    }

    /// Pages that lists in the depots pin, at the most, beyond what they may.
    #[inline(never)]
    pub(crate) fn excess_pages(&self) -> usize {
        let purger = self.source.has_purger();
        let pages = if purger { self.tally.depot_pages_at_most() } else { self.tally.depot_pages() };
        pages.saturating_sub(depot::pages_max(self.map.page_shift()) as usize)
    }

    /// The idle bound of this moment, in pages.
    #[inline(never)]
    pub(crate) fn idle_bound_pages(&self) -> usize {
        let pages = self.tally.granted_pages() + self.tally.listed_pages();
        let listed = self.tally.depot_bytes() + (pages << self.map.page_shift());
        let share = self.tally.live().saturating_sub(listed) / self.settings.idle_share.load(Relaxed).max(1);
        self.settings.idle_bytes.load(Relaxed).max(share) >> self.map.page_shift()
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn purge_down_to(&self, goal: &dyn Fn() -> usize) {
        while let Some(want) = self.tally.retained_pages().checked_sub(goal()) {
            let want = u32::try_from(want).unwrap_or(u32::MAX);
            let purged = want > 0 && (self.purge_run(want) || self.purge_some_slab());
            if !purged && (want == 0 || !self.release_reserves() && !self.drain_run_depots()) {
                return;
            }
        }
    }

    /// Purges up to `want` pages, or somewhat more, of the run freed longest ago; false if there is none, or if the
    /// system refuses.
    fn purge_run(&self, want: u32) -> bool {
        let keeper = self.keeper();
        let Some(purge) = self.with_runs(|runs| runs.begin_purge(&self.map, want, keeper)) else {
            return false;
        };
        let mut purged = true;
        self.map.dirty_stretches(purge.part.first, purge.part.pages, |first, pages| {
            purged &= self.purge_pages(first, pages);
        });
        self.with_runs(|runs| runs.end_purge(&self.map, purge, purged));
        purged
    }

    pub(crate) fn purge_pages(&self, first: Page, pages: u32) -> bool {
        self.split_huge(Stretch { first, pages });
        // SAFETY: the pages are free and with us alone: no one else hands them out until they are returned.
        unsafe { self.source.purge(self.map.span(first, pages)) }
    }

    /// Purges the idle pages of a slab of the largest class that has any; false if there is none.
    #[inline(never)]
    fn purge_some_slab(&self) -> bool {
        !self.source.is_shared() && Class::all().rev().any(|class| self.purge_slab(class))
    }

    /// Purges the idle pages of the slab that has waited longest; false if there is none, or if the system refuses.
    #[inline(never)]
    fn purge_slab(&self, class: Class) -> bool {
        let begun = self.with_slabs(class, Slabs::begin_purge);
        let Some((slab, idle)) = begun else {
            return false;
        };
        let purged = stretches(idle).all(|(at, len)| self.purge_pages(slab.first() + at, len));
        let done = if purged { idle } else { 0 };
        let whole = self.with_slabs(class, |slabs| slabs.end_purge(slab, done));
        self.tally.purged_in_slabs(done.count_ones());
        if whole {
            self.give_slab_back(slab);
        }
        purged
    }

    /// Runs `section` with the slabs of `class` locked, and publishes their gauges.
    pub(crate) fn with_slabs<R>(&self, class: Class, section: impl FnOnce(&mut Slabs) -> R) -> R {
        self.slabs[class].with(|slabs| {
            let result = section(slabs);
            slabs.note_low();
            self.tally.set_slabs(class, slabs.blocks_out, slabs.idle_pages);
            result
        })
    }

    /// Sorts all that lies in the depots, and in `cache`, into the slabs and runs: before memory is said to be out.
    pub(crate) fn reclaim(&self, cache: Option<&Cache>) {
        if let Some(cache) = cache {
            self.flush(cache);
        }
        self.release_reserves();
        self.drain_run_depots();
        Class::all().for_each(|class| self.drain_depot(class));
    }

    #[inline(never)]
    pub(crate) fn drain_depot(&self, class: Class) {
        let target = self.target(class);
        while let Some(list) = self.take_list(class, target) {
            self.sort_unheard(class, list);
        }
        let odd = self.take_odd(class);
        self.sort_unheard(class, odd);
    }

    /// Gives back every page that no live block and no cache holds. O(free memory).
    pub fn collect(&self) {
        self.reclaim(None);
        self.purge_down_to(&|| 0);
    }
}

impl<S: Source, L: RawLock> Attached<'_, S, L> {
    /// Gives back what the cache holds; the next calls fetch what they need anew.
    pub fn park(&self) {
        self.engine.flush(self.cache);
    }

    /// Gives back every page that no live block and no other cache holds. O(free memory).
    pub fn collect(&self) {
        self.park();
        self.engine.collect();
    }
}

/// The stretches of set bits: where each begins and how long it is.
fn stretches(mut bits: u32) -> impl Iterator<Item = (u32, u32)> {
    core::iter::from_fn(move || {
        if bits == 0 {
            return None;
        }
        let start = bits.trailing_zeros();
        let len = (bits >> start).trailing_ones();
        bits &= u32::MAX.checked_shl(start + len).unwrap_or(0);
        Some((start, len))
    })
}
