//! The agent's thread by the bare system call, for libraries that serve the C names: the C library may be the caller, with
//! its own locks held, so it cannot be asked for a thread, and never hears of this one.
//!
//! The thread has a stack and a thread's storage of its own, in one mapping that is kept for the next one. The storage reads
//! zero, as if a thread had just begun, but for the two words by which it finds itself. What is called in the thread must not
//! use more of the C library than system calls and `errno`; no thread-local that begins as anything but zero, and none of a
//! library that is loaded later.

use super::{Body, with_signals_blocked};
use crate::os::Span;
use crate::os::unix::map;
use crate::sync::{Acquire, AtomicU32, AtomicUsize, Relaxed};
use core::ffi::c_void;
use core::ptr::null_mut;

/// A page that nothing is in, so that a stack too deep ends the process and no data.
const GUARD: usize = 4 << 10;
/// The stack: a few calls.
const STACK: usize = 64 << 10;
/// Thread-locals that the program started with lie below the thread's base: more than the loader lays out for any program
/// without complaint of its own.
const LOCALS: usize = 64 << 10;
/// What the C library keeps of a thread lies from its base on.
const BASE: usize = 4 << 10;

/// A thread of this process, which finds its storage, whose number is written before it begins and cleared when it has gone.
const FLAGS: libc::c_int = libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID;

/// How often it is asked, for 10 ms each, whether the last thread has gone.
const PATIENCE: usize = 100;

/// The thread that is there, or has just been.
#[derive(Debug)]
pub(super) struct Thread {
    /// Its number; 0 when it has gone, which the kernel writes.
    id: AtomicU32,
    /// Where its mapping begins; 0 before there is one.
    room: AtomicUsize,
}

impl Thread {
    pub(super) const fn new() -> Self {
        Self { id: AtomicU32::new(0), room: AtomicUsize::new(0) }
    }

    /// Starts it. One caller at a time: the agent's state says whose turn it is.
    pub(super) fn start(&self, body: Body) -> bool {
        // The last one has said that it goes; it still needs its stack for a moment.
        self.has_gone() && self.room().is_some_and(|room| with_signals_blocked(|| self.start_in(room, body)))
    }

    /// After a fork, in the child: it is not here.
    pub(super) fn forget(&self) {
        self.id.store(0, Relaxed);
    }

    /// Waits until the last thread has gone; false if it will not.
    fn has_gone(&self) -> bool {
        (0..PATIENCE).any(|_| {
            // Acquire: pairs with the kernel's store, after which nobody is on the stack.
            let id = self.id.load(Acquire);
            if id != 0 {
                wait_while(&self.id, id);
            }
            id == 0
        })
    }

    /// The mapping, made if there is none.
    fn room(&self) -> Option<usize> {
        let at = self.room.load(Relaxed);
        if at != 0 {
            return Some(at);
        }
        let span = map(GUARD + STACK + LOCALS + BASE).filter(guard)?;
        self.room.store(span.at, Relaxed);
        Some(span.at)
    }

    fn start_in(&self, room: usize, body: Body) -> bool {
        let base = room + GUARD + STACK + LOCALS;
        if !is_roomy() {
            return false;
        }
        // By these words C and its library find the storage (System V ABI; glibc's `tcbhead_t`). The last thread has left it.
        for word in [0, 2] {
            // SAFETY: in the mapping, and aligned.
            unsafe { (base as *mut usize).wrapping_add(word).write(base) };
        }
        let (stack, id) = ((room + GUARD + STACK) as *mut c_void, (&raw const self.id).cast_mut());
        // SAFETY: the stack and the storage are the new thread's alone; `id` is a word that outlives it, since the agent is the
        // process heap's; `run` gets what it wants.
        unsafe { libc::clone(run, stack, FLAGS, body as *mut c_void, id, base as *mut c_void, id) > 0 }
    }
}

/// The whole life of the thread.
extern "C" fn run(body: *mut c_void) -> libc::c_int {
    // SAFETY: `start_in` made the pointer of just such a function.
    let body = unsafe { core::mem::transmute::<*mut c_void, Body>(body) };
    body(null_mut());
    0
}

/// Nobody unloads a library with C names: it is linked with `-z nodelete`, since threads call it when they end.
pub(super) fn stays(_: Body) -> bool {
    true
}

/// Takes the first page of a mapping out of use.
fn guard(span: &Span) -> bool {
    // SAFETY: the mapping is ours, and nothing is in it yet.
    unsafe { libc::mprotect(span.at as *mut c_void, GUARD, libc::PROT_NONE) == 0 }
}

/// Whether `errno` lies where a new thread's storage has room for it.
fn is_roomy() -> bool {
    let base: usize;
    // SAFETY: reads the first word of this thread's storage, which is its address.
    unsafe {
        core::arch::asm!("mov {0}, qword ptr fs:[0]", out(reg) base, options(nostack, preserves_flags, readonly));
    }
    // SAFETY: no preconditions.
    let errno = unsafe { libc::__errno_location() } as usize;
    errno.wrapping_sub(base.wrapping_sub(LOCALS)) < LOCALS + BASE - size_of::<libc::c_int>()
}

/// Sleeps while the word is `id`, for 10 ms at the most.
fn wait_while(word: &AtomicU32, id: u32) {
    let time = libc::timespec { tv_sec: 0, tv_nsec: 10_000_000 };
    // SAFETY: word and time are there to be read. To wake early does no harm.
    let _ = unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT, id, &raw const time) };
}
