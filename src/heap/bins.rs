//! Free runs in order: the smallest that fits, and the lowest address among equals.
//!
//! Runs below 512 pages have a bin for each length, longer ones a bin for each doubling; a bitmap says which bins are
//! filled. A bin is a digital trie over the key (length, page): a node's left descendants have a 0 and its right ones a 1
//! in the bit of its depth, and the node itself may have any key with its path's bits. It needs no balancing, and every
//! operation takes at most as many steps as the key has bits that can differ (32 for equal lengths), O(log n) for runs
//! spread over the heap. Nodes are the records in the page map; bytes of free pages are not touched.

use super::map::{Entry, Map, Page};

/// Lengths with a bin of their own: below this.
const EXACT: u32 = 512;
/// Bins: one for each length below `EXACT` (bin 0 stays empty), and one for each doubling from there on.
const BINS: usize = EXACT as usize + 32 - EXACT.ilog2() as usize;
const WORDS: usize = BINS.div_ceil(64);

/// The free runs of a heap, by length and address.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Bins {
    /// The root of each bin's trie, or 0.
    roots: [Page; BINS],
    /// Bit `i` is set iff bin `i` has a root.
    filled: [u64; WORDS],
}

/// The bin for runs of `pages` pages.
pub(crate) const fn bin_of(pages: u32) -> usize {
    if pages < EXACT { pages as usize } else { (EXACT - EXACT.ilog2() + pages.ilog2()) as usize }
}

/// The highest bit in which two keys of the bin for runs of `pages` pages can differ.
pub(crate) const fn top_bit(pages: u32) -> u32 {
    if pages < EXACT { 31 } else { 31 + pages.ilog2() }
}

/// What runs are ordered by.
pub(crate) const fn key(page: Page, pages: u32) -> u64 {
    (pages as u64) << 32 | page as u64
}

/// Bit `bit` of `key`; 0 below its last.
const fn side(key: u64, bit: u32) -> usize {
    if bit < 64 { (key >> bit & 1) as usize } else { 0 }
}

fn key_of(map: &Map, page: Page) -> u64 {
    match map.entry(page) {
        Entry::Free(pages) => key(page, pages),
        _ => u64::MAX,
    }
}

impl Bins {
    /// No run.
    pub(crate) const EMPTY: Self = Self { roots: [0; BINS], filled: [0; WORDS] };

    fn root(&self, bin: usize) -> Page {
        self.roots.get(bin).copied().unwrap_or(0)
    }

    fn set_root(&mut self, bin: usize, page: Page) {
        if let (Some(root), Some(word)) = (self.roots.get_mut(bin), self.filled.get_mut(bin / 64)) {
            *root = page;
            let bit = 1 << (bin % 64);
            *word = if page == 0 { *word & !bit } else { *word | bit };
        }
    }

    /// Adds the free run at `page`, whose entry says that it has `pages` pages.
    pub(crate) fn insert(&mut self, map: &Map, page: Page, pages: u32) {
        let (bin, key) = (bin_of(pages), key(page, pages));
        let node = map.free_run(page);
        node.child[0].set(0);
        node.child[1].set(0);
        let (mut parent, mut at, mut bit, mut turn) = (0, self.root(bin), top_bit(pages), 0);
        while at != 0 {
            turn = side(key, bit);
            bit = bit.wrapping_sub(1);
            parent = at;
            at = map.free_run(at).child[turn].get();
        }
        node.parent.set(parent);
        if parent == 0 { self.set_root(bin, page) } else { map.free_run(parent).child[turn].set(page) }
    }

