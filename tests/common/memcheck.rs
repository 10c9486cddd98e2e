//! A program for a test of ours that runs under valgrind: its first argument says which mistake it makes.

#![allow(clippy::disallowed_macros, clippy::multiple_unsafe_ops_per_block, reason = "it makes mistakes on purpose")]

use std::hint::black_box;
use stratalloc::Stratalloc;

#[global_allocator]
static A: Stratalloc = Stratalloc::new();

/// Work of every kind, without a mistake.
fn correct() {
    let mut words: Vec<String> = (0..4000).map(|number| format!("word {number}")).collect();
    words.sort_by(|a, b| b.cmp(a));
    words.truncate(100);
    let threads: Vec<_> = (0..4u8)
        .map(|mark| {
            std::thread::spawn(move || {
                let blocks: Vec<Vec<u8>> = (0..400).map(|size| vec![mark; 1 + size * 37 % 6000]).collect();
                blocks.iter().map(|block| block.iter().map(|byte| usize::from(*byte)).sum::<usize>()).sum::<usize>()
            })
        })
        .collect();
    let sum: usize = threads.into_iter().map(|thread| thread.join().expect("it ends well")).sum();
    let mut grown: Vec<u64> = Vec::new();
    (0..400_000).for_each(|number| grown.push(number));
    let zeroed = vec![0u8; 3 << 20];
    Stratalloc::collect();
    assert!(sum > 0 && grown.iter().sum::<u64>() > 0 && zeroed.iter().all(|byte| *byte == 0));
}

/// A block of `size` bytes, of which nothing is written.
fn block(size: usize) -> (*mut u8, std::alloc::Layout) {
    let layout = std::alloc::Layout::from_size_align(size, 8).expect("a layout");
    // SAFETY: the size is not 0.
    (black_box(unsafe { std::alloc::alloc(layout) }), layout)
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("correct") {
        correct();
    }
    let size: usize = std::env::args().nth(2).map_or(40, |size| size.parse().expect("a size"));
    let (at, layout) = block(size);
    // SAFETY: none, in what follows: these are the mistakes that must be found.
    unsafe {
        match std::env::args().nth(1).as_deref() {
            Some("correct") => at.write_bytes(1, size),
            Some("freed") => {
                at.write_bytes(1, size);
                std::alloc::dealloc(at, layout);
                black_box(at.wrapping_add(size / 2).read_volatile());
                return;
            }
            Some("beyond") => at.wrapping_add(size).write_volatile(1),
            Some("unwritten") => {
                if at.read_volatile() == 1 {
                    println!("one");
                }
            }
            Some("twice") => std::alloc::dealloc(at, layout),
            other => panic!("{other:?} is no mistake that is known here"),
        }
        std::alloc::dealloc(at, layout);
    }
}
