//! Damage planted among the slabs.

use super::{Place, SlabRef, Slabs, chain};
use crate::finding::{Finding, Layer};
use crate::heap::batch::Returns;
use crate::heap::kept::{Kept, Word};
use crate::heap::map::Entry;
use crate::heap::planted_tests::{MARKED, Planted, class, with_planted};
use crate::os::Fixed;
use core::mem::swap;
use core::ptr::NonNull;
use std::vec::Vec;

/// Blocks of which a slab has many, and few.
const SMALL: usize = 64;
const LARGE: usize = 2048;

fn slab_finding(rule: &'static str, slab: SlabRef) -> Finding {
    Layer::Slabs.breaks(rule, slab.base)
}

/// What an audit finds beside others only where there is a roster.
fn find_by_roster(planted: &Planted<'_, Fixed>, finding: Finding, swap: impl FnMut()) {
    planted.find_each(MARKED.then_some(finding), Some(finding), swap);
}

/// Swaps what is in a word of a record for `value`, with its copy.
fn swap_kept<T: Word>(kept: &Kept<T>, value: T) -> impl FnMut() {
    let mut other = value;
    move || other = kept.replace(other)
}

fn with_slabs<R>(planted: &Planted<'_, Fixed>, size: usize, section: impl FnOnce(&mut Slabs) -> R) -> R {
    planted.engine.slabs[class(size)].with(section)
}

fn slab_of(planted: &Planted<'_, Fixed>, block: NonNull<u8>) -> SlabRef {
    let Entry::Slab(slab) = planted.engine.map.look_up(block.as_ptr() as usize) else { panic!("in no slab") };
    slab
}

