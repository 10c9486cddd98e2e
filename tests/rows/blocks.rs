//! Rows of the block layers: classes, caches, depot, slabs.

use super::promise;
use super::random::Random;
use super::support::{Roomy, block, free, layout, open, small, through, with_cache, with_roomy};
use std::alloc::Layout;
use stratalloc::heap::{Blocks, Class};
use stratalloc::os::Mmap;

#[test]
fn g1_blocks_are_of_their_class_and_carry_no_header() {
    promise("rows::blocks::g1_blocks_are_of_their_class_and_carry_no_header", None, || {
        with_roomy(|engine, cache| {
            let heap = through(engine, cache);
            for class in Class::all() {
                neighbours_touch(&heap, class);
            }
            // The largest block, and what a request somewhat larger takes: whole pages, more than any block.
            let (largest, beyond) = if cfg!(feature = "fine-classes") { (7168, 8192) } else { (2048, 4096) };
            for size in 1..=largest {
                let of = Class::of(layout(size, 1)).expect("up to there, there is a class");
                assert!(of.size() >= size && (of.size() < 2 * size.max(8)));
            }
            for size in [largest + 1, largest + 100, beyond] {
                assert_eq!((Class::of(layout(size, 8)), heap.usable_size(layout(size, 8))), (None, beyond));
            }
            assert_eq!((Class::of(layout(8, 8192)), heap.usable_size(layout(8, 8192))), (None, 4096));
        });
    });
}

/// Two blocks in a row of a fresh slab are exactly one block size apart: nothing lies between them.
fn neighbours_touch(heap: &impl Blocks, class: Class) {
    let of = layout(class.size(), 8);
    let (first, second) = (block(heap, of), block(heap, of));
    assert_eq!(second as usize - first as usize, class.size());
    assert_eq!(heap.usable_size(of), class.size());
}

/// Alloc and free so as to hurt: saws of several heights around every level, and a random walk. After each call `seen`
/// is told.
fn adversarial(heap: &impl Blocks, class: Class, target: usize, mut seen: impl FnMut()) {
    let (of, mut held, mut random) = (layout(class.size(), 8), Vec::new(), Random::new(5));
    let mut go_to = |level: usize, held: &mut Vec<*mut u8>| {
        while held.len() != level {
            if held.len() < level {
                held.push(block(heap, of));
            } else {
                free(heap, held.swap_remove(held.len() / 2), of);
            }
            seen();
        }
    };
    for level in 4..3 * target {
        (0..8).for_each(|turn| go_to(level - 4 * (turn % 2), &mut held));
        (0..4).for_each(|turn| go_to(level.saturating_sub((target + 1) * (turn % 2)), &mut held));
    }
    (0..100).for_each(|_| go_to(random.below(6 * target), &mut held));
    go_to(0, &mut held);
}

#[test]
fn g2_at_most_one_trip_in_target_calls() {
    promise("rows::blocks::g2_at_most_one_trip_in_target_calls", Some(2), || {
        for class in Class::all() {
            with_roomy(|engine, cache| {
                let target = u64::from(engine.target(class));
                let (mut calls, mut trips, mut last) = (0, 0, None);
                adversarial(&through(engine, cache), class, target as usize, || {
                    let row = engine.stats(Some(cache)).classes[class.index()];
                    calls += 1;
                    assert_eq!(row.allocs + row.frees, calls);
                    if trips != row.alloc_trips + row.free_trips {
                        let since = last.replace(calls).map_or(target, |last| calls - last);
                        assert!(since >= target, "{since} calls between two trips, lists of {target}");
                    }
                    trips = row.alloc_trips + row.free_trips;
                });
                assert!(trips > 10);
            });
        }
    });
}

#[test]
fn g16_small_classes_miss_once_in_64() {
    promise("rows::blocks::g16_small_classes_miss_once_in_64", None, || {
        with_roomy(|engine, cache| {
            for class in Class::all() {
                let small = if cfg!(feature = "fine-classes") { 32 } else { 64 };
                let least = if class.size() <= 128 { small } else { 4 };
                assert!(engine.target(class) >= least);
                let mut calls = 0;
                adversarial(&through(engine, cache), class, engine.target(class) as usize, || calls += 1);
                let row = engine.stats(Some(cache)).classes[class.index()];
                assert!((row.alloc_trips + row.free_trips) * u64::from(least) <= calls + u64::from(least));
            }
        });
    });
}

/// Allocates and frees whole lists and odd blocks through caches that come and go.
fn come_and_go(engine: &Roomy, of: Layout, blocks: usize) {
    with_cache(engine, |cache| {
        let heap = through(engine, cache);
        let held: Vec<_> = (0..blocks).map(|_| block(&heap, of)).collect();
        held.into_iter().for_each(|at| free(&heap, at, of));
    });
}

#[test]
fn g3_whole_lists_and_a_bucket_for_odd_blocks() {
    promise("rows::blocks::g3_whole_lists_and_a_bucket_for_odd_blocks", Some(3), || {
        let engine = Roomy::new(Mmap::new());
        open(&engine);
        let of = layout(64, 8);
        let class = Class::of(of).expect("a class");
        let target = u64::from(engine.target(class));
        let in_depot = || engine.stats(None).classes[class.index()].in_depot;
        for turn in 1..200 {
            come_and_go(&engine, of, turn * 7);
            let row = engine.stats(None).classes[class.index()];
            assert_eq!(row.cached, 0);
            assert!(in_depot() * 64 <= engine.depot_bytes_max() as u64);
        }
        // All caches are gone: what the slabs have let out lies in the depot, and comes back whole.
        let hits = engine.stats(None).classes[class.index()].depot_hits;
        assert!(hits > 0 && in_depot() > 0);
        assert!(in_depot() % target < target);
        engine.collect();
        let stats = engine.stats(None);
        assert_eq!((in_depot(), stats.active, stats.classes[class.index()].slabs), (0, 0, 0), "blocks were lost");
    });
}

