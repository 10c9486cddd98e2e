//! A heap as an object: a graph that points in circles is built by two threads and dropped at once, with its heap. The
//! global allocator is the system's: a heap of its own needs no other.
//!
//! ```sh
//! cargo run --release --features allocator-api2 --example heap
//! ```

#[path = "work/report.rs"]
mod report;

use allocator_api2::alloc::AllocError;
use allocator_api2::boxed::Box;
use allocator_api2::vec::Vec;
use report::{resident, say};
use std::cell::Cell;
use std::iter::successors;
use std::panic::resume_unwind;
use std::process::ExitCode;
use std::thread::scope;
use std::time::Instant;
use stratalloc::Heap;

/// Nodes that one thread makes.
const NODES: usize = 1_000_000;

/// A node of a ring: no order of drops would suit it, and none is needed.
struct Node<'heap> {
    next: Cell<Option<&'heap Node<'heap>>>,
    name: Vec<u8, &'heap Heap>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(AllocError) => {
            report::complain("error: there is no memory for a heap; this example needs about 200 MiB");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), AllocError> {
    say(format_args!("at the start     {}", resident()));
    let heap = Heap::new()?;
    let bytes = scope(|scope| {
        let other = scope.spawn(|| ring(&heap));
        ring(&heap) + other.join().unwrap_or_else(|panic| resume_unwind(panic))
    });
    say(format_args!("with two rings   {}  ({NODES} nodes each, {bytes} bytes of names)", resident()));
    say(format_args!("\n{}\n", heap.stats()));
    let start = Instant::now();
    drop(heap);
    say(format_args!("heap dropped     {}  in {:.2} ms", resident(), start.elapsed().as_secs_f64() * 1e3));
    Ok(())
}

/// Makes a ring of `NODES` nodes and walks it; returns the bytes of all names.
fn ring(heap: &Heap) -> usize {
    let first: &Node = Box::leak(node(heap, 0));
    let mut last = first;
    for number in 1..NODES {
        let next = Box::leak(node(heap, number));
        last.next.set(Some(next));
        last = next;
    }
    last.next.set(Some(first));
    successors(Some(first), |node| node.next.get()).take(NODES).map(|node| node.name.len()).sum()
}

fn node(heap: &Heap, number: usize) -> Box<Node<'_>, &Heap> {
    let mut name = Vec::new_in(heap);
    name.extend_from_slice(format!("node {number}").as_bytes());
    Box::new_in(Node { next: Cell::new(None), name }, heap)
}
