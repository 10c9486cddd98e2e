//! No agent: behind C names a thread of the C library's cannot be started, and how to start another kind is not known on
//! this target.

use super::Body;

/// A thread that cannot be started.
#[derive(Debug)]
pub(super) struct Thread;

impl Thread {
    pub(super) const fn new() -> Self {
        Self
    }

    pub(super) fn start(&self, _: Body) -> bool {
        false
    }

    pub(super) fn forget(&self) {}
}

/// Says that it must not be enlisted.
pub(super) fn stays(_: Body) -> bool {
    false
}
