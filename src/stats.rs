//! The figures of a heap: the picture with numbers.

use crate::heap::Class;
use core::fmt::{self, Display, Formatter};

/// What a heap holds and what it did.
///
/// `allocated ≤ active ≤ mapped` and `retained ≤ resident ≤ mapped`, but for what other threads do while the figures are
/// taken. All in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Bytes in live blocks, as granted (rounded up to their class or to pages).
    pub allocated: usize,
    /// Bytes in slabs and runs in use.
    pub active: usize,
    /// Bytes that may be resident, at the most: runs in use as if wholly touched, touched pages of slabs, `retained`, and
    /// records.
    pub resident: usize,
    /// Bytes of addresses taken from the operating system for pages.
    pub mapped: usize,
    /// Bytes of free pages kept resident for the next request: what the idle bound bounds.
    pub retained: usize,
    /// Bytes taken for slab records; they are part of `mapped`.
    pub records: usize,
    /// Bytes of the page map that may be resident, beside `resident` and `mapped`: 32 bytes and a bit for each mapped page, twice that
    /// with `malloc-debug`.
    pub map: usize,
    /// Threads with a cache.
    pub threads: usize,
    /// Each size class, the smallest first.
    pub classes: [ClassStats; Stats::CLASSES],
    /// Runs of pages.
    pub runs: RunStats,
}

/// One size class: a counter for each arrow of the picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassStats {
    /// Bytes in a block.
    pub size: usize,
    /// Blocks in a list.
    pub target: u32,
    /// Blocks handed out.
    pub allocs: u64,
    /// Blocks taken back. While other threads live this lags, or leads, by a list for each of them at the most.
    pub frees: u64,
    /// Blocks in thread caches now.
    pub cached: u64,
    /// Times a cache fetched a list: the misses of allocation.
    pub alloc_trips: u64,
    /// Times a cache passed a list on: the misses of free.
    pub free_trips: u64,
    /// Blocks in the depot now.
    pub in_depot: u64,
    /// Lists that the depot had when asked.
    pub depot_hits: u64,
    /// Lists that the depot kept when given.
    pub depot_kept: u64,
    /// Lists filled from slabs: the depot's misses of allocation.
    pub lists_filled: u64,
    /// Lists sorted into slabs: the depot's misses of free.
    pub lists_sorted: u64,
    /// Slabs now.
    pub slabs: u64,
    /// Slabs taken from the runs.
    pub slabs_taken: u64,
    /// Slabs given back to the runs.
    pub slabs_given: u64,
}

impl ClassStats {
    /// The zero of every figure.
    pub(crate) const ZERO: Self = Self {
        size: 0,
        target: 0,
        allocs: 0,
        frees: 0,
        cached: 0,
        alloc_trips: 0,
        free_trips: 0,
        in_depot: 0,
        depot_hits: 0,
        depot_kept: 0,
        lists_filled: 0,
        lists_sorted: 0,
        slabs: 0,
        slabs_taken: 0,
        slabs_given: 0,
    };

    /// The share of allocations and frees that the thread caches served alone, from 0 to 1; 1 if there were none.
    #[must_use]
    pub fn cache_hit_rate(&self) -> f64 {
        hit_rate(self.allocs.saturating_add(self.frees), self.trips())
    }

    /// The share of the caches' trips that the depot served alone, from 0 to 1; 1 if there were none.
    #[must_use]
    pub fn depot_hit_rate(&self) -> f64 {
        let trips = self.trips();
        hit_rate(trips, trips.saturating_sub(self.depot_hits.saturating_add(self.depot_kept)))
    }

    /// What the caches did not serve alone. (Figures may come from a file that is damaged.)
    fn trips(&self) -> u64 {
        self.alloc_trips.saturating_add(self.free_trips)
    }
}

fn hit_rate(calls: u64, misses: u64) -> f64 {
    if calls == 0 { 1.0 } else { 1.0 - misses.min(calls) as f64 / calls as f64 }
}

