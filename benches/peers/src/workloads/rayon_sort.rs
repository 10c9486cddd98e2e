//! A data job on all processors: strings are built, sorted and mapped in parallel, then dropped.
//!
//! Holds two sets of a million strings, some 130 MB at peak.

use super::random::{Random, mix};
use super::{Outcome, Work, rounds_of};
use rayon::prelude::*;
use rayon::{ThreadBuilder, ThreadPool, ThreadPoolBuilder};

const STRINGS: usize = 1_000_000;

pub(super) fn prepare(scale: f64) -> Work {
    Box::new(move || {
        let (rounds, strings) = rounds_of(STRINGS, scale);
        let work =
            |pool: &ThreadPool| pool.install(|| (0..rounds).fold(0, |checksum, _| mix(checksum, round(strings))));
        let builder = ThreadPoolBuilder::new().num_threads(2);
        let checksum = builder.build_scoped(ThreadBuilder::run, work).expect("the threads can be started");
        Outcome::of((rounds * strings) as u64, checksum)
    })
}

fn round(strings: usize) -> u64 {
    let mut lines: Vec<String> = (0..strings as u64).into_par_iter().map(line).collect();
    lines.par_sort();
    let keys: Vec<String> = lines.par_iter().map(|line| line.to_uppercase()).collect();
    let weigh = |(at, key): (usize, &String)| (at as u64).wrapping_mul(key.bytes().map(u64::from).sum());
    keys.par_iter().enumerate().map(weigh).reduce(|| 0, u64::wrapping_add)
}

fn line(at: u64) -> String {
    let mut random = Random::new(at.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 7);
    format!("{} {} {:08}", random.word(), random.word(), random.below(100_000_000))
}
