//! Damage planted between the page map, the runs, and those who have some of them.

use super::{Entry, FreeRun, Map, Page, SLAB, Stretch, sealed};
use crate::finding::{Finding, Layer};
use crate::heap::kept::Kept;
use crate::heap::planted_tests::{PAGE, Planted, swap_entries, with_planted};
use crate::os::Fixed;
use crate::sync::Relaxed;
use core::mem::swap;
use core::ptr::NonNull;

/// Pages of runs that pass through no list.
const PAGES: u32 = 20;
const SIZE: usize = PAGES as usize * PAGE;

/// A run that was free, and of which a part was handed out again: what is in use, and what is left.
const TAKEN: u32 = 17;
const LEFT: u32 = PAGES - TAKEN;

const ENDS: &str = "a run's last page has the entry that its first one asks for";

fn run_finding(rule: &'static str, planted: &Planted<'_, Fixed>, run: Stretch) -> Finding {
    Layer::Runs.breaks(rule, planted.engine.map.address_of(run.first))
}

fn map_finding(rule: &'static str, planted: &Planted<'_, Fixed>, run: Stretch) -> Finding {
    Layer::Map.breaks(rule, planted.engine.map.address_of(run.first))
}

/// Swaps the first and the last entry of a run.
fn swap_ends(map: &Map, run: Stretch, first: Entry, last: Entry) -> impl FnMut() {
    swap_entries(map, [(run.first, first), (run.first + run.pages - 1, last)])
}

fn swap_link(link: &Kept<Page>, page: Page) -> impl FnMut() {
    let mut other = page;
    move || other = link.replace(other)
}

fn alloc(planted: &Planted<'_, Fixed>, pages: u32) -> Stretch {
    let first = planted.engine.map.page_of(planted.alloc(pages as usize * PAGE).as_ptr() as usize);
    Stretch { first, pages }
}

fn free(planted: &Planted<'_, Fixed>, run: Stretch) {
    let at = core::ptr::with_exposed_provenance_mut(planted.engine.map.address_of(run.first));
    planted.free(run.pages as usize * PAGE, &[NonNull::new(at).expect("an address")]);
}