#[test]
fn g3_odd_blocks_become_lists() {
    promise("rows::blocks::g3_odd_blocks_become_lists", None, || {
        let engine = Roomy::new(Mmap::new());
        open(&engine);
        let of = layout(128, 8);
        let class = Class::of(of).expect("a class");
        let target = engine.target(class) as usize;
        // A cache that ends with a third of a list: three of them make one.
        let leave = |blocks: usize| {
            with_cache(&engine, |cache| {
                let heap = through(&engine, cache);
                let held: Vec<_> = (0..target).map(|_| block(&heap, of)).collect();
                held.into_iter().take(blocks).for_each(|at| free(&heap, at, of));
            });
        };
        (0..2).for_each(|_| leave(target / 3));
        assert_eq!(engine.stats(None).classes[class.index()].depot_kept, 0);
        leave(target - 2 * (target / 3));
        let row = engine.stats(None).classes[class.index()];
        assert_eq!((row.depot_kept, row.in_depot), (1, target as u64));
    });
}

#[test]
fn g4_lists_come_from_the_fullest_slab_and_whole_slabs_go() {
    promise("rows::blocks::g4_lists_come_from_the_fullest_slab_and_whole_slabs_go", Some(4), || {
        with_roomy(|engine, cache| {
            let (heap, of) = (through(engine, cache), layout(1024, 8));
            let class = Class::of(of).expect("a class");
            let per_slab = (64 << 10) / 1024;
            let slabs: Vec<Vec<*mut u8>> = (0..4).map(|_| (0..per_slab).map(|_| block(&heap, of)).collect()).collect();
            through(engine, cache).park();
            // Slab 0 loses most of its blocks, slab 2 a few.
            slabs[0].iter().skip(8).for_each(|at| free(&heap, *at, of));
            slabs[2].iter().step_by(4).for_each(|at| free(&heap, *at, of));
            through(engine, cache).collect();
            for _ in 0..per_slab / 4 {
                let at = block(&heap, of);
                assert!(slabs[2].contains(&at), "a block came from the slab with more free ones");
            }
            let before = engine.stats(Some(cache));
            slabs[1].iter().for_each(|at| free(&heap, *at, of));
            through(engine, cache).collect();
            let after = engine.stats(Some(cache));
            let given = |stats: &stratalloc::Stats| stats.classes[class.index()].slabs_given;
            assert_eq!(given(&after), given(&before) + 1);
            assert_eq!(before.active - after.active, 64 << 10, "a whole slab did not go back to the runs");
        });
    });
}

#[test]
fn g6_a_block_joins_the_freeing_threads_cache() {
    promise("rows::blocks::g6_a_block_joins_the_freeing_threads_cache", None, || {
        with_roomy(|engine, mine| {
            let of = layout(48, 8);
            let at = block(&through(engine, mine), of) as usize;
            let again = std::thread::scope(|scope| {
                let other = scope.spawn(|| {
                    let mut again = 0;
                    with_cache(engine, |theirs| {
                        let heap = through(engine, theirs);
                        free(&heap, at as *mut u8, of);
                        again = block(&heap, of) as usize;
                    });
                    again
                });
                other.join().expect("the thread ends well")
            });
            assert_eq!(at, again);
        });
    });
}

#[test]
fn g15_counters_count() {
    promise("rows::blocks::g15_counters_count", None, || {
        with_roomy(|engine, cache| {
            let heap = through(engine, cache);
            for (class, calls) in Class::all().zip(100..) {
                let of = layout(class.size(), 8);
                let held: Vec<_> = (0..calls).map(|_| block(&heap, of)).collect();
                held.into_iter().skip(7).for_each(|at| free(&heap, at, of));
                let stats = engine.stats(Some(cache));
                let row = stats.classes[class.index()];
                assert_eq!((row.allocs, row.frees), (calls, calls - 7));
                assert!(row.alloc_trips >= calls / u64::from(row.target) && row.lists_filled > 0);
                assert!(row.cache_hit_rate() > 0.5 && stats.class_of(of) == Some(&row));
            }
            let live: usize = Class::all().map(|class| 7 * class.size()).sum();
            assert_eq!(engine.stats(Some(cache)).allocated, live);
        });
    });
}

#[test]
fn g13_a_full_buffer_is_null_and_serves_again() {
    promise("rows::blocks::g13_a_full_buffer_is_null_and_serves_again", None, || {
        let engine = small(4 << 20);
        with_cache(&engine, |cache| {
            let heap = through(&engine, cache);
            let mut counts = Vec::new();
            for size in [8, 64, 100, 2048, 5000, 70_000, 64, 8] {
                let of = layout(size, 8);
                let mut held = Vec::new();
                // SAFETY: any layout may be asked for.
                while let Some(at) = std::ptr::NonNull::new(unsafe { heap.alloc(of) }) {
                    held.push(at.as_ptr());
                }
                assert!(held.len() * size > 2 << 20, "only {} blocks of {size} bytes", held.len());
                counts.push(held.len());
                held.into_iter().for_each(|at| free(&heap, at, of));
            }
            assert!(counts[6] * 100 > counts[1] * 95, "later fills find less memory: {counts:?}");
        });
    });
}
