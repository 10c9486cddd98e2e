//! Free blocks and lists of them, linked through their own first words. This file alone reads or writes the bytes of a
//! free block; all above it passes [`Block`]s and [`List`]s on.

use super::note::Note;
use crate::finding::{Layer, Verdict};
use crate::sync::in_order;
use core::ptr::NonNull;

#[cfg(not(loom))]
type Link = core::cell::Cell<Option<Block>>;
#[cfg(loom)]
type Link = loom::cell::UnsafeCell<Option<Block>>;

/// A free block: at least 8 bytes that nobody uses, whose first word links to the next block of its list.
///
/// Whoever holds a `Block` may use the memory behind it; making a second one of the same memory is what `from_raw` asks
/// its caller not to do. (It is `Copy` for the sake of cells; a copy left behind is dead.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Block(NonNull<Link>);

// SAFETY: a block is memory that belongs to its holder, in whatever thread.
unsafe impl Send for Block {}

impl Block {
    /// The free memory at `at` as a block.
    ///
    /// # Safety
    /// - At least 8 bytes, aligned to 8, readable and writable;
    /// - nobody else uses them until the block's memory is handed out again.
    #[inline(always)]
    pub(crate) unsafe fn from_raw(at: NonNull<u8>) -> Self {
        Self(at.cast())
    }

    /// The memory, to be handed out.
    #[inline(always)]
    pub(crate) fn as_ptr(self) -> *mut u8 {
        self.0.as_ptr().cast()
    }

    /// The address.
    #[inline(always)]
    pub(crate) fn address(self) -> usize {
        self.as_ptr() as usize
    }

    /// The block that follows in the list.
    #[inline(always)]
    pub(crate) fn next(self) -> Option<Self> {
        // SAFETY: the holder of a block owns its memory, and a block in a list has its link written.
        let link = unsafe { self.0.as_ref() };
        #[cfg(not(loom))]
        return link.get();
        #[cfg(loom)]
        // SAFETY: as above; loom checks it.
        return link.with(|next| unsafe { *next });
    }

    /// Links the block to `next`.
    #[inline(always)]
    pub(crate) fn set_next(self, next: Option<Self>) {
        // SAFETY: the holder of a block owns its memory; any bits are a valid cell of a pointer.
        let link = unsafe { self.0.as_ref() };
        #[cfg(not(loom))]
        link.set(next);
        #[cfg(loom)]
        // SAFETY: as above; loom checks it.
        link.with_mut(|cell| unsafe { *cell = next });
    }
}

/// Brings the first bytes of a block near: it is popped next.
#[inline(always)]
pub(crate) fn prefetch(block: Option<Block>) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        let at: *const i8 = block.map_or(core::ptr::null(), |block| block.as_ptr().cast());
        // SAFETY: a hint, which reads nothing and faults nowhere.
        unsafe { core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(at) };
    }
}

/// A free block for a model: its link is one of loom's cells.
#[cfg(all(test, loom))]
pub(crate) fn block() -> Block {
    Block(NonNull::from(Box::leak(Box::new(loom::cell::UnsafeCell::new(None)))))
}

/// Audits `len` free blocks of `layer` that are linked from `head` on, with nothing behind: `each` sees a block's address
/// before its link is read.
pub(super) fn follow(head: Option<Block>, len: u32, layer: Layer, each: &mut dyn FnMut(usize) -> Verdict) -> Verdict {
    let (mut at, mut last) = (head, 0);
    for _ in 0..len {
        let Some(block) = at else {
            return layer.holds(false, "a list is as long as it counts", last);
        };
        last = block.address();
        each(last)?;
        at = block.next();
    }
    layer.holds(at.is_none(), "nothing is linked behind a list's last block", last)
}

/// Pages that are remembered when the pages of a list are counted: its blocks may alternate between a few.
const RECENT: usize = 4;
/// Blocks that [`List::pages_by_sample`] looks at.
const SAMPLE: u32 = 16;

/// Some blocks of one class and their number.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct List {
    head: Option<Block>,
    /// Exactly the number of blocks from `head` on.
    len: u32,
    /// Where it is noted that somebody has it in hand.
    note: Note,
}

impl List {
    /// No block.
    pub(crate) const EMPTY: Self = Self { head: None, len: 0, note: Note::NONE };

    /// The blocks from `head` on, of which there are `len`.
    pub(crate) const fn from_parts(head: Option<Block>, len: u32) -> Self {
        Self { head, len, note: Note::NONE }
    }

    /// The list, which is noted there.
    pub(crate) const fn noted(self, note: Note) -> Self {
        Self { note, ..self }
    }

    /// The blocks popped so far have come to another place: they are noted no more.
    #[inline(always)]
    pub(crate) fn advance(&self) {
        self.note.move_to(self.head);
    }

    /// All of it has come to another place, by the store of its first block: it is noted no more.
    #[inline(always)]
    pub(crate) fn let_go(self) {
        self.note.move_to(None);
    }

    /// The first block and the number of blocks.
    pub(crate) const fn parts(&self) -> (Option<Block>, u32) {
        (self.head, self.len)
    }

    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn push(&mut self, block: Block) {
        block.set_next(self.head);
        in_order();
        self.head = Some(block);
        self.len += 1;
    }

    pub(crate) fn pop(&mut self) -> Option<Block> {
        let block = self.head?;
        self.head = block.next();
        self.len -= 1;
        Some(block)
    }

    /// Cuts off the first `len` blocks, or all if there are fewer; O(`len`).
    pub(crate) fn split_off(&mut self, len: u32) -> Self {
        let mut front = Self::EMPTY;
        while front.len < len {
            let Some(block) = self.pop() else { break };
            front.push(block);
        }
        front
    }

    /// How many pages the blocks begin in, at the most: how often one begins in a page that is not among the last few.
    /// O(len).
    pub(crate) fn pages(&self, page_shift: u32) -> u32 {
        self.pages_of_first(self.len, page_shift)
    }

    /// About how many pages the blocks begin in, judged by the first few, which were freed last. O(1).
    pub(crate) fn pages_by_sample(&self, page_shift: u32) -> u32 {
        let sample = self.len.min(SAMPLE);
        if sample < 2 {
            return self.len;
        }
        let more = self.pages_of_first(sample, page_shift) - 1;
        1 + more * (self.len - 1) / (sample - 1)
    }

    fn pages_of_first(&self, len: u32, page_shift: u32) -> u32 {
        let (mut recent, mut last, mut found, mut at) = ([usize::MAX; RECENT], usize::MAX, 0, self.head);
        for _ in 0..len {
            let Some(block) = at else { break };
            let page = block.address() >> page_shift;
            if page != last {
                last = page;
                found += u32::from(!recent.contains(&page));
                recent[page % RECENT] = page;
            }
            at = block.next();
        }
        found
    }
}

#[cfg(all(feature = "cli", not(loom)))]
impl List {
    /// Where its first block lies, and its number of blocks.
    pub(in crate::heap) const fn fields() -> (crate::image::Field<Self>, crate::image::Field<Self>) {
        (crate::image::field!(Self, head), crate::image::field!(Self, len))
    }
}
