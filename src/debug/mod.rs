//! The corruption hunter (feature `malloc-debug`): a wing on the front seam. [`Guarded`] stands before a heap and is one; a
//! [`Hunter`] is what all guarded heaps of a process share.
//!
//! Each block has a record and guards around it (`guard.rs`, `record.rs`), and its begin is noted out of reach of whoever
//! writes beyond a block (`begins.rs`). A free checks all of that, takes a backtrace, fills the block with a pattern, and
//! holds it back (`trail.rs`); when it leaves, the pattern is checked. One block in so many has pages of its own
//! (`lone.rs`). An audit checks everything at once (`audit.rs`). What is found is told by `report.rs`, which takes no lock and
//! allocates nothing.
//!
//! What a caller's mistake may have damaged is evidence here, and never trusted: a record is read only where `begins.rs` says
//! that a block begins, and believed only if its check holds.

mod audit;
mod begins;
mod frames;
mod guard;
mod leaks;
mod lone;
mod record;
mod report;
mod stacks;
mod threads;
mod trail;
mod voice;

pub(crate) use trail::Trail;

use crate::config::Hunt;
use crate::heap::Blocks;
use crate::os::{self, Span};
use crate::sync::{Acquire, AtomicU32, AtomicU64, Relaxed, Release};
use crate::thread;
use begins::{Begins, State};
use core::alloc::Layout;
use core::cell::UnsafeCell;
use core::ptr::{NonNull, null_mut};
use guard::{BACK, FRONT, Pattern, lead, padded};
use lone::Lone;
use record::{EPOCHS, Event, Facts, Mark, Record};
use report::{Case, Crime, Passed};
use stacks::Stacks;
use threads::Threads;
use trail::{Held, Trails};

/// What the guarded heaps of a process share.
#[derive(Debug)]
pub(crate) struct Hunter {
    phase: AtomicU32,
    hunt: UnsafeCell<Hunt>,
    begins: Begins,
    threads: Threads,
    stacks: Stacks,
    trails: Trails,
    lone: Lone,
    /// The number of the thread that is reporting; 0: none.
    reporting: AtomicU32,
    /// 1 if blocks have guards that were to have pages of their own, where no others have guards.
    has_others: AtomicU32,
    /// When the hunter began, in the time of its clock and in milliseconds.
    begun: (AtomicU32, AtomicU64),
    /// How many `assert_no_leaks` there were.
    epochs: AtomicU32,
    /// How often it was seen to that faults are handled.
    watches_faults: AtomicU32,
    hooks: Hooks,
}

/// What the system calls, who knows of no hunter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hooks {
    /// Calls `Hunter::on_fault`.
    pub(crate) fault: os::OnFault,
    /// Calls `Hunter::finish`.
    pub(crate) exit: extern "C" fn(),
}

// SAFETY: `hunt` is written by `open`, before the phase says that it is there.
unsafe impl Sync for Hunter {}

const CLOSED: u32 = 0;
const OPENING: u32 = 1;
/// Open: nothing is hunted; some blocks have pages of their own, and the others nothing; every block is guarded.
const OFF: u32 = 2;
const PAGES: u32 = 3;
const GUARDS: u32 = 4;

/// The value of the environment variable is not longer.
const WORDS_MAX: usize = 1024;

/// The time of a record's: a step takes about a third of a millisecond.
fn now() -> u32 {
    (os::ticks() >> 20) as u32
}

/// Kinds of events.
const ALLOCATED: usize = 0;
const FREED: usize = 1;

/// After so many calls a thread looks at the clock.
const CLOCK_EVERY: u32 = 8;
/// After so many calls it asks for its name, which may have been given late.
const NAME_EVERY: u32 = 4096;

impl Hunter {
    pub(crate) const fn new(hooks: Hooks) -> Self {
        Self {
            phase: AtomicU32::new(CLOSED),
            hunt: UnsafeCell::new(Hunt::new()),
            begins: Begins::new(),
            threads: Threads::new(),
            stacks: Stacks::new(),
            trails: Trails::new(),
            lone: Lone::new(),
            reporting: AtomicU32::new(0),
            has_others: AtomicU32::new(0),
            begun: (AtomicU32::new(0), AtomicU64::new(0)),
            epochs: AtomicU32::new(0),
            watches_faults: AtomicU32::new(0),
            hooks,
        }
    }

