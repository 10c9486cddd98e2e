//! Records as they lie in the file of a shared heap, for who reads it from outside: copies of their words, found where this
//! build has its fields. Nothing in an image is a reference, and nothing of it is believed: it is numbers.

use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, fence_loads};
use core::cell::Cell;
use core::marker::PhantomData;
use core::ptr::NonNull;
use std::vec::Vec;

/// Where the words come from: a heap's file, by the addresses that its processes have it at.
pub(crate) trait Words {
    /// Copies the words from `at` on; false, and nothing is known of them, if they are not all in the file. What has no room in
    /// the file reads zero.
    fn copy(&self, at: usize, into: &mut [u64]) -> bool;

    /// The first address from `at` on behind which there may be anything but zeros; the end of the heap if there is none.
    fn next_there(&self, at: usize) -> usize;

    /// The word at `at`; 0 if that is not in the file.
    fn word(&self, at: usize) -> u64 {
        let mut word = [0];
        if self.copy(at, &mut word) { word[0] } else { 0 }
    }
}

/// What a field may be made of: a number, or an array of them, whatever is around it.
pub(crate) trait Plain {
    /// Bytes of the number, or of one of them.
    const BYTES: usize;
    /// Where it begins in the field.
    const AT: usize = 0;
    /// From one to the next.
    const STEP: usize = 0;

    /// Whether the number that begins at `at` in some words is what was set, as far as can be told.
    fn is_intact(words: &[u64], at: usize) -> bool {
        let _ = (words, at);
        true
    }
}

macro_rules! plain {
    ($($kind:ty),* $(,)?) => {
        $(impl Plain for $kind {
            const BYTES: usize = size_of::<$kind>();
        })*
    };
}
plain!(u8, u16, u32, i32, u64, usize, AtomicU32, AtomicU64, AtomicUsize);

impl<T> Plain for Option<NonNull<T>> {
    const BYTES: usize = size_of::<Self>();
}

impl<T> Plain for AtomicPtr<T> {
    const BYTES: usize = size_of::<Self>();
}

impl<T: Plain> Plain for Cell<T> {
    const BYTES: usize = T::BYTES;
    const AT: usize = T::AT;
    const STEP: usize = T::STEP;
}

impl<T: Plain, const N: usize> Plain for [T; N] {
    const BYTES: usize = T::BYTES;
    const AT: usize = T::AT;
    const STEP: usize = size_of::<T>();

    fn is_intact(words: &[u64], at: usize) -> bool {
        (0..N).all(|index| T::is_intact(words, at + index * Self::STEP))
    }
}

/// Where a field lies in a record of type `R`.
#[derive(Debug)]
pub(crate) struct Field<R> {
    at: usize,
    bytes: usize,
    step: usize,
    is_intact: fn(&[u64], usize) -> bool,
    record: PhantomData<fn() -> R>,
}

impl<R> Clone for Field<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Field<R> {}

impl<R> Field<R> {
    /// For `field!`: the field at `at`, of the type that the second argument says.
    pub(crate) const fn new<F: Plain>(at: usize, _: fn(&R) -> &F) -> Self {
        Self { at: at + F::AT, bytes: F::BYTES, step: F::STEP, is_intact: F::is_intact, record: PhantomData }
    }

    /// The same field, of a record that lies in another one, at `at` there.
    pub(crate) const fn inside<Outer>(self, at: usize) -> Field<Outer> {
        Field { at: self.at + at, bytes: self.bytes, step: self.step, is_intact: self.is_intact, record: PhantomData }
    }

    /// Whether the number in it is what was set, as far as can be told, in a record that begins at `at` in some words.
    pub(crate) fn intact_in(self, words: &[u64], at: usize) -> bool {
        (self.is_intact)(words, at + self.at)
    }

    /// Where it begins.
    pub(crate) const fn at(self) -> usize {
        self.at
    }
}

/// The field of a record: `field!(Record, name)`. So none is read as what it is not, however this build lays it out.
macro_rules! field {
    ($record:ty, $name:tt) => {
        $crate::image::Field::<$record>::new(core::mem::offset_of!($record, $name), |record: &$record| &record.$name)
    };
}
pub(crate) use field;

/// A copy of the words of a record of type `R`.
#[derive(Debug)]
pub(crate) struct Image<R> {
    words: Vec<u64>,
    record: PhantomData<fn() -> R>,
}

impl<R> PartialEq for Image<R> {
    fn eq(&self, other: &Self) -> bool {
        self.words == other.words
    }
}

impl<R> Image<R> {
    /// Copies the record at `at`; `None` if it is not in the file.
    pub(crate) fn take(from: &dyn Words, at: usize) -> Option<Self> {
        copy(from, at, size_of::<R>().div_ceil(8)).map(|words| Self { words, record: PhantomData })
    }

    /// The number in a field.
    pub(crate) fn get(&self, field: Field<R>) -> u64 {
        self.nth(field, 0)
    }

    /// The number in place `index` of a field that is an array; 0 behind the record's end.
    pub(crate) fn nth(&self, field: Field<R>, index: usize) -> u64 {
        number(&self.words, field.at + index * field.step, field.bytes)
    }

    /// Whether the numbers in some fields are what was set, as far as can be told.
    pub(crate) fn are_intact(&self, fields: &[Field<R>]) -> bool {
        fields.iter().all(|field| field.intact_in(&self.words, 0))
    }

    /// The number in a field, of 32 bits at the most.
    pub(crate) fn get_u32(&self, field: Field<R>) -> u32 {
        self.get(field) as u32
    }

    /// The address in a field.
    pub(crate) fn address(&self, field: Field<R>) -> usize {
        self.get(field) as usize
    }
}

/// Copies `count` words from `at` on; `None` if they are not all in the file.
pub(crate) fn copy(from: &dyn Words, at: usize, count: usize) -> Option<Vec<u64>> {
    let mut words = std::vec![0; count];
    let all = from.copy(at, &mut words);
    fence_loads();
    all.then_some(words)
}

/// The number of `bytes` bytes at `at` in some words; 0 behind their end.
pub(crate) fn number(words: &[u64], at: usize, bytes: usize) -> u64 {
    let word = words.get(at / 8).copied().unwrap_or(0).to_ne_bytes();
    let part = word.get(at % 8..at % 8 + bytes).unwrap_or(&[]);
    let mut number = [0; 8];
    let from = if cfg!(target_endian = "big") { 8 - part.len() } else { 0 };
    number[from..from + part.len()].copy_from_slice(part);
    u64::from_ne_bytes(number)
}
