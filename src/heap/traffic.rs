//! Blocks on their way: between a thread's cache and the depot, between the depot and the slabs, between the slabs and
//! the runs. Always a list at a time; every step takes one lock, and memory of blocks is only touched between them.

use super::Engine;
use super::batch::{Batch, Returns};
use super::cache::Cache;
use super::class::{Class, FINE};
use super::depot::{ChunkRef, Depot, Refusal, class_pages_max};
use super::granule::Fill;
use super::hand::Hand;
use super::list::{Block, List};
use super::map::Entry;
use super::map::Stretch;
use super::note::Note;
use super::pages::Use;
use super::slab::{SlabRef, chain};
use crate::fatal::{Fatal, die};
use crate::lock::RawLock;
use crate::os::{Source, Span};
use crate::sync::{Relaxed, in_order, publish};
use crate::twin::{self, Twin};
use core::ptr::{NonNull, null_mut};

/// Blocks from this size on hardly profit from a list's order: their lists are kept whole, scattered as they may be.
/// With powers of two that begins later: those blocks crowd into few sets of the processor's cache, and order matters more.
const LARGE: usize = if FINE { 512 } else { 2048 };

/// Sorted lists of a class between two looks at the idle bound, if nothing else calls for one.
const SORTS_PER_LOOK: u64 = 16;

/// Memory for slab records: what is left of the newest run taken for them.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Records {
    next: usize,
    end: usize,
    /// Bytes of all runs taken.
    pub(crate) bytes: u64,
    /// Of `next` and `end`: what a damaged file says they are is not cut from, for there may be records.
    #[cfg(feature = "shared")]
    mark: usize,
}

impl Records {
    pub(crate) const EMPTY: Self = Self {
        next: 0,
        end: 0,
        bytes: 0,
        #[cfg(feature = "shared")]
        mark: 0,
    };

    /// Cuts off `bytes` bytes, a multiple of 64; `note` sees where before.
    fn carve(&mut self, bytes: usize, note: impl FnOnce(usize)) -> Option<NonNull<u8>> {
        if self.end - self.next < bytes {
            return None;
        }
        let at = self.next;
        note(at);
        self.next += bytes;
        self.set_mark();
        NonNull::new(core::ptr::with_exposed_provenance_mut(at))
    }

    /// Where its words lie: the next byte, the end, all bytes.
    #[cfg(feature = "cli")]
    pub(super) const FIELDS: [crate::image::Field<Self>; 3] =
        [crate::image::field!(Self, next), crate::image::field!(Self, end), crate::image::field!(Self, bytes)];

    /// After somebody's death: goes on with what is left if it `is_sound`.
    #[cfg(feature = "shared")]
    pub(crate) fn keep_if(&mut self, is_sound: impl FnOnce(usize, usize) -> bool) {
        if self.end == 0 || !is_sound(self.next, self.end) {
            (self.next, self.end) = (0, 0);
        }
        self.set_mark();
    }

    /// Drops a figure that no heap of `given` bytes has, and a place to cut from that is not as it was set.
    #[cfg(feature = "shared")]
    pub(crate) fn distrust(&mut self, given: u64) {
        self.bytes = self.bytes.min(given);
        if self.mark != self.marked() {
            (self.next, self.end) = (0, 0);
        }
    }

    #[cfg(feature = "shared")]
    fn marked(&self) -> usize {
        self.next.wrapping_mul(0x9e37_79b9) ^ self.end
    }

    #[inline(always)]
    fn set_mark(&mut self) {
        #[cfg(feature = "shared")]
        {
            self.mark = self.marked();
        }
    }

    /// Whether `address` has not been cut off yet.
    #[cfg(feature = "shared")]
    pub(crate) fn has_yet(&self, address: usize) -> bool {
        (self.next..self.end).contains(&address)
    }

