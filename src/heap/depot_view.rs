//! The depot in a heap's file, for who reads it from outside.

use super::{Chunk, ChunkRef, Depot, Heads, LISTS};
use crate::heap::list::List;
use crate::image::{Image, Plain, field};
use core::mem::offset_of;
use std::vec::Vec;

impl Plain for Option<ChunkRef> {
    const BYTES: usize = size_of::<Self>();
}

/// The bytes of a chunk.
pub(crate) const CHUNK_BYTES: usize = ChunkRef::BYTES;

/// The first block of a list, and the pages that it lies in.
pub(crate) type Head = (usize, u32);

/// A copy of one class's depot.
pub(crate) type DepotView = Image<Depot>;

impl Image<Depot> {
    /// Lists in its own array, as it says.
    pub(crate) fn len(&self) -> usize {
        self.address(field!(Depot, len))
    }

    /// The lists of its array.
    pub(crate) fn lists(&self) -> Vec<Head> {
        heads(self, offset_of!(Depot, lists), self.len())
    }

    /// The first of the full chunks, and of the empty ones; 0 if there is none.
    pub(crate) fn older(&self) -> usize {
        self.address(field!(Depot, older))
    }

    pub(crate) fn spare(&self) -> usize {
        self.address(field!(Depot, spare))
    }

    /// Lists and pages that it counts.
    pub(crate) fn count(&self) -> u32 {
        self.get_u32(field!(Depot, count))
    }

    pub(crate) fn pages(&self) -> u32 {
        self.get_u32(field!(Depot, pages))
    }

    /// The first of the odd blocks, how many there are, and their pages.
    pub(crate) fn odd(&self) -> (usize, u32, u32) {
        let ((head, len), at) = (List::fields(), offset_of!(Depot, odd));
        let pages = self.get_u32(field!(Depot, odd_pages));
        (self.address(head.inside(at)), self.get_u32(len.inside(at)), pages)
    }

    /// Blocks in it, with lists of `target`.
    pub(crate) fn blocks(&self, target: u32) -> u64 {
        u64::from(self.count()) * u64::from(target) + u64::from(self.odd().1)
    }

    /// Lists handed up, and taken in.
    pub(crate) fn traffic(&self) -> [u64; 2] {
        [field!(Depot, handed_up), field!(Depot, taken_in)].map(|field| self.get(field))
    }
}

/// A copy of a chunk.
pub(crate) type ChunkView = Image<Chunk>;

impl Image<Chunk> {
    /// Its lists.
    pub(crate) fn lists(&self) -> Vec<Head> {
        heads(self, offset_of!(Chunk, lists), LISTS)
    }

    /// The next one.
    pub(crate) fn older(&self) -> usize {
        self.address(field!(Chunk, older))
    }
}

/// The lists of an array that lies at `at` in a record.
fn heads<R>(image: &Image<R>, at: usize, len: usize) -> Vec<Head> {
    let (heads, pages) = (field!(Heads, heads).inside(at), field!(Heads, pages).inside(at));
    (0..len.min(LISTS)).map(|list| (image.nth(heads, list) as usize, image.nth(pages, list) as u32)).collect()
}
