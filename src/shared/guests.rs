//! Who is in a heap: the processes that have it open, and whether they live.
//!
//! A guest has a place in the table, and a byte of the file locked, by an opening of the file of its own: so the system takes the
//! lock away when the process ends, in whatever way. (Numbers of processes come again, and are others in other containers.) The
//! bytes lie behind each other from byte 1 on; byte 0 is for who opens the heap.

use crate::os::{FileNumber, process_number, since_boot};
use crate::sync::{Acquire, AtomicU32, AtomicU64, Relaxed, Release, step};

/// Processes that may have a heap open.
pub(super) const ROOM: usize = 512;
/// Places for guests: the last few are for who comes in while all others are taken, to free those of the dead.
pub(super) const GUESTS: usize = ROOM + 8;

/// The byte that who opens a heap locks.
pub(super) const DOOR: u64 = 0;

/// A place for a guest. All zero bits are a free one.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Guest {
    /// 1 while somebody has it.
    pub(super) is_taken: AtomicU32,
    /// The number of its process, as that sees itself: for people.
    pub(super) process: AtomicU32,
    /// When it came, in milliseconds since the system was started: for people.
    pub(super) since: AtomicU64,
}

/// A guest by its number, from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GuestNumber(pub(super) u32);

impl GuestNumber {
    /// Nobody.
    pub(super) const NONE: Self = Self(0);

    /// The byte that it has locked while it lives.
    pub(super) fn byte(self) -> u64 {
        DOOR + u64::from(self.0)
    }
}

/// The guests of a heap.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Guests([Guest; GUESTS]);

impl Guests {
    fn place(&self, guest: GuestNumber) -> Option<&Guest> {
        self.0.get((guest.0 as usize).checked_sub(1)?)
    }

    /// The guests there are, dead ones included.
    pub(super) fn each(&self) -> impl Iterator<Item = (GuestNumber, &Guest)> {
        let numbered = (1..).map(GuestNumber).zip(&self.0);
        // Acquire: pairs with `join`.
        numbered.filter(|(_, guest)| guest.is_taken.load(Acquire) == 1)
    }

    /// Whether `guest` lives, for `me`, whose opening `file` is.
    pub(super) fn is_alive(&self, guest: GuestNumber, me: GuestNumber, file: FileNumber) -> bool {
        guest == me || guest != GuestNumber::NONE && file.is_locked(guest.byte())
    }

    /// Takes one of the `first` so many places for this process, by its opening `file`; who calls has the door. `None` if all
    /// are taken.
    pub(super) fn join(&self, file: FileNumber, first: usize) -> Option<GuestNumber> {
        let places = (1..).map(GuestNumber).zip(&self.0).take(first);
        let free = places.filter(|(_, guest)| guest.is_taken.load(Relaxed) == 0);
        let is_ours = |number: GuestNumber| file.try_lock(number.byte()).unwrap_or(false);
        let (number, guest) = free.into_iter().find(|(number, _)| is_ours(*number))?;
        step();
        guest.process.store(process_number(), Relaxed);
        guest.since.store(since_boot(), Relaxed);
        // Release: pairs with `each`. The byte is locked by now: who sees the guest sees that it lives.
        guest.is_taken.store(1, Release);
        step();
        Some(number)
    }

    /// Frees all places but that of `guest`, whatever is in them: nobody else is here.
    pub(super) fn keep_only(&self, guest: GuestNumber) {
        let others = (1..).map(GuestNumber).zip(&self.0).filter(|(number, _)| *number != guest);
        others.for_each(|(_, place)| place.is_taken.store(0, Relaxed));
    }

    /// Frees the place of a guest that has left, or has died and left nothing.
    pub(super) fn free(&self, guest: GuestNumber) {
        if let Some(place) = self.place(guest) {
            place.is_taken.store(0, Release);
            step();
        }
    }
}
