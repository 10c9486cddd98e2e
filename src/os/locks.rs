//! Locks of the system's that processes share, and that go free when a process dies.

#![allow(clippy::disallowed_methods, reason = "this folder is where the system is called")]

use super::errors::{Errno, checked};
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;

/// A robust mutex of the C library's, in memory that processes share.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Robust(UnsafeCell<MaybeUninit<libc::pthread_mutex_t>>);

// SAFETY: a mutex is there for many threads.
unsafe impl Sync for Robust {}

impl Robust {
    /// No mutex yet: `init` comes first.
    pub(crate) const fn new() -> Self {
        Self(UnsafeCell::new(MaybeUninit::zeroed()))
    }

    fn at(&self) -> *mut libc::pthread_mutex_t {
        self.0.get().cast()
    }

    /// Makes it a mutex that nobody holds, whatever it was. Nobody else uses it.
    pub(crate) fn init(&self) -> Result<(), Errno> {
        let mut kind = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        let done = |result| if result == 0 { Ok(()) } else { Err(result) };
        // SAFETY: the place is as large as what is written.
        done(unsafe { libc::pthread_mutexattr_init(kind.as_mut_ptr()) })?;
        // SAFETY: initialised above.
        done(unsafe { libc::pthread_mutexattr_setpshared(kind.as_mut_ptr(), libc::PTHREAD_PROCESS_SHARED) })?;
        // SAFETY: as above.
        done(unsafe { libc::pthread_mutexattr_setrobust(kind.as_mut_ptr(), libc::PTHREAD_MUTEX_ROBUST) })?;
        // SAFETY: as above; the mutex is the caller's.
        done(unsafe { libc::pthread_mutex_init(self.at(), kind.as_ptr()) })
    }

    /// Takes it, whoever died with it.
    pub(crate) fn lock(&self) {
        // SAFETY: `init` ran before.
        let result = unsafe { libc::pthread_mutex_lock(self.at()) };
        if result == libc::EOWNERDEAD {
            // SAFETY: held since just now. What it guards, others see to.
            let _ = unsafe { libc::pthread_mutex_consistent(self.at()) };
        }
    }

    /// Gives it back.
    pub(crate) fn unlock(&self) {
        // SAFETY: the caller holds it.
        let _ = unsafe { libc::pthread_mutex_unlock(self.at()) };
    }
}

/// A set of semaphores of the system's, each a lock that goes free when its process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Semaphores(pub(crate) i32);

impl Semaphores {
    /// A set of `count` free locks.
    pub(crate) fn new(count: usize) -> Result<Self, Errno> {
        // SAFETY: no preconditions.
        let set = checked(unsafe { libc::semget(libc::IPC_PRIVATE, count as libc::c_int, 0o600) })?;
        let set = Self(set);
        for at in 0..count {
            // SAFETY: the set has that many; the value is an integer.
            checked(unsafe { libc::semctl(set.0, at as libc::c_int, libc::SETVAL, 1 as libc::c_int) })
                .inspect_err(|_| set.remove())?;
        }
        Ok(set)
    }

    /// Whether it is a set of `count` free locks.
    pub(crate) fn are_free(self, count: usize) -> bool {
        // SAFETY: no preconditions.
        let is_free = |at: usize| unsafe { libc::semctl(self.0, at as libc::c_int, libc::GETVAL) } == 1;
        self.has(count) && (0..count).all(is_free)
    }

    /// Whether it is a set of `count` semaphores.
    fn has(self, count: usize) -> bool {
        let mut found = MaybeUninit::<libc::semid_ds>::zeroed();
        // SAFETY: the place is as large as what is written.
        let result = unsafe { libc::semctl(self.0, 0, libc::IPC_STAT, found.as_mut_ptr()) };
        // SAFETY: zero bits are one, and so is what the system wrote.
        result != -1 && unsafe { found.assume_init() }.sem_nsems as usize == count
    }

    /// Takes lock `at`; an error if the set is no more.
    pub(crate) fn lock(self, at: usize) -> Result<(), Errno> {
        self.change(at, -1)
    }

    /// Gives lock `at` back.
    pub(crate) fn unlock(self, at: usize) {
        // A set that is no more has no locks.
        let _ = self.change(at, 1);
    }

    fn change(self, at: usize, by: i16) -> Result<(), Errno> {
        let mut step = libc::sembuf { sem_num: at as u16, sem_op: by, sem_flg: libc::SEM_UNDO as i16 };
        loop {
            // SAFETY: one step, which is there to be read.
            match checked(unsafe { libc::semop(self.0, &raw mut step, 1) }) {
                Err(libc::EINTR) => {}
                result => return result.map(|_| ()),
            }
        }
    }

    /// Removes the set.
    pub(crate) fn remove(self) {
        // SAFETY: no preconditions. What is not there need not be removed.
        let _ = unsafe { libc::semctl(self.0, 0, libc::IPC_RMID) };
    }
}

/// Milliseconds since the system was started.
pub(crate) fn since_boot() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place is ours.
    let _ = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    (time.tv_sec as u64).wrapping_mul(1000).wrapping_add(time.tv_nsec as u64 / 1_000_000)
}
