//! The page map in a heap's file, for who reads it from outside.

use super::{
    BITMAPS, CLASS_SHIFT, DIRTY, ENTRY_BYTES, FREE, FREE_BYTES, FreeRun, HELD, KEEPER_BITS, KEEPER_SHIFT, KEPT, KIND,
    KeptAtomic, KeptPtr, LEAF_BYTES, LEAF_PAGES, Map, ONE_LEAF, Page, RUN, RUN_END, SLAB, WORD_BYTES, WORD_PAGES,
};
use crate::heap::class::Class;
use crate::heap::kept::{is_sealed, unsealed};
use crate::heap::note::OF_USER;
use crate::image::{Field, Image, Words, field};

/// What the entry of a page says, whether or not that can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    None,
    Free(u32),
    Run(u32),
    RunEnd,
    Kept(u32),
    /// A run of so many pages in the hand of a keeper, whether or not it is a user's.
    Held(u32, u32),
    /// A page of a slab with its record there, of a class.
    Slab(usize, Class),
    /// What no heap writes.
    Nothing(u64),
}

impl Seen {
    /// What a word says. Each has just one that it can come from.
    pub(crate) fn of(word: u64) -> Self {
        let (bare, pages) = (unsealed(word), (unsealed(word) >> 3) as u32);
        let (keeper, short) = (bare >> KEEPER_SHIFT, bare >> 3 == u64::from(pages));
        let seen = match bare & KIND {
            0 if bare == 0 => Self::None,
            FREE if short => Self::Free(pages),
            RUN if short => Self::Run(pages),
            RUN_END if bare == RUN_END => Self::RunEnd,
            KEPT if short => Self::Kept(pages),
            HELD if keeper < 1 << KEEPER_BITS => Self::Held(pages, keeper as u32 & !OF_USER),
            SLAB => Self::slab(bare).unwrap_or(Self::Nothing(word)),
            _ => Self::Nothing(word),
        };
        if is_sealed(word) { seen } else { Self::Nothing(word) }
    }

    fn slab(word: u64) -> Option<Self> {
        let class = Class::all().nth((word >> CLASS_SHIFT).checked_sub(1)? as usize)?;
        Some(Self::Slab((word & super::BELOW_CLASS & !KIND) as usize, class))
    }
}

/// The page map of a heap at `origin`, whose root is at `root`, and its leaves behind each other from `leaves_at` on, with pages
/// of `1 << page_shift` bytes: so it must lie, whatever its words say.
#[derive(Clone, Copy)]
pub(crate) struct MapView<'a> {
    pub(crate) from: &'a dyn Words,
    pub(crate) origin: usize,
    pub(crate) page_shift: u32,
    pub(crate) root: usize,
    pub(crate) leaves_at: usize,
    /// Leaves for pages that the heap may have.
    pub(crate) leaves: usize,
}

