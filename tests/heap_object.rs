//! Heaps as objects: `Heap` under collections, threads and the allocator trait's finer rules.

use allocator_api2::alloc::Allocator;
use allocator_api2::boxed::Box;
use allocator_api2::vec::Vec;
use std::alloc::Layout;
use std::sync::Mutex;
use stratalloc::{Config, Heap};

/// One test at a time: some of them count the mappings of the process.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Bytes of addresses that the process has mapped.
fn mapped() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("the kernel says what is mapped");
    statm.split(' ').next().and_then(|pages| pages.parse::<usize>().ok()).expect("a number of pages") * 4096
}

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("a valid layout")
}

#[test]
fn dropping_a_heap_gives_everything_back() {
    let _alone = alone();
    let make = || {
        let heap = Heap::new().expect("there is memory");
        let kept: std::vec::Vec<_> = (0..5000).map(|n| Box::new_in([n; 16], &heap)).collect();
        kept.into_iter().for_each(std::mem::forget);
        std::mem::forget(Vec::<u8, _>::with_capacity_in(40 << 20, &heap));
        assert!(heap.stats().allocated >= 40 << 20);
    };
    make();
    let before = mapped();
    (0..200).for_each(|_| make());
    assert!(mapped() <= before + (1 << 20), "{} bytes more are mapped", mapped() - before);
}

#[test]
fn a_heap_is_shared_by_threads_and_moves() {
    let _alone = alone();
    let heap = Heap::new().expect("there is memory");
    std::thread::scope(|scope| {
        for seed in 0..8usize {
            let heap = &heap;
            scope.spawn(move || {
                let mut held = Vec::new_in(heap);
                for turn in 0..2000usize {
                    held.push(Box::new_in([seed ^ turn; 9], heap));
                    if turn % 3 == 0 {
                        held.swap_remove(turn * 7 % held.len());
                    }
                }
                assert!(held.iter().all(|block| block.iter().all(|word| word == &block[0])));
            });
        }
    });
    assert_eq!(heap.stats().allocated, 0);
    let elsewhere = std::thread::spawn(move || Vec::<u8, _>::with_capacity_in(100, heap).capacity());
    assert!(elsewhere.join().expect("the thread ends well") >= 100);
}

#[test]
fn blocks_outlive_a_move_of_their_heap() {
    let _alone = alone();
    let heap = Heap::new().expect("there is memory");
    let mut words: Vec<u64, Heap> = Vec::new_in(heap);
    (0..10_000).for_each(|n| words.push(n));
    let moved = std::boxed::Box::new(words);
    assert!(moved.iter().copied().eq(0..10_000));
}

#[test]
fn grow_and_shrink_keep_contents_and_alignment() {
    let _alone = alone();
    let heap = Heap::new().expect("there is memory");
    for (old, new) in [((10, 8), (5000, 64)), ((100_000, 8), (300_000, 8)), ((64, 64), (65, 4096)), ((0, 1), (1, 1))] {
        let (old, new) = (layout(old.0, old.1), layout(new.0, new.1));
        let block = heap.allocate(old).expect("there is memory").cast::<u8>();
        // SAFETY: inside the block.
        unsafe { block.write_bytes(0x5a, old.size()) };
        // SAFETY: the block is live with that layout.
        let grown = unsafe { heap.grow_zeroed(block, old, new) }.expect("there is memory");
        assert!(grown.cast::<u8>().align_offset(new.align()) == 0 && grown.len() >= new.size());
        // SAFETY: that many bytes are written.
        let bytes = unsafe { std::slice::from_raw_parts(grown.cast::<u8>().as_ptr(), new.size()) };
        assert!(
            bytes[..old.size()].iter().all(|byte| *byte == 0x5a) && bytes[old.size()..].iter().all(|byte| *byte == 0)
        );
        // SAFETY: as above.
        let cut = unsafe { heap.shrink(grown.cast(), new, old) }.expect("there is memory");
        // SAFETY: as above.
        unsafe { heap.deallocate(cut.cast(), old) };
    }
    assert_eq!(heap.stats().allocated, 0);
}

#[test]
fn a_heap_keeps_its_own_settings_and_collects() {
    let _alone = alone();
    const NOTHING_IDLE: Config = Config::new().idle_bytes(0).idle_share(usize::MAX);
    let heap = Heap::with_config(&NOTHING_IDLE).expect("there is memory");
    drop(Vec::<u8, _>::with_capacity_in(10 << 20, &heap));
    assert_eq!(heap.stats().retained, 0);
    let heap = Heap::new().expect("there is memory");
    let held: Vec<_, _> = {
        let mut held = Vec::new_in(&heap);
        held.extend((0..3000).map(|n| Box::new_in(n, &heap)));
        held
    };
    drop(held);
    heap.collect();
    let stats = heap.stats();
    assert_eq!((stats.allocated, stats.active, stats.retained), (0, 0, 0));
}

#[test]
fn what_cannot_be_served_is_an_error() {
    let _alone = alone();
    let heap = Heap::new().expect("there is memory");
    assert!(heap.allocate(layout(isize::MAX as usize - 7, 8)).is_err());
    assert!(heap.allocate(layout(0, 1)).is_ok());
    let mut words: Vec<u64, &Heap> = Vec::new_in(&heap);
    assert!(words.try_reserve(1 << 45).is_err());
    words.push(7);
    assert_eq!(words[0], 7);
}
