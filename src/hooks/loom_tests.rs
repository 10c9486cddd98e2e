//! Callbacks under loom: they are told by some threads, while others put them on the chain and take them off.

use crate::models::holds_and_breaks_with;
use crate::twin::Twin;
use component::Release;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use std::boxed::Box;

#[path = "callbacks.rs"]
mod callbacks;
use callbacks::Callbacks;

/// What callbacks need of it.
mod component {
    pub(super) struct Release {
        pub(super) from_allocator: bool,
    }
}

const RELEASE: Release = Release { from_allocator: false };

/// What a callback looks at, and whoever took it off changes: loom tells if that can be at the same time.
struct Looked(UnsafeCell<u32>);

// SAFETY: loom checks it.
unsafe impl Sync for Looked {}

fn looks_at(cell: &Arc<Looked>) -> Box<dyn Fn(&Release) + Send + Sync> {
    let cell = Arc::clone(cell);
    // SAFETY: read while it is on the chain.
    Box::new(move |_| cell.0.with(|cell| assert_ne!(unsafe { *cell }, 7)))
}

fn change(cell: &Looked) {
    // SAFETY: nobody is told any more.
    cell.0.with_mut(|cell| unsafe { *cell = 7 });
}

fn take_off_beside_tell() {
    let (callbacks, cell) = (Arc::new(Callbacks::new()), Arc::new(Looked(UnsafeCell::new(0))));
    let place = callbacks.add(looks_at(&cell));
    let other = loom::thread::spawn({
        let callbacks = Arc::clone(&callbacks);
        move || callbacks.tell(&RELEASE)
    });
    assert!(callbacks.take_off(place));
    change(&cell);
    assert!(!callbacks.take_off(place));
    other.join().expect("the other ends well");
}

/// A node is used again while somebody tells.
fn add_again_beside_tell() {
    let (callbacks, cells) = (Arc::new(Callbacks::new()), [0, 1].map(|at| Arc::new(Looked(UnsafeCell::new(at)))));
    let first = callbacks.add(looks_at(&cells[0]));
    let other = loom::thread::spawn({
        let callbacks = Arc::clone(&callbacks);
        move || callbacks.tell(&RELEASE)
    });
    assert!(callbacks.take_off(first));
    change(&cells[0]);
    let second = callbacks.add(looks_at(&cells[1]));
    assert!(!callbacks.take_off(first), "a handle of the use before means nothing");
    assert!(callbacks.take_off(second));
    change(&cells[1]);
    other.join().expect("the other ends well");
}

#[test]
fn h3_take_off_waits_for_calls_that_run() {
    holds_and_breaks_with("h3_take_off_waits_for_calls_that_run", take_off_beside_tell, Twin::Told);
}

#[test]
fn h3_a_node_is_used_again() {
    holds_and_breaks_with("h3_a_node_is_used_again", add_again_beside_tell, Twin::Told);
}
