//! A service that reads JSON: documents become trees of values, are looked through and dropped.
//!
//! Holds the text (10 MB) and one tree (some 90 MB) at peak.

use super::random::{Random, mix};
use super::{Outcome, Work, scaled};
use serde_json::Value;
use std::fmt::Write;

const TEXT_BYTES: usize = 10 << 20;
const ROUNDS: usize = 7;

pub(super) fn prepare(scale: f64) -> Work {
    let text = document(&mut Random::new(1));
    Box::new(move || {
        let rounds = scaled(ROUNDS, scale);
        let checksum = (0..rounds).fold(0, |checksum, _| mix(checksum, round(&text)));
        Outcome::of(rounds as u64, checksum)
    })
}

fn document(random: &mut Random) -> String {
    let mut text = String::with_capacity(TEXT_BYTES + (1 << 20));
    text.push('[');
    while text.len() < TEXT_BYTES {
        if text.len() > 1 {
            text.push(',');
        }
        value(&mut text, random, 0);
    }
    text.push(']');
    text
}

fn value(text: &mut String, random: &mut Random, depth: usize) {
    let kinds = if depth < 6 { 8 } else { 5 };
    let written = match random.below(kinds) {
        0 => write!(text, "{}", random.below(1_000_000)),
        1 => write!(text, "{}.{}", random.below(1000), random.within(1, 99)),
        2 => write!(text, "{}", random.below(2) == 0),
        3 | 4 => write!(text, "\"{} {}\"", random.word(), random.word()),
        5 => return array(text, random, depth),
        _ => return object(text, random, depth),
    };
    written.expect("a string can be written to");
}

fn array(text: &mut String, random: &mut Random, depth: usize) {
    text.push('[');
    for at in 0..random.within(1, 8) {
        text.push_str(if at == 0 { "" } else { "," });
        value(text, random, depth + 1);
    }
    text.push(']');
}

fn object(text: &mut String, random: &mut Random, depth: usize) {
    text.push('{');
    for at in 0..random.within(2, 7) {
        let comma = if at == 0 { "" } else { "," };
        write!(text, "{comma}\"{}_{at}\":", random.word()).expect("a string can be written to");
        value(text, random, depth + 1);
    }
    text.push('}');
}

fn round(text: &str) -> u64 {
    let tree: Value = serde_json::from_str(text).expect("the generated text is JSON");
    sum(&tree)
}

fn sum(value: &Value) -> u64 {
    match value {
        Value::Null => 0,
        Value::Bool(yes) => u64::from(*yes),
        Value::Number(number) => number.as_u64().unwrap_or(7),
        Value::String(text) => text.len() as u64,
        Value::Array(items) => items.iter().fold(1, |sum, item| sum + self::sum(item)),
        Value::Object(members) => members.iter().fold(2, |sum, (key, item)| sum + key.len() as u64 + self::sum(item)),
    }
}
