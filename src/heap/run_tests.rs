//! The page runs against their model.

use super::model::{Bench, Op, PAGE, last};
use crate::heap::granule::Fill;
use crate::heap::map::{Page, Stretch};
use proptest::prelude::*;
use std::vec::Vec;

fn pages() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 1..20u32, 2 => 20..600u32, 1 => 600..2000u32]
}

fn op() -> impl Strategy<Value = Op> {
    let align_log = prop_oneof![6 => Just(12), 1 => 13..20u32];
    let fill = || prop_oneof![3 => Just(Fill::Dense), 1 => Just(Fill::Sparse), 1 => Just(Fill::Any)];
    let grow = (any::<usize>(), 1..40u32, fill());
    prop_oneof![
        8 => (pages(), align_log, fill()).prop_map(|(pages, align_log, fill)| Op::Alloc { pages, align_log, fill }),
        4 => any::<usize>().prop_map(Op::Free),
        1 => any::<usize>().prop_map(Op::FreeAsMarked),
        1 => (any::<usize>(), pages()).prop_map(|(index, pages)| Op::Shrink(index, pages)),
        1 => grow.prop_map(|(index, pages, fill)| Op::Grow(index, pages, fill)),
        1 => any::<usize>().prop_map(Op::Fill),
        1 => pages().prop_map(Op::BeginPurge),
        1 => any::<bool>().prop_map(|purged| Op::EndPurge { purged }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn g5_runs_are_what_a_list_of_pages_says(
        grain in prop_oneof![Just(0), Just(8), Just(64), Just(512)],
        ops in prop::collection::vec(op(), 1..300),
    ) {
        let mut bench = Bench::new(grain);
        for op in ops {
            bench.play(op);
            bench.audit();
        }
    }
}

/// The defect of the original: after a split the first part kept the old end, and its free swallowed the neighbour.
#[test]
fn g5_split_keeps_its_own_end() {
    let mut bench = Bench::new(0);
    let alloc = |bench: &mut Bench, pages| bench.alloc(pages, PAGE, Fill::Any).expect("room");
    let a = alloc(&mut bench, 3);
    let _guard = alloc(&mut bench, 1);
    bench.free_run(a);
    let b = alloc(&mut bench, 1);
    let c = alloc(&mut bench, 2);
    assert_eq!((b.first, c.first), (a.first, a.first + 1), "both come from the run that was freed");
    bench.free_run(b);
    let d = alloc(&mut bench, 3);
    assert!(d.first > last(c) as Page || last(d) < c.first as usize, "{d:?} overlaps {c:?}");
    bench.audit();
}

#[test]
fn g5_best_fit_is_the_smallest_that_fits_and_the_lowest_among_equals() {
    let mut bench = Bench::new(0);
    let runs: Vec<Stretch> = [5, 1, 3, 1, 3, 1, 4, 1].map(|pages| bench.alloc(pages, PAGE, Fill::Any).unwrap()).into();
    [6, 4, 2, 0].into_iter().for_each(|index| bench.free_run(runs[index]));
    let firsts = [3, 3, 3, 3].map(|pages| bench.alloc(pages, PAGE, Fill::Any).unwrap().first);
    assert_eq!(firsts, [2, 4, 6, 0].map(|index: usize| runs[index].first));
    bench.audit();
}
