//! Heaps that processes share: one file, mapped by all of them at one address, and the engine in it.
//!
//! The file begins with a header that says what kind of heap it is (`header.rs`); the engine's own state follows, then who is in the
//! heap (`guests.rs`), and a seat for each thread of each process, with its cache (`seats.rs`), and behind them the pages
//! (`pages.rs`); `body.rs` has it all in order. So a pointer into the heap means the same in every process, and nothing in the file
//! names anything of one process (`opened.rs` has that). How a heap is made and opened is in `opening.rs`; the locks are in `lock.rs`;
//! what is done when somebody dies, in `mend.rs`.

mod body;
mod config;
mod error;
mod front;
mod guests;
mod header;
mod lock;
mod mend;
mod named;
mod opened;
mod opening;
mod pages;
mod raw;
mod seats;
#[cfg(feature = "malloc-debug")]
mod told;
#[cfg(feature = "cli")]
pub mod view;

use crate::finding::Finding;
use crate::heap::Blocks;
use crate::os::{self, Span};
use crate::stats::Stats;
use crate::sync::{AcqRel, Acquire, Release};
use allocator_api2::alloc::{AllocError, Allocator};
use body::{Body, HEAD};
pub use config::SharedConfig;
use core::alloc::Layout;
use core::ptr::NonNull;
pub use error::SharedError;
use front::{Front, front};
use guests::{DOOR, GuestNumber};
pub use lock::Scheme;
use opened::Opened;
use seats::{SEATS, Seat, VISITORS};
use std::ffi::CString;
use std::path::Path;
use std::time::{Duration, Instant};
#[cfg(feature = "malloc-debug")]
pub(crate) use told::{Guest, begins_around, is_this};

/// A heap in a file, that many processes may have open.
///
/// It is an `Allocator` (crate `allocator-api2`); [`malloc`](Self::malloc) and its like serve who has no layout. What is allocated
/// in it stays when it is closed, and is where it was when it is opened again, by whatever process: all have it at one address.
///
/// A process may die at any moment, by whatever signal: the others go on, what it had allocated stays allocated, and what it had
/// cached or half done comes back, at the latest when the heap would grow or is opened the next time.
///
/// A forked child has the heaps of its parent open, and is another guest once it uses one.
#[derive(Debug)]
pub struct SharedHeap {
    body: NonNull<Body>,
    span: Span,
    /// Which opening of a heap of this process's it is.
    opening: u64,
    place: &'static Opened,
    path: CString,
}

// SAFETY: the body is reached through locks, atomics, and caches of which each thread has its own.
unsafe impl Send for SharedHeap {}
// SAFETY: as above.
unsafe impl Sync for SharedHeap {}

impl SharedHeap {
    /// Opens the heap in the file at `path`. If there is none, it is made, and `init` runs in it once, in one process, before
    /// any other gets it; if that process ends before it is done, another begins anew. What the dead left is taken back.
    ///
    /// # Errors
    /// [`SharedError`] says what is wrong. A heap is as it was then; a file that is none yet may be left, in which the
    /// next who opens it begins anew.
    pub fn open(path: impl AsRef<Path>, config: SharedConfig, init: impl FnOnce(&Self)) -> Result<Self, SharedError> {
        Self::open_as(path, config, |heap| heap, init)
    }

    #[inline]
    fn body(&self) -> &Body {
        // SAFETY: written by whoever made the heap, and mapped while it is open.
        unsafe { self.body.as_ref() }
    }

    /// Where the heap lies, in every process.
    #[must_use]
    pub const fn span(&self) -> Span {
        self.span
    }

