//! Layer 1: a thread's free blocks, without a lock.
//!
//! Per class a `main` list, which allocation pops and free pushes, and full lists beside it: `aux`, the paper's one, and
//! further ones while the class shows that it needs them. What does not fit goes to the depot, and what is missing comes
//! from there, always a list of `target` blocks at a time. So after a trip to the depot `main` and `aux` hold at least
//! `target` blocks and have room for at least `target` more: the next `target` operations stay here.
//!
//! The full lists lie in slots that the purger may empty: it sorts those that their thread has not touched for a while. So
//! a cache may hold many while it is busy, and pins little when it rests.
//!
//! Beside them a list for each run length up to [`PAGE_LISTS`] pages: it keeps freed runs within a common budget of
//! pages, for the next request of that length.
//!
//! A cache that no heap has adopted has no block and no room, so both fast paths end in their slow paths without a test
//! of their own.

use super::class::{CLASSES, Class};
#[cfg(feature = "shared")]
use super::hand::Hand;
use super::hand::HandCell;
use super::hot::Hot;
use super::list::{Block, List};
use super::side::{End, SLOTS, Side, Slot};
use crate::sync::{AtomicU32, AtomicU64, Relaxed, array_of, bump, in_order, step};
use core::cell::Cell;

/// Run lengths that have a list, in pages.
pub(crate) const PAGE_LISTS: usize = 16;
/// Bytes that the run lists of one thread hold together, at the most.
const RUN_BYTES: usize = 256 << 10;
/// Pages in full lists up to which a class may have more than one of them: where a purger comes, and where none does.
/// Nobody counts the pages they pin: each block counts as if it lay in pages of its own ([`Class::pages`]).
const FULL_PAGES: u32 = 4096;
const FULL_PAGES_ALONE: u32 = 256;
/// Pages in full lists from which on a purger is wanted, where one comes.
const FULL_PAGES_IDLE: u32 = 64;
/// Trips to the depot between two looks at whether a class holds more than it needs.
const TRIPS_PER_LOOK: u32 = 32;

/// Lists that are pushed and popped, and how much each may still take: an array for each of the three things, since an
/// index into them is a part of an address, and one into records of three words takes instructions of its own.
#[derive(Debug)]
#[repr(C)]
struct Bins<const N: usize> {
    heads: [Cell<Option<Block>>; N],
    rooms: [Cell<i32>; N],
    allocs: [AtomicU64; N],
}

impl<const N: usize> Bins<N> {
    crate::sync::const_unless_loom! {
        fn new() -> Self {
            Self {
                heads: [const { Cell::new(None) }; N],
                rooms: [const { Cell::new(0) }; N],
                allocs: array_of!(AtomicU64::new(0)),
            }
        }
    }

    /// The list at a place below `N`.
    ///
    /// # Safety
    /// - `at` is below `N`.
    #[inline(always)]
    unsafe fn at(&self, at: usize) -> Bin<'_> {
        // SAFETY: the caller's promise, here and below.
        let head = unsafe { self.heads.get_unchecked(at) };
        // SAFETY: as above.
        let room = unsafe { self.rooms.get_unchecked(at) };
        // SAFETY: as above.
        let allocs = unsafe { self.allocs.get_unchecked(at) };
        Bin { head, room, allocs }
    }
}

/// One of the lists.
#[derive(Clone, Copy, Debug)]
struct Bin<'a> {
    head: &'a Cell<Option<Block>>,
    /// Pushes until the slow path is asked; never negative between two calls. Its owner's alone (an atomic would cost the
    /// fast path an instruction): others see what `publish` last said.
    room: &'a Cell<i32>,
    /// Blocks popped since the heap adopted the cache.
    allocs: &'a AtomicU64,
}

impl Bin<'_> {
    // Only the owner writes the counter; Relaxed, since other threads read it for statistics alone.

    #[inline(always)]
    fn pop(self) -> Option<Block> {
        let block = self.head.get()?;
        let next = block.next();
        super::list::prefetch(next);
        self.head.set(next);
        in_order();
        self.room.set(self.room.get().wrapping_add(1));
        self.allocs.store(self.allocs.load(Relaxed).wrapping_add(1), Relaxed);
        Some(block)
    }

    /// Pushes `block` if there is room; else the slow path must follow, and puts the room right.
    #[inline(always)]
    fn push(self, block: Block) -> bool {
        let room = self.room.get().wrapping_sub(1);
        self.room.set(room);
        if room < 0 {
            return false;
        }
        self.link(block);
        true
    }

    #[inline(always)]
    fn link(self, block: Block) {
        block.set_next(self.head.get());
        in_order();
        self.head.set(Some(block));
    }

    /// Counts an allocation that was served past the list.
    fn count_alloc(self) {
        self.allocs.store(self.allocs.load(Relaxed) + 1, Relaxed);
    }
}

