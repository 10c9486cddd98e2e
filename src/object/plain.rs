//! A heap's users call the engine.

use super::owned::Owned;
use crate::finding::Verdict;
use crate::heap::{Attached, Engine};
use crate::lock::Spin;
use crate::os::Span;
use core::alloc::Layout;

/// What users call.
pub(super) type Front<'a> = Attached<'a, Owned, Spin>;

/// Heaps need not be told apart.
#[derive(Debug)]
pub(super) struct Number;

impl Number {
    pub(super) fn new() -> Self {
        Self
    }

    pub(super) fn front<'a>(&self, heap: Front<'a>) -> Front<'a> {
        heap
    }
}

pub(super) fn usable_size(engine: &Engine<Owned, Spin>, layout: Layout) -> usize {
    engine.usable_size(layout)
}

/// There is nothing before the engine that could be damaged.
pub(super) fn check() -> Verdict {
    Ok(())
}

pub(super) fn forget(_: Span) {}
