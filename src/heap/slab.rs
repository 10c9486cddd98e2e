//! Layer 3: blocks sorted into their slabs (the paper's coalesce-to-page layer).
//!
//! A slab is a run of pages split into blocks of one class. Its record lies out of line, with a bit for each block that
//! is set iff the block is here and free; so a free block's memory is not touched, a refill comes in address order, and
//! a block that comes twice is seen. Slabs with free blocks are ordered by how many they have, and lists are filled from
//! those with the fewest, so that the others can drain; a slab whose blocks are all here goes back to the runs at once.
//!
//! The record also knows which pages of the slab no block outside lies in: such pages, while they are resident, are
//! counted, and can be purged without the slab being whole.

use super::batch::{Batch, Returns};
use super::class::Class;
use super::kept::{Kept, Marks, Word as Kind};
use super::map::Page;
use super::note::NOBODY;
use super::roster::{Neighbours, Roster};
use crate::fatal::{Fatal, die};
use crate::sync::in_order;
use core::ops::Deref;
use core::ptr::NonNull;

/// Bins by number of free blocks.
const BINS: usize = 64;

/// Where a slab is: in the bin of that number, or elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place(u8);

impl Place {
    /// All its blocks are out.
    const FULL: Self = Self(BINS as u8);
    /// With a purger: no block leaves, blocks may come.
    const PURGING: Self = Self(BINS as u8 + 1);
    /// Not among the slabs: fresh from the runs, or on its way back to them, with its keeper.
    const APART: Self = Self(BINS as u8 + 2);
    /// No slab: memory for a record.
    #[cfg(feature = "shared")]
    const SPARE: Self = Self(BINS as u8 + 3);

    /// In the bin for its number of free blocks.
    const fn binned(bin: u8) -> Self {
        Self(bin)
    }

    /// The bin that it is in.
    fn bin(self) -> Option<u8> {
        (self.0 < Self::FULL.0).then_some(self.0)
    }
}

impl Kind for Place {
    type Bits = u32;

    #[inline(always)]
    fn bits(self) -> u32 {
        u32::from(self.0)
    }
}

impl Kind for Class {
    type Bits = u32;

    #[inline(always)]
    fn bits(self) -> u32 {
        self.index() as u32
    }
}

impl Kind for Option<SlabRef> {
    type Bits = u64;

    #[inline(always)]
    fn bits(self) -> u64 {
        self.map_or(0, |slab| slab.0.as_ptr() as u64)
    }
}

/// A word of a slab's bitmap.
#[derive(Debug)]
#[repr(C)]
struct BlockWord {
    /// A bit is set iff its block is here and free.
    bits: Kept<u64>,
    /// Blocks that an audit has met elsewhere.
    met: Marks,
}

/// The record of a slab; the words of its bitmap follow it. Under the lock of its class.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Slab {
    first: Page,
    class: Kept<Class>,
    page_shift: u32,
    pages: u32,
    /// The address of block 0.
    base: usize,
    /// Blocks in the slab, and in a page at the least.
    blocks: u32,
    blocks_in_page: u32,
    /// The number of free blocks, less one, shifted by this is the slab's bin.
    bin_shift: u32,
    /// Set bits.
    free: Kept<u32>,
    /// No word below this one has a set bit.
    hint: Kept<u32>,
    place: Kept<Place>,
    /// The neighbours in the bin; `next` also links slabs on their way to the runs, and spare records.
    next: Kept<Option<SlabRef>>,
    prev: Kept<Option<SlabRef>>,
    /// The neighbours among the slabs with pages to purge; in that list iff `queued` is 1, and not 0.
    later: Kept<Option<SlabRef>>,
    sooner: Kept<Option<SlabRef>>,
    queued: Kept<u8>,
    /// Bit `i` is set iff page `i` may hold anything but zeros.
    touched: Kept<u32>,
    /// Bit `i` is set iff no block outside lies, wholly or partly, in page `i`.
    empty: Kept<u32>,
    /// In whose hand it is while it is apart, in a heap that processes share.
    keeper: Kept<u32>,
    roster: Neighbours,
}

/// What a slab adds to the gauges of its class, as bits of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gauge {
    touched: u32,
    empty: u32,
}

impl Gauge {
    /// Pages that are resident for no block outside.
    const fn idle(self) -> u32 {
        (self.touched & self.empty).count_ones()
    }
}

/// A slab's record by its address. Records are never unmapped while their heap lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct SlabRef(NonNull<Slab>);

// SAFETY: a record's cells are reached under the lock of its class; its plain fields never change while it is a slab.
unsafe impl Send for SlabRef {}

