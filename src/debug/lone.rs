//! Blocks with pages of their own, at a guard page: what goes beyond one, and what touches it after its free, faults at once.
//!
//! They lie in one region, each in a slot of pages that a guard page ends. A freed slot becomes a guard as a whole, and is used
//! again only when there are no fresh pages left, the one freed first before the others. Guards are marks in page tables
//! where the kernel has `MADV_GUARD_INSTALL` (Linux 6.13), and cost no mapping; elsewhere they are pages without access: then
//! each live block costs two mappings, of which a process can have some ten thousand, and beyond that blocks are guarded as
//! all others are. (A freed slot is one mapping with the guards beside it.)

use super::begins::State;
use super::frames::Context;
use super::guard::{self, Pattern};
use super::hunter::Hunter;
use super::record::{Event, Mark, Record};
use super::report::{Case, Crime};
use super::trail::Trail;
use super::voice::{Voice, say};
use crate::config::Side;
use crate::lock::{Locked, Rank, Spin};
use crate::os::{self, Registers, Span};
use crate::sync::{Acquire, AtomicPtr, AtomicU32, AtomicUsize, Relaxed, Release, SeqCst};
use crate::thread;
use core::alloc::Layout;
use core::ptr::{NonNull, null_mut};

/// Addresses for slots: as many as can be had, the first that can.
const REGIONS: [usize; 4] = [64 << 30, 8 << 30, 1 << 30, 128 << 20];
/// Slots of up to so many pages are used again.
const LENGTHS: usize = 16;
/// The largest slot, in pages.
const PAGES_MAX: usize = 1 << 14;
/// Slots that may be accessible at one time, where each costs two mappings.
const ACCESSIBLE_MAX: u32 = 16_000;
/// Bytes of the stack of a report.
const STACK: usize = 512 << 10;
/// How often, a millisecond each time, that stack is waited for.
const PATIENCE: u32 = 30_000;
/// Guard bytes before a block that does not begin with its slot.
const BEFORE: usize = 64;

/// What is known of a page of the region. A slot's first page has its record.
#[derive(Debug)]
#[repr(C)]
struct Page {
    record: Record,
    /// The block's address; 0: the slot was never used.
    at: AtomicUsize,
    /// The first page of the slot that this one is of.
    first: AtomicU32,
    /// The slot's pages, without its guard.
    pages: AtomicU32,
    /// The first page of the slot that was freed next.
    next: AtomicU32,
    /// What became of the block, as a `State`.
    state: AtomicU32,
}

/// Slots that were freed, of one length: the first pages of the oldest and of the youngest; 0: none.
#[derive(Clone, Copy, Debug)]
struct Queue {
    oldest: u32,
    youngest: u32,
}

#[derive(Debug)]
struct Slots {
    /// The first page that no slot has had.
    fresh: usize,
    freed: [Queue; LENGTHS + 1],
}

const NO_STACK: usize = 0;
const IN_USE: usize = 1;

/// What is warned of, once.
const NO_MORE_PAGES: (u32, &str) =
    (1, "there are no more pages with guards; further blocks have guard bytes around them");
const NO_GUARD: (u32, &str) =
    (2, "a freed block could not be made unreachable; what touches such a block is not noticed");

/// How guards are made.
const UNKNOWN: u32 = 0;
const BY_MARK: u32 = 1;
const BY_ACCESS: u32 = 2;

#[derive(Debug)]
pub(super) struct Lone {
    /// The region; 0 before there is one.
    begin: AtomicUsize,
    bytes: AtomicUsize,
    table: AtomicPtr<Page>,
    page_shift: AtomicU32,
    way: AtomicU32,
    /// Slots that are accessible.
    accessible: AtomicU32,
    /// Which warnings were given.
    has_warned: AtomicU32,
    /// The address of the block that an audit looks at; 0: none. Its slot stays accessible meanwhile.
    looked_at: AtomicUsize,
    /// A stack for the report of a fault, or `NO_STACK`, or `IN_USE`.
    stack: AtomicUsize,
    slots: Locked<Slots, Spin>,
}

impl Lone {
    pub(super) const fn new() -> Self {
        let none = Queue { oldest: 0, youngest: 0 };
        Self {
            begin: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            table: AtomicPtr::new(null_mut()),
            page_shift: AtomicU32::new(0),
            way: AtomicU32::new(UNKNOWN),
            accessible: AtomicU32::new(0),
            has_warned: AtomicU32::new(0),
            looked_at: AtomicUsize::new(0),
            stack: AtomicUsize::new(NO_STACK),
            slots: Locked::new(Rank::Hunter, Slots { fresh: 0, freed: [none; LENGTHS + 1] }),
        }
    }

