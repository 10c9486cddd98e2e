//! A library in Rust that has no thread of the allocator's, and goes when it is unloaded: for `tests/purger.rs`.

use std::hint::black_box;
use stratalloc::{Config, Purge, Stratalloc};

#[global_allocator]
static A: Stratalloc = Stratalloc::with_config(Config::new().purge(Purge::AtFree));

/// Frees more than the idle bound, and leaves blocks in the calling thread's cache.
#[unsafe(no_mangle)]
pub extern "C" fn swing() {
    drop(black_box(vec![1u8; 15 << 20]));
    drop(black_box(vec![vec![1u8; 100]; 1000]));
}
