//! The slabs' part of an audit.

use super::{BINS, Place, Slab, SlabRef, Slabs, words};
use crate::finding::{Finding, Layer, Verdict};
use crate::heap::class::{CLASSES, Class};
use crate::heap::map::{Entry, Map};
#[cfg(feature = "malloc-debug")]
use crate::os::Span;

/// What the slabs of a class add up to.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::heap) struct Sum {
    slabs: u64,
    blocks_out: u64,
    /// Slabs in bins, and those in the list of those to purge.
    binned: u64,
    queued: u64,
    idle_pages: u32,
    untouched_pages: u32,
}

impl SlabRef {
    /// Whether the record is as `create` made it, but for the cells, and all cells are what was set. Under the lock of its
    /// class.
    pub(in crate::heap) fn is_sound(self, map: &Map) -> bool {
        self.is_made(map) && self.is_intact()
    }

    /// Whether there is a record as `create` makes it, but for the cells. While the slab is one.
    pub(super) fn is_made(self, map: &Map) -> bool {
        let room = map.record_room(self.address());
        if room < size_of::<Slab>() || !self.class.is_intact() || self.class().index() >= CLASSES {
            return false;
        }
        let made = [self.page_shift, self.pages, self.blocks, self.blocks_in_page, self.bin_shift];
        room >= Self::record_bytes(self.class(), map.page_shift())
            && made == shape(self.class(), map.page_shift())
            && self.base == map.address_of(self.first)
    }

    /// The place of the block at `address` in a slab of `class`, if there is one, and all that was set there is there. Under the
    /// lock of the class.
    pub(in crate::heap) fn find(self, map: &Map, class: Class, address: usize) -> Result<Option<u32>, Finding> {
        let made = |holds| Layer::Slabs.holds(holds, "a slab's record is as it was made", self.address());
        made(self.is_made(map))?;
        let index = self.index_of(address).filter(|_| self.class() == class);
        made(index.is_none_or(|index| self.word(index / 64).is_intact())).map(|()| index)
    }

    /// Whether all cells are what was set, as far as can be told.
    fn is_intact(self) -> bool {
        let Slab { free, hint, place, next, prev, later, sooner, queued, touched, empty, roster, .. } = &*self;
        let links = [next, prev, later, sooner].iter().all(|link| link.is_intact());
        let counts = [free, hint, touched, empty].iter().all(|count| count.is_intact());
        links
            && counts
            && place.is_intact()
            && queued.is_intact()
            && roster.is_intact()
            && (0..words(self.blocks as usize) as u32).all(|at| self.word(at).is_intact())
    }

    /// Audits a slab that `is_sound`, adds it to `sum`, and takes the marks of its blocks away.
    pub(in crate::heap) fn audit(self, sum: &mut Sum) -> Verdict {
        let words = words(self.blocks as usize) as u32;
        let holds = |holds, rule| Layer::Slabs.holds(holds, rule, self.base);
        let free: u32 = (0..words).map(|at| self.word(at).get().count_ones()).sum();
        holds(free == self.free.get() && free <= self.blocks, "a slab has as many free blocks as it counts")?;
        let behind = self.blocks % 64;
        holds(behind == 0 || self.word(words - 1).get() >> behind == 0, "no block lies behind a slab's last")?;
        let hint = self.hint.get();
        holds((0..hint.min(words)).all(|at| self.word(at).get() == 0), "no block is free before the first free one")?;
        let pages = |is: &dyn Fn(u32) -> bool| (0..self.pages).map(|page| u32::from(is(page)) << page).sum::<u32>();
        let empty = pages(&|page| self.is_empty(page));
        holds(empty == self.empty.get(), "a page of a slab counts as empty if no block outside lies in it")?;
        let all = pages(&|_| true);
        holds(!empty & all & !self.touched.get() == 0, "pages with blocks outside count as touched")?;
        holds(self.touched.get() & !all == 0, "no page lies behind a slab's last")?;
        (0..words).for_each(|at| self.marks(at).clear());

        let (place, gauge) = (self.place.get(), self.gauge());
        let placed = match place.bin() {
            Some(bin) => free > 0 && bin == self.bin(),
            None => place == Place::PURGING || place == Place::FULL && free == 0,
        };
        holds(placed, "a slab lies in the bin for its free blocks")?;
        sum.slabs += 1;
        sum.blocks_out += u64::from(self.blocks - free);
        sum.binned += u64::from(place.bin().is_some());
        sum.queued += u64::from(self.queued.get());
        sum.idle_pages += if place == Place::PURGING { 0 } else { gauge.idle() };
        sum.untouched_pages += self.pages - self.touched.get().count_ones();
        Ok(())
    }

    /// Where the record lies.
    #[cfg(feature = "malloc-debug")]
    pub(in crate::heap) fn span(self, page_shift: u32) -> Span {
        Span { at: self.address(), bytes: Self::record_bytes(self.class(), page_shift) }
    }

    /// Whether block `index` is outside.
    pub(in crate::heap) fn is_out(self, index: u32) -> bool {
        self.word(index / 64).get() >> (index % 64) & 1 == 0
    }

    /// Marks block `index` as met; false if it was.
    pub(in crate::heap) fn meet(self, index: u32) -> bool {
        self.marks(index / 64).mark(index % 64)
    }
}

/// What `create` writes for a slab of `class`, in the order of `is_made`.
pub(super) fn shape(class: Class, page_shift: u32) -> [u32; 5] {
    let blocks = class.slab_blocks(page_shift) as u32;
    let in_page = ((1 << page_shift) / class.size()) as u32;
    [page_shift, class.slab_pages(page_shift) as u32, blocks, in_page, super::bin_shift(blocks)]
}

