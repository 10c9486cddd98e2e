//! Rows of the page-run layer, and of requests that are refused.

use super::promise;
use super::random::Random;
use super::support::{Failing, block, free, layout, resident_pages, small, through, with_cache, with_roomy};
use std::alloc::Layout;
use stratalloc::heap::{Blocks, Engine};
use stratalloc::lock::Spin;

const PAGE: usize = 4096;
/// Longer than the threads' run lists, so that every call reaches the runs.
const UNIT: usize = 20 * PAGE;

#[test]
fn g5_a_split_keeps_its_own_end() {
    promise("rows::pages::g5_a_split_keeps_its_own_end", Some(5), || {
        let engine = small(4 << 20);
        with_cache(&engine, |cache| {
            let heap = through(&engine, cache);
            let take = |units: usize| block(&heap, layout(units * UNIT, 8));
            let give = |at, units: usize| free(&heap, at, layout(units * UNIT, 8));
            let (a, _guard) = (take(3), take(1));
            give(a, 3);
            let b = take(1);
            let c = take(2);
            assert_eq!((b, c as usize), (a, a as usize + UNIT), "not the best fit");
            give(b, 1);
            let d = take(3) as usize;
            let c = c as usize;
            assert!(d + 3 * UNIT <= c || c + 2 * UNIT <= d, "the new run overlaps a live one");
        });
    });
}

#[test]
fn g5_best_fit_lowest_address_and_merged() {
    promise("rows::pages::g5_best_fit_lowest_address_and_merged", None, || {
        let engine = small(16 << 20);
        with_cache(&engine, |cache| {
            let heap = through(&engine, cache);
            let take = |units: usize| block(&heap, layout(units * UNIT, 8));
            let give = |at: *mut u8, units: usize| free(&heap, at, layout(units * UNIT, 8));
            // Free runs of 4, 2, 2 and 3 units, apart from each other.
            let runs: Vec<_> = [4, 2, 2, 3].map(|units| (take(units), units, take(1))).into();
            runs.iter().for_each(|(at, units, _)| give(*at, *units));
            assert_eq!(take(2), runs[1].0, "the smallest that fits, the lowest among equals");
            assert_eq!(take(2), runs[2].0);
            assert_eq!(take(2), runs[3].0);
            give(runs[1].0, 2);
            give(runs[0].2, 1);
            // 4 units, the freed one behind them, and 2 more have become one run.
            assert_eq!(take(7), runs[0].0, "neighbours were not merged");
        });
    });
}

#[test]
fn g7_sizes_near_the_maximum_are_null_and_change_nothing() {
    promise("rows::pages::g7_sizes_near_the_maximum_are_null_and_change_nothing", None, || {
        with_roomy(|engine, cache| {
            let heap = through(engine, cache);
            let kept = block(&heap, layout(100, 8));
            let before = engine.stats(Some(cache));
            for (size, align) in
                [(isize::MAX as usize - 7, 8), (isize::MAX as usize - 4095, 4096), (1 << 62, 1 << 61), (1 << 47, 8)]
            {
                let of = layout(size, align);
                // SAFETY: any layout may be asked for.
                assert!(unsafe { heap.alloc(of) }.is_null());
                // SAFETY: as above.
                assert!(unsafe { heap.alloc_zeroed(of) }.is_null());
            }
            // SAFETY: the block is live; the size is one that cannot be served.
            assert!(unsafe { heap.realloc(kept, layout(100, 8), isize::MAX as usize - 7) }.is_null());
            // The original's 32-bit size: 4 GiB and 16 bytes are not 16 bytes.
            let big = layout((4 << 30) + 16, 8);
            assert!(heap.usable_size(big) >= big.size());
            assert_eq!(engine.stats(Some(cache)).allocated, before.allocated);
            assert_eq!(engine.stats(Some(cache)).classes, before.classes);
        });
    });
}

#[test]
fn g8_realloc_stays_where_it_can() {
    promise("rows::pages::g8_realloc_stays_where_it_can", None, || {
        with_roomy(|engine, cache| {
            let heap = through(engine, cache);
            // SAFETY: each block is live with the layout given.
            let resize = |at, old, new| unsafe { heap.realloc(at, layout(old, 8), new) };
            let small = block(&heap, layout(33, 8));
            assert_eq!(resize(small, 33, 48), small, "within the class");
            let run = block(&heap, layout(40 * PAGE, 8));
            assert_eq!(resize(run, 40 * PAGE, 39 * PAGE + 1), run, "within the run");
            assert_eq!(resize(run, 40 * PAGE, 30 * PAGE), run, "cut");
            assert_eq!(resize(run, 30 * PAGE, 40 * PAGE), run, "into the free neighbour");
            assert_eq!(engine.stats(Some(cache)).runs.grown_in_place, 1);
        });
    });
}

