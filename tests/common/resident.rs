//! What this process has in memory, by the kernel's exact count.

#![allow(dead_code, reason = "each user takes what it needs")]

/// Resident bytes of this process, but for pages of files: how much of the program's own code has run is not the heap's.
pub(crate) fn resident_bytes() -> usize {
    of_rollup("Anonymous:")
}

/// Bytes of this process that are in huge pages.
pub(crate) fn huge_bytes() -> usize {
    of_rollup("AnonHugePages:")
}

fn of_rollup(name: &str) -> usize {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").expect("the kernel says what is resident");
    let line = rollup.lines().find_map(|line| line.strip_prefix(name)).expect("a line with the sum");
    let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
    kib << 10
}
