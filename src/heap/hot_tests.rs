//! The place for a long run: what comes and goes there, what it counts, and when it is closed.

use crate::config::Config;
use crate::finding::Layer;
use crate::heap::map::Entry;
use crate::heap::planted_tests::{swap_entries, with_planted_in};
use crate::heap::{Attached, Blocks, Cache, Engine};
use crate::lock::Spin;
use crate::os::Mmap;
use core::alloc::Layout;

const PAGES: u64 = 256;

/// Runs `work` with a heap that may retain 4 MiB, and a cache that is attached to it.
fn with_heap(work: impl FnOnce(&Engine<Mmap, Spin>, &Cache)) {
    let (engine, cache) = (Engine::<_, Spin>::new(Mmap::new()), Cache::new());
    assert!(engine.open(&Config::new().idle_bytes(4 << 20)));
    // SAFETY: the cache is fresh, stays here until it is detached, and is this thread's.
    unsafe { engine.attach(&cache) };
    work(&engine, &cache);
    // SAFETY: attached above, and no longer in use.
    unsafe { engine.detach(&cache) };
    assert_eq!(engine.tally.granted_pages(), 0);
}

fn through<'a>(engine: &'a Engine<Mmap, Spin>, cache: &'a Cache) -> Attached<'a, Mmap, Spin> {
    // SAFETY: `with_heap` attached it.
    unsafe { engine.through(cache) }
}

/// The layout of so many pages.
fn of(pages: u64) -> Layout {
    Layout::from_size_align(pages as usize * 4096, 4096).unwrap()
}

/// Allocates and frees blocks of the layout, one after the other.
fn pairs(heap: &impl Blocks, of: Layout, count: usize) {
    for _ in 0..count {
        // SAFETY: any layout may be asked for.
        let run = unsafe { heap.alloc(of) };
        assert!(!run.is_null());
        // SAFETY: a run of that many bytes.
        unsafe { run.write_bytes(7, of.size()) };
        // SAFETY: allocated above, and freed once.
        unsafe { heap.dealloc(run, of) };
    }
}

#[test]
fn a_run_used_again_stays_and_is_counted() {
    with_heap(|engine, cache| {
        pairs(&through(engine, cache), of(PAGES), 10);
        assert_eq!(cache.hot().pages(), PAGES);
        let stats = engine.stats(Some(cache));
        assert_eq!(stats.runs.list_allocs + stats.runs.allocs - records(&stats), 10);
        assert_eq!(stats.runs.list_frees + stats.runs.frees, 10);
        assert_eq!(stats.allocated, 0);
        assert_eq!(stats.retained, PAGES as usize * 4096);
    });
}

/// Runs taken for slab records.
fn records(stats: &crate::stats::Stats) -> u64 {
    u64::from(stats.records > 0)
}

#[test]
fn another_run_takes_the_place() {
    with_heap(|engine, cache| {
        let heap = through(engine, cache);
        pairs(&heap, of(PAGES), 10);
        pairs(&heap, of(PAGES / 2), 10);
        assert_eq!(cache.hot().pages(), PAGES / 2);
        assert!(engine.tally.granted_pages() as u64 <= PAGES + PAGES / 2);
    });
}

#[test]
fn other_sizes_and_alignments_do_not_get_it() {
    with_heap(|engine, cache| {
        let heap = through(engine, cache);
        // Else the place is closed before the heap grows.
        pairs(&heap, of(64 * PAGES), 1);
        let twice = 2 * of(PAGES).size();
        // SAFETY: any layout may be asked for.
        let both = unsafe { heap.alloc(of(2 * PAGES).align_to(twice).unwrap()) };
        // SAFETY: allocated above. What is cut off is the best fit for what follows. It is at no multiple of twice its length,
        // wherever the system has mapped the heap, and such multiples there are without growing.
        let before = unsafe { heap.realloc(both, of(2 * PAGES), of(PAGES).size()) };
        pairs(&heap, of(PAGES), 10);
        let run = cache.hot().at.load(crate::sync::Relaxed);
        assert_eq!(run, before as usize + of(PAGES).size(), "side by side");
        let beyond = of(PAGES).align_to(twice).unwrap();
        for other in [of(PAGES - 1), of(PAGES + 1), beyond] {
            // SAFETY: any layout may be asked for.
            let block = unsafe { heap.alloc(other) };
            assert!(!block.is_null() && block as usize != run && (block as usize).is_multiple_of(other.align()));
            // SAFETY: allocated for the layout, and freed once.
            unsafe { heap.dealloc(block, other) };
        }
        assert_eq!(cache.hot().pages(), PAGES);
        // SAFETY: allocated above, for its new size.
        unsafe { heap.dealloc(before, of(PAGES)) };
    });
}

#[test]
fn collect_closes_it() {
    with_heap(|engine, cache| {
        pairs(&through(engine, cache), of(PAGES), 10);
        engine.collect();
        assert_eq!((cache.hot().pages(), engine.tally.granted_pages(), engine.stats(None).retained), (0, 0, 0));
        pairs(&through(engine, cache), of(PAGES), 10);
        assert_eq!(cache.hot().pages(), PAGES);
    });
}

