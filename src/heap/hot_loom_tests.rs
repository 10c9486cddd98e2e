//! The place for a long run under loom: its owner frees and takes the run while another closes the place.

use super::{CLOSED, Closed, HERE, Hot, PAGES_SHIFT};
use crate::heap::map::{Entry, EntryRef};
use crate::models::holds_and_twin_fails;
use crate::sync::{Acquire, Relaxed};
use loom::cell::UnsafeCell;
use loom::sync::Arc;

const RUN: usize = 1 << 20;
const PAGES: u32 = 256;

/// A place, and what stands for the memory of its run.
struct Shared {
    hot: Hot,
    memory: UnsafeCell<u32>,
}

// SAFETY: the place's cells are its owner's alone; the memory is checked by loom.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Shared {
    /// By who has the run.
    fn write(&self) {
        // SAFETY: none: that nobody else has the run is what the model shows.
        self.memory.with_mut(|memory| unsafe { *memory += 1 });
    }
}

fn owner_against(close: fn(&Hot) -> Option<Closed>) {
    let entry = EntryRef::for_model(Entry::Run(PAGES));
    let shared = Arc::new(Shared { hot: Hot::new(), memory: UnsafeCell::new(0) });
    shared.hot.open(RUN, entry, PAGES);
    let closer = loom::thread::spawn({
        let shared = Arc::clone(&shared);
        move || {
            if close(&shared.hot).is_some_and(|closed| closed.run.is_some()) {
                shared.write();
            }
        }
    });
    for _ in 0..2 {
        shared.write();
        if !shared.hot.put(RUN, PAGES.into()) || shared.hot.take(PAGES.into(), 1).is_none() {
            break;
        }
    }
    closer.join().expect("the closer ends well");
}

/// Looks and closes, but not at once.
fn close_in_two_steps(hot: &Hot) -> Option<Closed> {
    let was = hot.state.load(Acquire);
    hot.state.store(CLOSED, Relaxed);
    let run = (was & HERE != 0).then(|| hot.at.load(Relaxed));
    (was != CLOSED).then_some(Closed { pages: (was >> PAGES_SHIFT) as u32, run })
}

#[test]
fn hot_run_has_one_owner() {
    holds_and_twin_fails("hot_run_has_one_owner", || owner_against(Hot::close), || owner_against(close_in_two_steps));
}