    /// Takes the free run at `page`, of `pages` pages, out.
    pub(crate) fn remove(&mut self, map: &Map, page: Page, pages: u32) {
        let heir = detach_leaf(map, page);
        let node = map.free_run(page);
        let parent = node.parent.get();
        if heir != 0 {
            let record = map.free_run(heir);
            record.parent.set(parent);
            for turn in 0..2 {
                let child = node.child[turn].get();
                record.child[turn].set(child);
                if child != 0 {
                    map.free_run(child).parent.set(heir);
                }
            }
        }
        if parent == 0 { self.set_root(bin_of(pages), heir) } else { replace_child(map, parent, page, heir) }
    }

    /// The smallest free run of at least `pages` pages, the one of the lowest address among equals, and its length.
    pub(crate) fn best_fit(&self, map: &Map, pages: u32) -> Option<(Page, u32)> {
        let mut bin = bin_of(pages);
        if pages >= EXACT {
            let found = at_least(map, self.root(bin), top_bit(pages), key(0, pages));
            if let Some(found) = found {
                return Some(found);
            }
            bin += 1;
        }
        let root = self.root(self.next_filled(bin)?);
        split_key(least(map, root))
    }

    /// The first filled bin from `bin` on.
    fn next_filled(&self, bin: usize) -> Option<usize> {
        let first = self.filled.get(bin / 64)? & (u64::MAX << (bin % 64));
        if first != 0 {
            return Some(bin / 64 * 64 + first.trailing_zeros() as usize);
        }
        let rest = self.filled.iter().enumerate().skip(bin / 64 + 1);
        rest.map(|(at, word)| (at, *word))
            .find(|(_, word)| *word != 0)
            .map(|(at, word)| at * 64 + word.trailing_zeros() as usize)
    }
}

fn split_key(key: u64) -> Option<(Page, u32)> {
    (key != u64::MAX).then_some((key as Page, (key >> 32) as u32))
}

fn replace_child(map: &Map, parent: Page, old: Page, new: Page) {
    let [left, right] = &map.free_run(parent).child;
    if left.get() == old {
        left.set(new)
    } else if right.get() == old {
        right.set(new)
    }
}

/// Any child of `page`, or 0.
fn some_child(map: &Map, page: Page) -> Page {
    let [left, right] = &map.free_run(page).child;
    if left.get() != 0 { left.get() } else { right.get() }
}

/// Takes a leaf from below `page` out of its place and returns it; 0 if `page` is a leaf itself.
fn detach_leaf(map: &Map, page: Page) -> Page {
    let mut leaf = some_child(map, page);
    if leaf == 0 {
        return 0;
    }
    loop {
        let below = some_child(map, leaf);
        if below == 0 {
            break;
        }
        leaf = below;
    }
    replace_child(map, map.free_run(leaf).parent.get(), leaf, 0);
    leaf
}

/// The least key from `page` down: left descendants are less than right ones, and only the nodes on the way may be less
/// than both.
fn least(map: &Map, page: Page) -> u64 {
    let (mut best, mut at) = (u64::MAX, page);
    while at != 0 {
        best = best.min(key_of(map, at));
        at = some_child(map, at);
    }
    best
}

/// The least run from `root` down whose key is at least `bound`.
fn at_least(map: &Map, root: Page, top: u32, bound: u64) -> Option<(Page, u32)> {
    let (mut best, mut at, mut bit, mut greater) = (u64::MAX, root, top, 0);
    while at != 0 {
        let key = key_of(map, at);
        if key >= bound {
            best = best.min(key);
        }
        let node = map.free_run(at);
        let turn = side(bound, bit);
        // All keys right of the path are greater than the bound; those of the last such subtree are the least.
        if turn == 0 && node.child[1].get() != 0 {
            greater = node.child[1].get();
        }
        at = node.child[turn].get();
        bit = bit.wrapping_sub(1);
    }
    split_key(best.min(least(map, greater)))
}

#[path = "bins_audit.rs"]
mod audit;

#[cfg(all(test, not(loom)))]
#[path = "bins_tests.rs"]
mod tests;

#[cfg(all(feature = "cli", not(loom)))]
#[path = "bins_view.rs"]
pub(super) mod view;
