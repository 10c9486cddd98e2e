//! A heap that processes share, after some of them have died in it.
//!
//! Few words are the truth, and each changes by one store: a slab's bitmap says which of its blocks are free, a page's entry
//! which run is in use and in whose hand, a slab's record whether it is apart and in whose hand, the first block of a list which
//! blocks a cache or a depot has. What a thread has in hand is noted (`note.rs`). All else follows from that.
//!
//! Whoever mends holds every lock of the heap, those included in which somebody died, so that nobody alive is between two steps
//! of a section. Blocks that the dead had go back to their slabs, by bits that it does no harm to set twice; then free runs,
//! the order of slabs, all counts and the list of caches are made anew. What living threads have in hand or in their caches is
//! out, as it was. If who mends dies, too, the next one begins from the start.
//!
//! A free list is followed only as far as it leads from block to block of its class that are out of their slabs: programs
//! that write to what they have freed may have damaged it. What is behind is lost then.

use super::cache::{Cache, PAGE_LISTS};
use super::class::{CLASSES, Class, TARGET_MAX};
use super::depot::ChunkRef;
use super::hand::Hand;
use super::list::Block;
use super::listed::LENGTHS;
use super::map::{Entry, Page, Stretch};
use super::note::{Kind, NOBODY, OF_USER};
use super::slab::SlabRef;
use super::{Engine, Registry};
use crate::lock::{Locked, RawLock};
use crate::os::{Source, Span};
use crate::sync::{in_order, see};
use core::ptr::NonNull;

/// Blocks that are followed from one first block on, at the most: more than any list has.
const FOLLOWED: usize = 4 * TARGET_MAX;

/// A thread of a shared heap, as whoever mends it sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member<'a> {
    pub(crate) cache: &'a Cache,
    pub(crate) hand: &'a Hand,
    pub(crate) is_alive: bool,
}

