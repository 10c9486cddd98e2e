//! Rows H4 and H7: heaps tell before their memory goes, and it is reported if it is registered then. Each test in a process of its own.

#![expect(clippy::disallowed_methods, reason = "a test takes memory away")]

#[path = "common/own_process.rs"]
mod own_process;
#[path = "common/random.rs"]
mod random;
#[path = "common/told.rs"]
mod told;

use own_process::in_own_process;
#[cfg(feature = "malloc-debug")]
use own_process::in_own_process_with;
use random::Random;
use std::alloc::{GlobalAlloc, Layout, System, alloc, dealloc};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use stratalloc::Stratalloc;
use stratalloc::hooks;
#[cfg(any(feature = "malloc-debug", feature = "shared"))]
use told::use_userfaultfd;
use told::{PAGE, TOLD, give_back, note_all, use_component};
#[cfg(feature = "malloc-debug")]
use told::{map, unmap};

#[global_allocator]
static A: Stratalloc = Stratalloc::new();

/// Which pages of a range are resident.
fn resident(at: usize, pages: usize) -> Vec<bool> {
    // With memory of the system's: the heap's is being measured.
    let layout = Layout::array::<u8>(pages).expect("a layout");
    // SAFETY: the size is not 0.
    let bytes = unsafe { System.alloc_zeroed(layout) };
    assert!(!bytes.is_null());
    // SAFETY: the range is mapped; there is a byte for each page.
    let result = unsafe { libc::mincore(at as *mut _, pages * PAGE, bytes) };
    // SAFETY: written, or zero.
    let found = unsafe { std::slice::from_raw_parts(bytes, pages) };
    let found: Vec<bool> = found.iter().map(|byte| byte & 1 == 1).collect();
    // SAFETY: allocated above.
    unsafe { System.dealloc(bytes, layout) };
    if result == 0 { found } else { vec![false; pages] }
}

#[test]
fn h4_heaps_tell_before_their_memory_goes_and_of_nothing_else() {
    in_own_process(|| {
        use_component("allocator");
        static WAS_THERE: AtomicUsize = AtomicUsize::new(0);
        let _callback = note_all();
        let _reader = hooks::on_release(|release| {
            // It has not gone yet: what was written is there.
            // SAFETY: pages of a heap, which are mapped.
            let first = unsafe { (release.base as *const u8).read_volatile() };
            WAS_THERE.fetch_add(usize::from(first == 0x5a), SeqCst);
        })
        .expect("a component");
        let mut random = Random::new(99);
        let layouts: Vec<Layout> = (0..3000)
            .map(|_| {
                let most = [100, 5000, 100_000][random.below(3)];
                Layout::from_size_align(1 + random.below(most), 8).expect("a layout")
            })
            .collect();
        let blocks: Vec<*mut u8> = layouts
            .iter()
            .map(|layout| {
                // SAFETY: the size is not 0.
                let block = unsafe { alloc(*layout) };
                // SAFETY: ours, and so large.
                unsafe { block.write_bytes(0x5a, layout.size()) };
                block
            })
            .collect();
        let pages: std::collections::BTreeSet<usize> = blocks
            .iter()
            .zip(&layouts)
            .flat_map(|(at, layout)| (*at as usize / PAGE)..=((*at as usize + layout.size() - 1) / PAGE))
            .collect();
        let before: Vec<usize> = pages.iter().copied().filter(|page| resident(page * PAGE, 1)[0]).collect();
        TOLD.clear();
        for (block, layout) in blocks.iter().zip(&layouts).filter(|(block, _)| **block as usize % 7 != 1) {
            // SAFETY: live.
            unsafe { dealloc(*block, *layout) };
        }
        Stratalloc::collect();
        let told = TOLD.all();
        let is_told = |page: usize| told.iter().any(|(at, bytes)| (at / PAGE..(at + bytes) / PAGE).contains(&page));
        let mut gone = 0;
        for page in before {
            let is_there = resident(page * PAGE, 1)[0];
            gone += usize::from(!is_there);
            assert!(is_there || is_told(page), "page {page:#x} went without a word");
        }
        assert!(gone > 1000, "{gone} pages have gone");
        assert!(WAS_THERE.load(SeqCst) > 10, "what goes is still there when it is told");
    })
    .well();
}

