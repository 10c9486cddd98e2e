//! What a thread's cache pins is bounded in pages, whatever the pattern of calls.

use std::alloc::Layout;
use std::collections::{BTreeMap, BTreeSet};
use stratalloc::Config;
use stratalloc::heap::{Attached, Blocks, Cache, Class, Engine};
use stratalloc::lock::Spin;
use stratalloc::os::{Mmap, Source};

/// Classes whose lists are longest.
const SIZES: [usize; 5] = [8, 16, 32, 64, 128];
/// More blocks than all lists of a class may hold.
const MANY: usize = 1000;

type Heap<'a> = Attached<'a, Mmap, Spin>;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

fn alloc(heap: &Heap<'_>, size: usize, count: usize) -> Vec<*mut u8> {
    // SAFETY: any layout may be asked for.
    let blocks: Vec<*mut u8> = (0..count).map(|_| unsafe { heap.alloc(layout(size)) }).collect();
    assert!(!blocks.contains(&std::ptr::null_mut()));
    blocks
}

fn free(heap: &Heap<'_>, size: usize, blocks: Vec<*mut u8>) {
    // SAFETY: the blocks came from `alloc` for the size; each is freed once, with the list it is in.
    blocks.into_iter().for_each(|block| unsafe { heap.dealloc(block, layout(size)) });
}

/// Blocks of `size` bytes that lie in a page each, and whose page holds other live blocks.
fn scattered(heap: &Heap<'_>, size: usize, page: usize) -> Vec<*mut u8> {
    let blocks = alloc(heap, size, MANY * page / size);
    let by_page: BTreeMap<usize, *mut u8> = blocks.into_iter().map(|block| (block.addr() / page, block)).collect();
    by_page.into_values().collect()
}

/// Lets the class earn as many lists as it may have, by bursts of blocks side by side, and empties them.
fn earn_lists(heap: &Heap<'_>, size: usize) {
    (0..20).for_each(|_| free(heap, size, alloc(heap, size, 2 * MANY)));
    alloc(heap, size, MANY);
}

/// Pages that cached blocks of `size` bytes lie in.
fn pages_of(blocks: &[*mut u8], size: usize, page: usize) -> usize {
    let pages = |block: &*mut u8| block.addr() / page..=(block.addr() + size - 1) / page;
    blocks.iter().flat_map(pages).collect::<BTreeSet<_>>().len()
}

#[test]
fn g2_a_thread_cache_pins_no_more_pages_than_its_bound() {
    let (engine, cache) = (Engine::<_, Spin>::new(Mmap::new()), Cache::new());
    assert!(engine.open(&Config::new()));
    // SAFETY: the cache is fresh, stays here until it is detached, and is this thread's.
    unsafe { engine.attach(&cache) };
    // SAFETY: attached above.
    let heap = unsafe { engine.through(&cache) };
    let cached = || engine.stats(Some(&cache)).classes.iter().map(|class| class.cached).sum::<u64>();

    let page = engine.source().page_size();
    let blocks = SIZES.map(|size| scattered(&heap, size, page));
    SIZES.iter().for_each(|size| earn_lists(&heap, *size));
    let before = cached();
    SIZES.iter().zip(blocks).for_each(|(size, blocks)| free(&heap, *size, blocks));
    // Each of the blocks that were freed lies in a page of its own.
    let pinned = (cached() - before) as usize * page;
    assert!(pinned <= engine.cache_bytes_max(), "{pinned} bytes pinned, {} allowed", engine.cache_bytes_max());

    // SAFETY: attached above, and no longer in use.
    unsafe { engine.detach(&cache) };
}

#[test]
fn g2_blocks_longer_than_half_a_page_count_for_each_page() {
    let (engine, cache) = (Engine::<_, Spin>::new(Mmap::new()), Cache::new());
    assert!(engine.open(&Config::new()));
    // SAFETY: the cache is fresh, stays here until it is detached, and is this thread's.
    unsafe { engine.attach(&cache) };
    // SAFETY: attached above.
    let heap = unsafe { engine.through(&cache) };
    let page = engine.source().page_size();
    let freed: Vec<(Class, Vec<*mut u8>)> = Class::all()
        .filter(|class| class.size() > page / 2)
        .map(|class| {
            earn_lists(&heap, class.size());
            let blocks = alloc(&heap, class.size(), MANY);
            free(&heap, class.size(), blocks.clone());
            (class, blocks)
        })
        .collect();
    let stats = engine.stats(Some(&cache));
    let pages = |(class, blocks): &(Class, Vec<*mut u8>)| {
        let cached = stats.classes[class.index()].cached as usize;
        // They are those that were freed last.
        pages_of(&blocks[MANY - cached.min(MANY)..], class.size(), page)
    };
    let pinned = freed.iter().map(pages).sum::<usize>() * page;
    let most = engine.cache_bytes_max();
    assert!(pinned <= most, "{pinned} bytes pinned, {most} allowed");
    // What the README says.
    assert!(most <= 24 << 20 || page > 4096);
    // SAFETY: attached above, and no longer in use.
    unsafe { engine.detach(&cache) };
}
