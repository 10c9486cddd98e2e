//! The seam beside every lock. [`RawLock`] is what a heap needs of a lock; [`Spin`] is the one of the process heap.
//! `Locked` ties a lock to what it guards and to its rank.
//!
//! Lock order: a lock is only taken while every lock held has a lower rank; two locks of one rank are never held
//! together, but by fork, whose `prepare` takes all of them in order. Builds with debug assertions check it. No
//! system call and no callback is made with a lock held, but for that of a shard, which stands for a thread's own cache, and
//! those of the hooks, under which the kernel is asked to watch memory.

use crate::os;
#[cfg(not(loom))]
use core::cell::UnsafeCell;
#[cfg(loom)]
use loom::cell::UnsafeCell;

/// Mutual exclusion without data.
///
/// # Safety
/// - `acquire` returns only when no other acquirer is between its `acquire` and its `release`;
/// - what was written before a `release` is seen after the `acquire` that follows it.
pub unsafe trait RawLock {
    /// A lock that nobody holds.
    #[cfg(not(loom))]
    const NEW: Self;

    /// A lock that nobody holds.
    #[cfg(loom)]
    fn new() -> Self;

    /// Waits until the lock is free and takes it.
    fn acquire(&self);

    /// Gives the lock back.
    ///
    /// # Safety
    /// - The caller, or the thread it was forked from, holds the lock.
    unsafe fn release(&self);

    /// By who holds the lock: whether the one who held it before died meanwhile.
    fn is_wounded(&self) -> bool {
        false
    }
}

/// A spin lock (crate `spin`) whose waiters yield their time slice after some rounds, so that more threads than
/// cores do not spin a holder off its core.
#[derive(Debug)]
pub struct Spin(spin::mutex::SpinMutex<()>);

/// Tries before a waiter begins to yield.
const ROUNDS: u32 = 100;
/// Tries before a waiter begins to sleep: a yield does not let a holder of lower priority run.
const PATIENCE: u32 = 1000;

// SAFETY: `SpinMutex` excludes; its `try_lock` acquires and its `force_unlock` releases.
unsafe impl RawLock for Spin {
    #[cfg(not(loom))]
    const NEW: Self = Self(spin::mutex::SpinMutex::new(()));

    #[cfg(loom)]
    fn new() -> Self {
        Self(spin::mutex::SpinMutex::new(()))
    }

    #[inline]
    fn acquire(&self) {
        if !self.take() {
            self.wait();
        }
    }

    #[inline]
    unsafe fn release(&self) {
        // SAFETY: the caller holds the lock.
        unsafe { self.0.force_unlock() }
    }
}

impl Spin {
    /// Waits until the lock is free and takes it.
    #[cold]
    #[inline(never)]
    fn wait(&self) {
        let mut round: u32 = 0;
        while !self.take() {
            round = round.saturating_add(1);
            match round {
                0..ROUNDS => core::hint::spin_loop(),
                ROUNDS..PATIENCE => os::yield_now(),
                _ => os::rest(),
            }
        }
    }

    /// Takes the lock if it is free. The guard is forgotten: `release` stands for its drop.
    #[inline]
    fn take(&self) -> bool {
        self.0.try_lock().map(core::mem::forget).is_some()
    }
}

/// The place of a lock in the lock order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// A cache that threads share.
    #[cfg_attr(not(feature = "allocator-api2"), allow(dead_code, reason = "only heaps as objects share caches"))]
    Shard = 1,
    /// The list of a heap's thread caches.
    Registry,
    /// One class of the depot.
    Depot,
    /// One class of the slab layer.
    Slabs,
    /// A reserve of long runs.
    Reserve,
    /// The page runs.
    Runs,
    /// The memory for slab records.
    Records,
    /// The list of caches of registrations.
    #[cfg_attr(not(feature = "hooks"), allow(dead_code, reason = "of that feature"))]
    Caches,
    /// A cache of registrations.
    #[cfg_attr(not(feature = "hooks"), allow(dead_code, reason = "of that feature"))]
    Cached,
    /// What is registered with the hooks.
    #[cfg_attr(not(feature = "hooks"), allow(dead_code, reason = "of that feature"))]
    Registered,
    /// What the hooks have heard of the kernel.
    #[cfg_attr(not(feature = "hooks"), allow(dead_code, reason = "of that feature"))]
    Heard,
    /// What the corruption hunter keeps.
    #[cfg_attr(not(feature = "malloc-debug"), allow(dead_code, reason = "of that feature"))]
    Hunter,
}

/// A value behind a lock.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Locked<T, L> {
    lock: L,
    rank: order::Tag,
    value: UnsafeCell<T>,
}

// SAFETY: the value is only reached while the lock is held, by one thread at a time.
unsafe impl<T: Send, L: Sync> Sync for Locked<T, L> {}