/// The place of run length `pages`, from 1 to [`PAGE_LISTS`].
#[inline(always)]
const fn run_index(pages: usize) -> usize {
    (pages - 1) % PAGE_LISTS
}

/// Pages in full lists.
const fn full_pages(purger: bool) -> u32 {
    if purger { FULL_PAGES } else { FULL_PAGES_ALONE }
}

/// Whether a cache may be used. (Of a number and not of variants: a heap's file may have any bits there.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State(u8);

impl State {
    /// No heap has adopted it yet.
    const FRESH: Self = Self(0);
    /// A heap has adopted it.
    const LIVE: Self = Self(1);
    /// Its thread has ended: it has given everything back and takes nothing more.
    const DEAD: Self = Self(2);
}

/// A thread's cache of one heap. All zero bits until a heap adopts it; it must not move while adopted.
#[derive(Debug)]
#[repr(C)]
pub struct Cache {
    mains: Bins<CLASSES>,
    runs: Bins<PAGE_LISTS>,
    hot: Hot,
    sides: [Side; CLASSES],
    state: Cell<State>,
    /// The number of the reserve of long runs that it uses.
    reserve: Cell<usize>,
    /// Pages in the run lists, those popped and not yet missed included.
    run_pages: Cell<u32>,
    run_pages_max: Cell<u32>,
    /// For each run length, runs admitted and not flushed: those in the list and its room.
    admitted: [Cell<u32>; PAGE_LISTS],
    /// Runs in the list, when they were last counted.
    runs_held: [AtomicU32; PAGE_LISTS],
    /// Runs handed down from the run lists to the runs, and allocated past the lists; and those handed down to the depots
    /// less those received from there, which may be below zero: it wraps.
    runs_given: [AtomicU64; PAGE_LISTS],
    runs_taken: [AtomicU64; PAGE_LISTS],
    runs_stowed: [AtomicU64; PAGE_LISTS],
    /// Pages in all full lists, those included that the purger has taken unnoticed.
    full_pages: Cell<u32>,
    full_pages_max: Cell<u32>,
    full_pages_idle: AtomicU32,
    trips: Cell<u32>,
    looked_at: Cell<usize>,
    /// The hand of its thread, in a heap that processes share.
    pub(super) hand: HandCell,
    /// The neighbours in the heap's registry; under its lock.
    pub(super) older: Cell<Option<CacheRef>>,
    pub(super) newer: Cell<Option<CacheRef>>,
}

/// A cache as its heap's registry knows it.
pub(super) type CacheRef = core::ptr::NonNull<Cache>;

impl Default for Cache {
    fn default() -> Self {
        Self::new()
    }
}

impl Cache {
    crate::sync::const_unless_loom! {
        /// A cache that no heap has adopted.
        #[must_use]
        pub fn new() -> Self {
            Self {
                mains: Bins::new(),
                runs: Bins::new(),
                hot: Hot::new(),
                sides: array_of!(Side::new()),
                state: Cell::new(State::FRESH),
                reserve: Cell::new(0),
                run_pages: Cell::new(0),
                run_pages_max: Cell::new(0),
                admitted: [const { Cell::new(0) }; PAGE_LISTS],
                runs_held: array_of!(AtomicU32::new(0)),
                runs_given: array_of!(AtomicU64::new(0)),
                runs_taken: array_of!(AtomicU64::new(0)),
                runs_stowed: array_of!(AtomicU64::new(0)),
                full_pages: Cell::new(0),
                full_pages_max: Cell::new(0),
                full_pages_idle: AtomicU32::new(0),
                trips: Cell::new(0),
                looked_at: Cell::new(0),
                hand: HandCell::new(),
                older: Cell::new(None),
                newer: Cell::new(None),
            }
        }
    }

