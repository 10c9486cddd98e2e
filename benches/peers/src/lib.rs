//! Workloads after real programs' patterns, to be run by one binary per allocator.

#![warn(missing_docs, unreachable_pub, clippy::too_many_lines, clippy::undocumented_unsafe_blocks)]

pub mod workloads;
