//! When granules become huge, when they stop, and how the system is told.

use super::Engine;
use super::granule::{Advice, Fill, change, interior};
use super::map::{Page, Stretch};
use super::run::Grant;
use crate::lock::RawLock;
use crate::os::Source;
use crate::sync::Relaxed;

/// Bytes mapped up to which granules become huge: each may cost the kernel a mapping, and those are limited.
const HUGE_UP_TO: usize = 32 << 30;
/// The idle bound must hold so many granules, or else none becomes huge: the one in use would have to be purged at once.
const GRANULES_IN_BOUND: usize = 4;

impl<S: Source, L: RawLock> Engine<S, L> {
    /// `fill`, in a heap of the present size.
    pub(crate) fn fill_at_this_size(&self, fill: Fill) -> Fill {
        if fill == Fill::Dense && !self.is_large() { Fill::Any } else { fill }
    }

    /// Whether the heap is so large that granules become huge.
    fn is_large(&self) -> bool {
        let (grain, above) = (self.map.grain() as usize, self.settings.huge_above.load(Relaxed));
        grain > 0
            && (above..=HUGE_UP_TO).contains(&self.tally.mapped())
            && self.tally.live() >= above
            && self.idle_bound_pages() >= GRANULES_IN_BOUND * grain
    }

    /// Tells the system of what a run was taken from. It may have left more free pages resident than there may be.
    pub(crate) fn settle_grant(&self, grant: Grant) {
        self.pass_on(grant.advice);
        if grant.soiled {
            self.keep_idle_bound();
        }
    }

    /// Tells the system. What it does not do costs time alone: the pages count as resident all the same.
    fn pass_on(&self, advice: Option<Advice>) {
        if let Some(Advice { granules, huge }) = advice {
            // A purger may have changed its mind on one of them meanwhile; then at most that one is filled up unseen.
            self.source.advise_huge(self.map.span(granules.first, granules.pages), huge);
        }
    }

    /// Makes the whole untouched granules of a run in use huge, in a large heap: it will be filled.
    pub(crate) fn fill_densely(&self, run: Stretch) {
        let Some(whole) = interior(&self.map, run) else {
            return;
        };
        let fill = self.fill_at_this_size(Fill::Dense);
        let is_fresh = |granule: Page| self.map.dirty(granule, self.map.grain()) == 0;
        let advice = self.with_runs(|_| change(&self.map, whole.first, whole.first + whole.pages, fill, is_fresh));
        self.pass_on(advice);
    }

    /// Makes the granules of a run in use that was given back, or will be, huge no longer: little of it will be touched.
    pub(crate) fn fill_sparsely(&self, run: Stretch) {
        let Some(whole) = interior(&self.map, run) else {
            return;
        };
        let end = whole.first + whole.pages;
        let next = || self.with_runs(|_| change(&self.map, whole.first, end, Fill::Sparse, |_| true));
        while let Some(advice) = next() {
            self.pass_on(Some(advice));
        }
    }

    /// Before `part`, of a free run or a slab, is purged: granules that it only has a part of stop being huge.
    pub(crate) fn split_huge(&self, part: Stretch) {
        let grain = self.map.grain();
        if grain == 0 {
            return;
        }
        let end = part.first + part.pages;
        for granule in [part.first - part.first % grain, (end - 1) - (end - 1) % grain] {
            let whole = granule >= part.first && granule + grain <= end;
            if !whole && self.map.is_huge(granule) {
                self.with_runs(|_| {
                    self.map.set_huge(granule, false);
                    self.map.add_seams(Stretch { first: granule, pages: grain });
                });
                self.source.advise_huge(self.map.span(granule, grain), false);
            }
        }
    }
}
