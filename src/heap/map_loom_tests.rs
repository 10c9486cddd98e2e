//! The page map under loom: two threads map memory at once whose pages one leaf describes, which is not there yet.

use super::{Entry, LEAF_PAGES, Map, ONE_LEAF, Page};
use crate::models::{Memory, holds_and_breaks_with};
use crate::twin::Twin;
use loom::sync::Arc;

const FIRST: Page = LEAF_PAGES as Page + 100;

fn two_threads_map_memory() {
    // More pages than one leaf would be made for at once.
    let heap = Arc::new((Map::new(), Memory::new(4096 * (ONE_LEAF + LEAF_PAGES))));
    assert!(heap.0.open(&heap.1));
    let map = |heap: &(Map, Memory), page: Page| {
        assert!(heap.0.cover(page, 1, &heap.1));
        heap.0.set(page, Entry::Run(page));
    };
    let other = loom::thread::spawn({
        let heap = Arc::clone(&heap);
        move || map(&heap, FIRST)
    });
    map(&heap, FIRST + 1);
    other.join().expect("the other ends well");
    for page in [FIRST, FIRST + 1] {
        assert_eq!(heap.0.entry(page), Entry::Run(page));
    }
}

#[test]
fn map_growth_loses_no_leaf() {
    holds_and_breaks_with("map_growth_loses_no_leaf", two_threads_map_memory, Twin::Leaf);
}
