//! Components of symmetric heaps, each with the same calls: blocks are disjoint, keep what is written, and lie where the same calls put them
//! in another heap.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/common/checked_memheap.rs"]
mod checked_memheap;
use checked_memheap::{Checked, Range, layout, names};

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Call {
    Alloc { bytes: u32, align: u8 },
    Free { which: u16 },
    Realloc { which: u16, bytes: u32 },
    Collect,
}

/// Sizes of every magnitude, up to more than there is.
fn size(bytes: u32) -> usize {
    1 + (bytes >> 5) as usize % (1 << (1 + bytes % 25))
}

fn run(range: &Range, name: &str, calls: &[Call]) -> Vec<Option<usize>> {
    let mut heap = Checked::new(range, name);
    let base = range.0.at;
    let mut offsets = Vec::new();
    for (number, call) in calls.iter().take(2000).enumerate() {
        let victim = |which: u16| heap.live.keys().nth(usize::from(which) % heap.live.len().max(1)).copied();
        match *call {
            Call::Alloc { bytes, align } => {
                let at = heap.alloc(layout(size(bytes), 16 << (align % 13)), number as u8);
                offsets.push(at.map(|at| at - base));
            }
            Call::Free { which } => {
                if let Some(at) = victim(which) {
                    heap.free(at);
                }
            }
            Call::Realloc { which, bytes } => {
                if let Some(at) = victim(which) {
                    let at = heap.realloc(at, layout(size(bytes), 16));
                    offsets.push(at.map(|at| at - base));
                }
            }
            Call::Collect => heap.memheap.module().collect(),
        }
    }
    heap.free_all();
    offsets
}

fuzz_target!(|calls: Vec<Call>| {
    for name in names() {
        let first = run(&Range::new(8 << 20), name, &calls);
        assert_eq!(first, run(&Range::new(8 << 20), name, &calls), "{name}");
    }
});
