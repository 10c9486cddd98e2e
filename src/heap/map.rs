//! The page map: what every page of a heap is.
//!
//! A heap's addresses lie in one window; a page is known by its number in it, which fits 32 bits. Per page the map has
//! an [`Entry`], a record for a free run that begins there, and three bits: whether the page may hold anything but zeros,
//! whether another mapping begins with it, and whether a huge granule does. Leaves of the map are made when their first page is mapped, and stay.
//!
//! Who writes: entries of pages in use are written by who owns the pages; everything of free pages under the lock of
//! the runs. The bits of a page in use rest as they were when it was handed out.

use super::class::CLASSES;
use super::kept::{Kept, KeptAtomic, KeptPtr, Marks, sealed, unsealed};
use super::note::NOBODY;
use super::slab::SlabRef;
use crate::fatal::{Fatal, die};
use crate::os::{Source, Span};
use crate::sync::mapped::AtomicU64;
use crate::sync::{AcqRel, Acquire, AtomicPtr, AtomicU32, AtomicUsize, Relaxed, Release, in_order, step};
use crate::twin::{self, Twin};
use core::ptr::{NonNull, null_mut};

/// A page number in the heap's window; 0 is no page.
pub(crate) type Page = u32;

/// Contiguous pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Stretch {
    pub(crate) first: Page,
    pub(crate) pages: u32,
}

/// Pages that a leaf describes, where there is more than one.
const LEAF_PAGES: usize = 1 << 16;
/// Pages of a window up to which one leaf describes all of it, made at once.
const ONE_LEAF: usize = 1 << 24;
/// Bytes taken from the runs at a time for records of slabs and depots, or a page if that is more.
const RECORD_BYTES: usize = 64 << 10;
/// What the address of such a record is a multiple of.
const RECORD_ALIGN: usize = 64;

/// What a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Not ours, or neither the first nor the last page of a run.
    None,
    /// The first or the last page of a free run of that many pages.
    Free(u32),
    /// The first page of a run in use of that many pages.
    Run(u32),
    /// The last page, and not the first, of a run in use.
    RunEnd,
    /// The first page of a run in a reserve: in use for the runs, free for its former user.
    Kept(u32),
    /// The first page of a run that is on its way between the runs and its user, in a heap that processes share, and in whose
    /// hand it is.
    Held(u32, u32),
    /// A page of a slab.
    Slab(SlabRef),
}

/// Above the address of its record the entry of a slab has its class, and one; those of others have nothing there.
const CLASS_SHIFT: u32 = 56;
const BELOW_CLASS: u64 = (1 << CLASS_SHIFT) - 1;

const KIND: u64 = 7;
const FREE: u64 = 1;
const RUN: u64 = 2;
const RUN_END: u64 = 3;
const SLAB: u64 = 4;
const KEPT: u64 = 5;
const HELD: u64 = 6;
/// Above the length of a held run is its keeper.
const KEEPER_SHIFT: u32 = 35;
/// Bits of a keeper, `OF_USER` included: what the check of a word leaves.
const KEEPER_BITS: u32 = 12;

impl Entry {
    /// A run in use that `keeper` has in hand, if that is somebody.
    pub(crate) const fn run(pages: u32, keeper: u32) -> Self {
        if keeper == NOBODY { Self::Run(pages) } else { Self::Held(pages, keeper) }
    }

    /// Kind in the low three bits; above them a length, or the address of a slab's record, which is a multiple of 8 and
    /// below 2⁴⁸, and in the highest byte its class, and one.
    fn encode(self) -> u64 {
        sealed(match self {
            Self::None => 0,
            Self::Free(pages) => u64::from(pages) << 3 | FREE,
            Self::Run(pages) => u64::from(pages) << 3 | RUN,
            Self::RunEnd => RUN_END,
            Self::Kept(pages) => u64::from(pages) << 3 | KEPT,
            Self::Held(pages, keeper) => u64::from(keeper) << KEEPER_SHIFT | u64::from(pages) << 3 | HELD,
            Self::Slab(slab) => (slab.class().index() as u64 + 1) << CLASS_SHIFT | slab.address() as u64 | SLAB,
        })
    }