    /// Cuts off `bytes` bytes, from `fresh` if what is left is too short; then that is given up, and `fresh` taken.
    fn carve_or_feed(&mut self, bytes: usize, fresh: Span, note: impl Fn(usize)) -> (Option<NonNull<u8>>, bool) {
        if let Some(record) = self.carve(bytes, &note) {
            return (Some(record), false);
        }
        self.next = self.end;
        in_order();
        self.end = fresh.at + fresh.bytes;
        in_order();
        self.next = fresh.at;
        self.bytes += fresh.bytes as u64;
        (self.carve(bytes, &note), true)
    }
}

impl<S: Source, L: RawLock> Engine<S, L> {
    /// The slow path of allocation: `main` of `class` is empty.
    #[cold]
    #[inline(never)]
    pub(crate) fn refill(&self, cache: &Cache, class: Class) -> *mut u8 {
        if !cache.is_live() {
            return self.alloc_uncached(class);
        }
        if let Some(block) = cache.promote(class) {
            return block.as_ptr();
        }
        let Some(list) = self.fetch(class).or_else(|| self.fetch_after_reclaim(cache, class)) else {
            return null_mut();
        };
        cache.receive(class, list);
        self.trim(cache);
        cache.pop(class).map_or(null_mut(), Block::as_ptr)
    }

    /// The first thing to do on the slow path of free: pushes `block` on an empty `main`, if the one that is full may stay
    /// beside it. The heap need not be open.
    #[inline]
    pub(crate) fn stack(&self, cache: &Cache, class: Class, block: Block) -> bool {
        let stacked = !twin::is(Twin::G2) && cache.stack_within_limit(class, self.looks.load(Relaxed));
        if stacked {
            self.have_looked_after(cache);
            cache.put(class, block);
        }
        stacked
    }

    /// The slow path of free: `main` of `class` is full.
    #[cold]
    pub(crate) fn spill(&self, cache: &Cache, class: Class, block: Block) {
        if !self.stack(cache, class, block) {
            self.spill_beyond(cache, class, block);
        }
    }

    /// `spill` after `stack` was of no use: no more full lists may stay, or there is no cache.
    #[cold]
    #[inline(never)]
    pub(crate) fn spill_beyond(&self, cache: &Cache, class: Class, block: Block) {
        if !cache.is_live() {
            return self.free_uncached(cache, class, block);
        }
        let note = cache.hand.hold_blocks(class, || {
            block.set_next(None);
            Some(block)
        });
        if let Some(list) = cache.make_room(class, self.looks.load(Relaxed)) {
            self.stow(class, list);
            self.trim(cache);
        }
        if twin::is(Twin::G2) {
            self.flush(cache);
        }
        self.have_looked_after(cache);
        cache.put(class, block);
        note.move_to(None);
    }

    /// Looks, now and then, whether the cache holds lists it has no use for, and the depots more than they may.
    fn trim(&self, cache: &Cache) {
        if cache.is_time_to_look() {
            if let Some((class, list)) = cache.shrink() {
                self.stow(class, list);
            }
            self.keep_idle_bound();
        }
    }

    /// Sees to it that a purger looks after a cache whose full lists may pin much. While no more is mapped than may be
    /// retained, nothing can.
    fn have_looked_after(&self, cache: &Cache) {
        if !cache.wants_purger() || self.source.is_purger_at_work() || !self.is_beyond_bound() || twin::is(Twin::G14) {
            return;
        }
        cache.recount();
        if cache.wants_purger() && !self.summon_purger() {
            // Nobody comes after all: the cache has fewer lists from now on.
            cache.stand_alone();
            self.flush(cache);
        }
    }

    /// The pages that a list lies in: about, while there is a purger, who sees to it that not much lies idle; else at the
    /// most.
    fn pages_of(&self, class: Class, list: &List) -> u32 {
        let shift = self.map.page_shift();
        let begun = if self.source.has_purger() { list.pages_by_sample(shift) } else { list.pages(shift) };
        // Blocks of other sizes than powers of two may end in the page behind.
        match class.pages() {
            1 if class.size().is_power_of_two() => begun,
            1 => (begun + 1).min(2 * list.len()),
            more => more * begun,
        }
    }

    /// Runs `section` with the depot of `class` locked, and publishes what it has.
    pub(crate) fn with_depot<R>(&self, class: Class, section: impl FnOnce(&mut Depot) -> R) -> R {
        self.depots[class].with(|depot| {
            let result = section(depot);
            self.tally.set_depot(class, depot.pages(), depot.blocks(self.target(class)) as u32);
            result
        })
    }

