//! The audit: every layer against itself and the ones below.
//!
//! Each layer audits what it holds, in a file of its own beside it; this one leads through them. A finding names the first
//! rule that does not hold. Records are only looked at where the page map has a run that they are cut from, blocks where it
//! has a slab, and every walk has an end that is known before. With the feature `malloc-debug` all words of a record are looked
//! at before anything in it is followed, and marks tell which blocks were met before; without it what an audit follows may
//! itself be damaged, and of two lists that share a block one may be taken for sound.

use super::cache::Cache;
use super::class::{CLASSES, Class};
use super::depot::Depot;
use super::listed;
use super::map::Entry;
use super::slab::{Slabs, Sum};
use super::{Attached, Engine, RawLock, Registry};
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
    /// Audits the heap while other threads use it: records, the links of what is free, this thread's cache; with the feature
    /// `malloc-debug` also that no block is in two places of these. O(pages of the address ranges that the page map describes,
    /// 64 Ki pages at a time). It takes the lock of the page runs, and then the locks of one class after another; meanwhile
    /// who needs them waits, longest for the first.
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn check(&self) -> Result<(), Finding> {
        self.engine.check(Some(self.cache))
    }

    /// Audits the heap while nobody else uses it: as `check`, and that every page is of something, every count right, and every
    /// free block in one place, those in the caches of other threads included. O(the same).
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
        let mut slabs = [Sum::default(); CLASSES];
        self.runs.with(|runs| {
            let mapped = (runs.mapped_pages as usize) << self.map.page_shift();
            let known = witness == Witness::Beside || self.tally.mapped() == mapped;
            Layer::Runs.holds(known, "mapped bytes are as many as mapped pages have", 0)?;
            runs.audit(&self.map, witness, &mut |slab| slab.audit(&mut slabs[slab.class().index() % CLASSES]))
        })?;
        for class in Class::all() {
            let sum = (witness == Witness::Alone).then_some(slabs[class.index() % CLASSES]);
            self.audit_class(class, cache, witness, sum)?;
        }
        for (at, depot) in self.run_depots.iter().enumerate() {
            let run = &mut |address| self.audit_run(at + 1, address, Layer::Depot, witness);
            depot.with(|depot| {
                depot.audit(listed::target(at + 1), self.records_max(), &|at| self.map.record_room(at), run)
            })?;
        }
        self.reserves.iter().try_for_each(|reserve| reserve.with(|reserve| reserve.audit(&self.map)))?;
        self.audit_cached_runs(cache, witness)
    }

    /// Audits one cache, by its owner, while other threads use the heap: after `check`, which has audited the rest.
    /// O(blocks in it, in depots and slabs).
    #[cfg(feature = "allocator-api2")]
    pub(crate) fn check_cache(&self, cache: &Cache) -> Verdict {
        Class::all().try_for_each(|class| self.audit_class(class, Some(cache), Witness::Beside, None))?;
        self.audit_cached_runs(Some(cache), Witness::Beside)
    }

    /// Audits all that there is of one class in one section of its locks, so that no block goes from one place to another
    /// meanwhile; `slabs` is what the page map has. Of caches, only those that no other thread uses.
    fn audit_class(&self, class: Class, cache: Option<&Cache>, witness: Witness, slabs: Option<Sum>) -> Verdict {
        let (target, records) = (self.target(class), self.records_max());
        let block = |layer| move |address| self.audit_block(class, address, layer);
        let section = |registry: &Registry, depot: &Depot, layer: &Slabs| {
            layer.audit(&self.map, class, records, slabs)?;
            depot.audit(target, records, &|at| self.map.record_room(at), &mut block(Layer::Depot))?;
            let audit = |cache: &Cache| cache.audit_class(class, target, &mut block(Layer::Cache));
            registry.each_at_rest(cache, witness, audit)
        };
        self.registry.with(|registry| {
            self.depots[class].with(|depot| self.slabs[class].with(|layer| section(registry, depot, layer)))
        })
    }

    /// Audits the runs in caches.
    fn audit_cached_runs(&self, cache: Option<&Cache>, witness: Witness) -> Verdict {
        let audit = |cache: &Cache| {
            let run = &mut |pages, address| self.audit_run(pages, address, Layer::Cache, witness);
            cache.audit_runs(&self.map, run)
        };
        self.registry.with(|registry| registry.each_at_rest(cache, witness, audit))
    }

    /// Records of slabs and depots that there may be.
    fn records_max(&self) -> u64 {
        self.records.with(|records| records.bytes) / RECORD_MIN
    }

    /// Audits a free block of `layer`, before its link is read; with the lock of the slabs of `class`.
    fn audit_block(&self, class: Class, address: usize, layer: Layer) -> Verdict {
        // A slab stays while one of its blocks is out.
        let Entry::Slab(slab) = self.map.look_up(address) else {
            return layer.holds(false, "a free block lies in a slab", address);
        };
        let Some(index) = slab.find(&self.map, class, address)? else {
            return layer.holds(false, "a free block is one of a slab of its class", address);
        };
        layer.holds(slab.is_out(index), "a free block is in one place, and this one is in its slab", address)?;
        layer.holds(slab.meet(index), "a free block is in one list", address)
    }

    /// Audits a free run of `layer`, before its link is read.
    fn audit_run(&self, pages: usize, address: usize, layer: Layer, witness: Witness) -> Verdict {
        let whole = self.map.look_up(address) == Entry::Run(pages as u32) && address & (self.map.page_bytes() - 1) == 0;
        layer.holds(whole, "a run in a list has the length of that list", address)?;
        let met = witness == Witness::Alone && !self.map.free_run(self.map.page_of(address)).met.mark(0);
        layer.holds(!met, "a run is in one list", address)
    }
}

impl Registry {
    /// Calls `each` with the caches that no other thread uses: the caller's, if it has one, or all.
    fn each_at_rest(&self, own: Option<&Cache>, witness: Witness, each: impl FnMut(&Cache) -> Verdict) -> Verdict {
        match witness {
            Witness::Alone => self.caches().try_for_each(each),
            Witness::Beside => own.into_iter().try_for_each(each),
        }
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