    fn decode(word: u64) -> Self {
        let word = unsealed(word);
        match word & KIND {
            FREE => Self::Free((word >> 3) as u32),
            RUN => Self::Run((word >> 3) as u32),
            RUN_END => Self::RunEnd,
            KEPT => Self::Kept((word >> 3) as u32),
            HELD => Self::Held((word >> 3) as u32, (word >> KEEPER_SHIFT) as u32 & ((1 << KEEPER_BITS) - 1)),
            SLAB => SlabRef::from_address((word & BELOW_CLASS & !KIND) as usize).map_or(Self::None, Self::Slab),
            _ => Self::None,
        }
    }
}

/// The entry of a page, looked up once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntryRef(NonNull<AtomicU64>);

impl EntryRef {
    /// An entry of its own, for a model.
    #[cfg(all(test, loom))]
    pub(crate) fn for_model(entry: Entry) -> Self {
        Self(NonNull::from(std::boxed::Box::leak(std::boxed::Box::new(AtomicU64::new(entry.encode())))))
    }

    #[inline]
    fn cell(&self) -> &AtomicU64 {
        // SAFETY: leaves are never unmapped while their heap lives, and whoever has this belongs to the heap.
        unsafe { self.0.as_ref() }
    }

    /// Sets what the page is.
    #[inline]
    pub(crate) fn set(self, entry: Entry) {
        self.cell().store(entry.encode(), Relaxed);
        step();
    }

    /// Makes `old`, which the page is if it is the caller's, `new`; false if it is something else.
    #[inline]
    pub(crate) fn exchange(self, old: Entry, new: Entry) -> bool {
        // Relaxed, and no exchange of the processor's: the entry is the owner's.
        let is_old = self.cell().load(Relaxed) == old.encode();
        if is_old {
            self.set(new);
        }
        is_old
    }
}

/// The record of a free run, at its first page: its place in the bin's trie and among the dirty runs.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct FreeRun {
    pub(super) child: [Kept<Page>; 2],
    pub(super) parent: Kept<Page>,
    /// The neighbours among the dirty runs, by the time they were freed.
    pub(super) older: Kept<Page>,
    pub(super) newer: Kept<Page>,
    /// Pages of the run that may hold anything but zeros.
    pub(super) dirty: Kept<u32>,
    /// Whether an audit has met the run, which is in use for the map.
    pub(super) met: Marks,
}

/// The bitmaps of a leaf: which pages may hold anything but zeros, which begin another mapping than the page before, and
/// which begin a huge granule.
const DIRTY: usize = 0;
const SEAM: usize = 1;
const HUGE: usize = 2;
const BITMAPS: usize = 3;

const ENTRY_BYTES: usize = size_of::<AtomicU64>();
/// Pages whose bits are in one word.
const WORD_PAGES: usize = 64;
const WORD_BYTES: usize = size_of::<KeptAtomic>();
const FREE_BYTES: usize = size_of::<FreeRun>();

/// Pages that a leaf describes where there is more than one, and its bytes.
#[cfg(any(feature = "shared", feature = "symmetric"))]
pub(crate) const LEAF_SPAN: usize = LEAF_PAGES;
#[cfg(any(feature = "shared", feature = "symmetric"))]
pub(crate) const LEAF_BYTES: usize =
    LEAF_PAGES * (ENTRY_BYTES + FREE_BYTES) + BITMAPS * LEAF_PAGES.div_ceil(WORD_PAGES) * WORD_BYTES;

/// Pages of a window for which the map grows with the heap, leaf by leaf.
#[cfg(any(feature = "shared", feature = "symmetric"))]
pub(crate) const WINDOW_PAGES: usize = 2 * ONE_LEAF;

