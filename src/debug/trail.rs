//! What a thread leaves behind it: its number, the stacks it remembers, and the blocks that it freed and that are held back.
//!
//! Trails are made when a thread's first block is, are never unmapped, and serve one thread after another.

use super::stacks::Memory;
use super::threads::Threads;
use crate::lock::{Locked, Rank, Spin};
use crate::os::{self, Span};
use crate::sync::{AcqRel, Acquire, AtomicPtr, AtomicU32, AtomicUsize, Relaxed, Release};
use core::cell::{Cell, UnsafeCell};
use core::ptr::null_mut;

/// A freed block, of so many bytes, that is held back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) address: usize,
    pub(super) bytes: usize,
}

/// Blocks held back, the oldest first, and one that comes.
///
/// Who frees a block takes the lock before the block is poisoned: an exchange waits until whatever was written before it is
/// in the cache, and freed memory often is not. So a block is here a little before it is whole, and counted only by the next.
#[derive(Debug)]
pub(super) struct Ring {
    /// Room for `room` blocks, a power of two; 0 before there is any.
    places: usize,
    room: usize,
    first: usize,
    count: usize,
    bytes: usize,
    /// The block that comes.
    coming: Option<Held>,
}

impl Ring {
    const EMPTY: Self = Self { places: 0, room: 0, first: 0, count: 0, bytes: 0, coming: None };

    /// Counts the block that has come.
    #[inline]
    fn settle(&mut self) {
        if let Some(held) = self.coming.take() {
            // SAFETY: inside the room, which is this ring's: `push` saw to it.
            unsafe { self.place(self.count).write(held) };
            self.count += 1;
            self.bytes += held.bytes;
        }
    }

    fn place(&self, index: usize) -> *mut Held {
        (self.places as *mut Held).wrapping_add((self.first + index) & (self.room - 1))
    }

    /// Lets a block come; false if there is no room.
    #[inline]
    fn push(&mut self, held: Held, room: usize) -> bool {
        if self.room == 0 && !self.make_room(room) {
            return false;
        }
        self.settle();
        if self.count == self.room {
            return false;
        }
        self.coming = Some(held);
        true
    }

    #[cold]
    fn make_room(&mut self, room: usize) -> bool {
        let room = room.next_power_of_two().max(2);
        let Some(span) = os::map_sparse(room * size_of::<Held>()) else {
            return false;
        };
        (self.places, self.room) = (span.at, room);
        true
    }

    /// Whether there are more than these.
    fn is_beyond(&self, bytes: usize, blocks: usize) -> bool {
        self.count > blocks || self.bytes > bytes
    }

    /// Takes the oldest block out while there are more than these.
    #[inline]
    fn pop_beyond(&mut self, bytes: usize, blocks: usize) -> Option<Held> {
        if self.count == 0 || !self.is_beyond(bytes, blocks) {
            return None;
        }
        // SAFETY: written by `push`.
        let held = unsafe { self.place(0).read() };
        self.first += 1;
        self.count -= 1;
        self.bytes -= held.bytes;
        // Whoever leaves next is looked at soon.
        if self.count > AHEAD {
            // SAFETY: as above.
            prefetch(unsafe { self.place(AHEAD).read() }.address);
        }
        Some(held)
    }

    /// Every block that is held, the oldest first, until `visit` has seen enough.
    fn each(&self, mut visit: impl FnMut(Held) -> bool) -> bool {
        // SAFETY: written by `push`.
        (0..self.count).all(|index| visit(unsafe { self.place(index).read() }))
    }
}

/// How many blocks ahead of its check a block is fetched.
const AHEAD: usize = 8;

