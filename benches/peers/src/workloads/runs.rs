//! The layer of whole pages with many free runs in it: how the time of a pair depends on their number.
//!
//! Twice as many runs are allocated as are to be free, and every second is freed, so that none can merge; then runs of
//! random lengths are allocated and freed. Nothing is touched, so that what is resident is the allocator's own records.
//! Lengths are 17 to 40 pages: more than thread caches keep. Who is not done after twenty seconds, or
//! has 10 GiB resident, is stopped, and its runs are left to the system.

use super::block::Block;
use super::random::Random;
use super::{Outcome, Work, scaled};
use std::mem::forget;
use std::time::{Duration, Instant};

const PAGE: usize = 4096;
const HELD: usize = 64;
const PAIRS: usize = 1_000_000;
const LIMIT: Duration = Duration::from_secs(20);
const PAGES_LIMIT: usize = 10 << 30 >> 12;

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
        outcome.checksum += held[slot].as_ref().map_or(0, |block| block.size() / PAGE) as u64;
        outcome.ops += 1;
        let stop = if held[slot].is_none() { Some("out-of-memory") } else { limit(pair, &start) };
        if stop.is_some() {
            forget((held, std::mem::take(kept)));
            return Outcome { failed: stop, ..outcome };
        }
    }
    kept.extend(held.into_iter().flatten());
    outcome
}

/// Which limit is reached, looked at every 256 steps.
fn limit(step: usize, start: &Instant) -> Option<&'static str> {
    if !step.is_multiple_of(256) {
        None
    } else if start.elapsed() > LIMIT {
        Some("too-slow")
    } else if resident_pages() > PAGES_LIMIT {
        Some("too-much-memory")
    } else {
        None
    }
}

fn resident_pages() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0)
}

fn run(random: &mut Random) -> Option<Block> {
    Block::untouched(random.within(17, 40) * PAGE, PAGE)
}

/// `free` runs that are in use, with as many free ones between them; or why that cannot be.
fn alternate(free: usize, random: &mut Random) -> Result<Vec<Block>, &'static str> {
    let start = Instant::now();
    let mut blocks = Vec::with_capacity(2 * free);
    for step in 0..2 * free {
        let block = run(random);
        let stop = if block.is_none() { Some("out-of-memory") } else { limit(step, &start) };
        blocks.push(block);
        if let Some(reason) = stop {
            forget(blocks);
            return Err(reason);
        }
    }
    for step in 0..free {
        blocks[2 * step] = None;
        if let Some(reason) = limit(step, &start) {
            forget(blocks);
            return Err(reason);
        }
    }
    Ok(blocks.into_iter().flatten().collect())
}
