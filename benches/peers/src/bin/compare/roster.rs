//! Who is compared, on which rows, and against whom.
//!
//! An allocator is a feature of this package (none for the system's), a colour and a mark in the plots. A row is a
//! workload by name; some rows show how an allocator scales and stay out of the geometric means, and each other row has
//! a named peer, the one to beat there.

use crate::svg::Mark;

pub const SYSTEM: &str = "system";
pub const OURS: &str = "stratalloc";
pub const FINE: &str = "stratalloc-fine";

pub struct Allocator {
    pub name: &'static str,
    /// The package in the lock file whose version is the allocator's.
    pub package: &'static str,
    pub colour: &'static str,
    pub mark: Mark,
}

const fn allocator(name: &'static str, package: &'static str, colour: &'static str, mark: Mark) -> Allocator {
    Allocator { name, package, colour, mark }
}

/// All allocators, in the order of the tables.
pub const ALLOCATORS: &[Allocator] = &[
    allocator(SYSTEM, "", "#555555", Mark::Bar),
    allocator(OURS, "stratalloc", "#d0021b", Mark::Diamond),
    allocator(FINE, "stratalloc", "#d0021b", Mark::HollowDiamond),
    allocator("mimalloc3", "mimalloc", "#0072b2", Mark::Circle),
    allocator("mimalloc2", "mimalloc", "#56b4e9", Mark::HollowCircle),
    allocator("jemalloc", "tikv-jemallocator", "#00805e", Mark::Square),
    allocator("snmalloc", "snmalloc-rs", "#e69f00", Mark::Up),
    allocator("rpmalloc", "rpmalloc", "#8c564b", Mark::Down),
    allocator("rusty-alloc", "rusty_alloc-api", "#7b3fa0", Mark::Cross),
    allocator("smmalloc", "smmalloc", "#7f7f7f", Mark::Plus),
    allocator("stoolap-jemalloc", "stoolap-jemalloc", "#00b386", Mark::HollowSquare),
];

/// The peer to beat, and its rows.
const NAMED: &[(&str, &[&str])] = &[
    ("mimalloc2", &["json", "syn", "regex", "vec-growth", "zeroed-large", "ast"]),
    ("stoolap-jemalloc", &["map-churn", "tokio", "larson-8"]),
    ("rusty-alloc", &["rayon-sort", "larson-2", "zeroed-small", "sql", "fragmentation", "aligned"]),
    ("mimalloc3", &["medium-vecs", "csv"]),
    ("rpmalloc", &["pipe", "thread-storm"]),
];

pub fn find(name: &str) -> Option<&'static Allocator> {
    ALLOCATORS.iter().find(|allocator| allocator.name == name)
}

pub fn is_ours(name: &str) -> bool {
    name == OURS || name == FINE
}

/// Neither ours nor the system's.
pub fn is_peer(name: &str) -> bool {
    name != SYSTEM && !is_ours(name)
}

pub fn named_peer(workload: &str) -> Option<&'static str> {
    NAMED.iter().find(|(_, rows)| rows.contains(&workload)).map(|(peer, _)| *peer)
}

/// Does the row show scaling, and so stay out of the means?
pub fn is_apart(workload: &str) -> bool {
    workload == "oscillate" || workload.starts_with("churn-") || workload.starts_with("runs-")
}

/// The number at the end of a row's name: `churn-8` is 8.
pub fn number(workload: &str) -> Option<u32> {
    workload.rsplit_once('-')?.1.parse().ok()
}

/// An allocator's version as the lock file has it.
pub fn version(allocator: &Allocator) -> Option<&'static str> {
    let lock = include_str!("../../../Cargo.lock");
    let mut lines = lock.lines();
    lines.find(|line| line.strip_prefix("name = ").is_some_and(|name| name.trim_matches('"') == allocator.package))?;
    let version = lines.next()?.strip_prefix("version = ")?.trim_matches('"');
    Some(version.split('+').next().unwrap_or(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_peer_is_an_allocator_and_no_row_has_two() {
        let mut seen = std::collections::HashSet::new();
        for (peer, rows) in NAMED {
            assert!(find(peer).is_some_and(|found| is_peer(found.name)));
            rows.iter().for_each(|row| assert!(seen.insert(row) && !is_apart(row)));
        }
    }

    #[test]
    fn every_peer_has_a_version() {
        ALLOCATORS[1..].iter().for_each(|allocator| assert!(version(allocator).is_some(), "{}", allocator.name));
    }

    #[test]
    fn scaling_rows_stay_apart() {
        assert!(is_apart("churn-64") && is_apart("runs-16") && is_apart("oscillate") && !is_apart("larson-8"));
        assert_eq!(number("churn-64"), Some(64));
    }
}
