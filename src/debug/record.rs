//! What is known of a block: it lies before the block, or, for one with pages of its own, in a table. A check over it tells
//! a record from what was written over it; that a block is there, `begins.rs` knows.

use super::guard::RECORD;
use crate::sync::{AtomicU64, Relaxed};
use core::alloc::Layout;

/// Who did something to a block, from where, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// A number of `stacks.rs`.
    pub(super) stack: u32,
    /// A number of `threads.rs`.
    pub(super) thread: u32,
    /// A time of `hunter.rs`.
    pub(super) time: u32,
}

/// Above a thread's number is that of its process, in a heap that processes share.
const GUEST_SHIFT: u32 = 16;

impl Event {
    /// As an event of a heap that processes share, where this process is `guest`.
    pub(super) fn of_guest(self, guest: u32) -> Self {
        Self { thread: guest << GUEST_SHIFT | self.thread & ((1 << GUEST_SHIFT) - 1), ..self }
    }

    /// Which process's it is, in such a heap, and the event as it is in others.
    #[cfg(feature = "shared")]
    pub(super) fn to_guest(self) -> (u32, Self) {
        (self.thread >> GUEST_SHIFT, Self { thread: self.thread & ((1 << GUEST_SHIFT) - 1), ..self })
    }
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) layout: Layout,
    /// Which heap's block it is; 0: the process heap's.
    pub(super) heap: u8,
    /// Which `assert_no_leaks` it was allocated in; 0: none.
    pub(super) epoch: u32,
    pub(super) allocated: Event,
    pub(super) freed: Event,
}

/// A record. Who frees a block may write while another thread audits it: hence atomics.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Record {
    /// When it was allocated and freed. A block that went back to the heap has a link here: it is checked by nothing.
    times: AtomicU64,
    /// The epoch, the heap, the alignment's power, and the check, from bits 0, 16, 24 and 32 on.
    shape: AtomicU64,
    size: AtomicU64,
    stacks: AtomicU64,
    threads: AtomicU64,
}

/// Epochs that can be told apart, a power of two.
pub(super) const EPOCHS: u32 = 1 << 16;

/// Whose a block is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) heap: u8,
    pub(super) epoch: u32,
}

static_assertions::const_assert!(size_of::<Record>() == RECORD);

fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

fn unpair(pair: u64) -> (u32, u32) {
    (pair as u32, (pair >> 32) as u32)
}

impl Record {
    /// The words that the check is over.
    #[inline(always)]
    fn check(&self, shape: u32, size: u64, stacks: u64, threads: u64) -> u32 {
        let at = core::ptr::from_ref(self) as u64;
        let mixed = (size ^ at).wrapping_add(stacks.rotate_left(17)) ^ threads.rotate_left(40) ^ u64::from(shape);
        let mixed = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // Never 0: memory that reads zero is no record.
        (mixed >> 32) as u32 | 1
    }

    /// Writes it anew, for a live block.
    #[inline]
    pub(super) fn write(&self, layout: Layout, mark: Mark, allocated: Event) {
        let shape = (mark.epoch % EPOCHS) | (u32::from(mark.heap) << 16) | (layout.align().trailing_zeros() << 24);
        let (stacks, threads) = (pair(allocated.stack, 0), pair(allocated.thread, 0));
        self.times.store(pair(allocated.time, 0), Relaxed);
        self.size.store(layout.size() as u64, Relaxed);
        self.stacks.store(stacks, Relaxed);
        self.threads.store(threads, Relaxed);
        self.shape.store(pair(shape, self.check(shape, layout.size() as u64, stacks, threads)), Relaxed);
    }

    /// What it says, if the check holds.
    #[inline]
    pub(super) fn read(&self) -> Option<Facts> {
        let (shape, check) = unpair(self.shape.load(Relaxed));
        let (size, stacks, threads) = (self.size.load(Relaxed), self.stacks.load(Relaxed), self.threads.load(Relaxed));
        if check != self.check(shape, size, stacks, threads) {
            return None;
        }
        // SAFETY: `write` wrote what a layout said; the check holds.
        let layout = unsafe { Layout::from_size_align_unchecked(size as usize, 1 << (shape >> 24)) };
        let (times, (stack, freed_stack), (thread, freed_thread)) =
            (unpair(self.times.load(Relaxed)), unpair(stacks), unpair(threads));
        Some(Facts {
            layout,
            heap: (shape >> 16) as u8,
            epoch: shape % EPOCHS,
            allocated: Event { stack, thread, time: times.0 },
            freed: Event { stack: freed_stack, thread: freed_thread, time: times.1 },
        })
    }

    /// Notes who freed the block, of which it said `facts` before.
    #[inline]
    pub(super) fn note_free(&self, facts: &Facts, freed: Event) {
        let shape = unpair(self.shape.load(Relaxed)).0;
        let stacks = pair(facts.allocated.stack, freed.stack);
        let threads = pair(facts.allocated.thread, freed.thread);
        self.times.store(pair(facts.allocated.time, freed.time), Relaxed);
        self.stacks.store(stacks, Relaxed);
        self.threads.store(threads, Relaxed);
        self.shape.store(pair(shape, self.check(shape, facts.layout.size() as u64, stacks, threads)), Relaxed);
    }
}