    /// Maps the region, once; false if there is none.
    fn open(&self) -> bool {
        // Acquire: pairs with the release below.
        if self.begin.load(Acquire) != 0 {
            return true;
        }
        let shift = os::page_bytes().trailing_zeros();
        let region = REGIONS.into_iter().find_map(|bytes| {
            let region = os::map_sparse(bytes)?;
            let table = os::map_sparse((bytes >> shift) * size_of::<Page>());
            if table.is_none() {
                os::unmap(region);
            }
            Some((region, table?))
        });
        let Some((region, table)) = region else { return false };
        let is_mine = self.slots.with(|slots| {
            let is_mine = slots.fresh == 0;
            if is_mine {
                // The first page is a guard.
                slots.fresh = 1;
                self.table.store(table.at as *mut Page, Relaxed);
                self.page_shift.store(shift, Relaxed);
                self.bytes.store(region.bytes, Relaxed);
                // Release: publishes the rest.
                self.begin.store(region.at, Release);
            }
            is_mine
        });
        if is_mine {
            self.guard(Span { at: region.at, bytes: 1 << shift });
            // Without one a report goes on the stack that there is.
            self.stack.store(os::map_sparse(STACK).map_or(NO_STACK, |stack| stack.at), Relaxed);
        } else {
            [region, table].into_iter().for_each(os::unmap);
        }
        true
    }

    /// Where all its blocks are.
    fn region(&self) -> Span {
        // Acquire: pairs with `open`.
        Span { at: self.begin.load(Acquire), bytes: self.bytes.load(Relaxed) }
    }

    /// The page of the region that `address` is in.
    #[inline(always)]
    fn page_of(&self, address: usize) -> Option<usize> {
        let offset = address.wrapping_sub(self.begin.load(Acquire));
        (offset < self.bytes.load(Relaxed)).then(|| offset >> self.page_shift.load(Relaxed))
    }

    fn page(&self, index: usize) -> &Page {
        // SAFETY: there are as many as the region has pages.
        let page = unsafe { self.table.load(Relaxed).add(index) };
        // SAFETY: as above; zero bits are one, and all of it is atomics.
        unsafe { &*page }
    }

    /// The first page of the slot that page `index` is of, or is the guard of.
    fn slot_of(&self, index: usize) -> usize {
        self.page(index).first.load(Relaxed) as usize
    }

    /// The addresses of the slot that begins with page `index`.
    fn span(&self, index: usize) -> Span {
        let shift = self.page_shift.load(Relaxed);
        Span {
            at: self.begin.load(Relaxed) + (index << shift),
            bytes: (self.page(index).pages.load(Relaxed) as usize) << shift,
        }
    }

    /// The record of the block that begins at `address`, if it has a slot.
    #[inline]
    pub(super) fn record(&self, address: usize) -> Option<&Record> {
        self.slot_at(address).map(|page| &page.record)
    }

    /// Whether `address` is of the region.
    #[inline]
    pub(super) fn has(&self, address: usize) -> bool {
        self.page_of(address).is_some()
    }

    /// The first page of the slot of the block that begins at just this address.
    fn slot_at(&self, address: usize) -> Option<&Page> {
        let page = self.page(self.slot_of(self.page_of(address)?));
        (page.at.load(Relaxed) == address).then_some(page)
    }

    /// What became of the block that begins at just this address.
    pub(super) fn state(&self, address: usize) -> Option<State> {
        // Acquire: pairs with the release in `allocate_lone`: the record is there. A block that is freed meanwhile is told by
        // the exchange in `take_back`.
        State::of(self.slot_at(address)?.state.load(Acquire) as u8)
    }

    /// Runs `look` while the block at `address` is live, or not at all. One looks at a time.
    pub(super) fn while_live<R>(&self, address: usize, look: impl FnOnce() -> R) -> Option<R> {
        while self.looked_at.compare_exchange(0, address, SeqCst, Relaxed).is_err() {
            os::yield_now();
        }
        // Either the block's end sees that it is looked at, or this sees that it has ended: both write first, and then read,
        // in one order of all.
        let is_live = self.slot_at(address).is_some_and(|slot| slot.state.load(SeqCst) == State::Live as u32);
        let result = is_live.then(look);
        // Release: pairs with the load in `take_back`, and with the next exchange above: the look is over.
        self.looked_at.store(0, Release);
        result
    }

