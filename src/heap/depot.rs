//! Layer 2: the paper's global layer, a list of lists per class.
//!
//! A list goes in and out whole, by one store, and is never walked under the lock. The caller brings lists that lie in few
//! pages, or whose blocks are large; others it sorts into their slabs, which repairs their order. The depot
//! keeps as many lists as come while there is a purger, who sorts those that nobody wanted for a while; without one it is
//! bounded in the pages its blocks lie in. The blocks of threads that have ended, too few for a list, wait in `odd` until
//! `target` of them are together.
//!
//! The newest lists are in an array; when that is full, all of it goes to a chunk, memory of the heap's records, and
//! comes back when the array is empty.

use super::class::CLASSES;
use super::kept::Seal;
use super::list::{Block, List};
use crate::sync::{in_order, step};
use core::ptr::NonNull;

/// Bytes of pages that the blocks of all depots lie in, at the most.
const DEPOT_BYTES: usize = 2 << 20;

/// Pages of `1 << page_shift` bytes that the blocks of all depots lie in, at the most.
pub(crate) const fn pages_max(page_shift: u32) -> u32 {
    (DEPOT_BYTES >> page_shift) as u32
}

/// Pages that the blocks of one class's depot lie in, at the most, where no purger comes.
pub(crate) const fn class_pages_max(page_shift: u32) -> u32 {
    pages_max(page_shift) / CLASSES as u32
}

/// Lists in the array, and in a chunk.
const LISTS: usize = 48;
/// A list is kept whole if it lies in at most one page for so many of its blocks, or in two pages.
const BLOCKS_PER_PAGE: u32 = 2;

/// The heads of lists of exactly `target` blocks, and the pages that each lies in: about, or at the most, as the caller says.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Heads {
    heads: [Option<Block>; LISTS],
    /// Some pages for each block of a list, so no more than this can say.
    pages: [u16; LISTS],
}

impl Heads {
    const EMPTY: Self = Self { heads: [None; LISTS], pages: [0; LISTS] };

    /// The lists, the oldest first.
    fn iter(&self) -> impl Iterator<Item = (Option<Block>, u32)> {
        self.heads.iter().copied().zip(self.pages.iter().map(|pages| u32::from(*pages)))
    }
}

/// A full array of lists that are older than those of the depot's own array.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Chunk {
    lists: Heads,
    older: Option<ChunkRef>,
    /// That it is a chunk: its address, and more.
    #[cfg(feature = "shared")]
    mark: usize,
    /// On `lists` and `older`.
    seal: Seal,
}

impl Chunk {
    /// The words to seal.
    fn words(&self) -> impl Iterator<Item = u64> {
        let address = |head: Block| head.address() as u64;
        let lists = self.lists.iter().flat_map(move |(head, pages)| [head.map_or(0, address), u64::from(pages)]);
        lists.chain([self.older.map_or(0, |chunk| chunk.address() as u64)])
    }
}

/// A chunk by its address. Chunks are never unmapped while their heap lives.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct ChunkRef(NonNull<Chunk>);

// SAFETY: a chunk belongs to one depot, and is reached under its lock.
unsafe impl Send for ChunkRef {}

impl ChunkRef {
    /// Bytes of a chunk.
    pub(crate) const BYTES: usize = size_of::<Chunk>().next_multiple_of(64);

    /// The chunk at `at`.
    ///
    /// # Safety
    /// - `at` is aligned to 64 and has `BYTES` bytes that nobody else uses, as long as the heap lives.
    pub(crate) unsafe fn create(at: NonNull<u8>) -> Self {
        let chunk = Self(at.cast());
        // SAFETY: the caller gives the memory.
        unsafe {
            chunk.0.write(Chunk {
                lists: Heads::EMPTY,
                older: None,
                #[cfg(feature = "shared")]
                mark: chunk.mark(),
                seal: Seal::none(),
            });
        };
        chunk.write(|_| ());
        chunk
    }

    /// What tells that memory is this chunk, and not something else of a damaged file.
    #[cfg(feature = "shared")]
    fn mark(self) -> usize {
        self.address() ^ 0x4348_554e_4b00
    }

    #[cfg(feature = "shared")]
    fn is_marked(self) -> bool {
        self.with(|memory| memory.mark == self.mark())
    }

