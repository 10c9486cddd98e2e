//! Layer 4: runs of whole pages.
//!
//! Best fit, split, merged with both neighbours when freed. Free runs stay resident ("dirty") until the heap holds more
//! of them than its idle bound; then the runs freed longest ago are purged. Everything here happens under one lock and
//! makes no system call: what is to be mapped or purged is returned to the caller.

use super::bins::Bins;
use super::granule::{self, Advice, Fill};
use super::map::{Entry, Map, Page, Stretch};
use crate::fatal::{Fatal, die};
use crate::sync::in_order;
use crate::twin::{self, Twin};

/// The free runs and what there is to know about all runs.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Runs {
    bins: Bins,
    /// The dirty free runs without a whole granule, and those with one.
    dirty: [Queue; 2],
    /// Pages of free runs that may hold anything but zeros.
    pub(crate) dirty_pages: u64,
    /// The fewest dirty pages since the purger last looked.
    pub(crate) low_dirty: u64,
    /// Pages of free runs.
    pub(crate) free_pages: u64,
    /// Pages the source has given.
    pub(crate) mapped_pages: u64,
    /// Runs handed out and taken back, growths in place, pages moved without copying.
    pub(crate) allocs: u64,
    pub(crate) frees: u64,
    pub(crate) grown_in_place: u64,
    /// Spans from the source, and purged pages.
    pub(crate) spans: u64,
    pub(crate) purged_pages: u64,
}

/// A free run handed to a purger: the run, and the part of it to purge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Purge {
    pub(crate) run: Stretch,
    pub(crate) part: Stretch,
    /// Dirty pages in `part`, and in all of the run.
    pub(crate) dirty: u32,
    dirty_in_run: u32,
}

/// A run handed out, and what the system is to be told of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grant {
    pub(crate) first: Page,
    pub(crate) advice: Option<Advice>,
    /// Whether free pages beside it have become dirty.
    pub(crate) soiled: bool,
}

/// Dirty free runs by the time they were freed, linked through their records; 0 where there is none.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Queue {
    oldest: Page,
    newest: Page,
}

/// Where a free run goes among the dirty ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    New,
    Old,
}

impl Runs {
    /// No run.
    pub(crate) const EMPTY: Self = Self {
        bins: Bins::EMPTY,
        dirty: [Queue { oldest: 0, newest: 0 }; 2],
        dirty_pages: 0,
        low_dirty: 0,
        free_pages: 0,
        mapped_pages: 0,
        allocs: 0,
        frees: 0,
        grown_in_place: 0,
        spans: 0,
        purged_pages: 0,
    };

    /// Takes a fresh span of the source in.
    pub(crate) fn add_span(&mut self, map: &Map, span: Stretch) {
        self.mapped_pages += u64::from(span.pages);
        self.spans += 1;
        self.insert_merged(map, span, 0, Age::New);
    }

    /// Hands out `pages` pages, the first at a multiple of `align` bytes, to be used for `fill`, to `keeper`. Best fit; O(log n).
    pub(crate) fn alloc(&mut self, map: &Map, pages: u32, align: usize, fill: Fill, keeper: u32) -> Option<Grant> {
        let spare = (align >> map.page_shift()).saturating_sub(1);
        let need = pages.checked_add(u32::try_from(spare).ok()?)?;
        let (first, len) = self.bins.best_fit(map, need).or_else(|| self.lucky_fit(map, pages, align))?;
        let dirty = self.withdraw(map, first, len);
        let start = map.page_of(map.address_of(first).next_multiple_of(align.max(map.page_bytes())));
        let front = start - first;
        let (before, taken) = (Stretch { first, pages: front }, Stretch { first: start, pages });
        let dirty_before = dirty_part(map, before, len, dirty);
        let dirty_behind = dirty - dirty_before - dirty_part(map, taken, len, dirty);
        let touched = granule::take(map, Stretch { first, pages: len }, dirty, taken, fill);
        let behind = Stretch { first: start + pages, pages: len - front - pages };
        self.insert(map, before, dirty_before + touched.before, Age::Old);
        self.insert(map, behind, dirty_behind + touched.behind, Age::Old);
        map.set_run_of(start, if twin::is(Twin::G5) { len } else { pages }, keeper);
        self.allocs += 1;
        Some(Grant { first: start, advice: touched.advice, soiled: touched.before + touched.behind > 0 })
    }

    /// The best fit for `pages` pages, if it happens to begin at a multiple of `align` bytes.
    fn lucky_fit(&self, map: &Map, pages: u32, align: usize) -> Option<(Page, u32)> {
        self.bins.best_fit(map, pages).filter(|(first, _)| map.address_of(*first).is_multiple_of(align.max(1)))
    }

    /// Takes a run back whose pages may hold anything. O(log n).
    pub(crate) fn free(&mut self, map: &Map, run: Stretch) {
        check_run(map, run);
        self.free_held(map, run);
    }

