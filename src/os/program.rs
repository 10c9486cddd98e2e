//! The variables of the program, as memory that other processes may have mapped, too.

#![allow(clippy::disallowed_methods, reason = "this folder is where the system is called")]

use super::heap_file::HeapFile;
use super::release::going;
use super::{Span, page_bytes};
#[cfg(feature = "c-symmetric")]
use crate::sync::Acquire;
use crate::sync::{AtomicUsize, Relaxed, Release};
use core::ffi::{c_int, c_void};

/// What the loader says of the program, as a part of which more is learned.
struct Found {
    /// All that can be written, and what of it becomes read-only once the program begins.
    writable: Option<Span>,
    sealed_end: usize,
}

/// Looks at the first object that the loader knows, the program.
unsafe extern "C" fn look(info: *mut libc::dl_phdr_info, _: usize, found: *mut c_void) -> c_int {
    // SAFETY: the loader's, while this runs.
    let info = unsafe { &*info };
    // SAFETY: what `program_variables` passed.
    let found = unsafe { &mut *found.cast::<Found>() };
    for number in 0..usize::from(info.dlpi_phnum) {
        // SAFETY: there are that many.
        let header = unsafe { &*info.dlpi_phdr.wrapping_add(number) };
        let at = (info.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize);
        let bytes = header.p_memsz as usize;
        match header.p_type {
            libc::PT_LOAD if header.p_flags & libc::PF_W != 0 => found.writable = Some(Span { at, bytes }),
            libc::PT_GNU_RELRO => found.sealed_end = at + bytes,
            _ => {}
        }
    }
    1
}

/// Where the variables of the program lie, in whole pages; `None` if they cannot be made out.
pub(crate) fn program_variables() -> Option<Span> {
    let mut found = Found { writable: None, sealed_end: 0 };
    // SAFETY: `look` is called while this waits, and takes what is passed.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut found).cast()) };
    let Found { writable, sealed_end } = found;
    let (span, page) = (writable?, page_bytes());
    let begin = span.at & !(page - 1);
    let end = (span.at + span.bytes).next_multiple_of(page);
    // What was sealed ends at a page.
    let begin = if (begin..=end).contains(&sealed_end) { sealed_end.next_multiple_of(page) } else { begin };
    (begin < end).then_some(Span { at: begin, bytes: end - begin })
}

/// The variables that are shared, for a forked child.
static AT: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

/// Where a copy of the variables is made for the child of a fork, in memory of this process's alone. It stays the same: parent and child see
/// one word for it.
static COPY: AtomicUsize = AtomicUsize::new(0);

/// Lets forked children have variables of their own, as they are at the fork. Called before anybody else registers what is to be done
/// there: so it is the last before a fork, and the first in a child.
#[cfg(feature = "c-symmetric")]
pub(crate) fn survive_forks() {
    extern "C" fn nothing() {}
    super::unix::at_fork(copy, nothing, have_own);
}

/// Before a fork: the parent goes on at once, and its child must not see what it writes then.
#[cfg(feature = "c-symmetric")]
extern "C" fn copy() {
    // Acquire: pairs with `share_variables`.
    let (bytes, at) = (BYTES.load(Acquire), AT.load(Relaxed));
    if bytes > 0 {
        let (from, to) = (core::ptr::with_exposed_provenance::<u8>(at), COPY.load(Relaxed));
        // SAFETY: both are so long, and apart.
        unsafe { core::ptr::with_exposed_provenance_mut::<u8>(to).copy_from_nonoverlapping(from, bytes) };
    }
}

/// In the child: the copy takes the place of what it is a copy of. A child that cannot have it would write to its parent's, and ends.
#[cfg(feature = "c-symmetric")]
extern "C" fn have_own() {
    let (bytes, at, copy) = (BYTES.load(Relaxed), AT.load(Relaxed), COPY.load(Relaxed));
    if bytes == 0 {
        return;
    }
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: it takes the place of what it is a copy of; no other thread is there.
    let moved = unsafe { libc::mremap(copy as *mut c_void, bytes, bytes, flags, at as *mut c_void) };
    if moved == libc::MAP_FAILED {
        super::say(b"stratalloc: a forked child has no memory for variables of its own\n");
        super::abort();
    }
    // They are no longer shared here.
    BYTES.store(0, Relaxed);
}

/// Whether this thread is the only one of the process.
fn is_alone() -> bool {
    // A folder has a link more for each folder in it.
    let mut found = core::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the path ends with a zero, and the place is as large as what is written.
    let result = unsafe { libc::stat(c"/proc/self/task".as_ptr(), found.as_mut_ptr()) };
    // SAFETY: zero bits are one.
    result == 0 && unsafe { found.assume_init() }.st_nlink == 3
}

/// Makes the program's variables at `span` pages of the file, which is as long: they keep their values. False, and nothing is changed, if
/// that cannot be: another thread might write to one meanwhile.
pub(crate) fn share_variables(span: Span, file: &HeapFile) -> bool {
    if BYTES.load(Relaxed) == span.bytes && AT.load(Relaxed) == span.at {
        // They are since an earlier time, when this process was a job by itself: as it is again.
        return true;
    }
    let Some(copy) = is_alone().then(|| super::map(span.bytes)).flatten() else { return false };
    // Whoever is told may write to variables: so it is before they are copied.
    going(span);
    COPY.store(copy.at, Relaxed);
    AT.store(span.at, Relaxed);
    // Release: pairs with `copy`. It is so from here on: what is written now is copied, too.
    BYTES.store(span.bytes, Release);
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED);
    let mut done = 0;
    while done < span.bytes {
        let (from, left) = ((span.at + done) as *const c_void, span.bytes - done);
        // SAFETY: the variables are there to be read. By the call itself: a sanitizer takes the gaps between them for errors.
        let count = unsafe { libc::syscall(libc::SYS_pwrite64, file.number, from, left, done as libc::off_t) };
        match usize::try_from(count) {
            Ok(count) if count > 0 => done += count,
            _ => {
                return stay_private(copy);
            }
        }
    }
    // SAFETY: the file has what is there, to the byte: nothing was written since but by the system.
    let at = unsafe { libc::mmap(span.at as *mut c_void, span.bytes, access, flags, file.number, 0) };
    if at == libc::MAP_FAILED {
        return stay_private(copy);
    }
    true
}

/// They stay the process's own.
fn stay_private(copy: Span) -> bool {
    BYTES.store(0, Relaxed);
    super::unmap(copy);
    false
}
