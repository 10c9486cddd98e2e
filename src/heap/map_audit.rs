//! The map's part of an audit: its words against their copies, and its entries against each other.

use super::{BITMAPS, Entry, FreeRun, Kept, KeptPtr, Map, Page, RECORD_ALIGN, Stretch, WORD_PAGES};
use crate::finding::{Finding, Layer, Verdict};
use crate::heap::audit::Witness;
use crate::heap::kept::is_sealed;
use crate::heap::slab::SlabRef;
use crate::os;
#[cfg(feature = "shared")]
use crate::os::Source;
#[cfg(feature = "malloc-debug")]
use crate::os::Span;
use crate::sync::{Acquire, Relaxed};
use core::ptr::NonNull;

/// What lies side by side in the spans of a heap.
#[derive(Clone, Copy, Debug)]
pub(in crate::heap) enum Tile {
    Free(Stretch),
    /// A run in use for the runs.
    Used(Stretch),
    Slab(SlabRef),
}

/// How often a pointer is looked at that another thread may be writing; a rest lies between two looks.
const LOOKS: usize = 4000;

/// Whether `is_intact` holds, now or once another thread has written what it is writing.
fn becomes_intact(witness: Witness, is_intact: impl Fn() -> bool) -> bool {
    let looks = if witness == Witness::Alone { 1 } else { LOOKS };
    (0..looks).any(|look| {
        if look > 0 {
            os::rest();
        }
        is_intact()
    })
}

impl Map {
    /// Audits the root and every entry. O(pages that leaves describe).
    pub(in crate::heap) fn audit_words(&self, witness: Witness) -> Verdict {
        for leaf in 0..self.leaves.load(Relaxed) {
            let Some(slot) = self.slot(leaf) else { break };
            let address = core::ptr::from_ref(slot) as usize;
            Layer::Map.holds(
                becomes_intact(witness, || slot.is_intact()),
                "the root holds what was written there",
                address,
            )?;
            self.each_page_of(leaf, 1, |page| {
                let word = self.entry_cell(page).map_or(0, |cell| cell.load(Relaxed));
                Layer::Map.holds(is_sealed(word), "a page's entry is what was written there", self.address_of(page))
            })?;
        }
        Ok(())
    }

    /// Audits the bitmaps; under the lock of the runs. O(pages that leaves describe).
    pub(in crate::heap) fn audit_bitmaps(&self) -> Verdict {
        (0..self.leaves.load(Relaxed)).try_for_each(|leaf| {
            self.each_page_of(leaf, WORD_PAGES, |page| {
                let intact = |bitmap| self.bit_word(bitmap, page).is_none_or(|(word, _)| word.is_intact());
                let holds = (0..BITMAPS).all(intact);
                Layer::Map.holds(holds, "the bits of pages are what was written there", self.address_of(page))
            })
        })
    }

    /// Calls `each` with every `step`-th page of a leaf, if there is such a leaf.
    fn each_page_of(&self, leaf: usize, step: usize, each: impl FnMut(Page) -> Verdict) -> Verdict {
        if self.leaf_memory(leaf).is_null() {
            return Ok(());
        }
        let first = (leaf << self.leaf_shift.load(Relaxed)) as Page;
        (0..self.leaf_pages.load(Relaxed)).step_by(step).map(|at| first.wrapping_add(at as Page)).try_for_each(each)
    }

    /// Verifies that each leaf that is there is where the source has its place for it.
    #[cfg(feature = "shared")]
    pub(in crate::heap) fn verify_leaves(&self, source: &impl Source) -> Verdict {
        (0..self.leaves.load(Relaxed)).try_for_each(|leaf| {
            let at = self.leaf_memory(leaf) as usize;
            let placed = at == 0 || Some(at) == source.place_of_leaf(leaf, self.leaf_bytes());
            Layer::Map.holds(placed, "each leaf of the page map lies at its place", at)
        })
    }

    /// See `heal`.
    #[cfg(feature = "shared")]
    pub(in crate::heap) fn heal_words(&self) {
        (0..self.leaves.load(Relaxed)).filter_map(|leaf| self.slot(leaf)).for_each(KeptPtr::note);
        for leaf in 0..self.leaves.load(Relaxed) {
            let _ = self.each_page_of(leaf, WORD_PAGES, |page| {
                (0..BITMAPS).filter_map(|bitmap| self.bit_word(bitmap, page)).for_each(|(word, _)| word.heal());
                Ok(())
            });
        }
    }

    /// After a fork, in the child: a thread that was setting a pointer of the root is not here to end it.
    pub(in crate::heap) fn note_root(&self) {
        if cfg!(feature = "malloc-debug") {
            (0..self.leaves.load(Relaxed)).filter_map(|leaf| self.slot(leaf)).for_each(KeptPtr::note);
        }
    }

    /// Calls `each` with everything that lies in the heap's spans, by address; under the lock of the runs. With a witness
    /// that is not alone only free runs are certain. O(pages that leaves describe).
    pub(in crate::heap) fn audit_tiles(&self, witness: Witness, each: &mut dyn FnMut(Tile) -> Verdict) -> Verdict {
        let shift = self.leaf_shift.load(Relaxed);
        let end = (self.leaves.load(Relaxed) as u64) << shift;
        let (mut page, mut used) = (0, Stretch { first: 0, pages: 0 });
        while page < end {
            page = match NonNull::new(self.leaf_memory((page >> shift) as usize)) {
                Some(_) => page + u64::from(self.audit_tile(page as Page, &mut used, witness, each)?),
                None => (page | ((1 << shift) - 1)) + 1,
            };
        }
        Ok(())
    }