#[test]
fn g8_large_blocks_move_by_their_page_tables() {
    promise("rows::pages::g8_large_blocks_move_by_their_page_tables", None, || {
        with_roomy(|engine, cache| {
            let heap = through(engine, cache);
            let (mut size, mut at) = (1 << 20, block(&heap, layout(1 << 20, 8)));
            fill(at, 0, size);
            while size < 256 << 20 {
                // Something behind it, so that it cannot grow where it is.
                let _wall = block(&heap, layout(UNIT, 8));
                // SAFETY: the block is live with that layout.
                at = unsafe { heap.realloc(at, layout(size, 8), 2 * size) };
                assert!(!at.is_null());
                holds(at, size);
                fill(at, size, 2 * size);
                size *= 2;
            }
            let runs = engine.stats(Some(cache)).runs;
            assert!(runs.relocations >= 4 && runs.relocations + runs.grown_in_place >= 6, "{runs:?}");
            free(&heap, at, layout(size, 8));
        });
    });
}

/// Writes a mark in every page from `from` to `to`.
fn fill(at: *mut u8, from: usize, to: usize) {
    for offset in (from..to).step_by(PAGE) {
        // SAFETY: inside the block.
        unsafe { at.wrapping_add(offset).cast::<usize>().write(offset) };
    }
}

/// Checks the marks up to `to`.
fn holds(at: *mut u8, to: usize) {
    for offset in (0..to).step_by(PAGE) {
        // SAFETY: inside the block.
        assert_eq!(unsafe { at.wrapping_add(offset).cast::<usize>().read() }, offset);
    }
}

#[test]
fn g8_a_failed_realloc_leaves_the_block() {
    promise("rows::pages::g8_a_failed_realloc_leaves_the_block", None, || {
        let engine = small(2 << 20);
        with_cache(&engine, |cache| {
            let heap = through(&engine, cache);
            for size in [100, 5000, 300 << 10] {
                let at = block(&heap, layout(size, 8));
                // SAFETY: inside the block.
                unsafe { at.write_bytes(0xa5, size) };
                // SAFETY: the block is live; the buffer has no such room.
                assert!(unsafe { heap.realloc(at, layout(size, 8), 8 << 20) }.is_null());
                // SAFETY: the block is as it was.
                assert!((0..size).all(|offset| unsafe { at.wrapping_add(offset).read() } == 0xa5));
                free(&heap, at, layout(size, 8));
            }
        });
    });
}

#[test]
fn g9_zeroed_memory_is_not_touched_if_it_is_zero() {
    promise("rows::pages::g9_zeroed_memory_is_not_touched_if_it_is_zero", None, || {
        with_roomy(|engine, cache| {
            let heap = through(engine, cache);
            let of = layout(256 << 20, 8);
            let before = resident_pages(std::process::id());
            // SAFETY: any layout may be asked for.
            let at = unsafe { heap.alloc_zeroed(of) };
            assert!(!at.is_null());
            assert!(resident_pages(std::process::id()) - before < 256, "fresh pages were touched");
            fill(at, 0, 1 << 20);
            free(&heap, at, of);
            // SAFETY: as above.
            let again = unsafe { heap.alloc_zeroed(of) };
            // SAFETY: inside the block.
            assert!((0..2 << 20).all(|offset| unsafe { again.wrapping_add(offset).read() } == 0));
            free(&heap, again, of);
        });
    });
}

#[test]
fn g10_every_alignment_without_waste_that_stays() {
    promise("rows::pages::g10_every_alignment_without_waste_that_stays", None, || {
        with_roomy(|engine, cache| {
            let heap = through(engine, cache);
            for align in (0..=22).map(|power| 1 << power) {
                for size in [1, 7, 24, 100, 1500, 2048, 4096, 5000, 70_000, 3 << 20] {
                    let before = engine.stats(Some(cache)).active;
                    let of = layout(size, align);
                    let at = block(&heap, of);
                    if size.max(align) > 16 * PAGE {
                        let pages = size.div_ceil(PAGE) * PAGE;
                        assert_eq!(engine.stats(Some(cache)).active - before, pages, "{of:?}");
                    }
                    free(&heap, at, of);
                }
            }
        });
    });
}

