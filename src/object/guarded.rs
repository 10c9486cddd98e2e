//! A heap's users call the corruption hunter, which calls the engine. Nothing is held back: a heap may go at any time.

use super::owned::Owned;
use crate::debug::Guarded;
use crate::global::hunter;
pub(super) use crate::global::hunter::{check, forget};
use crate::heap::{Attached, Engine};
use crate::lock::Spin;
use core::alloc::Layout;

/// What users call.
pub(super) type Front<'a> = Guarded<'static, Attached<'a, Owned, Spin>>;

/// By what a heap's blocks are told from those of others.
#[derive(Debug)]
pub(super) struct Number(u8);

impl Number {
    pub(super) fn new() -> Self {
        Self(hunter::number_heap())
    }

    pub(super) fn front<'a>(&self, heap: Attached<'a, Owned, Spin>) -> Front<'a> {
        hunter::guard(heap, self.0)
    }
}

/// Where blocks may be guarded they have what was asked for.
pub(super) fn usable_size(engine: &Engine<Owned, Spin>, layout: Layout) -> usize {
    if hunter::is_off() { engine.usable_size(layout) } else { layout.size() }
}
