//! Where threads sit: each has a seat in every shared heap that it uses, with a cache of its own, which lies in the file.

use super::{Body, opened};
use crate::heap::Cache;
use crate::sync::{Acquire, AtomicU64, Relaxed, Release};
use core::cell::{Cell, UnsafeCell};
use core::ptr::NonNull;

/// Seats of a heap.
pub(super) const SEATS: usize = 512;
/// Heaps in which a thread sits at once. In others it stands: it shares a cache behind a lock.
const HEAPS: usize = 8;

/// A seat. All zero bits are a free one.
#[derive(Debug)]
#[repr(C, align(4096))]
pub(super) struct Seat {
    /// 0, or the guest whose thread sits here: a number that one process has for one opening of the heap, and no other has ever.
    /// (The system's numbers of processes come again, and are others in other namespaces.)
    guest: AtomicU64,
    cache: UnsafeCell<Cache>,
}

impl Seat {
    pub(super) fn cache(&self) -> &Cache {
        // SAFETY: it is written only by `renew`, by whoever took the seat, before anybody looks at it.
        unsafe { &*self.cache.get() }
    }

    /// Whether a thread of `guest` sits here.
    pub(super) fn is_of(&self, guest: u64) -> bool {
        self.guest.load(Relaxed) == guest
    }

    /// Takes the seat for a thread of `guest`, if it is free.
    pub(super) fn take(&self, guest: u64) -> bool {
        // Acquire: pairs with `give_up`.
        self.guest.compare_exchange(0, guest, Acquire, Relaxed).is_ok()
    }

    /// Makes the cache of a seat that was taken anew.
    pub(super) fn renew(&self) {
        // SAFETY: whoever took the seat is alone with it, and its last cache was detached.
        unsafe { self.cache.get().write(Cache::new()) };
    }

    /// Gives the seat up; its cache has been detached.
    pub(super) fn give_up(&self) {
        // Release: the next one finds the cache as it was left; pairs with `take`.
        self.guest.store(0, Release);
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

std::thread_local! {
    static SITTINGS: [Cell<Sitting>; HEAPS] = const { [const { Cell::new(NOWHERE) }; HEAPS] };
    static END: End = const { End };
}

/// Its drop is the end of the thread's seats.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        SITTINGS.with(|sittings| {
            for sitting in sittings {
                let Sitting { opening, body, seat } = sitting.replace(NOWHERE);
                if let (Some(body), Some(seat)) = (body, seat) {
                    super::stand_up(opening, body, seat);
                }
            }
        });
    }
}

/// The calling thread's seat in an opening of a heap, if it has one.
#[inline]
pub(super) fn seat(opening: u64) -> Option<NonNull<Seat>> {
    SITTINGS.with(|sittings| {
        let sitting = sittings.iter().find(|sitting| sitting.get().opening == opening)?;
        sitting.get().seat
    })
}

/// The calling thread, of a process that was just forked, sits nowhere: the seats are its parent's.
pub(super) fn forget() {
    SITTINGS.with(|sittings| sittings.iter().for_each(|sitting| sitting.set(NOWHERE)));
}

/// Has the calling thread sit down on a seat that `take` takes; `None` if it cannot sit.
#[cold]
#[inline(never)]
pub(super) fn sit_down(
    opening: u64,
    body: NonNull<Body>,
    take: impl FnOnce() -> Option<NonNull<Seat>>,
) -> Option<NonNull<Seat>> {
    // The seat is given up when this is dropped; past that nobody sits down.
    END.try_with(|_| ()).ok()?;
    SITTINGS.with(|sittings| {
        let place = sittings.iter().find(|sitting| !opened::is_open(sitting.get().opening))?;
        let seat = take()?;
        place.set(Sitting { opening, body: Some(body), seat: Some(seat) });
        Some(seat)
    })
}
