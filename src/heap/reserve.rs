//! Long runs that were freed a moment ago, kept for the next requests of pages.
//!
//! There are a few reserves, each behind a lock of its own, and each thread uses one of them: as long as there are not many
//! threads, a lock is nobody else's, and long runs come and go without the lock of the runs. A reserve cuts what it hands
//! out from the smallest run that fits, if that is not much longer, and joins neighbours that both lie in it; so nothing
//! is wasted, and long ones stay whole. It holds a handful of runs; when one more comes, those kept longest leave for the
//! runs.
//!
//! What lies here is free and resident. For the page map it is in use (nobody merges it), but as `Entry::Kept`, so that a
//! second free is noticed. For the idle bound it is retained: what counts is a reserve's *allowance*, which it may fill
//! without telling anybody. Allowances are granted while their sum fits the bound, and cut back to what is there at each
//! look of the purger's; runs that stayed from one look to the next go to the runs, to be purged there.

use super::hot::KeptCounts;
use super::map::{Entry, Map, Page, Stretch};
use crate::fatal::{Fatal, die};
use crate::finding::{Layer, Verdict};

/// Runs that one reserve holds at the most.
const SLOTS: usize = 16;
/// Bytes of runs that may be kept, and that one reserve holds at the most.
pub(super) const LONGEST: usize = 4 << 20;

/// When room must be made, this part of a reserve is emptied.
const SPARE_PART: u32 = 4;

/// A run is cut if it is longer than what is wanted by no more than this part: best fit among all runs wastes less.
const CUT_PART: u32 = 4;

/// Some runs of the users', free for now. All zero bits when empty.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct Reserve {
    /// The kept runs, the one kept longest first; `len` of them.
    runs: [Stretch; SLOTS],
    len: usize,
    /// How many of them, the first ones, were there when the purger last looked.
    seen: usize,
    /// Their pages.
    pages: u32,
    /// Pages that may be here. The tally knows.
    allowance: u32,
    allocs: u64,
    frees: u64,
}

impl Reserve {
    pub(crate) const EMPTY: Self = Self {
        runs: [Stretch { first: 0, pages: 0 }; SLOTS],
        len: 0,
        seen: 0,
        pages: 0,
        allowance: 0,
        allocs: 0,
        frees: 0,
    };

    /// Hands out `pages` pages at a multiple of `align` bytes, from the smallest run that has them at its begin. O(slots).
    #[inline]
    pub(crate) fn take(&mut self, map: &Map, pages: u32, align: usize) -> Option<Page> {
        // The run freed last is the one asked for most often.
        let newest = self.len.wrapping_sub(1);
        let run = self.runs[newest % SLOTS];
        if self.len > 0 && run.pages == pages && map.address_of(run.first) & (align - 1) == 0 {
            self.len = newest;
            self.seen = self.seen.min(newest);
            map.set(run.first, Entry::Run(pages));
            self.pages -= pages;
            self.allocs += 1;
            return Some(run.first);
        }
        self.take_best(map, pages, align)
    }

    #[inline(never)]
    fn take_best(&mut self, map: &Map, pages: u32, align: usize) -> Option<Page> {
        let limit = pages / CUT_PART + 1;
        let (mut best, mut excess, mut at) = (0, limit, self.len);
        while at > 0 && excess > 0 {
            at -= 1;
            let run = self.runs[at % SLOTS];
            let more = run.pages.wrapping_sub(pages);
            if more < excess && map.address_of(run.first) & (align - 1) == 0 {
                (best, excess) = (at, more);
            }
        }
        let first = self.runs[best % SLOTS].first;
        match excess {
            0 => {
                self.remove(best);
                map.set(first, Entry::Run(pages));
            }
            none if none == limit => return None,
            _ => self.cut(map, best, pages),
        }
        self.pages -= pages;
        self.allocs += 1;
        Some(first)
    }

    /// Makes the first `pages` pages of run `at` a run of their own, in use; the rest stays.
    fn cut(&mut self, map: &Map, at: usize, pages: u32) {
        let run = self.runs[at];
        let rest = Stretch { first: run.first + pages, pages: run.pages - pages };
        map.set_run(run.first, pages);
        map.set(rest.first, Entry::Kept(rest.pages));
        self.runs[at] = rest;
    }

    /// Keeps `run`, which its user has freed, if the allowance and the slots let it. O(slots).
    #[inline]
    pub(crate) fn put(&mut self, map: &Map, run: Stretch) -> bool {
        if self.pages + run.pages > self.allowance {
            return false;
        }
        let joined = if self.len == 0 {
            mark(map, run);
            run
        } else if let Some(joined) = self.put_beside(map, run) {
            joined
        } else {
            return false;
        };
        self.runs[self.len % SLOTS] = joined;
        self.len += 1;
        self.pages += run.pages;
        self.frees += 1;
        true
    }

    /// `run`, marked as kept and joined with its neighbours; `None` if there is no slot for it.
    #[inline(never)]
    fn put_beside(&mut self, map: &Map, run: Stretch) -> Option<Stretch> {
        let neighbour = (0..self.len).any(|at| are_neighbours(self.runs[at % SLOTS], run));
        if self.len == SLOTS && !neighbour {
            return None;
        }
        mark(map, run);
        Some(if neighbour { self.join(map, run) } else { run })
    }

