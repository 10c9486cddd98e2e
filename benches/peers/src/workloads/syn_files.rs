//! A procedural macro, or a tool for source code: Rust files become syntax trees.
//!
//! The source is this repository's own. Holds the latest hundred trees, some 40 MB at peak.

use super::random::mix;
use super::{Outcome, Work, scaled};
use std::collections::VecDeque;
use syn::{File, Item};

const SOURCES: [&str; 8] = [
    include_str!("../../../../src/config.rs"),
    include_str!("../../../../src/global.rs"),
    include_str!("../../../../src/lock.rs"),
    include_str!("../../../../src/stats.rs"),
    include_str!("../../../../src/heap/cache.rs"),
    include_str!("../../../../src/heap/mod.rs"),
    include_str!("../../../../src/heap/run.rs"),
    include_str!("../../../../src/heap/slab.rs"),
];
const HELD: usize = 100;
const FILES: usize = 1000;

pub(super) fn prepare(scale: f64) -> Work {
    Box::new(move || {
        let files = scaled(FILES, scale);
        let mut held: VecDeque<File> = VecDeque::with_capacity(HELD);
        let mut checksum = 0;
        for source in SOURCES.iter().cycle().take(files) {
            let file = syn::parse_file(source).expect("the sources are Rust");
            checksum = mix(checksum, file.items.iter().map(weight).sum());
            if held.len() == HELD {
                held.pop_front();
            }
            held.push_back(file);
        }
        Outcome::of(files as u64, checksum)
    })
}

/// Statements and members of an item.
fn weight(item: &Item) -> u64 {
    1 + match item {
        Item::Fn(function) => function.block.stmts.len() as u64,
        Item::Impl(of) => of.items.len() as u64,
        Item::Enum(of) => of.variants.len() as u64,
        Item::Struct(of) => of.fields.len() as u64,
        _ => 0,
    }
}
