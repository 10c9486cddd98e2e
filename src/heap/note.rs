//! Where a thread notes a list that it has in hand: one that has left a place and has not come to the next.
//!
//! Only heaps that processes share have notes, in the heap's own memory: if a process dies, whoever mends the heap finds what
//! its threads had in hand. A note is written before the list leaves a place, and is taken away once the next one has it, so
//! that for moments a list is in both, and never in none. Without the feature `shared` a note is nothing.

/// The keeper of what no thread of a shared heap keeps.
pub(super) const NOBODY: u32 = 0;
/// Beside the keeper of a run: it is a user's, or is to be, and counts as lent.
pub(super) const OF_USER: u32 = 1 << 11;

#[cfg(feature = "shared")]
pub(super) use on::{Chain, Kind};

#[cfg(feature = "shared")]
pub(crate) use on::Note;

#[cfg(not(feature = "shared"))]
pub(crate) use off::Note;

#[cfg(feature = "shared")]
mod on {
    use crate::heap::class::{CLASSES, Class};
    use crate::heap::list::Block;
    use crate::sync::{AtomicPtr, AtomicU32, Relaxed, in_order};
    use core::ptr::{NonNull, null_mut};

    /// What a list is of.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(in crate::heap) enum Kind {
        /// Blocks of a class.
        Blocks(Class),
        /// Runs of so many pages.
        Runs(usize),
    }

    impl Kind {
        fn code(self) -> u32 {
            match self {
                Self::Blocks(class) => 1 + class.index() as u32,
                Self::Runs(pages) => (CLASSES + pages) as u32,
            }
        }

        fn of(code: u32) -> Option<Self> {
            let index = code.checked_sub(1)? as usize;
            Some(match Class::all().nth(index) {
                Some(class) => Self::Blocks(class),
                None => Self::Runs(index + 1 - CLASSES),
            })
        }
    }

    /// A place for one note. All zero bits are an empty one.
    #[derive(Debug)]
    #[repr(C)]
    pub(in crate::heap) struct Chain {
        /// 0 if nothing is noted.
        kind: AtomicU32,
        head: AtomicPtr<u8>,
    }

    // Relaxed throughout: one thread writes it, and who reads it after its death comes behind a lock.
    impl Chain {
        pub(in crate::heap) const fn new() -> Self {
            Self { kind: AtomicU32::new(0), head: AtomicPtr::new(null_mut()) }
        }

        pub(in crate::heap) fn is_empty(&self) -> bool {
            self.kind.load(Relaxed) == 0
        }

        /// Notes the list from `head` on.
        pub(in crate::heap) fn write(&self, kind: Kind, head: Block) -> Note {
            self.head.store(head.as_ptr(), Relaxed);
            in_order();
            self.kind.store(kind.code(), Relaxed);
            in_order();
            Note(Some(NonNull::from(self)))
        }

        pub(in crate::heap) fn clear(&self) {
            in_order();
            self.kind.store(0, Relaxed);
            in_order();
        }

        /// What is noted.
        pub(in crate::heap) fn read(&self) -> Option<(Kind, Option<Block>)> {
            let kind = Kind::of(self.kind.load(Relaxed))?;
            // SAFETY: the thread that wrote it had the block in hand, and is dead.
            let block = |at| unsafe { Block::from_raw(at) };
            Some((kind, NonNull::new(self.head.load(Relaxed)).map(block)))
        }
    }

    /// The note of a list, if it has one.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Note(Option<NonNull<Chain>>);

    // SAFETY: only the thread that has the list in hand uses it.
    unsafe impl Send for Note {}

    impl Note {
        pub(crate) const NONE: Self = Self(None);

        /// The list begins with `head` now: what was before that has come to another place.
        #[inline]
        pub(in crate::heap) fn move_to(self, head: Option<Block>) {
            if let Some(chain) = self.0 {
                // SAFETY: a hand stays where it is while its thread has a list.
                let chain = unsafe { chain.as_ref() };
                match head {
                    Some(head) => {
                        in_order();
                        chain.head.store(head.as_ptr(), Relaxed);
                        in_order();
                    }
                    None => chain.clear(),
                }
            }
        }
    }
}

#[cfg(not(feature = "shared"))]
mod off {
    use crate::heap::list::Block;

    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Note;

    impl Note {
        pub(crate) const NONE: Self = Self;

        #[inline(always)]
        pub(in crate::heap) fn move_to(self, _: Option<Block>) {}
    }
}
