//! Broken twins, for our own tests only: each breaks one promise on purpose, so that the promise's test can show that it
//! would notice. Outside of tests `is` is a constant, and nothing of this is left.

use crate::heap::List;

/// A promise broken on purpose, named after its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[cfg_attr(not(test), allow(dead_code, reason = "named in code that only tests switch on"))]
pub(crate) enum Twin {
    /// A cache that overflows gives everything away.
    G2 = 2,
    /// Lists leave the depot one block short.
    G3 = 3,
    /// Whole slabs stay where they are.
    G4 = 4,
    /// A split run keeps its old length in the page map.
    G5 = 5,
    /// A thread's end gives nothing back.
    G11 = 11,
    /// Fork does not wait for the locks.
    G12 = 12,
    /// A refused realloc frees the old block.
    G13 = 13,
    /// The idle bound is not kept.
    G14 = 14,
    /// A leaf of the page map takes the place of another thread's.
    Leaf = 101,
    /// An opened heap is not published.
    Open = 102,
    /// The end of a callback's call is not published.
    #[cfg(feature = "hooks")]
    Told = 103,
}

#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn is(_: Twin) -> bool {
    false
}

#[cfg(test)]
pub(crate) use switch::is;
#[cfg(all(test, feature = "std"))]
pub(crate) use switch::set;

/// A list on its way out of the depot.
#[inline(always)]
pub(crate) fn shorten(mut list: List) -> List {
    if is(Twin::G3) {
        let _ = list.pop();
    }
    list
}

#[cfg(all(test, not(loom)))]
mod switch {
    use super::Twin;
    use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

    /// The number of the broken row, 0 for none: of the whole process, so twins run in processes of their own.
    static BROKEN: AtomicU8 = AtomicU8::new(0);

    pub(crate) fn is(twin: Twin) -> bool {
        BROKEN.load(Relaxed) == twin as u8
    }

    pub(crate) fn set(row: u8) {
        BROKEN.store(row, Relaxed);
    }
}

#[cfg(all(test, loom))]
mod switch {
    use super::Twin;
    use core::cell::Cell;

    std::thread_local! {
        /// The number of the broken promise, 0 for none: of a model, all of whose threads are one thread of the system's.
        static BROKEN: Cell<u8> = const { Cell::new(0) };
    }

    pub(crate) fn is(twin: Twin) -> bool {
        BROKEN.get() == twin as u8
    }

    pub(crate) fn set(row: u8) {
        BROKEN.set(row);
    }
}
