//! Slabs in a heap's file, for who reads it from outside.

use super::{BINS, BlockWord, Place, Slab, SlabRef, Slabs, audit, words};
use crate::heap::class::Class;
use crate::heap::map::Page;
use crate::image::{Field, Image, Plain, Words, copy, field, number};
use std::vec::Vec;

const FIRST: Field<Slab> = field!(Slab, first);
const CLASS: Field<Slab> = field!(Slab, class);
const PAGE_SHIFT: Field<Slab> = field!(Slab, page_shift);
const PAGES: Field<Slab> = field!(Slab, pages);
const BASE: Field<Slab> = field!(Slab, base);
const BLOCKS: Field<Slab> = field!(Slab, blocks);
const BLOCKS_IN_PAGE: Field<Slab> = field!(Slab, blocks_in_page);
const BIN_SHIFT: Field<Slab> = field!(Slab, bin_shift);
const FREE: Field<Slab> = field!(Slab, free);
const HINT: Field<Slab> = field!(Slab, hint);
const PLACE: Field<Slab> = field!(Slab, place);
const NEXT: Field<Slab> = field!(Slab, next);
const PREV: Field<Slab> = field!(Slab, prev);
const LATER: Field<Slab> = field!(Slab, later);
const SOONER: Field<Slab> = field!(Slab, sooner);
const QUEUED: Field<Slab> = field!(Slab, queued);
const TOUCHED: Field<Slab> = field!(Slab, touched);
const EMPTY: Field<Slab> = field!(Slab, empty);
const KEEPER: Field<Slab> = field!(Slab, keeper);
const BITS: Field<BlockWord> = field!(BlockWord, bits);

impl Plain for Option<SlabRef> {
    const BYTES: usize = size_of::<Self>();
}

/// Where a slab says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// In the bin of that number.
    Bin(u32),
    /// In none: it has no free block.
    Full,
    /// With somebody who purges its pages.
    Purging,
    /// In the hand of that keeper.
    Apart(u32),
    /// Nowhere that there is.
    Nowhere(u32),
}

/// The bytes of the smallest record.
pub(crate) const RECORD_BYTES: usize = size_of::<Slab>();

/// The record that follows a spare one.
pub(crate) fn next_spare(from: &dyn Words, record: usize) -> Option<usize> {
    Image::<Slab>::take(from, record).map(|image| image.address(NEXT))
}

/// A copy of a slab's record, which names a class; nothing else of it is known.
#[derive(Debug)]
pub(crate) struct SlabView {
    pub(crate) record: usize,
    image: Image<Slab>,
    pub(crate) class: Class,
    page_shift: u32,
    /// As many words as a slab of the class has.
    bits: Vec<u64>,
    /// Whether these are what was set, as far as can be told.
    are_bits_intact: bool,
}

impl SlabView {
    /// Copies the record at `record`; `None` if there is none that names a class.
    pub(crate) fn take(from: &dyn Words, record: usize, page_shift: u32) -> Option<Self> {
        let image = Image::<Slab>::take(from, record)?;
        let class = Class::all().nth(image.address(CLASS))?;
        let (count, step) = (words(class.slab_blocks(page_shift)), size_of::<BlockWord>());
        let raw = copy(from, record + size_of::<Slab>(), count * step / 8)?;
        let bits = (0..count).map(|at| number(&raw, at * step + BITS.at(), 8)).collect();
        let are_bits_intact = (0..count).all(|at| BITS.intact_in(&raw, at * step));
        Some(Self { record, image, class, page_shift, bits, are_bits_intact })
    }

    pub(crate) fn first(&self) -> Page {
        self.image.get_u32(FIRST)
    }

    pub(crate) fn base(&self) -> usize {
        self.image.address(BASE)
    }

    /// Pages and blocks that every slab of the class has.
    pub(crate) fn pages(&self) -> u32 {
        self.class.slab_pages(self.page_shift) as u32
    }

    pub(crate) fn blocks(&self) -> u32 {
        self.class.slab_blocks(self.page_shift) as u32
    }

    /// Whether the record is as one is made for the slab that begins with the page `first`, at `base`.
    pub(crate) fn is_made(&self, first: Page, base: usize) -> bool {
        let made = [PAGE_SHIFT, PAGES, BLOCKS, BLOCKS_IN_PAGE, BIN_SHIFT].map(|field| self.image.get_u32(field));
        made == audit::shape(self.class, self.page_shift)
            && self.first() == first
            && self.base() == base
            && self.image.are_intact(&[CLASS])
    }

    /// Blocks that are here and free, by the bitmap.
    pub(crate) fn free(&self) -> u32 {
        self.bits.iter().map(|word| word.count_ones()).sum()
    }

    pub(crate) fn standing(&self) -> Standing {
        match Place(self.image.get(PLACE) as u8) {
            Place::FULL => Standing::Full,
            Place::PURGING => Standing::Purging,
            Place::APART => Standing::Apart(self.image.get_u32(KEEPER)),
            Place(bin) if u32::from(bin) < BINS as u32 => Standing::Bin(u32::from(bin)),
            Place(other) => Standing::Nowhere(u32::from(other)),
        }
    }

    /// The neighbours in its bin, or the next in whatever other list it is in.
    pub(crate) fn next(&self) -> usize {
        self.image.address(NEXT)
    }

    pub(crate) fn prev(&self) -> usize {
        self.image.address(PREV)
    }

    /// The neighbours among those to purge.
    pub(crate) fn later(&self) -> usize {
        self.image.address(LATER)
    }