/// Lets a block grow where another one is in the way. Whether its pages were moved.
fn moves(turn: usize) -> bool {
    let old = Layout::from_size_align((64 + turn) << 20, 8).expect("a layout");
    // SAFETY: the size is not 0.
    let block = unsafe { alloc(old) };
    // SAFETY: ours, and so large.
    unsafe { block.write_bytes(3, old.size()) };
    let wall: Vec<Vec<u8>> = (0..40).map(|_| vec![1; 4 << 20]).collect();
    TOLD.clear();
    // SAFETY: live; the new size is not 0.
    let moved = unsafe { std::alloc::realloc(block, old, 256 << 20) };
    assert!(!moved.is_null());
    let has_moved = moved != block && TOLD.covers(block as usize, old.size() - (4 << 20));
    if has_moved {
        // What was at the new place has gone, too.
        assert!(TOLD.covers(moved as usize, old.size() - (4 << 20)));
    } else if moved != block {
        // It was copied: then its pages are kept, or purged, and nothing that was not told has gone.
        assert!(resident(block as usize, 1)[0] || TOLD.covers(block as usize, PAGE));
    }
    drop(wall);
    // SAFETY: live.
    unsafe { dealloc(moved, Layout::from_size_align(256 << 20, 8).expect("a layout")) };
    has_moved
}

#[test]
fn h4_a_block_that_moves_tells_of_both_places() {
    in_own_process(|| {
        use_component("allocator");
        let _callback = note_all();
        assert!((0..8).any(moves), "one of eight is moved");
    })
    .well();
}

#[test]
fn h4_without_callbacks_nothing_is_told_and_after_the_end_neither() {
    in_own_process(|| {
        use_component("allocator");
        let callback = note_all();
        give_back();
        assert!(!TOLD.all().is_empty());
        drop(callback);
        TOLD.clear();
        give_back();
        let callback = note_all();
        hooks::close().expect("nothing is registered");
        give_back();
        assert!(TOLD.all().is_empty());
        drop(callback);
        assert!(!hooks::changed() && hooks::process() == Ok(0));
    })
    .well();
}

#[cfg(feature = "allocator-api2")]
#[test]
fn h4_a_heap_that_is_dropped_tells_of_all_it_had() {
    in_own_process(|| {
        use_component("allocator");
        let _callback = note_all();
        let heap = stratalloc::Heap::new().expect("a heap");
        let layout = Layout::from_size_align(20 * PAGE, PAGE).expect("a layout");
        let block = allocator_api2::alloc::Allocator::allocate(&heap, layout).expect("room").as_ptr().cast::<u8>();
        // SAFETY: ours, and so large.
        unsafe { block.write_bytes(1, 20 * PAGE) };
        TOLD.clear();
        drop(heap);
        assert!(TOLD.covers(block as usize, 20 * PAGE), "{:x?}", TOLD.all());
    })
    .well();
}

