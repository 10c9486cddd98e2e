//! A global allocator in four layers.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(all(feature = "std", not(test)))]
extern crate std;

// The tests of the promises (tests/rows) use the crate by its name.
#[cfg(test)]
extern crate self as stratalloc;

mod config;
mod fatal;
#[cfg(all(feature = "std", not(loom)))]
mod global;
pub mod heap;
pub mod lock;
#[cfg(all(feature = "allocator-api2", not(loom)))]
mod object;
pub mod os;
mod stats;
mod sync;
#[cfg(all(feature = "std", not(loom)))]
mod thread;
mod twin;

pub use config::{Config, HugePages};
#[cfg(all(feature = "std", not(loom)))]
pub use global::Stratalloc;
#[cfg(all(feature = "allocator-api2", not(loom)))]
pub use object::Heap;
pub use stats::{ClassStats, RunStats, Stats};

#[cfg(all(test, feature = "std", not(loom)))]
#[path = "../tests/rows/mod.rs"]
mod rows;

#[cfg(all(test, feature = "std", not(loom)))]
#[global_allocator]
static A: Stratalloc = Stratalloc::new();
