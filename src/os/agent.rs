//! A thread that comes when it is summoned, works for a while, and ends: for what must happen after the last call.

use crate::sync::{Acquire, AtomicU32, AtomicUsize, Relaxed, Release};
use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr::null_mut;

// How the thread is started.
#[cfg(all(feature = "c-abi", target_arch = "x86_64"))]
mod bare;
#[cfg(all(feature = "c-abi", target_arch = "x86_64"))]
use bare::{Thread, stays};
#[cfg(not(feature = "c-abi"))]
mod posix;
#[cfg(not(feature = "c-abi"))]
use posix::{Thread, stays};
#[cfg(all(feature = "c-abi", not(target_arch = "x86_64")))]
mod nobody;
#[cfg(all(feature = "c-abi", not(target_arch = "x86_64")))]
use nobody::{Thread, stays};

/// What the thread runs.
pub(crate) type Body = extern "C" fn(*mut c_void) -> *mut c_void;

/// There is no thread to be had; one may be summoned; one is at work; one is about to leave, and looks around once more.
const NONE: u32 = 0;
const AWAY: u32 = 1;
const AT_WORK: u32 = 2;
const LEAVING: u32 = 3;

/// The one thread of that kind that a source has, or may have.
#[derive(Debug)]
pub(crate) struct Agent {
    state: AtomicU32,
    /// The function, as an address; 0 before `enlist`.
    body: AtomicUsize,
    thread: Thread,
}

impl Agent {
    crate::sync::const_unless_loom! {
        pub(crate) fn new() -> Self {
            Self { state: AtomicU32::new(NONE), body: AtomicUsize::new(0), thread: Thread::new() }
        }
    }

    /// From now on a summons starts a thread with `body`, which ends when `dismiss` says so. Nothing happens where `body`
    /// could be unloaded while the thread is in it.
    pub(crate) fn enlist(&self, body: Body) {
        if !stays(body) {
            return;
        }
        self.body.store(body as usize, Relaxed);
        // Release: publishes the body; pairs with the exchange from `AWAY` in `summon`.
        self.state.store(AWAY, Release);
    }

    /// Whether there is a thread to be summoned.
    pub(crate) fn is_enlisted(&self) -> bool {
        self.state.load(Relaxed) != NONE
    }

    /// Whether the thread is at work.
    pub(crate) fn is_at_work(&self) -> bool {
        self.state.load(Relaxed) == AT_WORK
    }

    /// Makes sure that the thread is at work; false if none can be had. It allocates nothing from the heap.
    pub(crate) fn summon(&self) -> bool {
        match self.state.load(Relaxed) {
            AT_WORK => true,
            // Acquire: pairs with the release in `enlist`, `leave` and `forget`: the body is there, and the last thread's
            // work is done. The new thread sees what this one did by being started.
            AWAY if self.state.compare_exchange(AWAY, AT_WORK, Acquire, Relaxed).is_ok() => self.begin(),
            // One that has not left yet stays: nothing is handed over. If it has left meanwhile, another one is needed.
            LEAVING => self.state.compare_exchange(LEAVING, AT_WORK, Relaxed, Relaxed).is_ok() || self.summon(),
            AWAY => true,
            _ => false,
        }
    }

    #[cold]
    fn begin(&self) -> bool {
        // SAFETY: `enlist` made the address of just such a function.
        let body = unsafe { core::mem::transmute::<usize, Body>(self.body.load(Relaxed)) };
        let begun = self.thread.start(body);
        if !begun {
            // Where threads are refused once, they are not asked for again. Relaxed: `NONE` publishes nothing.
            self.state.store(NONE, Relaxed);
        }
        begun
    }

    /// Says, in the thread, that it is about to leave, and then looks around once more. (Relaxed: whoever sees it takes over
    /// nothing. That the look comes later for every processor is the caller's affair.)
    pub(crate) fn dismiss(&self) {
        self.state.store(LEAVING, Relaxed);
    }

    /// Leaves, in the thread, which must end then: the next summons starts another one. False if somebody has summoned it
    /// since it was dismissed.
    pub(crate) fn leave(&self) -> bool {
        // Release: pairs with the exchange from `AWAY` in `summon`: the next thread sees what this one did, and the body that
        // this one saw.
        self.state.compare_exchange(LEAVING, AWAY, Release, Relaxed).is_ok()
    }

    /// Takes a dismissal back, in the thread, which goes on: nothing is published. Somebody may have done so before.
    pub(crate) fn stay(&self) {
        self.state.store(AT_WORK, Relaxed);
    }

    /// After a fork, in the child: the thread is not here, nor is anybody who was about to start one. Whatever the state was,
    /// `AT_WORK` and `LEAVING` too, nobody is left to change it: the next summons starts a thread.
    pub(crate) fn forget(&self) {
        self.thread.forget();
        if self.is_enlisted() {
            // Release: pairs with the exchange from `AWAY` in `summon`, as in `enlist`, whose body came with the memory.
            self.state.store(AWAY, Release);
        }
    }
}

/// Runs `section` with all signals of this thread blocked: a thread started there never takes one from the program's own.
pub(super) fn with_signals_blocked(section: impl FnOnce() -> bool) -> bool {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the place is ours.
    let _ = unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: both sets are ours, and the first is filled.
    if unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) } != 0 {
        return false;
    }
    let result = section();
    // SAFETY: written by the call above.
    let _ = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), null_mut()) };
    result
}

/// Lets the calling thread sleep for so many milliseconds, below a second.
pub(crate) fn sleep(milliseconds: u32) {
    super::unix::pause(i64::from(milliseconds) * 1_000_000);
}

#[cfg(test)]
#[path = "agent_tests.rs"]
mod tests;
