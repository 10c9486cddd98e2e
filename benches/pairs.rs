//! Times of single calls and small patterns, against the system allocator, both called as objects through `GlobalAlloc`.
//!
//! `cargo bench --bench pairs`. On a noisy machine compare the two rows of a group, not rows of different runs; exact
//! counts are `instructions`' business.

#![allow(missing_docs, reason = "criterion_group makes an undocumented function")]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use stratalloc::Stratalloc;

static OURS: Stratalloc = Stratalloc::new();

/// The allocators under test, by name.
const ALLOCATORS: [(&str, &(dyn GlobalAlloc + Sync)); 2] = [("stratalloc", &OURS), ("system", &System)];

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a valid layout")
}

fn take(heap: &dyn GlobalAlloc, of: Layout) -> *mut u8 {
    // SAFETY: the size is not 0.
    black_box(unsafe { heap.alloc(of) })
}

fn give(heap: &dyn GlobalAlloc, at: *mut u8, of: Layout) {
    // SAFETY: taken from the heap for the layout, and given once.
    unsafe { heap.dealloc(at, of) };
}

/// Runs `body` for each allocator and size.
fn compare(c: &mut Criterion, name: &str, sizes: &[usize], body: fn(&dyn GlobalAlloc, Layout, &mut Vec<*mut u8>)) {
    let mut group = c.benchmark_group(name);
    for size in sizes {
        for (allocator, heap) in ALLOCATORS {
            let mut held = Vec::with_capacity(4096);
            group.bench_function(BenchmarkId::new(allocator, size), |bench| {
                bench.iter(|| body(heap, layout(*size), &mut held))
            });
        }
    }
    group.finish();
}

fn pairs(c: &mut Criterion) {
    let sizes = [8, 64, 1024, 4096, 32 << 10, 1 << 20];
    compare(c, "pair", &sizes, |heap, of, _| give(heap, take(heap, of), of));
}

fn batches(c: &mut Criterion) {
    compare(c, "batch of 1000, freed in order", &[16, 64, 512], |heap, of, held| {
        held.extend((0..1000).map(|_| take(heap, of)));
        held.drain(..).for_each(|at| give(heap, at, of));
    });
    compare(c, "batch of 1000, freed out of order", &[16, 64, 512], |heap, of, held| {
        held.extend((0..1000).map(|_| take(heap, of)));
        (0..1000).for_each(|turn| give(heap, held[turn * 389 % 1000], of));
        held.clear();
    });
}

fn growing(c: &mut Criterion) {
    compare(c, "realloc doubling from 64 B to", &[4096, 1 << 20, 64 << 20], |heap, of, _| {
        let (mut size, mut at) = (64, take(heap, layout(64)));
        while size < of.size() {
            // SAFETY: the block is live with that layout.
            at = unsafe { heap.realloc(at, layout(size), 2 * size) };
            size *= 2;
        }
        give(heap, at, of);
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_millis(700))
        .sample_size(20);
    targets = pairs, batches, growing
}
criterion_main!(benches);
