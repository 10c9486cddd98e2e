//! Long random schedules of the whole engine: up to eight threads, whose every lock is a place where another one may go on.
//!
//! loom explores every interleaving of a few steps of one layer; this runs thousands of random ones of all layers together
//! (crate `shuttle`), against what every thread knows of its blocks. The last line of each test says where the switches
//! between threads fell.

// All threads of a schedule are one thread of the system's, and there the check of the lock order, which builds with debug
// assertions have, sees the locks of all of them as one's: `cargo test --release --test schedules`.
#![cfg(not(debug_assertions))]
#![allow(clippy::disallowed_macros, reason = "a test may print what it measured")]

use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::atomic::{AtomicBool, Ordering};
use shuttle::sync::{Arc, Mutex};
use shuttle::{Runner, hint, thread};
use std::alloc::Layout;
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use stratalloc::Config;
use stratalloc::heap::{Attached, Blocks, Cache, Engine};
use stratalloc::lock::RawLock;
use stratalloc::os::Mmap;

/// What a thread does at the moment.
const PLACES: [&str; 9] = ["outside", "attach", "alloc", "zeroed", "free", "realloc", "park", "collect", "detach"];

/// Switches between threads by the place that they fell in.
static SWITCHES: [AtomicUsize; PLACES.len()] = [const { AtomicUsize::new(0) }; PLACES.len()];
/// The thread that came last to a point where another may go on, and the place.
static LAST: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

shuttle::thread_local! {
    /// The number of a thread, from 1, and the place it is at.
    static ME: [Cell<usize>; 2] = [Cell::new(0), Cell::new(0)];
}

/// Called where another thread may go on.
fn point() {
    ME.with(|[number, place]| {
        if LAST[0].swap(number.get(), Relaxed) != number.get() {
            SWITCHES[LAST[1].load(Relaxed)].fetch_add(1, Relaxed);
        }
        LAST[1].store(place.get(), Relaxed);
    });
}

/// Runs `work` at `place`.
fn at<R>(place: &str, work: impl FnOnce() -> R) -> R {
    let place = PLACES.iter().position(|name| *name == place).expect("one of the places");
    ME.with(|me| me[1].set(place));
    let result = work();
    ME.with(|me| me[1].set(0));
    result
}

/// A spin lock at which the scheduler decides who goes on.
struct Scheduled(AtomicBool);

// SAFETY: excludes, and the scheduler runs one thread at a time.
unsafe impl RawLock for Scheduled {
    const NEW: Self = Self(AtomicBool::new(false));

    fn acquire(&self) {
        point();
        while self.0.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            hint::spin_loop();
            point();
        }
    }

    unsafe fn release(&self) {
        self.0.store(false, Ordering::Release);
        point();
    }
}

type Heap = Engine<Mmap, Scheduled>;

/// A live block: its address, layout, and the byte that it is filled with.
#[derive(Clone, Copy)]
struct Held {
    block: usize,
    layout: Layout,
    mark: u8,
}

impl Held {
    fn fill(block: *mut u8, layout: Layout, mark: u8) -> Self {
        // SAFETY: a live block of that size, which is the caller's.
        unsafe { block.write_bytes(mark, layout.size()) };
        Self { block: block as usize, layout, mark }
    }

    fn check(&self) {
        // SAFETY: a live block of that size, which is the caller's.
        let bytes = unsafe { std::slice::from_raw_parts(self.block as *const u8, self.layout.size()) };
        assert!(bytes.iter().all(|byte| *byte == self.mark), "a block of {:?} has changed", self.layout);
    }
}

/// Blocks on their way from one thread to another.
type Mailbox = Mutex<Vec<Held>>;

fn layout() -> Layout {
    let size = match thread_rng().gen_range(0..8) {
        0..5 => thread_rng().gen_range(1..600),
        5 => thread_rng().gen_range(600..4097),
        6 => thread_rng().gen_range(4097..70_000),
        _ => 1 << 20,
    };
    Layout::from_size_align(size, 8 << thread_rng().gen_range(0..3)).expect("a layout")
}

