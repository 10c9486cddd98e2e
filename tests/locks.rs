//! How often a call takes a lock: a model of how the heap scales to more processors than this machine has.
//!
//! The engine runs with locks that count. Whatever threads wait for, they wait for one of these, so acquisitions per call
//! bound what of a program can ever be serialised. The paper's promise: one trip in `target` calls.

#![allow(clippy::disallowed_macros, reason = "a test may print what it measured")]

#[path = "common/random.rs"]
mod random;

use random::Random;
use std::alloc::Layout;
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::mpsc;
use std::thread;
use stratalloc::Config;
use stratalloc::heap::{Attached, Blocks, Cache, Class, Engine};
use stratalloc::lock::{RawLock, Spin};
use stratalloc::os::{Mmap, Source, Span};

thread_local! {
    static ACQUIRED: Cell<u64> = const { Cell::new(0) };
}

/// A spin lock that counts how often this thread takes one.
struct Counting(Spin);

// SAFETY: `Spin`'s promises.
unsafe impl RawLock for Counting {
    const NEW: Self = Self(Spin::NEW);

    fn acquire(&self) {
        ACQUIRED.set(ACQUIRED.get() + 1);
        self.0.acquire();
    }

    unsafe fn release(&self) {
        // SAFETY: handed on.
        unsafe { self.0.release() }
    }
}

/// The system's memory, with a purger that is always about to come, as in a process heap that is busy.
struct Busy(Mmap);

// SAFETY: `Mmap`'s promises.
unsafe impl Source for Busy {
    fn page_size(&self) -> usize {
        self.0.page_size()
    }

    fn window(&self) -> Option<Span> {
        self.0.window()
    }

    fn grow(&self, min: usize, mapped: usize) -> Option<Span> {
        self.0.grow(min, mapped)
    }

    fn records(&self, bytes: usize) -> Option<NonNull<u8>> {
        self.0.records(bytes)
    }

    unsafe fn purge(&self, range: Span) -> bool {
        // SAFETY: handed on.
        unsafe { self.0.purge(range) }
    }

    fn summon_purger(&self) -> bool {
        true
    }

    fn is_purger_at_work(&self) -> bool {
        true
    }

    fn has_purger(&self) -> bool {
        true
    }
}

type Heap<S> = Engine<S, Counting>;

fn open<S: Source>(source: S) -> Heap<S> {
    let heap = Engine::new(source);
    assert!(heap.open(&Config::new()));
    heap
}

fn of(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

/// Runs `work` with a cache of its own, and returns the locks it took.
fn locks_of<S: Source + Sync>(heap: &Heap<S>, work: impl FnOnce(&Attached<'_, S, Counting>)) -> u64 {
    let cache = Cache::new();
    // SAFETY: the cache is fresh, stays here until it is detached, and is this thread's.
    unsafe { heap.attach(&cache) };
    let before = ACQUIRED.get();
    // SAFETY: attached above.
    work(&unsafe { heap.through(&cache) });
    let locks = ACQUIRED.get() - before;
    // SAFETY: attached above, and no longer in use.
    unsafe { heap.detach(&cache) };
    locks
}

fn alloc<S: Source>(heap: &Attached<'_, S, Counting>, size: usize) -> usize {
    // SAFETY: any layout may be asked for.
    let block = unsafe { heap.alloc(of(size)) };
    assert!(!block.is_null());
    block as usize
}

fn free<S: Source>(heap: &Attached<'_, S, Counting>, block: usize, size: usize) {
    // SAFETY: allocated for the size, and freed once.
    unsafe { heap.dealloc(block as *mut u8, of(size)) };
}

/// Calls of a pattern and locks taken by them.
#[derive(Clone, Copy, Default)]
struct Cost {
    calls: u64,
    locks: u64,
}

const BLOCKS: usize = 2000;
const CALLS: u64 = 400_000;

/// A thread's blocks are replaced at random.
fn churn<S: Source + Sync>(heap: &Heap<S>, size: usize) -> Cost {
    let work = |heap: &Attached<'_, S, Counting>| {
        let mut random = Random::new(size as u64 + 1);
        let mut held: Vec<usize> = (0..BLOCKS).map(|_| alloc(heap, size)).collect();
        for _ in 0..CALLS / 2 {
            let at = random.below(BLOCKS);
            free(heap, held[at], size);
            held[at] = alloc(heap, size);
        }
        held.into_iter().for_each(|block| free(heap, block, size));
    };
    Cost { calls: CALLS + 2 * BLOCKS as u64, locks: locks_of(heap, work) }
}

/// A number of blocks that rises and falls by as much as all of it.
fn tide<S: Source + Sync>(heap: &Heap<S>, size: usize) -> Cost {
    let rounds = CALLS / (2 * BLOCKS as u64);
    let work = |heap: &Attached<'_, S, Counting>| {
        for _ in 0..rounds {
            let held: Vec<usize> = (0..BLOCKS).map(|_| alloc(heap, size)).collect();
            held.into_iter().for_each(|block| free(heap, block, size));
        }
    };
    Cost { calls: rounds * 2 * BLOCKS as u64, locks: locks_of(heap, work) }
}