impl Deref for SlabRef {
    type Target = Slab;

    #[inline(always)]
    fn deref(&self) -> &Slab {
        // SAFETY: made by `create`, which wrote the record.
        unsafe { self.0.as_ref() }
    }
}

/// Words of the bitmap of a slab with `blocks` blocks.
const fn words(blocks: usize) -> usize {
    blocks.div_ceil(64)
}

/// What the free blocks of a slab with `blocks` blocks, less one, are shifted by: as many bins as they fill at a power of
/// two of blocks each.
const fn bin_shift(blocks: u32) -> u32 {
    blocks.next_power_of_two().trailing_zeros().saturating_sub(BINS.trailing_zeros())
}

impl SlabRef {
    /// Bytes of a record for slabs of `class`.
    pub(crate) const fn record_bytes(class: Class, page_shift: u32) -> usize {
        (size_of::<Slab>() + size_of::<BlockWord>() * words(class.slab_blocks(page_shift))).next_multiple_of(64)
    }

    /// Writes a record at `at` for the slab of `class` at page `first` and address `base`, all of whose blocks are here.
    /// Bit `i` of `dirty` says whether its page `i` may hold anything but zeros.
    ///
    /// # Safety
    /// - `at` is aligned to 64 and has `record_bytes(class, page_shift)` bytes that nobody uses;
    /// - the pages are `class`'s `slab_pages` and belong to the caller.
    pub(crate) unsafe fn create(
        at: NonNull<u8>,
        class: Class,
        page_shift: u32,
        first: Page,
        base: usize,
        dirty: u32,
    ) -> Self {
        let blocks = class.slab_blocks(page_shift) as u32;
        let pages = class.slab_pages(page_shift);
        let record = Slab {
            first,
            class: Kept::new(class),
            page_shift,
            pages: pages as u32,
            base,
            blocks,
            blocks_in_page: ((1 << page_shift) / class.size()) as u32,
            bin_shift: bin_shift(blocks),
            free: Kept::new(blocks),
            hint: Kept::new(0),
            place: Kept::new(Place::APART),
            next: Kept::new(None),
            prev: Kept::new(None),
            later: Kept::new(None),
            sooner: Kept::new(None),
            queued: Kept::new(0),
            touched: Kept::new(dirty),
            empty: Kept::new(u32::MAX >> (32 - pages)),
            keeper: Kept::new(NOBODY),
            roster: Neighbours::new(),
        };
        let slab = Self(at.cast());
        // SAFETY: the caller gives the memory.
        unsafe { slab.0.write(record) };
        for word in 0..words(blocks as usize) as u32 {
            let here = (blocks - word * 64).min(64);
            let full = BlockWord { bits: Kept::new(u64::MAX >> (64 - here)), met: Marks::new() };
            // SAFETY: as above; the words follow the record.
            unsafe { slab.word_at(word).write(full) };
        }
        slab
    }

    pub(crate) fn address(self) -> usize {
        self.0.as_ptr().expose_provenance()
    }

    pub(crate) fn from_address(address: usize) -> Option<Self> {
        NonNull::new(core::ptr::with_exposed_provenance_mut(address)).map(Self)
    }

    /// Where word `at` of the bitmap lies.
    #[inline(always)]
    fn word_at(&self, at: u32) -> NonNull<BlockWord> {
        // SAFETY: the record ends where its words begin.
        let first = unsafe { self.0.add(1) }.cast::<BlockWord>();
        // SAFETY: `at` is below `words(blocks)`: it comes from a block's index or from a loop up to that.
        unsafe { first.add(at as usize) }
    }

    /// The marks of the blocks of word `at`.
    fn marks(&self, at: u32) -> &Marks {
        // SAFETY: `create` wrote the words.
        &unsafe { self.word_at(at).as_ref() }.met
    }

    /// Word `at` of the bitmap.
    #[inline(always)]
    fn word(&self, at: u32) -> &Kept<u64> {
        // SAFETY: `create` wrote the words.
        &unsafe { self.word_at(at).as_ref() }.bits
    }
}

impl Slab {
    pub(crate) fn first(&self) -> Page {
        self.first
    }

    #[inline(always)]
    pub(crate) fn class(&self) -> Class {
        self.class.get()
    }

    pub(crate) fn pages(&self) -> u32 {
        self.pages
    }

    /// Its place among all slabs of its class.
    #[cfg(feature = "malloc-debug")]
    pub(super) fn roster(&self) -> &Neighbours {
        &self.roster
    }

    /// Says in whose hand it is, while it is apart.
    pub(crate) fn keep_for(&self, keeper: u32) {
        self.keeper.set(keeper);
    }

