//! Row G12 on the process heap: the child of a program with busy threads can allocate, free and fork again.
//!
//! A child does little else: no output, no panic. It says by its exit status what it found.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};
use stratalloc::Stratalloc;

#[global_allocator]
static A: Stratalloc = Stratalloc::new();

/// Forks beside busy threads, where `STRATALLOC_FORKS` does not say how many.
const FORKS: usize = 200;
const BUSY: usize = 8;
/// A child that takes longer hangs; and its own child, so that none is left behind.
const DEADLINE: Duration = Duration::from_secs(30);
const GRANDCHILDS_DEADLINE: Duration = Duration::from_secs(15);

/// Allocates, grows and frees blocks of every kind; whether each kept what was written.
fn use_the_heap() -> bool {
    let mut blocks: Vec<Vec<u8>> = (0..100u8).map(|i| vec![i; 1 << (i % 17)]).collect();
    blocks.iter_mut().zip(0..).for_each(|(block, i)| block.extend_from_slice(&[i; 100]));
    let intact = blocks.iter().zip(0..).all(|(block, i)| *block == vec![i; block.len()]);
    intact && black_box(vec![0u8; 300_000]) == vec![0u8; 300_000]
}

/// Forks; the child ends with 0 if `body` returns true, and 1 otherwise.
fn fork(body: impl FnOnce() -> bool) -> libc::pid_t {
    // SAFETY: the child runs `body`, which allocates (the promise under test) and makes system calls, and then ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let right = body();
        // SAFETY: no preconditions.
        unsafe { libc::_exit(i32::from(!right)) }
    }
    child
}

/// The status of `child`, which is killed when it takes too long.
fn wait(child: libc::pid_t, deadline: Duration) -> i32 {
    let (begun, mut status) = (Instant::now(), 0);
    while begun.elapsed() < deadline {
        // SAFETY: `status` is ours to write.
        match unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } {
            0 => thread::sleep(Duration::from_micros(200)),
            ended => return if ended == child { status } else { -1 },
        }
    }
    // SAFETY: the child is ours and was not waited for yet.
    let _ = unsafe { libc::kill(child, libc::SIGKILL) };
    // SAFETY: as above; it ends now.
    let _ = unsafe { libc::waitpid(child, &raw mut status, 0) };
    status
}

/// The status of a child that runs `body`.
fn status_of_child(body: impl FnOnce() -> bool) -> i32 {
    wait(fork(body), DEADLINE)
}

/// What every child does: use the heap and fork a child of its own that does so too.
fn use_the_heap_in_two_generations() -> bool {
    let first = use_the_heap();
    let status = wait(fork(use_the_heap), GRANDCHILDS_DEADLINE);
    first && status == 0 && use_the_heap()
}

/// Ends the busy threads when it is dropped, also by a test that fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Runs `body` beside `threads` threads that are busy on the heap.
fn beside_busy_threads(threads: usize, body: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let busy = || (0..).take_while(|_| !stop.load(Relaxed)).all(|_| use_the_heap());
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(busy)).collect();
        let end = Stop(&stop);
        body();
        drop(end);
        assert!(threads.into_iter().all(|thread| thread.join().expect("no panic")), "the parent's blocks are intact");
    });
}

#[test]
fn g12_two_hundred_forks_beside_busy_threads() {
    beside_busy_threads(BUSY, || {
        let forks = std::env::var("STRATALLOC_FORKS").map_or(FORKS, |forks| forks.parse().expect("a number"));
        let wrong = (0..forks)
            .map(|at| (at, status_of_child(use_the_heap_in_two_generations)))
            .find(|(_, status)| *status != 0);
        assert_eq!(wrong, None, "(fork, status)");
    });
    assert!(use_the_heap());
}

#[test]
fn g12_forks_from_several_threads_at_once() {
    beside_busy_threads(2, || {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..20).for_each(|_| assert_eq!(status_of_child(use_the_heap), 0)));
            }
        });
    });
}

#[test]
fn g12_child_frees_the_parents_blocks_and_gives_them_back() {
    let mut blocks: Vec<Vec<u8>> = (0..20_000).map(|i| vec![1; i % 2000]).collect();
    beside_busy_threads(2, || {
        let status = status_of_child(|| {
            let before = Stratalloc::stats().allocated;
            blocks.clear();
            Stratalloc::collect();
            let stats = Stratalloc::stats();
            stats.allocated + (15 << 20) < before && stats.threads == 1 && stats.retained == 0 && use_the_heap()
        });
        assert_eq!(status, 0);
    });
    assert!(blocks.iter().all(|block| block.iter().all(|byte| *byte == 1)), "the parent has them still");
}

#[test]
fn g12_thread_of_the_child() {
    beside_busy_threads(2, || {
        let status = status_of_child(|| {
            let made = thread::Builder::new().spawn(use_the_heap);
            made.is_ok_and(|thread| thread.join().is_ok_and(|right| right)) && Stratalloc::stats().threads == 1
        });
        assert_eq!(status, 0);
    });
}