    /// The settings, once the hunter is open.
    #[inline(always)]
    fn hunt(&self) -> &Hunt {
        // SAFETY: not written any more.
        unsafe { &*self.hunt.get() }
    }

    /// What is hunted; opens the hunter if need be, with `hunt` and what the environment says. `CLOSED` without memory.
    #[inline(always)]
    fn phase(&self, hunt: &Hunt) -> u32 {
        // Acquire: pairs with `open`.
        let phase = self.phase.load(Acquire);
        if phase >= OFF { phase } else { self.open(hunt) }
    }

    #[cold]
    #[inline(never)]
    fn open(&self, hunt: &Hunt) -> u32 {
        loop {
            match self.phase.compare_exchange(CLOSED, OPENING, Acquire, Acquire) {
                Ok(_) => return self.open_alone(hunt),
                Err(OPENING) => os::yield_now(),
                Err(phase) => return phase,
            }
        }
    }

    fn open_alone(&self, hunt: &Hunt) -> u32 {
        if !(self.begins.open() && self.threads.open() && self.stacks.open()) {
            self.phase.store(CLOSED, Relaxed);
            return CLOSED;
        }
        let mut buffer = [0; WORDS_MAX];
        let words = os::environment(b"STRATALLOC_DEBUG", &mut buffer).unwrap_or_default();
        let hunt = hunt.overridden(words, voice::warn_of_word);
        // SAFETY: this thread alone opens, and nobody reads before the phase says so.
        unsafe { *self.hunt.get() = hunt };
        self.trails.set_bytes(hunt.quarantine_bytes);
        self.begun.0.store(now(), Relaxed);
        self.begun.1.store(os::milliseconds(), Relaxed);
        let phase = match hunt {
            Hunt { off: true, .. } => OFF,
            Hunt { canary: false, .. } => PAGES,
            _ => GUARDS,
        };
        // Release: publishes the settings.
        self.phase.store(phase, Release);
        // May allocate: by now that is served.
        if phase != OFF {
            os::at_exit(self.hooks.exit);
        }
        phase
    }

    /// Whether blocks have been guarded.
    fn is_begun(&self) -> bool {
        self.phase.load(Acquire) > OFF
    }

    /// When the hunter began, in milliseconds and in its clock's time.
    fn beginning(&self) -> (u64, u32) {
        (self.begun.1.load(Relaxed), self.begun.0.load(Relaxed))
    }

    /// Hears of faults from now on. Others may set handlers of their own later, the standard library among them: it is looked
    /// after from time to time.
    fn watch_faults(&self) {
        let times = self.watches_faults.fetch_add(1, Relaxed);
        if times < 64 || times.is_multiple_of(256) {
            os::on_fault(self.hooks.fault);
        }
    }

    /// Whether the calling thread's blocks have backtraces and are held back.
    pub(crate) fn watch_thread(&self, wanted: bool) {
        if let Some(trail) = self.trail() {
            trail.is_unwatched.set(!wanted);
        }
    }

    /// The number of a new epoch, which is not 0.
    fn next_epoch(&self) -> u32 {
        1 + self.epochs.fetch_add(1, Relaxed) % (EPOCHS - 1)
    }

