//! A library in Rust that a program loads and unloads again: for `tests/purger.rs`.

use std::cell::Cell;
use std::hint::black_box;
use stratalloc::Stratalloc;

#[global_allocator]
static A: Stratalloc = Stratalloc::new();

const BYTES: usize = 15 << 20;

/// Frees more than the idle bound.
#[unsafe(no_mangle)]
pub extern "C" fn swing() {
    drop(black_box(vec![1u8; BYTES]));
}

/// Frees what it has when its thread ends.
struct AtTheEnd(Cell<Vec<u8>>);

impl Drop for AtTheEnd {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

thread_local! {
    static AT_THE_END: AtTheEnd = const { AtTheEnd(Cell::new(Vec::new())) };
}

/// Frees more than the idle bound when the calling thread ends, after everything else of this library in it: what is
/// registered first is dropped last.
#[unsafe(no_mangle)]
pub extern "C" fn swing_at_the_threads_end() {
    AT_THE_END.with(|_| ());
    let bytes = vec![1u8; BYTES];
    AT_THE_END.with(|end| end.0.set(bytes));
}