    fn address(self) -> usize {
        self.0.as_ptr() as usize
    }

    fn with<R>(self, look: impl FnOnce(&Chunk) -> R) -> R {
        // SAFETY: `create` wrote the chunk; the lock of its depot is held.
        look(unsafe { self.0.as_ref() })
    }

    /// Lets `section` write the chunk.
    fn write<R>(mut self, section: impl FnOnce(&mut Chunk) -> R) -> R {
        // SAFETY: `create` wrote the chunk; the lock of its depot is held, and `section` gets no other reference to it.
        let chunk = unsafe { self.0.as_mut() };
        let result = section(chunk);
        step();
        chunk.seal.renew(|| chunk.words());
        result
    }
}

/// Why a list was not taken in.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Its pages would go beyond the bound.
    NoRoom(List),
    /// The array is full, and there is no chunk for it: `add_chunk` first.
    NoChunk(List),
}

/// One class's depot. A list leaves the array by the store that empties its place, so that no place of the array, nor of a chunk
/// among the full ones, ever has a list that is elsewhere: whoever mends the heap finds every list there.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Depot {
    /// The newest lists, the last one of them last.
    lists: Heads,
    len: usize,
    /// Full chunks, the newest first, and empty ones.
    older: Option<ChunkRef>,
    spare: Option<ChunkRef>,
    /// Lists here, and the fewest since the purger last looked.
    pub(crate) count: u32,
    low_count: u32,
    /// The sum of the pages of all lists and of `odd`.
    pages: u32,
    /// Fewer than `target` blocks, and the pages they lie in, as the caller says.
    odd_pages: u32,
    odd: List,
    /// Lists handed up, lists taken in.
    pub(crate) handed_up: u64,
    pub(crate) taken_in: u64,
}

impl Depot {
    /// A depot without lists.
    pub(crate) const EMPTY: Self = Self {
        lists: Heads::EMPTY,
        len: 0,
        older: None,
        spare: None,
        count: 0,
        low_count: 0,
        pages: 0,
        odd: List::EMPTY,
        odd_pages: 0,
        handed_up: 0,
        taken_in: 0,
    };

    /// The most pages that a list of `len` blocks may lie in to be kept whole.
    pub(crate) const fn compact_pages(len: u32) -> u32 {
        if len / BLOCKS_PER_PAGE > 2 { len / BLOCKS_PER_PAGE } else { 2 }
    }

    /// Takes in a list of `target` blocks that lies in `pages` pages, if with it no more than `pages_max` pages are
    /// pinned. O(1): at times an array is copied.
    #[inline(never)]
    pub(crate) fn put(&mut self, list: List, pages: u32, pages_max: u32) -> Result<(), Refusal> {
        if self.pages.saturating_add(pages) > pages_max {
            return Err(Refusal::NoRoom(list));
        }
        if self.len == LISTS && !self.move_out() {
            return Err(Refusal::NoChunk(list));
        }
        self.lists.heads[self.len] = list.parts().0;
        step();
        list.let_go();
        self.lists.pages[self.len] = pages as u16;
        self.len += 1;
        step();
        self.count += 1;
        self.pages += pages;
        self.taken_in += 1;
        Ok(())
    }

    /// Moves the array, which is full, to a chunk; false if there is none.
    fn move_out(&mut self) -> bool {
        let Some(chunk) = self.spare else {
            return false;
        };
        self.spare = chunk.with(|memory| memory.older);
        chunk.write(|memory| (memory.lists, memory.older) = (self.lists, self.older));
        in_order();
        self.older = Some(chunk);
        in_order();
        self.lists = Heads::EMPTY;
        self.len = 0;
        true
    }

    /// Lets the newest chunk be the array, which is empty.
    fn move_in(&mut self) -> Option<()> {
        let chunk = self.older?;
        chunk.write(|memory| {
            self.lists = memory.lists;
            in_order();
            self.older = core::mem::replace(&mut memory.older, self.spare);
        });
        self.spare = Some(chunk);
        self.len = LISTS;
        Some(())
    }

    /// Adds an empty chunk.
    pub(crate) fn add_chunk(&mut self, chunk: ChunkRef) {
        chunk.write(|memory| memory.older = self.spare);
        self.spare = Some(chunk);
    }

