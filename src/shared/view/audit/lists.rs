//! Lists of free blocks and runs: those of the depot, and of the caches of who lives.

use super::tiles::record_room;
use super::{Auditor, Fault, Settled, Verdict, describe, holds};
use crate::heap::view::{
    CHUNK_BYTES, CacheView, ChunkView, DepotView, Head, LENGTHS, MapView, PAGE_LISTS, Part, Seen, SlabView, TARGET_MAX,
    run_target,
};
use crate::heap::{CLASSES, Class};
use crate::image::Words;
use std::collections::HashSet;
use std::format;
use std::string::String;
use std::vec::Vec;

const DEPOT: &str = "depot";
const CACHE: &str = "caches";

/// More than any list of a cache has.
const LONGEST: usize = 4 * TARGET_MAX;

/// What a list is of.
#[derive(Clone, Copy, Debug)]
enum Of {
    Blocks(Class),
    Runs(usize),
}

/// The blocks and runs of a part that were met in its lists. (None is of two classes.)
type Met = HashSet<usize>;

impl Auditor<'_> {
    /// Audits all lists.
    pub(super) fn audit_lists(&self) {
        let depots = (0..CLASSES).map(Part::Depot).chain((0..LENGTHS).map(Part::RunDepot));
        for part in depots {
            if self.has_enough() {
                return;
            }
            let settled = self.settle(&[part], &mut || self.look_at_depot(part));
            self.take_in(settled);
        }
        for (seat, guest) in self.view.seats_taken().collect::<Vec<_>>() {
            // What the dead have is in whatever state; whoever mends takes no more of it than leads to blocks.
            if self.view.is_alive(guest) {
                self.audit_cache(seat);
            }
        }
    }

    /// Counts what was met, and notes what was found.
    fn take_in(&self, settled: Settled<Met>) {
        match settled {
            Settled::Fine(met) => self.found.borrow_mut().listed += met.len() as u64,
            Settled::Wrong(fault) => self.note(fault),
            Settled::Moving => {}
        }
    }

    fn look_at_depot(&self, part: Part) -> Result<Met, Fault> {
        let (engine, mut met) = (self.engine(), Met::new());
        let (depot, of, target) = match part {
            Part::Depot(class) => (engine.depot(class), Class::all().nth(class).map(Of::Blocks), engine.target(class)),
            Part::RunDepot(at) => (engine.run_depot(at), Some(Of::Runs(at + 1)), run_target(at + 1)),
            _ => (None, None, 0),
        };
        let Some((depot, of)) = depot.zip(of) else {
            return Ok(met);
        };
        let fault = |rule, at, detail| Fault::new(DEPOT, rule, at, detail);
        let own = depot.lists();
        holds(own.len() == depot.len(), || {
            fault("an array has no more lists than it has places", 0, format!("{}, in {}", depot.len(), describe(part)))
        })?;
        let mut lists = own;
        self.look_at_chunks(&depot, &mut lists)?;
        let pages = lists.iter().fold(depot.odd().2, |pages, (_, more)| pages.wrapping_add(*more));
        let counted = (depot.count(), depot.pages());
        holds((lists.len() as u64, pages) == (u64::from(counted.0), counted.1), || {
            let detail = format!("{} in {pages} pages, and {} in {} are counted", lists.len(), counted.0, counted.1);
            fault("lists and pages are as many as the depot counts", 0, detail)
        })?;
        lists.iter().try_for_each(|(head, _)| self.follow_list(DEPOT, of, *head, target, &mut met))?;
        let (head, len, _) = depot.odd();
        holds(len < target, || fault("odd blocks are too few for a list", head, format!("{len}")))?;
        self.follow_list(DEPOT, of, head, len, &mut met)?;
        Ok(met)
    }

    /// Follows the chunks of a depot, and adds the lists of full ones.
    fn look_at_chunks(&self, depot: &DepotView, lists: &mut Vec<Head>) -> Verdict {
        let map = self.view.map();
        let mut met = HashSet::new();
        for (first, is_full) in [(depot.older(), true), (depot.spare(), false)] {
            let mut at = first;
            while at != 0 {
                let fault = |rule| Fault::new(DEPOT, rule, at, String::new());
                holds(met.insert(at), || fault("a list of chunks has an end"))?;
                let chunk = ChunkView::take(map.from, at).filter(|_| record_room(map, at) >= CHUNK_BYTES);
                let chunk = chunk.ok_or_else(|| fault("a chunk lies where records are cut from"))?;
                if is_full {
                    lists.extend(chunk.lists());
                }
                at = chunk.older();
            }
        }
        Ok(())
    }

    /// Audits the cache of somebody who lives.
    fn audit_cache(&self, seat: usize) {
        let kinds = Class::all().map(Of::Blocks).chain((1..=PAGE_LISTS).map(Of::Runs));
        for of in kinds {
            if self.has_enough() {
                return;
            }
            let stamp = |cache: CacheView| match of {
                Of::Blocks(class) => cache.stamp(class),
                Of::Runs(pages) => cache.run_stamp(pages),
            };
            let mut look = || self.look_at_cache(seat, of);
            let settled = self.settle_while(&|| self.view.cache(seat).map(stamp), &mut look);
            if matches!(settled, Settled::Moving) {
                self.is_moving(format!("the cache of seat {seat}"));
            }
            self.take_in(settled);
        }
    }

    /// What can be told of a cache without its thread, which may be interrupted between any two steps: not how long its lists are,
    /// nor that a list is not in two of its places. But each list leads from block to block of its class, and ends.
    fn look_at_cache(&self, seat: usize, of: Of) -> Result<Met, Fault> {
        let mut met = Met::new();
        let Some(cache) = self.view.cache(seat).filter(|cache| cache.is_live() == Some(true)) else {
            return Ok(met);
        };
        let fault = |rule, at, detail| Fault::new(CACHE, rule, at, detail);
        let (head, held) = match of {
            Of::Blocks(class) => cache.main_list(class),
            Of::Runs(pages) => cache.run_list(pages),
        };
        holds(held.is_some(), || {
            fault("a list has room for no more than it may hold", cache.at, format!("in the cache of seat {seat}"))
        })?;
        self.follow_open_list(of, head, &mut met)?;
        let Of::Blocks(class) = of else {
            return Ok(met);
        };
        let (target, right) = (cache.target(class), self.engine().target(class.index()));
        holds(target == right, || {
            let detail = format!("{target}, and {right} would be right");
            fault("a list has as many blocks as those of the heap", cache.at, detail)
        })?;
        for (head, is_inside) in cache.full_lists(class).filter(|(head, _)| *head != 0) {
            holds(is_inside, || fault("full lists lie in their part of the ring", head, String::new()))?;
            self.follow_open_list(of, head, &mut met)?;
        }
        Ok(met)
    }

    /// Follows a list to its end.
    fn follow_open_list(&self, of: Of, head: usize, met: &mut Met) -> Verdict {
        let (mut at, mut own) = (head, Met::new());
        while at != 0 {
            self.look_at_member(CACHE, of, at)?;
            holds(own.insert(at) && own.len() <= LONGEST, || {
                Fault::new(CACHE, "a list has an end", at, format!("there are {} before it", own.len()))
            })?;
            at = self.view.words.word(at) as usize;
        }
        met.extend(own);
        Ok(())
    }

    /// That what is at `at` may be in a list.
    fn look_at_member(&self, layer: &'static str, of: Of, at: usize) -> Verdict {
        let map = self.view.map();
        let fault = |rule| Fault::new(layer, rule, at, String::new());
        match of {
            Of::Blocks(class) => {
                holds(is_out(map, class, at), || fault("a free block in a list is one of its class, out of its slab"))
            }
            Of::Runs(pages) => {
                let page = map.page_of(at).filter(|page| map.address_of(*page) == at);
                let is_run = page.is_some_and(|page| map.entry(page) == Seen::Run(pages as u32));
                holds(is_run, || fault("a run in a list has the length of that list"))
            }
        }
    }

    /// Follows a list of `len` from `head` on, with nothing behind.
    fn follow_list(&self, layer: &'static str, of: Of, head: usize, len: u32, met: &mut Met) -> Verdict {
        let mut at = head;
        for number in 0..len {
            let fault = |rule| Fault::new(layer, rule, at, format!("{number} of {len} in a list"));
            holds(at != 0, || fault("a list is as long as it counts"))?;
            self.look_at_member(layer, of, at)?;
            holds(met.insert(at), || fault("a block or run is in one list"))?;
            at = self.view.words.word(at) as usize;
        }
        holds(at == 0, || Fault::new(layer, "nothing is linked behind a list's last block", at, String::new()))
    }
}

/// Whether a block of `class` that is not in its slab begins at `address`.
fn is_out(map: MapView<'_>, class: Class, address: usize) -> bool {
    let Some(Seen::Slab(record, of)) = map.page_of(address).map(|page| map.entry(page)) else {
        return false;
    };
    let slab = SlabView::take(map.from, record, map.page_shift).filter(|slab| of == class && slab.class == class);
    slab.is_some_and(|slab| slab.index_of(address).is_some_and(|index| slab.is_out(index)))
}
