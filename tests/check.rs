//! The process heap audited while it is busy: a sound heap is never called damaged.

#![expect(clippy::disallowed_macros, reason = "the output says how much was done")]

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

/// The audit allocates nothing, so that a heap that is out of memory can be audited.
#[test]
fn d11_an_audit_allocates_nothing() {
    let _kept = vec![vec![1u8; 100]; 1000];
    let allocs = || Stratalloc::stats().classes.iter().map(|class| class.allocs).sum::<u64>();
    // The other test's threads may be at work: its checks run beside them, this one looks for a moment without.
    let silent = (0..1000).any(|_| {
        let before = allocs();
        Stratalloc::check().expect("a sound heap");
        allocs() == before
    });
    assert!(silent, "each of a thousand audits has allocated");
}
