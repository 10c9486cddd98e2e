//! The runs' part of an audit: the free runs as the page map has them, against bins, queues and sums.

use super::{Queue, Runs};
use crate::finding::{Finding, Layer, Verdict};
use crate::heap::audit::Witness;
use crate::heap::granule;
use crate::heap::map::{Map, Page, Stretch, Tile};
use crate::heap::slab::SlabRef;

/// What the free runs add up to.
#[derive(Debug, Default)]
struct Sum {
    runs: u64,
    /// Dirty runs without a whole granule, and those with one.
    dirty_runs: [u64; 2],
    free_pages: u64,
    dirty_pages: u64,
    /// Pages of free runs, runs in use and slabs.
    pages: u64,
    /// The first page behind the last free run.
    end: Page,
}

impl Runs {
    /// Audits everything that lies in the heap's spans; `each_slab` sees the slabs, if the witness is alone.
    /// O(pages that leaves of the map describe).
    pub(in crate::heap) fn audit(
        &self,
        map: &Map,
        witness: Witness,
        each_slab: &mut dyn FnMut(SlabRef) -> Verdict,
    ) -> Verdict {
        map.audit_bitmaps()?;
        let mut sum = Sum::default();
        map.audit_tiles(witness, &mut |tile| match tile {
            Tile::Free(run) => {
                self.bins.audit_place(map, run)?;
                sum.add_free(map, run)
            }
            Tile::Used(run) => {
                map.free_run(run.first).met.clear();
                sum.pages += u64::from(run.pages);
                Ok(())
            }
            Tile::Slab(slab) => {
                sum.pages += u64::from(slab.pages());
                each_slab(slab)
            }
        })?;
        // What names a run comes before what names a sum.
        self.bins.audit(map, sum.runs)?;
        (0..2).try_for_each(|queue| self.dirty[queue].audit(map, queue, sum.dirty_runs[queue]))?;
        let counts = (self.free_pages, self.dirty_pages) == (sum.free_pages, sum.dirty_pages);
        Layer::Runs.holds(counts, "free and dirty pages are as many as the page map has", 0)?;
        let mapped = witness != Witness::Alone || self.mapped_pages == sum.pages;
        Layer::Runs.holds(mapped, "every mapped page is of a free run, a run in use or a slab", 0)
    }
}

impl Sum {
    /// Adds a free run whose record is intact.
    fn add_free(&mut self, map: &Map, run: Stretch) -> Verdict {
        let (record, at) = (map.free_run(run.first), map.address_of(run.first));
        let dirty = map.dirty(run.first, run.pages);
        Layer::Runs.holds(record.dirty.get() == dirty, "a free run has as many dirty pages as it counts", at)?;
        let merged = self.runs == 0 || self.end != run.first;
        Layer::Runs.holds(merged, "no free run ends where another begins", at)?;
        self.runs += 1;
        self.dirty_runs[queue_of(map, run)] += u64::from(dirty > 0);
        self.free_pages += u64::from(run.pages);
        self.dirty_pages += u64::from(dirty);
        self.pages += u64::from(run.pages);
        self.end = run.first.wrapping_add(run.pages);
        Ok(())
    }
}

/// The number of the queue for a dirty run.
fn queue_of(map: &Map, run: Stretch) -> usize {
    usize::from(granule::interior(map, run).is_some())
}

impl Queue {
    /// Audits queue `number`, which has `runs` runs.
    fn audit(&self, map: &Map, number: usize, runs: u64) -> Result<(), Finding> {
        let (mut at, mut before, mut met) = (self.oldest, 0, 0);
        while at != 0 {
            let address = map.address_of(at);
            let (run, record) = map.audit_free_run(at, "runs to purge are free")?;
            let due = record.dirty.get() > 0 && queue_of(map, run) == number;
            Layer::Runs.holds(due && met < runs, "each dirty run is once in its queue", address)?;
            Layer::Runs.holds(record.older.get() == before, "neighbours in a queue know each other", address)?;
            met += 1;
            (before, at) = (at, record.newer.get());
        }
        let all = met == runs && self.newest == before;
        Layer::Runs.holds(all, "every dirty run is in its queue", 0)
    }
}
