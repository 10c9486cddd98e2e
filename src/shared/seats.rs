//! Where threads sit: each has a seat in every shared heap that it uses, with a cache of its own, which lies in the file, and with
//! its hand.

use super::body::Body;
use super::guests::GuestNumber;
use super::opened;
use crate::heap::{Cache, Hand};
use crate::sync::{Acquire, AtomicU32, Relaxed, Release, step};
use core::cell::{Cell, UnsafeCell};
use core::ptr::NonNull;

/// Seats of a heap.
pub(super) const SEATS: usize = 1024;
/// The first of them are for one call at a time: of threads that can have no seat for long.
pub(super) const VISITORS: usize = 16;
/// Heaps in which a thread sits at once. In others it is a visitor.
const HEAPS: usize = 8;

/// A seat. All zero bits are a free one.
#[derive(Debug)]
#[repr(C, align(4096))]
pub(super) struct Seat {
    /// The guest whose thread sits here, or 0.
    pub(super) guest: AtomicU32,
    /// The system's number of the thread: for people.
    pub(super) thread: AtomicU32,
    pub(super) cache: UnsafeCell<Cache>,
    pub(super) hand: UnsafeCell<Hand>,
}

static_assertions::const_assert!(SEATS as u32 <= Hand::MOST);

impl Seat {
    #[inline]
    pub(super) fn cache(&self) -> &Cache {
        // SAFETY: it is written only by `renew`, by whoever took the seat, before anybody looks at it.
        unsafe { &*self.cache.get() }
    }

    pub(super) fn hand(&self) -> &Hand {
        // SAFETY: as above.
        unsafe { &*self.hand.get() }
    }

    /// Whose thread sits here.
    pub(super) fn guest(&self) -> GuestNumber {
        GuestNumber(self.guest.load(Relaxed))
    }

    /// Takes the seat, of that `number`, for a thread of `guest`, if it is free; its cache and its hand are new then.
    pub(super) fn take(&self, guest: GuestNumber, number: usize) -> bool {
        // Acquire: pairs with `give_up`.
        let taken = self.guest.compare_exchange(0, guest.0, Acquire, Relaxed).is_ok();
        if taken {
            step();
            self.renew(number);
            self.thread.store(crate::os::thread_id(), Relaxed);
            step();
        }
        taken
    }

    /// Makes the cache and the hand of the seat of that `number` new ones. What they had is elsewhere.
    pub(super) fn renew(&self, number: usize) {
        // SAFETY: whoever took the seat, or mends the heap after its death, is alone with it.
        unsafe { self.cache.get().write(Cache::new()) };
        // SAFETY: as above.
        unsafe { self.hand.get().write(Hand::new(number as u32 + 1)) };
    }

    /// Gives the seat up, whose cache and hand are empty.
    pub(super) fn give_up(&self) {
        // Release: the next one finds the cache as it was left; pairs with `take`.
        self.guest.store(0, Release);
        step();
    }
}

/// A thread's seat in one heap.
#[derive(Clone, Copy, Debug)]
struct Sitting {
    /// Which opening of a heap it is of; 0: none.
    opening: u64,
    body: Option<NonNull<Body>>,
    seat: Option<NonNull<Seat>>,
}

const NOWHERE: Sitting = Sitting { opening: 0, body: None, seat: None };

/// What a thread knows of its seats.
struct Mine {
    sittings: [Cell<Sitting>; HEAPS],
    /// The seat on which the thread calls the engine.
    current: Cell<Option<NonNull<Seat>>>,
    /// Whether the thread holds all locks of the heap that it is in.
    has_all: Cell<bool>,
}

std::thread_local! {
    static MINE: Mine = const {
        Mine {
            sittings: [const { Cell::new(NOWHERE) }; HEAPS],
            current: Cell::new(None),
            has_all: Cell::new(false),
        }
    };
    static END: End = const { End };
}

/// Its drop is the end of the thread's seats.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        MINE.with(|mine| {
            for sitting in &mine.sittings {
                let Sitting { opening, body, seat } = sitting.replace(NOWHERE);
                if let (Some(body), Some(seat)) = (body, seat) {
                    super::stand_up(opening, body, seat);
                }
            }
        });
    }
}

/// The calling thread's seat in an opening of a heap, if it has one; it calls the engine on that from now on.
#[inline(always)]
pub(super) fn act(opening: u64) -> Option<NonNull<Seat>> {
    MINE.with(|mine| {
        // The heap that a thread came to first is most often its only one.
        let first = mine.sittings[0].get();
        let seat = if first.opening == opening { first.seat } else { other_seat(opening) };
        mine.current.set(seat);
        seat
    })
}

/// The calling thread's seat in an opening of a heap, if it has one.
#[inline(never)]
pub(super) fn other_seat(opening: u64) -> Option<NonNull<Seat>> {
    MINE.with(|mine| mine.sittings.iter().find(|sitting| sitting.get().opening == opening)?.get().seat)
}

/// The calling thread calls the engine on `seat` from now on.
pub(super) fn act_on(seat: Option<NonNull<Seat>>) {
    MINE.with(|mine| mine.current.set(seat));
}

/// The hand of the seat on which the calling thread calls the engine.
#[inline]
pub(super) fn hand() -> Option<&'static Hand> {
    // SAFETY: the seat is this thread's, in a heap that is open.
    MINE.with(|mine| mine.current.get()).map(|seat| unsafe { seat.as_ref() }.hand())
}

/// Whether the calling thread holds all locks of the heap that it is in.
#[inline]
pub(super) fn has_all() -> bool {
    MINE.with(|mine| mine.has_all.get())
}

pub(super) fn set_has_all(has: bool) {
    MINE.with(|mine| mine.has_all.set(has));
}

/// The calling thread, of a process that was just forked, sits nowhere: the seats are its parent's.
pub(super) fn forget() {
    MINE.with(|mine| mine.sittings.iter().for_each(|sitting| sitting.set(NOWHERE)));
    act_on(None);
    set_has_all(false);
}

/// Has the calling thread sit down on a seat that `take` takes; `None` if it cannot sit.
pub(super) fn sit_down(
    opening: u64,
    body: NonNull<Body>,
    take: impl FnOnce() -> Option<NonNull<Seat>>,
) -> Option<NonNull<Seat>> {
    // The seat is given up when this is dropped; past that nobody sits down.
    END.try_with(|_| ()).ok()?;
    MINE.with(|mine| {
        let place = mine.sittings.iter().find(|sitting| !opened::is_open(sitting.get().opening))?;
        let seat = take()?;
        place.set(Sitting { opening, body: Some(body), seat: Some(seat) });
        Some(seat)
    })
}