#[cfg(feature = "shared")]
#[test]
fn h4_a_shared_heap_tells_what_it_gives_back() {
    use stratalloc::{SharedConfig, SharedHeap};
    let ended = in_own_process(|| {
        use_component("allocator");
        let _callback = note_all();
        let path = std::env::temp_dir().join(format!("stratalloc-hooks-{}", std::process::id()));
        let heap = SharedHeap::open(&path, SharedConfig::new().max_size(64 << 20), |_| {}).expect("a heap");
        let block = heap.malloc(100 * PAGE);
        // SAFETY: ours, and so large.
        unsafe { block.write_bytes(1, 100 * PAGE) };
        hooks::register(block, 100 * PAGE, 3).expect("registered");
        hooks::deregister(block, 100 * PAGE, 3).expect("registered before");
        // SAFETY: live.
        unsafe { heap.free(block) };
        TOLD.clear();
        heap.collect();
        assert!(TOLD.covers(block as usize, 100 * PAGE), "{:x?}", TOLD.all());
        let block = heap.malloc(10 * PAGE);
        TOLD.clear();
        drop(heap);
        assert!(TOLD.covers(block as usize & !(PAGE - 1), 10 * PAGE), "{:x?}", TOLD.all());
        std::fs::remove_file(&path).expect("it is there");
        // The kernel watches such memory, too.
        if hooks::close().is_ok() && use_userfaultfd() {
            let heap = SharedHeap::open(&path, SharedConfig::new().max_size(64 << 20), |_| {}).expect("a heap");
            let block = heap.malloc(10 * PAGE);
            hooks::register(block, 10 * PAGE, 3).expect("registered");
            let at = (block as usize).next_multiple_of(PAGE) as *mut libc::c_void;
            TOLD.clear();
            // SAFETY: ours.
            assert_eq!(unsafe { libc::madvise(at, PAGE, libc::MADV_DONTNEED) }, 0);
            assert!(hooks::changed());
            hooks::process().expect("processed");
            assert!(TOLD.covers(at as usize, PAGE));
            hooks::deregister(block, 10 * PAGE, 3).expect("registered before");
            drop(heap);
            std::fs::remove_file(&path).expect("it is there");
        }
    });
    ended.hand_on("SKIPPED");
    ended.well();
}

#[cfg(feature = "symmetric")]
#[test]
fn h4_a_symmetric_heap_tells_what_it_gives_back() {
    use stratalloc::symmetric;
    in_own_process(|| {
        use_component("allocator");
        let _callback = note_all();
        symmetric::init().expect("a job of one");
        let block = symmetric::malloc(100 * PAGE).expect("room");
        // SAFETY: ours, and so large.
        unsafe { block.write_bytes(1, 100 * PAGE) };
        // SAFETY: live.
        unsafe { symmetric::free(block) }.expect("freed");
        TOLD.clear();
        symmetric::collect().expect("collected");
        let inner = (block as usize).next_multiple_of(PAGE);
        assert!(TOLD.covers(inner, 99 * PAGE), "{:x?}", TOLD.all());
        TOLD.clear();
        symmetric::finalize().expect("the end");
        assert!(TOLD.covers(inner, 99 * PAGE), "{:x?}", TOLD.all());
    })
    .well();
}

/// Registers, in a place with a name.
#[cfg(feature = "malloc-debug")]
#[inline(never)]
fn forgetful_register(at: *const u8, bytes: usize) {
    hooks::register(at, bytes, 0xfeed).expect("registered");
    std::hint::black_box(at);
}

#[cfg(feature = "malloc-debug")]
#[inline(never)]
fn careless_free(block: *mut u8, layout: Layout) {
    // SAFETY: live.
    unsafe { dealloc(block, layout) };
    std::hint::black_box(block);
}

#[cfg(feature = "malloc-debug")]
#[inline(never)]
fn innocent_collect() {
    Stratalloc::collect();
    std::hint::black_box(0);
}

/// Lets the memory of a block go that is registered.
#[cfg(feature = "malloc-debug")]
fn forget_to_deregister() {
    use_component("allocator");
    let layout = Layout::from_size_align(300_000, 8).expect("a layout");
    // SAFETY: the size is not 0.
    let block = unsafe { alloc(layout) };
    forgetful_register(block.wrapping_add(1000), 100_000);
    careless_free(block, layout);
    innocent_collect();
}

