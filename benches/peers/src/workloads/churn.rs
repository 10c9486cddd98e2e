//! The allocator and little else: threads replace blocks of 16 to 512 bytes at random.
//!
//! One thread and two do the same work each, on 4,096 blocks each (some 0.6 MB), so that the ideal is equal time. More
//! threads share the work of two and their blocks, so that the processors' caches hold as much of them: what differs is
//! the threads.

use super::block::Block;
use super::random::Random;
use super::{Outcome, Work, scaled};

/// Blocks of one thread, where there are no more than two.
const SLOTS: usize = 4096;
const OPERATIONS: usize = 72_000_000;

pub(super) fn prepare(scale: f64, threads: usize) -> Work {
    Box::new(move || {
        let share = |of_one: usize| if threads <= 2 { of_one } else { 2 * of_one / threads };
        let (each, slots) = (scaled(share(OPERATIONS), scale), share(SLOTS));
        let worker = |number: usize| std::thread::spawn(move || churn(Random::new(22 + number as u64), slots, each));
        let workers: Vec<_> = (0..threads).map(worker).collect();
        let end = |worker: std::thread::JoinHandle<u64>| worker.join().expect("the thread ends well");
        let checksum = workers.into_iter().map(end).fold(0, u64::wrapping_add);
        Outcome::of((threads * each) as u64, checksum)
    })
}

fn churn(mut random: Random, slots: usize, operations: usize) -> u64 {
    let fresh = |random: &mut Random| Block::new(random.size(16, 512), random.next() as u8);
    let mut held: Vec<Block> = (0..slots).map(|_| fresh(&mut random)).collect();
    let mut checksum = 0;
    for _ in 0..operations {
        let slot = random.below(slots);
        checksum += std::mem::replace(&mut held[slot], fresh(&mut random)).marks();
    }
    checksum
}