    /// `run`, joined with its neighbours, which leave their slots.
    fn join(&mut self, map: &Map, run: Stretch) -> Stretch {
        let mut joined = run;
        let mut at = 0;
        while at < self.len {
            let kept = self.runs[at];
            if !are_neighbours(kept, joined) {
                at += 1;
                continue;
            }
            self.remove(at);
            let (low, high) = if kept.first < joined.first { (kept, joined) } else { (joined, kept) };
            joined = Stretch { first: low.first, pages: low.pages + high.pages };
            map.set(high.first - 1, Entry::None);
            map.set(high.first, Entry::None);
            map.set_run(joined.first, joined.pages);
            map.set(joined.first, Entry::Kept(joined.pages));
        }
        joined
    }

    #[inline(never)]
    fn remove(&mut self, at: usize) {
        self.len -= 1;
        (at..self.len).for_each(|at| self.runs[at % SLOTS] = self.runs[(at + 1) % SLOTS]);
        self.seen -= usize::from(at < self.seen);
    }

    /// Widens the allowance, up to `most` pages, by what `pages` pages more need, if that is granted.
    pub(super) fn widen(&mut self, pages: u32, most: u32, grant: impl FnOnce(u32) -> bool) -> bool {
        let wanted = (self.pages + pages).min(most).saturating_sub(self.allowance);
        let granted = wanted > 0 && grant(wanted);
        self.allowance += if granted { wanted } else { 0 };
        granted
    }

    /// Cuts the allowance back to what is here, and returns by how much.
    pub(super) fn cut_allowance(&mut self) -> u32 {
        let less = self.allowance - self.pages;
        self.allowance = self.pages;
        less
    }

    /// Keeps `run` as `put` does, in place of those kept longest if need be.
    pub(super) fn put_instead(&mut self, map: &Map, run: Stretch, leaving: &mut Leaving) -> bool {
        if run.pages <= self.allowance {
            self.make_room(map, run.pages, leaving);
        }
        self.put(map, run)
    }

    /// Takes out those kept longest until `pages` pages more have room, and somewhat beyond, so that it pays.
    fn make_room(&mut self, map: &Map, pages: u32, leaving: &mut Leaving) {
        let enough = (self.allowance - self.allowance / SPARE_PART).min(self.allowance - pages);
        while self.pages > enough || self.len > SLOTS - SLOTS / SPARE_PART as usize {
            let Some(run) = self.evict(map) else {
                return;
            };
            leaving.runs[leaving.len % SLOTS] = run;
            leaving.len += 1;
        }
    }

    /// Takes out the run kept longest, as one in use.
    pub(crate) fn evict(&mut self, map: &Map) -> Option<Stretch> {
        let oldest = *self.runs[..self.len].first()?;
        self.remove(0);
        self.pages -= oldest.pages;
        map.set(oldest.first, Entry::Run(oldest.pages));
        Some(oldest)
    }

    /// Takes out the run that begins with `first`, as one in use.
    pub(super) fn uproot(&mut self, map: &Map, first: Page) -> Option<Stretch> {
        let at = (0..self.len).find(|at| self.runs[at % SLOTS].first == first)?;
        let run = self.runs[at % SLOTS];
        self.remove(at);
        self.pages -= run.pages;
        map.set(first, Entry::Run(run.pages));
        Some(run)
    }

    /// Takes out a run that was here when the purger last looked, as one in use.
    pub(crate) fn evict_seen(&mut self, map: &Map) -> Option<Stretch> {
        if self.seen == 0 { None } else { self.evict(map) }
    }

    pub(super) fn counts(&self) -> KeptCounts {
        KeptCounts { allocs: self.allocs, frees: self.frees, pages: u64::from(self.pages) }
    }

    /// Audits the kept runs against the page map, and the sums.
    pub(super) fn audit(&self, map: &Map) -> Verdict {
        let holds = |holds, rule| Layer::Cache.holds(holds, rule, 0);
        holds(self.len <= SLOTS && self.seen <= self.len, "a reserve holds no more runs than it has slots for")?;
        for run in &self.runs[..self.len] {
            let last = if run.pages == 1 { Entry::Kept(1) } else { Entry::RunEnd };
            let kept = map.entry(run.first) == Entry::Kept(run.pages)
                && map.entry(run.first.wrapping_add(run.pages).wrapping_sub(1)) == last;
            Layer::Cache.holds(kept, "a kept run has the length that the page map says", map.address_of(run.first))?;
        }
        let pages: u64 = self.runs[..self.len].iter().map(|run| u64::from(run.pages)).sum();
        let counts = pages == u64::from(self.pages) && self.pages <= self.allowance;
        holds(counts, "a reserve has as many pages as it counts, and may hold them")
    }

    /// Says that the purger has looked.
    pub(crate) fn note_look(&mut self) {
        self.seen = self.len;
    }
}

/// Marks a run, which is in use with just that length, as kept.
#[inline]
fn mark(map: &Map, run: Stretch) {
    if !map.exchange(run.first, Entry::Run(run.pages), Entry::Kept(run.pages)) {
        die(Fatal::NotARun);
    }
}

/// Runs that leave a reserve, in use for the runs.
pub(super) struct Leaving {
    runs: [Stretch; SLOTS],
    len: usize,
}

impl Leaving {
    pub(super) const NONE: Self = Self { runs: [Stretch { first: 0, pages: 0 }; SLOTS], len: 0 };

    pub(super) fn runs(&self) -> &[Stretch] {
        &self.runs[..self.len]
    }
}

/// Whether one of the runs begins where the other ends.
fn are_neighbours(a: Stretch, b: Stretch) -> bool {
    a.first + a.pages == b.first || b.first + b.pages == a.first
}

#[cfg(all(test, not(loom)))]
#[path = "reserve_tests.rs"]
mod tests;
