//! What the kernel tells of a process's memory: a userfaultfd on which the ranges to be watched are registered for write protection that is
//! never asked for, so that no fault is delivered, but every event.

#![allow(clippy::disallowed_methods, reason = "this folder is where the system is called")]

use super::Span;
use super::errors::{Errno, checked};
use core::ffi::{c_int, c_ulong, c_void};

/// From the kernel's `linux/userfaultfd.h`.
const USER_MODE_ONLY: c_int = 1;
const API: u64 = 0xaa;
const KIND: u32 = 0xaa;
const MODE_WP: u64 = 2;
const EVENT_REMAP: u8 = 0x14;
const EVENT_REMOVE: u8 = 0x15;
const EVENT_UNMAP: u8 = 0x16;
/// Write protection, and the events of `mremap`, `madvise` and `munmap`.
const FEATURES: u64 = 1 | 1 << 2 | 1 << 3 | 1 << 6;
/// Of memory that is not anonymous, too: shared memory files.
const FEATURE_SHMEM: u64 = 1 << 12;
/// And of every other: Linux 6.7.
const FEATURE_ASYNC: u64 = 1 << 15;

#[repr(C)]
struct ApiRequest {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct RangeRequest {
    start: u64,
    bytes: u64,
}

#[repr(C)]
struct RegisterRequest {
    range: RangeRequest,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct ProtectRequest {
    range: RangeRequest,
    mode: u64,
}

/// What the kernel tells, as it tells it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    event: u8,
    reserved: [u8; 7],
    words: [u64; 3],
}

impl Message {
    pub(crate) const NONE: Self = Self { event: 0, reserved: [0; 7], words: [0; 3] };

    /// The addresses that have lost their memory, and where it is now, if it was moved.
    pub(crate) fn gone(&self) -> Option<(Span, Option<Span>)> {
        let [first, second, third] = self.words.map(|word| word as usize);
        match self.event {
            EVENT_REMAP => {
                let moved = |at| Span { at, bytes: third };
                Some((moved(first), Some(moved(second))))
            }
            EVENT_REMOVE | EVENT_UNMAP => Some((Span { at: first, bytes: second.saturating_sub(first) }, None)),
            _ => None,
        }
    }
}

/// A userfaultfd. It watches nothing any more once it is closed, by `close`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Userfault {
    number: c_int,
}

impl Userfault {
    /// As a number that is none's.
    pub(crate) const NONE: Self = Self { number: -1 };

    pub(crate) const fn of_number(number: i32) -> Self {
        Self { number }
    }

    pub(crate) const fn number(self) -> i32 {
        self.number
    }

    /// Opens one, for a user without privileges if need be.
    pub(crate) fn open() -> Result<Self, Errno> {
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: no preconditions.
        let open = |flags: c_int| unsafe { libc::syscall(libc::SYS_userfaultfd, flags) } as c_int;
        // It tells of events alone: the kernel's own accesses need no fault delivered.
        let number = checked(open(flags | USER_MODE_ONLY)).or_else(|error| match error {
            // Before Linux 5.11.
            libc::EINVAL => checked(open(flags)),
            error => Err(error),
        })?;
        let this = Self { number };
        for features in [FEATURES | FEATURE_SHMEM | FEATURE_ASYNC, FEATURES | FEATURE_SHMEM, FEATURES] {
            let mut request = ApiRequest { api: API, features, ioctls: 0 };
            match this.ask(libc::_IOWR::<ApiRequest>(KIND, 0x3f), (&raw mut request).cast()) {
                Ok(()) => return Ok(this),
                Err(libc::EINVAL) if features != FEATURES => {}
                Err(error) => {
                    this.close();
                    return Err(error);
                }
            }
        }
        this.close();
        Err(libc::EINVAL)
    }

    fn ask(self, what: c_ulong, request: *mut c_void) -> Result<(), Errno> {
        // SAFETY: the request is one that `what` takes, and ours.
        checked(unsafe { libc::ioctl(self.number, what as _, request) }).map(|_| ())
    }

    /// Watches whole pages, all of which must be mapped. Those that are watched already stay so.
    pub(crate) fn watch(self, span: Span) -> Result<(), Errno> {
        let range = RangeRequest { start: span.at as u64, bytes: span.bytes as u64 };
        let mut request = RegisterRequest { range, mode: MODE_WP, ioctls: 0 };
        self.ask(libc::_IOWR::<RegisterRequest>(KIND, 0), (&raw mut request).cast())
    }

    /// Watches them no more. What is not mapped any more was not watched.
    pub(crate) fn unwatch(self, span: Span) {
        // Older kernels take pages from another userfaultfd of the program, too. To ask by `watch` whose they are is no remedy: it would part
        // mappings of memory that is somebody else's by now, who then cannot move it in one call.
        let mut request = RangeRequest { start: span.at as u64, bytes: span.bytes as u64 };
        let _ = self.ask(libc::_IOR::<RangeRequest>(KIND, 1), (&raw mut request).cast());
    }

    /// Whether the kernel has taken watched memory away, or is about to, and was not heard yet. It counts that itself, and refuses some requests
    /// meanwhile; this is one of them, of an empty range, which it refuses for that reason otherwise.
    pub(crate) fn is_in_flight(self) -> bool {
        let range = RangeRequest { start: 0, bytes: 0 };
        let mut request = ProtectRequest { range, mode: 0 };
        self.ask(libc::_IOWR::<ProtectRequest>(KIND, 6), (&raw mut request).cast()) == Err(libc::EAGAIN)
    }