    /// A list of `target` blocks from the depot.
    #[inline(never)]
    pub(super) fn take_list(&self, class: Class, target: u32) -> Option<List> {
        self.with_depot(class, |depot| {
            let note = self.hand().map_or(Note::NONE, |hand| hand.hold_newest(class, depot));
            depot.take(target).map(|list| list.noted(note))
        })
    }

    /// All odd blocks from the depot.
    #[inline(never)]
    pub(super) fn take_odd(&self, class: Class) -> List {
        self.with_depot(class, Depot::take_odd)
    }

    /// A list from the depot, or from the slabs.
    fn fetch(&self, class: Class) -> Option<List> {
        let target = self.target(class);
        // An old answer costs a trip to the slabs, or one that finds the depot empty.
        let list = if self.tally.has_depot(class) { self.take_list(class, target) } else { None };
        list.map(twin::shorten).or_else(|| self.fill(class, target as usize))
    }

    /// Once more, after everything that no thread uses was sorted and merged.
    fn fetch_after_reclaim(&self, cache: &Cache, class: Class) -> Option<List> {
        self.reclaim(Some(cache));
        self.fetch(class)
    }

    /// Gives a full list to the depot, or sorts it into the slabs.
    fn stow(&self, class: Class, list: List) {
        let any = class.size() >= LARGE && self.source.has_purger();
        let pages = if any { list.len() * class.pages() } else { self.pages_of(class, &list) };
        if !any && pages > Depot::compact_pages(list.len()) {
            return self.sort(class, list);
        }
        let pages_max = self.depot_pages_max();
        match self.with_depot(class, |depot| depot.put(list, pages, pages_max)) {
            Ok(()) => {}
            Err(Refusal::NoRoom(list)) => self.sort(class, list),
            Err(Refusal::NoChunk(list)) => self.stow_with_chunk(class, list, pages),
        }
    }

    /// Gives a list to a depot that must have a chunk for it first.
    #[cold]
    #[inline(never)]
    fn stow_with_chunk(&self, class: Class, list: List, pages: u32) {
        let Some(memory) = self.carve_record(ChunkRef::BYTES) else {
            return self.sort(class, list);
        };
        // SAFETY: the record is fresh and for this depot alone.
        let chunk = unsafe { ChunkRef::create(memory) };
        let put = |depot: &mut Depot| {
            depot.add_chunk(chunk);
            depot.put(list, pages, u32::MAX)
        };
        if let Err(Refusal::NoRoom(list) | Refusal::NoChunk(list)) = self.with_depot(class, put) {
            self.sort(class, list);
        }
        self.keep_idle_bound();
    }

    /// Pages that the blocks of one class's depot may lie in: while there is a purger, as many as come.
    fn depot_pages_max(&self) -> u32 {
        if self.source.has_purger() { u32::MAX } else { class_pages_max(self.map.page_shift()) }
    }

    /// Puts a list that is not full with the odd blocks of others, and passes on what becomes a full list. Of the blocks,
    /// only the caller's are touched: they are near, those of others far.
    #[inline(never)]
    fn stow_odd(&self, class: Class, mut list: List) {
        if self.source.is_shared() {
            return self.sort(class, list);
        }
        let (target, mut odd) = (self.target(class), self.take_odd(class));
        while let Some(block) = list.pop() {
            odd.push(block);
            if odd.len() == target {
                self.stow(class, core::mem::replace(&mut odd, List::EMPTY));
            }
        }
        let pages = self.pages_of(class, &odd);
        let pages_max = self.depot_pages_max();
        if let Err(odd) = self.with_depot(class, |depot| depot.put_odd(odd, pages, pages_max)) {
            self.sort(class, odd);
        }
    }

    /// Gives back all that a cache holds.
    pub(crate) fn flush(&self, cache: &Cache) {
        for class in Class::all() {
            while let Some(list) = cache.drain(class) {
                if list.len() == self.target(class) { self.stow(class, list) } else { self.stow_odd(class, list) }
            }
        }
        self.flush_runs(cache);
        self.keep_idle_bound();
    }

