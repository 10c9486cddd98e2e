//! The calling thread's own stack: where it ends, and how much of it can be read.

use super::memory::{PAGE, Piece, can_read, id, piece, read};
use super::unix::keep_errno;
use super::unix::thread_id;
use core::ptr::null_mut;

/// Pages asked for in one call.
const BATCH: usize = 64;

const NO_PIECE: Piece = Piece { iov_base: null_mut(), iov_len: 0 };

/// The first page from the one of `from` on, and below `to`, that cannot be read; `to` if all can.
pub(crate) fn readable_until(from: usize, to: usize) -> usize {
    let mut at = from & !(PAGE - 1);
    keep_errno(|| {
        while at < to {
            let pages = (to - at).div_ceil(PAGE).min(BATCH);
            let found = readable_pages(at, pages);
            at += found * PAGE;
            if found < pages {
                return at.min(to);
            }
        }
        to
    })
}

/// How many of `pages` pages from `at` on can be read, until one cannot.
fn readable_pages(at: usize, pages: usize) -> usize {
    let mut pieces = [NO_PIECE; BATCH];
    for (page, place) in pieces.iter_mut().take(pages).enumerate() {
        *place = piece(at + page * PAGE, 1);
    }
    let mut bytes = [0_u8; BATCH];
    match read(Piece { iov_base: bytes.as_mut_ptr().cast(), iov_len: pages }, &pieces[..pages]) {
        Ok(pages) => pages,
        Err(libc::EFAULT) => 0,
        Err(_) => (0..pages).find(|page| !can_read(at + page * PAGE)).unwrap_or(pages),
    }
}

/// An address that the calling thread's own stack lies wholly below, and near to which it begins; `None` if it is not
/// known. For the first thread that is the name of the program, for others what the C library keeps of a thread.
pub(crate) fn stack_end() -> Option<usize> {
    let end = if is_first_thread() { program_name() } else { thread_base() };
    (end != 0).then_some(end)
}

/// Whether the thread is the one that the program began with, or a fork left.
fn is_first_thread() -> bool {
    thread_id() == id().unsigned_abs()
}

/// Where the kernel wrote the program's name, above all that is on the first stack.
fn program_name() -> usize {
    // SAFETY: no preconditions.
    unsafe { libc::getauxval(libc::AT_EXECFN) as usize }
}

/// Where the C library keeps a thread: above its stack, in the same mapping (System V ABI: its first word is its address).
fn thread_base() -> usize {
    let base: usize;
    // SAFETY: reads the first word of this thread's storage.
    unsafe {
        core::arch::asm!("mov {0}, qword ptr fs:[0]", out(reg) base, options(nostack, preserves_flags, readonly));
    }
    base
}

#[cfg(test)]
#[path = "stack_tests.rs"]
mod tests;
