//! The words that a heap's records are made of.
//!
//! With the feature `malloc-debug` each word has a copy beside it, of other bits, so that whatever is written over a record
//! is seen: by an audit, and by whoever reads a word under its lock. Without the feature a word is just that. Words that
//! threads write without a lock, the entries of the page map, have a check in themselves instead ([`sealed`]): a word and
//! its copy would differ for a moment, and for ever in a child that is forked just then.

use crate::sync::mapped::AtomicU64;
use crate::sync::{AtomicPtr, Relaxed, step};
use core::cell::Cell;

/// What a record may hold: any bits of it are a value.
pub(super) trait Word: Copy {
    /// No longer than need be: records take as much again for the copies.
    type Bits: copy::Bits;

    /// The value in so many bits that two values differ in them.
    fn bits(self) -> Self::Bits;
}

impl Word for u8 {
    type Bits = u32;

    #[inline(always)]
    fn bits(self) -> u32 {
        u32::from(self)
    }
}

impl Word for u32 {
    type Bits = Self;

    #[inline(always)]
    fn bits(self) -> Self {
        self
    }
}

impl Word for u64 {
    type Bits = Self;

    #[inline(always)]
    fn bits(self) -> Self {
        self
    }
}

/// A word that one thread at a time reaches, and that is set before it is read.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Kept<T: Word> {
    word: Cell<T>,
    copy: copy::Local<T::Bits>,
}

impl<T: Word> Kept<T> {
    #[inline(always)]
    pub(super) fn new(value: T) -> Self {
        Self { word: Cell::new(value), copy: copy::Local::new(|| value.bits()) }
    }

    /// The value; where it is not what was set, the process ends.
    #[inline(always)]
    pub(super) fn get(&self) -> T {
        self.copy.insist(|| self.word.get().bits());
        self.word.get()
    }

    #[inline(always)]
    #[cfg_attr(feature = "fault-points", track_caller)]
    pub(super) fn set(&self, value: T) {
        self.word.set(value);
        step();
        self.copy.set(|| value.bits());
    }

    #[inline(always)]
    #[cfg_attr(feature = "fault-points", track_caller)]
    pub(super) fn replace(&self, value: T) -> T {
        let old = self.get();
        self.set(value);
        old
    }

    /// Whether the value is what was set, as far as can be told.
    pub(super) fn is_intact(&self) -> bool {
        self.copy.agrees(|| self.word.get().bits())
    }

    /// After the death of who may have been setting it: it is what the word says.
    #[cfg(feature = "shared")]
    pub(super) fn heal(&self) {
        self.copy.set(|| self.word.get().bits());
    }
}

#[cfg(feature = "cli")]
impl<T: Word> crate::image::Plain for Kept<T> {
    const BYTES: usize = size_of::<T>();
    const AT: usize = core::mem::offset_of!(Self, word);

    fn is_intact(words: &[u64], at: usize) -> bool {
        use crate::image::number;
        let copy = at - Self::AT + core::mem::offset_of!(Self, copy);
        let [word, copy] =
            [(at, Self::BYTES), (copy, size_of::<T::Bits>())].map(|(at, bytes)| number(words, at, bytes));
        <T::Bits as copy::Bits>::is_copy(word, copy)
    }
}

/// A word that is written under a lock, and read by other threads, too. Zero bytes are a word that is zero.
#[derive(Debug)]
#[repr(C)]
pub(super) struct KeptAtomic {
    word: AtomicU64,
    copy: copy::Shared,
}

// Relaxed throughout: see the map.
impl KeptAtomic {
    #[inline(always)]
    pub(super) fn load(&self) -> u64 {
        self.word.load(Relaxed)
    }

    #[inline(always)]
    #[cfg_attr(feature = "fault-points", track_caller)]
    pub(super) fn store(&self, value: u64) {
        self.word.store(value, Relaxed);
        step();
        self.copy.set(|| value);
    }

    /// Under the lock: whether the value is what was set, as far as can be told.
    pub(super) fn is_intact(&self) -> bool {
        self.copy.agrees(|| self.load())
    }

    /// As that of `Kept`.
    #[cfg(feature = "shared")]
    pub(super) fn heal(&self) {
        self.copy.set(|| self.load());
    }
}

#[cfg(feature = "cli")]
impl KeptAtomic {
    /// The word.
    pub(super) const WORD: crate::image::Field<Self> = crate::image::field!(Self, word);

    /// Whether the word that lies in some words, and nothing else, is what was set, as far as can be told.
    pub(super) fn is_intact_in(words: &[u64]) -> bool {
        let number = |at| crate::image::number(words, at, 8);
        copy::Shared::is_copy(number(Self::WORD.at()), number(core::mem::offset_of!(Self, copy)))
    }
}

