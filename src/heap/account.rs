//! What a heap counts: the gauges its bounds are kept by, and the figures for [`Stats`].

use super::Engine;
use super::cache::{Cache, CacheCounts, PAGE_LISTS};
use super::class::{CLASSES, Class};
use super::hot::KeptCounts;
use super::listed::LENGTHS;
use super::map::Map;
use crate::lock::RawLock;
use crate::os::Source;
use crate::stats::{ClassStats, RunStats, Stats};
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize, Relaxed, array_of};

/// What a class adds to the heap's gauges, published by whoever has one of its locks; a cache line of its own.
#[derive(Debug)]
#[repr(C, align(64))]
struct Gauges {
    /// Blocks let out of the slabs: live ones, and those in caches and the depot.
    blocks_out: AtomicU64,
    /// Resident pages of slabs that no block outside lies in.
    idle_pages: AtomicU32,
    /// Pages that the blocks of the depot lie in: about, while there is a purger, else at the most.
    depot_pages: AtomicU32,
    /// Blocks in the depot.
    depot_blocks: AtomicU32,
}

/// Gauges and counters outside the locks. All Relaxed: each stands for itself.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Tally {
    classes: [Gauges; CLASSES],
    /// Bytes in runs handed up: live ones, and those in caches.
    run_bytes: AtomicUsize,
    /// Pages of free runs that may be resident.
    dirty_pages: AtomicUsize,
    /// Pages that the reserves may hold.
    granted_pages: AtomicUsize,
    /// Pages in the depot of each run length that has one.
    listed_pages: [AtomicU32; LENGTHS],
    /// Bytes from the source.
    mapped: AtomicUsize,
    relocations: AtomicU64,
    purged_in_slabs: AtomicU64,
    uncached_allocs: [AtomicU64; CLASSES],
    uncached_frees: [AtomicU64; CLASSES],
}

impl Gauges {
    crate::sync::const_unless_loom! {
        fn new() -> Self {
            Self {
                blocks_out: AtomicU64::new(0),
                idle_pages: AtomicU32::new(0),
                depot_pages: AtomicU32::new(0),
                depot_blocks: AtomicU32::new(0),
            }
        }
    }
}

impl Tally {
    crate::sync::const_unless_loom! {
        pub(crate) fn new() -> Self {
            Self {
                classes: array_of!(Gauges::new()),
                run_bytes: AtomicUsize::new(0),
                dirty_pages: AtomicUsize::new(0),
                granted_pages: AtomicUsize::new(0),
                listed_pages: array_of!(AtomicU32::new(0)),
                mapped: AtomicUsize::new(0),
                relocations: AtomicU64::new(0),
                purged_in_slabs: AtomicU64::new(0),
                uncached_allocs: array_of!(AtomicU64::new(0)),
                uncached_frees: array_of!(AtomicU64::new(0)),
            }
        }
    }

    fn gauges(&self, class: Class) -> &Gauges {
        &self.classes[class.index() % CLASSES]
    }

    /// Runs of so many bytes have been handed up. Called with the lock of the runs, like the next: so there is one writer.
    pub(crate) fn lent(&self, bytes: usize) {
        self.run_bytes.store(self.run_bytes.load(Relaxed).wrapping_add(bytes), Relaxed);
    }

    /// Runs of so many bytes have come back.
    pub(crate) fn returned(&self, bytes: usize) {
        self.run_bytes.store(self.run_bytes.load(Relaxed).wrapping_sub(bytes), Relaxed);
    }

    /// Bytes in blocks and runs handed up: live ones, and those in caches and the depot. O(classes).
    #[inline(never)]
    pub(crate) fn live(&self) -> usize {
        let in_blocks = |class: Class| self.gauges(class).blocks_out.load(Relaxed) as usize * class.size();
        self.run_bytes.load(Relaxed) + Class::all().map(in_blocks).sum::<usize>()
    }