/// One thread only allocates, another one only frees: every block takes both trips.
fn one_way<S: Source + Sync>(heap: &Heap<S>, size: usize) -> Cost {
    let (sender, receiver) = mpsc::sync_channel::<Vec<usize>>(4);
    let batches = CALLS / 2 / BLOCKS as u64;
    thread::scope(|scope| {
        let taker = scope.spawn(move || {
            locks_of(heap, |heap| receiver.into_iter().flatten().for_each(|block| free(heap, block, size)))
        });
        let locks = locks_of(heap, |heap| {
            for _ in 0..batches {
                sender.send((0..BLOCKS).map(|_| alloc(heap, size)).collect()).expect("the other thread listens");
            }
            drop(sender);
        });
        Cost { calls: batches * 2 * BLOCKS as u64, locks: locks + taker.join().expect("it ends well") }
    })
}

/// The lists, slabs and runs that a pattern's first blocks come from, and what the end gives back: no part of its course.
fn beginnings(class: Class) -> u64 {
    let slabs = (4 * BLOCKS * class.size()).div_ceil(4096) as u64;
    8 * slabs
}

fn stays_within<S: Source + Sync>(locks: u64, name: &str, source: fn() -> S) {
    for class in Class::all() {
        for (pattern, run) in [("churn", churn as fn(&Heap<S>, usize) -> Cost), ("tide", tide), ("one way", one_way)] {
            let heap = open(source());
            let cost = run(&heap, class.size());
            let (target, size) = (u64::from(heap.target(class)), class.size());
            let per_thousand = cost.locks as f64 * 1e3 / cost.calls as f64;
            println!("{name}, {size:4} B, {pattern:8}: {per_thousand:7.2} locks in 1000 calls, target {target}");
            let allowed = locks * cost.calls / target + beginnings(class);
            assert!(cost.locks <= allowed, "{name}, {size} B, {pattern}: {} locks, {allowed} allowed", cost.locks);
        }
    }
}

#[test]
fn g2_no_more_than_one_lock_in_target_calls_while_a_purger_comes() {
    stays_within(1, "purger", || Busy(Mmap::new()));
}

/// A long block that is freed and asked for again passes by no lock, once it has done so a few times.
#[test]
fn g5_a_long_block_used_again_takes_no_lock() {
    const PAIRS: u64 = 1000;
    for size in [100_000, 1 << 20, 4 << 20] {
        let heap = open(Mmap::new());
        let pairs = |heap: &Attached<'_, Mmap, Counting>| (0..PAIRS).for_each(|_| free(heap, alloc(heap, size), size));
        let locks = locks_of(&heap, pairs);
        assert!(locks < 40, "{size} bytes: {locks} locks for {PAIRS} pairs");
    }
}

/// A bounded depot refuses lists, and one trip may take its lock and that of the slabs.
#[test]
fn g2_no_more_than_two_locks_in_target_calls_without_a_purger() {
    stays_within(2, "alone", Mmap::new);
}