/// A trace of a thousand calls over all layers; returns how many calls were refused.
fn trace(engine: &Engine<Failing, Spin>) -> usize {
    let (mut refused, mut random) = (0, Random::new(11));
    with_cache(engine, |cache| {
        let heap = through(engine, cache);
        let mut held: Vec<(*mut u8, Layout)> = Vec::new();
        for turn in 0..1000 {
            let of =
                layout([16, 100, 700, 2000, 4000, 30_000, 200_000, 2 << 20][random.below(8)], 8 << random.below(3));
            match random.below(4) {
                0 if !held.is_empty() => {
                    let (at, of) = held.swap_remove(random.below(held.len()));
                    give_back(&heap, at, of);
                }
                1 if !held.is_empty() => refused += usize::from(!resize(&heap, &mut held, &mut random)),
                2 if turn % 50 == 49 => through(engine, cache).collect(),
                _ => refused += usize::from(!take(&heap, &mut held, of)),
            }
        }
        held.into_iter().for_each(|(at, of)| give_back(&heap, at, of));
        through(engine, cache).collect();
        assert_eq!(engine.stats(Some(cache)).active, 0, "a refused call has left something behind");
        let after = block(&heap, layout(3 << 20, 8));
        free(&heap, after, layout(3 << 20, 8));
    });
    refused
}

fn mark(at: *mut u8, of: Layout) {
    let value = at as usize as u8 ^ of.size() as u8;
    // SAFETY: the first and the last byte of the block.
    unsafe { at.write(value) };
    // SAFETY: as above.
    unsafe { at.wrapping_add(of.size() - 1).write(value) };
}

fn marked(at: *mut u8, of: Layout, value: u8) -> bool {
    // SAFETY: the first and the last byte of the block.
    (unsafe { at.read() }) == value && (unsafe { at.wrapping_add(of.size() - 1).read() }) == value
}

fn give_back(heap: &impl Blocks, at: *mut u8, of: Layout) {
    assert!(marked(at, of, at as usize as u8 ^ of.size() as u8), "a live block was changed");
    free(heap, at, of);
}

fn take(heap: &impl Blocks, held: &mut Vec<(*mut u8, Layout)>, of: Layout) -> bool {
    // SAFETY: any layout may be asked for.
    let at = unsafe { heap.alloc(of) };
    if !at.is_null() {
        mark(at, of);
        held.push((at, of));
    }
    !at.is_null()
}

fn resize(heap: &impl Blocks, held: &mut [(*mut u8, Layout)], random: &mut Random) -> bool {
    let pick = random.below(held.len());
    let (at, of) = held[pick];
    let size = 1 + random.below(2 * of.size());
    let value = at as usize as u8 ^ of.size() as u8;
    // SAFETY: the block is live with that layout.
    let new = unsafe { heap.realloc(at, of, size) };
    if new.is_null() {
        assert!(marked(at, of, value), "a refused realloc has changed the block");
        return false;
    }
    // SAFETY: the first byte of the block.
    assert_eq!(unsafe { new.read() }, value);
    held[pick] = (new, layout(size, of.align()));
    mark(new, held[pick].1);
    true
}

#[test]
fn g13_any_failure_of_the_source_is_null_and_nothing_more() {
    promise("rows::pages::g13_any_failure_of_the_source_is_null_and_nothing_more", Some(13), || {
        let (calls, _) = fail_in_turn(1);
        let (_, refused) = fail_in_turn(8);
        println!(
            "{calls} calls of the source failed in turn; where eight failed in a row {refused} requests were refused"
        );
        assert!(calls > 50 && refused > 10);
    });
}

/// Runs the trace once for every call of the source, each time failing that one and the following up to `burst`.
/// Returns how many there are, and how many requests were refused in all.
fn fail_in_turn(burst: u64) -> (u64, usize) {
    let mut refused = 0;
    for fails_at in 1.. {
        let engine = Engine::<_, Spin>::new(Failing::new(fails_at, burst));
        while !engine.open(&stratalloc::Config::new()) {}
        refused += trace(&engine);
        if engine.source().calls() < fails_at {
            return (fails_at - 1, refused);
        }
    }
    unreachable!("a trace has an end")
}