    /// Called with the lock of the slabs.
    pub(crate) fn set_slabs(&self, class: Class, blocks_out: u64, idle_pages: u32) {
        self.gauges(class).blocks_out.store(blocks_out, Relaxed);
        self.gauges(class).idle_pages.store(idle_pages, Relaxed);
    }

    /// Called with the lock of the runs.
    pub(crate) fn set_dirty_pages(&self, pages: u64) {
        self.dirty_pages.store(pages as usize, Relaxed);
    }

    /// Resident pages of slabs that no block outside lies in. O(classes).
    #[inline(never)]
    pub(crate) fn idle_pages(&self) -> usize {
        Class::all().map(|class| self.gauges(class).idle_pages.load(Relaxed) as usize).sum()
    }

    /// Free pages that are resident, those that the reserves may still take included. O(classes).
    #[inline(never)]
    pub(crate) fn retained_pages(&self) -> usize {
        self.idle_pages() + self.dirty_pages.load(Relaxed) + self.granted_pages() + self.listed_pages()
    }

    /// Pages that the reserves may hold.
    pub(crate) fn granted_pages(&self) -> usize {
        self.granted_pages.load(Relaxed)
    }

    /// Pages in the depots of runs.
    pub(crate) fn listed_pages(&self) -> usize {
        self.listed_pages.iter().map(|pages| pages.load(Relaxed) as usize).sum()
    }

    /// Called with the lock of the depot of runs at that place.
    pub(crate) fn set_listed(&self, at: usize, pages: u32) {
        self.listed_pages[at % LENGTHS].store(pages, Relaxed);
    }

    /// Lets the reserves hold `more` pages, if they may hold no more than `max` then.
    pub(crate) fn grant(&self, more: u32, max: usize) -> bool {
        let granted = |pages: usize| Some(pages + more as usize).filter(|pages| *pages <= max);
        self.granted_pages.fetch_update(Relaxed, Relaxed, granted).is_ok()
    }

    /// Lets the reserves hold `less` pages less.
    pub(crate) fn withdraw_grant(&self, less: u32) {
        self.granted_pages.fetch_sub(less as usize, Relaxed);
    }

    /// Called with the lock of the depot.
    pub(crate) fn set_depot(&self, class: Class, pages: u32, blocks: u32) {
        self.gauges(class).depot_pages.store(pages, Relaxed);
        self.gauges(class).depot_blocks.store(blocks, Relaxed);
    }

    /// Whether the depot of `class` had anything when its lock was last let go.
    #[inline]
    pub(crate) fn has_depot(&self, class: Class) -> bool {
        self.gauges(class).depot_blocks.load(Relaxed) > 0
    }

    /// Pages that the blocks in the depots lie in at the most. O(classes).
    #[inline(never)]
    pub(crate) fn depot_pages_at_most(&self) -> usize {
        Class::all().map(|class| (self.gauges(class).depot_blocks.load(Relaxed) * class.pages()) as usize).sum()
    }

    /// Bytes of the blocks in the depots. O(classes).
    #[inline(never)]
    pub(crate) fn depot_bytes(&self) -> usize {
        Class::all().map(|class| self.gauges(class).depot_blocks.load(Relaxed) as usize * class.size()).sum()
    }

    /// Pages that lists in the depot lie in: about, while there is a purger, else at the most. O(classes).
    #[inline(never)]
    pub(crate) fn depot_pages(&self) -> usize {
        Class::all().map(|class| self.gauges(class).depot_pages.load(Relaxed) as usize).sum()
    }

    pub(crate) fn mapped(&self) -> usize {
        self.mapped.load(Relaxed)
    }

    pub(crate) fn add_mapped(&self, bytes: usize) {
        self.mapped.fetch_add(bytes, Relaxed);
    }

    /// So many bytes have come from the source in all.
    pub(crate) fn set_mapped(&self, bytes: usize) {
        self.mapped.store(bytes, Relaxed);
    }

