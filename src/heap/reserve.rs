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

use super::cache::{Cache, PAGE_LISTS};
use super::map::{Entry, Map, Page, Stretch};
use super::run::check_run;
use super::{Engine, RESERVES};
use crate::fatal::{Fatal, die};
use crate::lock::{Locked, RawLock};
use crate::os::Source;
use core::alloc::Layout;
use core::ptr::with_exposed_provenance_mut;

/// Runs that one reserve holds at the most.
const SLOTS: usize = 16;
/// Bytes of runs that may be kept, and that one reserve holds at the most.
const LONGEST: usize = 4 << 20;

/// When room must be made, this part of a reserve is emptied.
const SPARE_PART: u32 = 4;

/// A run is cut if it is longer than what is wanted by no more than this part: best fit among all runs wastes less.
const CUT_PART: u32 = 4;

/// Some runs of the users', free for now. All zero bits when empty.
#[derive(Debug)]
#[repr(align(128))]
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

    fn remove(&mut self, at: usize) {
        self.len -= 1;
        (at..self.len).for_each(|at| self.runs[at % SLOTS] = self.runs[(at + 1) % SLOTS]);
        self.seen -= usize::from(at < self.seen);
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
    fn uproot(&mut self, map: &Map, first: Page) -> Option<Stretch> {
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
struct Leaving {
    runs: [Stretch; SLOTS],
    len: usize,
}

/// Whether one of the runs begins where the other ends.
fn are_neighbours(a: Stretch, b: Stretch) -> bool {
    a.first + a.pages == b.first || b.first + b.pages == a.first
}

/// What reserves counted, and pages in them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReserveCounts {
    pub(super) allocs: u64,
    pub(super) frees: u64,
    pub(super) pages: u64,
}

impl<S: Source, L: RawLock> Engine<S, L> {
    fn reserve(&self, cache: &Cache) -> &Locked<Reserve, L> {
        &self.reserves[cache.reserve() % RESERVES]
    }

    /// Whether runs of that length pass through the reserves, given that they have no run list. Not where addresses are
    /// scarce.
    pub(crate) fn may_be_kept(&self, pages: u32) -> bool {
        (pages as usize) << self.map.page_shift() <= LONGEST && self.source.grows_again()
    }

    /// A run for a layout of whole pages from the thread's reserve. The heap need not be open.
    #[inline]
    pub(crate) fn take_long(&self, cache: &Cache, layout: Layout) -> Option<*mut u8> {
        let pages = self.keepable(layout)?;
        let first = self.take_kept(cache, pages, layout.align())?;
        Some(with_exposed_provenance_mut(self.map.address_of(first)))
    }

    /// The pages of a layout that is no class's, if runs of that length pass through the reserves.
    #[inline(always)]
    fn keepable(&self, layout: Layout) -> Option<u32> {
        let shift = self.map.page_shift();
        let pages = (layout.size().wrapping_sub(1) >> shift) + 1;
        let short = pages.wrapping_sub(PAGE_LISTS + 1);
        (short < (LONGEST >> shift) - PAGE_LISTS && self.source.grows_again()).then_some(pages as u32)
    }

    /// Keeps a freed run of that layout in the thread's reserve, if it has room.
    #[inline]
    pub(crate) fn keep_long(&self, cache: &Cache, run: usize, layout: Layout) -> bool {
        self.keepable(layout).is_some_and(|pages| {
            let run = Stretch { first: self.map.page_of(run), pages };
            self.reserve(cache).with(|reserve| reserve.put(&self.map, run))
        })
    }

    /// A run of the thread's reserve. It counts as handed up already.
    #[inline]
    pub(crate) fn take_kept(&self, cache: &Cache, pages: u32, align: usize) -> Option<Page> {
        self.reserve(cache).with(|reserve| reserve.take(&self.map, pages, align))
    }

    /// After `keep_long` had no room: keeps a freed run in the thread's reserve with a larger allowance, or in place of those
    /// kept longest; false if it is too long for the allowance there may be.
    #[inline(never)]
    pub(crate) fn keep_instead(&self, cache: &Cache, run: Stretch) -> bool {
        // Before others make room: one of them may be this very run, freed twice.
        check_run(&self.map, run);
        let most = (LONGEST >> self.map.page_shift()) as u32;
        let mut leaving = Leaving { runs: [Stretch { first: 0, pages: 0 }; SLOTS], len: 0 };
        let (granted, kept) = self.reserve(cache).with(|reserve| {
            let wanted = (reserve.pages + run.pages).min(most).saturating_sub(reserve.allowance);
            let granted = wanted > 0 && self.tally.grant(wanted, self.allowed_pages());
            reserve.allowance += if granted { wanted } else { 0 };
            if run.pages <= reserve.allowance {
                reserve.make_room(&self.map, run.pages, &mut leaving);
            }
            (granted, reserve.put(&self.map, run))
        });
        self.give_runs_back(&leaving.runs[..leaving.len]);
        if granted || leaving.len > 0 {
            self.keep_idle_bound();
        }
        kept
    }

    /// Gives the kept run that begins with `first`, if one does, back to the runs: a run before it is to grow.
    pub(crate) fn uproot(&self, first: Page) -> bool {
        let is_kept = matches!(self.map.entry(first), Entry::Kept(_));
        let find = || self.reserves.iter().find_map(|reserve| reserve.with(|reserve| reserve.uproot(&self.map, first)));
        let run = if is_kept { find() } else { None };
        run.map(|run| self.give_runs_back(&[run])).is_some()
    }

    /// Gives all runs of a thread's reserve back.
    pub(crate) fn release_reserve_of(&self, cache: &Cache) {
        self.release(self.reserve(cache));
    }

    /// Gives all runs of all reserves back; false if there was none.
    pub(crate) fn release_reserves(&self) -> bool {
        self.reserves.iter().fold(false, |any, reserve| self.release(reserve) | any)
    }

    fn release(&self, reserve: &Locked<Reserve, L>) -> bool {
        let mut any = false;
        while let Some(run) = reserve.with(|reserve| reserve.evict(&self.map)) {
            self.give_runs_back(&[run]);
            any = true;
        }
        self.cut_allowance(reserve);
        any
    }

    /// Cuts an allowance back to what is there.
    pub(crate) fn cut_allowance(&self, reserve: &Locked<Reserve, L>) {
        reserve.with(|reserve| {
            let less = reserve.allowance - reserve.pages;
            reserve.allowance = reserve.pages;
            self.tally.withdraw_grant(less);
        });
    }

    /// What all reserves counted and hold.
    pub(super) fn count_reserves(&self) -> ReserveCounts {
        let mut sum = ReserveCounts::default();
        for reserve in &self.reserves {
            reserve.with(|reserve| {
                sum.allocs += reserve.allocs;
                sum.frees += reserve.frees;
                sum.pages += u64::from(reserve.pages);
            });
        }
        sum
    }
}

#[cfg(all(test, not(loom)))]
#[path = "reserve_tests.rs"]
mod tests;
