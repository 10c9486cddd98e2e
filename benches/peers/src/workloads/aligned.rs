//! Buffers for vector instructions and for direct I/O: over-aligned blocks with random lifetimes.
//!
//! Holds 20,000 blocks, some 40 MB of them at peak, and more where alignment costs space.

use super::block::Block;
use super::random::Random;
use super::{Outcome, Work, scaled};

const SLOTS: usize = 20_000;
const OPERATIONS: usize = 4_000_000;

pub(super) fn prepare(scale: f64) -> Work {
    Box::new(move || {
        let operations = scaled(OPERATIONS, scale);
        let mut random = Random::new(14);
        let mut slots: Vec<Option<Block>> = (0..SLOTS).map(|_| None).collect();
        let mut checksum = 0_u64;
        for number in 0..operations {
            let slot = random.below(SLOTS);
            let align = 32 << random.skewed(8);
            let fresh = Block::aligned(random.size(16, 8192), align, number as u8);
            checksum += u64::from(fresh.is_aligned());
            checksum += slots[slot].replace(fresh).map_or(0, |old| old.marks());
        }
        Outcome::of(operations as u64, checksum)
    })
}
