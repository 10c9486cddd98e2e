//! A heap that comes from a file: nobody has it open, and nothing in it is believed before it was checked.
//!
//! What never changes has a sum, which the header keeps. The truths of `mend.rs`, entries of pages and records of slabs, are
//! verified here; what follows from them is made anew, and lists that lead elsewhere are dropped: see `distrust`.

use super::Engine;
use super::class::{Class, TARGET_MAX};
use super::depot::ChunkRef;
use super::map::{Entry, Page};
use super::slab::SlabRef;
use crate::finding::{Layer, Verdict};
use crate::lock::RawLock;
use crate::os::Source;
use crate::sync::Relaxed;

impl<S: Source, L: RawLock> Engine<S, L> {
    /// Calls `each` with every word that stays what it is once the heap is open.
    pub(crate) fn each_fixed_word(&self, each: &mut dyn FnMut(u64)) {
        self.map.each_fixed_word(each);
        self.settings.each_word(each);
        Class::all().for_each(|class| each(u64::from(self.target(class))));
        each(u64::from(self.phase.load(Relaxed)));
    }

    /// Verifies the entry of each page, and the record of each slab, of a heap whose fixed words are right and that nobody uses.
    /// Nothing is changed. O(pages).
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub(crate) fn verify(&self) -> Verdict {
        let whole = Class::all().all(|class| (1..=TARGET_MAX as u32).contains(&self.target(class)));
        Layer::Cache.holds(whole, "lists have no more blocks than a list may have", 0)?;
        self.map.verify_leaves(&self.source)?;
        let given = self.source.given();
        let (mut page, mut left) = (self.map.page_of(given.at), given.bytes >> self.map.page_shift());
        while left > 0 {
            let pages = self.verify_tile(page, left)?;
            // Behind the last page of the largest heap there is no number.
            page = page.wrapping_add(pages);
            left -= pages as usize;
        }
        Ok(())
    }

    /// Verifies what begins at `page`, where so many pages are `left`, and returns its pages.
    fn verify_tile(&self, page: Page, left: usize) -> Result<u32, crate::finding::Finding> {
        let at = self.map.address_of(page);
        match self.map.entry(page) {
            Entry::Run(pages) | Entry::Kept(pages) | Entry::Held(pages, _) => {
                let fits = (1..=left).contains(&(pages as usize));
                Layer::Map.holds(fits, "a run ends within the heap", at)?;
                Ok(pages)
            }
            Entry::Slab(slab) => {
                let is_made = slab.is_made_at(&self.map, page);
                Layer::Slabs.holds(is_made, "a slab's record is as it was made", at)?;
                Layer::Slabs.holds(slab.pages() as usize <= left, "a slab ends within the heap", at)?;
                Ok(slab.pages())
            }
            Entry::None | Entry::Free(_) | Entry::RunEnd => Ok(1),
        }
    }

    /// With every lock held, of a heap that was verified: drops what leads to places that are none of the heap's, and figures that
    /// no heap has. `mend`, as if somebody had died in every lock, must follow.
    pub(crate) fn distrust(&self) {
        let is_chunk = |address: usize| self.map.record_room(address) >= ChunkRef::BYTES;
        let shift = self.map.page_shift();
        let depots = || self.depots.as_slice().iter().chain(&self.run_depots);
        depots().for_each(|depot| depot.with(|depot| depot.distrust(&is_chunk)));
        depots().for_each(|depot| depot.with(super::depot::Depot::mark_all));
        for class in Class::all() {
            let fits = |slab: SlabRef| self.map.record_room(slab.address()) >= SlabRef::record_bytes(class, shift);
            self.slabs[class].with(|slabs| slabs.distrust(&fits));
        }
        Class::all().for_each(|class| self.slabs[class].with(|slabs| slabs.mark_spares()));
        self.records.with(|records| records.distrust(self.source.given().bytes as u64));
        self.reserves.iter().for_each(|reserve| reserve.with(|reserve| *reserve = super::Reserve::EMPTY));
        self.runs.with(super::run::Runs::distrust);
        self.registry.with(super::Registry::distrust);
        self.tally.distrust();
    }
}

impl super::Settings {
    fn each_word(&self, each: &mut dyn FnMut(u64)) {
        let Self { idle_bytes, idle_share, list_bytes, huge_pages, huge_above, purge } = self;
        let words = [idle_bytes, idle_share, list_bytes, huge_pages, huge_above, purge];
        words.into_iter().for_each(|word| each(word.load(Relaxed) as u64));
    }
}

impl super::Registry {
    fn distrust(&mut self) {
        (self.newest, self.caches) = (None, 0);
        self.departed.limit();
    }
}

/// More than any heap ever counts.
pub(super) const COUNT_MAX: u64 = 1 << 48;

/// A count, unless no heap can have that.
pub(super) fn plausible(count: u64) -> u64 {
    if count < COUNT_MAX { count } else { 0 }
}