/// A pointer that is set once. Zero bytes are null.
#[derive(Debug)]
#[repr(C)]
pub(super) struct KeptPtr {
    /// The pointer, for whoever sets it, by an exchange from null; `note` follows.
    pub(super) pointer: AtomicPtr<u8>,
    copy: copy::Shared,
}

impl KeptPtr {
    #[cfg(loom)]
    pub(super) fn null() -> Self {
        Self { pointer: AtomicPtr::new(core::ptr::null_mut()), copy: copy::Shared::default() }
    }

    /// Says that the pointer was set.
    pub(super) fn note(&self) {
        self.copy.set(|| self.pointer.load(Relaxed) as u64);
    }

    /// Whether the pointer is what was set, as far as can be told; false also while it is being set.
    pub(super) fn is_intact(&self) -> bool {
        self.copy.agrees(|| self.pointer.load(Relaxed) as u64)
    }
}

/// A sum over something that is written whole, in place of copies of its words.
#[derive(Debug)]
pub(super) struct Seal(copy::Local<u64>);

impl Seal {
    /// A seal on nothing yet: `renew` follows.
    pub(super) const fn none() -> Self {
        Self(copy::Local::none())
    }

    #[inline(always)]
    pub(super) fn renew<I: Iterator<Item = u64>>(&self, words: impl FnOnce() -> I) {
        self.0.set(|| sum(words()));
    }

    /// Whether the words are those that were sealed, as far as can be told.
    pub(super) fn is_intact<I: Iterator<Item = u64>>(&self, words: impl FnOnce() -> I) -> bool {
        self.0.agrees(|| sum(words()))
    }
}

/// `word`, whose byte 6 is zero, with a check in that byte where there are copies: the other bytes together. Zero stays zero.
#[inline(always)]
pub(super) fn sealed(word: u64) -> u64 {
    if cfg!(feature = "malloc-debug") { word | check_of(word) } else { word }
}

/// What was sealed.
#[inline(always)]
pub(super) fn unsealed(word: u64) -> u64 {
    if cfg!(feature = "malloc-debug") { word & !(0xff << CHECK_SHIFT) } else { word }
}

/// Whether no single byte of a sealed word has changed, as far as can be told.
pub(super) fn is_sealed(word: u64) -> bool {
    sealed(unsealed(word)) == word || !cfg!(feature = "malloc-debug")
}

const CHECK_SHIFT: u32 = 48;

/// All bytes of `word` added up without carry, at the place of the check.
fn check_of(word: u64) -> u64 {
    let halves = word ^ word >> 32;
    let quarters = halves ^ halves >> 16;
    ((quarters ^ quarters >> 8) & 0xff) << CHECK_SHIFT
}

/// Any change of one word changes it.
fn sum(words: impl Iterator<Item = u64>) -> u64 {
    words.fold(1, |sum: u64, word| (sum.rotate_left(5) ^ word).wrapping_mul(copy::FACTOR))
}

/// Marks on blocks and runs that an audit has met.
pub(super) use copy::Marks;

mod copy {
    /// What the bits of a word are multiplied by, to be those of its copy: odd, so that no two words share a copy.
    pub(super) const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

    #[cfg(feature = "malloc-debug")]
    pub(in crate::heap) use on::{Bits, Marks};
    #[cfg(feature = "malloc-debug")]
    pub(super) use on::{Local, Shared};

    #[cfg(not(feature = "malloc-debug"))]
    pub(in crate::heap) use off::{Bits, Marks};
    #[cfg(not(feature = "malloc-debug"))]
    pub(super) use off::{Local, Shared};

    #[cfg(feature = "malloc-debug")]
    mod on {
        use super::FACTOR;
        use crate::fatal::{Fatal, die};
        use crate::sync::Relaxed;
        use crate::sync::mapped::AtomicU64;
        use core::cell::Cell;

        /// Zero for zero: memory of zeros is words of zero.
        fn shared_copy_of(bits: u64) -> u64 {
            bits.wrapping_mul(FACTOR)
        }

        /// What a value and its copy are made of. No two values share a copy.
        pub(in crate::heap) trait Bits: Copy + Eq {
            /// Not zero for zero: what is overwritten by zeros is seen, too.
            fn copy_of(self) -> Self;

            /// Whether one number is the copy of another.
            #[cfg(feature = "cli")]
            fn is_copy(word: u64, copy: u64) -> bool;
        }

        impl Bits for u32 {
            #[inline(always)]
            fn copy_of(self) -> Self {
                (self ^ FACTOR as Self).wrapping_mul(FACTOR as Self)
            }