impl Slabs {
    /// Audits every slab of the class, the bins, the list of slabs to purge, the spare records, and the sums: those of a
    /// roster, or else those of the page map, if the witness is alone. Without either full slabs are not seen, and what is
    /// counted is compared with nothing. There are no more than `records` records.
    pub(in crate::heap) fn audit(&self, map: &Map, class: Class, records: u64, mapped: Option<Sum>) -> Verdict {
        let known = mapped.is_none_or(|sum| sum.slabs == self.count);
        Layer::Slabs.holds(known, "slabs are as many as the page map has", 0)?;
        let sum = self.audit_roster(map, class)?.or(mapped);
        let binned = self.audit_bins(map, class)?;
        let queued = self.audit_queue(map, class)?;
        self.audit_spare(map, class, records)?;
        sum.map_or(Ok(()), |sum| self.audit_sum(sum, binned, queued))
    }

    /// Audits every slab, and returns what they add up to; `None` where no roster is kept.
    fn audit_roster(&self, map: &Map, class: Class) -> Result<Option<Sum>, Finding> {
        let Some((first, next)) = self.roster.walk() else {
            return Ok(None);
        };
        let mut sum = Sum::default();
        self.follow(first, next, |slab| {
            let sound = slab.is_sound(map) && slab.class() == class && map.entry(slab.first) == Entry::Slab(slab);
            Layer::Slabs.holds(sound, "a slab's record is as it was made", slab.address())?;
            slab.audit(&mut sum)
        })?;
        Ok(Some(sum))
    }

    /// Audits the bins and the slabs in them, and returns how many there are.
    fn audit_bins(&self, map: &Map, class: Class) -> Result<u64, Finding> {
        let mut binned = 0;
        for (bin, head) in self.bins.iter().enumerate() {
            let filled = bin < BINS && self.filled >> bin & 1 == 1;
            Layer::Slabs.holds(filled == head.is_some(), "a bin is marked as filled if it has slabs", 0)?;
            let mut before = None;
            binned += self.follow(
                *head,
                |slab| slab.next.get(),
                |slab| {
                    let sound = slab.is_sound(map) && slab.class() == class;
                    Layer::Slabs.holds(sound, "slabs in bins have the records of their class", slab.address())?;
                    slab.audit(&mut Sum::default())?;
                    let place = slab.place.get() == Place::binned(bin as u8) && slab.bin() as usize == bin;
                    Layer::Slabs.holds(place, "a slab lies in the bin for its free blocks", slab.base)?;
                    Layer::Slabs.holds(slab.prev.get() == before, "neighbours in a bin know each other", slab.base)?;
                    before = Some(slab);
                    Ok(())
                },
            )?;
        }
        Ok(binned)
    }

    /// Audits the list of slabs to purge, and returns how many there are.
    fn audit_queue(&self, map: &Map, class: Class) -> Result<u64, Finding> {
        let mut before = None;
        let queued = self.follow(
            self.soonest,
            |slab| slab.later.get(),
            |slab| {
                let sound = slab.is_sound(map) && slab.class() == class;
                Layer::Slabs.holds(sound, "slabs to purge have the records of their class", slab.address())?;
                let due = slab.queued.get() == 1 && slab.gauge().idle() > 0;
                Layer::Slabs.holds(due, "slabs to purge have pages to purge", slab.base)?;
                Layer::Slabs.holds(
                    slab.sooner.get() == before,
                    "neighbours among those to purge know each other",
                    slab.base,
                )?;
                before = Some(slab);
                Ok(())
            },
        )?;
        Layer::Slabs.holds(self.latest == before, "the last slab to purge is the last in the list", 0)?;
        Ok(queued)
    }

    fn audit_sum(&self, sum: Sum, binned: u64, queued: u64) -> Verdict {
        let lists = (binned, queued) == (sum.binned, sum.queued);
        Layer::Slabs.holds(lists, "slabs with free blocks, and those to purge, are in their lists", 0)?;
        Layer::Slabs.holds(self.count == sum.slabs, "slabs are as many as are counted", 0)?;
        Layer::Slabs.holds(self.blocks_out == sum.blocks_out, "blocks outside are as many as the slabs lack", 0)?;
        let pages = (self.idle_pages, self.untouched_pages) == (sum.idle_pages, sum.untouched_pages);
        Layer::Slabs.holds(pages, "idle and untouched pages are as many as the slabs have", 0)
    }

    /// Follows slabs of this class from `head` on by `next`, and returns how many there are.
    fn follow(
        &self,
        head: Option<SlabRef>,
        next: impl Fn(SlabRef) -> Option<SlabRef>,
        mut each: impl FnMut(SlabRef) -> Verdict,
    ) -> Result<u64, Finding> {
        let (mut at, mut met) = (head, 0);
        while let Some(slab) = at {
            Layer::Slabs.holds(met < self.count, "a list of slabs has an end", slab.address())?;
            each(slab)?;
            met += 1;
            at = next(slab);
        }
        Ok(met)
    }

    /// Calls `each` with the records of slabs that have gone.
    #[cfg(feature = "malloc-debug")]
    pub(in crate::heap) fn each_spare(&self, each: &mut dyn FnMut(SlabRef)) {
        super::chain(self.spare).for_each(each);
    }

    fn audit_spare(&self, map: &Map, class: Class, records: u64) -> Verdict {
        let (mut at, mut met, bytes) = (self.spare, 0, SlabRef::record_bytes(class, map.page_shift()));
        while let Some(slab) = at {
            Layer::Slabs.holds(met < records, "a list of spare records has an end", slab.address())?;
            let linked = map.record_room(slab.address()) >= bytes && slab.next.is_intact();
            Layer::Slabs.holds(linked, "spare records are linked as they were", slab.address())?;
            met += 1;
            at = slab.next.get();
        }
        Ok(())
    }
}
