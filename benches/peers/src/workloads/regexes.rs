//! A log filter that starts: many patterns are compiled, used a few times, and dropped.
//!
//! Holds 200 compiled patterns, some 40 MB at peak.

use super::random::{Random, mix};
use super::{Outcome, Work, scaled};
use regex::Regex;

const PATTERNS: usize = 200;
const ROUNDS: usize = 12;

pub(super) fn prepare(scale: f64) -> Work {
    let mut random = Random::new(3);
    let patterns: Vec<String> = (0..PATTERNS).map(|at| pattern(at, &mut random)).collect();
    let lines: Vec<String> = (0..20).map(|_| line(&mut random)).collect();
    Box::new(move || {
        let rounds = scaled(ROUNDS, scale);
        let checksum = (0..rounds).fold(0, |checksum, _| mix(checksum, round(&patterns, &lines)));
        Outcome::of((rounds * PATTERNS) as u64, checksum)
    })
}

fn pattern(at: usize, random: &mut Random) -> String {
    let (one, two, three) = (random.word(), random.word(), random.word());
    let count = random.within(2, 12);
    match at % 10 {
        0 => format!(r"^{one}-(\d+)\.({two}|{three})$"),
        1 => format!(r"(?i)\b{one}\s+{two}\b"),
        2 => format!(r"(?P<key>[a-z_]{{2,{count}}})=(?P<value>[^;]*);{one}"),
        3 => format!(r"\p{{Greek}}+{one}"),
        4 => format!(r"(\w+)@{one}\.{two}"),
        5 => format!(r"(?i)({one}|{two}|{three}){{1,{count}}}"),
        6 => format!(r"[\p{{L}}{at}]*{one}"),
        7 => format!(r"(\d{{1,3}}\.){{3}}\d{{1,3}}:{}", 1000 + at),
        8 => format!(r"(?s)<{one}>.*?</{one}>|{two}{at}"),
        _ => format!(r"\p{{Lu}}\p{{Ll}}{{1,{count}}} {three}"),
    }
}

fn line(random: &mut Random) -> String {
    let words: Vec<&str> = (0..12).map(|_| random.word()).collect();
    format!("{}-{}.{} key={};{}", words[0], random.below(1000), words[1], words[2], words.join(" "))
}

fn round(patterns: &[String], lines: &[String]) -> u64 {
    let compiled: Vec<Regex> =
        patterns.iter().map(|pattern| Regex::new(pattern).expect("the pattern is one")).collect();
    compiled.iter().map(|regex| matches(regex, lines) + regex.captures_len() as u64).sum()
}

/// Where the first matches end, added up.
fn matches(regex: &Regex, lines: &[String]) -> u64 {
    lines.iter().filter_map(|line| regex.find(line)).map(|found| found.end() as u64).sum()
}
