//! A job in phases: the working set swings between 10 and 150 MB, far more than what an allocator keeps back when idle.
//!
//! Holds 150 MB of blocks of 16 B to 32 KiB at peak.

use super::block::Block;
use super::random::Random;
use super::{Outcome, Work, scaled};

const LOW: usize = 10 << 20;
const HIGH: usize = 150 << 20;
const SWINGS: usize = 12;

pub(super) fn prepare(scale: f64) -> Work {
    Box::new(move || {
        let swings = scaled(SWINGS, scale);
        let mut random = Random::new(21);
        let mut held: Vec<Block> = Vec::new();
        let (mut bytes, mut ops, mut checksum) = (0, 0, 0_u64);
        for _ in 0..swings {
            while bytes < HIGH {
                let most = if random.below(16) == 0 { 32 << 10 } else { 1024 };
                held.push(Block::new(random.size(16, most), bytes as u8));
                bytes += held.last().map_or(0, Block::size);
            }
            ops += held.len() as u64;
            while bytes > LOW {
                let block = held.swap_remove(random.below(held.len()));
                bytes -= block.size();
                checksum += block.marks();
            }
        }
        Outcome::of(ops, checksum)
    })
}
