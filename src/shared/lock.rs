//! The locks of a shared heap, in the four schemes that one may be made with.
//!
//! Each is in the file, with a word that says which guest has it. Whoever takes a lock and finds that its holder died in it, or
//! that somebody found so, lets it be and has the heap mended first. A thread has one of these locks at a time, but for the one
//! that has all: for that they are no locks.

use super::body::Body;
use super::guests::GuestNumber;
use super::opened::{self, Opened};
use super::{mend, seats};
use crate::fatal::{Fatal, die};
use crate::lock::RawLock;
use crate::os::{self, Errno, Robust};
use crate::sync::{Acquire, AtomicU32, Relaxed, Release, in_order, step};

/// How the processes of a heap exclude each other. It is chosen when a heap is made, and stands in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Scheme {
    /// Robust mutexes of the C library's (POSIX): the fastest that let a waiting thread sleep.
    #[default]
    RobustMutex,
    /// Semaphores of the system's (System V), undone at a death. A set of them is made with the heap, and made anew by the first
    /// who opens it while nobody has it open; it goes with the heap.
    Semaphores,
    /// Locks of bytes of the file.
    FileLocks,
    /// Words in the file. Who waits yields, sleeps for moments, and looks whether the holder lives.
    Spin,
}

impl Scheme {
    /// What stands for it in a file.
    pub(super) fn code(self) -> u32 {
        match self {
            Self::RobustMutex => 1,
            Self::Semaphores => 2,
            Self::FileLocks => 3,
            Self::Spin => 4,
        }
    }

    pub(super) fn of(code: u32) -> Option<Self> {
        [Self::RobustMutex, Self::Semaphores, Self::FileLocks, Self::Spin].into_iter().find(|it| it.code() == code)
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RobustMutex => "robust mutexes",
            Self::Semaphores => "semaphores",
            Self::FileLocks => "file locks",
            Self::Spin => "spin locks",
        }
    }
}

/// The first byte of the file that stands for a lock.
const LOCKS_AT: u64 = 1 << 20;
/// Locks that a heap has, at the most.
pub(super) const LOCKS: usize = 128;
/// Tries before a waiter yields, and before it sleeps.
const ROUNDS: u32 = 100;
const PATIENCE: u32 = 200;
/// Sleeps of a waiter between two looks whether the holder lives.
const RESTS_PER_LOOK: u32 = 16;

/// A lock of a shared heap. All zero bits until `prepare`.
#[derive(Debug)]
#[repr(C)]
pub(super) struct SharedLock {
    /// The guest that has it, or that died with it.
    pub(super) owner: AtomicU32,
    /// While the one who mends has it: 1 if somebody died in it.
    wounded: AtomicU32,
    pub(super) scheme: AtomicU32,
    pub(super) number: AtomicU32,
    robust: Robust,
}

/// How it came out to take a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// It is the caller's.
    Whole,
    /// It is the caller's, but somebody died in it.
    Wounded,
    /// It is nobody's, since somebody died in it.
    Dead,
}

impl SharedLock {
    /// Makes it lock `number` of a heap with `scheme`, free, whatever it was. Nobody uses it.
    pub(super) fn prepare(&self, scheme: Scheme, number: usize) -> Result<(), Errno> {
        if scheme == Scheme::RobustMutex {
            self.robust.init()?;
        }
        // Whoever died in it need not be known: all is made anew. Its number may be that of who does so.
        self.owner.store(0, Relaxed);
        self.scheme.store(scheme.code(), Relaxed);
        self.number.store(number as u32, Relaxed);
        Ok(())
    }

