//! The process's own memory, read without a fault whatever is there: the kernel reads, and says what it cannot.

use super::unix::{errno, keep_errno};
use core::ptr::{from_ref, null};

/// A page of the targets we know is never smaller: where one can be read, all of it can.
pub(super) const PAGE: usize = 4096;
/// So many bytes at an address.
pub(super) type Piece = libc::iovec;

pub(super) const fn piece(at: usize, bytes: usize) -> Piece {
    Piece { iov_base: core::ptr::without_provenance_mut(at), iov_len: bytes }
}

/// Copies what lies from `at` on, as far as it can be read; how many bytes that were.
pub(crate) fn copy_from(at: usize, to: &mut [u8]) -> usize {
    let first = to.len().min(PAGE - at % PAGE);
    // The kernel promises to tell apart whole pieces alone.
    let pieces = [piece(at, first), piece(at.wrapping_add(first), to.len() - first)];
    keep_errno(|| match read(Piece { iov_base: to.as_mut_ptr().cast(), iov_len: to.len() }, &pieces) {
        Ok(bytes) => bytes,
        Err(libc::EFAULT) => 0,
        Err(_) => copy_probed(at, to),
    })
}

/// Reads pieces of this process's memory one after another.
pub(super) fn read(to: Piece, from: &[Piece]) -> Result<usize, libc::c_int> {
    // SAFETY: the kernel writes to the caller's buffer alone, and no more than its length; what cannot be read it skips.
    let bytes = unsafe {
        libc::syscall(libc::SYS_process_vm_readv, id(), from_ref(&to), 1_usize, from.as_ptr(), from.len(), 0_usize)
    };
    usize::try_from(bytes).map_err(|_| errno())
}

/// The number of this process.
pub(super) fn id() -> libc::c_int {
    // SAFETY: no preconditions.
    unsafe { libc::getpid() }
}

/// As `copy_from`, where the kernel refuses to read for us: a page that it can read for another purpose is there.
#[cold]
fn copy_probed(at: usize, to: &mut [u8]) -> usize {
    let mut done = 0;
    while done < to.len() {
        let from = at.wrapping_add(done);
        let bytes = (to.len() - done).min(PAGE - from % PAGE);
        if !can_read(from & !(PAGE - 1)) {
            break;
        }
        let place = to[done..].as_mut_ptr();
        // SAFETY: the page was there a moment ago, and the buffer has that many bytes left.
        unsafe { core::ptr::with_exposed_provenance::<u8>(from).copy_to(place, bytes) };
        done += bytes;
    }
    done
}

/// Whether the page at `page` can be read: the kernel looks at a set of signals before it sees that nothing is to be done
/// with it.
pub(super) fn can_read(page: usize) -> bool {
    const NOTHING_KNOWN: usize = usize::MAX;
    const SET: usize = size_of::<u64>();
    // The last bytes of the page: a set at address 0 would be none.
    let set = page + (PAGE - SET);
    // SAFETY: a request that is always refused; the set is read by the kernel.
    let refused = unsafe { libc::syscall(libc::SYS_rt_sigprocmask, NOTHING_KNOWN, set, null::<u8>(), SET) };
    refused != 0 && errno() == libc::EINVAL
}

/// Whether the page at `at` is in memory.
pub(crate) fn is_resident(at: usize) -> bool {
    let mut state = 0;
    // SAFETY: one page, one byte; what is not mapped is an error.
    let known = unsafe { libc::mincore(at as *mut libc::c_void, 1, &raw mut state) } == 0;
    known && state & 1 != 0
}

#[cfg(test)]
#[path = "memory_tests.rs"]
pub(super) mod tests;