/// One thread's work: blocks come, change, go, and are handed on.
fn work(heap: &Attached<'_, Mmap, Scheduled>, mailbox: &Mailbox, mark: u8, steps: usize) {
    let mut held: Vec<Held> = Vec::new();
    // SAFETY: any layout may be asked for.
    let alloc = |of| Held::fill(at("alloc", || unsafe { heap.alloc(of) }), of, mark);
    let free = |held: Held| {
        held.check();
        // SAFETY: a live block of this heap for the layout, freed once.
        at("free", || unsafe { heap.dealloc(held.block as *mut u8, held.layout) });
    };
    for _ in 0..steps {
        let pick = if held.is_empty() { 0 } else { thread_rng().gen_range(0..held.len()) };
        match thread_rng().gen_range(0..16) {
            // A burst, so that lists travel.
            0 => {
                let of = layout();
                held.extend((0..20_000 / of.size().max(200)).map(|_| alloc(of)));
            }
            1..5 => held.push(alloc(layout())),
            5 => {
                let of = layout();
                // SAFETY: any layout may be asked for.
                let block = at("zeroed", || unsafe { heap.alloc_zeroed(of) });
                Held { block: block as usize, layout: of, mark: 0 }.check();
                held.push(Held::fill(block, of, mark));
            }
            6..9 if !held.is_empty() => free(held.swap_remove(pick)),
            9 => held.drain(pick..).for_each(free),
            10..12 if !held.is_empty() => {
                let (old, size) = (held.swap_remove(pick), layout().size());
                old.check();
                // SAFETY: a live block of this heap for the layout.
                let block = at("realloc", || unsafe { heap.realloc(old.block as *mut u8, old.layout, size) });
                let new = Layout::from_size_align(size, old.layout.align()).expect("a layout");
                let kept = Layout::from_size_align(size.min(old.layout.size()), 1).expect("a layout");
                Held { block: block as usize, layout: kept, mark: old.mark }.check();
                held.push(Held::fill(block, new, mark));
            }
            12 | 13 => mailbox.lock().expect("nobody panics with it").extend(held.drain(pick..)),
            14 => {
                let handed = std::mem::take(&mut *mailbox.lock().expect("nobody panics with it"));
                handed.into_iter().for_each(free);
            }
            _ => match thread_rng().gen_range(0..4) {
                0 => at("park", || heap.park()),
                1 => at("collect", || heap.collect()),
                _ => point(),
            },
        }
    }
    held.into_iter().for_each(free);
}

/// `threads` threads on one heap; at the end nothing is live, and all of it can be given back.
fn schedule(threads: usize, steps: usize) {
    let heap = Arc::new(Heap::new(Mmap::new()));
    assert!(heap.open(&Config::new().idle_bytes(1 << 20)));
    let mailbox = Arc::new(Mailbox::default());
    let run = |number: usize| {
        let (heap, mailbox) = (Arc::clone(&heap), Arc::clone(&mailbox));
        thread::spawn(move || {
            ME.with(|me| me[0].set(number));
            let cache = Cache::new();
            // SAFETY: the cache is fresh, stays here until it is detached, and is this thread's.
            at("attach", || unsafe { heap.attach(&cache) });
            // SAFETY: attached above.
            work(&unsafe { heap.through(&cache) }, &mailbox, number as u8, steps);
            // SAFETY: attached above, and no longer in use.
            at("detach", || unsafe { heap.detach(&cache) });
        })
    };
    let running: Vec<_> = (1..=threads).map(run).collect();
    running.into_iter().for_each(|thread| thread.join().expect("it ends well"));
    let cache = Cache::new();
    // SAFETY: the cache is fresh, stays here until it is detached, and is this thread's.
    unsafe { heap.attach(&cache) };
    for held in mailbox.lock().expect("nobody panics with it").drain(..) {
        held.check();
        // SAFETY: attached above.
        let heap = unsafe { heap.through(&cache) };
        // SAFETY: a live block of this heap for the layout, freed once.
        unsafe { heap.dealloc(held.block as *mut u8, held.layout) };
    }
    // SAFETY: attached above, and no longer in use.
    unsafe { heap.detach(&cache) };
    heap.collect();
    let stats = heap.stats(None);
    assert_eq!((stats.allocated, stats.retained, stats.threads), (0, 0, 0));
}

/// Says where the switches fell, and that enough of them fell inside the heap.
fn report(name: &str, schedules: usize) {
    let counts: Vec<usize> = SWITCHES.iter().map(|count| count.swap(0, Relaxed)).collect();
    let all: usize = counts.iter().sum();
    let inside = 100.0 * (all - counts[0]) as f64 / all as f64;
    let places: Vec<String> = PLACES.iter().zip(&counts).map(|(place, count)| format!("{place} {count}")).collect();
    println!("{name}: {schedules} schedules, {all} switches, {inside:.0} % inside the heap: {}", places.join(", "));
    assert!(inside >= 30.0, "only {inside:.0} % of the switches fell inside the heap");
}

/// Threads with room for a heap and a cache on their stacks.
fn runner<S: Scheduler + 'static>(scheduler: S) -> Runner<S> {
    let mut config = shuttle::Config::new();
    config.stack_size = 1 << 20;
    Runner::new(scheduler, config)
}

/// How many schedules: `STRATALLOC_SCHEDULES`, or a few.
fn schedules(few: usize) -> usize {
    std::env::var("STRATALLOC_SCHEDULES").map_or(few, |count| count.parse().expect("a number"))
}

#[test]
fn random_schedules_of_four_and_eight_threads() {
    for (threads, steps) in [(4, 40), (8, 25)] {
        let count = schedules(150);
        runner(RandomScheduler::new(count)).run(move || schedule(threads, steps));
        report(&format!("{threads} threads"), count);
    }
}

/// Schedules with few switches at chosen places find what uniform ones rarely do.
#[test]
fn schedules_with_few_switches() {
    let count = schedules(150);
    runner(PctScheduler::new(3, count)).run(|| schedule(5, 25));
}