    fn leaf_memory(&self, leaf: usize) -> *mut u8 {
        self.slot(leaf).map_or(core::ptr::null_mut(), |slot| slot.pointer.load(Acquire))
    }

    /// Calls `each` with the places of the root and of the leaves.
    #[cfg(feature = "malloc-debug")]
    pub(in crate::heap) fn each_record(&self, each: &mut dyn FnMut(Span)) {
        let leaves = self.leaves.load(Relaxed);
        each(Span { at: self.root.load(Acquire) as usize, bytes: leaves * size_of::<KeptPtr>() });
        let made = (0..leaves).map(|leaf| self.leaf_memory(leaf)).filter(|leaf| !leaf.is_null());
        made.for_each(|leaf| each(Span { at: leaf as usize, bytes: self.leaf_bytes() }));
    }

    /// Audits what begins at `page`, and returns its pages; `used` is the run in use that reaches farthest so far.
    fn audit_tile(
        &self,
        page: Page,
        used: &mut Stretch,
        witness: Witness,
        each: &mut dyn FnMut(Tile) -> Verdict,
    ) -> Result<u32, Finding> {
        let (entry, alone) = (self.entry(page), witness == Witness::Alone);
        let at = self.address_of(page);
        if let Entry::Run(pages) | Entry::Kept(pages) | Entry::Held(pages, _) = entry
            && end_of(*used) < end_of(Stretch { first: page, pages })
        {
            *used = Stretch { first: page, pages };
        }
        match entry {
            Entry::None => Ok(1),
            Entry::Free(pages) => {
                // Beside others, too: no page goes to the runs before its owner's entry has let go of it.
                let apart = end_of(*used) <= u64::from(page);
                Layer::Map.holds(apart, "no page of a run in use is free", self.address_of(used.first))?;
                self.audit_ends(page, pages, Entry::Free(pages))?;
                each(Tile::Free(Stretch { first: page, pages }))?;
                Ok(pages)
            }
            // Their owners may be changing them.
            _ if !alone => Ok(1),
            Entry::RunEnd => {
                Layer::Map.holds(false, "the last page of a run lies behind its first", at)?;
                Ok(1)
            }
            Entry::Run(pages) | Entry::Kept(pages) | Entry::Held(pages, _) => {
                self.audit_ends(page, pages, if pages == 1 { entry } else { Entry::RunEnd })?;
                each(Tile::Used(Stretch { first: page, pages }))?;
                Ok(pages)
            }
            Entry::Slab(slab) => {
                let sound = slab.is_sound(self) && slab.first() == page;
                Layer::Slabs.holds(sound, "a slab's record is as it was made", at)?;
                let same = (0..slab.pages()).all(|more| self.entry(page + more) == entry);
                Layer::Map.holds(same, "the pages of a slab have one record", at)?;
                each(Tile::Slab(slab))?;
                Ok(slab.pages())
            }
        }
    }

    /// Audits a run's last page, and that those between have no entry.
    fn audit_ends(&self, first: Page, pages: u32, last: Entry) -> Verdict {
        let at = self.address_of(first);
        let end = first.checked_add(pages.wrapping_sub(1)).filter(|_| pages > 0);
        let ends = end.is_some_and(|end| self.entry(end) == last);
        Layer::Map.holds(ends, "a run's last page has the entry that its first one asks for", at)?;
        let none = (1..pages.max(2) - 1).all(|more| self.entry(first + more) == Entry::None);
        Layer::Map.holds(none, "pages within a run have no entry", at)
    }
}

impl Map {
    /// The record of the free run at `page`; what leads there breaks `rule` if there is none. Under the lock of the runs.
    pub(in crate::heap) fn audit_free_run(
        &self,
        page: Page,
        rule: &'static str,
    ) -> Result<(Stretch, &FreeRun), Finding> {
        let at = self.address_of(page);
        let run = self.free_stretch(page).ok_or(Layer::Runs.breaks(rule, at))?;
        let record = self.free_run(page);
        Layer::Runs.holds(record.is_intact(), "a free run's record is what was written there", at)?;
        Ok((run, record))
    }

    /// Bytes from `address` on in a run that records are cut from, 0 if there can be no record: so what is not the heap's is
    /// never looked at. (A user's run may be as long; what is read there is the heap's all the same.) O(pages of such a run).
    pub(in crate::heap) fn record_room(&self, address: usize) -> usize {
        let pages = self.record_pages();
        let Ok(page) = Page::try_from(address.wrapping_sub(self.address_of(0)) >> self.page_shift()) else {
            return 0;
        };
        // Behind its first page a run has no entry up to its last.
        let inner = |at: &Page| matches!(self.entry(*at), Entry::None | Entry::RunEnd);
        let first = (0..pages).map(|back| page.wrapping_sub(back)).find(|at| !inner(at));
        match first.filter(|first| self.entry(*first) == Entry::Run(pages)) {
            Some(first) if address.is_multiple_of(RECORD_ALIGN) => self.address_of(first + pages) - address,
            _ => 0,
        }
    }
}

/// The page behind a run, as many as it may say it has.
fn end_of(run: Stretch) -> u64 {
    u64::from(run.first) + u64::from(run.pages)
}

impl FreeRun {
    /// Whether all that is in use is what was set, as far as can be told.
    pub(in crate::heap) fn is_intact(&self) -> bool {
        let Self { child: [left, right], parent, older, newer, dirty, met: _ } = self;
        let intact = |words: &[&Kept<u32>]| words.iter().all(|word| word.is_intact());
        intact(&[left, right, parent, dirty]) && (dirty.get() == 0 || intact(&[older, newer]))
    }
}
