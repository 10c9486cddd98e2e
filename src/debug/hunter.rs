//! What the guarded heaps of a process share: settings, records of where blocks begin, stacks, threads, what is held back.

use super::begins::{Begins, State};
use super::guard;
use super::guarded::Guarded;
use super::lone::Lone;
use super::record::{EPOCHS, Event, Record};
use super::stacks::{Door, Stacks};
use super::threads::Threads;
use super::trail::{Trail, Trails};
use super::voice;
use crate::config::Hunt;
use crate::heap::Blocks;
use crate::os;
use crate::sync::{Acquire, AtomicU32, AtomicU64, AtomicUsize, Relaxed, Release};
use crate::thread;
use core::cell::UnsafeCell;
use core::ptr::NonNull;

/// What the guarded heaps of a process share.
#[derive(Debug)]
pub(crate) struct Hunter {
    phase: AtomicU32,
    /// The addresses at which there may be blocks of the hunter's: where they begin, and how many they are; `usize::MAX` for all,
    /// also once a block has guards that was to have pages of its own, where no others have guards.
    hunted: (AtomicUsize, AtomicUsize),
    hunt: UnsafeCell<Hunt>,
    pub(super) begins: Begins,
    pub(super) threads: Threads,
    pub(super) stacks: Stacks,
    pub(super) trails: Trails,
    pub(super) lone: Lone,
    /// The number of the thread that is reporting; 0: none.
    pub(super) reporting: AtomicU32,
    /// When the hunter began, in the time of its clock and in milliseconds.
    begun: (AtomicU32, AtomicU64),
    /// How many `assert_no_leaks` there were.
    pub(super) epochs: AtomicU32,
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
pub(super) const OFF: u32 = 2;
pub(super) const PAGES: u32 = 3;
pub(super) const GUARDS: u32 = 4;

/// The value of the environment variable is not longer.
const WORDS_MAX: usize = 1024;

/// The time of a record's: a step takes about a third of a millisecond.
pub(super) fn now() -> u32 {
    (os::ticks() >> 20) as u32
}

impl Hunter {
    pub(crate) const fn new(hooks: Hooks) -> Self {
        Self {
            phase: AtomicU32::new(CLOSED),
            hunted: (AtomicUsize::new(0), AtomicUsize::new(usize::MAX)),
            hunt: UnsafeCell::new(Hunt::new()),
            begins: Begins::new(),
            threads: Threads::new(),
            stacks: Stacks::new(),
            trails: Trails::new(),
            lone: Lone::new(),
            reporting: AtomicU32::new(0),
            begun: (AtomicU32::new(0), AtomicU64::new(0)),
            epochs: AtomicU32::new(0),
            watches_faults: AtomicU32::new(0),
            hooks,
        }
    }

    /// The settings, once the hunter is open.
    #[inline(always)]
    pub(super) fn hunt(&self) -> &Hunt {
        // SAFETY: not written any more.
        unsafe { &*self.hunt.get() }
    }

    /// What is hunted; opens the hunter if need be, with `hunt` and what the environment says. `CLOSED` without memory.
    #[inline(always)]
    pub(super) fn phase(&self, hunt: &Hunt) -> u32 {
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
        if phase != GUARDS {
            self.hunted.1.store(0, Relaxed);
        }
        // Release: publishes the settings.
        self.phase.store(phase, Release);
        // May allocate: by now that is served.
        if phase != OFF {
            os::at_exit(self.hooks.exit);
        }
        phase
    }

    /// Whether blocks have been guarded.
    pub(super) fn is_begun(&self) -> bool {
        self.phase.load(Acquire) > OFF
    }

    /// Whether a heap may use `span`: whether begins of blocks can be noted there. (If that were found out only when a block is
    /// asked for, a heap without memory for more could have free pages that nobody can use.)
    pub(crate) fn covers(&self, span: os::Span) -> bool {
        !self.is_begun() || self.begins.cover(span)
    }

    /// When the hunter began, in milliseconds and in its clock's time.
    pub(super) fn beginning(&self) -> (u64, u32) {
        (self.begun.1.load(Relaxed), self.begun.0.load(Relaxed))
    }

    /// Hears of faults from now on. Others may set handlers of their own later, the standard library among them: it is looked
    /// after from time to time.
    pub(super) fn watch_faults(&self) {
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
    pub(super) fn next_epoch(&self) -> u32 {
        1 + self.epochs.fetch_add(1, Relaxed) % (EPOCHS - 1)
    }

    /// The calling thread's trail, which is made if it has none; `None` without memory, and once the thread has ended.
    #[inline(always)]
    pub(super) fn trail(&self) -> Option<&'static Trail> {
        thread::trail(|| self.trails.take(&self.threads))
    }