/// Bytes of the root for a window of so many bytes, which is so long that there is more than one leaf.
#[cfg(any(feature = "shared", feature = "symmetric"))]
pub(crate) const fn root_bytes(window: usize, page: usize) -> usize {
    (window / page).div_ceil(LEAF_PAGES) * size_of::<KeptPtr>()
}

/// The `count` null pointers that `memory`, which is zero and has room for them, holds.
#[cfg(not(loom))]
fn root_in(memory: NonNull<u8>, _count: usize) -> NonNull<KeptPtr> {
    memory.cast()
}
#[cfg(loom)]
fn root_in(_memory: NonNull<u8>, count: usize) -> NonNull<KeptPtr> {
    let pointers: std::boxed::Box<[KeptPtr]> = (0..count).map(|_| KeptPtr::null()).collect();
    NonNull::from(std::boxed::Box::leak(pointers)).cast()
}

/// The map of one heap.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Map {
    /// The address of page 0; written once, by `open`.
    origin: AtomicUsize,
    /// Pages of `1 << page_shift` bytes.
    page_shift: AtomicU32,
    /// Pages of a granule, a power of two; 0 if there are no huge pages.
    grain: AtomicU32,
    /// A page's number shifted by this is its leaf's.
    leaf_shift: AtomicU32,
    /// Pages that each leaf describes.
    leaf_pages: AtomicUsize,
    leaves: AtomicUsize,
    /// `leaves` pointers to leaves, null until made.
    root: AtomicPtr<KeptPtr>,
}

impl Map {
    crate::sync::const_unless_loom! {
        pub(crate) fn new() -> Self {
            Self {
                origin: AtomicUsize::new(0),
                page_shift: AtomicU32::new(0),
                grain: AtomicU32::new(0),
                leaf_shift: AtomicU32::new(0),
                leaf_pages: AtomicUsize::new(0),
                leaves: AtomicUsize::new(0),
                root: AtomicPtr::new(null_mut()),
            }
        }
    }

    /// Makes the map for the window of `source`; false if there is no memory for it.
    pub(crate) fn open(&self, source: &impl Source) -> bool {
        let shift = source.page_size().trailing_zeros();
        let Some(window) = source.window() else {
            return false;
        };
        let pages = (window.bytes >> shift).clamp(1, 1 << 32);
        let leaf_pages = if pages <= ONE_LEAF { pages } else { LEAF_PAGES };
        let leaves = pages.div_ceil(leaf_pages);
        let bytes = leaves * size_of::<KeptPtr>();
        let Some(memory) = source.records(bytes) else {
            return false;
        };
        let root = root_in(memory, leaves);
        self.origin.store(window.at, Relaxed);
        self.page_shift.store(shift, Relaxed);
        self.grain.store((source.huge_bytes() >> shift) as u32, Relaxed);
        self.leaf_shift.store(leaf_pages.next_power_of_two().trailing_zeros(), Relaxed);
        self.leaf_pages.store(leaf_pages, Relaxed);
        self.leaves.store(leaves, Relaxed);
        // Release: publishes the six above to who finds the root, in `leaf`.
        self.root.store(root.as_ptr(), Release);
        leaves > 1 && source.grows_again() || (0..leaves).all(|leaf| self.make_leaf(leaf, source))
    }

    #[inline]
    pub(crate) fn page_shift(&self) -> u32 {
        self.page_shift.load(Relaxed)
    }

    /// Bytes in a page.
    #[inline]
    pub(crate) fn page_bytes(&self) -> usize {
        1 << self.page_shift()
    }

    /// Pages of a run that records are cut from.
    pub(crate) fn record_pages(&self) -> u32 {
        RECORD_BYTES.div_ceil(self.page_bytes()) as u32
    }

    /// Bytes of the map that may be resident when `pages` pages are mapped.
    pub(crate) const fn bytes_for(pages: usize) -> usize {
        pages * (ENTRY_BYTES + FREE_BYTES) + BITMAPS * pages * WORD_BYTES / WORD_PAGES
    }

    /// Pages of a granule, a power of two; 0 if there are no huge pages.
    #[inline]
    pub(crate) fn grain(&self) -> u32 {
        self.grain.load(Relaxed)
    }

