//! All slabs of a class, also those with no free block, which lie in no list of their own: for audits. Only with the feature
//! `malloc-debug`; without it a roster is nothing.

use super::slab::SlabRef;

/// The first slab of a roster, and what follows one whose record is intact.
pub(super) type Walk = (Option<SlabRef>, fn(SlabRef) -> Option<SlabRef>);

#[cfg(feature = "malloc-debug")]
pub(super) use on::{Neighbours, Roster};

#[cfg(not(feature = "malloc-debug"))]
pub(super) use off::{Neighbours, Roster};

#[cfg(feature = "malloc-debug")]
mod on {
    use super::{SlabRef, Walk};
    use crate::heap::kept::Kept;

    /// A slab's neighbours among all of its class.
    #[derive(Debug)]
    pub(in crate::heap) struct Neighbours {
        next: Kept<Option<SlabRef>>,
        prev: Kept<Option<SlabRef>>,
    }

    impl Neighbours {
        pub(in crate::heap) fn new() -> Self {
            Self { next: Kept::new(None), prev: Kept::new(None) }
        }

        pub(in crate::heap) fn is_intact(&self) -> bool {
            self.next.is_intact() && self.prev.is_intact()
        }
    }

    /// The first of them.
    #[derive(Debug)]
    pub(in crate::heap) struct Roster(Option<SlabRef>);

    impl Roster {
        pub(in crate::heap) const EMPTY: Self = Self(None);

        pub(in crate::heap) fn enter(&mut self, slab: SlabRef) {
            let next = self.0.replace(slab);
            slab.roster().next.set(next);
            slab.roster().prev.set(None);
            if let Some(next) = next {
                next.roster().prev.set(Some(slab));
            }
        }

        pub(in crate::heap) fn leave(&mut self, slab: SlabRef) {
            let (next, prev) = (slab.roster().next.get(), slab.roster().prev.get());
            if let Some(next) = next {
                next.roster().prev.set(prev);
            }
            match prev {
                Some(prev) => prev.roster().next.set(next),
                None => self.0 = next,
            }
        }

        /// `None` where no roster is kept.
        pub(in crate::heap) fn walk(&self) -> Option<Walk> {
            Some((self.0, |slab| slab.roster().next.get()))
        }
    }
}

#[cfg(not(feature = "malloc-debug"))]
mod off {
    use super::{SlabRef, Walk};

    #[derive(Debug)]
    pub(in crate::heap) struct Neighbours;

    impl Neighbours {
        pub(in crate::heap) fn new() -> Self {
            Self
        }

        pub(in crate::heap) fn is_intact(&self) -> bool {
            true
        }
    }

    #[derive(Debug)]
    pub(in crate::heap) struct Roster;

    impl Roster {
        pub(in crate::heap) const EMPTY: Self = Self;

        #[inline(always)]
        pub(in crate::heap) fn enter(&mut self, _: SlabRef) {}

        #[inline(always)]
        pub(in crate::heap) fn leave(&mut self, _: SlabRef) {}

        pub(in crate::heap) fn walk(&self) -> Option<Walk> {
            None
        }
    }
}
