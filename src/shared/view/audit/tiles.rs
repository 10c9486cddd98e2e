//! The page map: entries against each other, and the slabs that they name.

use super::{Auditor, Fault, Settled, Verdict, holds};
use crate::heap::CLASSES;
use crate::heap::view::{MapView, Page, Part, RECORD_BYTES, Seen, SlabView, Standing, Stretch};
use crate::shared::view::figures::Entries;
use std::collections::HashMap;
use std::format;
use std::string::String;
use std::vec::Vec;

const MAP: &str = "page map";
const SLABS: &str = "slabs";

/// What begins at a page, and is as it must be.
pub(super) enum Tile {
    Free(Stretch, u32),
    Used(Stretch),
    /// A slab that somebody has in hand, or that is among the others.
    Slab(Stretch, usize, usize),
    /// The page is in the midst of something that begins before it.
    Covered(Page),
}

impl Tile {
    /// The page behind it.
    fn end(&self) -> Page {
        match self {
            Self::Free(run, _) | Self::Used(run) | Self::Slab(run, ..) => run.first + run.pages,
            Self::Covered(end) => *end,
        }
    }
}

/// All that the page map has.
#[derive(Default)]
pub(super) struct Found {
    /// Free runs by their first page, with their pages.
    pub(super) free: HashMap<Page, u32>,
    pub(super) free_pages: u64,
    pub(super) dirty_pages: u64,
    pub(super) dirty_runs: u64,
    pub(super) used: u64,
    pub(super) used_pages: u64,
    pub(super) pages: u64,
    /// The pages that something began at.
    begins: Vec<Page>,
    /// The records of slabs, by class.
    pub(super) slabs: Vec<Vec<usize>>,
    /// Whether some of it could not be told.
    pub(super) has_gaps: bool,
}

