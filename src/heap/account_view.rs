//! What a heap has counted, in its file, for who reads it from outside.

use super::{CacheCounts, Counts, Gauges, PAGE_LISTS, Tally};
use crate::heap::cache::view::CacheView;
use crate::heap::class::{CLASSES, Class};
use crate::heap::depot::view::DepotView;
use crate::heap::map::Map;
use crate::heap::run::view::RunsView;
use crate::heap::slab::view::SlabsView;
use crate::image::{Field, Image, Plain, field};
use crate::stats::{ClassStats, RunStats, Stats};
use core::mem::offset_of;
use std::vec::Vec;

impl Plain for CacheCounts {
    // For its place alone: its own fields are what is read.
    const BYTES: usize = 0;
}

/// What the caches that have left counted, read at an offset in a record of type `R`.
fn departed<R>(image: &Image<R>, at: usize) -> AllCounts {
    let read = |place: usize| {
        let word = |field: Field<CacheCounts>| image.get(field.inside(place));
        CacheCounts {
            allocs: word(field!(CacheCounts, allocs)),
            taken: word(field!(CacheCounts, taken)),
            given: word(field!(CacheCounts, given)),
            held: word(field!(CacheCounts, held)),
            trips_in: word(field!(CacheCounts, trips_in)),
            trips_out: word(field!(CacheCounts, trips_out)),
            stowed: word(field!(CacheCounts, stowed)),
        }
    };
    let each =
        |first: usize, count: usize| (0..count).map(|it| read(at + first + it * size_of::<CacheCounts>())).collect();
    AllCounts { classes: each(offset_of!(Counts, classes), CLASSES), runs: each(offset_of!(Counts, runs), PAGE_LISTS) }
}

/// What caches counted, by class and by run length.
#[derive(Clone, Debug)]
pub(crate) struct AllCounts {
    classes: Vec<CacheCounts>,
    runs: Vec<CacheCounts>,
}

/// What some threads allocated and freed, and have cached.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sums {
    /// Blocks and runs allocated, and freed.
    pub(crate) allocs: u64,
    pub(crate) frees: u64,
    /// The bytes of these.
    pub(crate) allocated: u64,
    pub(crate) freed: u64,
    /// Bytes in caches.
    pub(crate) cached: u64,
}

impl AllCounts {
    /// What the caches that have left counted: in the record of type `R` there, at an offset.
    pub(in crate::heap) fn departed<R>(image: &Image<R>, at: usize) -> Self {
        departed(image, at)
    }

    /// What a cache counted.
    pub(crate) fn of(cache: &CacheView) -> Self {
        Self {
            classes: Class::all().map(|class| cache.counts(class)).collect(),
            runs: (1..=PAGE_LISTS).map(|pages| cache.run_counts(pages)).collect(),
        }
    }

    /// Nothing.
    pub(crate) fn zero() -> Self {
        Self { classes: std::vec![CacheCounts::ZERO; CLASSES], runs: std::vec![CacheCounts::ZERO; PAGE_LISTS] }
    }

    /// Adds what another one has.
    pub(crate) fn add(&mut self, other: &Self) {
        let both = self.classes.iter_mut().zip(&other.classes).chain(self.runs.iter_mut().zip(&other.runs));
        both.for_each(|(sum, more)| *sum = sum.wrapping_sum(more));
    }

    /// Blocks of each class that are cached.
    pub(crate) fn cached_blocks(&self, class: Class) -> u64 {
        self.classes[class.index() % CLASSES].held
    }

    /// Bytes of runs that are cached.
    pub(crate) fn cached_runs(&self, page_shift: u32) -> u64 {
        let bytes = self.runs.iter().zip(1_u64..).map(|(runs, pages)| runs.held.wrapping_mul(pages) << page_shift);
        bytes.fold(0, u64::wrapping_add)
    }

