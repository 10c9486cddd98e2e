//! A long-running program whose data changes its shape: filled, thinned out at random, refilled with other sizes.
//!
//! Holds 200 MB of blocks of 16 B to 4 KiB, and a table of them (20 MB), at peak; then frees all. Four times over.

use super::block::Block;
use super::random::{Random, mix};
use super::{Outcome, Work, rounds_of};

const BYTES: usize = 200 << 20;
const ROUNDS: usize = 4;

pub(super) fn prepare(scale: f64) -> Work {
    Box::new(move || {
        let (rounds, bytes) = rounds_of(BYTES, scale);
        let mut random = Random::new(19);
        let (mut ops, mut checksum) = (0, 0);
        for _ in 0..ROUNDS * rounds {
            let mut held = Vec::new();
            fill(&mut held, bytes, &mut random, small_mostly);
            ops += held.len();
            checksum = mix(checksum, thin(&mut held, &mut random));
            fill(&mut held, bytes, &mut random, odd_sizes);
            ops += held.len();
            checksum = mix(checksum, held.iter().map(Block::marks).sum());
        }
        Outcome::of(ops as u64, checksum)
    })
}

fn small_mostly(random: &mut Random) -> usize {
    random.size(16, 4096)
}

fn odd_sizes(random: &mut Random) -> usize {
    24 + random.skewed(4072)
}

/// Allocates until the sizes of all that is held add up to `bytes`.
fn fill(held: &mut Vec<Block>, bytes: usize, random: &mut Random, size: fn(&mut Random) -> usize) {
    let mut sum: usize = held.iter().map(Block::size).sum();
    while sum < bytes {
        let block = Block::new(size(random), sum as u8);
        sum += block.size();
        held.push(block);
    }
}

/// Frees nine of ten, at random.
fn thin(held: &mut Vec<Block>, random: &mut Random) -> u64 {
    let mut checksum = 0;
    for _ in 0..held.len() / 10 * 9 {
        checksum = mix(checksum, held.swap_remove(random.below(held.len())).marks());
    }
    checksum
}
