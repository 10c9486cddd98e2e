//! A global allocator in four layers.
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(any(feature = "std", test))]
extern crate std;

mod config;
mod fatal;
#[cfg(all(feature = "std", not(loom)))]
mod global;
pub mod heap;
pub mod lock;
pub mod os;
mod stats;
mod sync;
#[cfg(all(feature = "std", not(loom)))]
mod thread;
mod twin;

pub use config::{Config, HugePages};
#[cfg(all(feature = "std", not(loom)))]
pub use global::Stratalloc;
pub use stats::{ClassStats, RunStats, Stats};