    /// Pages that may hold anything but zeros, as bits.
    pub(crate) fn touched(&self) -> u32 {
        self.touched.get()
    }

    /// Which block begins at `address`; `None` if none does.
    #[inline]
    pub(crate) fn index_of(&self, address: usize) -> Option<u32> {
        let offset = address.wrapping_sub(self.base);
        if offset >= (self.pages as usize) << self.page_shift {
            return None;
        }
        let index = self.class().block_at(offset);
        (index < self.blocks as usize && index * self.class().size() == offset).then_some(index as u32)
    }

    /// The pages that the block at `offset` lies in, as bits: one, or some neighbours.
    #[inline(always)]
    fn pages_at(&self, offset: usize) -> u32 {
        let (first, last) = (offset >> self.page_shift, (offset + self.class().size() - 1) >> self.page_shift);
        (2 << last) - (1 << first)
    }

    fn gauge(&self) -> Gauge {
        Gauge { touched: self.touched.get(), empty: self.empty.get() }
    }

    /// The bin for the present number of free blocks.
    fn bin(&self) -> u8 {
        ((self.free.get() - 1) >> self.bin_shift) as u8
    }
}

impl SlabRef {
    /// Lets up to `want` free blocks out, the lowest first.
    fn let_out(self, want: usize, out: &mut Batch) {
        let size = self.class().size();
        let words = words(self.blocks as usize) as u32;
        let (mut at, mut left, mut pages) = (self.hint.get(), want, 0);
        while at < words {
            let mut bits = self.word(at).get();
            while bits != 0 && left > 0 {
                let offset = (at * 64 + bits.trailing_zeros()) as usize * size;
                bits &= bits - 1;
                left -= 1;
                pages |= self.pages_at(offset);
                out.push(self.base + offset);
            }
            in_order();
            self.word(at).set(bits);
            if left == 0 {
                break;
            }
            at += 1;
        }
        self.hint.set(at);
        self.free.set(self.free.get() - (want - left) as u32);
        self.empty.set(self.empty.get() & !pages);
        self.touched.set(self.touched.get() | pages);
    }

    /// Takes block `index` back, and returns the pages it lies in, as bits; `look_for_empty` must follow.
    #[inline(always)]
    fn take_back(self, index: u32) -> u32 {
        let (at, bit) = (index / 64, 1u64 << (index % 64));
        let word = self.word(at);
        if word.get() & bit != 0 {
            die(Fatal::DoubleFree);
        }
        word.set(word.get() | bit);
        self.hint.set(self.hint.get().min(at));
        self.free.set(self.free.get() + 1);
        self.pages_at(index as usize * self.class().size())
    }

    /// Notes which of `pages`, to which blocks have come, have all their blocks here now.
    #[inline]
    fn look_for_empty(self, pages: u32) {
        if self.free.get() < self.blocks_in_page {
            return;
        }
        let mut left = pages;
        while left != 0 {
            let page = left.trailing_zeros();
            left &= left - 1;
            if self.is_empty(page) {
                self.empty.set(self.empty.get() | 1 << page);
            }
        }
    }

    /// Whether all blocks that lie in `page`, wholly or partly, are here.
    fn is_empty(self, page: u32) -> bool {
        let begin = (page as usize) << self.page_shift;
        let first = self.class().block_at(begin) as u32;
        let last = self.class().block_at(begin + (1 << self.page_shift) - 1) as u32;
        let end = (last + 1).min(self.blocks);
        (first / 64..end.div_ceil(64)).all(|at| {
            let from = u64::MAX << first.saturating_sub(at * 64);
            let to = u64::MAX >> (64 - (end - at * 64).min(64));
            self.word(at).get() | !(from & to) == u64::MAX
        })
    }
}

/// The slabs of one class.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Slabs {
    /// Slabs by number of free blocks.
    bins: [Option<SlabRef>; BINS],
    /// Bit `i` is set iff bin `i` is not empty.
    filled: u64,
    /// Slabs with pages to purge, the soonest first.
    soonest: Option<SlabRef>,
    latest: Option<SlabRef>,
    /// Records of slabs that have gone.
    spare: Option<SlabRef>,
    /// Every slab there is.
    roster: Roster,
    /// Resident pages, of slabs not with a purger, that no block outside lies in.
    pub(crate) idle_pages: u32,
    /// The fewest of them since the purger last looked.
    pub(crate) low_idle: u32,
    /// Pages of slabs that have not been touched, or were purged since.
    untouched_pages: u32,
    /// Blocks let out and not taken back.
    pub(crate) blocks_out: u64,
    /// Slabs there are.
    pub(crate) count: u64,
    /// Lists filled, lists sorted in, slabs taken from the runs, slabs given back to them.
    pub(crate) filled_lists: u64,
    pub(crate) sorted_lists: u64,
    pub(crate) slabs_taken: u64,
    pub(crate) slabs_given: u64,
}

