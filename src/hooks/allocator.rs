//! Component `allocator`: what this crate itself unmaps, moves or gives back, told before it goes. It needs no privileges and is exact, and it
//! is not told of what others do.

use super::component::{Component, Declined, Notice, Release, Support};
use crate::os::{self, Span};

#[derive(Debug)]
pub(super) struct Allocator;

/// Called by whoever takes memory away, with no lock held.
fn going(span: Span) {
    super::tell(&Release { base: span.at, bytes: span.bytes, from_allocator: true });
}

/// Has heaps tell.
pub(super) fn listen() {
    os::listen(Some(going));
}

/// Has them tell no more.
pub(super) fn ignore() {
    os::listen(None);
}

impl Component for Allocator {
    fn name(&self) -> &'static str {
        "allocator"
    }

    fn priority(&self) -> i32 {
        40
    }

    fn support(&self) -> Support {
        Support { heaps: Notice::Before, process: Notice::Never }
    }

    fn open(&self) -> Result<(), Declined> {
        listen();
        Ok(())
    }

    fn close(&self) {
        ignore();
    }
}