    /// Drops figures that no heap has, and those that are made anew.
    #[cfg(feature = "shared")]
    pub(crate) fn distrust(&self) {
        self.granted_pages.store(0, Relaxed);
        self.listed_pages.iter().for_each(|pages| pages.store(0, Relaxed));
        Class::all().for_each(|class| self.set_depot(class, 0, 0));
        self.uncached_allocs.iter().chain(&self.uncached_frees).for_each(|count| count.store(0, Relaxed));
        for count in [&self.relocations, &self.purged_in_slabs] {
            count.store(super::verify::plausible(count.load(Relaxed)), Relaxed);
        }
    }

    /// What is lent is so many bytes in all.
    #[cfg(feature = "shared")]
    pub(crate) fn set_lent(&self, bytes: usize) {
        self.run_bytes.store(bytes, Relaxed);
    }

    /// So many bytes from the source are the heap's no more.
    pub(crate) fn lost_mapped(&self, bytes: usize) {
        self.mapped.fetch_sub(bytes, Relaxed);
    }

    pub(crate) fn relocated(&self) {
        self.relocations.fetch_add(1, Relaxed);
    }

    pub(crate) fn purged_in_slabs(&self, pages: u32) {
        self.purged_in_slabs.fetch_add(u64::from(pages), Relaxed);
    }

    pub(crate) fn count_uncached_alloc(&self, class: Class) {
        self.uncached_allocs[class.index() % CLASSES].fetch_add(1, Relaxed);
    }

    pub(crate) fn count_uncached_free(&self, class: Class) {
        self.uncached_frees[class.index() % CLASSES].fetch_add(1, Relaxed);
    }
}

/// What caches counted, by class and by run length.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Counts {
    classes: [CacheCounts; CLASSES],
    runs: [CacheCounts; PAGE_LISTS],
    hot: KeptCounts,
}

impl Counts {
    pub(super) const ZERO: Self =
        Self { classes: [CacheCounts::ZERO; CLASSES], runs: [CacheCounts::ZERO; PAGE_LISTS], hot: KeptCounts::ZERO };

    /// Drops figures that no heap has.
    #[cfg(feature = "shared")]
    pub(super) fn limit(&mut self) {
        let plausible = super::verify::plausible;
        self.classes.iter_mut().chain(&mut self.runs).for_each(CacheCounts::limit);
        let KeptCounts { allocs, frees, pages } = self.hot;
        self.hot = KeptCounts { allocs: plausible(allocs), frees: plausible(frees), pages: plausible(pages) };
    }

    /// Adds what `cache` counted. The registry's lock is held.
    pub(super) fn add(&mut self, cache: &Cache) {
        for (sum, class) in self.classes.iter_mut().zip(Class::all()) {
            sum.add(cache.counts(class));
        }
        for (sum, pages) in self.runs.iter_mut().zip(1..) {
            sum.add(cache.run_counts(pages));
        }
        self.hot.add(cache.hot().counts());
    }
}

/// How often the figures are read at the most, if others change much meanwhile.
const SNAPSHOTS: u32 = 8;

impl<S: Source, L: RawLock> Engine<S, L> {
    /// The figures of this moment. Other threads go on meanwhile, so figures of different layers may differ by what
    /// they did; where that is more than a sixteenth, they are read anew, a few times. O(classes × threads).
    ///
    /// `cache` is the caller's own, if it has one: its figures are of this moment, those of other threads' caches lag by
    /// a list of each class at the most.
    pub fn stats(&self, cache: Option<&Cache>) -> Stats {
        if let Some(cache) = cache {
            cache.publish_all();
        }
        if !self.is_open() {
            return Stats::ZERO;
        }
        for _ in 1..SNAPSHOTS {
            let before = self.tally.live();
            let stats = self.snapshot();
            if self.tally.live().abs_diff(before) <= before / 16 {
                return stats;
            }
        }
        self.snapshot()
    }

