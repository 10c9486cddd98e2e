//! Rows G11 and G6 on the process heap: threads that end with blocks in hand, destructors that work on the heap before
//! and after its own, threads made by C, blocks freed by another thread than theirs.
//!
//! What a test measures is the whole process's, so each of those runs in one of its own.

#[path = "common/own_process.rs"]
mod own_process;
#[path = "common/resident.rs"]
mod resident;

use own_process::in_own_process;
use resident::resident_bytes;
use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::hint::black_box;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use stratalloc::{Stats, Stratalloc};

#[global_allocator]
#[cfg(not(feature = "malloc-debug"))]
static A: Stratalloc = Stratalloc::new();
// These tests are about the heap itself.
#[global_allocator]
#[cfg(feature = "malloc-debug")]
static A: Stratalloc = Stratalloc::with_config(stratalloc::Config::new().hunt(stratalloc::Hunt::new().off()));

/// What a footprint may differ by.
const MIB: usize = 1 << 20;

/// A block filled with what tells it from others.
struct Marked(Vec<usize>);

impl Marked {
    fn new(mark: usize, bytes: usize) -> Self {
        Self(vec![mark; bytes.div_ceil(size_of::<usize>())])
    }

    fn is_intact(&self) -> bool {
        self.0.iter().all(|word| *word == self.0[0])
    }
}

/// Allocates, grows, shrinks and frees blocks of every kind: each class, page lists, runs, zeroed and large ones.
fn work_on_the_heap() {
    let mut blocks: Vec<Marked> = (0..20).map(|shift| Marked::new(shift, 1 << shift)).collect();
    blocks.iter_mut().for_each(|Marked(words)| words.resize(words.len() * 3, words[0]));
    blocks.iter_mut().for_each(|Marked(words)| words.truncate(2));
    blocks.iter_mut().for_each(|Marked(words)| words.shrink_to_fit());
    assert!(blocks.iter().all(Marked::is_intact));
    assert!(black_box(vec![0u8; 300_000]).iter().all(|byte| *byte == 0));
}

mod c_threads {
    use super::*;

    unsafe extern "C-unwind" {
        fn pthread_create(
            thread: *mut libc::pthread_t,
            attributes: *const libc::pthread_attr_t,
            start: extern "C-unwind" fn(*mut c_void) -> *mut c_void,
            argument: *mut c_void,
        ) -> c_int;
        fn pthread_exit(value: *mut c_void) -> !;
    }

    /// What a thread made by C is to do.
    pub(super) type Body<'a> = &'a (dyn Fn() + Sync);

    extern "C-unwind" fn start(body: *mut c_void) -> *mut c_void {
        // SAFETY: `run` passes a `Body` that it keeps until this thread has ended.
        let body = unsafe { *body.cast::<Body<'_>>() };
        body();
        null_mut()
    }

    extern "C-unwind" fn start_and_exit(body: *mut c_void) -> *mut c_void {
        start(body);
        // SAFETY: no frame of this thread has anything to drop.
        unsafe { pthread_exit(null_mut()) }
    }

    fn run(start: extern "C-unwind" fn(*mut c_void) -> *mut c_void, mut body: Body<'_>) {
        let mut thread = 0;
        // SAFETY: `body` stays here until the thread was joined.
        let made = unsafe { pthread_create(&raw mut thread, null(), start, (&raw mut body).cast()) };
        assert_eq!(made, 0);
        // SAFETY: made above, joined once.
        let joined = unsafe { libc::pthread_join(thread, null_mut()) };
        assert_eq!(joined, 0);
    }

    /// Runs `body` in a thread made by C, to its end.
    pub(super) fn run_to_return(body: Body<'_>) {
        run(start, body);
    }

    /// Runs `body` in a thread made by C that ends by `pthread_exit`.
    pub(super) fn run_to_exit(body: Body<'_>) {
        run(start_and_exit, body);
    }
}

use c_threads::{run_to_exit, run_to_return};

mod destructors {
    use super::*;

    /// What the destructor of a [`Probe`] saw.
    pub(super) struct Seen {
        runs: AtomicUsize,
        caches: AtomicUsize,
    }

    impl Seen {
        pub(super) const fn nothing() -> Self {
            Self { runs: AtomicUsize::new(0), caches: AtomicUsize::new(0) }
        }

        /// How often it ran.
        pub(super) fn runs(&self) -> usize {
            self.runs.load(SeqCst)
        }

        /// How many threads had a cache when it was done.
        pub(super) fn caches(&self) -> usize {
            self.caches.load(SeqCst)
        }
    }

