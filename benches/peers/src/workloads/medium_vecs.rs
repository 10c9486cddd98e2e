//! Buffers of requests: vectors of 4 to 256 KiB come and go at random, and are written from end to end.
//!
//! Holds up to 1,000 vectors, some 80 MB at peak.

use super::random::{Random, mix};
use super::{Outcome, Work, scaled};

const SLOTS: usize = 1000;
const OPERATIONS: usize = 240_000;

pub(super) fn prepare(scale: f64) -> Work {
    Box::new(move || {
        let operations = scaled(OPERATIONS, scale);
        let mut random = Random::new(11);
        let mut slots: Vec<Vec<u8>> = vec![Vec::new(); SLOTS];
        let mut checksum = 0;
        for number in 0..operations {
            let size = random.size(4 << 10, 256 << 10);
            let mut buffer = Vec::with_capacity(size);
            buffer.resize(size, number as u8);
            let old = std::mem::replace(&mut slots[random.below(SLOTS)], buffer);
            checksum = mix(checksum, old.last().map_or(0, |last| u64::from(*last)) + old.len() as u64);
        }
        Outcome::of(operations as u64, checksum)
    })
}
