//! Words of stacks: those of the calling thread's own stack are read as they are, once the kernel has said that all of it
//! can be read; others are copied by the kernel.

use crate::os::{copy_from, readable_until, stack_end};

/// What a walk reads.
pub(super) trait Words {
    /// The word at `at`, if that is aligned and all of it can be read: so each slot of a walk is.
    fn word(&mut self, at: usize) -> Option<usize>;
}

/// A stack longer than that is read by the kernel's hand.
const LONGEST: usize = 64 << 20;
const PAGE: usize = 4096;
const WORD: usize = size_of::<usize>();

/// What is known of the calling thread's stack: for each thread one, which begins and ends with it.
///
/// A thread's own stack stays mapped above the place where the thread is, so what was found readable there once is always
/// readable. Stacks of another kind, of coroutines and signal handlers, are not kept here.
#[derive(Debug)]
pub(crate) struct Stack {
    /// Each page from `low` on and below `high` can be read. Both are 0, or multiples of 8, and apart by a word or more.
    low: usize,
    high: usize,
    /// A page that could not be read, above a stack of another kind: what lies below it is not this stack.
    hole: usize,
}

impl Stack {
    /// Nothing is known yet.
    pub(crate) const fn unknown() -> Self {
        Self { low: 0, high: 0, hole: 0 }
    }

    /// Whether `sp`, where the thread's stack ends now, lies in it; then so does all of the thread's stack.
    #[inline(always)]
    pub(crate) const fn holds(&self, sp: usize) -> bool {
        sp >= self.low && sp < self.high
    }

    /// What can be read of the thread's stack, which ends at `sp` now; nothing if that is not known.
    #[inline(always)]
    pub(crate) const fn above(&self, sp: usize) -> Above {
        Above { sp, places: if self.holds(sp) { self.high - (WORD - 1) - sp } else { 0 } }
    }

    /// Learns of the stack, if it is the thread's own, as far as `sp`, where it ends now.
    #[cold]
    #[inline(never)]
    fn learn(&mut self, sp: usize) {
        if sp < self.hole {
            return;
        }
        let low = sp & !(PAGE - 1);
        let is_deeper = low < self.low;
        let high = if is_deeper { self.high } else { stack_end().unwrap_or(0) & !(size_of::<usize>() - 1) };
        if high <= sp || high - sp >= LONGEST {
            return;
        }
        let unknown_until = if is_deeper { self.low } else { high };
        let readable = readable_until(low, unknown_until);
        if readable == unknown_until {
            (self.low, self.high) = (low, high);
        } else {
            self.hole = readable;
        }
    }

    /// The words that can be read as they are while the stack ends at `sp`.
    #[inline(always)]
    pub(super) fn direct(&mut self, sp: usize) -> Direct {
        if !self.holds(sp) {
            self.learn(sp);
        }
        if self.holds(sp) { Direct { low: self.low, high: self.high } } else { Direct { low: 0, high: 0 } }
    }
}

/// The part of the calling thread's stack from the stack pointer on, by offsets in bytes from there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Above {
    sp: usize,
    /// At how many offsets a word can be read.
    places: usize,
}

impl Above {
    /// Whether every word up to the one at `offset` can be read.
    #[inline(always)]
    pub(crate) const fn has(self, offset: usize) -> bool {
        offset < self.places
    }

    /// The word at `offset`, a multiple of a word's size, as the distance of two slots is; 0 if it is not known to be on this
    /// stack.
    #[inline(always)]
    pub(crate) fn word(self, offset: usize) -> usize {
        // SAFETY: seen before.
        if self.has(offset) { unsafe { self.word_unchecked(offset) } } else { 0 }
    }

    /// The word at `offset`.
    ///
    /// # Safety
    /// - The stack `has` it, and the offset is a multiple of a word's size.
    #[inline(always)]
    pub(crate) unsafe fn word_unchecked(self, offset: usize) -> usize {
        let word = core::ptr::with_exposed_provenance::<usize>(self.sp.wrapping_add(offset));
        // SAFETY: as the caller states; on the calling thread's stack, which stays while the thread is below.
        unsafe { word.read_volatile() }
    }
}

/// Words that can be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Direct {
    low: usize,
    high: usize,
}

impl Words for Direct {
    #[inline(always)]
    fn word(&mut self, at: usize) -> Option<usize> {
        if at < self.low || at >= self.high || !at.is_multiple_of(align_of::<usize>()) {
            return None;
        }
        let word = core::ptr::with_exposed_provenance::<usize>(at);
        // SAFETY: aligned, and on the calling thread's stack, which was found readable and stays while the thread is below.
        Some(unsafe { word.read_volatile() })
    }
}

/// Bytes copied at once.
const PIECE: usize = 1024;
/// Of them, those before the word that was asked for: what a frame saved lies below its return address.
const BEFORE: usize = 64;

/// Words that the kernel copies, a piece at a time.
#[derive(Debug)]
pub(super) struct Copied {
    direct: Direct,
    /// The first `len` bytes are a copy of those from `at` on.
    bytes: [u8; PIECE],
    at: usize,
    len: usize,
}

impl Copied {
    pub(super) const fn new(direct: Direct) -> Self {
        Self { direct, bytes: [0; PIECE], at: 0, len: 0 }
    }

    fn copy(&mut self, at: usize) {
        self.at = at;
        self.len = copy_from(at, &mut self.bytes);
    }

    fn kept(&self, at: usize) -> Option<usize> {
        let from = at.checked_sub(self.at)?;
        let bytes = self.bytes.get(..self.len)?.get(from..)?.first_chunk()?;
        Some(usize::from_ne_bytes(*bytes))
    }
}

impl Words for Copied {
    fn word(&mut self, at: usize) -> Option<usize> {
        if !at.is_multiple_of(align_of::<usize>()) {
            return None;
        }
        if let Some(word) = self.direct.word(at).or_else(|| self.kept(at)) {
            return Some(word);
        }
        self.copy(at.saturating_sub(BEFORE));
        self.kept(at).or_else(|| {
            self.copy(at);
            self.kept(at)
        })
    }
}

#[cfg(test)]
#[path = "words_tests.rs"]
mod tests;