/// The threads of a shared heap.
pub(crate) trait Members {
    /// Calls `each` with every thread that has a place in the heap.
    fn each(&self, each: &mut dyn FnMut(Member<'_>));

    /// Whether nothing is believed but what was verified: nobody had the heap open.
    fn distrusts(&self) -> bool;

    /// Whether a thread that lives has the hand of that number.
    fn is_alive(&self, keeper: u32) -> bool;
}

impl<S: Source, L: RawLock> Engine<S, L> {
    /// Calls `each` with every lock, in the lock order.
    pub(crate) fn each_lock(&self, each: &mut dyn FnMut(&L)) {
        each(self.registry.raw());
        self.depots.as_slice().iter().map(Locked::raw).for_each(&mut *each);
        self.run_depots.iter().map(Locked::raw).for_each(&mut *each);
        self.slabs.as_slice().iter().map(Locked::raw).for_each(&mut *each);
        self.reserves.iter().map(Locked::raw).for_each(&mut *each);
        each(self.runs.raw());
        each(self.records.raw());
    }

    /// Puts right what the dead left. Idempotent. O(pages of the heap, and blocks that the dead had).
    ///
    /// # Safety
    /// - The caller holds every lock, and those who have lost theirs by death are not alive for `members`; nobody joins or leaves.
    pub(crate) unsafe fn mend(&self, members: &dyn Members) {
        self.map.heal();
        self.clear_wounded_depots(members);
        members.each(&mut |member| {
            if !member.is_alive {
                self.take_all_from(member.cache, member.hand);
            }
        });
        self.rebuild_pages(members);
        members.each(&mut |member| {
            if !member.is_alive {
                self.take_record_from(member.hand);
            }
        });
        self.registry.with(|registry| registry.rebuild(members));
    }

    /// Empties the depots in whose sections somebody died.
    fn clear_wounded_depots(&self, members: &dyn Members) {
        let is_wounded = |lock: &L| members.distrusts() || lock.is_wounded();
        let chunks = self.records.with(|records| records.bytes) / ChunkRef::BYTES as u64;
        for class in Class::all().filter(|class| is_wounded(self.depots[*class].raw())) {
            self.with_depot(class, |depot| {
                depot.clear_out(chunks, &mut |head| self.put_all_back(Kind::Blocks(class), Some(head)));
            });
        }
        for (depot, pages) in self.run_depots.iter().zip(1..=LENGTHS).filter(|(depot, _)| is_wounded(depot.raw())) {
            depot.with(|depot| depot.clear_out(chunks, &mut |head| self.put_all_back(Kind::Runs(pages), Some(head))));
        }
    }

    /// Puts back all that a dead thread had, in its cache or in hand.
    fn take_all_from(&self, cache: &Cache, hand: &Hand) {
        cache.each_list(&mut |kind, head| self.put_all_back(kind, head));
        hand.chains().for_each(|(kind, head)| self.put_all_back(kind, head));
        hand.left_in_batch().for_each(|address| {
            if let Some((slab, index)) = self.known_slab(address) {
                put_in(slab, index);
            }
        });
    }

    /// The slab around `address`, whose record is one, and which block begins there.
    fn known_slab(&self, address: usize) -> Option<(SlabRef, u32)> {
        let Entry::Slab(slab) = self.map.look_up(address) else {
            return None;
        };
        let is_slab = slab.is_record(&self.map) && self.map.entry(slab.first()) == Entry::Slab(slab);
        Some((slab, if is_slab { slab.index_of(address) } else { None }?))
    }

    /// Puts a list back that is in no other hand.
    fn put_all_back(&self, kind: Kind, head: Option<Block>) {
        let mut at = head;
        for _ in 0..FOLLOWED {
            let Some(block) = at else { return };
            at = match kind {
                Kind::Blocks(class) => self.put_block_back(class, block),
                Kind::Runs(pages) => self.put_run_back(pages, block),
            };
        }
    }

    /// Puts a block back, and returns the next one of its list.
    fn put_block_back(&self, class: Class, block: Block) -> Option<Block> {
        let (slab, index) = self.known_slab(block.address()).filter(|(slab, _)| slab.class() == class)?;
        // The link lies in a slab: the memory is there, whatever is written in it.
        let next = block.next();
        put_in(slab, index);
        next
    }

    /// Puts a run of `pages` pages back, and returns the next one of its list.
    fn put_run_back(&self, pages: usize, run: Block) -> Option<Block> {
        let first = self.map.page_of(run.address());
        let is_ours = self.source.given().contains(Span { at: run.address(), bytes: pages << self.map.page_shift() });
        if !is_ours || self.map.address_of(first) != run.address() {
            return None;
        }
        let next = run.next();
        // If it is not in use, it was put back before: its link is as it was.
        if self.map.entry(first) == Entry::Run(pages as u32) {
            self.map.soil(first, pages as u32);
            in_order();
            self.map.set(first, Entry::None);
        }
        next
    }

    /// Makes everything anew that follows from the entries of the pages and from the bitmaps of the slabs.
    fn rebuild_pages(&self, members: &dyn Members) {
        let given = self.source.given();
        let (first, shift) = (self.map.page_of(given.at), self.map.page_shift());
        let mut end = first + (given.bytes >> shift) as u32;
        // Without memory for their leaves, the last pages wait until there is some.
        while end > first && !self.map.cover(first, end - first, &self.source) {
            end -= (end - first).min(1 << 10);
        }
        self.runs.with(super::run::Runs::forget_all);
        Class::all().for_each(|class| self.slabs[class].with(super::slab::Slabs::forget_all));
        let (mut page, mut free, mut lent) = (first, Stretch { first, pages: 0 }, 0);
        while page < end {
            let tile = self.tile_at(page, end, members);
            let len = match tile {
                Tile::Free(len) => {
                    free.pages += len;
                    len
                }
                Tile::Used(len) | Tile::Lent(len) => {
                    self.add_free(free);
                    free = Stretch { first: page + len, pages: 0 };
                    lent += if matches!(tile, Tile::Lent(_)) { (len as usize) << shift } else { 0 };
                    len
                }
            };
            page += len;
        }
        self.add_free(free);
        self.runs.with(|runs| runs.mapped_pages = u64::from(end - first));
        // Runs that records are cut from are no user's.
        let records = self.records.with(|records| records.bytes as usize);
        self.tally.set_lent(lent.saturating_sub(records));
        self.tally.set_mapped(((end - first) as usize) << shift);
        self.with_runs(|_| ());
        Class::all().for_each(|class| self.with_slabs(class, |_| ()));
        self.mend_records();
    }

    /// What begins at `page`, put right.
    fn tile_at(&self, page: Page, end: Page, members: &dyn Members) -> Tile {
        match self.map.entry(page) {
            Entry::Run(pages) | Entry::Kept(pages) if (1..=end - page).contains(&pages) => {
                (1..pages).for_each(|at| {
                    let last = if at + 1 == pages { Entry::RunEnd } else { Entry::None };
                    if self.map.entry(page + at) != last {
                        self.map.set(page + at, last);
                    }
                });
                Tile::Lent(pages)
            }
            Entry::Held(pages, keeper) if (1..=end - page).contains(&pages) => match keeper & !OF_USER {
                alive if !members.is_alive(alive) => self.free_tile(page, pages),
                _ if keeper & OF_USER != 0 => Tile::Lent(pages),
                _ => Tile::Used(pages),
            },
            Entry::Slab(slab) if slab.first() == page && slab.pages() <= end - page => {
                see();
                match slab.apart() {
                    Some(keeper) if members.is_alive(keeper) => return Tile::Used(slab.pages()),
                    None if self.slabs[slab.class()].with(|slabs| slabs.readmit(slab)) => {
                        self.settle_entries(slab);
                        return Tile::Used(slab.pages());
                    }
                    _ => {}
                }
                let (pages, class) = (slab.pages(), slab.class());
                let tile = self.free_tile(page, pages);
                self.slabs[class].with(|slabs| slabs.keep_record(slab));
                tile
            }
            Entry::None => Tile::Free(1),
            _ => {
                self.map.set(page, Entry::None);
                Tile::Free(1)
            }
        }
    }

    /// Every page of a slab that is in use has its entry.
    fn settle_entries(&self, slab: SlabRef) {
        for page in slab.first()..slab.first() + slab.pages() {
            if self.map.entry(page) != Entry::Slab(slab) {
                self.map.set(page, Entry::Slab(slab));
            }
        }
    }

    /// Pages that were used, and are in no hand any more.
    fn free_tile(&self, first: Page, pages: u32) -> Tile {
        self.map.soil(first, pages);
        in_order();
        (first..first + pages).rev().for_each(|page| self.map.set(page, Entry::None));
        Tile::Free(pages)
    }

    fn add_free(&self, run: Stretch) {
        if run.pages > 0 {
            self.runs.with(|runs| runs.add_free(&self.map, run));
        }
    }

    /// Where records are cut from next, if that is in a run that is there.
    fn mend_records(&self) {
        self.records.with(|records| {
            let pages = self.map.record_pages();
            let first = |end: usize| self.map.page_of(end).wrapping_sub(pages);
            let whole = |end: usize| self.map.entry(first(end)) == Entry::Run(pages);
            records.keep_if(|next, end| whole(end) && next >= self.map.address_of(first(end)) && next <= end);
        });
    }

    /// Keeps the record that a dead thread had in hand, if it is no slab's.
    fn take_record_from(&self, hand: &Hand) {
        let Some((class, address)) = hand.record() else {
            return;
        };
        let most = self.records.with(|records| records.bytes) / 64;
        let is_cut = self.records.with(|records| !records.has_yet(address));
        let is_slab = || {
            let slab = SlabRef::from_address(address);
            let first = slab.map(|slab| slab.first());
            first.is_some_and(|first| self.map.entry(first) == slab.map_or(Entry::None, Entry::Slab))
        };
        let room = SlabRef::record_bytes(class, self.map.page_shift());
        let fits = self.map.record_room(address) >= room;
        if is_cut && fits && !is_slab() {
            self.slabs[class].with(|slabs| {
                if !slabs.has_spare(address, most)
                    && let Some(record) = NonNull::new(core::ptr::with_exposed_provenance_mut(address))
                {
                    slabs.keep_memory(record);
                }
            });
        }
        hand.drop_record();
    }
}

/// Puts a block back in its slab, if that is one: else it came back, and made its slab whole.
fn put_in(slab: SlabRef, index: u32) {
    if slab.apart().is_none() {
        slab.put_back(index);
    }
}

/// What begins at a page, and its pages.
#[derive(Clone, Copy, Debug)]
enum Tile {
    Free(u32),
    /// A slab, or a run on its way to be one or from there.
    Used(u32),
    /// A run of a user's or of a cache's, or on its way to one or from there.
    Lent(u32),
}

impl Registry {
    /// Makes the list of caches anew.
    fn rebuild(&mut self, members: &dyn Members) {
        (self.newest, self.caches) = (None, 0);
        members.each(&mut |Member { cache, is_alive, .. }| {
            if is_alive && cache.is_live() {
                self.link(cache);
            } else if cache.is_live() {
                cache.die();
                self.departed.add(cache);
            }
        });
    }
}

impl Cache {
    /// Calls `each` with every list of a dead thread's cache.
    fn each_list(&self, each: &mut dyn FnMut(Kind, Option<Block>)) {
        for class in Class::all() {
            self.each_of_class(class, &mut |head| each(Kind::Blocks(class), head));
        }
        (1..=PAGE_LISTS).for_each(|pages| each(Kind::Runs(pages), self.first_run(pages)));
    }
}

const _: () = assert!(CLASSES + PAGE_LISTS < u32::MAX as usize && NOBODY == 0);
