//! Damage planted in the bins, of free runs that no heap has.

use super::{Bins, bin_of};
use crate::finding::{Finding, Layer, Verdict};
use crate::heap::map::{Entry, Map, Stretch};
use crate::os::Fixed;
use core::mem::swap;
use core::ptr::NonNull;
use std::alloc::{Layout, alloc_zeroed, dealloc};

const PAGE: usize = 4096;
const PAGES: usize = 2048;
/// Two of one length, one of the next, and one in the bin of a doubling.
const RUNS: [Stretch; 4] = [
    Stretch { first: 100, pages: 5 },
    Stretch { first: 200, pages: 5 },
    Stretch { first: 300, pages: 6 },
    Stretch { first: 1000, pages: 700 },
];

/// Runs `test` with a map of the free runs, and the bins that they are in.
fn with_bins(test: impl FnOnce(&Map, &mut Bins)) {
    let layout = Layout::from_size_align(PAGES * PAGE, PAGE).expect("a layout");
    // SAFETY: the size is not 0.
    let at = NonNull::new(unsafe { alloc_zeroed(layout) }).expect("memory");
    // SAFETY: zeroed memory that lives as long as the map.
    let source = unsafe { Fixed::new(at, layout.size(), PAGE) };
    let (map, mut bins) = (Map::new(), Bins::EMPTY);
    assert!(map.open(&source));
    for Stretch { first, pages } in RUNS {
        [first, first + pages - 1].into_iter().for_each(|page| map.set(page, Entry::Free(pages)));
        map.free_run(first).dirty.set(0);
        bins.insert(&map, first, pages);
    }
    test(&map, &mut bins);
    // SAFETY: allocated above for the layout.
    unsafe { dealloc(at.as_ptr(), layout) };
}

/// What an audit of the bins finds, where the map has `runs` runs.
fn verdict(map: &Map, bins: &Bins, runs: u64) -> Verdict {
    RUNS.into_iter().try_for_each(|run| bins.audit_place(map, run))?;
    bins.audit(map, runs)
}

/// Plants by a swap, looks for `finding`, and repairs.
fn find(map: &Map, bins: &mut Bins, finding: Finding, mut swap: impl FnMut(&mut Bins)) {
    let all = RUNS.len() as u64;
    assert_eq!(verdict(map, bins, all), Ok(()));
    swap(bins);
    assert_eq!(verdict(map, bins, all), Err(finding));
    swap(bins);
    assert_eq!(verdict(map, bins, all), Ok(()));
}

#[test]
fn d7_a_free_run_in_the_wrong_bin_is_named() {
    with_bins(|map, bins| {
        let runs = |rule, page| Layer::Runs.breaks(rule, map.address_of(page));
        find(map, bins, runs("a run is found in its bin", 100), |bins| bins.roots.swap(5, 6));
        find(map, bins, runs("a run is found in its bin", 1000), |bins| bins.roots.swap(bin_of(700), bin_of(1500)));
        let marked = Layer::Runs.breaks("a bin is marked as filled if it has runs", 0);
        [5, 7].into_iter().for_each(|bin| find(map, bins, marked, |bins| bins.filled[0] ^= 1 << bin));
        let mut other = 150;
        find(map, bins, runs("runs in bins are free", 150), |bins| swap(&mut bins.roots[6], &mut other));
        // Also where the map has a run in two bins, or more than there are.
        let mut other = 300;
        find(map, bins, runs("a run lies in the bin for its length", 300), |bins| {
            swap(&mut bins.roots[7], &mut other);
            bins.filled[0] ^= 1 << 7;
        });
        let [all, none] = ["a bin has each run once", "every free run is in a bin"];
        assert_eq!(verdict(map, bins, 3), Err(runs(all, 1000)));
        assert_eq!(verdict(map, bins, 5), Err(Layer::Runs.breaks(none, 0)));
    });
}
