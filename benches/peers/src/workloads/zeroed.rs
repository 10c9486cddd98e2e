//! Memory that must be zero: small buffers and arrays in great number, and large tables hardly touched.
//!
//! The small ones hold 50,000 blocks, some 20 MB at peak; the large ones hold eight vectors and touch little of them.

use super::random::{Random, mix};
use super::{Outcome, Work, scaled};

const SLOTS: usize = 50_000;
const SMALL: usize = 8_000_000;
const HELD: usize = 8;
const LARGE: usize = 2_000;

/// A zeroed block as programs ask for one.
enum Zeroed {
    Bytes(Vec<u8>),
    Words(Box<[u64; 16]>),
    Table(Box<[u32; 64]>),
}

impl Zeroed {
    fn new(random: &mut Random, mark: u8) -> Self {
        match random.below(4) {
            0 => {
                let mut words = Box::new([0; 16]);
                words[usize::from(mark) % 16] = u64::from(mark);
                Self::Words(words)
            }
            1 => {
                let mut table = Box::new([0; 64]);
                table[usize::from(mark) % 64] = u32::from(mark);
                Self::Table(table)
            }
            _ => {
                let mut bytes = vec![0; random.size(16, 1024)];
                bytes[usize::from(mark) % 16] = mark;
                Self::Bytes(bytes)
            }
        }
    }

    /// A few places of it, added up: all but one are zero.
    fn sum(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.iter().step_by(5).map(|byte| u64::from(*byte)).sum(),
            Self::Words(words) => words.iter().sum(),
            Self::Table(table) => table.iter().step_by(3).map(|word| u64::from(*word)).sum(),
        }
    }
}

pub(super) fn prepare_small(scale: f64) -> Work {
    Box::new(move || {
        let operations = scaled(SMALL, scale);
        let mut random = Random::new(12);
        let mut slots: Vec<Option<Zeroed>> = (0..SLOTS).map(|_| None).collect();
        let mut checksum = 0_u64;
        for number in 0..operations {
            let slot = random.below(SLOTS);
            let fresh = Zeroed::new(&mut random, number as u8);
            checksum = checksum.wrapping_add(slots[slot].replace(fresh).map_or(0, |old| old.sum()));
        }
        Outcome::of(operations as u64, checksum)
    })
}

pub(super) fn prepare_large(scale: f64) -> Work {
    Box::new(move || {
        let operations = scaled(LARGE, scale);
        let mut random = Random::new(13);
        let mut slots: Vec<Vec<u8>> = vec![Vec::new(); HELD];
        let mut checksum = 0;
        for number in 0..operations {
            let mut table = vec![0_u8; random.size(256 << 10, 64 << 20)];
            let sum = table.len() as u64 + (0..8).map(|_| touch(&mut table, &mut random, number as u8)).sum::<u64>();
            checksum = mix(checksum, sum);
            slots[number % HELD] = table;
        }
        Outcome::of(operations as u64, checksum)
    })
}

/// Writes one byte; returns what was there.
fn touch(table: &mut [u8], random: &mut Random, mark: u8) -> u64 {
    let at = random.below(table.len());
    u64::from(std::mem::replace(&mut table[at], mark))
}
