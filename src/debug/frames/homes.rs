//! Where modules have their unwind tables, kept for the next look: a table of fixed size, without a lock.

use crate::os::Module;
use crate::sync::{AtomicUsize, Relaxed, array_of};

/// The segment of a module that its tables are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Home {
    /// The address of the first byte.
    pub(super) base: usize,
    pub(super) bytes: usize,
    /// Where in it the tables' header is.
    pub(super) header: usize,
}

/// Modules that are remembered at the most.
const PLACES: usize = 64;
/// What a module and its home are said by.
const WORDS: usize = 5;
/// An odd number without a pattern.
const SCATTER: usize = 0x9e37_79b9_7f4a_7c15;

struct Known {
    words: [AtomicUsize; WORDS],
    /// Made of all of them, so that parts of two entries do not pass for one.
    check: AtomicUsize,
}

static KNOWN: [Known; PLACES] =
    array_of!(Known { words: [const { AtomicUsize::new(0) }; WORDS], check: AtomicUsize::new(0) });

fn place(module: &Module) -> &'static Known {
    const SHIFT: u32 = usize::BITS - PLACES.trailing_zeros();
    &KNOWN[(module.start.wrapping_mul(SCATTER) >> SHIFT) % PLACES]
}

fn check(words: [usize; WORDS]) -> usize {
    words.iter().fold(SCATTER, |sum, word| (sum ^ word).wrapping_mul(SCATTER).rotate_left(23))
}

/// The home of a module's tables, if it is remembered.
pub(super) fn known(module: &Module) -> Option<Home> {
    let place = place(module);
    // Relaxed: all parts together say whether they belong together.
    let words = place.words.each_ref().map(|word| word.load(Relaxed));
    let [start, end, base, bytes, header] = words;
    let is_it = place.check.load(Relaxed) == check(words) && (start, end) == (module.start, module.end);
    // Another module may have come to the same place.
    let is_there = module.tables == 0 || module.tables == base.wrapping_add(header);
    (is_it && is_there).then_some(Home { base, bytes, header })
}

/// Remembers the home of a module's tables, in the place of another.
pub(super) fn remember(module: &Module, home: Home) {
    let place = place(module);
    let words = [module.start, module.end, home.base, home.bytes, home.header];
    place.words.iter().zip(words).for_each(|(place, word)| place.store(word, Relaxed));
    place.check.store(check(words), Relaxed);
}

#[cfg(test)]
#[path = "homes_tests.rs"]
mod tests;