/// Fetches a block's record and begin.
#[inline(always)]
fn prefetch(address: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in [address - super::guard::BEFORE, address] {
        // SAFETY: a hint; nothing is read.
        unsafe { core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(line as *const i8) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// What a thread leaves behind it. All zero bits are a trail of nobody.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Trail {
    next: UnsafeCell<*mut Trail>,
    is_taken: AtomicU32,
    /// Its thread's number.
    pub(super) number: Cell<u32>,
    /// Calls of its thread, and how many there are when something is to be done.
    pub(super) calls: Cell<u32>,
    pub(super) due: Cell<u32>,
    /// The time when it was asked for last.
    pub(super) time: Cell<u32>,
    /// Which `assert_no_leaks` its thread is in.
    pub(super) epoch: Cell<u32>,
    /// Blocks until the next one with pages of its own; 0: it has not been said yet.
    pub(super) turn: Cell<u32>,
    /// Where its random numbers are.
    random: Cell<u64>,
    /// Whether its thread asked not to be watched.
    pub(super) is_unwatched: Cell<bool>,
    pub(super) memory: Memory,
    /// 0 while the thread poisons the block that comes.
    is_whole: AtomicU32,
    ring: Locked<Ring, Spin>,
}

/// All trails.
#[derive(Debug)]
pub(super) struct Trails {
    newest: AtomicPtr<Trail>,
    /// How many are taken.
    taken: AtomicU32,
    /// Bytes that all may hold back together, and each of them.
    bytes: AtomicUsize,
    share: AtomicUsize,
}

impl Trails {
    pub(super) const fn new() -> Self {
        Self {
            newest: AtomicPtr::new(null_mut()),
            taken: AtomicU32::new(0),
            bytes: AtomicUsize::new(0),
            share: AtomicUsize::new(0),
        }
    }

    /// Every trail there is.
    pub(super) fn all(&self) -> impl Iterator<Item = &'static Trail> + use<> {
        // Acquire: pairs with `map`: the trail is written.
        let mut at = self.newest.load(Acquire);
        core::iter::from_fn(move || {
            // SAFETY: a trail stays for good.
            let trail = unsafe { at.as_ref() }?;
            // SAFETY: written before the trail was published.
            at = unsafe { *trail.next.get() };
            Some(trail)
        })
    }

    /// A trail for the calling thread; `None` without memory.
    pub(super) fn take(&self, threads: &Threads) -> Option<&'static Trail> {
        let free = self.all().find(|trail| trail.is_taken.compare_exchange(0, 1, AcqRel, Relaxed).is_ok());
        let trail = match free {
            Some(trail) => trail,
            None => self.map()?,
        };
        self.taken.fetch_add(1, Relaxed);
        self.divide();
        trail.number.set(threads.enter());
        trail.calls.set(0);
        trail.due.set(1);
        trail.epoch.set(0);
        trail.turn.set(0);
        trail.is_unwatched.set(false);
        trail.memory.forget();
        Some(trail)
    }

    fn map(&self) -> Option<&'static Trail> {
        let Span { at, .. } = os::map_sparse(size_of::<Trail>())?;
        let trail = at as *mut Trail;
        // SAFETY: fresh memory, where zero bits are a trail but for its lock.
        let ring = unsafe { &raw mut (*trail).ring };
        // SAFETY: as above.
        unsafe { ring.write(Locked::new(Rank::Hunter, Ring::EMPTY)) };
        // SAFETY: as above.
        let fresh = unsafe { &*trail };
        fresh.is_taken.store(1, Relaxed);
        fresh.is_whole.store(1, Relaxed);
        let mut newest = self.newest.load(Relaxed);
        loop {
            // SAFETY: nobody else knows the trail yet.
            unsafe { *fresh.next.get() = newest };
            // Release: publishes the trail.
            match self.newest.compare_exchange(newest, trail, AcqRel, Acquire) {
                Ok(_) => return Some(fresh),
                Err(other) => newest = other,
            }
        }
    }

    /// The thread of this trail ends, and holds nothing back any more.
    pub(super) fn put(&self, trail: &Trail, threads: &Threads) {
        threads.leave(trail.number.get());
        self.taken.fetch_sub(1, Relaxed);
        self.divide();
        // Release: the next thread sees what this one left.
        trail.is_taken.store(0, Release);
    }

    /// Sets how many bytes all may hold back together.
    pub(super) fn set_bytes(&self, bytes: usize) {
        self.bytes.store(bytes, Relaxed);
        self.divide();
    }

    fn divide(&self) {
        self.share.store(self.bytes.load(Relaxed) / self.taken.load(Relaxed).max(1) as usize, Relaxed);
    }

    /// Bytes that each thread may hold back.
    #[inline]
    pub(super) fn share(&self) -> usize {
        self.share.load(Relaxed)
    }

    /// After a fork, in the child: only the calling thread, whose trail this is, goes on.
    pub(super) fn keep_only(&self, own: Option<&Trail>) {
        for trail in self.all().filter(|trail| own.is_none_or(|own| !core::ptr::eq(*trail, own))) {
            trail.give_up();
            trail.is_taken.store(0, Relaxed);
        }
        self.taken.store(u32::from(own.is_some()), Relaxed);
        self.divide();
    }
}

