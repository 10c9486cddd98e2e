//! Size classes: which block size serves which request, and what follows from it.
//!
//! The ladder is a build-time constant, whatever the page, so that the class of a constant size folds to a constant. It is
//! chosen by feature: powers of two (the paper's), which end at half the smallest page, or four classes per doubling
//! (`fine-classes`), which go on to 7 KiB: requests of somewhat more than a page do not take two.
//! Each ladder is two functions, `index` and `size`; everything else derives from them, and the constants at the end
//! prove for every size that they agree.

use core::alloc::Layout;
use core::ops::Index;

/// The smallest page of the targets we know.
pub(crate) const PAGE_MIN: usize = 4096;
/// The largest page of the targets we know.
pub(crate) const PAGE_MAX: usize = 65536;
/// The largest block: with `fine-classes` the last step of the ladder below two of the smallest pages, else half a page.
pub(crate) const BLOCK_MAX: usize = if FINE { PAGE_MIN / 4 * 7 } else { PAGE_MIN / 2 };
/// An alignment that no class serves: slabs are aligned to a page, and that may be the smallest.
pub(crate) const ALIGN_BEYOND: usize = 2 * PAGE_MIN;
/// Blocks in a list, at the most: a class of up to 128 bytes misses its cache at most once in so many calls.
pub(crate) const TARGET_MAX: usize = 64;
/// Whether the ladder is the one of `fine-classes`.
pub(crate) const FINE: bool = cfg!(feature = "fine-classes");
/// Blocks in a list, at the least.
pub(crate) const TARGET_MIN: u32 = 4;
/// Bytes in a slab, at the most, where pages are smaller than that.
const SLAB_BYTES: usize = 64 << 10;
/// Blocks in a slab, at the most, where a page has fewer than that.
const SLAB_BLOCKS: usize = 2048;

#[cfg(not(feature = "fine-classes"))]
mod ladder {
    use super::BLOCK_MAX;

    /// Number of classes.
    pub(super) const LEN: usize = BLOCK_MAX.ilog2() as usize - 2;

    /// The class for `size` bytes at `align`, if there is one. Size 0 has none.
    #[inline(always)]
    pub(super) const fn index(size: usize, align: usize) -> Option<usize> {
        let top = size.wrapping_sub(1) | (align - 1);
        if top < BLOCK_MAX { Some((top | 7).ilog2() as usize - 2) } else { None }
    }

    /// The block size of class `index`.
    pub(super) const fn size(index: usize) -> usize {
        8 << index
    }
}

#[cfg(feature = "fine-classes")]
mod ladder {
    use super::{BLOCK_MAX, PAGE_MIN};

    /// Number of classes: 8, 16 to 128 by 16, then four per doubling and one more, but for the last, which would be a power of
    /// two.
    pub(super) const LEN: usize = 4 * (BLOCK_MAX.ilog2() as usize - 6) + 9;
    /// The one more, half a step behind the smallest page: for a page and a header, as caches of pages ask for.
    const BEHIND_PAGE: usize = 4 * (PAGE_MIN.ilog2() as usize - 5) + 1;

    /// The class for `size` bytes at `align`, if there is one. Size 0 has none.
    ///
    /// A class's size is a multiple of every alignment that the size is a multiple of, once it is rounded up.
    #[inline(always)]
    pub(super) const fn index(size: usize, align: usize) -> Option<usize> {
        // The last byte of the size rounded up to the alignment; huge for size 0, and for a size beyond the ladder.
        let top = size.wrapping_sub(1) | (align - 1);
        if top >= BLOCK_MAX {
            return None;
        }
        Some(CLASS_OF[top / 8] as usize)
    }

    /// The class for sizes from `8 * i + 1` to `8 * i + 8`. A table of 896 bytes costs a load where the arithmetic of
    /// logarithm, shift and sum costs some ten instructions.
    const CLASS_OF: [u8; BLOCK_MAX / 8] = {
        let mut table = [0; BLOCK_MAX / 8];
        let (mut at, mut class) = (0, 0);
        while at < table.len() {
            if size(class) <= 8 * at {
                class += 1;
            }
            table[at] = class as u8;
            at += 1;
        }
        table
    };