    /// Works on the heap when it is dropped.
    pub(super) struct Probe(pub(super) &'static Seen);

    impl Drop for Probe {
        fn drop(&mut self) {
            work_on_the_heap();
            self.0.caches.store(caches(), SeqCst);
            self.0.runs.fetch_add(1, SeqCst);
        }
    }

    /// Lets another thread-local begin, with a destructor of its own, when it is dropped.
    pub(super) struct Nest(pub(super) &'static Seen);

    thread_local! {
        pub(super) static FIRST: Cell<Option<Probe>> = const { Cell::new(None) };
        pub(super) static SECOND: Cell<Option<Probe>> = const { Cell::new(None) };
        pub(super) static OUTER: Cell<Option<Nest>> = const { Cell::new(None) };
        static INNER: RefCell<Vec<Probe>> = const { RefCell::new(Vec::new()) };
    }

    impl Drop for Nest {
        fn drop(&mut self) {
            let probe = Probe(self.0);
            INNER.with_borrow_mut(|inner| inner.push(probe));
        }
    }
}

use destructors::{FIRST, Nest, OUTER, Probe, SECOND, Seen};

/// Threads that have a cache.
fn caches() -> usize {
    Stratalloc::stats().threads
}

#[test]
fn g11_destructors_before_and_after_the_end_of_the_cache() {
    static EARLIER: Seen = Seen::nothing();
    static LATER: Seen = Seen::nothing();
    in_own_process(|| {
        let before = caches();
        // Destructors run in reverse order: the one registered before the cache begins runs after it has ended.
        run_to_return(&|| {
            FIRST.set(Some(Probe(&EARLIER)));
            assert_eq!(caches(), before, "nothing is allocated yet");
            work_on_the_heap();
            assert_eq!(caches(), before + 1);
            SECOND.set(Some(Probe(&LATER)));
        });
        assert_eq!((LATER.runs(), LATER.caches()), (1, before + 1), "with the cache");
        // Behind C names the cache ends with C's thread-specific data, later than all of these.
        let then = before + usize::from(cfg!(feature = "c-abi"));
        assert_eq!((EARLIER.runs(), EARLIER.caches()), (1, then), "past the cache");
        assert_eq!(caches(), before);
    })
    .well();
}

#[test]
fn g11_destructors_that_begin_others() {
    static SEEN: Seen = Seen::nothing();
    in_own_process(|| {
        let before = caches();
        run_to_return(&|| {
            OUTER.set(Some(Nest(&SEEN)));
            work_on_the_heap();
        });
        thread::spawn(|| OUTER.set(Some(Nest(&SEEN)))).join().expect("the thread ends well");
        assert_eq!((SEEN.runs(), caches()), (2, before));
    })
    .well();
}

#[test]
fn g11_cache_that_begins_in_a_destructor_of_c() {
    in_own_process(|| {
        let before = caches();
        let mut key = 0;
        // SAFETY: the destructor takes any value.
        assert_eq!(unsafe { libc::pthread_key_create(&raw mut key, Some(work_at_the_end)) }, 0);
        for _ in 0..100 {
            run_to_return(&|| {
                // SAFETY: the key was made above.
                assert_eq!(unsafe { libc::pthread_setspecific(key, null::<c_void>().wrapping_add(1)) }, 0);
            });
            assert_eq!(caches(), before);
        }
    })
    .well();
}

/// Runs when the destructors of thread-locals have run.
unsafe extern "C" fn work_at_the_end(_: *mut c_void) {
    work_on_the_heap();
}

#[test]
fn g11_threads_made_by_c() {
    in_own_process(|| {
        let before = (caches(), Stratalloc::stats().allocated);
        for _ in 0..100 {
            run_to_return(&work_on_the_heap);
            run_to_exit(&work_on_the_heap);
        }
        assert_eq!((caches(), Stratalloc::stats().allocated), before);
    })
    .well();
}

const BATCHES: usize = 100;
const BATCH: usize = 100;

/// Live blocks that a thread leaves behind: of classes, and now and then from page lists and from runs. About 4 KiB on
/// average.
fn leave_blocks(thread: usize) -> Vec<Marked> {
    let pages = match thread % 50 {
        0 => 100_000,
        1..10 => 5000,
        _ => 2000,
    };
    let sizes = [8, 24, 100, 200, 500, 1000, pages];
    let make = || sizes.iter().map(|size| Marked::new(thread, *size)).collect::<Vec<_>>();
    let (freed, left) = (make(), make());
    drop(freed);
    left
}

/// What as many threads leave that are all alive at once.
fn batch(first: usize) -> Vec<Marked> {
    let all = Arc::new(Barrier::new(BATCH));
    let start = |thread| {
        let all = Arc::clone(&all);
        thread::spawn(move || {
            let blocks = leave_blocks(thread);
            all.wait();
            blocks
        })
    };
    let threads: Vec<_> = (first..first + BATCH).map(start).collect();
    threads.into_iter().flat_map(|thread| thread.join().expect("the thread ends well")).collect()
}

/// Allocated and resident bytes once all that is free was given back.
fn footprint() -> (usize, usize) {
    Stratalloc::collect();
    let stats = Stratalloc::stats();
    (stats.allocated, resident_bytes() - copies(&stats))
}

/// Bytes of the copies of the heap's records, which stay as the records do: with `malloc-debug` half of what those take.
fn copies(stats: &Stats) -> usize {
    if cfg!(feature = "malloc-debug") { (stats.records + stats.map) / 2 } else { 0 }
}

#[test]
fn g11_ten_thousand_threads_leave_live_blocks() {
    in_own_process(|| {
        // The first batch leaves the stacks that the C library keeps for the others.
        drop(batch(0));
        let (threads, (allocated, resident)) = (caches(), footprint());
        let blocks: Vec<Marked> = (0..BATCHES).flat_map(|at| batch(at * BATCH)).collect();
        assert!(blocks.iter().all(Marked::is_intact));
        assert!(Stratalloc::stats().allocated > allocated + 30 * MIB);
        drop(blocks);
        let (allocated_after, resident_after) = footprint();
        assert_eq!(caches(), threads);
        assert!(allocated_after.abs_diff(allocated) <= MIB, "allocated: {allocated} before, {allocated_after} after");
        assert!(resident_after <= resident + MIB, "resident: {resident} before, {resident_after} after");
    })
    .well();
}

#[test]
fn g6_a_block_joins_the_cache_of_the_thread_that_frees_it() {
    let block = Box::new([7u8; 48]);
    let address = &raw const *block as usize;
    let reused = thread::spawn(move || {
        black_box(Box::new([1u8; 48]));
        drop(block);
        &raw const *black_box(Box::new([2u8; 48])) as usize
    });
    assert_eq!(reused.join().expect("the thread ends well"), address);
}

#[test]
fn g6_a_thread_frees_before_it_allocates() {
    let block = Cell::new(Some(vec![7u8; 24]));
    let block = std::sync::Mutex::new(block);
    run_to_return(&|| {
        drop(block.lock().expect("nobody panics").take());
        let blocks: Vec<Vec<u8>> = (0..200).map(|byte| vec![byte; 24]).collect();
        assert!(blocks.iter().zip(0..).all(|(block, byte)| *block == [byte; 24]));
    });
}

#[test]
fn g6_blocks_go_one_way() {
    in_own_process(|| {
        let (allocated, _) = footprint();
        let (give, take) = mpsc::sync_channel::<Marked>(1000);
        let freeing = thread::spawn(move || take.into_iter().filter(Marked::is_intact).count());
        (0..100_000).for_each(|i| give.send(Marked::new(i, i % 3000)).expect("the other thread takes them"));
        drop(give);
        assert_eq!(freeing.join().expect("the thread ends well"), 100_000);
        let (allocated_after, _) = footprint();
        assert!(allocated_after.abs_diff(allocated) <= MIB, "allocated: {allocated} before, {allocated_after} after");
    })
    .well();
}

const CROWD: usize = 64;
const ROUNDS: usize = 1000;

/// Makes blocks for the next thread, keeps some, and frees those of the thread before.
fn churn(own: usize, next: &mpsc::Sender<Marked>, before: &mpsc::Receiver<Marked>) -> usize {
    let mut kept: Vec<Marked> = Vec::new();
    let mut intact = 0;
    for round in 0..ROUNDS {
        let size = (own * 31 + round * 97) % 6000;
        kept.push(Marked::new(own, size));
        next.send(Marked::new(round, size)).expect("the next thread listens until its end");
        if round % 10 == 9 {
            kept.retain(|block| !block.is_intact());
        }
        intact += before.try_iter().filter(Marked::is_intact).count();
    }
    intact
}

#[test]
fn g6_more_threads_than_processors() {
    let (gives, takes): (Vec<_>, Vec<_>) = (0..CROWD).map(|_| mpsc::channel()).unzip();
    let mut nexts = gives.clone();
    nexts.rotate_left(1);
    drop(gives);
    let threads: Vec<_> = (nexts.into_iter().zip(takes).enumerate())
        .map(|(own, (next, before))| {
            thread::spawn(move || {
                let intact = churn(own, &next, &before);
                drop(next);
                intact + before.into_iter().filter(Marked::is_intact).count()
            })
        })
        .collect();
    let intact: usize = threads.into_iter().map(|thread| thread.join().expect("the thread ends well")).sum();
    assert_eq!(intact, CROWD * ROUNDS);
}

/// Blocks longer than the run lists keep, of random lengths up to 1 MiB, written from end to end.
fn long_blocks(seed: usize, count: usize) -> Vec<Vec<u8>> {
    let size = |i: usize| (80 << 10) + (seed * 7919 + i * 104_729) % (900 << 10);
    (0..count).map(|i| vec![i as u8 | 1; size(i)]).collect()
}

#[test]
fn g6_long_blocks_come_and_go_in_many_threads() {
    let (give, take) = mpsc::sync_channel::<Vec<u8>>(20);
    let taker = thread::spawn(move || {
        let whole = |block: &Vec<u8>| block.iter().all(|byte| *byte == block[0]);
        take.into_iter().filter(whole).count()
    });
    let threads: Vec<_> = (0..20)
        .map(|seed| {
            let give = give.clone();
            thread::spawn(move || {
                for round in 0..10 {
                    let mut blocks = long_blocks(seed + round, 12);
                    blocks.drain(..4).for_each(|block| give.send(block).expect("somebody takes it"));
                    blocks.iter_mut().for_each(|block| block.resize(block.len() * 2, block[0]));
                    assert!(blocks.iter().all(|block| block.iter().all(|byte| *byte == block[0])));
                    assert!(vec![0_u8; 300_000 + seed].iter().all(|byte| *byte == 0));
                }
            })
        })
        .collect();
    drop(give);
    threads.into_iter().for_each(|thread| thread.join().expect("the thread ends well"));
    assert_eq!(taker.join().expect("the thread ends well"), 20 * 10 * 4);
}

#[test]
fn g14_long_blocks_that_waiting_threads_freed_come_back() {
    in_own_process(|| {
        let (before, stop) = (resident_bytes(), Arc::new(Barrier::new(9)));
        let live: Vec<Vec<u8>> = (0..200).map(|_| vec![1; 1 << 20]).collect();
        let threads: Vec<_> = (0..8)
            .map(|seed| {
                let stop = Arc::clone(&stop);
                thread::spawn(move || {
                    (0..20).for_each(|round| drop(long_blocks(seed * round, 5)));
                    stop.wait();
                    stop.wait();
                })
            })
            .collect();
        stop.wait();
        drop(live);
        let held = || resident_bytes() - before;
        // A second, and on a busy machine what its thread waits for a processor. 8 MiB retained, stacks and records, and what the threads'
        // caches hold.
        thread::sleep(std::time::Duration::from_secs(1));
        let come_back = (0..100).any(|_| {
            held() <= 11 * MIB || {
                thread::sleep(std::time::Duration::from_millis(50));
                false
            }
        });
        assert!(come_back, "{} bytes resident, seconds after the last call", held());
        stop.wait();
        threads.into_iter().for_each(|thread| thread.join().expect("the thread ends well"));
        Stratalloc::collect();
        let stats = Stratalloc::stats();
        assert_eq!(stats.retained, 0);
        assert!(stats.allocated < MIB && stats.active < 2 * MIB, "{stats:?}");
    })
    .well();
}

/// Allocates `pages` pages and frees them, so often, and then frees the last ones once more.
fn free_twice(pages: usize, pairs: usize) {
    let layout = std::alloc::Layout::from_size_align(pages * 4096, 8).expect("a layout");
    for _ in 1..pairs {
        // SAFETY: the size is not 0.
        let block = unsafe { std::alloc::alloc(layout) };
        // SAFETY: allocated above.
        unsafe { std::alloc::dealloc(black_box(block), layout) };
    }
    // SAFETY: the size is not 0.
    let block = unsafe { std::alloc::alloc(layout) };
    // SAFETY: allocated above.
    unsafe { std::alloc::dealloc(block, layout) };
    // SAFETY: none: this is the mistake that must be noticed.
    unsafe { std::alloc::dealloc(black_box(block), layout) };
}

#[test]
fn g5_a_kept_block_freed_twice_ends_the_process() {
    let ended = in_own_process(|| free_twice(256, 1));
    assert!(ended.stderr.contains("no run of that length"), "{ended:?}");
}

#[test]
fn g5_a_block_used_again_and_again_freed_twice_ends_the_process() {
    let ended = in_own_process(|| free_twice(256, 10));
    assert!(ended.stderr.contains("no run of that length"), "{ended:?}");
}

#[test]
fn g5_the_longest_kept_block_freed_twice_ends_the_process() {
    let ended = in_own_process(|| free_twice(1024, 1));
    assert!(ended.stderr.contains("no run of that length"), "{ended:?}");
}

#[test]
fn g5_a_block_too_long_to_be_kept_freed_twice_ends_the_process() {
    let ended = in_own_process(|| free_twice(1025, 1));
    assert!(ended.stderr.contains("no run of that length"), "{ended:?}");
}
