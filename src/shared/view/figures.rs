//! What a heap has, by layers, classes and pages: figures for people. Others go on meanwhile.

use super::View;
use crate::heap::CLASSES;
use crate::heap::Class;
use crate::heap::view::{
    ChunkView, DepotView, LENGTHS, MapView, PAGE_LISTS, Page, Seen, SlabView, Stretch, next_spare, run_target,
};
use std::collections::{BTreeSet, HashSet};
use std::vec::Vec;

/// What lies side by side in the pages of a heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tile {
    /// Its address.
    pub at: usize,
    /// Its pages.
    pub pages: u64,
    /// What it is.
    pub kind: Kind,
}

/// What some pages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A free run, some of whose pages may hold memory.
    Free {
        /// How many.
        dirty: u32,
    },
    /// A run in use, or in the cache of a thread.
    Run,
    /// A run that records are cut from.
    Records,
    /// A run on its way, or kept for its former user.
    Held,
    /// A slab.
    Slab {
        /// Bytes in a block.
        size: usize,
        /// Blocks in the slab.
        blocks: u32,
        /// Those that are here and free: others are live, cached, or in the depot.
        free: u32,
    },
    /// Pages that nothing is known of: just being changed, or damaged, or not taken into the heap yet.
    Unclear,
}

/// Where the bytes of a heap are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Layers {
    /// Bytes of the header, the engine's own state and the seats that have room.
    pub head: u64,
    /// Bytes of the page map: its root and the leaves that are made.
    pub map: u64,
    /// Leaves that are made, and that there may be.
    pub leaves: (u64, u64),
    /// Slabs, and their bytes.
    pub slabs: (u64, u64),
    /// Blocks in them that are live, cached by threads, in the depot, and free in their slabs; and their bytes.
    pub live_blocks: (u64, u64),
    /// Those cached by threads.
    pub cached_blocks: (u64, u64),
    /// Those in the depot.
    pub depot_blocks: (u64, u64),
    /// Those free in their slabs.
    pub free_blocks: (u64, u64),
    /// Runs in use, those in caches included, and their bytes.
    pub runs: (u64, u64),
    /// Bytes of them that are live, and that are cached by threads.
    pub live_runs: u64,
    /// Bytes of runs that are cached by threads.
    pub cached_runs: u64,
    /// Runs that records are cut from, and their bytes.
    pub records: (u64, u64),
    /// Runs on their way, and their bytes.
    pub held: (u64, u64),
    /// Free runs, and their bytes.
    pub free_runs: (u64, u64),
    /// Bytes of pages that nothing is known of.
    pub unclear: u64,
    /// All of it.
    pub used: u64,
}

/// What a heap has of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassFigures {
    /// Bytes in a block.
    pub size: usize,
    /// Blocks that are live.
    pub live: u64,
    /// Those cached by threads.
    pub cached: u64,
    /// Those in the depot.
    pub depot: u64,
    /// Those free in their slabs.
    pub free: u64,
    /// Blocks allocated ever.
    pub allocs: u64,
    /// Blocks freed ever.
    pub frees: u64,
}

/// The words of entries that lie side by side, read a stretch at a time.
pub(super) struct Entries<'a> {
    map: MapView<'a>,
    first: Page,
    words: Vec<u64>,
    count: usize,
}

impl<'a> Entries<'a> {
    pub(super) fn new(map: MapView<'a>) -> Self {
        Self { map, first: 0, words: std::vec![0; 512], count: 0 }
    }

    /// What the entry of a page says.
    pub(super) fn at(&mut self, page: Page) -> Seen {
        let at = page.wrapping_sub(self.first) as usize;
        if at < self.count {
            return Seen::of(self.words[at]);
        }
        (self.first, self.count) = (page, self.map.entries(page, &mut self.words));
        Seen::of(self.words[0])
    }

    /// Whether no page of a stretch has an entry.
    pub(super) fn are_none(&mut self, first: Page, end: Page) -> bool {
        let mut page = first;
        while page < end {
            page = self.map.next_there(page, end);
            // All that was read with it is looked at.
            while page < end {
                if self.at(page) != Seen::None {
                    return false;
                }
                page += 1;
                if (page - self.first) as usize >= self.count {
                    break;
                }
            }
        }
        true
    }
}

impl View {
    /// The pages that were taken from the file: the first, and the one behind the last.
    pub(super) fn page_range(&self) -> (Page, Page) {
        let ((first, end), shift) = (self.given(), self.map().page_shift);
        // The last page of the largest heap has the last number: none lies behind it.
        let page = |at: usize| Page::try_from(at >> shift).unwrap_or(Page::MAX);
        (page(first), page(end))
    }

