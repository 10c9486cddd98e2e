//! One depot by itself, with lists of blocks that nobody uses, and damage planted in the depots of a heap.

use super::{ChunkRef, Depot, LISTS, Refusal};
use crate::finding::{Finding, Layer};
use crate::heap::list::{Block, List};
use crate::heap::planted_tests::{MARKED, Planted, block, class, linked, relink, swap_into_slab, with_planted};
use crate::os::Fixed;
use core::mem::swap;
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

const SIZE: usize = 64;
const OTHER: usize = 128;

fn depot_finding(rule: &'static str, block: Block) -> Finding {
    Layer::Depot.breaks(rule, block.address())
}

/// Runs `section` with the depot for blocks of `SIZE` bytes.
fn with_depot<R>(planted: &Planted<'_, Fixed>, section: impl FnOnce(&mut Depot) -> R) -> R {
    planted.engine.depots[class(SIZE)].with(section)
}

/// A list of blocks that the first thread takes, and the blocks.
fn listed(planted: &Planted<'_, Fixed>, size: usize, len: u32) -> (List, Vec<Block>) {
    let mut list = List::EMPTY;
    (0..len).for_each(|_| list.push(block(planted.alloc(size))));
    let blocks = linked(list.parts().0);
    (list, blocks)
}

/// Runs `test` with a depot of two lists, whose blocks it gets, and no odd blocks.
fn with_lists(test: impl FnOnce(&Planted<'_, Fixed>, [Vec<Block>; 2])) {
    with_planted(|planted| {
        let target = planted.engine.target(class(SIZE));
        let blocks = [(); 2].map(|()| {
            let (list, blocks) = listed(planted, SIZE, target);
            assert!(with_depot(planted, |depot| depot.put(list, 2, u32::MAX)).is_ok());
            blocks
        });
        test(planted, blocks);
    });
}

#[test]
fn d7_a_depot_list_of_another_length_than_it_counts_is_named() {
    with_lists(|planted, [first, second]| {
        let live = planted.alloc(SIZE);
        let last = second[second.len() - 1];
        planted.find(depot_finding("a list is as long as it counts", first[1]), relink(first[1], None));
        let behind = depot_finding("nothing is linked behind a list's last block", last);
        planted.find(behind, relink(last, Some(block(live))));
        let counts = Layer::Depot.breaks("lists and pages are as many as the depot counts", 0);
        for wrong in [1, 3] {
            let mut other = wrong;
            planted.find(counts, || with_depot(planted, |depot| swap(&mut depot.count, &mut other)));
        }
        for wrong in [3, 5, u32::MAX] {
            let mut other = wrong;
            planted.find(counts, || with_depot(planted, |depot| swap(&mut depot.pages, &mut other)));
        }
        let mut other = 1;
        planted.find(counts, || with_depot(planted, |depot| swap(&mut depot.len, &mut other)));
        let mut other = None;
        let headless = Layer::Depot.breaks("a list has a head", 0);
        planted.find(headless, || with_depot(planted, |depot| swap(&mut depot.lists.heads[1], &mut other)));
        planted.free(SIZE, &[live]);
    });
}

#[test]
fn d7_odd_blocks_of_another_number_than_is_counted_are_named() {
    with_planted(|planted| {
        let target = planted.engine.target(class(SIZE));
        let (odd, blocks) = listed(planted, SIZE, 5);
        assert!(with_depot(planted, |depot| depot.put_odd(odd, 2, u32::MAX)).is_ok());
        for (len, finding) in [
            (4, depot_finding("nothing is linked behind a list's last block", blocks[3])),
            (6, depot_finding("a list is as long as it counts", blocks[4])),
            (target, Layer::Depot.breaks("odd blocks are too few for a list", 0)),
        ] {
            let mut other = List::from_parts(Some(blocks[0]), len);
            planted.find(finding, || with_depot(planted, |depot| swap(&mut depot.odd, &mut other)));
        }
        let counts = Layer::Depot.breaks("lists and pages are as many as the depot counts", 0);
        let mut other = 1;
        planted.find(counts, || with_depot(planted, |depot| swap(&mut depot.odd_pages, &mut other)));
    });
}

#[test]
fn d7_a_depot_list_that_crosses_classes_is_named() {
    with_lists(|planted, [first, second]| {
        let foreign = planted.alloc(OTHER);
        let (other, len) = (block(foreign), second.len());
        let found = depot_finding("a free block is one of a slab of its class", other);
        // In place of the last one, so that the list has its length; and as the head of another.
        planted.find(found, relink(second[len - 2], Some(other)));
        let mut head = Some(other);
        planted.find(found, || with_depot(planted, |depot| swap(&mut depot.lists.heads[0], &mut head)));
        assert_eq!(with_depot(planted, |depot| depot.lists.heads[0]), Some(first[0]));
        planted.free(OTHER, &[foreign]);
    });
}

#[test]
fn d7_a_cycle_in_a_depot_list_is_named() {
    with_lists(|planted, [_, blocks]| {
        let len = blocks.len();
        let behind = |at: usize| depot_finding("nothing is linked behind a list's last block", blocks[at]);
        planted.find(behind(len - 1), relink(blocks[len - 1], Some(blocks[0])));
        planted.find(behind(len - 1), relink(blocks[len - 1], Some(blocks[len - 1])));
        // Closed earlier: where blocks are marked, the first one that comes again is named.
        let (from, to) = (20, 5);
        let again = depot_finding("a free block is in one list", blocks[to]);
        let found = if MARKED { again } else { behind(to + (len - 1 - to) % (from - to + 1)) };
        planted.find(found, relink(blocks[from], Some(blocks[to])));
    });
}

#[test]
fn d7_a_block_in_two_depot_lists_is_named() {
    with_lists(|planted, [first, second]| {
        let len = first.len();
        // Both have their length, and the same end.
        let found = MARKED.then_some(depot_finding("a free block is in one list", first[len - 3]));
        planted.find_each(found, found, relink(second[len - 4], Some(first[len - 3])));
        // The same list twice.
        let (found, mut head) = (found.map(|_| depot_finding("a free block is in one list", first[0])), Some(first[0]));
        planted.find_each(found, found, || with_depot(planted, |depot| swap(&mut depot.lists.heads[1], &mut head)));
    });
}

/// The lists of lists: two full chunks, and then two empty ones.
#[test]
fn d7_a_cycle_in_the_list_of_lists_is_named() {
    with_planted(|planted| {
        let target = planted.engine.target(class(SIZE));
        for _ in 0..=2 * LISTS {
            let (list, _) = listed(planted, SIZE, target);
            if let Err(Refusal::NoChunk(list)) = with_depot(planted, |depot| depot.put(list, 1, u32::MAX)) {
                let memory = planted.engine.carve_record(ChunkRef::BYTES).expect("memory");
                // SAFETY: fresh, of that size, and for this depot alone.
                let chunk = unsafe { ChunkRef::create(memory) };
                with_depot(planted, |depot| depot.add_chunk(chunk));
                assert!(with_depot(planted, |depot| depot.put(list, 1, u32::MAX)).is_ok());
            }
        }
        let newest = with_depot(planted, |depot| depot.older).expect("a full chunk");
        find_in_chunks(planted, newest, newest, "a list of full chunks has an end");
        let lists: Vec<List> = core::iter::from_fn(|| with_depot(planted, |depot| depot.take(target))).collect();
        assert_eq!(lists.len(), 2 * LISTS + 1);
        let newest = with_depot(planted, |depot| depot.spare).expect("an empty chunk");
        let records = planted.engine.records.with(|records| records.bytes) / 64;
        let again = if records.is_multiple_of(2) { newest } else { below(newest).expect("two") };
        find_in_chunks(planted, newest, again, "a list of empty chunks has an end");
        lists.into_iter().for_each(|list| planted.engine.sort(class(SIZE), list));
    });
}

fn below(chunk: ChunkRef) -> Option<ChunkRef> {
    chunk.with(|memory| memory.older)
}

/// Closes a list of two chunks behind its second, so that `again` comes once more than there may be; and lets its first one
/// link to where no chunk is, which is not followed.
fn find_in_chunks(planted: &Planted<'_, Fixed>, newest: ChunkRef, again: ChunkRef, rule: &'static str) {
    let oldest = below(newest).expect("two chunks");
    assert!(below(oldest).is_none());
    let relink = |chunk: ChunkRef, next: Option<ChunkRef>| {
        let mut other = next;
        move || chunk.write(|memory| swap(&mut memory.older, &mut other))
    };
    planted.find(Layer::Depot.breaks(rule, again.address()), relink(oldest, Some(newest)));
    let live = planted.alloc(SIZE);
    for at in [64, usize::MAX - 63, newest.address() + 8, live.as_ptr() as usize & !63] {
        let nowhere = ChunkRef(NonNull::new(core::ptr::with_exposed_provenance_mut(at)).expect("an address"));
        let found = Layer::Depot.breaks("a chunk holds what was written there", at);
        planted.find(found, relink(newest, Some(nowhere)));
    }
    planted.free(SIZE, &[live]);
}

#[test]
fn d7_a_block_in_the_depot_and_in_its_slab_is_named() {
    with_lists(|planted, [first, second]| {
        let twice = first.iter().chain(&second).min_by_key(|block| block.address()).copied().expect("blocks");
        let found = depot_finding("a free block is in one place, and this one is in its slab", twice);
        planted.find(found, swap_into_slab(planted, SIZE, twice));
    });
}
