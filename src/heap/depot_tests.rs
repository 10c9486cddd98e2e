//! One depot by itself, with lists of blocks that nobody uses.

use super::{ChunkRef, Depot, LISTS, Refusal};
use crate::heap::list::{Block, List};
use core::ptr::NonNull;
use std::alloc::{Layout, alloc, dealloc};
use std::vec::Vec;

const TARGET: u32 = 4;
const BLOCK: usize = 16;
/// Pages that each list is said to lie in.
const PAGES: u32 = 2;

/// Memory for blocks or chunks, which stays as long as this does.
struct Memory {
    pieces: Vec<(NonNull<u8>, Layout)>,
}

impl Memory {
    fn new() -> Self {
        Self { pieces: Vec::new() }
    }

    fn piece(&mut self, bytes: usize) -> NonNull<u8> {
        let layout = Layout::from_size_align(bytes, 64).expect("a layout");
        // SAFETY: the size is not 0.
        let at = NonNull::new(unsafe { alloc(layout) }).expect("memory");
        self.pieces.push((at, layout));
        at
    }

    /// A list of `len` blocks, and the address of its first one.
    fn list(&mut self, len: u32) -> (List, usize) {
        let at = self.piece(BLOCK * len as usize);
        let mut list = List::EMPTY;
        for block in (0..len as usize).rev() {
            // SAFETY: inside the piece.
            let place = unsafe { at.add(block * BLOCK) };
            // SAFETY: the place is ours, aligned, and has a block's size.
            list.push(unsafe { Block::from_raw(place) });
        }
        (list, at.as_ptr() as usize)
    }

