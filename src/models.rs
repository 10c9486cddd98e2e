//! Models: the shipped code under loom, which runs every interleaving of a few operations.
//!
//! `RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test --release --lib`. Links in free blocks are loom's cells
//! (`list.rs`), so a list that is handed over without synchronisation is a report. Each model has a twin with a lock that is
//! broken on purpose, which the model must fail.

#![allow(clippy::disallowed_macros, reason = "tests may print")]

use crate::heap::model::{Depot, List, block};
use crate::lock::{Locked, Rank, RawLock};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize;

/// A spin lock in loom's atomics. `SOUND` releases as it should; else Relaxed, which publishes nothing.
#[derive(Debug)]
struct Modelled<const SOUND: bool>(AtomicBool);

// SAFETY: excludes; synchronises if `SOUND`.
unsafe impl<const SOUND: bool> RawLock for Modelled<SOUND> {
    fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    fn acquire(&self) {
        while self.0.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            loom::thread::yield_now();
        }
    }

    unsafe fn release(&self) {
        self.0.store(false, if SOUND { Ordering::Release } else { Ordering::Relaxed });
    }
}

const TARGET: u32 = 2;

/// Takes every block of a list off and checks that there are `TARGET`.
fn walk(mut list: List) -> u32 {
    assert_eq!(list.len(), TARGET);
    std::iter::from_fn(|| list.pop()).map(|_| 1).sum()
}

fn make_list() -> List {
    let mut list = List::EMPTY;
    (0..TARGET).for_each(|_| list.push(block()));
    list
}

/// One thread gives two lists to the depot, the other takes what is there, twice; what is left at the end is whole.
fn lists_change_hands<const SOUND: bool>() {
    let depot = Arc::new(Locked::<Depot, Modelled<SOUND>>::new(Rank::Depot, Depot::EMPTY));
    let giver = loom::thread::spawn({
        let depot = Arc::clone(&depot);
        move || (0..2).for_each(|_| depot.with(|depot| depot.put(make_list(), 1, 64)).expect("there is room"))
    });
    let take = || depot.with(|depot| depot.take(TARGET)).map_or(0, walk);
    let mut taken = take() + take();
    giver.join().expect("the giver ends well");
    taken += take() + take();
    assert_eq!(taken, 2 * TARGET);
}

/// Two threads end with odd blocks: together they make one list, whoever comes last.
fn odd_blocks_meet<const SOUND: bool>() {
    let depot = Arc::new(Locked::<Depot, Modelled<SOUND>>::new(Rank::Depot, Depot::EMPTY));
    let leave = |depot: &Locked<Depot, Modelled<SOUND>>| {
        let mut list = depot.with(Depot::take_odd);
        list.push(block());
        if list.len() == TARGET {
            // Walks the links of both, as `stow_odd` does.
            assert!(list.pages(0) >= 1);
            return depot.with(|depot| depot.put(list, 1, 64)).expect("there is room");
        }
        // Another's odd blocks may have come meanwhile: then these are refused, and the caller sorts them.
        let _ = depot.with(|depot| depot.put_odd(list, 1, 64));
    };
    let other = loom::thread::spawn({
        let depot = Arc::clone(&depot);
        move || leave(&depot)
    });
    leave(&depot);
    other.join().expect("the other ends well");
    let lists = depot.with(|depot| depot.take(TARGET)).map_or(0, walk);
    let odd = depot.with(Depot::take_odd).len();
    assert!((lists, odd) == (TARGET, 0) || (lists, odd) == (0, 1));
}

/// Runs `model` in every interleaving and returns how many there are.
fn explore(model: impl Fn() + Send + Sync + 'static) -> usize {
    let runs = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&runs);
    loom::model(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    runs.load(Ordering::Relaxed)
}

/// Shows that `model` holds, and that `twin`, which breaks it on purpose, fails.
pub(crate) fn holds_and_twin_fails(name: &str, model: fn(), twin: fn()) {
    let runs = explore(model);
    let broken = catch_unwind(AssertUnwindSafe(|| explore(twin)));
    assert!(broken.is_err(), "{name}: the broken twin passed");
    eprintln!("{name}: holds in {runs} interleavings; its broken twin fails");
}

#[test]
fn depot_lists_change_hands() {
    holds_and_twin_fails("depot_lists_change_hands", lists_change_hands::<true>, lists_change_hands::<false>);
}

#[test]
fn depot_odd_blocks_meet() {
    holds_and_twin_fails("depot_odd_blocks_meet", odd_blocks_meet::<true>, odd_blocks_meet::<false>);
}
