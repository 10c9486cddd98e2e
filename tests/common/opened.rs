//! Shared heaps that are opened anew: where one has lain, another test of this process may have mapped one meanwhile.

use std::path::Path;
use std::time::{Duration, Instant};
use stratalloc::{SharedConfig, SharedError, SharedHeap};

/// How long another test may have a heap.
const PATIENCE: Duration = Duration::from_secs(60);

/// Opens a heap, once there is room at its addresses.
pub(crate) fn opened(path: &Path, config: SharedConfig, init: impl Fn(&SharedHeap)) -> SharedHeap {
    let begun = Instant::now();
    loop {
        match SharedHeap::open(path, config, &init) {
            Err(SharedError::Taken { .. }) if begun.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            result => return result.expect("a heap"),
        }
    }
}
