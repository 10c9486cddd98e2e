//! An in-memory cache: a long-lived set of strings beside entries that are replaced, the popular ones most often.
//!
//! Holds 200,000 lasting strings and up to 300,000 entries, some 100 MB at peak.

use super::random::{FixedMap, Random, mix};
use super::{Outcome, Work, scaled};

const LASTING: usize = 200_000;
const KEYS: usize = 300_000;
const OPERATIONS: usize = 2_500_000;

pub(super) fn prepare(scale: f64) -> Work {
    Box::new(move || {
        let operations = scaled(OPERATIONS, scale);
        let mut random = Random::new(4);
        let lasting: FixedMap<String, String> = (0..LASTING).map(|at| lasting_entry(at, &mut random)).collect();
        let mut entries: FixedMap<u64, Vec<u8>> = FixedMap::default();
        let mut names: FixedMap<String, String> = FixedMap::default();
        let mut checksum = lasting.values().map(|value| value.len() as u64).sum();
        for _ in 0..operations / 2 {
            checksum = mix(checksum, replace(&mut entries, &mut random));
            checksum = mix(checksum, rename(&mut names, &mut random));
        }
        Outcome::of(operations as u64, mix(checksum, (entries.len() + names.len() + lasting.len()) as u64))
    })
}

fn lasting_entry(at: usize, random: &mut Random) -> (String, String) {
    (format!("{}/{at}", random.word()), random.word().repeat(random.within(1, 6)))
}

/// Removes an entry in one case of four, and stores a new value in the others.
fn replace(entries: &mut FixedMap<u64, Vec<u8>>, random: &mut Random) -> u64 {
    let key = random.skewed(KEYS) as u64;
    let old = match random.below(4) {
        0 => entries.remove(&key),
        _ => entries.insert(key, vec![key as u8; random.size(16, 512)]),
    };
    old.map_or(0, |value| value.len() as u64)
}

fn rename(names: &mut FixedMap<String, String>, random: &mut Random) -> u64 {
    let key = format!("user:{}", random.skewed(KEYS));
    let old = match random.below(4) {
        0 => names.remove(&key),
        _ => names.insert(key, random.word().repeat(random.within(1, 8))),
    };
    old.map_or(0, |value| value.len() as u64)
}