    /// The block size of class `index`.
    pub(super) const fn size(index: usize) -> usize {
        match index {
            0 => 8,
            1..=8 => 16 * index,
            9..BEHIND_PAGE => step(index - 9),
            BEHIND_PAGE => PAGE_MIN / 8 * 9,
            _ => step(index - 10),
        }
    }

    /// Step `at` of four per doubling, from 160 on.
    const fn step(at: usize) -> usize {
        (5 + at % 4) << (5 + at / 4)
    }
}

/// Number of size classes.
pub(crate) const CLASSES: usize = ladder::LEN;

/// A size class; its index is below `CLASSES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class(usize);

impl Class {
    /// The class that serves `layout`; `None` if it is no block's (size 0 or beyond the ladder). O(1), and a constant
    /// for a constant layout.
    #[inline(always)]
    #[must_use]
    pub const fn of(layout: Layout) -> Option<Self> {
        Self::of_size(layout.size(), layout.align())
    }

    /// The class that serves `size` bytes at `align`, a power of two.
    #[inline(always)]
    pub(crate) const fn of_size(size: usize, align: usize) -> Option<Self> {
        match ladder::index(size, align) {
            Some(index) => Some(Self(index)),
            None => None,
        }
    }

    /// The class at a place in the ladder.
    ///
    /// # Safety
    /// - `index` is below `CLASSES`.
    #[cfg(feature = "c-abi")]
    #[inline(always)]
    pub(crate) const unsafe fn from_index(index: usize) -> Self {
        Self(index)
    }

    /// Every class, the smallest first. The compiler does not know how many there are: a loop over them stays one, which is
    /// short, in place of as many copies of what it does.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        (0..core::hint::black_box(CLASSES)).map(Self)
    }

    /// The class's place in the ladder.
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0
    }

    /// Bytes in a block.
    #[inline]
    #[must_use]
    pub const fn size(self) -> usize {
        SIZES[self.place()] as usize
    }

    /// The class's place in a table of all classes, as the compiler may know.
    #[inline(always)]
    const fn place(self) -> usize {
        // SAFETY: the index of a `Class` is below `CLASSES`.
        unsafe { core::hint::assert_unchecked(self.0 < CLASSES) };
        self.0
    }

    /// Pages that a free block pins, as the bounds count: one if it is no longer than half a page, else as many as it can
    /// lie in.
    #[inline]
    pub(crate) const fn pages(self) -> u32 {
        PAGES[self.place()] as u32
    }

    /// Blocks in a list of about `bytes` bytes: the paper's `target`.
    pub(crate) const fn target(self, bytes: usize) -> u32 {
        let fit = bytes / self.size();
        let fit = if fit > TARGET_MAX { TARGET_MAX } else { fit };
        if fit < TARGET_MIN as usize { TARGET_MIN } else { fit as u32 }
    }

    /// Pages in a slab, for pages of `1 << page_shift` bytes: none that no block would begin or end in.
    pub(crate) const fn slab_pages(self, page_shift: u32) -> usize {
        let blocks = SLAB_BYTES / self.size();
        let blocks = if blocks > SLAB_BLOCKS { SLAB_BLOCKS } else { blocks };
        (blocks * self.size()).div_ceil(1 << page_shift)
    }

    /// Blocks in a slab, for pages of `1 << page_shift` bytes.
    pub(crate) const fn slab_blocks(self, page_shift: u32) -> usize {
        (self.slab_pages(page_shift) << page_shift) / self.size()
    }

    /// Which block of a slab the byte `offset` lies in: a multiplication by the reciprocal of the size.
    #[inline]
    pub(crate) const fn block_at(self, offset: usize) -> usize {
        ((offset as u64 * RECIPROCALS[self.place()]) >> 32) as usize
    }
}

