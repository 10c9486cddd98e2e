//! Components of symmetric heaps over plain memory, with a shadow of what is live: for tests and fuzz targets.

#![allow(dead_code, clippy::disallowed_methods, reason = "each user takes what it needs; ranges are mapped here")]

use std::alloc::Layout;
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use stratalloc::os::Span;
use stratalloc::symmetric::memheap::{COMPONENTS, Choice, Framework, Memheap};

/// Addresses that this process has for nothing else, and that become memory where they are written.
#[derive(Debug)]
pub(crate) struct Range(pub(crate) Span);

impl Range {
    pub(crate) fn new(bytes: usize) -> Self {
        // Each at a multiple of 64 GiB: so every alignment has the same chances.
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
        for _ in 0..512 {
            let at = 0x5000_0000_0000 + NEXT.fetch_add(1, SeqCst) % 256 * (64 << 30);
            // SAFETY: it replaces nothing.
            let got = unsafe { libc::mmap(at as *mut _, bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
            if got as usize == at {
                return Self(Span { at, bytes });
            }
        }
        unreachable!("one of 256 places is free");
    }

    pub(crate) fn select(&self, choice: &Choice) -> Memheap {
        // SAFETY: the range is mapped, zero, and nobody else's.
        unsafe { Framework::open(&[]).select(choice, self.0) }.expect("a component")
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        // SAFETY: mapped above.
        assert_eq!(unsafe { libc::munmap(self.0.at as *mut _, self.0.bytes) }, 0);
    }
}

pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    COMPONENTS.iter().map(|component| component.name)
}

pub(crate) fn layout(bytes: usize, align: usize) -> Layout {
    Layout::from_size_align(bytes, align).expect("a layout")
}

/// A heap with a shadow of what is live in it: each block by its address, with its size and what is written in it.
pub(crate) struct Checked {
    pub(crate) memheap: Memheap,
    pub(crate) live: BTreeMap<usize, (usize, u8)>,
}

impl Checked {
    pub(crate) fn new(range: &Range, name: &str) -> Self {
        Self { memheap: range.select(&Choice::new().only(name)), live: BTreeMap::new() }
    }

    /// The block's first and last bytes, where a long one would take long.
    fn edges(bytes: usize) -> impl Iterator<Item = usize> {
        (0..bytes.min(64)).chain(bytes.saturating_sub(64).max(64)..bytes)
    }

    fn paint(at: NonNull<u8>, bytes: usize, seed: u8) {
        // SAFETY: the block is ours, and so large.
        Self::edges(bytes).for_each(|byte| unsafe { at.as_ptr().wrapping_add(byte).write(seed) });
    }

    #[track_caller]
    fn verify(at: usize, bytes: usize, seed: u8) {
        let at = at as *const u8;
        // SAFETY: the block is live, and so large.
        assert!(Self::edges(bytes).all(|byte| unsafe { at.wrapping_add(byte).read() } == seed), "its own bytes");
    }

    #[track_caller]
    fn enter(&mut self, at: NonNull<u8>, layout: Layout, seed: u8) {
        let (address, bytes) = (at.as_ptr() as usize, layout.size());
        assert!(address.is_multiple_of(layout.align()) && self.memheap.range().contains(Span { at: address, bytes }));
        let before = self.live.range(..=address).next_back();
        assert!(before.is_none_or(|(other, (bytes, _))| other + bytes <= address), "disjoint");
        assert!(self.live.range(address..).next().is_none_or(|(other, _)| address + bytes <= *other), "disjoint");
        assert!(self.memheap.bytes_of(at).is_some_and(|has| has >= bytes), "it knows how large a block is");
        Self::paint(at, bytes, seed);
        self.live.insert(address, (bytes, seed));
    }

    #[track_caller]
    pub(crate) fn alloc(&mut self, layout: Layout, seed: u8) -> Option<usize> {
        let at = self.memheap.module().alloc(layout)?;
        self.enter(at, layout, seed);
        Some(at.as_ptr() as usize)
    }

    #[track_caller]
    pub(crate) fn free(&mut self, address: usize) {
        let (bytes, seed) = self.live.remove(&address).expect("a live block");
        Self::verify(address, bytes, seed);
        let at = NonNull::new(address as *mut u8).expect("an address");
        // SAFETY: live, and nobody uses it.
        unsafe { self.memheap.module().free(at) };
    }

    #[track_caller]
    pub(crate) fn realloc(&mut self, address: usize, layout: Layout) -> Option<usize> {
        let (bytes, seed) = self.live[&address];
        let at = NonNull::new(address as *mut u8).expect("an address");
        // SAFETY: live, and nobody uses it.
        let new = unsafe { self.memheap.module().realloc(at, layout) }?;
        self.live.remove(&address);
        let kept = bytes.min(layout.size()).min(64);
        // SAFETY: the block is ours.
        assert!((0..kept).all(|byte| unsafe { new.as_ptr().wrapping_add(byte).read() } == seed), "what was there");
        self.enter(new, layout, seed);
        Some(new.as_ptr() as usize)
    }

    pub(crate) fn free_all(&mut self) {
        while let Some((address, _)) = self.live.first_key_value() {
            let address = *address;
            self.free(address);
        }
    }
}

pub(crate) fn next(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state as usize
}

/// Calls of every kind at random; the offsets that came of them.
pub(crate) fn random_calls(heap: &mut Checked, calls: usize, largest: usize, seed: u64) -> Vec<usize> {
    let (mut state, mut offsets, base) = (seed, Vec::new(), heap.memheap.range().at);
    for call in 0..calls {
        let dice = next(&mut state);
        let bytes = 1 + next(&mut state) % (1 << (1 + next(&mut state) % largest.ilog2() as usize));
        let align = 16 << (if dice.is_multiple_of(16) { next(&mut state) % 10 } else { 0 });
        let victim = heap.live.keys().nth(next(&mut state) % heap.live.len().max(1)).copied();
        let seed = call as u8 | 1;
        match (dice % 8, victim) {
            (0..=2, Some(victim)) => heap.free(victim),
            (3, Some(victim)) => offsets.push(heap.realloc(victim, layout(bytes, align)).map_or(1, |at| at - base)),
            _ => offsets.push(heap.alloc(layout(bytes, align), seed).map_or(1, |at| at - base)),
        }
        if call % 1000 == 999 {
            heap.memheap.module().collect();
        }
    }
    offsets
}
