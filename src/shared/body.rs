//! What lies at the begin of a heap's file: the header, the engine, who is in the heap, and the seats of threads.

use super::SharedError;
use super::guests::Guests;
use super::header::Header;
use super::lock::SharedLock;
use super::pages::FilePages;
use super::seats::{SEATS, Seat};
use crate::heap::Engine;
use crate::os::Semaphores;
use crate::sync::{Acquire, AtomicU32, AtomicU64, AtomicUsize, Relaxed, Release};

/// What lies at the begin of a heap's file.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Body {
    pub(super) header: Header,
    /// 1 while somebody knows that a guest died in a lock, and nobody has mended the heap.
    pub(super) wounded: AtomicU32,
    /// The heap's set of semaphores, if it has one.
    pub(super) semaphores: AtomicU32,
    /// A sum of what stays what it is from the heap's birth on.
    pub(super) frame: AtomicU64,
    pub(super) engine: Engine<FilePages, SharedLock>,
    pub(super) guests: Guests,
    /// The first seats, for which there is room in the file.
    pub(super) furnished: AtomicUsize,
    pub(super) seats: [Seat; SEATS],
}

impl Body {
    /// The seats that there is room for.
    pub(super) fn seats(&self) -> &[Seat] {
        // Acquire: pairs with `furnish`.
        &self.seats[..self.furnished.load(Acquire).min(SEATS)]
    }

    /// The sum of what stays what it is.
    pub(super) fn sum(&self) -> u64 {
        let mut sum = SUM_OF_NOTHING;
        let mut add = |word: u64| sum = add_to_sum(sum, word);
        self.engine.source().each_fixed_word(&mut add);
        self.engine.each_fixed_word(&mut add);
        sum
    }

    /// Verifies what must be right before anybody comes in. Nothing is changed.
    pub(super) fn verify_frame(&self) -> Result<(), SharedError> {
        let what = match () {
            () if self.frame.load(Relaxed) != self.sum() => "its engine's fixed words are not what they were",
            () if !self.engine.source().is_possible() => "more or less of it is used than there is",
            () if self.furnished.load(Relaxed) > SEATS => "it has more seats than there are",
            () => return Ok(()),
        };
        Err(SharedError::Damaged { what })
    }

    pub(super) fn semaphores(&self) -> Semaphores {
        Semaphores(self.semaphores.load(Relaxed) as i32)
    }

    pub(super) fn is_wounded(&self) -> bool {
        self.wounded.load(Acquire) == 1
    }

    /// Somebody died in a lock: who takes any has the heap mended first.
    pub(super) fn wound(&self) {
        self.wounded.store(1, Release);
    }

    pub(super) fn heal(&self) {
        self.wounded.store(0, Release);
    }
}

/// A sum of no words, and one of one word more.
pub(super) const SUM_OF_NOTHING: u64 = 0x7374_7261_7461_4652;

pub(super) fn add_to_sum(sum: u64, word: u64) -> u64 {
    (sum.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Bytes before the seats: there is room for them in every heap's file.
pub(super) const HEAD: usize = core::mem::offset_of!(Body, seats);