    /// A cache of a thread that has none: it takes nothing.
    #[cfg(feature = "c-abi")]
    pub(crate) fn dead() -> Self {
        let cache = Self::new();
        cache.state.set(State::DEAD);
        cache
    }

    #[inline(always)]
    fn main(&self, class: Class) -> Bin<'_> {
        // SAFETY: the index of a `Class` is below `CLASSES`.
        unsafe { self.mains.at(class.index()) }
    }

    #[inline(always)]
    fn side(&self, class: Class) -> &Side {
        // SAFETY: the index of a `Class` is below `CLASSES`.
        unsafe { self.sides.get_unchecked(class.index()) }
    }

    /// Pops a block of `main`. The fast path of allocation.
    #[inline(always)]
    pub(crate) fn pop(&self, class: Class) -> Option<Block> {
        self.main(class).pop()
    }

    /// Pushes `block` on `main` if there is room. The fast path of free; if false, `spill` must follow.
    #[inline(always)]
    pub(crate) fn push(&self, class: Class, block: Block) -> bool {
        self.main(class).push(block)
    }

    /// Whether no heap has adopted it yet.
    #[inline(always)]
    pub(crate) fn is_fresh(&self) -> bool {
        self.state.get() == State::FRESH
    }

    /// Whether it is attached to a heap.
    pub(crate) fn is_live(&self) -> bool {
        self.state.get() == State::LIVE
    }

    /// Makes an empty cache ready for lists of `target(class)` blocks, in pages of `1 << page_shift` bytes.
    /// `purger` says whether one comes.
    pub(super) fn open(&self, target: impl Fn(Class) -> u32, page_shift: u32, purger: bool) {
        self.run_pages_max.set((RUN_BYTES >> page_shift) as u32);
        self.full_pages_max.set(full_pages(purger));
        self.full_pages_idle.store(if purger { FULL_PAGES_IDLE } else { u32::MAX }, Relaxed);
        for class in Class::all() {
            let (side, target) = (self.side(class), target(class));
            side.target.store(target, Relaxed);
            side.limit.set(1);
            self.main(class).room.set(target as i32);
        }
    }

    /// Ends an emptied cache: no room for anything any more.
    pub(super) fn close(&self) {
        self.mains.rooms.iter().chain(&self.runs.rooms).for_each(|room| room.set(0));
        for class in Class::all() {
            self.side(class).target.store(0, Relaxed);
            self.side(class).limit.set(0);
        }
        self.publish_all();
    }

    /// It is in its heap's registry, whose lock is held; it was opened before.
    pub(super) fn be_live(&self) {
        self.state.set(State::LIVE);
    }

    /// It leaves its heap's registry, whose lock is held; it was closed before.
    pub(super) fn be_dead(&self) {
        self.state.set(State::DEAD);
    }

    /// Says what hand its thread has, in a heap that processes share. It is fresh.
    #[cfg(feature = "shared")]
    pub(crate) fn take_hand(&self, hand: &Hand) {
        self.hand.set(hand);
    }

    /// When `main` is empty: lets the newest full list become `main`, and pops a block of it.
    #[inline(never)]
    pub(crate) fn promote(&self, class: Class) -> Option<Block> {
        let list = self.remove_full(class, End::Newest)?;
        self.set_main(class, list, self.side(class).target());
        self.pop(class)
    }

    /// Takes the list at that end of the full ones.
    #[inline]
    fn remove_full(&self, class: Class, end: End) -> Option<List> {
        let side = self.side(class);
        let target = side.target();
        while side.len() > 0 {
            let note = self.hand.hold_blocks(class, || side.end(end).first());
            let list = side.remove(end, target);
            self.full_pages.set(self.full_pages.get() - target * class.pages());
            if let Some(list) = list {
                return Some(list.noted(note));
            }
        }
        None
    }

    /// Whether the full lists may pin so much that a purger should look after them, as far as the owner knows.
    pub(super) fn wants_purger(&self) -> bool {
        self.full_pages.get() > self.full_pages_idle.load(Relaxed)
    }

    /// By the owner: no purger comes any more.
    #[cold]
    pub(super) fn stand_alone(&self) {
        self.full_pages_max.set(full_pages(false));
        self.full_pages_idle.store(u32::MAX, Relaxed);
    }

    /// By the purger, with the registry's lock: whether what it has left may still pin so much.
    pub(super) fn needs_purger(&self) -> bool {
        let pages = |class| self.side(class).full_blocks() * class.pages();
        Class::all().map(pages).sum::<u32>() > self.full_pages_idle.load(Relaxed)
    }

    /// By the owner: takes note of what the purger has taken, the oldest lists of a class before younger ones. O(classes).
    #[cold]
    pub(super) fn recount(&self) {
        for class in Class::all() {
            let side = self.side(class);
            while side.len() > 0 && side.slot(side.oldest.get()).is_empty() {
                let gone = side.remove(End::Oldest, side.target());
                debug_assert!(gone.is_none());
                self.full_pages.set(self.full_pages.get() - side.target() * class.pages());
            }
            self.publish(class);
        }
    }

    /// By the purger, with the registry's lock: takes a full list that came before look `look` ended.
    #[inline(never)]
    pub(super) fn steal(&self, look: u32) -> Option<(Class, List)> {
        for class in Class::all() {
            let side = self.side(class);
            let is_old = |slot: &Slot<'_>| !slot.is_empty() && look.wrapping_sub(slot.look.load(Relaxed)) as i32 > 0;
            for slot in side.slots().filter(is_old) {
                if let Some(list) = slot.take(side.target()) {
                    bump(&side.stolen, u64::from(list.len()));
                    return Some((class, list));
                }
            }
        }
        None
    }

    /// When `main` is empty: lets `list`, of at most `target` blocks, become `main`.
    pub(super) fn receive(&self, class: Class, list: List) {
        let side = self.side(class);
        bump(&side.taken, u64::from(list.len()));
        bump(&side.trips_in, 1);
        self.set_main(class, list, side.target());
        self.publish(class);
    }

    fn set_main(&self, class: Class, list: List, target: u32) {
        let room = target - list.len();
        self.main(class).head.set(list.parts().0);
        step();
        self.main(class).room.set(room as i32);
        list.let_go();
    }

    /// After a push without room: makes `main`, which is full, a full list beside it, at look `look` of the purger's, if no
    /// list must leave for that.
    #[inline]
    pub(super) fn stack_within_limit(&self, class: Class, look: u32) -> bool {
        let side = self.side(class);
        let may = self.full_pages.get() < self.full_pages_max.get() && side.len() < side.limit.get();
        if may {
            self.stack(class, look);
        }
        may
    }

    /// Makes `main`, which is full, one more full list beside it.
    #[inline]
    fn stack(&self, class: Class, look: u32) {
        let (bin, side) = (self.main(class), self.side(class));
        let target = side.target();
        bin.room.set(target as i32);
        self.full_pages.set(self.full_pages.get() + target * class.pages());
        side.append(List::from_parts(bin.head.get(), target), look);
        in_order();
        bin.head.set(None);
    }

    /// After `stack_within_limit`: does so all the same, and returns the list that must leave for that, if one must.
    pub(super) fn make_room(&self, class: Class, look: u32) -> Option<List> {
        let side = self.side(class);
        let spent = self.full_pages.get() >= self.full_pages_max.get();
        if spent && side.len() > 1 {
            return Some(self.pass_main_on(class));
        }
        // Where the budget is spent, `main` may only follow as the first full list, which every class may have.
        let full = side.len() >= side.limit.get() || spent && side.len() > 0;
        let evicted = if full { self.evict(class) } else { None };
        self.stack(class, look);
        self.publish(class);
        evicted
    }

    /// Takes `main`, which is full, out to leave the cache: one more full list would go beyond the budget.
    fn pass_main_on(&self, class: Class) -> List {
        let (side, list) = (self.side(class), self.take_main(class));
        side.limit.set(side.len());
        bump(&side.given, u64::from(list.len()));
        bump(&side.trips_out, 1);
        self.publish(class);
        list
    }

    /// Takes the oldest full list out, and lets the class hold one more from now on if the budget allows.
    fn evict(&self, class: Class) -> Option<List> {
        let side = self.side(class);
        let oldest = self.remove_oldest(class);
        let more = side.limit.get() < SLOTS as u32 && self.full_pages.get() < self.full_pages_max.get();
        side.limit.set(side.len() + 1 + u32::from(more));
        bump(&side.trips_out, u64::from(oldest.is_some()));
        oldest
    }

    fn remove_oldest(&self, class: Class) -> Option<List> {
        let side = self.side(class);
        let list = self.remove_full(class, End::Oldest)?;
        bump(&side.given, u64::from(list.len()));
        Some(list)
    }

    /// Takes all of `main`; what is left has room for `target`.
    fn take_main(&self, class: Class) -> List {
        let (bin, target) = (self.main(class), self.side(class).target());
        let room = bin.room.replace(target as i32).max(0) as u32;
        let note = self.hand.hold_blocks(class, || bin.head.get());
        let list = List::from_parts(bin.head.take(), target - room).noted(note);
        step();
        list
    }

    /// Pushes `block` on a `main` that has room for it.
    pub(super) fn put(&self, class: Class, block: Block) {
        let pushed = self.push(class, block);
        debug_assert!(pushed);
    }

    /// Puts the room of a dead cache right after a push.
    pub(super) fn no_room(&self, class: Class) {
        self.main(class).room.set(0);
    }

    /// Counts a trip to the depot; true at every `TRIPS_PER_LOOK`-th.
    pub(super) fn is_time_to_look(&self) -> bool {
        self.trips.set(self.trips.get().wrapping_add(1));
        self.trips.get().is_multiple_of(TRIPS_PER_LOOK)
    }

    /// A full list of the next class in turn, if that class has held it, unused, since it was last looked at.
    pub(super) fn shrink(&self) -> Option<(Class, List)> {
        let class = Class::all().nth(self.looked_at.get()).or_else(|| Class::all().next())?;
        self.looked_at.set(class.index() + 1);
        let side = self.side(class);
        let unused = side.low.replace(side.len());
        if unused < 2 {
            return None;
        }
        let oldest = self.remove_oldest(class)?;
        side.limit.set(side.len().max(1));
        self.publish(class);
        Some((class, oldest))
    }

    /// The next list of `class` on the way to an empty cache: full ones first, then what is left in `main`.
    #[inline(never)]
    pub(super) fn drain(&self, class: Class) -> Option<List> {
        let side = self.side(class);
        let full = self.remove_full(class, End::Newest);
        let list = full.unwrap_or_else(|| self.take_main(class));
        bump(&side.given, u64::from(list.len()));
        self.publish(class);
        (!list.is_empty()).then_some(list)
    }

    /// The place for one long run.
    #[inline(always)]
    pub(super) fn hot(&self) -> &Hot {
        &self.hot
    }

    /// Says which reserve of long runs it uses.
    pub(super) fn use_reserve(&self, reserve: usize) {
        self.reserve.set(reserve);
    }

    /// The number of its reserve, modulo that of all.
    #[inline]
    pub(super) fn reserve(&self) -> usize {
        self.reserve.get()
    }

    /// The list for runs of `pages` pages, from 1 to [`PAGE_LISTS`].
    #[inline(always)]
    fn run_bin(&self, pages: usize) -> Bin<'_> {
        // SAFETY: the place is below `PAGE_LISTS`.
        unsafe { self.runs.at(run_index(pages)) }
    }

    /// Pops a run of `pages` pages.
    #[inline(always)]
    pub(super) fn pop_run(&self, pages: usize) -> Option<Block> {
        self.run_bin(pages).pop()
    }

    /// Pushes a run of `pages` pages if the list has room; else `push_run` must follow.
    #[inline(always)]
    pub(super) fn push_run_in_room(&self, pages: usize, run: Block) -> bool {
        self.run_bin(pages).push(run)
    }

    /// Pushes a run of `pages` pages if the list has room or the budget allows it more.
    #[inline]
    pub(super) fn push_run(&self, pages: usize, run: Block) -> bool {
        self.run_bin(pages).push(run) || self.admit(pages, run)
    }

    fn admit(&self, pages: usize, run: Block) -> bool {
        let bin = self.run_bin(pages);
        bin.room.set(0);
        let held = self.run_pages.get() + pages as u32;
        if held > self.run_pages_max.get() || self.state.get() != State::LIVE {
            return false;
        }
        self.run_pages.set(held);
        let admitted = &self.admitted[run_index(pages)];
        admitted.set(admitted.get() + 1);
        bin.link(run);
        self.publish_runs(pages);
        true
    }

    /// Counts a run that was allocated past the lists.
    pub(super) fn count_run_taken(&self, pages: usize) {
        bump(&self.runs_taken[run_index(pages)], 1);
        self.run_bin(pages).count_alloc();
        self.publish_runs(pages);
    }

    /// Counts runs that went to the runs.
    pub(super) fn count_runs_given(&self, pages: usize, runs: u32) {
        bump(&self.runs_given[run_index(pages)], u64::from(runs));
    }

    /// Counts runs that went to the depots.
    pub(super) fn count_runs_stowed(&self, pages: usize, runs: u32) {
        let stowed = &self.runs_stowed[run_index(pages)];
        stowed.store(stowed.load(Relaxed).wrapping_add(u64::from(runs)), Relaxed);
    }

    /// Whether the budget has room for so many more runs of `pages` pages.
    pub(super) fn has_room_for_runs(&self, pages: usize, runs: u32) -> bool {
        self.run_pages.get() + runs * pages as u32 <= self.run_pages_max.get()
    }

    /// When the list for runs of `pages` pages is empty: lets `list`, from a depot, be it.
    pub(super) fn receive_runs(&self, pages: usize, list: List) {
        let (bin, at) = (self.run_bin(pages), run_index(pages));
        let (admitted, stowed) = (&self.admitted[at], &self.runs_stowed[at]);
        stowed.store(stowed.load(Relaxed).wrapping_sub(u64::from(list.len())), Relaxed);
        // What the list had room for it now holds, or has room for beside `list`.
        let more = list.len().saturating_sub(admitted.get());
        admitted.set(admitted.get() + more);
        self.run_pages.set(self.run_pages.get() + more * pages as u32);
        bin.room.set((admitted.get() - list.len()) as i32);
        bin.head.set(list.parts().0);
        list.let_go();
        self.publish_runs(pages);
    }

    /// The run length whose list holds the most pages.
    pub(super) fn largest_run_list(&self) -> Option<usize> {
        let held = |pages: &usize| self.admitted[run_index(*pages)].get() * *pages as u32;
        (1..=PAGE_LISTS).max_by_key(held).filter(|pages| held(pages) > 0)
    }

    /// Takes all runs of `pages` pages, and their share of the budget.
    pub(super) fn drain_runs(&self, pages: usize) -> List {
        let bin = self.run_bin(pages);
        let admitted = self.admitted[run_index(pages)].take();
        let room = bin.room.replace(0).max(0) as u32;
        self.run_pages.set(self.run_pages.get() - admitted * pages as u32);
        self.publish_runs(pages);
        let note = self.hand.hold_runs(pages, || bin.head.get());
        List::from_parts(bin.head.take(), admitted - room).noted(note)
    }

    /// Pages that a cache pins at the most, whatever the pattern: those of `main` and of one full list of each class, those of
    /// further full lists (the one that reaches their budget included), and those of the run lists.
    pub(super) fn pages_max(target: impl Fn(Class) -> u32, page_shift: u32, purger: bool) -> usize {
        let lists = || Class::all().map(|class| class.pages() * target(class));
        let (sum, longest) = (lists().sum::<u32>(), lists().max().unwrap_or(0));
        let full = (full_pages(purger) + longest).min((SLOTS as u32 - 1) * sum);
        (2 * sum + full) as usize + (RUN_BYTES >> page_shift)
    }

    /// Calls `each` with the first block of every list of `class`. Its thread is dead.
    #[cfg(feature = "shared")]
    pub(super) fn each_of_class(&self, class: Class, each: &mut dyn FnMut(Option<Block>)) {
        each(self.main(class).head.get());
        self.side(class).slots().for_each(|slot| each(slot.first()));
    }

    /// The first run of `pages` pages. Its thread is dead.
    #[cfg(feature = "shared")]
    pub(super) fn first_run(&self, pages: usize) -> Option<Block> {
        self.run_bin(pages).head.get()
    }

    /// Its thread is dead, and what it had is elsewhere: it holds nothing, as far as is counted.
    #[cfg(feature = "shared")]
    pub(super) fn die(&self) {
        self.admitted.iter().for_each(|admitted| admitted.set(0));
        self.close();
        self.be_dead();
    }
}

#[path = "cache_counts.rs"]
mod counts;
pub(super) use counts::CacheCounts;

#[path = "cache_audit.rs"]
mod audit;

#[cfg(all(test, not(loom)))]
#[path = "cache_tests.rs"]
mod tests;

#[cfg(all(feature = "cli", not(loom)))]
#[path = "cache_view.rs"]
pub(super) mod view;
