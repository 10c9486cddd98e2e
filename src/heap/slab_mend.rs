//! Slabs after somebody died: their bitmaps are the truth, and everything else follows from them.

use super::{Place, SlabRef, Slabs, words};
use crate::heap::map::{Map, Page};
use crate::heap::note::NOBODY;
use crate::heap::verify::plausible;
use crate::sync::in_order;
use core::ptr::NonNull;

impl SlabRef {
    /// Whether there is a record as `create` makes it.
    pub(in crate::heap) fn is_record(self, map: &Map) -> bool {
        self.is_made(map)
    }

    /// Whether there is a record as `create` makes it for a slab at `page`, and what it has in cells is possible.
    pub(in crate::heap) fn is_made_at(self, map: &Map, page: Page) -> bool {
        self.is_made(map) && self.first == page && {
            let behind = self.blocks % 64;
            let last = self.word(words(self.blocks as usize) as u32 - 1);
            last.heal();
            behind == 0 || last.get() >> behind == 0
        }
    }

    /// In whose hand it is, if it is apart from the others.
    pub(in crate::heap) fn apart(self) -> Option<u32> {
        self.place.heal();
        self.keeper.heal();
        (self.place.get() == Place::APART).then(|| self.keeper.get())
    }

    /// Puts block `index`, which somebody had in hand, back among the free ones; nothing changes if it is there.
    pub(in crate::heap) fn put_back(self, index: u32) {
        let word = self.word(index / 64);
        word.heal();
        word.set(word.get() | 1 << (index % 64));
        self.touched.heal();
        self.touched.set(self.touched.get() | self.pages_at(index as usize * self.class().size()));
    }

    /// Says that it is a spare record, and no other part of a damaged file.
    pub(super) fn mark_spare(self) {
        self.place.set(Place::SPARE);
        self.keeper.set(self.spare_mark());
    }

    fn spare_mark(self) -> u32 {
        (self.address() >> 6) as u32 | 1
    }

    fn is_spare(self) -> bool {
        self.place.heal();
        self.keeper.heal();
        self.place.get() == Place::SPARE && self.keeper.get() == self.spare_mark()
    }

    /// Counts everything anew that follows from the bitmap.
    fn count_anew(self) {
        let words = words(self.blocks as usize) as u32;
        (0..words).for_each(|at| self.word(at).heal());
        self.free.set((0..words).map(|at| self.word(at).get().count_ones()).sum());
        self.hint.set(0);
        self.touched.heal();
        self.touched.set(self.touched.get() & u32::MAX >> (32 - self.pages));
        let empty = (0..self.pages).filter(|page| self.is_empty(*page)).fold(0, |bits, page| bits | 1 << page);
        self.empty.set(empty);
        self.place.set(Place::FULL);
        self.queued.set(0);
    }
}

impl Slabs {
    /// Drops what are no spare records, or lie where none `fits`. Those that are kept are none until `mark_spares`, which must
    /// follow once the slabs of every class were asked: so each is kept once, and the chain has an end.
    pub(in crate::heap) fn distrust(&mut self, fits: &dyn Fn(SlabRef) -> bool) {
        let mut at = self.spare.take();
        while let Some(slab) = at.filter(|slab| fits(*slab) && slab.is_spare()) {
            slab.next.heal();
            at = slab.next.get();
            slab.keeper.set(0);
            slab.next.set(self.spare);
            self.spare = Some(slab);
        }
        for count in [&mut self.filled_lists, &mut self.sorted_lists, &mut self.slabs_taken, &mut self.slabs_given] {
            *count = plausible(*count);
        }
    }

    /// Marks the spare records that `distrust` has kept.
    pub(in crate::heap) fn mark_spares(&self) {
        let mut at = self.spare;
        while let Some(slab) = at {
            slab.mark_spare();
            at = slab.next.get();
        }
    }

    /// Forgets every slab, but not what was counted over time, nor the spare records.
    pub(in crate::heap) fn forget_all(&mut self) {
        *self = Self {
            spare: self.spare,
            filled_lists: self.filled_lists,
            sorted_lists: self.sorted_lists,
            slabs_taken: self.slabs_taken,
            slabs_given: self.slabs_given,
            ..Self::EMPTY
        };
    }

    /// Adds a slab as its bitmap says it is; false if it is whole: then it is no slab any more, and belongs to the caller.
    pub(in crate::heap) fn readmit(&mut self, slab: SlabRef) -> bool {
        slab.count_anew();
        if slab.free.get() == slab.blocks {
            // In nobody's hand: should whoever mends die now, the next one finds it so.
            slab.keeper.set(NOBODY);
            in_order();
            slab.place.set(Place::APART);
            return false;
        }
        self.count += 1;
        self.roster.enter(slab);
        self.blocks_out += u64::from(slab.blocks - slab.free.get());
        self.idle_pages += slab.gauge().idle();
        self.untouched_pages += slab.pages - slab.touched.get().count_ones();
        if slab.free.get() > 0 {
            self.insert(slab);
        }
        self.queue(slab);
        true
    }

    /// Whether the record at `address` is a spare one, of which there are no more than `most`.
    pub(in crate::heap) fn has_spare(&self, address: usize, most: u64) -> bool {
        let mut at = self.spare;
        (0..most).any(|_| match at {
            Some(slab) => {
                slab.next.heal();
                at = slab.next.get();
                slab.address() == address
            }
            None => false,
        })
    }

    /// Keeps memory for a record that has been none.
    pub(in crate::heap) fn keep_memory(&mut self, record: NonNull<u8>) {
        self.keep_record(SlabRef(record.cast()));
    }
}
