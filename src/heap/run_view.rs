//! The free runs in a heap's file, for who reads it from outside.

use super::{Queue, Runs};
use crate::heap::bins::{Bins, view};
use crate::heap::map::Page;
use crate::image::{Image, field};
use core::mem::offset_of;

pub(crate) use view::{bin_of, key, top_bit};

/// A copy of what there is to know about all runs.
pub(crate) type RunsView = Image<Runs>;

impl Image<Runs> {
    /// The root of each bin, or 0, and whether the bin is marked as filled.
    pub(crate) fn bins(&self) -> impl Iterator<Item = (Page, bool)> {
        let at = offset_of!(Runs, bins);
        let filled = move |bin: usize| self.nth(view::FILLED.inside(at), bin / 64) >> (bin % 64) & 1 == 1;
        (0..Bins::COUNT).map(move |bin| (self.nth(view::ROOTS.inside(at), bin) as Page, filled(bin)))
    }

    /// The ends of the queue of runs to purge. (The other one is for granules, of which there are none.)
    pub(crate) fn queue(&self) -> (Page, Page) {
        let ends = [field!(Queue, oldest), field!(Queue, newest)];
        let [oldest, newest] = ends.map(|end| self.get_u32(end.inside(offset_of!(Runs, dirty))));
        (oldest, newest)
    }

    pub(crate) fn free_pages(&self) -> u64 {
        self.get(field!(Runs, free_pages))
    }

    pub(crate) fn dirty_pages(&self) -> u64 {
        self.get(field!(Runs, dirty_pages))
    }

    pub(crate) fn mapped_pages(&self) -> u64 {
        self.get(field!(Runs, mapped_pages))
    }

    /// Runs handed out and taken back, grown in place, spans, purged pages.
    pub(crate) fn traffic(&self) -> [u64; 5] {
        [
            field!(Runs, allocs),
            field!(Runs, frees),
            field!(Runs, grown_in_place),
            field!(Runs, spans),
            field!(Runs, purged_pages),
        ]
        .map(|field| self.get(field))
    }
}