    /// Bytes of the file from its begin on that are in use, or were.
    #[must_use]
    pub fn used(&self) -> u64 {
        let ((first, end), map) = (self.given(), self.map());
        let made = (0..map.leaves).filter(|leaf| map.has_leaf(*leaf)).count();
        (self.seat_at(self.furnished()) - self.at() + self.pages.root + made * map.leaf_bytes() + end - first) as u64
    }

    /// Calls `each` with everything that lies in the heap's pages, by address. O(pages).
    pub fn each_tile(&self, each: &mut dyn FnMut(Tile)) {
        let records = self.record_pages();
        let map = self.map();
        let is_record = |run: Stretch| {
            run.pages == map.record_pages() && records.range(run.first..run.first + run.pages).next().is_some()
        };
        self.walk(&mut |stretch, seen, slab| {
            let kind = match (seen, slab) {
                (Seen::Free(_), _) => Kind::Free { dirty: map.free_run(stretch.first).map_or(0, |run| run.dirty()) },
                (Seen::Run(_), _) if is_record(stretch) => Kind::Records,
                (Seen::Run(_), _) => Kind::Run,
                (Seen::Held(..) | Seen::Kept(_), _) => Kind::Held,
                (_, Some(slab)) => Kind::Slab { size: slab.class.size(), blocks: slab.blocks(), free: slab.free() },
                _ => Kind::Unclear,
            };
            each(Tile { at: map.address_of(stretch.first), pages: u64::from(stretch.pages), kind });
        });
    }

    /// Calls `each` with every run and slab of the page map, and the pages between them, by address.
    fn walk(&self, each: &mut dyn FnMut(Stretch, Seen, Option<SlabView>)) {
        let (first, end) = self.page_range();
        let map = self.map();
        let mut entries = Entries::new(map);
        let (mut page, mut unclear) = (first, Stretch { first, pages: 0 });
        while page < end {
            let seen = entries.at(page);
            let (pages, slab) = match seen {
                Seen::Free(pages) | Seen::Run(pages) | Seen::Kept(pages) | Seen::Held(pages, _) => (pages, None),
                Seen::Slab(record, class) => {
                    let slab = SlabView::take(map.from, record, map.page_shift);
                    let slab = slab.filter(|slab| slab.class == class && slab.first() == page);
                    (slab.as_ref().map_or(0, SlabView::pages), slab)
                }
                Seen::None | Seen::RunEnd | Seen::Nothing(_) => (0, None),
            };
            if (1..=end - page).contains(&pages) {
                if unclear.pages > 0 {
                    each(unclear, Seen::None, None);
                }
                each(Stretch { first: page, pages }, seen, slab);
                page += pages;
                unclear = Stretch { first: page, pages: 0 };
            } else {
                page = if seen == Seen::None { map.next_there(page, end).max(page + 1) } else { page + 1 };
                unclear.pages = page - unclear.first;
            }
        }
        if unclear.pages > 0 {
            each(unclear, Seen::None, None);
        }
    }

    /// The pages that records begin in.
    fn record_pages(&self) -> BTreeSet<Page> {
        let (map, engine) = (self.map(), self.engine());
        let mut pages = BTreeSet::new();
        let mut add = |record: usize| pages.extend(map.page_of(record));
        self.walk(&mut |_, _, slab| slab.iter().for_each(|slab| add(slab.record)));
        for class in 0..CLASSES {
            let spare = engine.slabs(class).map_or(0, |slabs| slabs.spare());
            chain(spare, &mut |record| {
                add(record);
                next_spare(map.from, record)
            });
        }
        let depots = (0..CLASSES).map(|class| engine.depot(class)).chain((0..LENGTHS).map(|at| engine.run_depot(at)));
        for first in depots.flatten().flat_map(|depot| [depot.older(), depot.spare()]) {
            chain(first, &mut |chunk| {
                add(chunk);
                ChunkView::take(map.from, chunk).map(|chunk| chunk.older())
            });
        }
        if let Some([_, end, _]) = engine.records().filter(|[_, end, _]| *end > 0) {
            add(end - 1);
        }
        pages
    }