    /// What a record says of a call for a block of `size` bytes.
    #[inline]
    pub(super) fn event(&self, door: Door, trail: Option<&Trail>, size: usize) -> Event {
        let Some(trail) = trail else {
            return Event { time: now(), ..Event::default() };
        };
        let hunt = self.hunt();
        let is_watched = hunt.frames > 0 && hunt.is_watched(size) && !trail.is_unwatched.get();
        let stack =
            if is_watched { trail.memory.capture(door, &self.stacks, hunt.frames, trail.time.get()) } else { 0 };
        Event { stack, thread: trail.number.get(), time: trail.time.get() }
    }

    /// Whether a block at `address` may be one of the hunter's.
    #[inline(always)]
    pub(super) fn may_have(&self, address: usize) -> bool {
        // Relaxed: who has such a block has heard of it since.
        address.wrapping_sub(self.hunted.0.load(Relaxed)) < self.hunted.1.load(Relaxed)
    }

    /// Whether a block at any address may be one of the hunter's.
    #[inline(always)]
    pub(super) fn may_have_all(&self) -> bool {
        // Relaxed: as above.
        self.hunted.1.load(Relaxed) == usize::MAX
    }

    /// There are going to be blocks of the hunter's in `span` where there were none.
    pub(super) fn extend(&self, span: os::Span) {
        if !self.may_have_all() {
            self.hunted.0.store(span.at, Relaxed);
            // Not a store: meanwhile it may have become all. (From wherever they begin, that leaves one address out.)
            self.hunted.1.fetch_max(span.bytes, Relaxed);
        }
    }

    /// There are going to be blocks of the hunter's everywhere.
    pub(super) fn extend_to_all(&self) {
        self.hunted.1.store(usize::MAX, Relaxed);
    }

    /// Whether a block begins at `address` that is one of some with guards.
    #[inline]
    pub(super) fn has_some(&self, address: usize) -> bool {
        self.lone.has(address) || self.may_have_all() && self.begins.state(address).is_some()
    }

    /// What became of the block that begins at just this address.
    #[inline]
    pub(super) fn state(&self, address: usize) -> Option<State> {
        if self.lone.has(address) { self.lone.state(address) } else { self.begins.state(address) }
    }

    /// Runs `look`, which reads the block at `at`, if the block is live; it can be read meanwhile.
    pub(super) fn while_live<R>(&self, at: NonNull<u8>, look: impl FnOnce() -> R) -> Option<R> {
        let address = at.as_ptr() as usize;
        if self.lone.has(address) {
            return self.lone.while_live(address, look);
        }
        (self.begins.state(address) == Some(State::Live)).then(look)
    }

    /// Runs `visit` for each block that is there now, until it says that this is enough. O(pages of leaves).
    pub(super) fn each_block(&self, mut visit: impl FnMut(usize, State) -> bool) {
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
    pub(super) fn last_before(&self, address: usize, reach: usize) -> Option<(usize, State)> {
        if self.lone.has(address) { self.lone.around(address) } else { self.begins.last_before(address, reach) }
    }

    /// The record of the block that begins at `at`.
    pub(super) fn record(&self, at: NonNull<u8>) -> &Record {
        if let Some(record) = self.lone.record(at.as_ptr() as usize) {
            return record;
        }
        record_before(at)
    }
}

/// The record before a block.
#[inline(always)]
pub(super) fn record_before<'r>(at: NonNull<u8>) -> &'r Record {
    // SAFETY: `begins` says that a block begins here, and each has a record before it. All its words are atomics.
    unsafe { &*at.as_ptr().wrapping_sub(guard::BEFORE).cast::<Record>() }
}

/// What heaps as objects tell.
#[cfg(any(feature = "allocator-api2", feature = "symmetric"))]
impl Hunter {
    /// Whether nothing is hunted.
    #[cfg(feature = "allocator-api2")]
    pub(crate) fn is_off(&self, hunt: &Hunt) -> bool {
        self.phase(hunt) == OFF
    }

    /// The heap at `span`, which processes share, is open here no more.
    #[cfg(feature = "shared")]
    pub(crate) fn disown(&self, span: os::Span) {
        if self.phase.load(Acquire) >= OFF {
            self.begins.disown(span);
        }
    }

    /// The memory of `span` goes, with all blocks in it.
    pub(crate) fn forget(&self, span: os::Span) {
        if self.is_begun() {
            self.begins.forget(span);
        }
    }
}

/// What a process does with its hunter at its ends and forks.
impl Hunter {
    /// The thread of `trail` ends: what it held back goes.
    pub(crate) fn end_thread(&self, trail: &Trail, heap: &Guarded<'_, impl Blocks + Copy>) {
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
