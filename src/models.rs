//! Models: the shipped code under loom, which runs every interleaving of a few operations.
//!
//! `RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test --release --lib`. Links in free blocks are loom's cells
//! (`list.rs`), so a list that is handed over without synchronisation is a report. Each model has a twin with a lock that is
//! broken on purpose, which the model must fail.

#![allow(clippy::disallowed_macros, reason = "tests may print")]

use crate::heap::model::{Depot, List, block};
use crate::lock::{Locked, Rank, RawLock};
use crate::os::{Source, Span};
use crate::twin::Twin;
use core::alloc::Layout;
use core::ptr::NonNull;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize;

/// A spin lock in loom's atomics. `SOUND` releases as it should; else Relaxed, which publishes nothing.
#[derive(Debug)]
pub(crate) struct Modelled<const SOUND: bool>(AtomicBool);

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

/// A source for models: records from the system's allocator, freed with it, and addresses that nobody touches.
#[derive(Debug)]
pub(crate) struct Memory {
    bytes: usize,
    records: std::sync::Mutex<Vec<(usize, Layout)>>,
}

impl Memory {
    /// A source with a window of so many bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { bytes, records: std::sync::Mutex::new(Vec::new()) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        for (at, layout) in self.records.get_mut().expect("no thread has panicked with it").drain(..) {
            // SAFETY: allocated in `records` for the layout; the heap is gone.
            unsafe { std::alloc::dealloc(at as *mut u8, layout) };
        }
    }
}

// SAFETY: the window is never touched in a model; records are zero and live as long as the source.
unsafe impl Source for Memory {
    fn page_size(&self) -> usize {
        4096
    }

    fn window(&self) -> Option<Span> {
        Some(Span { at: 1 << 32, bytes: self.bytes })
    }

    fn grow(&self, _: usize, _: usize) -> Option<Span> {
        None
    }

    fn records(&self, bytes: usize) -> Option<NonNull<u8>> {
        let layout = Layout::from_size_align(bytes, 64).expect("a small size");
        // SAFETY: the size is not 0.
        let at = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) })?;
        self.records.lock().expect("no thread has panicked with it").push((at.as_ptr() as usize, layout));
        Some(at)
    }

    unsafe fn purge(&self, _: Span) -> bool {
        true
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

/// A thread ends and gives its lists away while another one refills: no block is lost, and none comes twice.
fn exit_beside_refill<const SOUND: bool>() {
    let depot = Arc::new(Locked::<Depot, Modelled<SOUND>>::new(Rank::Depot, Depot::EMPTY));
    let ending = loom::thread::spawn({
        let depot = Arc::clone(&depot);
        move || {
            depot.with(|depot| depot.put(make_list(), 1, 64)).expect("there is room");
            let mut odd = depot.with(Depot::take_odd);
            odd.push(block());
            depot.with(|depot| depot.put_odd(odd, 1, 64)).expect("nobody else ends");
        }
    });
    let refill = || match depot.with(|depot| depot.take(TARGET)) {
        Some(list) => walk(list),
        None => u32::from(depot.with(Depot::pop_odd).is_some()),
    };
    let mut blocks = refill();
    ending.join().expect("it ends well");
    blocks += depot.with(|depot| depot.take(TARGET)).map_or(0, walk) + depot.with(Depot::take_odd).len();
    assert_eq!(blocks, TARGET + 1);
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

/// Shows that `model` holds, and that it fails when the shipped code breaks a promise on purpose.
pub(crate) fn holds_and_breaks_with(name: &str, model: fn(), twin: Twin) {
    holds_and_twin_fails(name, model, move || {
        crate::twin::set(twin as u8);
        model();
    });
    crate::twin::set(0);
}

/// Shows that `model` holds, and that `twin`, which breaks it on purpose, fails.
pub(crate) fn holds_and_twin_fails(
    name: &str,
    model: impl Fn() + Send + Sync + 'static,
    twin: impl Fn() + Send + Sync + 'static,
) {
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
fn depot_exit_beside_refill() {
    holds_and_twin_fails("depot_exit_beside_refill", exit_beside_refill::<true>, exit_beside_refill::<false>);
}

#[test]
fn depot_odd_blocks_meet() {
    holds_and_twin_fails("depot_odd_blocks_meet", odd_blocks_meet::<true>, odd_blocks_meet::<false>);
}