#[test]
fn a_look_closes_it_if_it_was_not_used_since_the_one_before() {
    with_heap(|engine, cache| {
        let heap = through(engine, cache);
        pairs(&heap, of(PAGES), 10);
        // SAFETY: any layout may be asked for.
        let run = unsafe { heap.alloc(of(PAGES)) };
        engine.close_unused_hot();
        assert!(cache.hot().is_for(run as usize, PAGES as u32), "used since the last look");
        engine.close_unused_hot();
        assert!(!cache.hot().is_for(run as usize, PAGES as u32), "and now no more");
        // SAFETY: allocated above.
        unsafe { heap.dealloc(run, of(PAGES)) };
        assert_eq!(cache.hot().pages(), 0, "it went elsewhere");
    });
}

#[test]
fn a_look_leaves_its_run_while_not_too_much_is_retained() {
    with_heap(|engine, cache| {
        pairs(&through(engine, cache), of(PAGES), 10);
        (0..3).for_each(|_| assert_eq!(engine.close_unused_hot(), 0));
        assert_eq!(cache.hot().pages(), PAGES);
    });
}

#[test]
fn a_place_that_was_just_opened_is_not_closed_by_a_look() {
    with_heap(|engine, cache| {
        let heap = through(engine, cache);
        engine.close_unused_hot();
        // SAFETY: any layout may be asked for.
        let run = (0..20).map(|_| unsafe { heap.alloc(of(PAGES)) }).find(|run| {
            let is_open = cache.hot().is_for(*run as usize, PAGES as u32);
            if !is_open {
                // SAFETY: allocated above.
                unsafe { heap.dealloc(*run, of(PAGES)) };
            }
            is_open
        });
        let run = run.expect("it is opened after a few turns");
        engine.close_unused_hot();
        assert!(cache.hot().is_for(run as usize, PAGES as u32), "opened since the last look");
        // SAFETY: allocated above.
        unsafe { heap.dealloc(run, of(PAGES)) };
    });
}

#[test]
fn a_look_at_empty_places_names_no_pages() {
    with_heap(|engine, cache| {
        let heap = through(engine, cache);
        pairs(&heap, of(PAGES), 10);
        // SAFETY: any layout may be asked for.
        let run = unsafe { heap.alloc(of(PAGES)) };
        let pages: usize = (0..3).map(|_| engine.close_unused_hot()).sum();
        assert_eq!((pages, engine.tally.granted_pages()), (0, 0), "its grant is gone, and there was no run");
        // SAFETY: allocated above.
        unsafe { heap.dealloc(run, of(PAGES)) };
    });
}

#[test]
fn a_run_of_another_length_at_the_same_address_takes_the_place() {
    with_heap(|engine, cache| {
        let heap = through(engine, cache);
        pairs(&heap, of(PAGES), 10);
        // SAFETY: any layout may be asked for.
        let run = unsafe { heap.alloc(of(PAGES)) };
        // SAFETY: allocated above for the layout.
        let cut = unsafe { heap.realloc(run, of(PAGES), of(PAGES / 2).size()) };
        assert_eq!(cut, run, "it is cut where it is");
        // SAFETY: a run of that length, freed once.
        unsafe { heap.dealloc(cut, of(PAGES / 2)) };
        pairs(&heap, of(PAGES / 2), 10);
        assert_eq!(cache.hot().pages(), PAGES / 2);
    });
}

#[test]
fn a_run_before_it_grows_into_it() {
    with_heap(|engine, cache| {
        let heap = through(engine, cache);
        // SAFETY: any layout may be asked for.
        let both = unsafe { heap.alloc(of(2 * PAGES)) };
        // SAFETY: allocated above. What is cut off is the best fit for what follows.
        let before = unsafe { heap.realloc(both, of(2 * PAGES), of(PAGES).size()) };
        pairs(&heap, of(PAGES), 10);
        let kept = cache.hot().at.load(crate::sync::Relaxed);
        assert_eq!(kept, before as usize + of(PAGES).size(), "side by side");
        // SAFETY: allocated above for the layout.
        let grown = unsafe { heap.realloc(before, of(PAGES), of(2 * PAGES).size()) };
        assert_eq!((grown, cache.hot().pages()), (before, 0));
        // SAFETY: as above, for its new size.
        unsafe { heap.dealloc(grown, of(2 * PAGES)) };
    });
}

/// The map says that the run in a place is in use, or longer.
#[test]
fn d7_a_run_in_its_place_that_the_map_says_is_another_is_named() {
    with_planted_in(Mmap::new(), |planted| {
        let (map, hot) = (&planted.engine.map, planted.caches[0].hot());
        pairs(&planted.heap(), of(PAGES), 10);
        assert_eq!(hot.pages(), PAGES);
        let at = hot.at.load(crate::sync::Relaxed);
        let found = Layer::Cache.breaks("a kept run has the length that the page map says", at);
        planted.find(found, swap_entries(map, [(map.page_of(at), Entry::Run(PAGES as u32))]));
    });
}