/// Runs `test` with two free runs, each between two in use.
fn with_holes(test: impl FnOnce(&Planted<'_, Fixed>, [Stretch; 5])) {
    with_planted(|planted| {
        let runs = [(); 5].map(|()| alloc(planted, PAGES));
        assert!(runs.windows(2).all(|pair| pair[0].first + PAGES == pair[1].first), "side by side: {runs:?}");
        [runs[1], runs[3]].into_iter().for_each(|run| free(planted, run));
        test(planted, runs);
    });
}

#[test]
fn d7_a_free_run_that_the_map_says_is_in_use_is_named() {
    with_holes(|planted, [_, hole, ..]| {
        let map = &planted.engine.map;
        let found = run_finding("runs in bins are free", planted, hole);
        planted.find(found, swap_ends(map, hole, Entry::Run(PAGES), Entry::RunEnd));
        planted.find(found, swap_ends(map, hole, Entry::Kept(PAGES), Entry::RunEnd));
        planted.find(found, swap_ends(map, hole, Entry::None, Entry::None));
        // By its first page alone, or its last.
        let beside = map_finding("no page of a run in use is free", planted, hole);
        let alone = map_finding(ENDS, planted, hole);
        planted.find_each(Some(beside), Some(alone), swap_entries(map, [(hole.first, Entry::Run(PAGES))]));
        planted.find(alone, swap_entries(map, [(hole.first + PAGES - 1, Entry::RunEnd)]));
    });
}

#[test]
fn d7_a_run_in_use_that_the_map_says_is_free_is_named() {
    with_holes(|planted, [used, hole, between, ..]| {
        let map = &planted.engine.map;
        let found = |run| run_finding("a run is found in its bin", planted, run);
        planted.find(found(used), swap_ends(map, used, Entry::Free(PAGES), Entry::Free(PAGES)));
        planted.find(found(between), swap_ends(map, between, Entry::Free(PAGES), Entry::Free(PAGES)));
        // By a page within.
        let within = map_finding("no page of a run in use is free", planted, used);
        let alone = map_finding("pages within a run have no entry", planted, used);
        planted.find_each(Some(within), Some(alone), swap_entries(map, [(used.first + 5, Entry::Free(1))]));
        // As long as both together.
        let both = Stretch { first: hole.first, pages: 2 * PAGES };
        let (mut ends, free) = (swap_ends(map, both, Entry::Free(2 * PAGES), Entry::Free(2 * PAGES)), Entry::None);
        let mut inner = swap_entries(map, [(between.first - 1, free), (between.first, free)]);
        planted.find(found(both), || {
            ends();
            inner();
        });
    });
}

/// A run of a thread's list whose pages the map says are free: they could be handed out twice.
#[test]
fn d7_a_run_in_a_list_that_the_map_says_is_free_is_named() {
    with_planted(|planted| {
        let [run, behind] = [(); 2].map(|()| alloc(planted, 2));
        free(planted, run);
        let map = &planted.engine.map;
        let found = run_finding("a run is found in its bin", planted, run);
        planted.find(found, swap_ends(map, run, Entry::Free(2), Entry::Free(2)));
        let length = Layer::Cache.breaks("a run in a list has the length of that list", map.address_of(run.first));
        let alone = map_finding("pages within a run have no entry", planted, run);
        let mut longer = swap_entries(map, [(run.first, Entry::Run(4))]);
        planted.find_each(Some(length), Some(alone), &mut longer);
        free(planted, behind);
    });
}

/// Runs `test` with the parts of a split run.
fn with_split(test: impl FnOnce(&Planted<'_, Fixed>, Stretch, Stretch)) {
    with_holes(|planted, [_, hole, ..]| {
        let taken = alloc(planted, TAKEN);
        assert_eq!(taken.first, hole.first, "it is the best fit");
        let left = Stretch { first: taken.first + TAKEN, pages: LEFT };
        assert_eq!(planted.engine.map.entry(left.first), Entry::Free(LEFT));
        test(planted, taken, left);
    });
}

#[test]
fn d7_a_length_that_is_older_than_a_split_is_named() {
    with_split(|planted, taken, left| {
        let map = &planted.engine.map;
        // The part in use has its old length, by its first entry alone, or by both.
        let beside = Some(map_finding("no page of a run in use is free", planted, taken));
        let ends = Some(map_finding(ENDS, planted, taken));
        planted.find_each(beside, ends, swap_entries(map, [(taken.first, Entry::Run(PAGES))]));
        let whole = Stretch { first: taken.first, pages: PAGES };
        let within = Some(map_finding("pages within a run have no entry", planted, taken));
        planted.find_each(beside, within, swap_ends(map, whole, Entry::Run(PAGES), Entry::RunEnd));
        // So does the free part, by either entry, or by both.
        let end = left.first + LEFT - 1;
        let ends = map_finding(ENDS, planted, left);
        planted.find(ends, swap_entries(map, [(left.first, Entry::Free(PAGES))]));
        planted.find(ends, swap_entries(map, [(end, Entry::Free(PAGES))]));
        planted.find(ends, swap_ends(map, left, Entry::Free(PAGES), Entry::Free(PAGES)));
        // Or a shorter one, which is in no bin.
        let found = run_finding("a run is found in its bin", planted, left);
        planted.find(found, swap_ends(map, left, Entry::Free(1), Entry::Free(1)));
    });
}

/// Both parts are in use: beside others, whose runs may be on their way, that is not looked at.
#[test]
fn d7_a_length_that_is_older_than_a_split_is_named_where_both_parts_are_in_use() {
    with_split(|planted, taken, left| {
        let rest = alloc(planted, LEFT);
        assert_eq!(rest.first, left.first);
        let within = map_finding("pages within a run have no entry", planted, taken);
        let stale = swap_entries(&planted.engine.map, [(taken.first, Entry::Run(PAGES))]);
        planted.find_each(None, Some(within), stale);
        free(planted, rest);
    });
}

fn record<'a>(planted: &Planted<'a, Fixed>, run: Stretch) -> &'a FreeRun {
    planted.engine.map.free_run(run.first)
}