/// The block size of each class: a load takes less room than the arithmetic, in the many places that ask.
const SIZES: [u16; CLASSES] = {
    let mut table = [0; CLASSES];
    let mut index = 0;
    while index < CLASSES {
        table[index] = ladder::size(index) as u16;
        index += 1;
    }
    table
};

/// `ceil(2^32 / size)` of each class.
const RECIPROCALS: [u64; CLASSES] = {
    let mut table = [0; CLASSES];
    let mut index = 0;
    while index < CLASSES {
        table[index] = (1u64 << 32).div_ceil(ladder::size(index) as u64);
        index += 1;
    }
    table
};

/// What `Class::pages` says of each class.
const PAGES: [u8; CLASSES] = {
    let mut table = [1; CLASSES];
    let mut index = 0;
    while index < CLASSES {
        let size = ladder::size(index);
        // What the distance of a block from the begin of its page is a multiple of.
        let step = 1 << (size | PAGE_MIN).trailing_zeros();
        if size > PAGE_MIN / 2 {
            table[index] += (size - step).div_ceil(PAGE_MIN) as u8;
        }
        index += 1;
    }
    table
};

/// One value for each class.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct PerClass<T>([T; CLASSES]);

impl<T> PerClass<T> {
    pub(crate) const fn new(values: [T; CLASSES]) -> Self {
        Self(values)
    }

    /// Where the value at a place in the ladder lies.
    #[cfg(feature = "cli")]
    pub(crate) const fn place_of(index: usize) -> usize {
        core::mem::offset_of!(Self, 0) + index * size_of::<T>()
    }

    pub(crate) const fn as_slice(&self) -> &[T] {
        &self.0
    }
}

impl<T> Index<Class> for PerClass<T> {
    type Output = T;

    #[inline(always)]
    fn index(&self, class: Class) -> &T {
        // SAFETY: the index of a `Class` is below `CLASSES`.
        unsafe { self.0.get_unchecked(class.0) }
    }
}

/// Whether the ladder is right for every size from 1 to `BLOCK_MAX` at every alignment that it can serve.
const fn ladder_is_right() -> bool {
    let mut size = 1;
    while size <= BLOCK_MAX {
        let mut align = 1;
        while align <= BLOCK_MAX {
            if let Some(index) = ladder::index(size, align) {
                let block = ladder::size(index);
                let tight = index == 0 || ladder::size(index - 1) < size || align > 8;
                if index >= CLASSES
                    || block < size
                    || !block.is_multiple_of(align) && align > 8
                    || !block.is_multiple_of(8)
                    || block >= 16 && !block.is_multiple_of(16)
                    || !tight
                {
                    return false;
                }
            } else if size <= BLOCK_MAX && align <= 16 {
                return false;
            }
            align *= 2;
        }
        size += 1;
    }
    let beyond = ladder::index(0, 1).is_none() && ladder::index(BLOCK_MAX + 1, 1).is_none();
    beyond && ladder::size(CLASSES - 1) == BLOCK_MAX
}

/// Whether `block_at` divides rightly over the largest slab of each class.
const fn reciprocals_are_right() -> bool {
    let mut index = 0;
    while index < CLASSES {
        let (class, size) = (Class(index), ladder::size(index));
        let mut block = 0;
        while (block + 1) * size <= PAGE_MAX {
            if class.block_at(block * size) != block || class.block_at(block * size + size - 1) != block {
                return false;
            }
            block += 1;
        }
        index += 1;
    }
    true
}

static_assertions::const_assert!(ladder_is_right());
static_assertions::const_assert!(reciprocals_are_right());
static_assertions::const_assert!(BLOCK_MAX < ALIGN_BEYOND);
// A slab's pages are the bits of one word, and it has one more.
static_assertions::const_assert!(SLAB_BYTES / PAGE_MIN < 32);