    /// The calling thread's trail, which is made if it has none; `None` without memory, and once the thread has ended.
    fn trail(&self) -> Option<&'static Trail> {
        thread::trail(|| self.trails.take(&self.threads))
    }

    /// What a record says of a call for a block of `size` bytes.
    #[inline]
    fn event(&self, trail: Option<&Trail>, size: usize, kind: usize) -> Event {
        let Some(trail) = trail else {
            return Event { time: now(), ..Event::default() };
        };
        let hunt = self.hunt();
        let is_watched = hunt.frames > 0 && hunt.is_watched(size) && !trail.is_unwatched.get();
        let stack = if is_watched { trail.memory.capture(&self.stacks, hunt.frames, kind) } else { 0 };
        Event { stack, thread: trail.number.get(), time: trail.time.get() }
    }

    /// Whether a block begins at `address` that is one of some with guards.
    #[inline]
    fn has_some(&self, address: usize) -> bool {
        self.lone.has(address) || self.has_others.load(Relaxed) != 0 && self.begins.state(address).is_some()
    }

    /// What became of the block that begins at just this address.
    #[inline]
    fn state(&self, address: usize) -> Option<State> {
        if self.lone.has(address) { self.lone.state(address) } else { self.begins.state(address) }
    }

    /// Runs `look`, which reads the block at `at`, if the block is live; it can be read meanwhile.
    fn while_live<R>(&self, at: NonNull<u8>, look: impl FnOnce() -> R) -> Option<R> {
        let address = at.as_ptr() as usize;
        if self.lone.has(address) {
            return self.lone.while_live(address, look);
        }
        (self.begins.state(address) == Some(State::Live)).then(look)
    }

    /// Runs `visit` for each block that is there now, until it says that this is enough. O(pages of leaves).
    fn each_block(&self, mut visit: impl FnMut(usize, State) -> bool) {
        let mut goes_on = true;
        self.begins.each(|begin, state| {
            goes_on = visit(begin, state);
            goes_on
        });
        if goes_on {
            self.lone.each(visit);
        }
    }

    /// The last block that begins at or below `address`, no more than `reach` bytes away.
    fn last_before(&self, address: usize, reach: usize) -> Option<(usize, State)> {
        if self.lone.has(address) { self.lone.around(address) } else { self.begins.last_before(address, reach) }
    }

    /// The record of the block that begins at `at`.
    fn record(&self, at: NonNull<u8>) -> &Record {
        if let Some(record) = self.lone.record(at.as_ptr() as usize) {
            return record;
        }
        record_before(at)
    }
}

/// The record before a block.
#[inline(always)]
fn record_before<'r>(at: NonNull<u8>) -> &'r Record {
    // SAFETY: `begins` says that a block begins here, and each has a record before it. All its words are atomics.
    unsafe { &*at.as_ptr().wrapping_sub(guard::BEFORE).cast::<Record>() }
}

/// Where a block came from and goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Free,
    Realloc,
}

/// `layout` with a byte at least, as every heap serves it.
#[inline(always)]
fn whole(layout: Layout) -> Layout {
    // SAFETY: a size of 1 is below every limit.
    unsafe { Layout::from_size_align_unchecked(layout.size().max(1), layout.align()) }
}

/// A guarded heap: `B` with the hunter before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guarded<'a, B> {
    pub(crate) heap: B,
    /// Which heap it is; 0: the process heap, the only one that holds blocks back.
    pub(crate) number: u8,
    pub(crate) hunter: &'static Hunter,
    pub(crate) hunt: &'a Hunt,
}