/// Two runs of one length: the second one lies below the first in their bin, and behind it in the queue.
#[test]
fn d7_a_cycle_in_a_bin_or_in_the_queue_of_runs_is_named() {
    with_holes(|planted, [_, first, used, second, _]| {
        let (upper, lower) = (record(planted, first), record(planted, second));
        let side = usize::from(upper.child[1].get() == second.first);
        assert_eq!((upper.child[side].get(), lower.parent.get()), (second.first, first.first));
        let upwards = |run| run_finding("a run in a bin knows the one above it", planted, run);
        for turn in 0..2 {
            planted.find(upwards(first), swap_link(&lower.child[turn], first.first));
            planted.find(upwards(second), swap_link(&lower.child[turn], second.first));
        }
        planted.find(upwards(second), swap_link(&lower.parent, second.first));
        planted.find(upwards(first), swap_link(&upper.parent, second.first));
        let twice = run_finding("a bin has each run once", planted, second);
        planted.find(twice, swap_link(&upper.child[1 - side], second.first));
        planted.find(run_finding("a run is found in its bin", planted, second), swap_link(&upper.child[side], 0));

        assert_eq!((upper.newer.get(), lower.older.get()), (second.first, first.first));
        let once = |run| run_finding("each dirty run is once in its queue", planted, run);
        let known = |run| run_finding("neighbours in a queue know each other", planted, run);
        planted.find(once(first), swap_link(&lower.newer, first.first));
        planted.find(once(second), swap_link(&lower.newer, second.first));
        planted.find(known(second), swap_link(&lower.older, second.first));
        planted.find(Layer::Runs.breaks("every dirty run is in its queue", 0), swap_link(&upper.newer, 0));
        // To a run in use, and to pages that there are none of.
        for page in [used.first, u32::MAX, 1] {
            let at = Stretch { first: page, pages: 1 };
            planted.find(run_finding("runs in bins are free", planted, at), swap_link(&lower.child[0], page));
            planted.find(run_finding("runs to purge are free", planted, at), swap_link(&lower.newer, page));
        }
    });
}

#[test]
fn d7_pages_of_runs_that_are_not_as_many_as_are_counted_are_named() {
    with_holes(|planted, [_, hole, ..]| {
        let dirty = run_finding("a free run has as many dirty pages as it counts", planted, hole);
        [0, PAGES - 1, u32::MAX].into_iter().for_each(|wrong| {
            let (record, mut other) = (record(planted, hole), wrong);
            planted.find(dirty, || other = record.dirty.replace(other));
        });
        let (engine, mut free, mut dirty, mut mapped) = (planted.engine, 1, 0, 1);
        let counts = Layer::Runs.breaks("free and dirty pages are as many as the page map has", 0);
        planted.find(counts, || engine.runs.with(|runs| swap(&mut runs.free_pages, &mut free)));
        planted.find(counts, || engine.runs.with(|runs| swap(&mut runs.dirty_pages, &mut dirty)));
        // What is in use comes and goes beside others.
        let bytes = Layer::Runs.breaks("mapped bytes are as many as mapped pages have", 0);
        planted.find_each(None, Some(bytes), || engine.runs.with(|runs| swap(&mut runs.mapped_pages, &mut mapped)));
        let pages = Layer::Runs.breaks("every mapped page is of a free run, a run in use or a slab", 0);
        let mut less = swap_entries(&engine.map, [(hole.first - PAGES, Entry::None), (hole.first - 1, Entry::None)]);
        planted.find_each(None, Some(pages), &mut less);
    });
}

/// A page of a slab whose record is said to be where none is: it is not looked at.
#[test]
fn d7_a_page_whose_slab_has_no_record_is_named() {
    with_planted(|planted| {
        let (map, size) = (&planted.engine.map, 64);
        let live = planted.alloc(size);
        let page = map.page_of(live.as_ptr() as usize);
        let Entry::Slab(slab) = map.entry(page) else { panic!("a block lies in a slab") };
        for record in [64, slab.address() + 8, map.address_of(page), map.address_of(page) + SIZE] {
            let Some(cell) = map.entry_cell(page) else { panic!("a page of the heap") };
            let mut other = sealed(1 << super::CLASS_SHIFT | record as u64 | SLAB);
            let found = |at| Layer::Slabs.breaks("a slab's record is as it was made", at);
            // The roster comes before the blocks in lists.
            let beside = if cfg!(feature = "malloc-debug") { slab.address() } else { record };
            planted.find_each(Some(found(beside)), Some(found(map.address_of(page))), || {
                other = cell.swap(other, Relaxed);
            });
        }
        let one = Layer::Map.breaks("the pages of a slab have one record", map.address_of(page));
        planted.find_each(None, Some(one), swap_entries(map, [(page + 1, Entry::None)]));
        planted.free(size, &[live]);
    });
}
