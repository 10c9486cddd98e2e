//! The component `buddy`: blocks are powers of two of 64 bytes and more, each at a multiple of its size.
//!
//! For each order there is a set of free blocks, a tree of bits in which the lowest is found in a few steps; and one byte for each 64
//! bytes of the heap tells the order of the live block that begins there. All of it lies outside of the heap, in memory that becomes
//! resident where it is used: so nothing that is written over the end of a block can damage it. A block that is freed merges with its
//! buddy, the other half of the next larger block, as long as that is free. O(log n) each; offsets have 64 bits.

use super::memheap::{Component, Declined, INTERFACE, Module};
use crate::os::{self, Span};
use core::alloc::Layout;
use core::ptr::NonNull;
use std::boxed::Box;
use std::vec::Vec;

/// The component.
pub(super) static BUDDY: Component = Component {
    name: "buddy",
    interface: INTERFACE,
    priority: 20,
    data: &(),
    init: |component, range| {
        let buddy = Buddy::new(component, range).ok_or(Declined("no memory for its tables".into()))?;
        Ok(Box::new(buddy))
    },
};

/// The smallest block has 2⁶ bytes: a line of the cache.
const MIN_ORDER: u32 = 6;
/// The largest has 2⁴⁶.
const MAX_ORDER: u32 = 46;

/// A set of numbers below a limit: a tree of bits, the lowest layer first. A bit of a layer is set iff a bit of its word in the layer
/// below is.
#[derive(Debug)]
struct Bits {
    /// Where each layer begins, in words of the tables.
    layers: Vec<usize>,
    count: usize,
}

/// Words that a set of numbers below `most` needs, layer by layer.
fn layers_of(most: usize) -> impl Iterator<Item = usize> {
    let mut bits = Some(most.max(1));
    core::iter::from_fn(move || {
        let words = bits?.div_ceil(64);
        bits = (words > 1).then_some(words);
        Some(words)
    })
}

/// A buddy allocator over a range.
#[derive(Debug)]
struct Buddy {
    component: &'static Component,
    range: Span,
    /// What lies outside of the heap: the words of all sets, and behind them the orders.
    tables: Span,
    /// Free blocks of each order from `MIN_ORDER` on, by their number.
    free: Vec<Bits>,
    /// Where the orders begin.
    orders: usize,
    /// Bit `n` is set iff a block of order `MIN_ORDER + n` is free.
    has_free: u64,
}

// SAFETY: the tables are the allocator's own.
unsafe impl Send for Buddy {}

impl Buddy {
    fn new(component: &'static Component, range: Span) -> Option<Self> {
        let blocks = range.bytes >> MIN_ORDER;
        let (mut words, mut free) = (0, Vec::new());
        for order in MIN_ORDER..=MAX_ORDER.min(range.bytes.max(64).ilog2()) {
            let mut layers = Vec::new();
            for count in layers_of(range.bytes >> order) {
                layers.push(words);
                words += count;
            }
            free.push(Bits { layers, count: 0 });
        }
        let tables = os::map_sparse((words * 8 + blocks).max(1).next_multiple_of(os::page_bytes()))?;
        let mut buddy = Self { component, range, tables, free, orders: tables.at + words * 8, has_free: 0 };
        buddy.fill();
        Some(buddy)
    }

    /// Makes the whole range free blocks, each as large as it can be at its place.
    fn fill(&mut self) {
        let mut at = 0;
        while self.range.bytes - at >= 1 << MIN_ORDER {
            let left = (self.range.bytes - at).ilog2();
            let order = left.min(at.trailing_zeros()).min(MAX_ORDER);
            self.insert(order, at);
            at += 1 << order;
        }
    }

    fn word(&mut self, number: usize) -> &mut u64 {
        let at = core::ptr::with_exposed_provenance_mut::<u64>(self.tables.at + number * 8);
        // SAFETY: words lie at the begin of the tables, which are ours.
        unsafe { &mut *at }
    }

    /// Where the order of a block at `offset` is told: 0 if none begins there that is live.
    fn order_at(&self, offset: usize) -> *mut u8 {
        core::ptr::with_exposed_provenance_mut(self.orders + (offset >> MIN_ORDER))
    }

    /// The order of the live block at `offset`.
    fn order_of(&self, offset: usize) -> Option<u32> {
        let is_place = offset < self.range.bytes && offset.is_multiple_of(1 << MIN_ORDER);
        // SAFETY: there is a byte for each place where a block may begin.
        let order = if is_place { unsafe { self.order_at(offset).read() } } else { 0 };
        (order != 0).then_some(u32::from(order))
    }

    /// Says what is live at `offset`; 0: nothing.
    fn set_order(&mut self, offset: usize, order: u32) {
        // SAFETY: there is a byte for each place where a block may begin.
        unsafe { self.order_at(offset).write(order as u8) };
    }

    /// Makes the block at `offset` a free one.
    fn insert(&mut self, order: u32, offset: usize) {
        let (at, mut number) = ((order - MIN_ORDER) as usize, offset >> order);
        self.free[at].count += 1;
        self.has_free |= 1 << at;
        for layer in 0..self.free[at].layers.len() {
            let word = self.free[at].layers[layer] + number / 64;
            let word = self.word(word);
            let was_empty = core::mem::replace(word, *word | 1 << (number % 64)) == 0;
            if !was_empty {
                break;
            }
            number /= 64;
        }
    }