impl Slabs {
    /// No slab.
    pub(crate) const EMPTY: Self = Self {
        bins: [None; BINS],
        filled: 0,
        soonest: None,
        latest: None,
        spare: None,
        roster: Roster::EMPTY,
        idle_pages: 0,
        low_idle: 0,
        untouched_pages: 0,
        blocks_out: 0,
        count: 0,
        filled_lists: 0,
        sorted_lists: 0,
        slabs_taken: 0,
        slabs_given: 0,
    };

    /// Called at the end of each locked section.
    pub(crate) fn note_low(&mut self) {
        self.low_idle = self.low_idle.min(self.idle_pages);
    }

    pub(crate) fn untouched_pages(&self) -> u32 {
        self.untouched_pages
    }

    /// Fills `batch` up to `want` blocks, from the slabs with the fewest free ones.
    pub(crate) fn fill(&mut self, want: usize, batch: &mut Batch) {
        let before = batch.len();
        while batch.len() < want {
            let bin = self.filled.trailing_zeros() as usize;
            let Some(slab) = self.bins.get(bin).copied().flatten() else {
                break;
            };
            let gauge = slab.gauge();
            slab.let_out(want - batch.len(), batch);
            self.settle(slab, gauge);
        }
        self.blocks_out += (batch.len() - before) as u64;
        self.filled_lists += u64::from(batch.len() == want);
    }

    /// Fills `batch` up to `want` blocks, with `fresh` from the runs if need be. False if other slabs sufficed, to which
    /// blocks came meanwhile: then `fresh` is the caller's again, for a whole slab does not stay here.
    pub(crate) fn fill_with(&mut self, fresh: SlabRef, want: usize, batch: &mut Batch) -> bool {
        self.fill(want, batch);
        let needed = batch.len() < want;
        if needed {
            self.add(fresh);
            self.fill(want, batch);
        }
        needed
    }

    /// Takes blocks back. Returns the slabs that are whole again, linked by `next`: they are the caller's, in the hand of `keeper`.
    pub(crate) fn sort(&mut self, returns: &Returns, keeper: u32) -> Option<SlabRef> {
        let mut whole = None;
        let mut blocks = returns.iter().peekable();
        while let Some((slab, index)) = blocks.next() {
            let gauge = slab.gauge();
            let mut pages = slab.take_back(index);
            while let Some((_, index)) = blocks.next_if(|(same, _)| *same == slab) {
                pages |= slab.take_back(index);
            }
            slab.look_for_empty(pages);
            if keeper != NOBODY {
                slab.keeper.set(keeper);
            }
            if self.settle(slab, gauge) {
                slab.next.set(whole);
                whole = Some(slab);
            }
        }
        self.blocks_out -= returns.len() as u64;
        self.sorted_lists += 1;
        whole
    }

    /// Adds a slab fresh from the runs.
    fn add(&mut self, slab: SlabRef) {
        self.slabs_taken += 1;
        self.count += 1;
        self.roster.enter(slab);
        self.insert(slab);
        self.idle_pages += slab.gauge().idle();
        self.untouched_pages += slab.pages - slab.touched.get().count_ones();
        self.queue(slab);
    }

    /// Puts a slab whose blocks have come or gone, and whose gauge was `before`, in its place; true if it is whole and has
    /// left.
    fn settle(&mut self, slab: SlabRef, before: Gauge) -> bool {
        if slab.place.get() == Place::PURGING {
            return false;
        }
        let now = slab.gauge();
        if now != before {
            self.idle_pages = self.idle_pages + now.idle() - before.idle();
            self.untouched_pages = self.untouched_pages + before.touched.count_ones() - now.touched.count_ones();
        }
        if slab.free.get() == slab.blocks {
            self.discharge(slab);
            return true;
        }
        if slab.free.get() == 0 {
            self.remove(slab);
        } else if slab.place.get() != Place::binned(slab.bin()) {
            self.remove(slab);
            self.insert(slab);
        }
        if now.touched & now.empty != 0 {
            self.queue(slab)
        } else {
            self.unqueue(slab)
        }
        false
    }