    /// The live block at `address` becomes a freed one; if there is none, what there is.
    pub(super) fn take_back(&self, address: usize) -> Result<(), Option<State>> {
        let (live, freed) = (State::Live as u32, State::Freed as u32);
        match self.slot_at(address).map(|slot| slot.state.compare_exchange(live, freed, SeqCst, Relaxed)) {
            Some(Ok(_)) => {
                while self.looked_at.load(SeqCst) == address {
                    os::yield_now();
                }
                Ok(())
            }
            _ => Err(self.state(address)),
        }
    }

    /// The block whose slot, or guard, `address` is in, and what became of it.
    pub(super) fn around(&self, address: usize) -> Option<(usize, State)> {
        let slot = self.page(self.slot_of(self.page_of(address)?));
        // Acquire: as in `state`.
        Some((slot.at.load(Relaxed), State::of(slot.state.load(Acquire) as u8)?))
    }

    /// Runs `visit` for each block there ever was, until it says that this is enough.
    pub(super) fn each(&self, mut visit: impl FnMut(usize, State) -> bool) {
        let mut index = 1;
        let end = self.slots.with(|slots| slots.fresh);
        while index < end {
            let slot = self.page(index);
            // Acquire: as in `state`.
            if let Some(state) = State::of(slot.state.load(Acquire) as u8)
                && !visit(slot.at.load(Relaxed), state)
            {
                return;
            }
            index += slot.pages.load(Relaxed) as usize + 1;
        }
    }

    /// Bytes of guard before the block at `at`, if it has a slot.
    #[inline]
    pub(super) fn front(&self, at: NonNull<u8>) -> Option<usize> {
        let address = at.as_ptr() as usize;
        let slot = self.span(self.slot_of(self.page_of(address)?));
        Some((address - slot.at).min(BEFORE))
    }

    /// Bytes of guard behind the block of `size` bytes at `at`, if it has a slot.
    #[inline]
    pub(super) fn back(&self, at: NonNull<u8>, size: usize) -> Option<usize> {
        let address = at.as_ptr() as usize;
        let slot = self.span(self.slot_of(self.page_of(address)?));
        Some(slot.at + slot.bytes - address - size)
    }

    /// A slot of `pages` pages, accessible and with its guard; `None` if there is none any more.
    fn take(&self, pages: usize) -> Option<usize> {
        if self.way.load(Relaxed) == BY_ACCESS && self.accessible.load(Relaxed) >= ACCESSIBLE_MAX {
            return None;
        }
        let total = self.bytes.load(Relaxed) >> self.page_shift.load(Relaxed);
        let (index, is_fresh) = self.slots.with(|slots| {
            if slots.fresh + pages < total {
                let index = slots.fresh;
                self.page(index).pages.store(pages as u32, Relaxed);
                slots.fresh += pages + 1;
                return Some((index, true));
            }
            let queue = slots.freed.get_mut(pages).filter(|queue| queue.oldest != 0)?;
            let index = queue.oldest as usize;
            queue.oldest = self.page(index).next.load(Relaxed);
            Some((index, false))
        })?;
        if is_fresh {
            (index..=index + pages).for_each(|page| self.page(page).first.store(index as u32, Relaxed));
        }
        // One whose guard was refused when it was fresh waits among the freed ones: so all get theirs here.
        let slot = self.span(index);
        let guard = Span { at: slot.at + slot.bytes, bytes: 1 << self.page_shift.load(Relaxed) };
        if self.guard(guard) && (is_fresh || self.unguard(slot)) {
            self.accessible.fetch_add(1, Relaxed);
            return Some(index);
        }
        // Nobody has touched it; another time the system may have what it lacks now.
        self.enqueue(index);
        None
    }

    /// Takes a slot back, after all that are free.
    fn put(&self, index: usize) {
        if self.guard(self.span(index)) {
            self.accessible.fetch_sub(1, Relaxed);
            self.enqueue(index);
        } else {
            // Who still has a pointer would write there unnoticed: so nobody gets the slot again, and what is written there
            // hurts nobody. It stays one of those that are accessible.
            self.warn_once(NO_GUARD);
        }
    }

