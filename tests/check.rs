//! The process heap audited while it is busy: a sound heap is never called damaged.

#![expect(clippy::disallowed_macros, reason = "the output says how much was done; a test forks")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use stratalloc::Stratalloc;

#[global_allocator]
static A: Stratalloc = Stratalloc::new();

/// Small, middling and long blocks, some grown, some handed to other threads.
fn work(seed: usize, stop: &AtomicBool, hand: &std::sync::mpsc::Sender<Vec<u8>>) -> usize {
    let (mut kept, mut state, mut rounds) = (HashMap::new(), seed, 0);
    while !stop.load(Relaxed) {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let size = 1 << (state >> 59);
        let block = vec![1u8; size % 5_000_000];
        match state >> 40 & 3 {
            0 => _ = hand.send(block),
            _ => _ = kept.insert(state >> 33 & 255, block),
        }
        if let Some(block) = kept.get_mut(&(state >> 20 & 255)) {
            block.resize(block.len() / 2 * 3 % 5_000_000, 2);
        }
        rounds += 1;
    }
    rounds
}

#[test]
fn d11_a_busy_heap_is_never_called_damaged() {
    let stop = AtomicBool::new(false);
    let (hand, take) = std::sync::mpsc::channel();
    let rounds: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..5)
            .map(|seed| {
                let (hand, stop) = (hand.clone(), &stop);
                scope.spawn(move || work(seed, stop, &hand))
            })
            .collect();
        let begin = std::time::Instant::now();
        let mut checks = 0;
        while begin.elapsed().as_secs() < 3 || checks < 3 {
            take.try_iter().for_each(drop);
            Stratalloc::check().unwrap_or_else(|finding| panic!("check {checks}: {finding}"));
            checks += 1;
        }
        stop.store(true, Relaxed);
        println!("{checks} checks");
        threads.into_iter().map(|thread| thread.join().expect("a thread ends well")).sum()
    });
    println!("beside {rounds} rounds of four threads");
    assert!(rounds > 100, "the threads did too little: {rounds} rounds");
}

/// Lets the calling thread run on one processor alone.
fn pin(processor: usize) {
    // SAFETY: zero bits are an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is ours.
    unsafe { libc::CPU_SET(processor, &mut set) };
    // SAFETY: as above. Where that processor is not ours to choose the thread runs anywhere.
    let _ = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
}

/// Long blocks come and go without a lock, in threads that share a processor and so are interrupted anywhere.
fn swing(stop: &AtomicBool) -> u64 {
    pin(0);
    let mut rounds = 0;
    while !stop.load(Relaxed) {
        drop(std::hint::black_box(Vec::<u8>::with_capacity(100_000)));
        rounds += 1;
    }
    rounds
}

/// Runs `body` beside four threads that swing.
fn beside_swings(body: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| swing(&stop))).collect();
        body();
        stop.store(true, Relaxed);
        let rounds: u64 = threads.into_iter().map(|thread| thread.join().expect("a thread ends well")).sum();
        assert!(rounds > 1000, "the threads did too little: {rounds} rounds");
    });
}

#[test]
fn d11_a_thread_may_be_interrupted_anywhere() {
    beside_swings(|| {
        let begin = std::time::Instant::now();
        while begin.elapsed().as_secs() < 2 {
            Stratalloc::check().unwrap_or_else(|finding| panic!("{finding}"));
        }
    });
}

#[test]
fn d11_a_forked_child_finds_its_heap_sound() {
    beside_swings(|| {
        for fork in 0..100 {
            // SAFETY: the child only audits, and ends.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let sound = Stratalloc::check().is_ok();
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(if sound { 0 } else { 7 }) };
            }
            let mut status = 0;
            // SAFETY: the child is ours.
            let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert_eq!((waited, status), (child, 0), "fork {fork}");
        }
    });
}

/// The audit allocates nothing, so that a heap that is out of memory can be audited.
#[test]
fn d11_an_audit_allocates_nothing() {
    let _kept = vec![vec![1u8; 100]; 1000];
    let allocs = || {
        let stats = Stratalloc::stats();
        let runs = stats.runs.allocs + stats.runs.list_allocs;
        runs + stats.classes.iter().map(|class| class.allocs).sum::<u64>()
    };
    // The other test's threads may be at work: its checks run beside them, this one looks for a moment without.
    let begun = std::time::Instant::now();
    let silent = std::iter::repeat_with(|| {
        let before = allocs();
        Stratalloc::check().expect("a sound heap");
        allocs() == before
    })
    .take_while(|_| begun.elapsed().as_secs() < 60)
    .any(|silent| silent);
    assert!(silent, "each audit of a minute has allocated");
}