    /// Where it lies, in a heap that this process has open.
    fn place(&self) -> &'static Opened {
        match opened::around(core::ptr::from_ref(self) as usize) {
            Some(place) => place,
            None => die(Fatal::Damaged),
        }
    }

    fn scheme(&self) -> Option<Scheme> {
        Scheme::of(self.scheme.load(Relaxed))
    }

    fn number(&self) -> usize {
        self.number.load(Relaxed) as usize % LOCKS
    }

    /// Waits for it and takes it, for the guest of `place`.
    fn take(&self, place: &Opened, body: &Body) -> Taken {
        match self.scheme() {
            Some(Scheme::RobustMutex) => self.robust.lock(),
            Some(Scheme::Semaphores) => {
                if body.semaphores().lock(self.number()).is_err() {
                    die(Fatal::NoSemaphores);
                }
            }
            Some(Scheme::FileLocks) => {
                // The system's lock is one of the process's opening; its threads exclude each other before.
                place.lock_here(self.number()).acquire();
                if place.file().lock(LOCKS_AT + self.number() as u64).is_err() {
                    die(Fatal::NoFileLock);
                }
            }
            Some(Scheme::Spin) => return self.spin(place, body),
            None => die(Fatal::Damaged),
        }
        // It was free, or went free by a death.
        if self.owner.load(Relaxed) == 0 { Taken::Whole } else { Taken::Wounded }
    }

    fn spin(&self, place: &Opened, body: &Body) -> Taken {
        let (me, mut round) = (place.guest(), 0u32);
        loop {
            // Acquire: pairs with `give`.
            match self.owner.compare_exchange(0, me.0, Acquire, Relaxed) {
                Ok(_) => return Taken::Whole,
                Err(owner) => {
                    round = round.saturating_add(1);
                    match round {
                        0..ROUNDS => core::hint::spin_loop(),
                        ROUNDS..PATIENCE => os::yield_now(),
                        _ => os::rest(),
                    }
                    let looks = round > PATIENCE && round.is_multiple_of(RESTS_PER_LOOK);
                    if looks && !body.guests.is_alive(GuestNumber(owner), me, place.file()) {
                        return Taken::Dead;
                    }
                }
            }
        }
    }

    /// Gives it back; the word stays as it is.
    fn give(&self, place: &Opened, body: &Body) {
        match self.scheme() {
            Some(Scheme::RobustMutex) => self.robust.unlock(),
            Some(Scheme::Semaphores) => body.semaphores().unlock(self.number()),
            Some(Scheme::FileLocks) => {
                place.file().unlock(LOCKS_AT + self.number() as u64);
                // SAFETY: `take` acquired it.
                unsafe { place.lock_here(self.number()).release() };
            }
            Some(Scheme::Spin) | None => {}
        }
    }

    /// For who is to mend: takes it, whoever died with it, once that one is no more. (The system lets a lock go free when a thread
    /// is at its end, and the guest's byte when the last one of the process is: so no other thread of it does anything then.)
    pub(super) fn seize(&self, place: &Opened, body: &Body) {
        let me = place.guest();
        loop {
            match self.take(place, body) {
                Taken::Whole => {
                    self.wounded.store(0, Relaxed);
                    break;
                }
                Taken::Wounded => {
                    self.wounded.store(1, Relaxed);
                    let owner = GuestNumber(self.owner.load(Relaxed));
                    while owner != me && body.guests.is_alive(owner, me, place.file()) {
                        os::rest();
                    }
                    break;
                }
                Taken::Dead => {
                    let owner = self.owner.load(Relaxed);
                    let dead = !body.guests.is_alive(GuestNumber(owner), me, place.file());
                    // Acquire: what the dead wrote is there.
                    if owner != 0 && dead && self.owner.compare_exchange(owner, me.0, Acquire, Relaxed).is_ok() {
                        self.wounded.store(1, Relaxed);
                        return;
                    }
                }
            }
        }
        in_order();
        self.owner.store(me.0, Relaxed);
        in_order();
    }

    /// For who has mended: gives it back.
    pub(super) fn let_go(&self, place: &Opened, body: &Body) {
        self.wounded.store(0, Relaxed);
        in_order();
        // Release: for the one who spins.
        self.owner.store(0, Release);
        in_order();
        self.give(place, body);
    }
}

// SAFETY: each scheme excludes, in threads and processes; release and acquire are paired by it.
unsafe impl RawLock for SharedLock {
    const NEW: Self = Self {
        owner: AtomicU32::new(0),
        wounded: AtomicU32::new(0),
        scheme: AtomicU32::new(0),
        number: AtomicU32::new(0),
        robust: Robust::new(),
    };

    fn acquire(&self) {
        if seats::has_all() {
            return;
        }
        let place = self.place();
        let body = place.body();
        loop {
            step();
            let taken = self.take(place, body);
            step();
            if taken == Taken::Whole && !body.is_wounded() {
                self.owner.store(place.guest().0, Relaxed);
                return in_order();
            }
            if taken != Taken::Whole {
                body.wound();
            }
            match (taken, self.scheme()) {
                (Taken::Dead, _) => {}
                (_, Some(Scheme::Spin)) => self.owner.store(0, Release),
                _ => self.give(place, body),
            }
            mend::mend(place, body);
        }
    }

    unsafe fn release(&self) {
        if seats::has_all() {
            return;
        }
        let place = self.place();
        in_order();
        // Release: for the one who spins.
        self.owner.store(0, Release);
        in_order();
        self.give(place, place.body());
        step();
    }

    fn is_wounded(&self) -> bool {
        self.wounded.load(Relaxed) == 1
    }
}