    /// Short runs that were allocated and freed.
    pub(crate) fn of_runs(&self) -> (u64, u64) {
        self.runs.iter().fold((0, 0), |(allocs, freed), runs| {
            (u64::wrapping_add(allocs, runs.allocs), u64::wrapping_add(freed, frees(runs)))
        })
    }

    /// All of it.
    pub(crate) fn sums(&self, page_shift: u32) -> Sums {
        let sizes =
            Class::all().map(|class| class.size() as u64).chain((1..=PAGE_LISTS as u64).map(|it| it << page_shift));
        let mut sums = Sums::default();
        for (counts, size) in self.classes.iter().chain(&self.runs).zip(sizes) {
            let times = |count: u64| count.wrapping_mul(size);
            sums.allocs = sums.allocs.wrapping_add(counts.allocs);
            sums.frees = sums.frees.wrapping_add(frees(counts));
            sums.allocated = sums.allocated.wrapping_add(times(counts.allocs));
            sums.freed = sums.freed.wrapping_add(times(frees(counts)));
            sums.cached = sums.cached.wrapping_add(times(counts.held));
        }
        sums
    }
}

/// As `CacheCounts::frees`, of numbers that may be any.
fn frees(counts: &CacheCounts) -> u64 {
    let received = counts.held.wrapping_add(counts.given).wrapping_add(counts.allocs).wrapping_add(counts.stowed);
    (received.wrapping_sub(counts.taken) as i64).max(0) as u64
}

impl CacheCounts {
    /// The sum of both, whatever they are.
    fn wrapping_sum(&self, more: &Self) -> Self {
        Self {
            allocs: self.allocs.wrapping_add(more.allocs),
            taken: self.taken.wrapping_add(more.taken),
            given: self.given.wrapping_add(more.given),
            held: self.held.wrapping_add(more.held),
            trips_in: self.trips_in.wrapping_add(more.trips_in),
            trips_out: self.trips_out.wrapping_add(more.trips_out),
            stowed: self.stowed.wrapping_add(more.stowed),
        }
    }
}

/// A copy of the gauges.
pub(crate) type TallyView = Image<Tally>;

impl Image<Tally> {
    fn of_class(&self, field: Field<Gauges>, class: usize) -> u64 {
        self.get(field.inside(offset_of!(Tally, classes) + class * size_of::<Gauges>()))
    }

    fn gauge(&self, field: Field<Gauges>) -> usize {
        (0..CLASSES).map(|class| self.of_class(field, class) as usize).fold(0, usize::wrapping_add)
    }

    /// What is said of a class: blocks outside, idle pages, pages and blocks in the depot.
    pub(crate) fn class(&self, class: usize) -> [u64; 4] {
        [
            field!(Gauges, blocks_out),
            field!(Gauges, idle_pages),
            field!(Gauges, depot_pages),
            field!(Gauges, depot_blocks),
        ]
        .map(|field| self.of_class(field, class))
    }

    /// What is said of all: bytes in runs that are lent, dirty pages, bytes from the source.
    pub(crate) fn all(&self) -> [u64; 3] {
        [field!(Tally, run_bytes), field!(Tally, dirty_pages), field!(Tally, mapped)].map(|field| self.get(field))
    }

    fn run_bytes(&self) -> usize {
        self.address(field!(Tally, run_bytes))
    }

    fn retained_pages(&self) -> usize {
        let listed = (0..super::LENGTHS).map(|at| self.nth(field!(Tally, listed_pages), at) as usize);
        let dirty = self.address(field!(Tally, dirty_pages));
        listed.fold(self.gauge(field!(Gauges, idle_pages)), usize::wrapping_add).wrapping_add(dirty)
    }
}

/// Copies of all that figures are made of.
#[derive(Debug)]
pub(crate) struct Books {
    pub(crate) page_shift: u32,
    pub(crate) targets: Vec<u32>,
    /// Of all caches that there are or were.
    pub(crate) counts: AllCounts,
    pub(crate) caches: usize,
    pub(crate) depots: Vec<DepotView>,
    pub(crate) slabs: Vec<SlabsView>,
    pub(crate) runs: RunsView,
    pub(crate) tally: TallyView,
    /// Bytes of runs that records are cut from.
    pub(crate) records: usize,
}

