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
    #[cfg(any(feature = "c-abi", feature = "c-shared", all(feature = "shared", not(feature = "malloc-debug"))))]
    Foreign,
    /// The semaphores of a shared heap are gone.
    #[cfg(feature = "shared")]
    NoSemaphores,
    /// A byte of a shared heap's file cannot be locked.
    #[cfg(feature = "shared")]
    NoFileLock,
    /// A call of a symmetric heap came where the process is no PE.
    #[cfg(feature = "symmetric")]
    NoPe,
    /// A release callback allocated or freed where it may not.
    #[cfg(all(feature = "hooks", debug_assertions))]
    CallbackAllocates,
    /// A release callback panicked.
    #[cfg(feature = "hooks")]
    CallbackUnwinds,
    /// A component of the hooks panicked.
    #[cfg(feature = "hooks")]
    ComponentUnwinds,
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
            #[cfg(any(
                feature = "c-abi",
                feature = "c-shared",
                all(feature = "shared", not(feature = "malloc-debug"))
            ))]
            Self::Foreign => {
                "stratalloc: free, realloc or malloc_usable_size of a pointer at which no live block of this heap begins; \
                 pass what malloc returned, once\n"
            }
            #[cfg(feature = "shared")]
            Self::NoSemaphores => {
                "stratalloc: the semaphores of a shared heap were removed while it was open; leave them to the heap\n"
            }
            #[cfg(feature = "shared")]
            Self::NoFileLock => {
                "stratalloc: a byte of a shared heap's file cannot be locked; put the file on a file system that has locks\n"
            }
            #[cfg(feature = "symmetric")]
            Self::NoPe => {
                "stratalloc: a call of the symmetric heap before init or after finalize; call init first, on every PE\n"
            }
            #[cfg(all(feature = "hooks", debug_assertions))]
            Self::CallbackAllocates => {
                "stratalloc: a release callback that was told from inside the allocator allocated or freed; let it only note \
                 what it is told\n"
            }
            #[cfg(feature = "hooks")]
            Self::CallbackUnwinds => {
                "stratalloc: a release callback panicked; it is called where nothing may unwind, so catch that inside of it\n"
            }
            #[cfg(feature = "hooks")]
            Self::ComponentUnwinds => {
                "stratalloc: a component of the hooks panicked where it was asked to watch memory; nothing may unwind there, so \
                 refuse with Unwatched\n"
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

/// Writes a line to file descriptor 2, of something that does not end the process.
#[cfg(all(feature = "symmetric", not(loom)))]
pub(crate) fn tell(line: &str) {
    os::say(line.as_bytes());
}