impl<B: Blocks> Guarded<'_, B> {
    #[inline(always)]
    fn phase(&self) -> u32 {
        self.hunter.phase(self.hunt)
    }

    /// Whose a block is that the thread of `trail` asks for.
    fn mark(&self, trail: Option<&Trail>) -> Mark {
        Mark { heap: self.number, epoch: trail.map_or(0, |trail| trail.epoch.get()) }
    }

    /// A block where only some are guarded.
    #[inline]
    fn allocate_some(&self, layout: Layout, zeroed: bool) -> *mut u8 {
        if let Some(trail) = self.hunter.trail().or_else(|| self.begin())
            && self.hunter.is_turn_of_lone(trail)
        {
            return self.allocate_chosen(layout, zeroed);
        }
        self.plain(layout, zeroed)
    }

    /// A block of the inner heap.
    #[inline]
    fn plain(&self, layout: Layout, zeroed: bool) -> *mut u8 {
        if zeroed {
            // SAFETY: any layout may be asked for.
            unsafe { self.heap.alloc_zeroed(layout) }
        } else {
            // SAFETY: as above.
            unsafe { self.heap.alloc(layout) }
        }
    }

    /// A block with pages of its own, or, if it cannot have any, with guards.
    #[cold]
    #[inline(never)]
    fn allocate_chosen(&self, layout: Layout, zeroed: bool) -> *mut u8 {
        let trail = self.call();
        let event = self.hunter.event(trail, layout.size(), ALLOCATED);
        let mark = self.mark(trail);
        match self.hunter.allocate_lone(layout, event, mark) {
            Some(at) => at.as_ptr(),
            None => {
                self.hunter.has_others.store(1, Relaxed);
                self.allocate_guarded(layout, zeroed, event, mark)
            }
        }
    }

    /// Whether the block at `at` is guarded.
    #[inline]
    pub(crate) fn has(&self, at: NonNull<u8>) -> bool {
        match self.phase() {
            GUARDS => true,
            PAGES => self.hunter.has_some(at.as_ptr() as usize),
            _ => false,
        }
    }

    #[inline]
    fn allocate(&self, layout: Layout, zeroed: bool) -> *mut u8 {
        let hunter = self.hunter;
        let trail = self.begun();
        let event = hunter.event(trail, layout.size(), ALLOCATED);
        let mark = self.mark(trail);
        if let Some(trail) = trail
            && hunter.is_turn_of_lone(trail)
            && let Some(at) = hunter.allocate_lone(layout, event, mark)
        {
            return at.as_ptr();
        }
        self.allocate_guarded(layout, zeroed, event, mark)
    }

    /// A block with guards.
    #[inline]
    fn allocate_guarded(&self, layout: Layout, zeroed: bool, event: Event, mark: Mark) -> *mut u8 {
        let hunter = self.hunter;
        let Some(padded) = padded(layout) else { return null_mut() };
        let Some(base) = self.ask(padded, zeroed) else { return null_mut() };
        // SAFETY: inside what was asked for.
        let at = unsafe { base.add(lead(layout.align())) };
        hunter.dress(at, layout, event, mark, zeroed);
        let from = base.as_ptr() as usize;
        if !hunter.begins.enter(at.as_ptr() as usize, from, from + padded.size()) {
            // SAFETY: allocated above for the layout.
            unsafe { self.heap.dealloc(base.as_ptr(), padded) };
            return null_mut();
        }
        at.as_ptr()
    }

    /// Asks the inner heap for a block, again if need be when nothing is held back any more.
    #[inline]
    fn ask(&self, padded: Layout, zeroed: bool) -> Option<NonNull<u8>> {
        let ask = || NonNull::new(self.plain(padded, zeroed));
        ask().or_else(|| {
            self.drain();
            ask()
        })
    }

    /// Counts a call of the calling thread, which asks for a block: its trail.
    #[inline]
    fn begun(&self) -> Option<&'static Trail> {
        self.call().or_else(|| self.begin())
    }

    /// The trail of a thread whose first block this is. It has one once it has a cache.
    #[cold]
    #[inline(never)]
    fn begin(&self) -> Option<&'static Trail> {
        let first = Layout::new::<u64>();
        let block = self.plain(first, false);
        if !block.is_null() {
            // SAFETY: allocated for the layout.
            unsafe { self.heap.dealloc(block, first) };
        }
        self.call()
    }

    /// Counts a call of the calling thread: its trail.
    #[inline]
    fn call(&self) -> Option<&'static Trail> {
        let trail = self.hunter.trail()?;
        let calls = trail.calls.get().wrapping_add(1);
        trail.calls.set(calls);
        if calls % CLOCK_EVERY == 1 {
            self.look_at_clock(trail);
        }
        let every = self.hunter.hunt().sweep;
        if every != 0 && calls.is_multiple_of(every) {
            self.hunter.sweep();
        }
        Some(trail)
    }

    #[inline(never)]
    fn look_at_clock(&self, trail: &Trail) {
        trail.time.set(now());
        if trail.calls.get() % NAME_EVERY == 1 {
            self.hunter.threads.refresh(trail.number.get());
        }
    }

    /// Frees a block that `layout` is passed with, or that only its address is known of.
    #[inline]
    pub(crate) fn release(&self, at: NonNull<u8>, layout: Option<Layout>, call: Call) {
        let hunter = self.hunter;
        let trail = self.call();
        let passed = Passed { call, at: at.as_ptr() as usize, layout: layout.map(whole), heap: self.number };
        if hunter.lone.has(passed.at) {
            return hunter.release_lone(at, passed, trail);
        }
        if let Err(state) = hunter.begins.hold(passed.at) {
            hunter.report_bad_pointer(passed, state);
            return;
        }
        let Some(facts) = hunter.check_live(at, passed) else { return };
        let size = facts.layout.size();
        record_before(at).note_free(&facts, hunter.event(trail, size, FREED));
        // SAFETY: the block has that many bytes, and nobody else has it any more.
        unsafe { guard::fill(at, size.min(hunter.hunt().poison), Pattern::Freed) };
        self.retire(Held { address: passed.at, bytes: lead(facts.layout.align()) + size + BACK }, size, trail);
    }

    /// Holds a freed block of `size` bytes back, and lets others go in its place; or lets it go at once.
    #[inline]
    fn retire(&self, held: Held, size: usize, trail: Option<&Trail>) {
        let hunt = self.hunter.hunt();
        let (share, blocks) = (self.hunter.trails.share(), hunt.quarantine_blocks);
        let may_wait = self.number == 0 && held.bytes <= share && blocks > 0 && hunt.is_watched(size);
        let Some(trail) = trail.filter(|_| may_wait) else {
            return self.let_go(held);
        };
        let Some((oldest, is_beyond)) = trail.hold_back(held, share, blocks) else { return };
        self.let_go(oldest);
        if is_beyond {
            self.let_go_beyond(trail, share, blocks);
        }
    }

    /// Lets blocks of a trail go while it holds more than these.
    #[cold]
    #[inline(never)]
    fn let_go_beyond(&self, trail: &Trail, bytes: usize, blocks: usize) {
        while let Some(oldest) = trail.release_beyond(bytes, blocks) {
            self.let_go(oldest);
        }
    }

    /// Gives a block that was held back to the heap, if nobody wrote to it.
    #[inline]
    fn let_go(&self, held: Held) {
        let Some(at) = NonNull::new(held.address as *mut u8) else { return };
        let Some(layout) = self.hunter.check_freed(at) else {
            // Its record is gone, so its place is nobody's any more.
            return;
        };
        if self.phase() == GUARDS {
            self.hunter.begins.set(held.address, State::Freed);
        } else {
            // Whoever gets this memory may have no guards.
            self.hunter.begins.forget(Span { at: held.address, bytes: 1 });
        }
        let lead = lead(layout.align());
        // SAFETY: it is what the heap was asked for.
        let padded = unsafe { Layout::from_size_align_unchecked(lead + layout.size() + BACK, layout.align().max(16)) };
        // SAFETY: the block begins so far behind the heap's, which was asked for with this layout.
        unsafe { self.heap.dealloc(at.as_ptr().wrapping_sub(lead), padded) };
    }

    /// Lets everything go that is held back, by all threads.
    #[cold]
    #[inline(never)]
    pub(crate) fn drain(&self) {
        self.hunter.trails.all().for_each(|trail| self.let_go_beyond(trail, 0, 0));
    }

    #[inline(never)]
    fn reallocate(&self, at: NonNull<u8>, layout: Option<Layout>, new_size: usize) -> *mut u8 {
        let hunter = self.hunter;
        let passed =
            Passed { call: Call::Realloc, at: at.as_ptr() as usize, layout: layout.map(whole), heap: self.number };
        let Some(facts) = hunter.look_at_live(at, passed) else { return null_mut() };
        let Ok(new) = Layout::from_size_align(new_size, facts.layout.align()) else { return null_mut() };
        // SAFETY: any layout may be asked for.
        let Some(fresh) = NonNull::new(unsafe { self.alloc(new) }) else { return null_mut() };
        // SAFETY: both are live and apart, and have that many bytes.
        unsafe { fresh.copy_from_nonoverlapping(at, facts.layout.size().min(new_size)) };
        self.release(at, layout, Call::Realloc);
        fresh.as_ptr()
    }
}