    /// The number of the page at or around `address`, which lies in the window.
    #[inline]
    pub(crate) fn page_of(&self, address: usize) -> Page {
        (address.wrapping_sub(self.origin.load(Relaxed)) >> self.page_shift()) as Page
    }

    /// The address of a page.
    #[inline]
    pub(crate) fn address_of(&self, page: Page) -> usize {
        self.origin.load(Relaxed) + ((page as usize) << self.page_shift())
    }

    /// The addresses of `pages` pages from `first` on.
    pub(crate) fn span(&self, first: Page, pages: u32) -> Span {
        Span { at: self.address_of(first), bytes: (pages as usize) << self.page_shift() }
    }

    /// What the page around any address is; O(1).
    #[inline]
    pub(crate) fn look_up(&self, address: usize) -> Entry {
        let page = address.wrapping_sub(self.origin.load(Relaxed)) >> self.page_shift();
        Page::try_from(page).map_or(Entry::None, |page| self.entry(page))
    }

    /// What a page of the window is.
    #[inline]
    pub(crate) fn entry(&self, page: Page) -> Entry {
        // Relaxed: a page's entry is stable while somebody may ask for it, and that somebody got the page by something
        // that synchronises.
        self.entry_cell(page).map_or(Entry::None, |cell| Entry::decode(cell.load(Relaxed)))
    }

    /// Sets what a page is. Its leaf exists: the page was covered.
    #[inline(never)]
    #[cfg_attr(feature = "fault-points", track_caller)]
    pub(crate) fn set(&self, page: Page, entry: Entry) {
        if let Some(cell) = self.entry_cell(page) {
            cell.store(entry.encode(), Relaxed);
            step();
        }
    }

    /// The entry of a page; `None` if the page is none of the heap's.
    #[inline]
    pub(crate) fn entry_ref(&self, page: Page) -> Option<EntryRef> {
        self.entry_cell(page).map(|cell| EntryRef(NonNull::from(cell)))
    }

    /// Makes `old`, which a page of the caller's is, `new`; false if it is something else.
    #[inline]
    pub(crate) fn exchange(&self, page: Page, old: Entry, new: Entry) -> bool {
        self.entry_ref(page).is_some_and(|entry| entry.exchange(old, new))
    }

    /// The free run that begins with `page`, or ends there; `None` if there is none.
    pub(crate) fn free_stretch(&self, page: Page) -> Option<Stretch> {
        match self.entry(page) {
            Entry::Free(pages) => Some(Stretch { first: page, pages }),
            _ => None,
        }
    }

    /// Writes the entries of a run in use.
    pub(crate) fn set_run(&self, first: Page, pages: u32) {
        self.set_run_of(first, pages, NOBODY);
    }

    /// Writes the entries of a run in use that `keeper` has in hand, if that is somebody. The first page's says it all: it is
    /// written last.
    pub(crate) fn set_run_of(&self, first: Page, pages: u32, keeper: u32) {
        self.set(first + pages - 1, Entry::RunEnd);
        in_order();
        self.set(first, Entry::run(pages, keeper));
    }

    /// Makes the run at `first` one of `new` pages in place of `old`. It is in use all the time: by one store it has the other
    /// length.
    pub(crate) fn resize_run(&self, first: Page, old: u32, new: u32) {
        self.set_run(first, new);
        in_order();
        if old > 1 {
            self.set(first + old - 1, Entry::None);
        }
    }

    /// Clears the entries of a run's first and last page.
    pub(crate) fn clear_run(&self, first: Page, pages: u32) {
        self.set(first, Entry::None);
        self.set(first + pages - 1, Entry::None);
    }