impl MapView<'_> {
    /// Pages that a leaf describes.
    pub(crate) const LEAF_PAGES: u32 = LEAF_PAGES as u32;

    pub(crate) fn page_bytes(&self) -> usize {
        1 << self.page_shift
    }

    /// The bytes of a leaf in the file.
    pub(crate) fn leaf_bytes(&self) -> usize {
        LEAF_BYTES.next_multiple_of(self.page_bytes())
    }

    /// Pages of a run that records are cut from.
    pub(crate) fn record_pages(&self) -> u32 {
        super::RECORD_BYTES.div_ceil(self.page_bytes()) as u32
    }

    pub(crate) fn address_of(&self, page: Page) -> usize {
        self.origin + ((page as usize) << self.page_shift)
    }

    /// The page around `address`, which does not lie before the heap.
    pub(crate) fn page_of(&self, address: usize) -> Option<Page> {
        Page::try_from(address.checked_sub(self.origin)? >> self.page_shift).ok()
    }

    fn leaf_at(&self, leaf: usize) -> usize {
        self.leaves_at + leaf * self.leaf_bytes()
    }

    /// The word of the root for a leaf, and what it is where the leaf is made.
    pub(crate) fn slot(&self, leaf: usize) -> (usize, usize) {
        let at = self.root + leaf * size_of::<KeptPtr>() + core::mem::offset_of!(KeptPtr, pointer);
        (self.from.word(at) as usize, self.leaf_at(leaf))
    }

    /// Whether a leaf is made.
    pub(crate) fn has_leaf(&self, leaf: usize) -> bool {
        let (pointer, made) = self.slot(leaf);
        leaf < self.leaves && pointer == made
    }

    /// Copies the entries of pages from `first` on, as many as lie in its leaf and in `into`, and returns how many; those of a
    /// leaf that is not made read zero.
    pub(crate) fn entries(&self, first: Page, into: &mut [u64]) -> usize {
        let (leaf, at) = (first as usize / LEAF_PAGES, first as usize % LEAF_PAGES);
        let count = into.len().min(LEAF_PAGES - at);
        let into = &mut into[..count];
        if !self.has_leaf(leaf) || !self.from.copy(self.leaf_at(leaf) + at * ENTRY_BYTES, into) {
            into.fill(0);
        }
        crate::sync::fence_loads();
        count
    }

    pub(crate) fn entry(&self, page: Page) -> Seen {
        let mut word = [0];
        self.entries(page, &mut word);
        Seen::of(word[0])
    }

    /// The first page from `page` on, of those before `end`, that may have an entry.
    pub(crate) fn next_there(&self, page: Page, end: Page) -> Page {
        let mut page = page;
        while page < end {
            let (leaf, at) = (page as usize / LEAF_PAGES, page as usize % LEAF_PAGES);
            let next_leaf = (leaf + 1) * LEAF_PAGES;
            if self.has_leaf(leaf) {
                let entry = self.leaf_at(leaf) + at * ENTRY_BYTES;
                let skipped = (self.from.next_there(entry) - entry) / ENTRY_BYTES;
                if at + skipped < LEAF_PAGES {
                    return ((page as usize + skipped) as Page).min(end);
                }
            }
            page = Page::try_from(next_leaf).unwrap_or(end);
        }
        end
    }

    /// The record of a free run at `page`.
    pub(crate) fn free_run(&self, page: Page) -> Option<FreeRunView> {
        let (leaf, at) = (page as usize / LEAF_PAGES, page as usize % LEAF_PAGES);
        let record = self.leaf_at(leaf) + LEAF_PAGES * ENTRY_BYTES + at * FREE_BYTES;
        if self.has_leaf(leaf) { Image::take(self.from, record) } else { None }
    }

    /// How many pages of a stretch that lies in leaves that are made may hold anything but zeros.
    pub(crate) fn dirty(&self, first: Page, pages: u32) -> u32 {
        const BITS: Field<KeptAtomic> = KeptAtomic::WORD;
        let (mut page, end, mut count) = (first as usize, first as usize + pages as usize, 0);
        while page < end {
            let (leaf, at) = (page / LEAF_PAGES, page % LEAF_PAGES);
            let (bit, here) = (at % WORD_PAGES, (WORD_PAGES - at % WORD_PAGES).min(end - page));
            let bitmap = LEAF_PAGES * (ENTRY_BYTES + FREE_BYTES) + DIRTY * LEAF_PAGES / WORD_PAGES * WORD_BYTES;
            let word = self.leaf_at(leaf) + bitmap + at / WORD_PAGES * WORD_BYTES + BITS.at();
            count += (self.from.word(word) >> bit & (u64::MAX >> (WORD_PAGES - here))).count_ones();
            page += here;
        }
        count
    }

    /// Where a word of the leaves' bitmaps lies that is not what was set, as far as can be told, if there is one.
    pub(crate) fn bitmaps_break(&self) -> Option<usize> {
        (0..self.leaves).filter(|leaf| self.has_leaf(*leaf)).find_map(|leaf| {
            let mut at = self.leaf_at(leaf) + LEAF_PAGES * (ENTRY_BYTES + FREE_BYTES);
            let end = at + BITMAPS * LEAF_PAGES / WORD_PAGES * WORD_BYTES;
            let mut words = [0; 512];
            while at < end {
                // Zeros have zeros for copies.
                at = self.from.next_there(at).min(end);
                let some = &mut words[..((end - at) / 8).min(512)];
                let is_there = self.from.copy(at, some);
                let each = some.chunks(WORD_BYTES / 8);
                if let Some(broken) = each.clone().position(|word| is_there && !KeptAtomic::is_intact_in(word)) {
                    return Some(at + broken * WORD_BYTES);
                }
                at += each.len() * WORD_BYTES;
            }
            None
        })
    }

    /// What the map's own words at `at` say against where the map must lie: the first of them that is another, by its name.
    pub(crate) fn words_break(&self, at: usize, window_pages: usize) -> Option<(&'static str, u64, u64)> {
        let Some(image) = Image::<Map>::take(self.from, at) else {
            return Some(("address", at as u64, 0));
        };
        let leaf_pages = if window_pages <= ONE_LEAF { window_pages } else { LEAF_PAGES };
        let words = [
            ("first address", field!(Map, origin), self.origin),
            ("shift of a page", field!(Map, page_shift), self.page_shift as usize),
            ("pages of a granule", field!(Map, grain), 0),
            ("shift of a leaf", field!(Map, leaf_shift), leaf_pages.next_power_of_two().trailing_zeros() as usize),
            ("pages of a leaf", field!(Map, leaf_pages), leaf_pages),
            ("leaves", field!(Map, leaves), window_pages.div_ceil(leaf_pages)),
            ("root", field!(Map, root), self.root),
        ];
        let said = words.map(|(name, field, right)| (name, image.get(field), right as u64));
        said.into_iter().find(|(_, said, right)| said != right)
    }
}