impl Auditor<'_> {
    /// The pages that are taken into the heap, and the one behind those that were taken from the file.
    fn ranges(&self) -> (Page, Page, Page) {
        let (first, end) = self.view.page_range();
        let mapped = self.engine().runs().map_or(0, |runs| runs.mapped_pages());
        (first, first + (mapped.min(u64::from(end - first)) as Page), end)
    }

    /// Walks the page map; what seems wrong is looked at again.
    pub(super) fn walk(&self) -> Found {
        let (first, end, _) = self.ranges();
        let mut found = Found { slabs: std::vec![Vec::new(); CLASSES], ..Found::default() };
        let mut entries = Entries::new(self.view.map());
        let (mut page, mut last_free) = (first, None);
        while page < end && !self.has_enough() {
            let tile = match self.tile(&mut entries, page, end) {
                Ok(tile) => Some(tile),
                Err(fault) => self.tile_again(page, &found.begins, fault.part),
            };
            let Some(tile) = tile else {
                found.has_gaps = true;
                page = self.next_begin(&mut entries, page, end);
                continue;
            };
            found.begins.push(page);
            match tile {
                Tile::Free(run, dirty) => {
                    if last_free == Some(run.first) {
                        self.judge(&[Part::Runs], &mut || self.are_merged(run.first));
                    }
                    last_free = Some(run.first + run.pages);
                    found.free.insert(run.first, run.pages);
                    found.free_pages += u64::from(run.pages);
                    found.dirty_pages += u64::from(dirty);
                    found.dirty_runs += u64::from(dirty > 0);
                }
                Tile::Slab(_, class, record) => found.slabs[class % CLASSES].push(record),
                Tile::Used(run) => {
                    found.used += 1;
                    found.used_pages += u64::from(run.pages);
                }
                Tile::Covered(_) => found.has_gaps = true,
            }
            found.pages += u64::from(tile.end() - page);
            page = tile.end();
        }
        found
    }

    /// Looks again at what seems to be no tile, behind those that began at `begins`.
    fn tile_again(&self, page: Page, begins: &[Page], part: Option<Part>) -> Option<Tile> {
        let parts: Vec<Part> = [Part::Runs].into_iter().chain(part.filter(|part| *part != Part::Runs)).collect();
        let map = self.view.map();
        let mut look = || {
            let (_, end, _) = self.ranges();
            let tile = self.tile(&mut Entries::new(map), page, end);
            // The tile that ended here may have grown.
            if tile.is_ok() { tile } else { self.cover(page, begins).map_or(tile, |end| Ok(Tile::Covered(end))) }
        };
        match self.settle(&parts, &mut look) {
            Settled::Fine(tile) => Some(tile),
            Settled::Wrong(fault) => {
                self.note(fault);
                None
            }
            Settled::Moving => None,
        }
    }

    /// The end of what covers `page`, if something that is whole begins before it: what the walk met, or what has come to be there
    /// since. Only in a heap that somebody lives in: else the walk has come just behind something whole.
    fn cover(&self, page: Page, begins: &[Page]) -> Option<Page> {
        if !self.view.has_life() {
            return None;
        }
        let (_, end, _) = self.ranges();
        let mut entries = Entries::new(self.view.map());
        // What began last may begin no more, where a run before it has grown.
        let mut whole = begins.iter().rev().filter_map(|begin| self.tile(&mut entries, *begin, end).ok());
        let mut behind = whole.next()?.end();
        while behind < page {
            behind = self.tile(&mut entries, behind, end).ok()?.end();
        }
        (behind > page).then_some(behind)
    }

    /// The next page behind `page` where something may begin, if what begins there is not as it must be.
    fn next_begin(&self, entries: &mut Entries<'_>, page: Page, end: Page) -> Page {
        let map = self.view.map();
        if let Seen::Slab(record, _) = entries.at(page)
            && let Some(slab) = SlabView::take(map.from, record, map.page_shift)
            && slab.is_made(page, map.address_of(page))
        {
            return page.saturating_add(slab.pages()).min(end);
        }
        let mut page = page + 1;
        while page < end && matches!(entries.at(page), Seen::None | Seen::RunEnd) {
            page = if entries.at(page) == Seen::None { map.next_there(page, end).max(page + 1) } else { page + 1 };
        }
        page
    }

    /// What begins at `page`.
    fn tile(&self, entries: &mut Entries<'_>, page: Page, end: Page) -> Result<Tile, Fault> {
        let map = self.view.map();
        let at = map.address_of(page);
        let fault = |rule, detail| Fault::new(MAP, rule, at, detail).of(Part::Runs);
        let (seen, left) = (entries.at(page), end - page);
        let run = |pages: u32| Stretch { first: page, pages };
        match seen {
            Seen::Run(pages) | Seen::Kept(pages) | Seen::Held(pages, _) | Seen::Free(pages)
                if !(1..=left).contains(&pages) =>
            {
                let found =
                    fault("a run has a page at least, and ends in the heap", format!("it is to have {pages} pages"));
                // A free run that is none is no user's.
                Err(if matches!(seen, Seen::Free(_)) { found.mendable() } else { found })
            }
            Seen::Free(pages) => self.free_run(entries, run(pages)).map(|dirty| Tile::Free(run(pages), dirty)),
            Seen::Run(pages) | Seen::Kept(pages) => {
                self.ends(entries, run(pages), if pages == 1 { seen } else { Seen::RunEnd })?;
                Ok(Tile::Used(run(pages)))
            }
            Seen::Held(pages, keeper) => {
                let is_taken = self.view.seats_taken().any(|(seat, _)| seat as u32 + 1 == keeper);
                let detail = || format!("seat {} is free", keeper.wrapping_sub(1));
                holds(is_taken, || fault("a run on its way is in somebody's hand", detail()).mendable())?;
                Ok(Tile::Used(run(pages)))
            }
            Seen::Slab(record, class) => {
                let slab = self.slab(record, page, left)?;
                let detail = || format!("of {} and {} bytes", slab.class.size(), class.size());
                holds(slab.class == class, || fault("a slab and its pages are of one class", detail()))?;
                let is_apart = matches!(slab.standing(), Standing::Apart(_));
                let same = |at| entries.at(at) == seen;
                let is_whole = is_apart || (page..page + slab.pages()).all(same);
                holds(is_whole, || fault("the pages of a slab have one record", String::new()))?;
                Ok(Tile::Slab(run(slab.pages()), class.index(), record))
            }
            Seen::None => Err(fault("a page is of a run or of a slab", String::new())),
            Seen::RunEnd => Err(fault("the last page of a run lies behind its first", String::new())),
            Seen::Nothing(word) => Err(fault("a page's entry is one that heaps write", format!("{word:#x}"))),
        }
    }

    /// A free run, with its dirty pages.
    fn free_run(&self, entries: &mut Entries<'_>, run: Stretch) -> Result<u32, Fault> {
        let map = self.view.map();
        self.ends(entries, run, Seen::Free(run.pages)).map_err(Fault::mendable)?;
        let record = map.free_run(run.first);
        let is_intact = record.as_ref().is_some_and(|record| record.is_intact());
        holds(is_intact, || {
            let at = map.address_of(run.first);
            Fault::new("runs", "a free run's record is what was set", at, String::new()).mendable().of(Part::Runs)
        })?;
        let (counted, dirty) = (record.map_or(0, |record| record.dirty()), map.dirty(run.first, run.pages));
        holds(counted == dirty, || {
            let detail = format!("it counts {counted}, and has {dirty}");
            let at = map.address_of(run.first);
            Fault::new("runs", "a free run has as many dirty pages as it counts", at, detail).mendable().of(Part::Runs)
        })?;
        Ok(dirty)
    }

    /// That a run's last page has the entry `last`, and those between none.
    fn ends(&self, entries: &mut Entries<'_>, run: Stretch, last: Seen) -> Verdict {
        let at = self.view.map().address_of(run.first);
        let fault = |rule| Fault::new(MAP, rule, at, format!("it has {} pages", run.pages)).of(Part::Runs);
        let end = run.first + run.pages - 1;
        holds(entries.at(end) == last, || fault("a run's last page has the entry that its first one asks for"))?;
        holds(entries.are_none(run.first + 1, end), || fault("pages within a run have no entry"))
    }

    /// That no free run ends where the one at `first` begins.
    fn are_merged(&self, first: Page) -> Verdict {
        let map = self.view.map();
        let are = matches!((map.entry(first.wrapping_sub(1)), map.entry(first)), (Seen::Free(_), Seen::Free(_)));
        holds(!are, || {
            let at = map.address_of(first);
            Fault::new("runs", "no free run ends where another begins", at, String::new()).mendable()
        })
    }

    /// The slab at `page`, with no more than `left` pages, by its record.
    fn slab(&self, record: usize, page: Page, left: u32) -> Result<SlabView, Fault> {
        let map = self.view.map();
        let at = map.address_of(page);
        let fault = |rule, detail| Fault::new(SLABS, rule, record, detail).of(Part::Runs);
        let of = || format!("of the page at {at:#x}");
        let room = record_room(map, record);
        holds(room >= RECORD_BYTES, || fault("a slab's record lies where records are cut from", of()))?;
        let slab = SlabView::take(map.from, record, map.page_shift);
        let slab = slab.filter(|slab| slab.pages() <= left && slab.is_made(page, at));
        let slab = slab.ok_or_else(|| fault("a slab's record is as it was made", of()))?;
        let bytes = crate::heap::view::slab_record_bytes(slab.class, map.page_shift);
        holds(room >= bytes, || fault("a slab's record lies where records are cut from", of()))?;
        let part = Part::Slabs(slab.class.index());
        let broken = slab.bits_break();
        holds(broken.is_none(), || Fault::new(SLABS, broken.unwrap_or(""), at, String::new()).of(part))?;
        if let Standing::Apart(keeper) = slab.standing() {
            let is_taken = self.view.seats_taken().any(|(seat, _)| seat as u32 + 1 == keeper);
            holds(is_taken, || {
                let detail = format!("seat {} is free", keeper.wrapping_sub(1));
                Fault::new(SLABS, "a slab on its way is in somebody's hand", at, detail).mendable().of(part)
            })?;
            return Ok(slab);
        }
        let broken = slab.words_break();
        holds(broken.is_none(), || {
            let (size, free, counted) = (slab.class.size(), slab.free(), slab.counted());
            let detail = format!("of {size} bytes, {free} blocks are free, {counted} counted");
            Fault::new(SLABS, broken.unwrap_or(""), at, detail).mendable().of(part)
        })?;
        Ok(slab)
    }

    /// Audits that pages that are none of the heap's have no entries.
    pub(super) fn audit_outside(&self) {
        let map = self.view.map();
        self.judge(&[Part::Runs], &mut || {
            let (first, end, _) = self.ranges();
            let last = (map.leaves as u64 * u64::from(MapView::LEAF_PAGES)).min(u64::from(Page::MAX)) as Page;
            let mut entries = Entries::new(map);
            let is_none = entries.are_none(0, first) && entries.are_none(end, last);
            holds(is_none, || Fault::new(MAP, "no page outside of the heap has an entry", 0, String::new()))
        });
    }
}

/// Bytes from `address` on in a run that records are cut from, 0 if there can be no record.
pub(super) fn record_room(map: MapView<'_>, address: usize) -> usize {
    let pages = map.record_pages();
    let Some(page) = map.page_of(address).filter(|_| address.is_multiple_of(64)) else {
        return 0;
    };
    let inner = |at: &Page| matches!(map.entry(*at), Seen::None | Seen::RunEnd);
    let first = (0..pages).map(|back| page.wrapping_sub(back)).find(|at| !inner(at));
    match first.filter(|first| map.entry(*first) == Seen::Run(pages)) {
        Some(first) => map.address_of(first) + ((pages as usize) << map.page_shift) - address,
        None => 0,
    }
}