    /// Calls `each` with every word that `open` writes.
    #[cfg(feature = "shared")]
    pub(crate) fn each_fixed_word(&self, each: &mut dyn FnMut(u64)) {
        let Self { origin, page_shift, grain, leaf_shift, leaf_pages, leaves, root } = self;
        [page_shift, grain, leaf_shift].into_iter().for_each(|word| each(u64::from(word.load(Relaxed))));
        [origin, leaf_pages, leaves].into_iter().for_each(|word| each(word.load(Relaxed) as u64));
        each(root.load(Relaxed) as u64);
    }

    /// After somebody's death: the bits of pages are what their words say.
    #[cfg(feature = "shared")]
    pub(crate) fn heal(&self) {
        if cfg!(feature = "malloc-debug") {
            self.heal_words();
        }
    }

    /// Makes sure that leaves exist for `pages` pages from `first` on; false if there is no memory for them.
    pub(crate) fn cover(&self, first: Page, pages: u32, source: &impl Source) -> bool {
        let shift = self.leaf_shift.load(Relaxed);
        let last = (first as usize + pages as usize - 1) >> shift;
        (first as usize >> shift..=last).all(|leaf| self.make_leaf(leaf, source))
    }

    fn make_leaf(&self, leaf: usize, source: &impl Source) -> bool {
        let Some(slot) = self.slot(leaf) else {
            return false;
        };
        // Acquire: pairs with the exchange below.
        if !slot.pointer.load(Acquire).is_null() {
            return true;
        }
        let Some(made) = source.leaf(leaf, self.leaf_bytes()) else {
            return false;
        };
        // Release: publishes the zeroed leaf; pairs with the loads of the slot. If another thread was faster its leaf
        // is used, and this one's untouched addresses stay spare.
        if twin::is(Twin::Leaf) {
            slot.pointer.store(made.as_ptr(), Release);
        }
        step();
        let _ = slot.pointer.compare_exchange(null_mut(), made.as_ptr(), AcqRel, Acquire);
        step();
        slot.note();
        true
    }

    /// Bytes of a leaf.
    fn leaf_bytes(&self) -> usize {
        let pages = self.leaf_pages.load(Relaxed);
        pages * (ENTRY_BYTES + FREE_BYTES) + BITMAPS * pages.div_ceil(WORD_PAGES) * WORD_BYTES
    }

    /// The root's pointer to `leaf`.
    #[inline]
    fn slot(&self, leaf: usize) -> Option<&KeptPtr> {
        // Acquire: pairs with `open`.
        let root = NonNull::new(self.root.load(Acquire))?;
        if leaf >= self.leaves.load(Relaxed) {
            return None;
        }
        // SAFETY: `leaf` is below `leaves`; the root is never unmapped.
        let slot = unsafe { root.add(leaf) };
        // SAFETY: as above; zero bits are a null pointer.
        Some(unsafe { slot.as_ref() })
    }

    /// The leaf of `page` and the page's place in it.
    #[inline]
    fn leaf(&self, page: Page) -> Option<(NonNull<u8>, usize)> {
        let shift = self.leaf_shift.load(Relaxed);
        let at = page as usize & ((1 << shift) - 1);
        if at >= self.leaf_pages.load(Relaxed) {
            return None;
        }
        // Acquire: pairs with `make_leaf`.
        let leaf = NonNull::new(self.slot(page as usize >> shift)?.pointer.load(Acquire))?;
        Some((leaf, at))
    }

    #[inline]
    fn entry_cell(&self, page: Page) -> Option<&AtomicU64> {
        let (leaf, at) = self.leaf(page)?;
        // SAFETY: a leaf begins with an entry for each of its pages.
        let cell = unsafe { leaf.cast::<AtomicU64>().add(at) };
        // SAFETY: as above; leaves are never unmapped.
        Some(unsafe { cell.as_ref() })
    }

    /// The record of a free run that begins at `page`; under the lock of the runs.
    ///
    /// A page without a leaf was never covered: then the heap's records are damaged, and the process ends.
    pub(crate) fn free_run(&self, page: Page) -> &FreeRun {
        let Some((leaf, at)) = self.leaf(page) else { die(Fatal::Damaged) };
        let skip = self.leaf_pages.load(Relaxed) * ENTRY_BYTES + at * FREE_BYTES;
        // SAFETY: after the entries a leaf has a record for each of its pages.
        let record = unsafe { leaf.add(skip) }.cast::<FreeRun>();
        // SAFETY: as above; the lock of the runs keeps other threads away from its cells.
        unsafe { record.as_ref() }
    }

