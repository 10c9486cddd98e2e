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
use core::mem::replace;

impl<S: Source, L: RawLock> Engine<S, L> {
    /// One look of the purger's: purges what is retained beyond the idle bound as far as it was retained all the time
    /// since the look before. False if nothing is beyond.
    pub(crate) fn purge_unused(&self) -> bool {
        let in_slabs: u32 = Class::all().map(|class| self.with_slabs(class, unused_in_slabs)).sum();
        let in_runs = self.with_runs(unused_in_runs);
        let unused = in_runs + in_slabs as usize + self.give_unused_back();
        let before = self.tally.retained_pages();
        Class::all().for_each(|class| self.sort_unused_lists(class));
        let retained = self.tally.retained_pages();
        if retained > self.allowed_pages() {
            let least = before.min(retained) - unused.min(before).min(retained);
            self.purge_down_to(|| least.max(self.allowed_pages() / 8 * 7));
        }
        self.is_over_bound()
    }

    /// The purger's look at the reserves: allowances are cut back, and while too much is retained, what nobody has used since the look
    /// before goes to the runs. Returns the pages of that.
    fn give_unused_back(&self) -> usize {
        self.reserves.iter().for_each(|reserve| self.cut_allowance(reserve));
        let mut unused = 0;
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

    /// Sorts the lists of a depot that nobody wanted since the look before, while the depots are too large.
    fn sort_unused_lists(&self, class: Class) {
        let mut unused = self.with_depot(class, unused_in_depot);
        let target = self.target(class);
        while unused > 0 && self.depots_are_large() && self.is_over_bound() {
            let Some(list) = self.with_depot(class, |depot| depot.take(target)) else {
                return;
            };
            self.sort(class, list);
            unused -= 1;
        }
    }
}

/// How many lists were in a depot all the time since this was last asked.
fn unused_in_depot(depot: &mut Depot) -> u32 {
    replace(&mut depot.low_count, depot.count)
}

/// How many dirty pages of free runs were there all the time since this was last asked.
fn unused_in_runs(runs: &mut Runs) -> usize {
    replace(&mut runs.low_dirty, runs.dirty_pages) as usize
}

/// How many idle pages of slabs were there all the time since this was last asked.
fn unused_in_slabs(slabs: &mut Slabs) -> u32 {
    replace(&mut slabs.low_idle, slabs.idle_pages)
}
