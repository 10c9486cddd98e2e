//! A report over a table: CSV is read into records and into rows of strings, grouped, and dropped.
//!
//! Holds the text (6 MB), its records and its rows, some 70 MB at peak.

use super::random::{FixedMap, Random, mix};
use super::{Outcome, Work, scaled};
use csv::{ReaderBuilder, StringRecord};
use std::fmt::Write;

const ROWS: usize = 100_000;
const ROUNDS: usize = 10;

pub(super) fn prepare(scale: f64) -> Work {
    let text = table(&mut Random::new(18));
    Box::new(move || {
        let rounds = scaled(ROUNDS, scale);
        let checksum = (0..rounds).fold(0, |checksum, _| mix(checksum, round(&text)));
        Outcome::of((rounds * ROWS) as u64, checksum)
    })
}

fn table(random: &mut Random) -> String {
    let mut text = String::from("id,city,product,amount,note,code\n");
    for id in 0..ROWS {
        let (city, product, note) = (random.word(), random.word(), random.word());
        let (amount, code) = (random.below(10_000), random.below(1 << 30));
        writeln!(text, "{id},{city},{product},{amount},\"{note}, {product}\",{code:08x}")
            .expect("a string can be written to");
    }
    text
}

fn round(text: &str) -> u64 {
    let mut reader = ReaderBuilder::new().from_reader(text.as_bytes());
    let records: Vec<StringRecord> = reader.records().map(|record| record.expect("the text is CSV")).collect();
    let rows: Vec<Vec<String>> = records.iter().map(|record| record.iter().map(str::to_owned).collect()).collect();
    let mut groups: FixedMap<String, (u64, u64)> = FixedMap::default();
    for row in &rows {
        let group = groups.entry(format!("{} {}", row[1], row[2])).or_default();
        group.0 += 1;
        group.1 += row[3].parse::<u64>().expect("the amount is a number");
    }
    groups.values().fold(groups.len() as u64, |sum, (count, amount)| sum.wrapping_add(count * amount))
}
