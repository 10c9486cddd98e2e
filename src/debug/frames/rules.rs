//! What was found for an instruction, kept for the next walk: rows of the common kind, a word each, in a table of fixed
//! size, without a lock.

use crate::sync::{AtomicU64, Relaxed, array_of};

/// A row of the common kind.
///
/// Bits 0 and 1: the kind. Bits 8 to 15: how many words below the frame address the base pointer is saved, 0 if it is
/// unchanged. Bits 16 to 47: how many words the frame address lies above the stack or base pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule(u64);

const WORD: usize = size_of::<usize>();
const KIND: u64 = 3;
const FROM_STACK: u64 = 1;
const FROM_BASE: u64 = 2;
const LAST: u64 = 3;
const SAVED_SHIFT: u32 = 8;
const OFFSET_SHIFT: u32 = 16;

impl Rule {
    /// There is no caller.
    pub(super) const END: Self = Self(LAST);

    /// The frame address is `offset` bytes above the stack or base pointer; the base pointer is saved `saved` bytes below
    /// it, or 0 for unchanged. `None` if it cannot be said in a word.
    pub(super) fn new(from_base: bool, offset: usize, saved: usize) -> Option<Self> {
        if !(offset | saved).is_multiple_of(WORD) {
            return None;
        }
        let offset = u64::from(u32::try_from(offset / WORD).ok()?);
        let saved = u64::from(u8::try_from(saved / WORD).ok()?);
        let kind = if from_base { FROM_BASE } else { FROM_STACK };
        Some(Self(offset << OFFSET_SHIFT | saved << SAVED_SHIFT | kind))
    }

    #[inline(always)]
    pub(super) const fn is_end(self) -> bool {
        self.0 & KIND == LAST
    }

    #[inline(always)]
    pub(super) const fn is_from_base(self) -> bool {
        self.0 & KIND == FROM_BASE
    }

    /// Bytes.
    #[inline(always)]
    pub(super) const fn offset(self) -> usize {
        (self.0 >> OFFSET_SHIFT) as usize * WORD
    }

    /// Bytes below the frame address; 0 if the base pointer is unchanged.
    #[inline(always)]
    pub(super) const fn saved(self) -> usize {
        (self.0 >> SAVED_SHIFT & 0xff) as usize * WORD
    }
}

/// Instructions that are remembered at the most.
const PLACES: usize = 16384;
const INDEX_SHIFT: u32 = u64::BITS - PLACES.trailing_zeros();
/// An odd number without a pattern (2⁶⁴ divided by the golden ratio).
const SCATTER: u64 = 0x9e37_79b9_7f4a_7c15;

/// A rule and the instruction that it is of.
struct Known {
    rule: AtomicU64,
    /// Made of both, so that halves of two entries do not pass for one.
    check: AtomicU64,
}

static KNOWN: [Known; PLACES] = array_of!(Known { rule: AtomicU64::new(0), check: AtomicU64::new(0) });

#[inline(always)]
fn place(instruction: usize) -> &'static Known {
    &KNOWN[((instruction as u64).wrapping_mul(SCATTER) >> INDEX_SHIFT) as usize % PLACES]
}

#[inline(always)]
const fn check(instruction: usize, rule: u64) -> u64 {
    instruction as u64 ^ rule.wrapping_mul(SCATTER)
}

/// The rule of an instruction, if it is remembered.
#[inline(always)]
pub(super) fn known(instruction: usize) -> Option<Rule> {
    let place = place(instruction);
    // Relaxed: both halves together say whether they belong together.
    let (rule, sum) = (place.rule.load(Relaxed), place.check.load(Relaxed));
    (sum == check(instruction, rule) && rule != 0).then_some(Rule(rule))
}

/// Remembers the rule of an instruction, in the place of another.
pub(super) fn remember(instruction: usize, rule: Rule) {
    let place = place(instruction);
    place.rule.store(rule.0, Relaxed);
    place.check.store(check(instruction, rule.0), Relaxed);
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
