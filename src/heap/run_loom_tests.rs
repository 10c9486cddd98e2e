//! The runs under loom: one thread splits a free run while another merges into it.

use super::{Map, Runs, Stretch};
use crate::heap::granule::Fill;
use crate::lock::{Locked, Rank};
use crate::models::{Memory, Modelled, holds_and_twin_fails};
use loom::sync::Arc;

const SPAN: Stretch = Stretch { first: 16, pages: 8 };

struct Heap<const SOUND: bool> {
    map: Map,
    runs: Locked<Runs, Modelled<SOUND>>,
}

impl<const SOUND: bool> Heap<SOUND> {
    fn alloc(&self, pages: u32) -> Stretch {
        let grant = self.runs.with(|runs| runs.alloc(&self.map, pages, 1, Fill::Any, 0));
        Stretch { first: grant.expect("there is room").first, pages }
    }

    fn free(&self, run: Stretch) {
        self.runs.with(|runs| runs.free(&self.map, run));
    }
}

fn split_beside_merge<const SOUND: bool>() {
    let memory = Memory::new(64 * 4096);
    let heap = Arc::new(Heap { map: Map::new(), runs: Locked::<_, Modelled<SOUND>>::new(Rank::Runs, Runs::EMPTY) });
    assert!(heap.map.open(&memory));
    heap.runs.with(|runs| runs.add_span(&heap.map, SPAN));
    let first = heap.alloc(SPAN.pages / 2);
    let other = loom::thread::spawn({
        let heap = Arc::clone(&heap);
        move || heap.free(first)
    });
    let mine = heap.alloc(2);
    other.join().expect("the other ends well");
    heap.free(mine);
    // All of it is one free run again.
    assert_eq!(heap.alloc(SPAN.pages), SPAN);
    assert_eq!(heap.runs.with(|runs| runs.free_pages), 0);
}

#[test]
fn runs_split_beside_a_merge() {
    holds_and_twin_fails("runs_split_beside_a_merge", split_beside_merge::<true>, split_beside_merge::<false>);
}
