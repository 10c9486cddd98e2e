//! The one way to die. A broken promise, of the caller's or of ours, ends the process by `abort` after one fixed
//! line on file descriptor 2: nothing is formatted, nothing is allocated, no lock is taken.

use crate::os;

/// What went wrong; the text says what was wrong and what would be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fatal {
    /// A second `Stratalloc` value asked for other settings than the first.
    OtherConfig,
    /// The operating system reports a page size that the size classes do not fit.
    PageSize,
    /// A block came to its slab that was there already.
    DoubleFree,
    /// A block was freed that lies in no slab of its class.
    NotOurs,
    /// A record of the heap points to a page that the heap never had.
    Damaged,
    /// A pointer came to `free`, `realloc` or `malloc_usable_size` at which no block of this heap begins.
    #[cfg(feature = "c-abi")]
    Foreign,
    /// A run was freed whose first page does not begin a run of that length.
    NotARun,
}

impl Fatal {
    const fn line(self) -> &'static str {
        match self {
            Self::OtherConfig => {
                "stratalloc: two Stratalloc values with different Config in one process; they share one heap, \
                 so give both the same Config\n"
            }
            Self::PageSize => {
                "stratalloc: the page size of this system is no power of two from 4096 to 65536; this build cannot \
                 serve it\n"
            }
            Self::DoubleFree => {
                "stratalloc: a block was freed that is already free; free each block once (double free)\n"
            }
            Self::NotOurs => {
                "stratalloc: a block was freed that is in no slab of its size class; free with the pointer and the \
                 Layout of its allocation\n"
            }
            Self::Damaged => "stratalloc: the heap's records are damaged; something wrote outside its own block\n",
            #[cfg(feature = "c-abi")]
            Self::Foreign => {
                "stratalloc: free, realloc or malloc_usable_size of a pointer at which no live block of this heap begins; \
                 pass what malloc returned, once\n"
            }
            Self::NotARun => {
                "stratalloc: pages were freed that are no run of that length; free with the pointer and the Layout of \
                 their allocation\n"
            }
        }
    }
}

/// Writes the line of `what` to file descriptor 2 and aborts.
#[cold]
#[inline(never)]
pub(crate) fn die(what: Fatal) -> ! {
    os::say(what.line().as_bytes());
    os::abort()
}
