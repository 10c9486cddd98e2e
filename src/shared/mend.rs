//! What is done when somebody died in a heap.

use super::body::Body;
use super::guests::{GUESTS, GuestNumber};
use super::lock::SharedLock;
use super::opened::Opened;
use super::seats::{self, Seat};
use crate::heap::{Member, Members};
use crate::lock::RawLock;
use crate::sync::in_order;

/// Runs `work` while this thread holds all locks of the heap, which is put right before if somebody died in it. For this thread
/// they are no locks meanwhile; and others are in the heap only with what is their own.
pub(super) fn with_all<R>(place: &Opened, body: &Body, work: impl FnOnce() -> R) -> R {
    let mut is_wounded = body.is_wounded();
    body.engine.each_lock(&mut |lock: &SharedLock| {
        lock.seize(place, body);
        is_wounded |= lock.is_wounded();
    });
    seats::set_has_all(true);
    let roll = Roll::call(place, body);
    if is_wounded || roll.has_dead() {
        bury(&roll);
    }
    let result = work();
    seats::set_has_all(false);
    body.engine.each_lock(&mut |lock: &SharedLock| lock.let_go(place, body));
    result
}

/// Bits of guests.
const WORDS: usize = GUESTS / 64 + 1;

/// Who of a heap's guests was dead when all locks were taken. Others may come later.
struct Roll<'a> {
    body: &'a Body,
    dead: [u64; WORDS],
    /// Whether this process is the first that has the heap open.
    distrusts: bool,
}

impl<'a> Roll<'a> {
    fn call(place: &Opened, body: &'a Body) -> Self {
        let mut dead = [0; WORDS];
        for (guest, _) in body.guests.each() {
            if !body.guests.is_alive(guest, place.guest(), place.file()) {
                dead[guest.0 as usize / 64 % WORDS] |= 1 << (guest.0 % 64);
            }
        }
        Self { body, dead, distrusts: false }
    }

    fn is_dead(&self, guest: GuestNumber) -> bool {
        self.distrusts || self.dead[guest.0 as usize / 64 % WORDS] >> (guest.0 % 64) & 1 == 1
    }

    fn has_dead(&self) -> bool {
        self.dead.iter().any(|word| *word != 0)
    }

    /// The seats that are taken.
    fn seats(&self) -> impl Iterator<Item = &Seat> {
        self.body.seats().iter().filter(|seat| seat.guest() != GuestNumber::NONE)
    }
}

impl Members for Roll<'_> {
    fn distrusts(&self) -> bool {
        self.distrusts
    }

    fn each(&self, each: &mut dyn FnMut(Member<'_>)) {
        for seat in self.seats() {
            each(Member { cache: seat.cache(), hand: seat.hand(), is_alive: !self.is_dead(seat.guest()) });
        }
    }

    fn is_alive(&self, keeper: u32) -> bool {
        let seat = (keeper as usize).checked_sub(1).and_then(|at| self.body.seats().get(at));
        seat.is_some_and(|seat| seat.guest() != GuestNumber::NONE && !self.is_dead(seat.guest()))
    }
}

/// Puts the heap right if somebody died in it.
#[cold]
#[inline(never)]
pub(super) fn mend(place: &Opened, body: &Body) {
    with_all(place, body, || ());
}

/// Takes back what the dead had.
fn bury(roll: &Roll<'_>) {
    let body = roll.body;
    // SAFETY: all locks are held; a guest that is dead stays so, and a seat of one is taken by nobody until it is free.
    unsafe { body.engine.mend(roll) };
    // Whoever takes such a seat, and dies at once, must leave nothing of its predecessor's.
    for (number, seat) in body.seats().iter().enumerate().filter(|(_, seat)| roll.is_dead(seat.guest())) {
        seat.renew(number);
        in_order();
        seat.give_up();
    }
    let dead = body.guests.each().filter(|(guest, _)| !roll.distrusts && roll.is_dead(*guest));
    dead.for_each(|(guest, _)| body.guests.free(guest));
    body.heal();
}

/// What the first who opens a heap does: only what was verified is believed, all else is made anew.
pub(super) fn begin_anew(place: &Opened, body: &Body) {
    with_all(place, body, || {
        body.engine.distrust();
        body.guests.keep_only(place.guest());
        let roll = Roll { distrusts: true, ..Roll::call(place, body) };
        bury(&roll);
    });
}

/// Whether somebody died, as far as the guests tell.
pub(super) fn has_dead(place: &Opened, body: &Body) -> bool {
    body.guests.each().any(|(guest, _)| !body.guests.is_alive(guest, place.guest(), place.file()))
}