/// Runs of pages: a counter for each arrow of the picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunStats {
    /// Runs handed out by the threads' run lists and reserves.
    pub list_allocs: u64,
    /// Runs taken back by the threads' run lists and reserves.
    pub list_frees: u64,
    /// Runs handed out, slabs included.
    pub allocs: u64,
    /// Runs taken back, slabs included.
    pub frees: u64,
    /// Runs grown into the free run behind them.
    pub grown_in_place: u64,
    /// Runs moved by their page tables, without copying.
    pub relocations: u64,
    /// Spans of addresses taken from the operating system.
    pub spans: u64,
    /// Pages whose memory was given back.
    pub purged_pages: u64,
}

impl Stats {
    /// Number of size classes of this build.
    pub const CLASSES: usize = crate::heap::CLASSES;

    pub(crate) const ZERO: Self = Self {
        allocated: 0,
        active: 0,
        resident: 0,
        mapped: 0,
        retained: 0,
        records: 0,
        map: 0,
        threads: 0,
        classes: [ClassStats::ZERO; Self::CLASSES],
        runs: RunStats {
            list_allocs: 0,
            list_frees: 0,
            allocs: 0,
            frees: 0,
            grown_in_place: 0,
            relocations: 0,
            spans: 0,
            purged_pages: 0,
        },
    };

    /// The figures of the class that serves `layout`; `None` if pages do.
    #[must_use]
    pub fn class_of(&self, layout: core::alloc::Layout) -> Option<&ClassStats> {
        self.classes.get(Class::of(layout)?.index())
    }
}

/// A number of bytes as people read it.
struct Bytes(usize);

impl Display for Bytes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let kib = self.0 as f64 / 1024.0;
        if kib < 1024.0 { write!(f, "{kib:>8.1} KiB") } else { write!(f, "{:>8.1} MiB", kib / 1024.0) }
    }
}

impl Display for Stats {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let words = [
            ("allocated", self.allocated, "in live blocks"),
            ("active", self.active, "in slabs and runs in use"),
            ("resident", self.resident, "at the most"),
            ("mapped", self.mapped, "taken from the system"),
            ("retained", self.retained, "free, kept resident"),
            ("records", self.records, "of slabs"),
            ("map", self.map, "of pages"),
        ];
        for (word, bytes, what) in words {
            writeln!(f, "{word:<10}{}  {what}", Bytes(bytes))?;
        }
        writeln!(f, "threads   {:>8}\n", self.threads)?;
        writeln!(
            f,
            "{:>6}{:>13}{:>13}{:>9}{:>9}{:>10}{:>10}{:>9}{:>9}{:>8}",
            "class", "allocs", "frees", "live", "hit %", "to depot", "depot %", "filled", "sorted", "slabs"
        )?;
        self.classes.iter().filter(|class| class.allocs > 0).try_for_each(|class| writeln!(f, "{class}"))?;
        write!(f, "{}", self.runs)
    }
}

impl Display for ClassStats {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>6}{:>13}{:>13}{:>9}{:>9.3}{:>10}{:>10.1}{:>9}{:>9}{:>8}",
            self.size,
            self.allocs,
            self.frees,
            self.allocs.saturating_sub(self.frees),
            100.0 * self.cache_hit_rate(),
            self.trips(),
            100.0 * self.depot_hit_rate(),
            self.lists_filled,
            self.lists_sorted,
            self.slabs
        )
    }
}

impl Display for RunStats {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nruns: {} allocated and {} freed by thread lists,", self.list_allocs, self.list_frees)?;
        writeln!(f, "      {} allocated and {} freed below them (slabs included),", self.allocs, self.frees)?;
        writeln!(f, "      {} grown in place, {} moved without copying,", self.grown_in_place, self.relocations)?;
        write!(f, "      {} spans from the system, {} pages given back", self.spans, self.purged_pages)
    }
}
