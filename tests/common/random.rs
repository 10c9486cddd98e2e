//! Numbers that are random enough for tests.

#![allow(dead_code, reason = "each user takes what it needs")]

/// A small random number generator (xorshift): the same numbers in every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number of 64 bits.
    pub(crate) fn word(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.word() >> 11) as usize % end
    }
}

/// Where a test that takes some of many cases begins: the same ones in every run, others in a campaign (`STRATALLOC_SEED`).
pub(crate) fn seed() -> u64 {
    std::env::var("STRATALLOC_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}