            #[cfg(feature = "cli")]
            fn is_copy(word: u64, copy: u64) -> bool {
                (word as Self).copy_of() == copy as Self
            }
        }

        impl Bits for u64 {
            #[inline(always)]
            fn copy_of(self) -> Self {
                (self ^ FACTOR).wrapping_mul(FACTOR)
            }

            #[cfg(feature = "cli")]
            fn is_copy(word: u64, copy: u64) -> bool {
                word.copy_of() == copy
            }
        }

        #[derive(Debug)]
        pub(in crate::heap::kept) struct Local<B: Copy>(Cell<B>);

        impl Local<u64> {
            pub(in crate::heap::kept) const fn none() -> Self {
                Self(Cell::new(0))
            }
        }

        impl<B: Bits> Local<B> {
            pub(in crate::heap::kept) fn new(bits: impl FnOnce() -> B) -> Self {
                Self(Cell::new(bits().copy_of()))
            }

            pub(in crate::heap::kept) fn set(&self, bits: impl FnOnce() -> B) {
                self.0.set(bits().copy_of());
            }

            pub(in crate::heap::kept) fn agrees(&self, bits: impl FnOnce() -> B) -> bool {
                self.0.get() == bits().copy_of()
            }

            pub(in crate::heap::kept) fn insist(&self, bits: impl FnOnce() -> B) {
                if !self.agrees(bits) {
                    die(Fatal::Damaged);
                }
            }
        }

        #[derive(Debug, Default)]
        pub(in crate::heap::kept) struct Shared(AtomicU64);

        impl Shared {
            pub(in crate::heap::kept) fn set(&self, bits: impl FnOnce() -> u64) {
                self.0.store(shared_copy_of(bits()), Relaxed);
            }

            pub(in crate::heap::kept) fn agrees(&self, bits: impl FnOnce() -> u64) -> bool {
                self.0.load(Relaxed) == shared_copy_of(bits())
            }

            /// Whether one number is the copy of another.
            #[cfg(feature = "cli")]
            pub(in crate::heap::kept) fn is_copy(word: u64, copy: u64) -> bool {
                copy == shared_copy_of(word)
            }
        }

        #[derive(Debug, Default)]
        pub(in crate::heap) struct Marks(Cell<u64>);

        impl Marks {
            pub(in crate::heap) const fn new() -> Self {
                Self(Cell::new(0))
            }

            /// Takes all marks away.
            pub(in crate::heap) fn clear(&self) {
                self.0.set(0);
            }

            /// Marks `bit`; false if it was marked.
            pub(in crate::heap) fn mark(&self, bit: u32) -> bool {
                let old = self.0.get();
                self.0.set(old | 1 << bit);
                old >> bit & 1 == 0
            }
        }
    }

    /// No copies: nothing is ever found, and nothing is done.
    #[cfg(not(feature = "malloc-debug"))]
    mod off {
        use core::marker::PhantomData;

        pub(in crate::heap) trait Bits {
            #[cfg(feature = "cli")]
            fn is_copy(_: u64, _: u64) -> bool {
                true
            }
        }

        impl Bits for u32 {}
        impl Bits for u64 {}

        #[derive(Debug)]
        pub(in crate::heap::kept) struct Local<B>(PhantomData<B>);

        impl<B> Local<B> {
            pub(in crate::heap::kept) const fn none() -> Self {
                Self(PhantomData)
            }

            #[inline(always)]
            pub(in crate::heap::kept) fn new(_: impl FnOnce() -> B) -> Self {
                Self::none()
            }

            #[inline(always)]
            pub(in crate::heap::kept) fn set(&self, _: impl FnOnce() -> B) {}

            pub(in crate::heap::kept) fn agrees(&self, _: impl FnOnce() -> B) -> bool {
                true
            }

            #[inline(always)]
            pub(in crate::heap::kept) fn insist(&self, _: impl FnOnce() -> B) {}
        }

        #[derive(Debug, Default)]
        pub(in crate::heap::kept) struct Shared;

        impl Shared {
            #[inline(always)]
            pub(in crate::heap::kept) fn set(&self, _: impl FnOnce() -> u64) {}

            pub(in crate::heap::kept) fn agrees(&self, _: impl FnOnce() -> u64) -> bool {
                true
            }

            #[cfg(feature = "cli")]
            pub(in crate::heap::kept) fn is_copy(_: u64, _: u64) -> bool {
                true
            }
        }

        #[derive(Debug, Default)]
        pub(in crate::heap) struct Marks;

        impl Marks {
            pub(in crate::heap) const fn new() -> Self {
                Self
            }

            pub(in crate::heap) fn clear(&self) {}

            pub(in crate::heap) fn mark(&self, _: u32) -> bool {
                true
            }
        }
    }
}