    /// Where the bytes of the heap are. O(pages).
    #[must_use]
    pub fn layers(&self) -> Layers {
        let (map, shift) = (self.map(), self.map().page_shift);
        let made = (0..map.leaves).filter(|leaf| map.has_leaf(*leaf)).count();
        let mut layers = Layers {
            head: (self.seat_at(self.furnished()) - self.at()) as u64,
            map: (self.pages.root + made * map.leaf_bytes()) as u64,
            leaves: (made as u64, map.leaves as u64),
            used: self.used(),
            ..Layers::default()
        };
        let add = |sum: &mut (u64, u64), bytes: u64| *sum = (sum.0 + 1, sum.1 + bytes);
        let mut out = [0_u64; CLASSES];
        self.each_tile(&mut |tile| {
            let bytes = tile.pages << shift;
            match tile.kind {
                Kind::Free { .. } => add(&mut layers.free_runs, bytes),
                Kind::Run => add(&mut layers.runs, bytes),
                Kind::Records => add(&mut layers.records, bytes),
                Kind::Held => add(&mut layers.held, bytes),
                Kind::Unclear => layers.unclear += bytes,
                Kind::Slab { size, blocks, free } => {
                    add(&mut layers.slabs, bytes);
                    layers.free_blocks.0 += u64::from(free);
                    layers.free_blocks.1 += u64::from(free) * size as u64;
                    let class = Class::of_size(size, 1).map_or(0, Class::index);
                    out[class % CLASSES] += u64::from(blocks.saturating_sub(free));
                }
            }
        });
        let counts = self.counts();
        for (class, out) in Class::all().zip(out) {
            let depot = self.engine().depot(class.index()).map_or(0, |depot| self.in_depot(&depot, class));
            let cached = counts.cached_blocks(class).min(out);
            let depot = depot.min(out - cached);
            let blocks = [(&mut layers.cached_blocks, cached), (&mut layers.depot_blocks, depot)];
            for (sum, blocks) in blocks.into_iter().chain([(&mut layers.live_blocks, out - cached - depot)]) {
                *sum = (sum.0 + blocks, sum.1 + blocks * class.size() as u64);
            }
        }
        let listed = (0..LENGTHS).filter_map(|at| Some((at, self.engine().run_depot(at)?)));
        let listed = listed.map(|(at, depot)| depot.blocks(run_target(at + 1)).wrapping_mul((at as u64 + 1) << shift));
        let listed = listed.fold(0, u64::wrapping_add);
        layers.cached_runs = counts.cached_runs(shift).wrapping_add(listed).min(layers.runs.1);
        layers.live_runs = layers.runs.1 - layers.cached_runs;
        layers
    }

    fn in_depot(&self, depot: &DepotView, class: Class) -> u64 {
        depot.blocks(self.engine().target(class.index()))
    }

    /// What the heap has of each class, the smallest first, and of runs: those of up to 16 pages, in bytes of a page. O(classes).
    #[must_use]
    pub fn classes(&self) -> (Vec<ClassFigures>, ClassFigures) {
        let (shift, Some(books)) = (self.map().page_shift, self.books()) else {
            return (Vec::new(), ClassFigures::default());
        };
        let stats = books.stats();
        let classes = Class::all().zip(&books.slabs).zip(&stats.classes).map(|((class, slabs), row)| {
            let out = slabs.blocks_out();
            let all = slabs.count().wrapping_mul(class.slab_blocks(shift) as u64);
            let cached = row.cached.min(out);
            let depot = row.in_depot.min(out - cached);
            let (live, free) = (out - cached - depot, all.saturating_sub(out));
            ClassFigures { size: row.size, live, cached, depot, free, allocs: row.allocs, frees: row.frees }
        });
        let classes: Vec<ClassFigures> = classes.collect();
        let in_blocks = classes.iter().map(|class| class.live.wrapping_mul(class.size as u64));
        let in_runs = (stats.allocated as u64).saturating_sub(in_blocks.fold(0, u64::wrapping_add));
        let (allocs, frees) = books.counts.of_runs();
        let runs = ClassFigures {
            size: 1 << shift,
            live: in_runs >> shift,
            cached: books.counts.cached_runs(shift) >> shift,
            depot: 0,
            free: books.runs.free_pages(),
            allocs,
            frees,
        };
        (classes, runs)
    }
}

/// Calls `each` with what is linked from `first` on, once with each: it returns the next one.
pub(super) fn chain(first: usize, each: &mut dyn FnMut(usize) -> Option<usize>) {
    let (mut at, mut met) = (first, HashSet::new());
    while at != 0 && met.insert(at) {
        match each(at) {
            Some(next) => at = next,
            None => break,
        }
    }
}

const _: () = assert!(PAGE_LISTS == 16);