impl Trail {
    /// Counts a block, if it comes before the next one with pages of its own.
    #[inline]
    pub(super) fn is_before_turn(&self) -> bool {
        let turn = self.turn.get();
        if turn > 1 {
            self.turn.set(turn - 1);
        }
        turn > 1
    }

    /// A number that nobody expects.
    pub(super) fn random(&self) -> u32 {
        let last = self.random.get();
        let mut next = if last == 0 { os::ticks() | 1 } else { last };
        next ^= next << 13;
        next ^= next >> 7;
        next ^= next << 17;
        self.random.set(next);
        (next >> 32) as u32
    }

    /// Holds a block back that is not poisoned yet; what must go, the block itself if there is no room, and whether more must
    /// go. `whole` comes next.
    #[inline]
    pub(super) fn hold_back(&self, held: Held, bytes: usize, blocks: usize) -> Option<(Held, bool)> {
        self.ring.with(|ring| {
            if !ring.push(held, blocks + 1) {
                return Some((held, false));
            }
            self.is_whole.store(0, Relaxed);
            ring.pop_beyond(bytes, blocks).map(|oldest| (oldest, ring.is_beyond(bytes, blocks)))
        })
    }

    /// The block that comes is poisoned.
    #[inline]
    pub(super) fn whole(&self) {
        // Release: what was written to it; pairs with `with_whole`.
        self.is_whole.store(1, Release);
    }

    /// Runs `section` with the ring, in which the block that comes is counted if it is whole.
    #[inline]
    fn with_whole<R>(&self, section: impl FnOnce(&mut Ring) -> R) -> R {
        self.ring.with(|ring| {
            // Acquire: pairs with `whole`.
            if self.is_whole.load(Acquire) == 1 {
                ring.settle();
            }
            section(ring)
        })
    }

    /// Its thread is no more, wherever it was: a block that it had not poisoned stays as it is, nobody's.
    fn give_up(&self) {
        self.with_whole(|ring| ring.coming = None);
        self.is_whole.store(1, Relaxed);
    }

    /// Takes out a block that was held back for longest, while more is held than these.
    #[inline]
    pub(super) fn release_beyond(&self, bytes: usize, blocks: usize) -> Option<Held> {
        self.with_whole(|ring| ring.pop_beyond(bytes, blocks))
    }

    /// Every block that is held back, until `visit` has seen enough; no block leaves meanwhile.
    pub(super) fn each_held(&self, visit: impl FnMut(Held) -> bool) -> bool {
        self.with_whole(|ring| ring.each(visit))
    }

    pub(super) fn lock(&self) {
        self.ring.hold();
    }

    /// # Safety
    /// - This thread, or the one it was forked from, called `lock`.
    pub(super) unsafe fn unlock(&self) {
        // SAFETY: handed on.
        unsafe { self.ring.let_go() };
    }
}