    /// The figures, each read by itself.
    fn snapshot(&self) -> Stats {
        let mut stats = Stats::ZERO;
        let (counts, threads) = self.registry.with(|registry| {
            let mut counts = registry.departed;
            registry.caches().for_each(|cache| counts.add(cache));
            (counts, registry.caches)
        });
        stats.threads = threads;
        let mut cached = 0;
        for ((class, counted), row) in Class::all().zip(&counts.classes).zip(&mut stats.classes) {
            *row = self.class_stats(class, counted);
            cached += (row.cached + row.in_depot) as usize * row.size;
        }
        for (counted, pages) in counts.runs.iter().zip(1..) {
            cached += (counted.held as usize * pages) << self.map.page_shift();
        }
        let mut kept = self.count_reserves();
        kept.add(counts.hot);
        stats.runs = self.run_stats(&counts, kept);
        let kept = kept.pages as usize + self.tally.listed_pages();
        self.fill_in_bytes(&mut stats, cached, kept << self.map.page_shift());
        stats
    }

    fn class_stats(&self, class: Class, counted: &CacheCounts) -> ClassStats {
        let (depot_blocks, depot_up, depot_in) =
            self.depots[class].with(|depot| (depot.blocks(self.target(class)), depot.handed_up, depot.taken_in));
        let at = class.index() % CLASSES;
        self.slabs[class].with(|slabs| ClassStats {
            size: class.size(),
            target: self.target(class),
            allocs: counted.allocs + self.tally.uncached_allocs[at].load(Relaxed),
            frees: counted.frees() + self.tally.uncached_frees[at].load(Relaxed),
            cached: counted.held,
            alloc_trips: counted.trips_in,
            free_trips: counted.trips_out,
            in_depot: depot_blocks,
            depot_hits: depot_up,
            depot_kept: depot_in,
            lists_filled: slabs.filled_lists,
            lists_sorted: slabs.sorted_lists,
            slabs: slabs.count,
            slabs_taken: slabs.slabs_taken,
            slabs_given: slabs.slabs_given,
        })
    }

    fn run_stats(&self, counts: &Counts, kept: KeptCounts) -> RunStats {
        let listed = |pick: fn(&CacheCounts) -> u64| counts.runs.iter().map(pick).sum::<u64>();
        self.runs.with(|runs| RunStats {
            list_allocs: kept.allocs + listed(|run| run.allocs.saturating_sub(run.taken)),
            list_frees: kept.frees + listed(|run| run.frees().saturating_sub(run.given)),
            allocs: runs.allocs,
            frees: runs.frees,
            grown_in_place: runs.grown_in_place,
            relocations: self.tally.relocations.load(Relaxed),
            spans: runs.spans,
            purged_pages: runs.purged_pages + self.tally.purged_in_slabs.load(Relaxed),
        })
    }

    /// The five words, with `cached` bytes in caches and the depot, and `kept` in the reserves and the depots of runs.
    fn fill_in_bytes(&self, stats: &mut Stats, cached: usize, kept: usize) {
        let page = self.map.page_bytes();
        let (mapped, free) =
            self.runs.with(|runs| (runs.mapped_pages as usize * page, runs.free_pages as usize * page));
        let untouched = self.untouched_slab_pages() * page;
        let records = self.records.with(|records| records.bytes as usize);
        stats.allocated = self.tally.live().saturating_sub(cached + kept);
        stats.active = (mapped - free).saturating_sub(records + kept);
        stats.records = records;
        stats.map = Map::bytes_for(mapped / page);
        let may_come = ((self.tally.granted_pages() + self.tally.listed_pages()) * page).saturating_sub(kept);
        stats.retained = (self.tally.retained_pages() * page).saturating_sub(may_come);
        let idle = self.tally.idle_pages() * page;
        stats.resident = (mapped - free + stats.retained).saturating_sub(kept + untouched + idle);
        stats.mapped = mapped;
    }

    fn untouched_slab_pages(&self) -> usize {
        Class::all().map(|class| self.slabs[class].with(|slabs| slabs.untouched_pages() as usize)).sum()
    }
}

#[cfg(all(feature = "cli", not(loom)))]
#[path = "account_view.rs"]
pub(super) mod view;