    /// A block for a thread that has no cache any more.
    fn alloc_uncached(&self, class: Class) -> *mut u8 {
        let one = || self.with_depot(class, Depot::pop_odd).or_else(|| self.fill(class, 1)?.pop());
        let block = one().or_else(|| {
            self.reclaim(None);
            one()
        });
        let Some(block) = block else {
            return null_mut();
        };
        self.tally.count_uncached_alloc(class);
        block.as_ptr()
    }

    /// Takes a block back from a thread that has no cache any more.
    fn free_uncached(&self, cache: &Cache, class: Class, block: Block) {
        cache.no_room(class);
        self.tally.count_uncached_free(class);
        let mut list = List::EMPTY;
        list.push(block);
        self.sort(class, list);
    }

    /// A list of `want` blocks from the slabs, of fewer if there is no memory for more.
    fn fill(&self, class: Class, want: usize) -> Option<List> {
        let (mut own, hand) = (Batch::new(), self.hand());
        let batch = match hand {
            Some(hand) => hand.batch(),
            None => &mut own,
        };
        self.with_slabs(class, |slabs| slabs.fill(want, batch));
        while batch.len() < want {
            let Some(fresh) = self.new_slab(class) else {
                break;
            };
            if !self.with_slabs(class, |slabs| slabs.fill_with(fresh, want, batch)) {
                self.give_slab_back(fresh);
                self.keep_idle_bound();
            }
        }
        let list = batch.list();
        if list.is_empty() {
            return None;
        }
        Some(match hand {
            Some(hand) => hand.hold_batch(class, list),
            None => list,
        })
    }

    /// Sorts a list into the slabs its blocks are of. O(its length).
    #[inline(never)]
    pub(crate) fn sort(&self, class: Class, list: List) {
        if self.sort_unheard(class, list) {
            self.keep_idle_bound();
        }
    }

    /// `sort`, but it is the caller who looks at the idle bound, if this says so.
    #[inline(never)]
    pub(crate) fn sort_unheard(&self, class: Class, list: List) -> bool {
        let (mut list, mut look, keeper) = (list, false, self.keeper());
        while !list.is_empty() {
            let returns = self.look_up(class, &mut list);
            let (whole, news) = self.with_slabs(class, |slabs| {
                let idle = slabs.idle_pages;
                let whole = slabs.sort(&returns, keeper);
                list.advance();
                // The bound also falls with what is live: now and then is enough for that.
                let in_turn = slabs.sorted_lists.is_multiple_of(SORTS_PER_LOOK);
                (whole, whole.is_some() || slabs.idle_pages > idle || in_turn)
            });
            look |= news;
            chain(whole).for_each(|slab| self.give_slab_back(slab));
        }
        look
    }

    /// Finds the slabs of the next blocks of `list`.
    fn look_up(&self, class: Class, list: &mut List) -> Returns {
        let mut returns = Returns::new();
        let mut last: Option<SlabRef> = None;
        while !returns.is_full() {
            let Some(block) = list.pop() else { break };
            let address = block.address();
            let hit = last.and_then(|slab| Some((slab, slab.index_of(address)?)));
            let Some((slab, index)) = hit.or_else(|| self.slab_of(class, address)) else { die(Fatal::NotOurs) };
            returns.push(slab, index);
            last = Some(slab);
        }
        returns
    }

    /// The slab of `class` with a block at `address`, and the block's place in it.
    fn slab_of(&self, class: Class, address: usize) -> Option<(SlabRef, u32)> {
        let Entry::Slab(slab) = self.map.look_up(address) else {
            return None;
        };
        if slab.class() == class { Some((slab, slab.index_of(address)?)) } else { None }
    }