    /// Takes the block at `offset` out of the free ones.
    fn remove(&mut self, order: u32, offset: usize) {
        let (at, mut number) = ((order - MIN_ORDER) as usize, offset >> order);
        self.free[at].count -= 1;
        if self.free[at].count == 0 {
            self.has_free &= !(1 << at);
        }
        for layer in 0..self.free[at].layers.len() {
            let word = self.free[at].layers[layer] + number / 64;
            let word = self.word(word);
            *word &= !(1 << (number % 64));
            if *word != 0 {
                break;
            }
            number /= 64;
        }
    }

    /// Whether a free block of that order is at `offset`.
    fn is_free(&mut self, order: u32, offset: usize) -> bool {
        let (at, number) = ((order - MIN_ORDER) as usize, offset >> order);
        let first = self.free[at].layers.first().copied();
        first.is_some_and(|first| *self.word(first + number / 64) >> (number % 64) & 1 == 1)
    }

    /// The free block of that order, which there is, at the lowest address.
    fn lowest(&mut self, order: u32) -> usize {
        let at = (order - MIN_ORDER) as usize;
        let mut number = 0;
        for layer in (0..self.free[at].layers.len()).rev() {
            let word = self.free[at].layers[layer] + number;
            number = number * 64 + self.word(word).trailing_zeros() as usize;
        }
        number << order
    }

    /// A block of that order.
    fn take(&mut self, order: u32) -> Option<usize> {
        let larger = self.has_free >> (order - MIN_ORDER);
        let mut from = order + (larger != 0).then(|| larger.trailing_zeros())?;
        let offset = self.lowest(from);
        self.remove(from, offset);
        while from > order {
            // The lower half is split on, the upper one is free.
            from -= 1;
            self.insert(from, offset + (1 << from));
        }
        self.set_order(offset, order);
        Some(offset)
    }

    /// Frees a block of that order, and merges it with its buddies.
    fn give(&mut self, mut order: u32, mut offset: usize) {
        self.set_order(offset, 0);
        let largest = MIN_ORDER + self.free.len() as u32 - 1;
        while order < largest {
            let buddy = offset ^ 1 << order;
            if buddy + (1 << order) > self.range.bytes || !self.is_free(order, buddy) {
                break;
            }
            self.remove(order, buddy);
            (order, offset) = (order + 1, offset.min(buddy));
        }
        self.insert(order, offset);
    }

    /// Whether the block at `offset` is the lower half of free buddies up to the order `new`.
    fn can_grow(&mut self, offset: usize, order: u32, new: u32) -> bool {
        offset.is_multiple_of(1 << new)
            && self.range.bytes - offset >= 1 << new
            && (order..new).all(|order| self.is_free(order, offset + (1 << order)))
    }

    /// Makes the live block at `offset` one of order `new` that begins there: upper halves are freed, or taken.
    fn resize(&mut self, offset: usize, order: u32, new: u32) {
        (order..new).for_each(|order| self.remove(order, offset + (1 << order)));
        (new..order).for_each(|order| self.insert(order, offset + (1 << order)));
        self.set_order(offset, new);
    }

    fn offset_of(&self, block: NonNull<u8>) -> usize {
        (block.as_ptr() as usize).wrapping_sub(self.range.at)
    }

    fn block_at(&self, offset: usize) -> Option<NonNull<u8>> {
        NonNull::new(core::ptr::with_exposed_provenance_mut(self.range.at + offset))
    }
}

/// The order of blocks for `layout`; `None` if there are none so large.
fn order_for(layout: Layout) -> Option<u32> {
    let bytes = layout.size().max(layout.align()).max(1 << MIN_ORDER).checked_next_power_of_two()?;
    Some(bytes.ilog2()).filter(|order| *order <= MAX_ORDER)
}

// SAFETY: a block is taken out of one set of free ones, and those are disjoint: they are halves of larger ones.
unsafe impl Module for Buddy {
    fn component(&self) -> &'static Component {
        self.component
    }

    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // Blocks lie at multiples of their size from the range's begin on.
        if !self.range.at.is_multiple_of(layout.align()) {
            return None;
        }
        let offset = self.take(order_for(layout)?)?;
        self.block_at(offset)
    }

    fn bytes_of(&self, block: NonNull<u8>) -> Option<usize> {
        self.order_of(self.offset_of(block)).map(|order| 1 << order)
    }

    unsafe fn free(&mut self, block: NonNull<u8>) {
        let offset = self.offset_of(block);
        if let Some(order) = self.order_of(offset) {
            self.give(order, offset);
        }
    }

    unsafe fn realloc(&mut self, block: NonNull<u8>, layout: Layout) -> Option<NonNull<u8>> {
        let (offset, new) = (self.offset_of(block), order_for(layout)?);
        let order = self.order_of(offset)?;
        if new <= order || self.can_grow(offset, order, new) {
            self.resize(offset, order, new);
            return Some(block);
        }
        // SAFETY: handed on.
        unsafe { self.move_block(block, layout) }
    }

    fn finalize(&mut self) {
        os::unmap(self.tables);
    }
}
