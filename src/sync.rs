//! The door to atomics: the standard ones, or loom's when a model runs. No other file names them.

#[cfg(feature = "malloc-debug")]
pub(crate) use core::sync::atomic::AtomicU8;
#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};

/// Atomics in mapped memory. Loom's are no plain words: there a model sees the standard ones, and no order between them but
/// what locks and publications make.
pub(crate) mod mapped {
    pub(crate) use core::sync::atomic::AtomicU64;
}

#[cfg(feature = "malloc-debug")]
pub(crate) use core::sync::atomic::Ordering::SeqCst;
pub(crate) use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// Declares a function that is `const` wherever the atomics of this build have a `const` constructor
/// (loom's have none).
macro_rules! const_unless_loom {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) -> $ret:ty $body:block) => {
        #[cfg(not(loom))]
        $(#[$meta])* $vis const fn $name($($arg: $ty),*) -> $ret $body
        #[cfg(loom)]
        $(#[$meta])* $vis fn $name($($arg: $ty),*) -> $ret $body
    };
}
pub(crate) use const_unless_loom;

/// An array of `N` values, each made by the expression anew.
#[cfg(not(loom))]
macro_rules! array_of {
    ($value:expr) => {
        [const { $value }; _]
    };
}
#[cfg(loom)]
macro_rules! array_of {
    ($value:expr) => {
        core::array::from_fn(|_| $value)
    };
}
pub(crate) use array_of;

/// Adds to a counter that only this thread writes.
pub(crate) fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed) + by, Relaxed);
}
