//! What the purger does: it gives back what nobody has used for a while.
//!
//! A look takes what was retained all the time since the look before: the least of each gauge. Pages beyond the idle
//! bound go, but no more than that; so memory that a program frees and takes again between two looks stays, and after two
//! looks without a call the bound holds.

use super::Engine;
use super::class::Class;
use super::depot::Depot;
use super::reserve::Reserve;
use super::run::Runs;
use super::slab::Slabs;
use crate::lock::RawLock;
use crate::os::Source;
use crate::sync::Relaxed;
use core::mem::replace;

/// Lists of a depot that are sorted between two checks whether it is still too large, which asks every class.
const LISTS_PER_CHECK: u32 = 16;
/// Lists taken from caches at a time, while the lock of their registry is held.
const STEAL: usize = 64;

impl<S: Source, L: RawLock> Engine<S, L> {
    /// One look of the purger's: purges what is retained beyond the idle bound as far as it was retained all the time
    /// since the look before. False if nothing is beyond.
    pub(crate) fn purge_unused(&self) -> bool {
        let before = self.tally.retained_pages();
        let in_slabs: u32 = Class::all().map(|class| self.with_slabs(class, unused_in_slabs)).sum();
        let in_runs = self.with_runs(unused_in_runs);
        let busy = self.sort_unused_caches();
        let unused = in_runs + in_slabs as usize + self.give_unused_back() + self.release_unused_runs() as usize;
        // Large blocks first: they pin as much as is counted for them, while many small ones share a page.
        Class::all().rev().for_each(|class| self.sort_unused_lists(class));
        // What has become free by the sorting just now, nobody has used either.
        let retained = self.tally.retained_pages();
        if retained > self.allowed_pages() {
            let least = before.min(retained) - unused.min(before).min(retained);
            self.purge_down_to(&|| least.max(self.allowed_pages() / 8 * 7));
        }
        busy && self.is_beyond_bound() || self.is_over_bound()
    }

    /// Whether there is anything for a purger to look after.
    pub(crate) fn needs_purger(&self) -> bool {
        self.is_over_bound() || self.is_beyond_bound() && self.registry.with(|registry| registry.need_purger())
    }

    /// Sorts the full lists that lie in caches since before the last look. Whether so much is left, of younger ones, that
    /// another look is due.
    #[inline(never)]
    fn sort_unused_caches(&self) -> bool {
        let look = self.looks.fetch_add(1, Relaxed);
        loop {
            let mut stolen = [const { None }; STEAL];
            let mut count = 0;
            let busy = self.registry.with(|registry| {
                for cache in registry.caches() {
                    while let Some(slot) = stolen.get_mut(count) {
                        *slot = cache.steal(look);
                        if slot.is_none() {
                            break;
                        }
                        count += 1;
                    }
                }
                registry.need_purger()
            });
            stolen.into_iter().flatten().for_each(|(class, list)| self.sort(class, list));
            if count < STEAL {
                return busy;
            }
        }
    }

    /// The purger's look at the reserves: allowances are cut back, and while too much is retained, what nobody has used since the look
    /// before goes to the runs. Returns the pages of that.
    fn give_unused_back(&self) -> usize {
        self.reserves.iter().for_each(|reserve| self.cut_allowance(reserve));
        let mut unused = self.close_unused_hot();
        for reserve in &self.reserves {
            while self.tally.retained_pages() > self.allowed_pages() {
                let Some(run) = reserve.with(|reserve| reserve.evict_seen(&self.map)) else {
                    break;
                };
                unused += run.pages as usize;
                self.give_runs_back(&[run]);
            }
            reserve.with(Reserve::note_look);
            self.cut_allowance(reserve);
        }
        unused
    }

    /// Sorts the lists of a depot that nobody wanted since the look before, and then the odd blocks, while the depots are too
    /// large.
    #[inline(never)]
    fn sort_unused_lists(&self, class: Class) {
        let unused = self.with_depot(class, Depot::note_look);
        let (target, are_too_large) = (self.target(class), || self.depots_are_large() && self.is_over_bound());
        for at in 0..unused {
            if at.is_multiple_of(LISTS_PER_CHECK) && !are_too_large() {
                break;
            }
            let Some(list) = self.take_list(class, target) else {
                break;
            };
            self.sort_unheard(class, list);
        }
        if are_too_large() {
            let odd = self.take_odd(class);
            self.sort(class, odd);
        }
    }
}

/// How many dirty pages of free runs were there all the time since this was last asked.
fn unused_in_runs(runs: &mut Runs) -> usize {
    replace(&mut runs.low_dirty, runs.dirty_pages) as usize
}

/// How many idle pages of slabs were there all the time since this was last asked.
fn unused_in_slabs(slabs: &mut Slabs) -> u32 {
    replace(&mut slabs.low_idle, slabs.idle_pages)
}