    /// Takes a whole slab out of everything.
    fn discharge(&mut self, slab: SlabRef) {
        self.remove(slab);
        self.unqueue(slab);
        self.idle_pages -= slab.gauge().idle();
        self.untouched_pages -= slab.pages - slab.touched.get().count_ones();
        self.slabs_given += 1;
        self.count -= 1;
        self.roster.leave(slab);
        in_order();
        slab.place.set(Place::APART);
    }

    /// Puts a slab with free blocks in its bin.
    fn insert(&mut self, slab: SlabRef) {
        let bin = slab.bin();
        let head = self.bins[bin as usize % BINS].replace(slab);
        slab.next.set(head);
        slab.prev.set(None);
        if let Some(head) = head {
            head.prev.set(Some(slab));
        }
        self.filled |= 1 << bin;
        slab.place.set(Place::binned(bin));
    }

    /// Takes a slab out of its bin, if it is in one.
    fn remove(&mut self, slab: SlabRef) {
        let Some(bin) = slab.place.replace(Place::FULL).bin() else {
            return;
        };
        let (next, prev) = (slab.next.get(), slab.prev.get());
        if let Some(next) = next {
            next.prev.set(prev);
        }
        match prev {
            Some(prev) => prev.next.set(next),
            None => {
                self.bins[bin as usize % BINS] = next;
                if next.is_none() {
                    self.filled &= !(1 << bin);
                }
            }
        }
    }

    /// Puts a slab with idle pages last among those to purge, if it is not there.
    fn queue(&mut self, slab: SlabRef) {
        if slab.queued.get() == 1 || slab.touched.get() & slab.empty.get() == 0 {
            return;
        }
        slab.queued.set(1);
        slab.sooner.set(self.latest);
        slab.later.set(None);
        match self.latest.replace(slab) {
            Some(latest) => latest.later.set(Some(slab)),
            None => self.soonest = Some(slab),
        }
    }

    /// Takes a slab out from among those to purge, if it is there.
    fn unqueue(&mut self, slab: SlabRef) {
        if slab.queued.replace(0) == 0 {
            return;
        }
        let (sooner, later) = (slab.sooner.get(), slab.later.get());
        match sooner {
            Some(sooner) => sooner.later.set(later),
            None => self.soonest = later,
        }
        match later {
            Some(later) => later.sooner.set(sooner),
            None => self.latest = sooner,
        }
    }

    /// Hands the slab that has waited longest to a purger, and its idle pages as bits.
    pub(crate) fn begin_purge(&mut self) -> Option<(SlabRef, u32)> {
        let slab = self.soonest?;
        self.unqueue(slab);
        self.remove(slab);
        self.idle_pages -= slab.gauge().idle();
        slab.place.set(Place::PURGING);
        Some((slab, slab.touched.get() & slab.empty.get()))
    }

    /// Takes a slab back from a purger that has made the pages `purged` read zero; true if the slab is whole and has
    /// left.
    pub(crate) fn end_purge(&mut self, slab: SlabRef, purged: u32) -> bool {
        slab.touched.set(slab.touched.get() & !purged);
        slab.place.set(Place::FULL);
        self.idle_pages += slab.gauge().idle();
        self.untouched_pages += purged.count_ones();
        self.settle(slab, slab.gauge())
    }

    /// Keeps the record of a slab that has gone.
    pub(crate) fn keep_record(&mut self, slab: SlabRef) {
        slab.next.set(self.spare);
        #[cfg(feature = "shared")]
        slab.mark_spare();
        in_order();
        self.spare = Some(slab);
    }

    /// The address of the record that `spare_record` would return.
    #[cfg(feature = "shared")]
    pub(crate) fn next_record(&self) -> Option<usize> {
        self.spare.map(SlabRef::address)
    }

    /// A record to write anew.
    pub(crate) fn spare_record(&mut self) -> Option<NonNull<u8>> {
        let slab = self.spare?;
        self.spare = slab.next.get();
        Some(slab.0.cast())
    }
}

/// Follows slabs linked by `next`.
pub(crate) fn chain(mut at: Option<SlabRef>) -> impl Iterator<Item = SlabRef> {
    core::iter::from_fn(move || {
        let slab = at?;
        at = slab.next.get();
        Some(slab)
    })
}

#[cfg(feature = "shared")]
#[path = "slab_mend.rs"]
mod mend;

#[path = "slab_audit.rs"]
mod audit;
pub(super) use audit::Sum;

#[cfg(all(test, not(loom)))]
#[path = "slab_tests.rs"]
mod tests;

#[cfg(all(test, loom))]
#[path = "slab_loom_tests.rs"]
mod loom_tests;

#[cfg(all(feature = "cli", not(loom)))]
#[path = "slab_view.rs"]
pub(super) mod view;
