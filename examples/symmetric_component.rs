//! A component for symmetric heaps, out of the crate: a stack, of which what was allocated last is freed first. All that it takes is one
//! constant and one implementation of `Module`.
//!
//! ```text
//! stratalloc run -n 2 -- target/release/examples/symmetric_component
//! ```

#![expect(clippy::disallowed_macros, reason = "an example says what it finds")]

use std::alloc::Layout;
use std::ptr::NonNull;
use stratalloc::os::Span;
use stratalloc::symmetric::memheap::{Choice, Component, INTERFACE, Module};
use stratalloc::symmetric::{self, Settings, SymSlice, SymmetricError};

/// The component: a higher priority than any of the crate's, so it serves wherever it is known.
static STACK: Component = Component {
    name: "stack",
    interface: INTERFACE,
    priority: 90,
    data: &(),
    init: |component, range| Ok(Box::new(Stack { component, range, blocks: Vec::new() })),
};

/// Blocks in a range, each behind the last.
#[derive(Debug)]
struct Stack {
    component: &'static Component,
    range: Span,
    /// Where each live block begins and ends, the lowest first, and whether it was freed while others lay on it.
    blocks: Vec<(usize, usize, bool)>,
}

// SAFETY: each block begins behind the end of the last, and ends within the range.
unsafe impl Module for Stack {
    fn component(&self) -> &'static Component {
        self.component
    }

    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        let top = self.blocks.last().map_or(self.range.at, |(_, end, _)| *end);
        let at = top.checked_next_multiple_of(layout.align())?;
        let end = at.checked_add(layout.size()).filter(|end| *end <= self.range.at + self.range.bytes)?;
        self.blocks.push((at, end, false));
        NonNull::new(at as *mut u8)
    }

    fn bytes_of(&self, block: NonNull<u8>) -> Option<usize> {
        let live = self.blocks.iter().find(|(at, _, freed)| *at == block.as_ptr() as usize && !freed);
        live.map(|(at, end, _)| end - at)
    }

    unsafe fn free(&mut self, block: NonNull<u8>) {
        self.blocks
            .iter_mut()
            .filter(|(at, _, _)| *at == block.as_ptr() as usize)
            .for_each(|(_, _, freed)| *freed = true);
        while self.blocks.pop_if(|(_, _, freed)| *freed).is_some() {}
    }

    fn finalize(&mut self) {}
}

fn main() -> Result<(), SymmetricError> {
    let settings = Settings::from_environment()?.memheap(Choice::new().priority("strata", 10));
    symmetric::init_with(&settings, &[&STACK])?;
    let first = SymSlice::<u64>::new(1000)?;
    let second = SymSlice::<u64>::new(1000)?;
    let next = (symmetric::my_pe() + 1) % symmetric::n_pes();
    second.put(next, 0, &[7; 1000])?;
    symmetric::barrier_all();
    assert!(second.to_vec().iter().all(|value| *value == 7));
    if symmetric::my_pe() == 0 {
        println!(
            "component {}: blocks at {:#x} and {:#x}; PEs: {}",
            symmetric::component(),
            first.as_ptr() as usize - symmetric::heap().at,
            second.as_ptr() as usize - symmetric::heap().at,
            symmetric::n_pes()
        );
    }
    symmetric::barrier_all();
    drop((second, first));
    symmetric::finalize()
}
