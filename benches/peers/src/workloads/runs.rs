//! The layer of whole pages with many free runs in it: how the time of a pair depends on their number.
//!
//! Twice as many runs are allocated as are to be free, and every second is freed, so that none can merge; then runs of
//! random lengths are allocated and freed. Nothing is touched, so that what is resident is the allocator's own records.
//! Lengths are 17 to 40 pages: more than thread caches keep. Who is not done after twenty seconds is stopped.

use super::block::Block;
use super::random::Random;
use super::{Outcome, Work, scaled};
use std::time::{Duration, Instant};

const PAGE: usize = 4096;
const HELD: usize = 64;
const PAIRS: usize = 1_000_000;
const LIMIT: Duration = Duration::from_secs(20);

pub(super) fn prepare(scale: f64, power: u32) -> Work {
    let mut random = Random::new(23);
    let mut kept = alternate(10_usize.pow(power), &mut random);
    let pairs = scaled(PAIRS, scale);
    Box::new(move || match &mut kept {
        Ok(kept) => replace(kept, pairs, &mut random),
        Err(reason) => Outcome { failed: Some(reason), ..Outcome::default() },
    })
}

/// Frees and allocates runs at random; `kept` takes over what is held in the end.
fn replace(kept: &mut Vec<Block>, pairs: usize, random: &mut Random) -> Outcome {
    let start = Instant::now();
    let mut outcome = Outcome::of(0, kept.len() as u64);
    let mut held: Vec<Option<Block>> = (0..HELD).map(|_| None).collect();
    for pair in 0..pairs {
        let slot = random.below(HELD);
        held[slot] = None;
        held[slot] = run(random);
        let Some(block) = &held[slot] else { return Outcome { failed: Some("out-of-memory"), ..outcome } };
        outcome.checksum += (block.size() / PAGE) as u64;
        outcome.ops += 1;
        if is_late(pair, &start) {
            return Outcome { failed: Some("too-slow"), ..outcome };
        }
    }
    kept.extend(held.into_iter().flatten());
    outcome
}

/// A look at the clock every 256 steps.
fn is_late(step: usize, start: &Instant) -> bool {
    step.is_multiple_of(256) && start.elapsed() > LIMIT
}

fn run(random: &mut Random) -> Option<Block> {
    Block::untouched(random.within(17, 40) * PAGE, PAGE)
}

/// `free` runs that are in use, with as many free ones between them; or why that cannot be.
fn alternate(free: usize, random: &mut Random) -> Result<Vec<Block>, &'static str> {
    let start = Instant::now();
    let mut blocks = Vec::with_capacity(2 * free);
    for step in 0..2 * free {
        blocks.push(Some(run(random).ok_or("out-of-memory")?));
        if is_late(step, &start) {
            return Err("too-slow-to-prepare");
        }
    }
    for (step, block) in blocks.iter_mut().step_by(2).enumerate() {
        *block = None;
        if is_late(step, &start) {
            return Err("too-slow-to-prepare");
        }
    }
    Ok(blocks.into_iter().flatten().collect())
}