    /// The words of `bitmap` in the leaf of `page`, and the page's place in it.
    #[inline]
    fn words(&self, bitmap: usize, page: Page) -> Option<(NonNull<KeptAtomic>, usize)> {
        let (leaf, at) = self.leaf(page)?;
        let pages = self.leaf_pages.load(Relaxed);
        let skip = pages * (ENTRY_BYTES + FREE_BYTES) + bitmap * pages.div_ceil(WORD_PAGES) * WORD_BYTES;
        // SAFETY: after the records a leaf has its bitmaps, each with a bit for each of its pages, in words.
        Some((unsafe { leaf.add(skip) }.cast::<KeptAtomic>(), at))
    }

    /// The word with the bit of `page` in `bitmap`, and the bit's place in it.
    fn bit_word(&self, bitmap: usize, page: Page) -> Option<(&KeptAtomic, u32)> {
        let (words, at) = self.words(bitmap, page)?;
        // SAFETY: the place lies in the leaf, so its word is one of the bitmap's.
        let word = unsafe { words.add(at / 64) };
        // SAFETY: as above; leaves are never unmapped.
        Some((unsafe { word.as_ref() }, at as u32 % 64))
    }

    /// Calls `each` with the words that hold the bits of `pages` pages from `first` on, and the mask of those bits.
    /// O(pages / 64); the leaf is looked up once for all of its words.
    #[inline]
    fn each_word(&self, bitmap: usize, first: Page, pages: u32, mut each: impl FnMut(&KeptAtomic, u64, Page)) {
        let (mut page, mut left) = (first, pages);
        while left > 0 {
            let Some((words, at)) = self.words(bitmap, page) else {
                return;
            };
            let mut in_leaf = left.min((self.leaf_pages.load(Relaxed) - at) as u32);
            left -= in_leaf;
            let mut at = at as u32;
            while in_leaf > 0 {
                let bit = at % 64;
                let here = in_leaf.min(64 - bit);
                // SAFETY: `at` lies in the leaf, so its word is one of the bitmap's.
                let word = unsafe { words.add(at as usize / 64) };
                // SAFETY: as above; leaves are never unmapped.
                each(unsafe { word.as_ref() }, u64::MAX >> (64 - here) << bit, page.wrapping_sub(bit));
                page = page.wrapping_add(here);
                at += here;
                in_leaf -= here;
            }
        }
    }

    fn each_dirty_word(&self, first: Page, pages: u32, each: impl FnMut(&KeptAtomic, u64, Page)) {
        self.each_word(DIRTY, first, pages, each);
    }

    /// Says that `pages` pages from `first` on are a mapping of their own: pages move without copying only within one.
    /// Under the lock of the runs.
    pub(crate) fn set_seams(&self, first: Page, pages: u32) {
        self.each_word(SEAM, first, pages, |word, mask, _| word.store(word.load() & !mask));
        self.add_seams(Stretch { first, pages });
    }

    /// Says that other mappings may begin with `part` and behind it; under the lock of the runs.
    #[inline(never)]
    pub(crate) fn add_seams(&self, part: Stretch) {
        for seam in [part.first, part.first.wrapping_add(part.pages)] {
            self.each_word(SEAM, seam, 1, |word, mask, _| word.store(word.load() | mask));
        }
    }

    /// Whether the granule around `page` is huge.
    #[inline(never)]
    pub(crate) fn is_huge(&self, page: Page) -> bool {
        let first = page & !self.grain().wrapping_sub(1);
        self.bit_word(HUGE, first).is_some_and(|(word, bit)| word.load() >> bit & 1 == 1)
    }