/// The calls of C, which do not say what a block was asked for with.
#[cfg(feature = "c-abi")]
impl<B: Blocks> Guarded<'_, B> {
    /// `free` by the address alone.
    pub(crate) fn release_unsized(&self, at: NonNull<u8>) {
        self.release(at, None, Call::Free);
    }

    /// `realloc` by the address alone.
    pub(crate) fn reallocate_unsized(&self, at: NonNull<u8>, new_size: usize) -> *mut u8 {
        self.reallocate(at, None, new_size)
    }

    /// Bytes that the block was asked for with; a pointer to none is reported.
    pub(crate) fn size(&self, at: NonNull<u8>) -> usize {
        let passed = Passed { call: Call::Realloc, at: at.as_ptr() as usize, layout: None, heap: self.number };
        self.hunter.look_at_live(at, passed).map_or(0, |facts| facts.layout.size())
    }
}

// SAFETY: blocks lie in blocks of the inner heap, which are larger; see `guard.rs`.
unsafe impl<B: Blocks> Blocks for Guarded<'_, B> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.phase() {
            GUARDS => self.allocate(whole(layout), false),
            PAGES => self.allocate_some(whole(layout), false),
            // SAFETY: handed on.
            OFF => unsafe { self.heap.alloc(layout) },
            _ => null_mut(),
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match self.phase() {
            GUARDS => self.allocate(whole(layout), true),
            PAGES => self.allocate_some(whole(layout), true),
            // SAFETY: handed on.
            OFF => unsafe { self.heap.alloc_zeroed(layout) },
            _ => null_mut(),
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match NonNull::new(block).filter(|at| self.has(*at)) {
            Some(at) => self.release(at, Some(layout), Call::Free),
            // SAFETY: handed on.
            None => unsafe { self.heap.dealloc(block, layout) },
        }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        match NonNull::new(block).filter(|at| self.has(*at)) {
            Some(at) => self.reallocate(at, Some(layout), new_size),
            // SAFETY: handed on.
            None => unsafe { self.heap.realloc(block, layout, new_size) },
        }
    }

    fn usable_size(&self, layout: Layout) -> usize {
        if self.phase() == OFF { self.heap.usable_size(layout) } else { layout.size() }
    }
}