    /// Enters a slot behind all that are free. One that is too long for the queues is not used again.
    fn enqueue(&self, index: usize) {
        let pages = self.page(index).pages.load(Relaxed) as usize;
        self.slots.with(|slots| {
            let Some(queue) = slots.freed.get_mut(pages) else { return };
            self.page(index).next.store(0, Relaxed);
            if queue.oldest == 0 {
                queue.oldest = index as u32;
            } else {
                self.page(queue.youngest as usize).next.store(index as u32, Relaxed);
            }
            queue.youngest = index as u32;
        });
    }

    /// Makes the slot of the block at `address` unreachable.
    pub(super) fn retire(&self, address: usize) {
        if let Some(page) = self.page_of(address) {
            self.put(self.slot_of(page));
        }
    }

    /// Makes pages a guard; false if that cannot be.
    fn guard(&self, span: Span) -> bool {
        // SAFETY: the pages are of the region, and nobody uses them.
        if self.way.load(Relaxed) != BY_ACCESS && unsafe { os::install_guard(span) } {
            self.way.store(BY_MARK, Relaxed);
            return true;
        }
        if self.way.load(Relaxed) == BY_MARK {
            return false;
        }
        self.way.store(BY_ACCESS, Relaxed);
        // SAFETY: as above.
        unsafe { os::set_access(span, false) }
    }

    /// Makes a guard pages that read zero.
    fn unguard(&self, span: Span) -> bool {
        if self.way.load(Relaxed) == BY_MARK {
            // SAFETY: the pages are of the region, and nobody uses them.
            return unsafe { os::remove_guard(span) };
        }
        // SAFETY: as above.
        unsafe { os::set_access(span, true) }
    }

    fn warn_once(&self, (bit, what): (u32, &str)) {
        if self.has_warned.fetch_or(bit, Relaxed) & bit == 0 {
            say!(&mut Voice::new(), "stratalloc: page mode: {what}");
        }
    }

    pub(super) fn hold(&self) {
        self.slots.hold();
    }

    /// # Safety
    /// - This thread, or the one it was forked from, called `hold`.
    pub(super) unsafe fn let_go(&self) {
        // SAFETY: handed on.
        unsafe { self.slots.let_go() };
    }

    /// A stack for a report, which nobody else gets until it is put back; `None` if there is none, or it is in use for half a
    /// minute.
    fn take_stack(&self) -> Option<Span> {
        for _ in 0..PATIENCE {
            match self.stack.load(Relaxed) {
                NO_STACK => return None,
                IN_USE => os::sleep(1),
                // Acquire: pairs with `put_stack`: nobody is on it any more.
                at if self.stack.compare_exchange(at, IN_USE, Acquire, Relaxed).is_ok() => {
                    return Some(Span { at, bytes: STACK });
                }
                _ => {}
            }
        }
        None
    }

    fn put_stack(&self, stack: Span) {
        // Release: pairs with `take_stack`.
        self.stack.store(stack.at, Release);
    }

    /// The region and its table, in which addresses of blocks lie.
    pub(super) fn spans(&self) -> [Span; 2] {
        let (begin, bytes) = (self.begin.load(Acquire), self.bytes.load(Relaxed));
        let pages = bytes >> self.page_shift.load(Relaxed);
        [Span { at: begin, bytes }, Span { at: self.table.load(Relaxed) as usize, bytes: pages * size_of::<Page>() }]
    }
}

impl Hunter {
    /// Whether the next block of this thread gets pages of its own: in the mean, one in so many.
    #[inline]
    pub(super) fn is_turn_of_lone(&self, trail: &Trail) -> bool {
        let every = self.hunt().page;
        if every <= 1 {
            return every == 1;
        }
        if trail.is_before_turn() {
            return false;
        }
        trail.turn.replace(1 + trail.random() % (2 * every - 1)) == 1
    }

    /// As `is_turn_of_lone`, where blocks without pages of their own have nothing, and so may pass by.
    pub(super) fn is_turn_among_passing(&self, trail: &Trail) -> bool {
        let every = self.hunt().page;
        let is_first = trail.turn.replace(1) == 0;
        match every {
            0 => thread::with_passes(|passes| passes.set(u32::MAX)),
            1 => {}
            _ => thread::with_passes(|passes| passes.set(trail.random() % (2 * every - 1))),
        }
        every == 1 || every > 1 && !is_first
    }