    /// How its processes exclude each other.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.body().header.scheme()
    }

    /// Sets the root, by which a process that opens the heap finds what is in it. It may be null.
    pub fn set_global<T>(&self, root: *const T) {
        // Release: publishes what it points to.
        self.body().header.root.store(root.expose_provenance() as u64, Release);
    }

    /// The root that was set last, in whatever process; null in a new heap.
    #[must_use]
    pub fn global_ptr<T>(&self) -> *mut T {
        // Acquire: pairs with `set_global`.
        core::ptr::with_exposed_provenance_mut(self.body().header.root.load(Acquire) as usize)
    }

    /// What the root that was set last points to; `None` in a new heap.
    ///
    /// # Safety
    /// - The root, unless null, points to a `T` in this heap, whose layout is the same in all programs that use it;
    /// - nobody has an exclusive reference to it, in whatever process, while the result lives.
    #[must_use]
    pub unsafe fn global<T>(&self) -> Option<&T> {
        // SAFETY: the caller's promise.
        unsafe { self.global_ptr::<T>().as_ref() }
    }

    /// The figures of the heap; `threads` counts its caches, of all processes.
    #[must_use]
    pub fn stats(&self) -> Stats {
        if self.be_guest().is_err() {
            return Stats::ZERO;
        }
        let seat = seats::other_seat(self.opening);
        // SAFETY: the seat is this thread's.
        self.body().engine.stats(seat.as_ref().map(|seat| unsafe { seat.as_ref() }.cache()))
    }

    /// Audits the heap beside whatever others do with it, once it was put right if somebody died. Who needs a lock of the heap waits
    /// meanwhile. O(pages of the heap).
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn check(&self) -> Result<(), Finding> {
        if self.be_guest().is_err() {
            return Ok(());
        }
        mend::with_all(self.place, self.body(), || self.body().engine.check(None))?;
        #[cfg(feature = "malloc-debug")]
        crate::global::hunter::check()?;
        Ok(())
    }

    /// Takes back what dead processes left, if any died, without waiting for the next occasion. O(guests), or O(pages of the heap)
    /// if one did.
    pub fn mend(&self) {
        if self.be_guest().is_ok() && (self.body().is_wounded() || mend::has_dead(self.place, self.body())) {
            mend::mend(self.place, self.body());
        }
    }

    /// Gives back what the calling thread has cached, and makes holes in the file where pages are free: the disk has their room
    /// again. O(free memory).
    pub fn collect(&self) {
        let _ = self.with(|blocks| front::engine(blocks).collect());
    }

    /// Runs `section` with the heap as seen through the calling thread's cache; `None` if the process cannot be a guest.
    #[inline(always)]
    fn with<R>(&self, section: impl FnOnce(&Front<'_>) -> R) -> Option<R> {
        let Some(seat) = seats::act(self.opening) else {
            return self.with_new_seat(section);
        };
        // SAFETY: the seat is this thread's while it sits there.
        let seat = unsafe { seat.as_ref() };
        // SAFETY: as above; `take_seat` attached the cache.
        Some(section(&front(unsafe { self.body().engine.through(seat.cache()) }, self.place)))
    }

    #[cold]
    #[inline(never)]
    fn with_new_seat<R>(&self, section: impl FnOnce(&Front<'_>) -> R) -> Option<R> {
        let guest = self.be_guest().ok()?;
        let sit = || self.take_seat(guest, VISITORS..SEATS);
        if let Some(seat) = seats::sit_down(self.opening, self.body, sit) {
            // SAFETY: the seat is this thread's while it sits there.
            let seat = unsafe { seat.as_ref() };
            // SAFETY: as above; `take_seat` attached the cache.
            return Some(section(&front(unsafe { self.body().engine.through(seat.cache()) }, self.place)));
        }
        let seat = loop {
            match self.take_seat(guest, 0..VISITORS) {
                Some(seat) => break seat,
                None if self.body().seats().len() < VISITORS => return None,
                None => {
                    // Those who sit there may be dead.
                    self.mend();
                    os::rest();
                }
            }
        };
        let result = {
            // SAFETY: the seat is this call's.
            let seat = unsafe { seat.as_ref() };
            // SAFETY: as above; `take_seat` attached the cache.
            section(&front(unsafe { self.body().engine.through(seat.cache()) }, self.place))
        };
        opened::leaving(|| leave_seat(self.body(), seat));
        Some(result)
    }

    /// A free seat of those with these numbers, for the calling thread, which acts on it from now on.
    fn take_seat(&self, guest: GuestNumber, numbers: core::ops::Range<usize>) -> Option<NonNull<Seat>> {
        let body = self.body();
        let seat = loop {
            let seats = body.seats().iter().enumerate();
            let free = seats.take(numbers.end).skip(numbers.start).find(|(number, seat)| seat.take(guest, *number));
            match free {
                Some((_, seat)) => break seat,
                None if body.seats().len() < numbers.end && self.furnish() => {}
                None => return None,
            }
        };
        seats::act_on(Some(NonNull::from(seat)));
        seat.cache().take_hand(seat.hand());
        // SAFETY: the cache is fresh, lies in the file, and is this thread's.
        unsafe { body.engine.attach(seat.cache()) };
        Some(NonNull::from(seat))
    }

    /// Takes room in the file for a seat more; false if there is none.
    fn furnish(&self) -> bool {
        let (body, bytes) = (self.body(), size_of::<Seat>());
        let next = body.furnished.load(Acquire);
        // Two that do it at once do it for the same seat.
        next < SEATS && opened::fill(self.span.at, HEAD + next * bytes, bytes) && {
            // Release: the room is there; pairs with `seats`.
            let _ = body.furnished.compare_exchange(next, next + 1, AcqRel, Acquire);
            true
        }
    }

    /// Who this process is in the heap. A process that was forked becomes a guest at its first call.
    #[inline]
    fn be_guest(&self) -> Result<GuestNumber, SharedError> {
        if self.place.is_ready() { Ok(self.place.guest()) } else { self.child() }
    }

    /// Makes a process that was just forked a guest of its own, if it is not one yet.
    #[cold]
    #[inline(never)]
    fn child(&self) -> Result<GuestNumber, SharedError> {
        opened::leaving(|| {
            if !self.place.is_ready() {
                let file = self.place.file();
                opening::pass(file, Instant::now(), Duration::from_secs(60))?;
                let result = self.enter_as_guest(self.scheme(), true);
                file.unlock(DOOR);
                result?;
            }
            Ok(self.place.guest())
        })
    }

    /// Registers a process that was forked, at once and not only when it first uses the heap. One that only ends, or begins another
    /// program, need not.
    ///
    /// # Errors
    /// [`SharedError::Full`] if there are too many guests, and the system's.
    pub fn register_child(&self) -> Result<(), SharedError> {
        self.be_guest().map(|_| ())
    }

    /// Closes the heap: what this process has cached goes back, and the addresses are free again. As dropping it does.
    pub fn close(self) {}

    /// Closes the heap and removes its file's name. Processes that have it open go on with it.
    ///
    /// # Errors
    /// The system's, if the name cannot be removed, or is another file's by now: the heap is closed all the same.
    pub fn destroy(self) -> Result<(), SharedError> {
        // Before the heap is closed: who closes it last then knows that it has no name.
        let result = if self.is_at(&self.path) { os::remove_file(&self.path) } else { Err(os::errno::ENOENT) };
        let result = result.map_err(SharedError::of("remove the file"));
        drop(self);
        result
    }
}

/// A thread ends that sat on `seat` in an opening of a heap.
fn stand_up(opening: u64, body: NonNull<Body>, seat: NonNull<Seat>) {
    opened::leaving(|| {
        if opened::is_open(opening) {
            // SAFETY: the heap is open, and is not closed meanwhile: so it is mapped.
            leave_seat(unsafe { body.as_ref() }, seat);
        }
    });
}

/// Gives up a seat that nobody uses any more, and what its cache has.
fn leave_seat(body: &Body, seat: NonNull<Seat>) {
    seats::act_on(Some(seat));
    // SAFETY: the heap is open.
    let seat = unsafe { seat.as_ref() };
    // SAFETY: attached by `take_seat`; the thread that used it is at its end.
    unsafe { body.engine.detach(seat.cache()) };
    seats::act_on(None);
    seat.give_up();
}

/// Whether all of `span` is of a heap that this process has open.
#[cfg(feature = "hooks")]
pub(crate) fn is_of_one(span: Span) -> bool {
    opened::around(span.at).is_some_and(|heap| heap.span().contains(span))
}

impl Drop for SharedHeap {
    fn drop(&mut self) {
        // Before a lock is taken.
        os::going(self.span);
        opened::leaving(|| {
            let (body, guest) = (self.body(), self.place.guest());
            if guest != GuestNumber::NONE {
                let ours = body.seats().iter().filter(|seat| seat.guest() == guest);
                // Nobody uses the heap any more in this process, through whatever thread.
                ours.for_each(|seat| leave_seat(body, NonNull::from(seat)));
                self.leave_nothing(guest);
            }
            let file = opened::leave(self.place);
            #[cfg(feature = "malloc-debug")]
            crate::global::hunter::disown(self.span);
            os::unmap(self.span);
            drop(file);
        });
    }
}

impl SharedHeap {
    /// The guest has left; the last one of a heap without a name removes what is not in its file.
    fn leave_nothing(&self, guest: GuestNumber) {
        let (body, file) = (self.body(), self.place.file());
        body.guests.free(guest);
        // Nobody comes in while we look; and if somebody is at the door, we are not the last.
        let has_door = file.try_lock(DOOR).unwrap_or(false);
        let is_last = || !body.guests.each().any(|(other, _)| body.guests.is_alive(other, GuestNumber::NONE, file));
        if has_door && body.header.scheme() == Scheme::Semaphores && !file.is_named() && is_last() {
            body.semaphores().remove();
        }
    }
}

/// A block as the trait wants it: with the bytes that were asked for.
#[inline]
fn slice(at: Option<*mut u8>, bytes: usize) -> Result<NonNull<[u8]>, AllocError> {
    at.and_then(NonNull::new).map(|at| NonNull::slice_from_raw_parts(at, bytes)).ok_or(AllocError)
}

// SAFETY: blocks are disjoint and valid until they are freed, in all processes; moving a heap does not move them.
unsafe impl Allocator for SharedHeap {
    #[inline]
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: any layout may be asked for.
        slice(self.with(|blocks| unsafe { blocks.alloc(layout) }), layout.size())
    }

    #[inline]
    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: any layout may be asked for.
        slice(self.with(|blocks| unsafe { blocks.alloc_zeroed(layout) }), layout.size())
    }

    #[inline]
    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: handed on.
        let _ = self.with(|blocks| unsafe { blocks.dealloc(block.as_ptr(), layout) });
    }
}