impl Hunter {
    /// Writes what stands around and in a fresh block.
    #[inline]
    fn dress(&self, at: NonNull<u8>, layout: Layout, event: Event, mark: Mark, zeroed: bool) {
        record_before(at).write(layout, mark, event);
        // SAFETY: room for it was asked for.
        unsafe { guard::surround(at, layout.size()) };
        if !zeroed {
            // SAFETY: the block has that many bytes.
            unsafe { guard::fill(at, layout.size().min(self.hunt().poison), Pattern::Fresh) };
        }
    }

    /// Checks the record and the guards of a block that is not lone, and whether it is what the caller says. What the record
    /// says, after reports, if it can be believed.
    #[inline]
    fn check_live(&self, at: NonNull<u8>, passed: Passed) -> Option<Facts> {
        if let Some(facts) = record_before(at).read()
            // SAFETY: the guards lie around each block.
            && unsafe { guard::is_surrounded(at, facts.layout.size()) }
            && passed.layout.is_none_or(|layout| layout == facts.layout)
            && passed.heap == facts.heap
        {
            return Some(facts);
        }
        self.look_closely(at, passed)
    }

    /// As `check_live`, for any block: what is wrong is reported.
    #[cold]
    #[inline(never)]
    fn look_closely(&self, at: NonNull<u8>, passed: Passed) -> Option<Facts> {
        if let Some(case) = self.damage(at, State::Live) {
            self.report(&Case { passed: Some(passed), ..case });
        }
        let facts = self.record(at).read()?;
        if passed.heap != facts.heap {
            self.report(&Case { passed: Some(passed), ..Case::of(Crime::Heap, at, Some(facts)) });
            return None;
        }
        if passed.layout.is_some_and(|layout| layout != facts.layout) {
            self.report(&Case { passed: Some(passed), ..Case::of(Crime::Layout, at, Some(facts)) });
        }
        Some(facts)
    }

