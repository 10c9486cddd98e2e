//! Layer 2: the paper's global layer, a list of lists per class.
//!
//! A list goes in and out whole, by one store, and is never walked under the lock. What the depot may hold is bounded
//! in the pages its blocks lie in, so that it pins little memory however its lists are scattered: a list that is spread
//! over many pages is refused, and the caller sorts it into its slabs. The blocks of threads that have ended, too few
//! for a list, wait in `odd` until `target` of them are together.

use super::class::CLASSES;
use super::list::{Block, List};

/// Bytes of pages that the blocks of all depots lie in, at the most.
const DEPOT_BYTES: usize = 2 << 20;

/// Pages of `1 << page_shift` bytes that the blocks of all depots lie in, at the most.
pub(crate) const fn pages_max(page_shift: u32) -> u32 {
    (DEPOT_BYTES >> page_shift) as u32
}

/// Pages that the blocks of one class's depot lie in, at the most.
const fn class_pages_max(page_shift: u32) -> u32 {
    pages_max(page_shift) / CLASSES as u32
}

/// Lists in one class's depot, at the most.
const LISTS_MAX: usize = 48;
/// A list is kept whole if it lies in at most one page for so many of its blocks, or in two pages.
const BLOCKS_PER_PAGE: u32 = 4;

/// One class's depot.
#[derive(Debug)]
pub(crate) struct Depot {
    /// Lists of exactly `target` blocks, the newest last, each with the pages it lies in at the most.
    lists: [Option<(Block, u32)>; LISTS_MAX],
    len: usize,
    /// The sum of the pages of `lists` and of `odd`; at most `class_pages_max`.
    pages: u32,
    /// Fewer than `target` blocks, and the pages they lie in at the most.
    odd: List,
    odd_pages: u32,
    /// Lists handed up, lists taken in.
    pub(crate) handed_up: u64,
    pub(crate) taken_in: u64,
}

impl Depot {
    /// A depot without lists.
    pub(crate) const EMPTY: Self =
        Self { lists: [None; LISTS_MAX], len: 0, pages: 0, odd: List::EMPTY, odd_pages: 0, handed_up: 0, taken_in: 0 };

    /// Whether a list of `len` blocks in `pages` pages is worth keeping whole.
    pub(crate) const fn is_compact(len: u32, pages: u32) -> bool {
        pages <= 2 || pages * BLOCKS_PER_PAGE <= len
    }

    /// Takes in a list of `target` blocks that lies in `pages` pages, if there is room. O(1).
    pub(crate) fn put(&mut self, list: List, pages: u32, page_shift: u32) -> Result<(), List> {
        if self.len == LISTS_MAX || self.pages + pages > class_pages_max(page_shift) {
            return Err(list);
        }
        let (head, _) = list.into_parts();
        self.lists[self.len] = head.map(|head| (head, pages));
        self.len += 1;
        self.pages += pages;
        self.taken_in += 1;
        Ok(())
    }

    /// Hands out the newest list, of `target` blocks. O(1).
    pub(crate) fn take(&mut self, target: u32) -> Option<List> {
        let newest = self.len.checked_sub(1)?;
        let (head, pages) = self.lists[newest].take()?;
        self.len = newest;
        self.pages -= pages;
        self.handed_up += 1;
        Some(List::from_parts(Some(head), target))
    }

    /// Takes all odd blocks out, to be put together with others outside the lock. O(1).
    pub(crate) fn take_odd(&mut self) -> List {
        self.pages -= core::mem::take(&mut self.odd_pages);
        core::mem::replace(&mut self.odd, List::EMPTY)
    }

    /// Lets `odd`, which lies in `pages` pages, wait for others, if there is room and nobody else's wait already. O(1).
    pub(crate) fn put_odd(&mut self, odd: List, pages: u32, page_shift: u32) -> Result<(), List> {
        if !self.odd.is_empty() || self.pages + pages > class_pages_max(page_shift) {
            return Err(odd);
        }
        self.pages += pages;
        self.odd_pages = pages;
        self.odd = odd;
        Ok(())
    }

    /// Hands out one odd block.
    pub(crate) fn pop_odd(&mut self) -> Option<Block> {
        let block = self.odd.pop()?;
        if self.odd.is_empty() {
            self.pages -= core::mem::take(&mut self.odd_pages);
        }
        Some(block)
    }

    /// Pages that the blocks here lie in, at the most.
    pub(crate) const fn pages(&self) -> u32 {
        self.pages
    }

    /// Blocks in the depot, with lists of `target`.
    pub(crate) fn blocks(&self, target: u32) -> u64 {
        self.len as u64 * u64::from(target) + u64::from(self.odd.len())
    }
}
