//! Buffers that grow: a file read into one vector, two columns filled side by side, many results pushed in turn.
//!
//! One vector reaches 400 MB (its capacity up to 512 MiB); the others, after it is dropped, 200 MB and 100 MB.

use super::random::{Random, mix};
use super::{Outcome, Work, rounds_of};

const BYTES: usize = 400_000_000;
const MANY: usize = 64;
const ROUNDS: usize = 2;

pub(super) fn prepare(scale: f64) -> Work {
    let mut random = Random::new(9);
    let chunk: Vec<u8> = (0..64 << 10).map(|_| random.next() as u8).collect();
    Box::new(move || {
        let (rounds, bytes) = rounds_of(BYTES, scale);
        let mut checksum = 0;
        for _ in 0..ROUNDS * rounds {
            checksum = mix(checksum, one(bytes, &chunk));
            checksum = mix(checksum, two(bytes / 4));
            checksum = mix(checksum, many(bytes / 4));
        }
        Outcome::of((ROUNDS * rounds * bytes * 7 / 4) as u64 >> 10, checksum)
    })
}

fn one(bytes: usize, chunk: &[u8]) -> u64 {
    let (mut random, mut all) = (Random::new(10), Vec::new());
    while all.len() < bytes {
        all.extend_from_slice(&chunk[..random.within(4 << 10, 64 << 10)]);
    }
    all.iter().step_by(4093).fold(all.len() as u64, |sum, byte| sum + u64::from(*byte))
}

/// Two vectors of `bytes` each.
fn two(bytes: usize) -> u64 {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for number in 0..bytes as u64 / 8 {
        left.push(number);
        right.push(number ^ 0x55);
    }
    left.iter().chain(&right).step_by(509).fold(0, |sum, number| mix(sum, *number))
}

/// Many vectors of `bytes` together.
fn many(bytes: usize) -> u64 {
    let mut vectors: Vec<Vec<u64>> = vec![Vec::new(); MANY];
    for number in 0..bytes as u64 / 8 {
        vectors[number as usize % MANY].push(number);
    }
    vectors.iter().fold(0, |sum, vector| mix(sum, vector.iter().step_by(61).sum()))
}