    /// Takes a lone block from the program.
    #[cold]
    #[inline(never)]
    fn release_lone(&self, at: NonNull<u8>, passed: Passed, trail: Option<&Trail>) {
        if let Err(state) = self.lone.take_back(passed.at) {
            self.report_bad_pointer(passed, state);
        } else if let Some(facts) = self.look_closely(at, passed) {
            self.record(at).note_free(&facts, self.event(trail, facts.layout.size(), FREED));
            self.lone.retire(passed.at);
        }
    }

    /// What a live block's record says, if the guards are intact and the caller may do what `passed` says; else nothing,
    /// after a report.
    fn look_at_live(&self, at: NonNull<u8>, passed: Passed) -> Option<Facts> {
        match self.state(passed.at) {
            Some(State::Live) => self.look_closely(at, passed),
            state => self.report_bad_pointer(passed, state),
        }
    }

    /// Checks a block that is held back; what it was allocated with, if its record can be believed.
    #[inline]
    fn check_freed(&self, at: NonNull<u8>) -> Option<Layout> {
        if let Some(facts) = record_before(at).read() {
            let size = facts.layout.size();
            // SAFETY: the guards lie around each block.
            let around = unsafe { guard::is_surrounded(at, size) };
            // SAFETY: the block has that many bytes, and is nobody's.
            if around && unsafe { guard::is_filled(at, size.min(self.hunt().poison), Pattern::Freed) } {
                return Some(facts.layout);
            }
        }
        self.report_freed(at)
    }

    /// Reports what is wrong with a block that is held back.
    #[cold]
    #[inline(never)]
    fn report_freed(&self, at: NonNull<u8>) -> Option<Layout> {
        if let Some(case) = self.damage(at, State::Held) {
            self.report(&case);
        }
        self.record(at).read().map(|facts| facts.layout)
    }
}

/// What heaps as objects tell.
#[cfg(feature = "allocator-api2")]
impl Hunter {
    /// Whether nothing is hunted.
    pub(crate) fn is_off(&self, hunt: &Hunt) -> bool {
        self.phase(hunt) == OFF
    }

    /// The memory of `span` goes, with all blocks in it.
    pub(crate) fn forget(&self, span: Span) {
        if self.is_begun() {
            self.begins.forget(span);
        }
    }
}

/// What a process does with its hunter at its ends and forks.
impl Hunter {
    /// The thread of `trail` ends: what it held back goes.
    pub(crate) fn end_thread(&self, trail: &Trail, heap: &Guarded<'_, impl Blocks>) {
        heap.let_go_beyond(trail, 0, 0);
        self.trails.put(trail, &self.threads);
    }

    /// The process exits: everything is checked once more, and leaks are told if they are to be.
    pub(crate) fn finish(&self, owns: fn(usize) -> bool) {
        if self.is_begun() {
            self.sweep();
            if self.hunt().leaks {
                self.tell_leaks(owns);
            }
        }
    }

    pub(crate) fn before_fork(&self) {
        self.trails.all().for_each(Trail::lock);
        self.stacks.hold();
        self.lone.hold();
    }

    /// # Safety
    /// - `before_fork` was called, in this thread or in the one it was forked from.
    pub(crate) unsafe fn after_fork(&self) {
        // SAFETY: handed on.
        unsafe { self.lone.let_go() };
        // SAFETY: handed on.
        unsafe { self.stacks.let_go() };
        // SAFETY: handed on. Trails that were made since are in nobody's hands, and nobody minds.
        self.trails.all().for_each(|trail| unsafe { trail.unlock() });
    }

    /// As `after_fork`, in the child, whose only thread has the trail `own`.
    ///
    /// # Safety
    /// - As `after_fork`.
    pub(crate) unsafe fn after_fork_in_child(&self, own: Option<&Trail>) {
        // SAFETY: handed on.
        unsafe { self.after_fork() };
        self.trails.keep_only(own);
        if let Some(own) = own {
            self.threads.refresh(own.number.get());
        }
    }
}