/// Runs `test` with a slab of small blocks, some of which are free.
fn with_slab(test: impl FnOnce(&Planted<'_, Fixed>, SlabRef)) {
    with_planted(|planted| {
        let live = planted.alloc(SMALL);
        let slab = slab_of(planted, live);
        assert!(slab.free.get() > 0 && slab.place.get() == Place::binned(slab.bin()));
        test(planted, slab);
        planted.free(SMALL, &[live]);
    });
}

/// Runs `test` with three slabs of large blocks, of two of which a page's worth is free: so both lie in one bin and among those
/// to purge, the second one first in the bin and last in the queue.
fn with_slabs_in_lists(test: impl FnOnce(&Planted<'_, Fixed>, [SlabRef; 3])) {
    with_planted(|planted| {
        let in_slab = class(LARGE).slab_blocks(12);
        let live: Vec<_> = (0..3 * in_slab).map(|_| planted.alloc(LARGE)).collect();
        let slabs = [0, in_slab, 2 * in_slab].map(|at| slab_of(planted, live[at]));
        let [first, second, _] = slabs;
        for slab in [first, second] {
            let mut returns = Returns::new();
            (0..2).for_each(|index| returns.push(slab, index));
            planted.engine.with_slabs(class(LARGE), |slabs| slabs.sort(&returns, 0));
        }
        let (next, later) = (second.next.get(), first.later.get());
        assert_eq!((next, later, first.place.get()), (Some(first), Some(second), second.place.get()));
        test(planted, slabs);
    });
}

#[test]
fn d7_a_slab_with_another_number_of_free_blocks_than_it_counts_is_named() {
    with_slab(|planted, slab| {
        let found = slab_finding("a slab has as many free blocks as it counts", slab);
        let free = slab.free.get();
        [free - 1, free + 1, 0, u32::MAX]
            .into_iter()
            .for_each(|wrong| planted.find(found, swap_kept(&slab.free, wrong)));
        let first = slab.word(0).get();
        planted.find(found, swap_kept(slab.word(0), first ^ 1));
        // Of a slab in no bin.
        let all: Vec<_> = (0..slab.free.get()).map(|_| planted.alloc(SMALL)).collect();
        let full = slab_of(planted, all[0]);
        assert_eq!((full, full.place.get(), full.free.get()), (slab, Place::FULL, 0));
        find_by_roster(planted, found, swap_kept(&slab.free, 1));
        planted.free(SMALL, &all);
    });
}

#[test]
fn d7_slabs_and_blocks_outside_that_are_not_as_many_as_are_counted_are_named() {
    with_slab(|planted, _| {
        let count = match MARKED {
            true => "slabs are as many as are counted",
            false => "slabs are as many as the page map has",
        };
        let beside = MARKED.then_some(Layer::Slabs.breaks(count, 0));
        let alone = Some(Layer::Slabs.breaks("slabs are as many as the page map has", 0));
        let mut other = 2;
        planted.find_each(beside, alone, || with_slabs(planted, SMALL, |slabs| swap(&mut slabs.count, &mut other)));
        let (out, mut other) = (Layer::Slabs.breaks("blocks outside are as many as the slabs lack", 0), 0);
        find_by_roster(planted, out, || with_slabs(planted, SMALL, |slabs| swap(&mut slabs.blocks_out, &mut other)));
        let pages = Layer::Slabs.breaks("idle and untouched pages are as many as the slabs have", 0);
        let mut other = 0;
        find_by_roster(planted, pages, || {
            with_slabs(planted, SMALL, |slabs| swap(&mut slabs.untouched_pages, &mut other));
        });
    });
}

#[test]
fn d7_a_slab_whose_bits_contradict_each_other_is_named() {
    with_slab(|planted, slab| {
        let found = |rule| slab_finding(rule, slab);
        let (first, pages) = ("no block is free before the first free one", slab.pages);
        // The blocks of word 0 are out.
        [2, u32::MAX].into_iter().for_each(|hint| planted.find(found(first), swap_kept(&slab.hint, hint)));
        let (empty, touched) = (slab.empty.get(), slab.touched.get());
        let counts = found("a page of a slab counts as empty if no block outside lies in it");
        planted.find(counts, swap_kept(&slab.empty, empty ^ 1));
        planted.find(counts, swap_kept(&slab.empty, empty ^ 1 << (pages - 1)));
        planted.find(found("pages with blocks outside count as touched"), swap_kept(&slab.touched, touched & !1));
        planted.find(found("no page lies behind a slab's last"), swap_kept(&slab.touched, touched | 1 << pages));
    });
}

/// Blocks that there is no room for in a slab.
#[test]
fn d7_a_block_behind_the_last_of_a_slab_is_named() {
    with_slabs_in_lists(|planted, [slab, ..]| {
        let behind = slab.word(0).get() | 1 << slab.blocks;
        let (mut word, mut free) = (swap_kept(slab.word(0), behind), swap_kept(&slab.free, slab.free.get() + 1));
        planted.find(slab_finding("no block lies behind a slab's last", slab), || {
            word();
            free();
        });
    });
}

#[test]
fn d7_a_slab_that_its_list_lacks_is_named() {
    with_slabs_in_lists(|planted, [first, second, third]| {
        let lacks = Layer::Slabs.breaks("slabs with free blocks, and those to purge, are in their lists", 0);
        find_by_roster(planted, lacks, swap_kept(&second.next, None));
        let (mut later, mut latest) = (swap_kept(&first.later, None), Some(first));
        find_by_roster(planted, lacks, || {
            later();
            with_slabs(planted, LARGE, |slabs| swap(&mut slabs.latest, &mut latest));
        });
        let last = Layer::Slabs.breaks("the last slab to purge is the last in the list", 0);
        planted.find(last, swap_kept(&first.later, None));
        let idle = |slab| slab_finding("slabs to purge have pages to purge", slab);
        planted.find(idle(second), swap_kept(&second.queued, 0));
        planted.find(idle(third), swap_kept(&second.later, Some(third)));
    });
}

#[test]
fn d7_a_slab_in_the_wrong_bin_is_named() {
    with_slab(|planted, slab| {
        let found = slab_finding("a slab lies in the bin for its free blocks", slab);
        let right = slab.bin();
        for wrong in [right - 1, right + 1, 0] {
            // The bin, its mark, and what the slab says of it: any of them, and all.
            let mut place = swap_kept(&slab.place, Place::binned(wrong));
            let mut bins = || with_slabs(planted, SMALL, |slabs| slabs.bins.swap(right as usize, wrong as usize));
            let mut marks = || with_slabs(planted, SMALL, |slabs| slabs.filled ^= 1 << right | 1 << wrong);
            planted.find(found, &mut place);
            planted.find(found, || {
                bins();
                marks();
            });
            planted.find(found, || {
                bins();
                marks();
                place();
            });
            let filled = Layer::Slabs.breaks("a bin is marked as filled if it has slabs", 0);
            planted.find(filled, &mut marks);
            planted.find(filled, &mut bins);
        }
        planted.find(found, swap_kept(&slab.place, Place::FULL));
    });
}

#[test]
fn d7_a_cycle_of_slabs_is_named() {
    with_slabs_in_lists(|planted, [first, second, _]| {
        let again = |slab| slab_finding("neighbours in a bin know each other", slab);
        planted.find(again(second), swap_kept(&first.next, Some(second)));
        planted.find(again(first), swap_kept(&first.next, Some(first)));
        let (mut next, mut prev) = (swap_kept(&first.next, Some(second)), swap_kept(&second.prev, Some(first)));
        planted.find(again(second), || {
            next();
            prev();
        });
        let again = |slab| slab_finding("neighbours among those to purge know each other", slab);
        planted.find(again(first), swap_kept(&second.later, Some(first)));
        planted.find(again(second), swap_kept(&second.later, Some(second)));
    });
}

/// A cycle in the roster of all slabs, full ones included.
#[cfg(feature = "malloc-debug")]
#[test]
fn d7_a_cycle_in_the_roster_is_named() {
    with_slabs_in_lists(|planted, [first, second, third]| {
        let found = Layer::Slabs.breaks("a list of slabs has an end", first.address());
        let mut sound = true;
        planted.find(found, || {
            with_slabs(planted, LARGE, |slabs| {
                if core::mem::replace(&mut sound, false) {
                    // It is the last one.
                    return slabs.roster.enter(first);
                }
                slabs.roster = crate::heap::roster::Roster::EMPTY;
                [first, second, third].into_iter().for_each(|slab| slabs.roster.enter(slab));
            });
        });
    });
}

#[test]
fn d7_a_cycle_of_spare_records_is_named() {
    with_planted(|planted| {
        // Both slabs of small blocks go, and leave their records.
        let all: Vec<_> = (0..2 * class(SMALL).slab_blocks(12)).map(|_| planted.alloc(SMALL)).collect();
        planted.free(SMALL, &all);
        planted.heap().collect();
        let spare: Vec<_> = with_slabs(planted, SMALL, |slabs| chain(slabs.spare).collect());
        let [newest, oldest] = spare[..] else { panic!("two spare records, not {spare:?}") };
        let records = planted.engine.records.with(|records| records.bytes) / 64;
        let again = if records.is_multiple_of(2) { newest } else { oldest };
        let found = Layer::Slabs.breaks("a list of spare records has an end", again.address());
        planted.find(found, swap_kept(&oldest.next, Some(newest)));
        for slab in nowhere(planted, newest) {
            let found = Layer::Slabs.breaks("spare records are linked as they were", slab.address());
            planted.find(found, swap_kept(&oldest.next, Some(slab)));
        }
    });
}

/// Where no record can be, in the heap and outside of it.
fn nowhere(planted: &Planted<'_, Fixed>, slab: SlabRef) -> impl Iterator<Item = SlabRef> {
    let user = planted.engine.map.address_of(slab.first());
    [64, usize::MAX - 63, slab.address() + 8, user].into_iter().filter_map(SlabRef::from_address)
}

/// Links to where no record is are not followed.
#[test]
fn d7_a_slab_whose_record_lies_nowhere_is_named() {
    with_slabs_in_lists(|planted, [first, second, _]| {
        for slab in nowhere(planted, first) {
            let found = Layer::Slabs.breaks("slabs in bins have the records of their class", slab.address());
            planted.find(found, swap_kept(&first.next, Some(slab)));
            let found = Layer::Slabs.breaks("slabs to purge have the records of their class", slab.address());
            planted.find(found, swap_kept(&second.later, Some(slab)));
            let mut head = Some(slab);
            planted.find(found, || with_slabs(planted, LARGE, |slabs| swap(&mut slabs.soonest, &mut head)));
        }
    });
}
