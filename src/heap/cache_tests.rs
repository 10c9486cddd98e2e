//! Damage planted in the lists of a cache.

use super::{Bin, PAGE_LISTS};
use crate::finding::{Finding, Layer};
use crate::heap::list::{Block, List};
use crate::heap::planted_tests::{
    MARKED, PAGE, Planted, block, class, linked, relink, swap_cell, swap_into_slab, with_planted,
};
use crate::os::Fixed;
use crate::sync::Relaxed;
use core::ptr::NonNull;
use std::vec::Vec;

const SIZE: usize = 64;
const OTHER: usize = 128;

fn cache_finding(rule: &'static str, block: Block) -> Finding {
    Layer::Cache.breaks(rule, block.address())
}

/// The first thread's `main` for blocks of `size` bytes.
fn main_of<'a>(planted: &Planted<'a, Fixed>, size: usize) -> Bin<'a> {
    planted.caches[0].main(class(size))
}

/// Runs `test` with a block of `SIZE` bytes that is live, so that `main` has room for it, and the blocks of `main`.
fn with_main(test: impl FnOnce(&Planted<'_, Fixed>, NonNull<u8>, &[Block])) {
    with_planted(|planted| {
        let live = planted.alloc(SIZE);
        let blocks = linked(main_of(planted, SIZE).head.get());
        assert_eq!(blocks.len() as u32 + 1, planted.engine.target(class(SIZE)));
        test(planted, live, &blocks);
        planted.free(SIZE, &[live]);
    });
}

#[test]
fn d7_a_cache_list_of_another_length_than_it_counts_is_named() {
    with_main(|planted, live, blocks| {
        let (main, len) = (main_of(planted, SIZE), blocks.len());
        let (last, before) = (blocks[len - 1], blocks[len - 2]);
        let short = |at| cache_finding("a list is as long as it counts", at);
        let long = |at| cache_finding("nothing is linked behind a list's last block", at);
        planted.find(short(last), swap_cell(main.room, 0));
        planted.find(long(before), swap_cell(main.room, 2));
        planted.find(short(before), relink(before, None));
        planted.find(long(last), relink(last, Some(block(live))));
        planted.find(Layer::Cache.breaks("a list is as long as it counts", 0), swap_cell(main.head, None));
        let room = Layer::Cache.breaks("a list has room for no more than it may hold", 0);
        planted.find(room, swap_cell(main.room, len as i32 + 2));
    });
}

#[test]
fn d7_full_lists_beside_main_are_audited_as_it_is() {
    with_planted(|planted| {
        let (cache, target) = (&planted.caches[0], planted.engine.target(class(SIZE)));
        let blocks: Vec<_> = (0..2 * target).map(|_| planted.alloc(SIZE)).collect();
        planted.free(SIZE, &blocks);
        let side = cache.side(class(SIZE));
        assert_eq!(side.len(), 1, "there is a full list");
        let list = linked(NonNull::new(side.slot(side.oldest.get()).head.load(Relaxed)).map(block));
        let third = list[2];
        planted.find(cache_finding("a list is as long as it counts", third), relink(third, None));
        let beyond = cache_finding("full lists lie in their part of the ring", list[0]);
        planted.find(beyond, swap_cell(&side.newest, side.oldest.get()));
        let pages = Layer::Cache.breaks("full lists count for as many pages as they may lie in", 0);
        planted.find(pages, swap_cell(&cache.full_pages, cache.full_pages.get() - 1));
        let mut other = target - 1;
        planted.find(Layer::Cache.breaks("a list has as many blocks as those of the heap", 0), || {
            let old = side.target.load(Relaxed);
            side.target.store(other, Relaxed);
            other = old;
        });
    });
}

#[test]
fn d7_a_run_list_of_another_length_than_it_counts_is_named() {
    with_planted(|planted| {
        let (cache, size) = (&planted.caches[0], 3 * PAGE);
        let runs: Vec<_> = (0..4).map(|_| planted.alloc(size)).collect();
        planted.free(size, &runs);
        let live = planted.alloc(size);
        let (bin, list) = (cache.run_bin(3), linked(cache.run_bin(3).head.get()));
        assert_eq!((list.len(), bin.room.get()), (3, 1));
        planted.find(cache_finding("a list is as long as it counts", list[2]), swap_cell(bin.room, 0));
        let behind = |at| cache_finding("nothing is linked behind a list's last block", at);
        planted.find(behind(list[1]), swap_cell(bin.room, 2));
        planted.find(behind(list[2]), relink(list[2], Some(list[0])));
        let pages = Layer::Cache.breaks("run lists count for as many pages as they may hold", 0);
        planted.find(pages, swap_cell(&cache.admitted[2], 5));
        planted.find(pages, swap_cell(&cache.admitted[PAGE_LISTS - 1], u32::MAX));
        planted.free(size, &[live]);
    });
}

/// A run that lies in a list, and that the page map says is longer, or free, or no run.
#[test]
fn d7_a_run_in_a_list_of_another_length_is_named() {
    with_planted(|planted| {
        let (cache, of_two, of_three) = (&planted.caches[0], 2 * PAGE, 3 * PAGE);
        let [two, three] = [of_two, of_three].map(|size| planted.alloc(size));
        let more = planted.alloc(of_two);
        planted.free(of_two, &[two]);
        planted.free(of_three, &[three]);
        let found = |at| cache_finding("a run in a list has the length of that list", at);
        planted.find(found(block(three)), swap_cell(cache.run_bin(2).head, Some(block(three))));
        let middle = block(NonNull::new(two.as_ptr().wrapping_add(64)).expect("inside of it"));
        planted.find(found(middle), swap_cell(cache.run_bin(2).head, Some(middle)));
        planted.free(of_two, &[more]);
    });
}

#[test]
fn d7_a_cache_list_that_crosses_classes_is_named() {
    with_main(|planted, _, blocks| {
        let (foreign, main) = (planted.alloc(OTHER), main_of(planted, SIZE));
        let (other, last) = (block(foreign), blocks[blocks.len() - 1]);
        let found = cache_finding("a free block is one of a slab of its class", other);
        planted.find(found, swap_cell(main.head, Some(other)));
        // Counted as one of the list.
        let (mut link, mut count) = (relink(last, Some(other)), swap_cell(main.room, 0));
        planted.find(found, || [&mut link as &mut dyn FnMut(), &mut count].into_iter().for_each(|swap| swap()));
        planted.free(OTHER, &[foreign]);
    });
}

/// Links to where no block begins, in the heap and outside: nothing is read there.
#[test]
fn d7_a_link_to_where_no_block_begins_is_not_followed() {
    with_main(|planted, _, blocks| {
        let (last, run) = (blocks[0], planted.alloc(20 * PAGE));
        let within = last.as_ptr().wrapping_add(8);
        for (at, rule) in [
            (within, "a free block is one of a slab of its class"),
            (run.as_ptr(), "a free block lies in a slab"),
            (core::ptr::without_provenance_mut(8), "a free block lies in a slab"),
            (core::ptr::without_provenance_mut(usize::MAX - 7), "a free block lies in a slab"),
        ] {
            let at = block(NonNull::new(at).expect("an address"));
            planted.find(cache_finding(rule, at), relink(last, Some(at)));
        }
        planted.free(20 * PAGE, &[run]);
    });
}

#[test]
fn d7_a_cycle_in_a_cache_list_is_named() {
    with_main(|planted, _, blocks| {
        let len = blocks.len();
        // Closed by the last one, to the first or to itself.
        for to in [0, len - 1] {
            let last = blocks[len - 1];
            let found = cache_finding("nothing is linked behind a list's last block", last);
            planted.find(found, relink(last, Some(blocks[to])));
        }
        // Closed earlier: where blocks are marked, the first one that comes again is named.
        for (from, to) in [(4, 4), (9, 0), (30, 17)] {
            let last = to + (len - 1 - to) % (from - to + 1);
            let found = match MARKED {
                true => cache_finding("a free block is in one list", blocks[to]),
                false => cache_finding("nothing is linked behind a list's last block", blocks[last]),
            };
            planted.find(found, relink(blocks[from], Some(blocks[to])));
        }
    });
}

/// The last block of the first thread's `main`, counted as one of another list, too.
fn find_in_two_lists(
    planted: &Planted<'_, Fixed>,
    blocks: &[Block],
    list: &[Block],
    room: &core::cell::Cell<i32>,
    beside: bool,
) {
    let (twice, end) = (blocks[blocks.len() - 1], list[list.len() - 1]);
    let (mut link, mut count) = (relink(end, Some(twice)), swap_cell(room, room.get() - 1));
    let found = MARKED.then_some(cache_finding("a free block is in one list", twice));
    planted.find_each(found.filter(|_| beside), found, || {
        link();
        count();
    });
}

#[test]
fn d7_a_block_in_two_caches_is_named() {
    with_main(|planted, _, blocks| {
        let second = &planted.caches[1];
        // A live block of the second thread's, so that its list has room.
        let live = planted.engine.refill(second, class(SIZE));
        let list = linked(second.main(class(SIZE)).head.get());
        // Beside others their lists are not looked at.
        find_in_two_lists(planted, blocks, &list, second.main(class(SIZE)).room, false);
        assert!(second.push(class(SIZE), block(NonNull::new(live).expect("a block"))));
    });
}

#[test]
fn d7_a_run_in_two_caches_is_named() {
    with_planted(|planted| {
        let [first, second] = planted.caches;
        let run = planted.alloc(2 * PAGE);
        planted.free(2 * PAGE, &[run]);
        let (mut head, mut count) =
            (swap_cell(second.run_bin(2).head, Some(block(run))), swap_cell(&second.admitted[1], 1));
        let mut pages = swap_cell(&second.run_pages, 2);
        assert_eq!(first.run_bin(2).head.get(), Some(block(run)));
        let found = MARKED.then_some(cache_finding("a run is in one list", block(run)));
        planted.find_each(None, found, || {
            head();
            count();
            pages();
        });
    });
}

#[test]
fn d7_a_block_in_two_lists_of_a_cache_is_named() {
    with_planted(|planted| {
        let (cache, target) = (&planted.caches[0], planted.engine.target(class(SIZE)));
        let blocks: Vec<_> = (0..2 * target).map(|_| planted.alloc(SIZE)).collect();
        planted.free(SIZE, &blocks);
        let live = planted.alloc(SIZE);
        let (main, side) = (main_of(planted, SIZE), cache.side(class(SIZE)));
        let full = linked(NonNull::new(side.slot(side.oldest.get()).head.load(Relaxed)).map(block));
        find_in_two_lists(planted, &full, &linked(main.head.get()), main.room, true);
        planted.free(SIZE, &[live]);
    });
}

#[test]
fn d7_a_block_in_a_cache_and_the_depot_is_named() {
    with_main(|planted, _, blocks| {
        let (depot, main) = (&planted.engine.depots[class(SIZE)], main_of(planted, SIZE));
        // The first of `main` become odd blocks.
        let mut odd = List::EMPTY;
        (0..3).for_each(|_| odd.push(block(planted.alloc(SIZE))));
        let given = linked(odd.parts().0);
        assert!(depot.with(|depot| depot.put_odd(odd, 1, 1)).is_ok());
        find_in_two_lists(planted, &given, &blocks[3..], main.room, true);
    });
}

#[test]
fn d7_a_block_in_a_cache_and_in_its_slab_is_named() {
    with_main(|planted, live, _| {
        planted.free(SIZE, &[live]);
        let twice = main_of(planted, SIZE).head.get().expect("it was freed last");
        let found = cache_finding("a free block is in one place, and this one is in its slab", twice);
        planted.find(found, swap_into_slab(planted, SIZE, twice));
        assert_eq!(planted.alloc(SIZE), live);
    });
}