    /// `free`, of a run that is known to be in the caller's hand.
    pub(crate) fn free_held(&mut self, map: &Map, run: Stretch) {
        map.soil(run.first, run.pages);
        in_order();
        map.clear_run(run.first, run.pages);
        self.insert_merged(map, run, run.pages, Age::New);
        self.frees += 1;
    }

    /// Takes a run back whose dirty bits are right. O(log n).
    pub(crate) fn free_as_marked(&mut self, map: &Map, run: Stretch) {
        granule::soil_edges(map, run);
        in_order();
        map.clear_run(run.first, run.pages);
        self.insert_merged(map, run, map.dirty(run.first, run.pages), Age::New);
        self.frees += 1;
    }

    /// Forgets a run in use that has no entries.
    pub(crate) fn give_up(&mut self, pages: u32) {
        self.mapped_pages -= u64::from(pages);
        self.frees += 1;
    }

    /// Forgets every run: each is added again, one after the other.
    #[cfg(feature = "shared")]
    pub(crate) fn forget_all(&mut self) {
        *self = Self {
            allocs: self.allocs,
            frees: self.frees,
            grown_in_place: self.grown_in_place,
            spans: self.spans,
            purged_pages: self.purged_pages,
            ..Self::EMPTY
        };
    }

    /// Drops figures that no heap has.
    #[cfg(feature = "shared")]
    pub(crate) fn distrust(&mut self) {
        let Self { allocs, frees, grown_in_place, spans, purged_pages, .. } = self;
        for count in [allocs, frees, grown_in_place, spans, purged_pages] {
            *count = super::verify::plausible(*count);
        }
    }

    /// Adds a free run that has no entries, and no free neighbours.
    #[cfg(feature = "shared")]
    pub(crate) fn add_free(&mut self, map: &Map, run: Stretch) {
        self.insert(map, run, map.dirty(run.first, run.pages), Age::New);
    }

    /// Called at the end of each locked section.
    pub(crate) fn note_low(&mut self) {
        self.low_dirty = self.low_dirty.min(self.dirty_pages);
    }

    /// Cuts the run at `first` from `old` down to `new` pages. O(log n).
    pub(crate) fn shrink(&mut self, map: &Map, first: Page, old: u32, new: u32) {
        check_run(map, Stretch { first, pages: old });
        let tail = Stretch { first: first + new, pages: old - new };
        map.soil(tail.first, tail.pages);
        in_order();
        map.resize_run(first, old, new);
        self.insert_merged(map, tail, tail.pages, Age::New);
    }

    /// Lets the run at `first` grow from `old` to `new` pages into the free run behind it, if that is long enough.
    /// O(log n).
    pub(crate) fn grow(&mut self, map: &Map, first: Page, old: u32, new: u32, fill: Fill) -> Option<Grant> {
        check_run(map, Stretch { first, pages: old });
        let (behind, more) = (first.wrapping_add(old), new - old);
        let Entry::Free(len) = map.entry(behind) else {
            return None;
        };
        // The last page of a free run has the same entry as its first; what is behind a run in use is a first page.
        if len < more {
            return None;
        }
        let dirty = self.withdraw(map, behind, len);
        let taken = Stretch { first: behind, pages: more };
        let left = dirty - dirty_part(map, taken, len, dirty);
        let touched = granule::take(map, Stretch { first: behind, pages: len }, dirty, taken, fill);
        self.insert(map, Stretch { first: behind + more, pages: len - more }, left + touched.behind, Age::Old);
        in_order();
        map.resize_run(first, old, new);
        self.grown_in_place += 1;
        Some(Grant { first, advice: touched.advice, soiled: touched.behind > 0 })
    }

    /// Hands the dirty run freed longest ago, of those with whole granules if there are any, to a purger, who is to make
    /// `want` dirty pages of it, or all, or somewhat more, read zero.
    pub(crate) fn begin_purge(&mut self, map: &Map, want: u32, keeper: u32) -> Option<Purge> {
        let [fine, coarse] = self.dirty;
        let first = if coarse.oldest == 0 { fine.oldest } else { coarse.oldest };
        let Entry::Free(pages) = map.entry(first) else {
            return None;
        };
        let run = Stretch { first, pages };
        let dirty_in_run = self.withdraw(map, first, pages);
        let (part, dirty) = part_to_purge(map, run, want, dirty_in_run);
        map.set_run_of(first, pages, keeper);
        Some(Purge { run, part, dirty, dirty_in_run })
    }

    /// Takes a run back from its purger.
    pub(crate) fn end_purge(&mut self, map: &Map, purge: Purge, purged: bool) {
        if purged {
            map.clean(purge.part.first, purge.part.pages);
            self.purged_pages += u64::from(purge.dirty);
        }
        map.clear_run(purge.run.first, purge.run.pages);
        let dirty = purge.dirty_in_run - if purged { purge.dirty } else { 0 };
        self.insert_merged(map, purge.run, dirty, if purged { Age::Old } else { Age::New });
    }