    pub(crate) fn sooner(&self) -> usize {
        self.image.address(SOONER)
    }

    pub(crate) fn is_queued(&self) -> bool {
        self.image.get(QUEUED) == 1
    }

    /// Pages that are resident for no block outside.
    pub(crate) fn idle_pages(&self) -> u32 {
        (self.image.get_u32(TOUCHED) & self.image.get_u32(EMPTY)).count_ones()
    }

    pub(crate) fn untouched_pages(&self) -> u32 {
        self.pages().saturating_sub(self.image.get_u32(TOUCHED).count_ones())
    }

    /// Which block begins at `address`; `None` if none does.
    pub(crate) fn index_of(&self, address: usize) -> Option<u32> {
        let offset = address.wrapping_sub(self.base());
        let index = offset / self.class.size();
        (index < self.blocks() as usize && offset.is_multiple_of(self.class.size())).then_some(index as u32)
    }

    /// Whether block `index` is outside.
    pub(crate) fn is_out(&self, index: u32) -> bool {
        self.bits.get(index as usize / 64).is_some_and(|word| word >> (index % 64) & 1 == 0)
    }

    /// Whether all blocks that lie in `page`, wholly or partly, are here.
    fn is_empty(&self, page: u32) -> bool {
        let begin = (page as usize) << self.page_shift;
        let (first, last) = (begin / self.class.size(), (begin + (1 << self.page_shift) - 1) / self.class.size());
        (first..(last + 1).min(self.blocks() as usize)).all(|index| !self.is_out(index as u32))
    }

    /// The first rule that its bitmap breaks.
    pub(crate) fn bits_break(&self) -> Option<&'static str> {
        let behind = self.blocks() % 64;
        let last = self.bits.last().copied().unwrap_or(0);
        (behind != 0 && last >> behind != 0).then_some("no block lies behind a slab's last")
    }

    /// The first rule that those of its words break that follow from the bitmap, and where it is.
    pub(crate) fn words_break(&self) -> Option<&'static str> {
        let fields = [FREE, HINT, PLACE, NEXT, PREV, LATER, SOONER, QUEUED, TOUCHED, EMPTY, KEEPER];
        if !self.image.are_intact(&fields) || !self.are_bits_intact {
            return Some("the words of a slab's record are what was set");
        }
        let pages = |is: &dyn Fn(u32) -> bool| (0..self.pages()).map(|page| u32::from(is(page)) << page).sum::<u32>();
        let (free, hint) = (self.free(), self.image.address(HINT));
        let (empty, all) = (pages(&|page| self.is_empty(page)), pages(&|_| true));
        let touched = self.image.get_u32(TOUCHED);
        let bin = free.wrapping_sub(1) >> self.image.get_u32(BIN_SHIFT).min(31);
        let is_placed = match self.standing() {
            Standing::Bin(place) => free > 0 && place == bin,
            Standing::Full => free == 0,
            Standing::Purging | Standing::Apart(_) => true,
            Standing::Nowhere(_) => false,
        };
        let rules = [
            (free == self.image.get_u32(FREE), "a slab has as many free blocks as it counts"),
            (self.bits.iter().take(hint).all(|word| *word == 0), "no block is free before the first free one"),
            (empty == self.image.get_u32(EMPTY), "a page of a slab counts as empty if no block outside lies in it"),
            (!empty & all & !touched == 0, "pages with blocks outside count as touched"),
            (touched & !all == 0, "no page lies behind a slab's last"),
            (is_placed, "a slab lies in the bin for its free blocks"),
            (self.image.get(QUEUED) < 2, "a slab is among those to purge or is not"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map(|(_, rule)| rule)
    }

    /// Free blocks that it counts.
    pub(crate) fn counted(&self) -> u32 {
        self.image.get_u32(FREE)
    }
}

/// A copy of what there is to know about the slabs of one class.
pub(crate) type SlabsView = Image<Slabs>;

impl Image<Slabs> {
    /// The first slab of each bin, and whether the bin is marked as filled.
    pub(crate) fn bins(&self) -> impl Iterator<Item = (usize, bool)> {
        let filled = self.get(field!(Slabs, filled));
        (0..BINS).map(move |bin| (self.nth(field!(Slabs, bins), bin) as usize, filled >> bin & 1 == 1))
    }

    /// The ends of the list of those to purge.
    pub(crate) fn soonest(&self) -> usize {
        self.address(field!(Slabs, soonest))
    }

    pub(crate) fn latest(&self) -> usize {
        self.address(field!(Slabs, latest))
    }

    /// The first spare record.
    pub(crate) fn spare(&self) -> usize {
        self.address(field!(Slabs, spare))
    }

    pub(crate) fn blocks_out(&self) -> u64 {
        self.get(field!(Slabs, blocks_out))
    }

    pub(crate) fn count(&self) -> u64 {
        self.get(field!(Slabs, count))
    }

    pub(crate) fn idle_pages(&self) -> u32 {
        self.get_u32(field!(Slabs, idle_pages))
    }

    pub(crate) fn untouched_pages(&self) -> u32 {
        self.get_u32(field!(Slabs, untouched_pages))
    }

    /// Lists filled and sorted, slabs taken and given back.
    pub(crate) fn traffic(&self) -> [u64; 4] {
        [
            field!(Slabs, filled_lists),
            field!(Slabs, sorted_lists),
            field!(Slabs, slabs_taken),
            field!(Slabs, slabs_given),
        ]
        .map(|field| self.get(field))
    }
}
