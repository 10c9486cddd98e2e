//! The map's part of an audit: its words against their copies, and its entries against each other.

use super::{BITMAPS, Entry, FreeRun, Kept, KeptAtomic, Map, Page, Stretch, WORD_PAGES};
use crate::finding::{Layer, Verdict};
use crate::heap::audit::Witness;
use crate::heap::slab::SlabRef;
use crate::os;
use crate::sync::{Acquire, Relaxed};
use core::ptr::NonNull;
#[cfg(feature = "malloc-debug")]
use {super::KeptPtr, crate::os::Span};

/// What lies side by side in the spans of a heap.
#[derive(Clone, Copy, Debug)]
pub(in crate::heap) enum Tile {
    Free(Stretch),
    /// A run in use for the runs.
    Used(Stretch),
    Slab(SlabRef),
}

/// How often a word is looked at that another thread may be writing.
const LOOKS: usize = 1000;

/// Whether `is_intact` holds, now or once another thread has written what it is writing.
fn becomes_intact(is_intact: impl Fn() -> bool) -> bool {
    (0..LOOKS).any(|look| {
        if look > 0 {
            os::yield_now();
        }
        is_intact()
    })
}

impl Map {
    /// Audits every word of the map that is not a free run's. O(pages that leaves describe).
    pub(in crate::heap) fn audit_words(&self) -> Verdict {
        let leaf_pages = self.leaf_pages.load(Relaxed);
        for leaf in 0..self.leaves.load(Relaxed) {
            let Some(slot) = self.slot(leaf) else { break };
            let address = core::ptr::from_ref(slot) as usize;
            Layer::Map.holds(becomes_intact(|| slot.is_intact()), "the root holds what was written there", address)?;
            let first = (leaf << self.leaf_shift.load(Relaxed)) as Page;
            if self.leaf(first).is_none() {
                continue;
            }
            for at in 0..leaf_pages {
                let page = first.wrapping_add(at as Page);
                let intact = self.entry_cell(page).is_none_or(|cell| becomes_intact(|| cell.is_intact()));
                Layer::Map.holds(intact, "a page's entry is what was written there", self.address_of(page))?;
            }
            (0..BITMAPS).try_for_each(|bitmap| self.audit_bitmap(bitmap, first, leaf_pages))?;
        }
        Ok(())
    }

    fn audit_bitmap(&self, bitmap: usize, first: Page, pages: usize) -> Verdict {
        (0..pages).step_by(WORD_PAGES).try_for_each(|at| {
            let page = first.wrapping_add(at as Page);
            let word = self.bit_word(bitmap, page).map(|(word, _)| word);
            let intact = word.is_none_or(|word| becomes_intact(|| KeptAtomic::is_intact(word)));
            Layer::Map.holds(intact, "the bits of pages are what was written there", self.address_of(page))
        })
    }

    /// Calls `each` with everything that lies in the heap's spans, by address; under the lock of the runs. With a witness
    /// that is not alone only free runs are certain. O(pages that leaves describe).
    pub(in crate::heap) fn audit_tiles(&self, witness: Witness, each: &mut dyn FnMut(Tile) -> Verdict) -> Verdict {
        let shift = self.leaf_shift.load(Relaxed);
        let end = (self.leaves.load(Relaxed) as u64) << shift;
        let mut page = 0;
        while page < end {
            page = match NonNull::new(self.leaf_memory((page >> shift) as usize)) {
                Some(_) => page + u64::from(self.audit_tile(page as Page, witness, each)?),
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

    /// Audits what begins at `page`, and returns its pages.
    fn audit_tile(
        &self,
        page: Page,
        witness: Witness,
        each: &mut dyn FnMut(Tile) -> Verdict,
    ) -> Result<u32, crate::Finding> {
        let (entry, alone) = (self.entry(page), witness == Witness::Alone);
        let at = self.address_of(page);
        match entry {
            Entry::None => Ok(1),
            Entry::Free(pages) => {
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
            Entry::Run(pages) | Entry::Kept(pages) => {
                self.audit_ends(page, pages, if pages == 1 { entry } else { Entry::RunEnd })?;
                each(Tile::Used(Stretch { first: page, pages }))?;
                Ok(pages)
            }
            Entry::Slab(slab) => {
                Layer::Slabs.holds(slab.is_sound(self, page), "a slab's record is as it was made", at)?;
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

impl FreeRun {
    /// Whether all that is in use is what was set, as far as can be told.
    pub(in crate::heap) fn is_intact(&self) -> bool {
        let Self { child: [left, right], parent, older, newer, dirty, met: _ } = self;
        let intact = |words: &[&Kept<u32>]| words.iter().all(|word| word.is_intact());
        intact(&[left, right, parent, dirty]) && (dirty.get() == 0 || intact(&[older, newer]))
    }
}