const _: () = assert!(BITMAPS > DIRTY && KeptAtomic::WORD.at() < WORD_BYTES);

/// Calls `each` with the words of the map at `at` that `Map::each_fixed_word` calls it with.
pub(in crate::heap) fn each_fixed_word(from: &dyn Words, at: usize, each: &mut dyn FnMut(u64)) {
    let image = Image::<Map>::take(from, at);
    let fields = [
        field!(Map, page_shift),
        field!(Map, grain),
        field!(Map, leaf_shift),
        field!(Map, origin),
        field!(Map, leaf_pages),
        field!(Map, leaves),
        field!(Map, root),
    ];
    fields.into_iter().for_each(|field| each(image.as_ref().map_or(0, |image| image.get(field))));
}

/// A copy of a free run's record.
pub(crate) type FreeRunView = Image<FreeRun>;

impl Image<FreeRun> {
    /// Those below it in its bin.
    pub(crate) fn children(&self) -> [Page; 2] {
        [0, 1].map(|turn| self.nth(field!(FreeRun, child), turn) as Page)
    }

    pub(crate) fn parent(&self) -> Page {
        self.get_u32(field!(FreeRun, parent))
    }

    pub(crate) fn older(&self) -> Page {
        self.get_u32(field!(FreeRun, older))
    }

    pub(crate) fn newer(&self) -> Page {
        self.get_u32(field!(FreeRun, newer))
    }

    pub(crate) fn dirty(&self) -> u32 {
        self.get_u32(field!(FreeRun, dirty))
    }

    /// Whether all that is in use is what was set, as far as can be told.
    pub(crate) fn is_intact(&self) -> bool {
        let links = [field!(FreeRun, child), field!(FreeRun, parent), field!(FreeRun, dirty)];
        let queue = [field!(FreeRun, older), field!(FreeRun, newer)];
        self.are_intact(&links) && (self.dirty() == 0 || self.are_intact(&queue))
    }
}
