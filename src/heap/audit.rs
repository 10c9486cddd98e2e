//! The audit: every layer against itself and the ones below.
//!
//! Each layer audits what it holds, in a file of its own beside it; this one leads through them. A finding names the first
//! rule that does not hold. With the feature `malloc-debug` all words of a record are looked at before anything in it is
//! followed; without it what an audit follows may itself be damaged.

use super::Engine;
use super::cache::Cache;
use super::class::{CLASSES, Class};
use super::listed;
use super::map::Entry;
use super::{Attached, RawLock};
use crate::finding::{Finding, Layer, Verdict};
use crate::os::Source;
#[cfg(feature = "malloc-debug")]
use {super::map::Tile, crate::os::Span};

/// Bytes of the smallest record.
const RECORD_MIN: u64 = 64;

/// Who else may be at the heap while it is audited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Witness {
    /// Nobody: what the layers count must be equal to what is there.
    Alone,
    /// Other threads: what they are doing just now is left out.
    Beside,
}

impl<S: Source, L: RawLock> Attached<'_, S, L> {
    /// Audits the heap while other threads use it: records, the links of what is free, this thread's cache. O(pages of the
    /// address ranges that the page map describes, 64 Ki pages at a time). It takes one lock after another; meanwhile who
    /// needs that lock waits, longest for the one of the page runs.
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn check(&self) -> Result<(), Finding> {
        self.engine.check(Some(self.cache))
    }

    /// Audits the heap while nobody else uses it: as `check`, and that every page is of something, every block in one place,
    /// and every count right. O(the same).
    ///
    /// # Safety
    /// - No other thread uses the heap meanwhile, and no purger.
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub unsafe fn check_alone(&self) -> Result<(), Finding> {
        self.engine.audit(Some(self.cache), Witness::Alone)
    }
}

impl<S: Source, L: RawLock> Engine<S, L> {
    /// `Attached::check`, with the caller's cache if it has one.
    pub(crate) fn check(&self, cache: Option<&Cache>) -> Verdict {
        self.audit(cache, Witness::Beside)
    }

    fn audit(&self, cache: Option<&Cache>, witness: Witness) -> Verdict {
        if !self.is_open() {
            return Ok(());
        }
        self.map.audit_words(witness)?;
        let mut slabs = [0; CLASSES];
        self.runs.with(|runs| {
            let mapped = (runs.mapped_pages as usize) << self.map.page_shift();
            let known = witness == Witness::Beside || self.tally.mapped() == mapped;
            Layer::Runs.holds(known, "mapped bytes are as many as mapped pages have", 0)?;
            runs.audit(&self.map, witness, &mut |slab| {
                slabs[slab.class().index() % CLASSES] += 1;
                Ok(())
            })
        })?;
        let records = self.records.with(|records| records.bytes) / RECORD_MIN;
        for class in Class::all() {
            self.slabs[class].with(|layer| {
                let known = witness == Witness::Beside || layer.count == slabs[class.index() % CLASSES];
                Layer::Slabs.holds(known, "slabs are as many as the page map has", 0)?;
                layer.audit(&self.map, class, records)
            })?;
            let block = &mut |address| self.audit_block(class, address, Layer::Depot, witness);
            self.depots[class].with(|depot| depot.audit(self.target(class), records, block))?;
        }
        for (at, depot) in self.run_depots.iter().enumerate() {
            let run = &mut |address| self.audit_run(at + 1, address, Layer::Depot, witness);
            depot.with(|depot| depot.audit(listed::target(at + 1), records, run))?;
        }
        cache.map_or(Ok(()), |cache| self.audit_cache(cache, witness))
    }

    /// Audits one cache, by its owner, while other threads use the heap. O(blocks in it).
    #[cfg(feature = "allocator-api2")]
    pub(crate) fn check_cache(&self, cache: &Cache) -> Verdict {
        self.audit_cache(cache, Witness::Beside)
    }

    fn audit_cache(&self, cache: &Cache, witness: Witness) -> Verdict {
        let block = &mut |class, address| self.audit_block(class, address, Layer::Cache, witness);
        let run = &mut |pages, address| self.audit_run(pages, address, Layer::Cache, witness);
        cache.audit(witness == Witness::Beside && self.source.has_purger(), block, run)
    }

    /// Audits a free block of `layer`, before its link is read.
    fn audit_block(&self, class: Class, address: usize, layer: Layer, witness: Witness) -> Verdict {
        // A slab stays while one of its blocks is out.
        let Entry::Slab(slab) = self.map.look_up(address) else {
            return layer.holds(false, "a free block lies in a slab", address);
        };
        let first = self.map.page_of(slab.address_of_first());
        layer.holds(slab.is_made_for(&self.map, first), "a slab's record is as it was made", slab.address())?;
        let index = slab.index_of(address).filter(|_| slab.class() == class);
        let Some(index) = index else {
            return layer.holds(false, "a free block is one of a slab of its class", address);
        };
        let alone = witness == Witness::Alone;
        layer.holds(
            !alone || slab.is_out(index),
            "a free block is in one place, and this one is in its slab",
            address,
        )?;
        layer.holds(!alone || slab.meet(index), "a free block is in one list", address)
    }

    /// Audits a free run of `layer`, before its link is read.
    fn audit_run(&self, pages: usize, address: usize, layer: Layer, witness: Witness) -> Verdict {
        let whole = self.map.look_up(address) == Entry::Run(pages as u32) && address & (self.map.page_bytes() - 1) == 0;
        layer.holds(whole, "a run in a list has the length of that list", address)?;
        let met = witness == Witness::Alone && !self.map.free_run(self.map.page_of(address)).met.mark(0);
        layer.holds(!met, "a run is in one list", address)
    }
}

#[cfg(feature = "malloc-debug")]
impl<S: Source, L: RawLock> Engine<S, L> {
    /// Calls `each` with the place of every record in the heap's memory: the page map's, those of slabs, those of full
    /// depots. For tests that damage them.
    ///
    /// # Safety
    /// - No other thread uses the heap meanwhile.
    pub unsafe fn each_record(&self, each: &mut dyn FnMut(Span)) {
        self.map.each_record(each);
        let shift = self.map.page_shift();
        let _ = self.map.audit_tiles(Witness::Alone, &mut |tile| {
            if let Tile::Slab(slab) = tile {
                each(slab.span(shift));
            }
            Ok(())
        });
        for class in Class::all() {
            self.slabs[class].with(|slabs| slabs.each_spare(&mut |slab| each(slab.span(shift))));
            self.depots[class].with(|depot| depot.each_chunk(each));
        }
        self.run_depots.iter().for_each(|depot| depot.with(|depot| depot.each_chunk(each)));
    }
}