    /// A slab of fresh pages, not yet among the slabs.
    fn new_slab(&self, class: Class) -> Option<SlabRef> {
        let (shift, pages) = (self.map.page_shift(), class.slab_pages(self.map.page_shift()) as u32);
        let first = self.take_run(pages, 0, Fill::Dense, Use::Own)?;
        let Some(record) = self.new_record(class) else {
            self.with_runs(|runs| runs.free_as_marked(&self.map, Stretch { first, pages }));
            return None;
        };
        let mut dirty = 0;
        self.map.dirty_stretches(first, pages, |at, len| dirty |= u32::MAX >> (32 - len) << (at - first));
        if self.map.is_huge(first) || self.map.is_huge(first + pages - 1) {
            dirty = u32::MAX >> (32 - pages);
        }
        let base = self.map.address_of(first);
        // SAFETY: record and pages are fresh and ours alone.
        let slab = unsafe { SlabRef::create(record, class, shift, first, base, dirty) };
        slab.keep_for(self.keeper());
        if self.hand().is_some() {
            // Whoever mends the heap meanwhile finds the whole record.
            publish();
        }
        (first..first + pages).for_each(|page| self.map.set(page, Entry::Slab(slab)));
        self.drop_record();
        Some(slab)
    }

    /// A record that was noted is where it belongs.
    fn drop_record(&self) {
        if let Some(hand) = self.hand() {
            hand.drop_record();
        }
    }

    /// Memory for the record of a slab of `class`.
    fn new_record(&self, class: Class) -> Option<NonNull<u8>> {
        let bytes = SlabRef::record_bytes(class, self.map.page_shift());
        let hand = self.hand();
        let spare = self.slabs[class].with(|slabs| {
            if let Some(hand) = hand {
                hand.hold_spare(class, slabs);
            }
            slabs.spare_record()
        });
        let note = |at| {
            if let Some(hand) = hand {
                hand.hold_record(class, at);
            }
        };
        spare.or_else(|| self.carve_noted(bytes, &note))
    }

    /// `bytes` bytes for a record, for as long as the heap lives.
    pub(super) fn carve_record(&self, bytes: usize) -> Option<NonNull<u8>> {
        self.carve_noted(bytes, &|_| ())
    }

    /// `carve_record`; `note` sees where before anybody else does.
    fn carve_noted(&self, bytes: usize, note: &dyn Fn(usize)) -> Option<NonNull<u8>> {
        self.records.with(|records| records.carve(bytes, note)).or_else(|| self.feed_records(bytes, note))
    }

    /// Memory for a record of `bytes` bytes, from a fresh run unless another thread has brought one meanwhile.
    fn feed_records(&self, bytes: usize, note: &dyn Fn(usize)) -> Option<NonNull<u8>> {
        let pages = self.map.record_pages();
        let first = self.take_run(pages, 0, Fill::Any, Use::Own)?;
        let span = self.map.span(first, pages);
        let (record, fed) = self.records.with(|records| {
            let (record, fed) = records.carve_or_feed(bytes, span, note);
            if fed {
                self.hand_over(Stretch { first, pages });
            }
            (record, fed)
        });
        if !fed {
            self.with_runs(|runs| runs.free_as_marked(&self.map, Stretch { first, pages }));
        }
        record
    }

    /// Gives the pages of a whole slab back to the runs and keeps its record.
    pub(crate) fn give_slab_back(&self, slab: SlabRef) {
        let run = Stretch { first: slab.first(), pages: slab.pages() };
        let (class, touched, hand) = (slab.class(), slab.touched(), self.hand());
        let held = |hand: &Hand| {
            hand.hold_record(class, slab.address());
            Entry::Held(run.pages, hand.keeper())
        };
        self.map.set(run.first, hand.map_or(Entry::None, held));
        in_order();
        (run.first + 1..run.first + run.pages).for_each(|page| self.map.set(page, Entry::None));
        if twin::is(Twin::G4) {
            return;
        }
        self.with_runs(|runs| {
            self.map.clean(run.first, run.pages);
            let bits = (0..run.pages).filter(|page| touched >> page & 1 == 1);
            bits.for_each(|page| self.map.soil(run.first + page, 1));
            runs.free_as_marked(&self.map, run);
        });
        self.slabs[class].with(|slabs| {
            slabs.keep_record(slab);
            // Before somebody else can have it.
            self.drop_record();
        });
    }
}