    /// The first block of the list that `take` would hand out.
    #[cfg(feature = "shared")]
    pub(crate) fn newest(&mut self) -> Option<Block> {
        if self.len == 0 {
            self.move_in()?;
        }
        self.lists.heads[self.len - 1]
    }

    /// Hands out the newest list, of `target` blocks. O(1): at times an array is copied.
    #[inline(never)]
    pub(crate) fn take(&mut self, target: u32) -> Option<List> {
        if self.len == 0 {
            self.move_in()?;
        }
        let newest = self.len - 1;
        let (head, pages) = (self.lists.heads[newest].take()?, u32::from(self.lists.pages[newest]));
        step();
        self.len = newest;
        step();
        self.count -= 1;
        self.low_count = self.low_count.min(self.count);
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
    pub(crate) fn put_odd(&mut self, odd: List, pages: u32, pages_max: u32) -> Result<(), List> {
        if !self.odd.is_empty() || self.pages + pages > pages_max {
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

    /// Drops chunks that are none, or that lie where none `fits`. Those that are kept have no mark until `mark_all`, which must
    /// follow once every depot was asked: so each chunk is kept once, and every chain has an end.
    #[cfg(feature = "shared")]
    pub(crate) fn distrust(&mut self, fits: &dyn Fn(usize) -> bool) {
        let gather = |mut at: Option<ChunkRef>| {
            let mut kept = None;
            while let Some(chunk) = at.filter(|chunk| fits(chunk.address()) && chunk.is_marked()) {
                at = chunk.with(|memory| memory.older);
                chunk.write(|memory| (memory.older, memory.mark) = (kept, 0));
                kept = Some(chunk);
            }
            kept
        };
        (self.older, self.spare) = (gather(self.older), gather(self.spare));
        (self.handed_up, self.taken_in) = (0, 0);
    }

    /// Marks the chunks that `distrust` has kept.
    #[cfg(feature = "shared")]
    pub(crate) fn mark_all(&mut self) {
        for mut at in [self.older, self.spare] {
            while let Some(chunk) = at {
                chunk.write(|memory| memory.mark = chunk.mark());
                at = chunk.with(|memory| memory.older);
            }
        }
    }

    /// Calls `each` with the first block of every list there is, however the depot was left: by someone who died in it. Then
    /// there is none, and nothing is counted.
    #[cfg(feature = "shared")]
    pub(crate) fn clear_out(&mut self, chunks: u64, each: &mut dyn FnMut(Block)) {
        self.lists.heads.into_iter().flatten().for_each(&mut *each);
        let (mut at, mut spare) = (self.older, None);
        for _ in 0..chunks {
            let Some(chunk) = at else { break };
            chunk.with(|memory| memory.lists.heads.into_iter().flatten().for_each(&mut *each));
            at = chunk.with(|memory| memory.older);
        }
        // Only now that every block is where it belongs, the lists go.
        in_order();
        at = self.older;
        for _ in 0..chunks {
            let Some(chunk) = at else { break };
            at = chunk.with(|memory| memory.older);
            chunk.write(|memory| (memory.lists, memory.older) = (Heads::EMPTY, spare));
            spare = Some(chunk);
        }
        let (handed_up, taken_in) = (self.handed_up, self.taken_in);
        *self = Self { spare, handed_up, taken_in, ..Self::EMPTY };
    }

    /// How many lists have been here all the time since this was last called.
    pub(crate) fn note_look(&mut self) -> u32 {
        core::mem::replace(&mut self.low_count, self.count)
    }

    /// Pages that the blocks here lie in, as the callers said.
    pub(crate) const fn pages(&self) -> u32 {
        self.pages
    }

    /// Blocks in the depot, with lists of `target`.
    pub(crate) fn blocks(&self, target: u32) -> u64 {
        u64::from(self.count) * u64::from(target) + u64::from(self.odd.len())
    }
}

#[path = "depot_audit.rs"]
mod audit;

#[cfg(all(test, not(loom)))]
#[path = "depot_tests.rs"]
mod tests;

#[cfg(all(feature = "cli", not(loom)))]
#[path = "depot_view.rs"]
pub(super) mod view;
