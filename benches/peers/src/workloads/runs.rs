//! The layer of whole pages with many free runs in it: how the time of a pair depends on their number.
//!
//! Twice as many runs are allocated as are to be free, and every second is freed, so that none can merge; then runs of
//! random lengths are allocated and freed. Nothing is touched, so that what is resident is the allocator's own records.
//! Lengths are 17 to 40 pages: more than thread caches keep.

use super::block::Block;
use super::random::Random;
use super::{Outcome, Work, scaled};

const PAGE: usize = 4096;
const HELD: usize = 64;
const PAIRS: usize = 1_000_000;

pub(super) fn prepare(scale: f64, power: u32) -> Work {
    let mut random = Random::new(23);
    let (mut kept, complete) = alternate(10_usize.pow(power), &mut random);
    let pairs = scaled(PAIRS, scale);
    Box::new(move || {
        if !complete {
            return failed();
        }
        let mut checksum = kept.len() as u64;
        let mut held: Vec<Option<Block>> = (0..HELD).map(|_| None).collect();
        for _ in 0..pairs {
            let slot = random.below(HELD);
            held[slot] = None;
            let Some(block) = run(&mut random) else { return failed() };
            checksum += block.size() as u64 / PAGE as u64;
            held[slot] = Some(block);
        }
        kept.extend(held.into_iter().flatten());
        Outcome::of(pairs as u64, checksum)
    })
}

fn failed() -> Outcome {
    Outcome { failed: Some("out-of-memory"), ..Outcome::default() }
}

fn run(random: &mut Random) -> Option<Block> {
    Block::untouched(random.within(17, 40) * PAGE, PAGE)
}

/// `free` runs that are in use and as many free ones between them; false if there was no memory for so many.
fn alternate(free: usize, random: &mut Random) -> (Vec<Block>, bool) {
    let mut blocks: Vec<Option<Block>> = (0..2 * free).map_while(|_| run(random).map(Some)).collect();
    let complete = blocks.len() == 2 * free;
    blocks.iter_mut().step_by(2).for_each(|block| *block = None);
    (blocks.into_iter().flatten().collect(), complete)
}