    /// A block with pages of its own, which read zero if it is to be `zeroed`; `None` where it cannot have any.
    #[cold]
    #[inline(never)]
    pub(super) fn allocate_lone(&self, layout: Layout, event: Event, mark: Mark, zeroed: bool) -> Option<NonNull<u8>> {
        if !self.lone.open() {
            self.lone.warn_once(NO_MORE_PAGES);
            return None;
        }
        self.extend(self.lone.region());
        self.watch_faults();
        let page = 1 << self.lone.page_shift.load(Relaxed);
        let size = layout.size().max(1);
        let pages = size.div_ceil(page);
        if layout.align() > page || pages > PAGES_MAX {
            return None;
        }
        let Some(index) = self.lone.take(pages) else {
            self.lone.warn_once(NO_MORE_PAGES);
            return None;
        };
        let slot = self.lone.span(index);
        let is_left = match self.hunt().side {
            Side::Right => false,
            Side::Left => true,
            Side::Both => index % 2 == 0,
        };
        let address = if is_left { slot.at } else { (slot.at + slot.bytes - size) & !(layout.align() - 1) };
        let at = NonNull::new(address as *mut u8)?;
        self.lone.page(index).at.store(address, Relaxed);
        self.dress_lone(at, layout, event, mark);
        if !zeroed {
            // SAFETY: the block has that many bytes.
            unsafe { guard::fill(at, layout.size().min(self.hunt().poison), Pattern::Poison) };
        }
        // Release: the record and the guards are there; pairs with the acquire in `state`, `around` and `each`.
        self.lone.page(index).state.store(State::Live as u32, Release);
        Some(at)
    }

    fn dress_lone(&self, at: NonNull<u8>, layout: Layout, event: Event, mark: Mark) {
        self.record(at).write(layout, mark, event);
        if let (Some(front), Some(back)) = (self.lone.front(at), self.lone.back(at, layout.size())) {
            let (before, behind) = (guard::at(at, -(front as isize)), guard::at(at, layout.size() as isize));
            // SAFETY: both lie in the slot.
            unsafe { guard::fill(before, front, Pattern::Guard) };
            // SAFETY: as above.
            unsafe { guard::fill(behind, back, Pattern::Guard) };
        }
    }

    /// Reports a fault, if it is at a guard.
    pub(crate) fn on_fault(&self, address: usize, at: &Registers) {
        if self.is_reporting() || !self.lone.has(address) {
            return;
        }
        // The stack that a handler has may be small. Who comes second waits for the end of the process.
        match self.lone.take_stack() {
            Some(stack) => {
                // SAFETY: it was mapped for this, is nobody's until it is put back, and has room for a report.
                unsafe { os::on_stack(stack, &mut || self.report_fault(address, at)) };
                self.lone.put_stack(stack);
            }
            None => self.report_fault(address, at),
        }
    }

    #[inline(never)]
    fn report_fault(&self, address: usize, at: &Registers) {
        if let Some(case) = self.case_of_fault(address) {
            let context = Context::interrupted(at);
            self.reporting(|voice| self.tell(voice, &case, &context));
        }
    }

    /// What a fault at `address` is about: of two blocks that the guard is between, the nearer one.
    fn case_of_fault(&self, address: usize) -> Option<Case> {
        let page = self.lone.page_of(address)?;
        let first = self.lone.slot_of(page);
        let behind = self.lone.page(first).pages.load(Relaxed) as usize + first + 1;
        let cases = [first, behind].map(|slot| self.case_of_slot(slot, address));
        cases.into_iter().flatten().min_by_key(|(distance, _)| *distance).map(|(_, case)| case)
    }

    /// How far `address` is from the block of a slot, and what it means for it.
    fn case_of_slot(&self, slot: usize, address: usize) -> Option<(usize, Case)> {
        self.lone.page_of(self.lone.begin.load(Relaxed) + (slot << self.lone.page_shift.load(Relaxed)))?;
        let at = NonNull::new(self.lone.page(slot).at.load(Relaxed) as *mut u8)?;
        let begin = at.as_ptr() as usize;
        let facts = self.record(at).read()?;
        let end = begin + facts.layout.size();
        let distance = if address < begin { begin - address } else { (address + 1).saturating_sub(end) };
        let crime = match self.state(begin)? {
            State::Held | State::Freed => Crime::TouchedAfterFree,
            State::Live if address < begin => Crime::TouchedBefore,
            State::Live => Crime::TouchedBehind,
        };
        Some((distance, Case { bad: address, ..Case::of(crime, at, Some(facts)) }))
    }
}

#[cfg(test)]
#[path = "lone_tests.rs"]
mod tests;