#[cfg(feature = "malloc-debug")]
#[test]
fn h7_memory_that_goes_while_it_is_registered_is_reported() {
    const LINE: &str = "stratalloc: released while registered: memory went that is still registered with the hooks\n";
    for mode in ["quarantine=0", "quarantine=0 continue", "page sample=1 quarantine=0"] {
        let ended = in_own_process_with(&[("STRATALLOC_DEBUG", mode)], forget_to_deregister);
        let text = &ended.stderr;
        assert!(text.contains(LINE) && text.contains("were registered with cookie 0xfeed"), "{mode}: {text}");
        assert!(text.contains("100000 bytes at "), "{mode}: {text}");
        for name in ["forgetful_register", "noticed by thread"] {
            assert!(text.contains(name), "{mode}: {name}: {text}");
        }
        let site = if mode.starts_with("page") { "careless_free" } else { "innocent_collect" };
        assert!(text.contains(site), "{mode}: {site}: {text}");
        assert_eq!(text.matches(LINE).count(), 1, "each range once: {text}");
        if mode.contains("continue") {
            ended.well();
        } else {
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended.status), Some(libc::SIGABRT));
        }
    }
}

/// Who deregisters in a callback is told of nothing.
#[cfg(feature = "malloc-debug")]
#[test]
fn h7_who_deregisters_in_time_is_told_of_nothing() {
    in_own_process_with(&[("STRATALLOC_DEBUG", "quarantine=0")], || {
        let _callback = hooks::on_release(|release| {
            if release.overlaps(REGISTERED.load(SeqCst), 100_000) {
                _ = hooks::deregister(REGISTERED.load(SeqCst) as *const u8, 100_000, 0xfeed);
            }
        });
        use_component_again("allocator");
        let layout = Layout::from_size_align(300_000, 8).expect("a layout");
        // SAFETY: the size is not 0.
        let block = unsafe { alloc(layout) };
        REGISTERED.store(block as usize + 1000, SeqCst);
        forgetful_register(block.wrapping_add(1000), 100_000);
        careless_free(block, layout);
        innocent_collect();
        assert_eq!(hooks::registered(), 0);
    })
    .well();
}

#[cfg(feature = "malloc-debug")]
static REGISTERED: AtomicUsize = AtomicUsize::new(0);

/// What a parent registered is not registered in its child, where the memory may go.
#[cfg(feature = "malloc-debug")]
#[test]
fn h7_what_the_parent_registered_is_no_affair_of_the_child() {
    in_own_process_with(&[("STRATALLOC_DEBUG", "quarantine=0")], || {
        use_component("allocator");
        let layout = Layout::from_size_align(300_000, 8).expect("a layout");
        // SAFETY: the size is not 0.
        let block = unsafe { alloc(layout) };
        forgetful_register(block.wrapping_add(1000), 100_000);
        told::in_child(|| {
            careless_free(block, layout);
            innocent_collect();
            hooks::process().expect("processed");
            assert_eq!(hooks::registered(), 0);
        });
        assert_eq!(hooks::registered(), 1);
        hooks::deregister(block.wrapping_add(1000), 100_000, 0xfeed).expect("registered before");
        careless_free(block, layout);
    })
    .well();
}

/// Another one than was chosen at the first use.
#[cfg(feature = "malloc-debug")]
fn use_component_again(name: &str) {
    hooks::close().expect("nothing is registered");
    use_component(name);
}

#[cfg(feature = "malloc-debug")]
#[test]
fn h7_what_others_unmap_is_reported_too() {
    let ended = in_own_process_with(&[("STRATALLOC_DEBUG", "canary")], || {
        if use_userfaultfd() {
            let at = map(4);
            forgetful_register(at, 4 * PAGE);
            unmap(at, 4);
            hooks::process().expect("processed");
        }
    });
    ended.hand_on("SKIPPED");
    if !ended.stderr.contains("SKIPPED") {
        assert!(ended.stderr.contains("stratalloc: released while registered: "), "{}", ended.stderr);
        assert!(ended.stderr.contains("forgetful_register"), "{}", ended.stderr);
    }
}
