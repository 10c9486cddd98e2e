//! What processes of one job need of the system: to wait for each other, and to learn of each other's end.

#![allow(clippy::disallowed_methods, reason = "this folder is where the system is called")]

use super::Span;
use super::release::going;
use crate::sync::AtomicU32;
use core::mem::MaybeUninit;

/// Sleeps while the word, which other processes may have mapped, is `value`: so many milliseconds at the most, or less.
pub(crate) fn futex_wait(word: &AtomicU32, value: u32, milliseconds: i64) {
    let time = libc::timespec { tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000 };
    // SAFETY: the word and the time are there. Whoever waits looks again, whatever woke it.
    let _ = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, value, &raw const time) };
}

/// Wakes all who sleep at the word.
pub(crate) fn futex_wake_all(word: &AtomicU32) {
    // SAFETY: the word is there.
    let _ = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}

/// Takes the memory behind whole pages of a file in memory away, in all processes that have it mapped: they read zero. False if the
/// system will not.
pub(crate) fn take_memory_away(span: Span) -> bool {
    going(span);
    // SAFETY: the span is ours, and nobody uses it.
    unsafe { libc::madvise(span.at as *mut libc::c_void, span.bytes, libc::MADV_REMOVE) == 0 }
}

/// Gives the memory of a mapping back; its addresses stay taken, and whatever touches them faults.
pub(crate) fn reserve(span: Span) {
    going(span);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
    // SAFETY: the span is ours. Should the system refuse, it stays as it is.
    let _ = unsafe { libc::mmap(span.at as *mut libc::c_void, span.bytes, libc::PROT_NONE, flags, -1, 0) };
}

/// Lets this process end when its parent, process `parent`, does. For a child, before it begins its program.
pub(crate) fn end_with(parent: u32) {
    // SAFETY: no preconditions.
    let _ = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
    // SAFETY: no preconditions.
    if unsafe { libc::getppid() } as u32 != parent {
        // It has ended before that was said.
        exit_now(1);
    }
}

/// Waits until a child has ended. It is still there then, to be waited for.
pub(crate) fn wait_until_ended(process: u32) {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    loop {
        // SAFETY: the place is as large as what is written; the child is ours.
        let result = unsafe { libc::waitid(libc::P_PID, process, info.as_mut_ptr(), libc::WEXITED | libc::WNOWAIT) };
        if result == 0 || super::unix::errno() != libc::EINTR {
            return;
        }
    }
}

/// Whether there is a process of that number.
pub(crate) fn is_process(process: u32) -> bool {
    // SAFETY: no preconditions; nothing is sent.
    let result = unsafe { libc::kill(process as libc::pid_t, 0) };
    result == 0 || super::unix::errno() != libc::ESRCH
}

/// Ends this process at once.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: no preconditions.
    unsafe { libc::_exit(status) }
}

/// Asks a child to end that was not waited for yet.
pub(crate) fn ask_to_end(process: u32) {
    // SAFETY: no preconditions; the number is still the child's.
    let _ = unsafe { libc::kill(process as libc::pid_t, libc::SIGTERM) };
}
