//! The allocator and little else: threads replace blocks of 16 to 512 bytes at random.
//!
//! Holds 4,096 blocks per thread, some 0.6 MB each. One thread and two do the same work each, so that the ideal is
//! equal time; more threads share the work of two.

use super::block::Block;
use super::random::Random;
use super::{Outcome, Work, scaled};

const SLOTS: usize = 4096;
const OPERATIONS: usize = 24_000_000;

pub(super) fn prepare(scale: f64, threads: usize) -> Work {
    Box::new(move || {
        let each = scaled(if threads <= 2 { OPERATIONS } else { 2 * OPERATIONS / threads }, scale);
        let worker = |number: usize| std::thread::spawn(move || churn(Random::new(22 + number as u64), each));
        let workers: Vec<_> = (0..threads).map(worker).collect();
        let end = |worker: std::thread::JoinHandle<u64>| worker.join().expect("the thread ends well");
        let checksum = workers.into_iter().map(end).fold(0, u64::wrapping_add);
        Outcome::of((threads * each) as u64, checksum)
    })
}

fn churn(mut random: Random, operations: usize) -> u64 {
    let fresh = |random: &mut Random| Block::new(random.size(16, 512), random.next() as u8);
    let mut slots: Vec<Block> = (0..SLOTS).map(|_| fresh(&mut random)).collect();
    let mut checksum = 0;
    for _ in 0..operations {
        let slot = random.below(SLOTS);
        checksum += std::mem::replace(&mut slots[slot], fresh(&mut random)).marks();
    }
    checksum
}