    /// Says whether the granule at `first` is huge; under the lock of the runs.
    #[inline(never)]
    pub(crate) fn set_huge(&self, first: Page, huge: bool) {
        self.each_word(HUGE, first, 1, |word, mask, _| {
            let others = word.load() & !mask;
            word.store(if huge { others | mask } else { others });
        });
    }

    /// Says that no granule of `part`, which begins with one, is huge; under the lock of the runs.
    pub(crate) fn forget_huge(&self, part: Stretch) {
        if self.grain() > 0 {
            (0..part.pages).step_by(self.grain() as usize).for_each(|at| self.set_huge(part.first + at, false));
        }
    }

    /// Says that the granules from `to` on are huge where those of `pages` pages from `from` on are; under the lock of the
    /// runs.
    pub(crate) fn copy_huge(&self, from: Page, to: Page, pages: u32) {
        if self.grain() > 0 {
            (0..pages).step_by(self.grain() as usize).for_each(|at| self.set_huge(to + at, self.is_huge(from + at)));
        }
    }

    /// How many of `pages` pages from `first` on lie in the same mapping as the first; under the lock of the runs.
    pub(crate) fn seamless(&self, first: Page, pages: u32) -> u32 {
        let mut seam = first + pages;
        self.each_word(SEAM, first + 1, pages - 1, |word, mask, base| {
            let bits = word.load() & mask;
            if bits != 0 {
                seam = seam.min(base + bits.trailing_zeros());
            }
        });
        seam - first
    }

    /// Says that the pages may hold anything; under the lock of the runs.
    #[inline(never)]
    pub(crate) fn soil(&self, first: Page, pages: u32) {
        // Relaxed, here and below: the lock orders the writers, and who reads without it owns the pages.
        self.each_dirty_word(first, pages, |word, mask, _| word.store(word.load() | mask));
    }

    /// Says that the pages read zero; under the lock of the runs.
    #[inline(never)]
    pub(crate) fn clean(&self, first: Page, pages: u32) {
        self.each_dirty_word(first, pages, |word, mask, _| word.store(word.load() & !mask));
    }

    /// How many of the pages may hold anything but zeros.
    #[inline(never)]
    pub(crate) fn dirty(&self, first: Page, pages: u32) -> u32 {
        let mut count = 0;
        self.each_dirty_word(first, pages, |word, mask, _| count += (word.load() & mask).count_ones());
        count
    }

    /// Calls `each` with every stretch of pages that may hold anything but zeros.
    pub(crate) fn dirty_stretches(&self, first: Page, pages: u32, mut each: impl FnMut(Page, u32)) {
        let mut open: Option<(Page, u32)> = None;
        self.each_dirty_word(first, pages, |word, mask, base| {
            let mut bits = word.load() & mask;
            while bits != 0 {
                let start = bits.trailing_zeros();
                let len = (bits >> start).trailing_ones();
                bits &= u64::MAX.checked_shl(start + len).unwrap_or(0);
                let begin = base + start;
                open = match open {
                    Some((first, so_far)) if first + so_far == begin => Some((first, so_far + len)),
                    Some((first, so_far)) => {
                        each(first, so_far);
                        Some((begin, len))
                    }
                    None => Some((begin, len)),
                };
            }
        });
        if let Some((first, len)) = open {
            each(first, len);
        }
    }
}

static_assertions::const_assert!(FREE_BYTES.is_multiple_of(8));
static_assertions::const_assert!(CLASSES < 64);
static_assertions::const_assert!(super::note::OF_USER < 1 << KEEPER_BITS);

#[cfg(feature = "c-abi")]
#[path = "map_quick.rs"]
pub(super) mod quick;

#[path = "map_audit.rs"]
mod audit;
pub(super) use audit::Tile;

#[cfg(all(test, not(loom)))]
#[path = "map_tests.rs"]
mod tests;

#[cfg(all(test, loom))]
#[path = "map_loom_tests.rs"]
mod loom_tests;

#[cfg(all(feature = "cli", not(loom)))]
#[path = "map_view.rs"]
pub(super) mod view;