impl Books {
    /// What `Engine::stats` says: exact where the heap is at rest.
    pub(crate) fn stats(&self) -> Stats {
        let (mut stats, mut cached) = (Stats::ZERO, self.counts.cached_runs(self.page_shift) as usize);
        for (class, row) in Class::all().zip(&mut stats.classes) {
            *row = self.class(class);
            cached = cached.wrapping_add((row.cached.wrapping_add(row.in_depot) as usize).wrapping_mul(row.size));
        }
        stats.threads = self.caches;
        stats.runs = self.run_stats();
        self.fill_in_bytes(&mut stats, cached);
        stats
    }

    fn class(&self, class: Class) -> ClassStats {
        let (at, target) = (class.index(), self.targets[class.index()]);
        let (counted, depot, slabs) = (&self.counts.classes[at], &self.depots[at], &self.slabs[at]);
        let uncached = |field| self.tally.nth(field, at);
        let [lists_filled, lists_sorted, slabs_taken, slabs_given] = slabs.traffic();
        let [depot_hits, depot_kept] = depot.traffic();
        ClassStats {
            size: class.size(),
            target,
            allocs: counted.allocs.wrapping_add(uncached(field!(Tally, uncached_allocs))),
            frees: frees(counted).wrapping_add(uncached(field!(Tally, uncached_frees))),
            cached: counted.held,
            alloc_trips: counted.trips_in,
            free_trips: counted.trips_out,
            in_depot: depot.blocks(target),
            depot_hits,
            depot_kept,
            lists_filled,
            lists_sorted,
            slabs: slabs.count(),
            slabs_taken,
            slabs_given,
        }
    }

    fn run_stats(&self) -> RunStats {
        let listed = |pick: fn(&CacheCounts) -> u64| self.counts.runs.iter().map(pick).fold(0, u64::wrapping_add);
        let [allocs, frees_below, grown_in_place, spans, purged_pages] = self.runs.traffic();
        RunStats {
            list_allocs: listed(|run| run.allocs.saturating_sub(run.taken)),
            list_frees: listed(|run| frees(run).saturating_sub(run.given)),
            allocs,
            frees: frees_below,
            grown_in_place,
            relocations: self.tally.get(field!(Tally, relocations)),
            spans,
            purged_pages: purged_pages.wrapping_add(self.tally.get(field!(Tally, purged_in_slabs))),
        }
    }

    fn fill_in_bytes(&self, stats: &mut Stats, cached: usize) {
        let bytes = |pages: usize| pages.wrapping_shl(self.page_shift);
        let (mapped, free) = (bytes(self.runs.mapped_pages() as usize), bytes(self.runs.free_pages() as usize));
        let in_blocks =
            Class::all().map(|class| (self.slabs[class.index()].blocks_out() as usize).wrapping_mul(class.size()));
        let live = in_blocks.fold(self.tally.run_bytes(), usize::wrapping_add);
        let sum = |of: fn(&SlabsView) -> u32| self.slabs.iter().map(|slabs| of(slabs) as usize).sum::<usize>();
        let (untouched, idle) =
            (bytes(sum(SlabsView::untouched_pages)), bytes(self.tally.gauge(field!(Gauges, idle_pages))));
        stats.allocated = live.saturating_sub(cached);
        stats.active = mapped.saturating_sub(free).saturating_sub(self.records);
        stats.records = self.records;
        stats.map = Map::bytes_for(mapped >> self.page_shift);
        stats.retained = bytes(self.tally.retained_pages());
        let used = mapped.saturating_sub(free).saturating_add(stats.retained);
        stats.resident = used.saturating_sub(untouched.saturating_add(idle));
        stats.mapped = mapped;
    }
}