    /// Adds a run with `dirty` dirty pages to the free ones, merged with its free neighbours.
    fn insert_merged(&mut self, map: &Map, run: Stretch, dirty: u32, age: Age) {
        let (mut merged, mut dirty) = (run, dirty);
        if let Entry::Free(len) = map.entry(run.first.wrapping_sub(1)) {
            merged = Stretch { first: run.first - len, pages: run.pages + len };
            dirty += self.withdraw(map, merged.first, len);
        }
        let behind = run.first.wrapping_add(run.pages);
        if let Entry::Free(len) = map.entry(behind) {
            merged.pages += len;
            dirty += self.withdraw(map, behind, len);
        }
        self.insert(map, merged, dirty, age);
    }

    /// Adds a run with `dirty` dirty pages to the free ones as it is.
    fn insert(&mut self, map: &Map, run: Stretch, dirty: u32, age: Age) {
        if run.pages == 0 {
            return;
        }
        map.set(run.first, Entry::Free(run.pages));
        map.set(run.first + run.pages - 1, Entry::Free(run.pages));
        self.bins.insert(map, run.first, run.pages);
        map.free_run(run.first).dirty.set(dirty);
        self.free_pages += u64::from(run.pages);
        self.dirty_pages += u64::from(dirty);
        if dirty > 0 {
            self.link(map, run, age);
        }
    }

    /// Takes a free run out of everything, clears its entries, and returns its dirty pages.
    fn withdraw(&mut self, map: &Map, first: Page, pages: u32) -> u32 {
        self.bins.remove(map, first, pages);
        let dirty = map.free_run(first).dirty.get();
        self.free_pages -= u64::from(pages);
        self.dirty_pages -= u64::from(dirty);
        if dirty > 0 {
            self.unlink(map, Stretch { first, pages });
        }
        map.clear_run(first, pages);
        dirty
    }

    /// The queue for a dirty run.
    fn queue(&mut self, map: &Map, run: Stretch) -> &mut Queue {
        &mut self.dirty[usize::from(granule::interior(map, run).is_some())]
    }

    fn link(&mut self, map: &Map, run: Stretch, age: Age) {
        let (node, page) = (map.free_run(run.first), run.first);
        let queue = self.queue(map, run);
        let (older, newer) = if age == Age::New { (queue.newest, 0) } else { (0, queue.oldest) };
        node.older.set(older);
        node.newer.set(newer);
        if older == 0 {
            queue.oldest = page
        } else {
            map.free_run(older).newer.set(page)
        }
        if newer == 0 { queue.newest = page } else { map.free_run(newer).older.set(page) }
    }

    fn unlink(&mut self, map: &Map, run: Stretch) {
        let node = map.free_run(run.first);
        let queue = self.queue(map, run);
        let (older, newer) = (node.older.get(), node.newer.get());
        if older == 0 {
            queue.oldest = newer
        } else {
            map.free_run(older).newer.set(newer)
        }
        if newer == 0 { queue.newest = older } else { map.free_run(newer).older.set(older) }
    }
}

/// The part of a dirty run to purge for `want` of its `dirty` dirty pages: whole granules, if any of those are dirty.
/// Returns the dirty pages in it, too.
fn part_to_purge(map: &Map, run: Stretch, want: u32, dirty: u32) -> (Stretch, u32) {
    let Some(whole) = granule::interior(map, run) else {
        return dirty_tail(map, run, want, dirty, 64);
    };
    match dirty_part(map, whole, run.pages, dirty) {
        0 => dirty_tail(map, run, want, dirty, 64),
        inside => dirty_tail(map, whole, want, inside, map.grain()),
    }
}

/// Dirty pages in `part` of a free run of `pages` pages, `dirty` of which are dirty; O(length of `part`).
fn dirty_part(map: &Map, part: Stretch, pages: u32, dirty: u32) -> u32 {
    match dirty {
        0 => 0,
        all if all == pages => part.pages,
        _ => map.dirty(part.first, part.pages),
    }
}

/// Ends the process if `run` is not in use with just that length.
pub(super) fn check_run(map: &Map, run: Stretch) {
    if map.entry(run.first) != Entry::Run(run.pages) {
        die(Fatal::NotARun);
    }
}

/// The end of `run` that has `want` of its `dirty` dirty pages, in steps of `step` pages, and how many it has.
fn dirty_tail(map: &Map, run: Stretch, want: u32, dirty: u32, step: u32) -> (Stretch, u32) {
    if dirty <= want {
        return (run, dirty);
    }
    let (mut pages, mut found) = (0, 0);
    while found < want && pages < run.pages {
        let step = (run.pages - pages).min(step);
        pages += step;
        found += map.dirty(run.first + run.pages - pages, step);
    }
    (Stretch { first: run.first + run.pages - pages, pages }, found)
}

#[path = "run_audit.rs"]
mod audit;

#[cfg(all(any(test, fuzzing), not(loom)))]
#[path = "run_model_tests.rs"]
pub(crate) mod model;

#[cfg(all(test, not(loom)))]
#[path = "run_tests.rs"]
mod tests;

#[cfg(all(test, loom))]
#[path = "run_loom_tests.rs"]
mod loom_tests;

#[cfg(all(feature = "cli", not(loom)))]
#[path = "run_view.rs"]
pub(super) mod view;