    /// Whether the number is still a userfaultfd's: it can be asked to wake who waits for a page of this thread's stack, which nobody does.
    pub(crate) fn is_one(self) -> bool {
        let page = super::page_bytes();
        let mut request = RangeRequest { start: 0, bytes: page as u64 };
        request.start = ((&raw const request).addr() & !(page - 1)) as u64;
        self.ask(libc::_IOR::<RangeRequest>(KIND, 2), (&raw mut request).cast()).is_ok()
    }

    /// Waits until there is something to read, or `stop` says so: false. `None` if this is no file any more, or another one by now.
    pub(crate) fn wait(self, stop: Signal) -> Option<bool> {
        let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut entries = [entry(self.number), entry(stop.number)];
        loop {
            // SAFETY: there are two entries.
            let found = unsafe { libc::poll(entries.as_mut_ptr(), 2, -1) };
            if found <= 0 {
                // Whatever the error is, whoever waits to be heard must be.
                super::rest();
            } else if !self.is_one() {
                return None;
            } else if entries[1].revents != 0 {
                return Some(false);
            } else {
                return (entries[0].revents & libc::POLLIN != 0).then_some(true);
            }
        }
    }

    /// Reads what there is, as much as there is room for; how much it was. Whoever waits for having been heard goes on.
    pub(crate) fn read(self, messages: &mut [Message]) -> usize {
        // SAFETY: the place is so large; whatever is written is a message.
        let bytes = unsafe { libc::read(self.number, messages.as_mut_ptr().cast(), size_of_val(messages)) };
        usize::try_from(bytes).unwrap_or(0) / size_of::<Message>()
    }

    /// Closes it: whoever waits goes on.
    pub(crate) fn close(self) {
        // SAFETY: ours, and nobody uses it any more.
        let _ = unsafe { libc::close(self.number) };
    }
}

/// Whether an error says that the kernel watches no memory of this kind.
pub(crate) fn is_of_another_kind(error: Errno) -> bool {
    error == libc::EINVAL
}

/// Whether all of these pages are mapped. O(mappings).
pub(crate) fn is_mapped(span: Span) -> bool {
    // With `MS_ASYNC` the call does nothing but look. (The C library's is one at which a thread may be cancelled.)
    // SAFETY: as above: the memory is not touched.
    unsafe { libc::syscall(libc::SYS_msync, span.at, span.bytes, libc::MS_ASYNC) == 0 }
}

/// Why there is no userfaultfd.
pub(crate) fn why_refused(error: Errno) -> &'static str {
    match error {
        libc::ENOSYS => "it is built without it",
        libc::EINVAL => "it is older than Linux 5.7, or has no write protection by it on this processor",
        libc::EPERM => "a seccomp filter refuses, or, before Linux 5.11, vm.unprivileged_userfaultfd is 0",
        error => super::errors::describe(error),
    }
}

/// Why memory cannot be watched.
pub(crate) fn why_unwatched(error: Errno) -> &'static str {
    match error {
        libc::EINVAL => {
            "the kernel does not watch memory of this kind; of large pages of hugetlbfs it watches whole ones"
        }
        libc::ENOMEM => "not all of it is mapped, or the process has no mapping left",
        libc::EBUSY => "another userfaultfd of the program watches it",
        libc::EPERM => "it is of a file that may only be read",
        _ => "the kernel refuses",
    }
}

/// By which one thread tells another one to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signal {
    number: c_int,
}

impl Signal {
    pub(crate) fn new() -> Result<Self, Errno> {
        // SAFETY: no preconditions.
        let number = checked(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        Ok(Self { number })
    }

    pub(crate) const fn of_number(number: i32) -> Self {
        Self { number }
    }

    pub(crate) const fn number(self) -> i32 {
        self.number
    }

    pub(crate) fn give(self) {
        let one = 1_u64;
        // SAFETY: eight bytes, as it wants them.
        let _ = unsafe { libc::syscall(libc::SYS_write, self.number, &raw const one, 8) };
    }

    pub(crate) fn close(self) {
        // SAFETY: ours, and nobody uses it any more.
        let _ = unsafe { libc::close(self.number) };
    }
}

/// A thread of the C library's that touches no heap and takes no signal. It must be joined.
#[derive(Debug)]
pub(crate) struct Helper(libc::pthread_t);

impl Helper {
    /// Starts `body` with `argument`.
    pub(crate) fn start(body: extern "C" fn(*mut c_void) -> *mut c_void, argument: *mut c_void) -> Option<Self> {
        let mut thread = core::mem::MaybeUninit::<libc::pthread_t>::uninit();
        let mut start = || {
            // SAFETY: the place is ours; the function takes such an argument.
            unsafe { libc::pthread_create(thread.as_mut_ptr(), core::ptr::null(), body, argument) == 0 }
        };
        // SAFETY: written where it returned 0.
        super::agent::with_signals_blocked(&mut start).then(|| Self(unsafe { thread.assume_init() }))
    }

    /// As a word.
    pub(crate) const fn word(&self) -> usize {
        self.0 as usize
    }

    pub(crate) const fn of_word(word: usize) -> Self {
        Self(word as libc::pthread_t)
    }

    /// Has it end by itself.
    pub(crate) fn leave(self) {
        // SAFETY: it is joined by nobody.
        let _ = unsafe { libc::pthread_detach(self.0) };
    }

    /// Waits until it has ended.
    pub(crate) fn join(self) {
        // SAFETY: it is joined once.
        let _ = unsafe { libc::pthread_join(self.0, core::ptr::null_mut()) };
    }
}