#[cfg(feature = "cli")]
impl<T, L> Locked<T, L> {
    /// Where the lock lies, and the value.
    pub(crate) const PLACES: (usize, usize) = (core::mem::offset_of!(Self, lock), core::mem::offset_of!(Self, value));
}

impl<T, L: RawLock> Locked<T, L> {
    crate::sync::const_unless_loom! {
        /// A lock of `rank` around `value`.
        pub(crate) fn new(rank: Rank, value: T) -> Self {
            #[cfg(not(loom))]
            let lock = L::NEW;
            #[cfg(loom)]
            let lock = L::new();
            Self { lock, rank: order::tag(rank), value: UnsafeCell::new(value) }
        }
    }

    /// Runs `section` with the lock held.
    #[inline]
    pub(crate) fn with<R>(&self, section: impl FnOnce(&mut T) -> R) -> R {
        order::enter(self.rank);
        self.lock.acquire();
        // SAFETY: the lock is held until `section` has returned, and lends the value out once at a time.
        #[cfg(not(loom))]
        let result = section(unsafe { &mut *self.value.get() });
        // SAFETY: as above; loom checks it.
        #[cfg(loom)]
        let result = self.value.with_mut(|value| section(unsafe { &mut *value }));
        // SAFETY: acquired above.
        unsafe { self.lock.release() };
        order::leave(self.rank);
        result
    }

    /// For models: reads the value as a forked child does, in whose process the locks are held.
    #[cfg(all(test, loom))]
    pub(crate) fn peek<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        // SAFETY: the caller holds the lock; loom checks it.
        self.value.with(|value| look(unsafe { &*value }))
    }

    /// The lock.
    #[cfg(all(feature = "shared", not(loom)))]
    pub(crate) fn raw(&self) -> &L {
        &self.lock
    }

    /// Takes the lock and keeps it: for fork.
    #[inline(never)]
    pub(crate) fn hold(&self) {
        self.lock.acquire();
    }

    /// In the child of a fork, where other threads are not: the lock is free, and the value this one; what it was is not looked at.
    ///
    /// # Safety
    /// - No other thread is there, and this one does not hold the lock.
    #[cfg(all(feature = "hooks", not(loom)))]
    pub(crate) unsafe fn renew(&self, value: T) {
        // SAFETY: nobody else is there.
        unsafe { self.value.get().write(value) };
        // SAFETY: whoever held it is not there.
        unsafe { self.lock.release() };
    }

    /// What is behind a lock that `hold` took.
    ///
    /// # Safety
    /// - This thread, or the one it was forked from, holds the lock by `hold`, and nothing else refers to the value meanwhile.
    #[cfg(all(feature = "hooks", not(loom)))]
    #[allow(clippy::mut_from_ref, reason = "the lock is held")]
    pub(crate) unsafe fn held(&self) -> &mut T {
        // SAFETY: handed on to the caller.
        unsafe { &mut *self.value.get() }
    }

    /// Gives back what `hold` took.
    ///
    /// # Safety
    /// - This thread, or the one it was forked from, holds the lock by `hold`.
    #[inline(never)]
    pub(crate) unsafe fn let_go(&self) {
        // SAFETY: handed on to the caller.
        unsafe { self.lock.release() }
    }
}

/// The check of the lock order, in builds with debug assertions. (Behind C names a thread-local may be what allocates, and
/// the purger has none. And what lies in a shared heap's file must not depend on debug assertions.)
#[cfg(all(debug_assertions, feature = "std", not(any(feature = "c-abi", feature = "shared", loom))))]
mod order {
    use super::Rank;
    use core::cell::Cell;

    /// A lock's rank.
    pub(super) type Tag = Rank;

    pub(super) const fn tag(rank: Rank) -> Tag {
        rank
    }

    std::thread_local! {
        /// Bit `rank` is set iff this thread holds a lock of that rank.
        static HELD: Cell<u32> = const { Cell::new(0) };
    }

    pub(super) fn enter(rank: Rank) {
        let held = HELD.get();
        // An assertion may allocate while it reports: this one ends the process first.
        if held >> rank as u32 != 0 {
            crate::os::say(b"stratalloc: internal: locks taken against their order\n");
            crate::os::abort()
        }
        HELD.set(held | 1 << rank as u32);
    }

    pub(super) fn leave(rank: Rank) {
        HELD.set(HELD.get() & !(1 << rank as u32));
    }
}

#[cfg(not(all(debug_assertions, feature = "std", not(any(feature = "c-abi", feature = "shared", loom)))))]
mod order {
    use super::Rank;

    /// Nothing: so a static heap is all zero bits, and takes no room in the program's file.
    #[derive(Clone, Copy, Debug)]
    pub(super) struct Tag;

    pub(super) const fn tag(_: Rank) -> Tag {
        Tag
    }

    #[inline(always)]
    pub(super) fn enter(_: Tag) {}

    #[inline(always)]
    pub(super) fn leave(_: Tag) {}
}
