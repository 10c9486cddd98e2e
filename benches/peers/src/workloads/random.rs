//! Random numbers, words and hashes that are the same in every run.

use std::hash::{BuildHasherDefault, Hasher};

const WORDS: [&str; 48] = [
    "amber", "anchor", "basin", "birch", "cedar", "chalk", "cliff", "cobalt", "coral", "crane", "delta", "dune",
    "ember", "falcon", "fern", "fjord", "flint", "garnet", "glade", "granite", "harbour", "hazel", "heron", "inlet",
    "iris", "ivory", "jade", "juniper", "kelp", "lagoon", "larch", "lichen", "marble", "meadow", "mica", "moss",
    "north", "ochre", "onyx", "otter", "pebble", "quartz", "reef", "sable", "shale", "tarn", "umber", "willow",
];

/// A small random number generator (xorshift).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// A number from `first` to `last`.
    pub(super) fn within(&mut self, first: usize, last: usize) -> usize {
        first + self.below(last - first + 1)
    }

    /// A number below `end`, the small ones far more often than the large.
    pub(super) fn skewed(&mut self, end: usize) -> usize {
        let share = self.below(1 << 20) as f64 / f64::from(1 << 20);
        (share * share * share * end as f64) as usize
    }

    /// A size from `first` to `last`, every doubling as likely as the next.
    pub(super) fn size(&mut self, first: usize, last: usize) -> usize {
        let doublings = (last / first).ilog2().max(1) as usize;
        let base = first << self.below(doublings);
        self.within(base, (2 * base).min(last))
    }

    pub(super) fn word(&mut self) -> &'static str {
        WORDS[self.below(WORDS.len())]
    }
}

/// Folds one more number into a checksum.
pub(super) fn mix(checksum: u64, number: u64) -> u64 {
    (checksum.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95)
}

/// A hash without random keys (FNV-1a).
pub(super) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A hash map whose order is the same in every run.
pub(super) type FixedMap<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<Fnv>>;