    fn chunk(&mut self) -> ChunkRef {
        let at = self.piece(ChunkRef::BYTES);
        // SAFETY: aligned to 64, of that size, and for one depot alone.
        unsafe { ChunkRef::create(at) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        for (at, layout) in self.pieces.drain(..) {
            // SAFETY: allocated in `piece` for the layout.
            unsafe { dealloc(at.as_ptr(), layout) };
        }
    }
}

/// Puts a list in, with a chunk where one is asked for; how many chunks that took, and the list's first block.
fn put(depot: &mut Depot, memory: &mut Memory) -> (usize, usize) {
    let (list, first) = memory.list(TARGET);
    match depot.put(list, PAGES, u32::MAX) {
        Ok(()) => (0, first),
        Err(Refusal::NoChunk(list)) => {
            depot.add_chunk(memory.chunk());
            assert!(depot.put(list, PAGES, u32::MAX).is_ok(), "there is a chunk");
            (1, first)
        }
        Err(Refusal::NoRoom(_)) => panic!("no bound"),
    }
}

/// Takes a list out; its first block.
fn take(depot: &mut Depot) -> Option<usize> {
    let mut list = depot.take(TARGET)?;
    assert_eq!(list.len(), TARGET);
    let first = list.pop().expect("a block").address();
    let mut next = first;
    while let Some(block) = list.pop() {
        next += BLOCK;
        assert_eq!(block.address(), next, "the list is as it was");
    }
    Some(first)
}

#[test]
fn g3_five_hundred_lists_come_back_the_newest_first() {
    let (mut depot, mut memory) = (Depot::EMPTY, Memory::new());
    for round in 0..3 {
        let put: Vec<(usize, usize)> = (0..500).map(|_| put(&mut depot, &mut memory)).collect();
        let chunks: usize = put.iter().map(|(chunks, _)| chunks).sum();
        assert_eq!(chunks, if round == 0 { 499 / LISTS } else { 0 }, "chunks are used again");
        assert_eq!((depot.count, depot.pages()), (500, 500 * PAGES));
        assert_eq!(depot.blocks(TARGET), 500 * u64::from(TARGET));
        let taken: Vec<usize> = core::iter::from_fn(|| take(&mut depot)).collect();
        assert!(taken.into_iter().eq(put.iter().rev().map(|(_, first)| *first)), "the newest first");
        assert_eq!((depot.count, depot.pages(), depot.blocks(TARGET)), (0, 0, 0));
        assert_eq!((depot.taken_in, depot.handed_up), (500 * (round + 1), 500 * (round + 1)));
    }
}

#[test]
fn g3_lists_come_and_go_as_on_a_stack() {
    let (mut depot, mut memory, mut model) = (Depot::EMPTY, Memory::new(), Vec::new());
    let mut least = 0;
    let mut state = 1u64;
    for step in 0..4000 {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        // More come in the first half, and more go in the second.
        let comes = state >> 33 & 7 < if step < 2000 { 5 } else { 3 };
        if comes {
            model.push(put(&mut depot, &mut memory).1);
        } else {
            assert_eq!(take(&mut depot), model.pop());
        }
        least = least.min(model.len() as u32);
        assert_eq!((depot.count, depot.low_count), (model.len() as u32, least));
        assert_eq!(depot.pages(), PAGES * depot.count);
        if step % 100 == 0 {
            (depot.low_count, least) = (depot.count, depot.count);
        }
    }
}

#[test]
fn g3_what_is_refused_changes_nothing() {
    let (mut depot, mut memory) = (Depot::EMPTY, Memory::new());
    let lists: Vec<(usize, usize)> = (0..LISTS).map(|_| put(&mut depot, &mut memory)).collect();
    let full = LISTS as u32 * PAGES;
    let (list, first) = memory.list(TARGET);
    let Err(Refusal::NoRoom(list)) = depot.put(list, PAGES, full + PAGES - 1) else { panic!("beyond the bound") };
    let Err(Refusal::NoChunk(mut list)) = depot.put(list, PAGES, u32::MAX) else { panic!("the array is full") };
    assert_eq!(list.pop().map(|block| block.address()), Some(first), "it is given back");
    assert_eq!((depot.count, depot.pages(), depot.taken_in), (LISTS as u32, full, LISTS as u64));
    assert_eq!(take(&mut depot), lists.last().map(|(_, first)| *first));
}

#[test]
fn g3_odd_blocks_count_beside_the_lists() {
    let (mut depot, mut memory) = (Depot::EMPTY, Memory::new());
    put(&mut depot, &mut memory);
    let (odd, first) = memory.list(TARGET - 1);
    assert!(depot.put_odd(odd, 3, 100).is_ok());
    let (more, _) = memory.list(1);
    let Err(more) = depot.put_odd(more, 1, 100) else { panic!("others wait already") };
    assert_eq!((more.len(), depot.pages(), depot.blocks(TARGET)), (1, PAGES + 3, u64::from(2 * TARGET - 1)));
    let odd: Vec<usize> = core::iter::from_fn(|| depot.pop_odd()).map(|block| block.address()).collect();
    assert_eq!(odd, [first, first + BLOCK, first + 2 * BLOCK]);
    assert_eq!((depot.pages(), depot.blocks(TARGET)), (PAGES, u64::from(TARGET)));
}

/// A byte of a full chunk that something has written over.
#[cfg(feature = "malloc-debug")]
#[test]
fn d7_a_changed_byte_of_a_chunk_is_named() {
    use core::sync::atomic::{AtomicU8, Ordering::Relaxed};
    let (mut memory, mut depot) = (Memory::new(), Depot::EMPTY);
    let chunk = memory.chunk();
    depot.add_chunk(chunk);
    for _ in 0..=LISTS {
        assert!(depot.put(memory.list(TARGET).0, PAGES, u32::MAX).is_ok());
    }
    let sound = |depot: &Depot| depot.audit(TARGET, 1, &|_| ChunkRef::BYTES, &mut |_| Ok(()));
    sound(&depot).unwrap();
    let mut places = Vec::new();
    depot.each_chunk(&mut |span| places.push(span));
    let mut named = 0;
    for byte in places[0].at..places[0].at + places[0].bytes {
        let byte: *mut u8 = core::ptr::with_exposed_provenance_mut(byte);
        // SAFETY: a byte of the chunk, which nobody else reaches.
        let flip = || unsafe { AtomicU8::from_ptr(byte) }.fetch_xor(0x10, Relaxed);
        flip();
        named += usize::from(sound(&depot).is_err());
        flip();
    }
    // A head is eight bytes and its pages are two; beside them there are the next chunk and the seal.
    assert!(named >= 10 * LISTS + 16, "{named} of {} bytes", places[0].bytes);
    sound(&depot).unwrap();
}
