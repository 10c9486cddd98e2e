//! Files of heaps as somebody reads them who has no part in the heap.

#![allow(clippy::disallowed_methods, reason = "this folder is where the system is called")]

use super::heap_file::FileNumber;
use core::mem::MaybeUninit;

/// How such a file is opened: not through a link, without waiting for whoever may be behind it, and for this program alone.
pub(crate) const FLAGS_TO_LOOK: i32 = libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;

impl FileNumber {
    /// The first byte from `at` on that the file has room for; `None` if there is none. What has none reads zero, and would take
    /// room if it were read through a mapping.
    pub(crate) fn next_data(self, at: u64) -> Option<u64> {
        let Ok(from) = libc::off_t::try_from(at) else {
            return None;
        };
        // SAFETY: no preconditions.
        let found = unsafe { libc::lseek(self.word(), from, libc::SEEK_DATA) };
        match u64::try_from(found) {
            Ok(found) => Some(found),
            Err(_) if super::unix::errno() == libc::ENXIO => None,
            // A file system that does not know.
            Err(_) => Some(at),
        }
    }
}

/// The lines and columns of the terminal that the standard output is; `None` if it is something else.
pub(crate) fn terminal() -> Option<(usize, usize)> {
    // SAFETY: zero bits are one.
    let mut size: libc::winsize = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: the place is as large as what is written.
    let result = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    // One that does not know has room for all.
    let length = |said: u16| if said == 0 { usize::MAX } else { usize::from(said) };
    (result == 0).then(|| (length(size.ws_row), length(size.ws_col)))
}

/// Says what was wrong, and ends the program with status 2.
extern "C" fn is_cut_off(_: libc::c_int) {
    super::say(b"stratalloc: the heap's file was cut off, or its disk had no room, while it was looked at\n");
    // SAFETY: no preconditions.
    unsafe { libc::_exit(2) }
}

/// From now on the program ends with a word of why when it comes to a page of a mapped file that is not there.
pub(crate) fn end_where_cut_off() {
    // SAFETY: zero bits are one.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = is_cut_off as extern "C" fn(libc::c_int) as usize;
    // SAFETY: the handler calls what a handler may call.
    let _ = unsafe { libc::sigaction(libc::SIGBUS, &raw const action, core::ptr::null_mut()) };
}
