//! A source that fails: its k-th call, or every call from there on, for every k of a trace.

#[path = "oracle/mod.rs"]
mod oracle;

use oracle::{Burst, Op, Player, Pool, assert_empty, layout_of_code, size_of_code, with_player};
use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use stratalloc::Config;
use stratalloc::heap::{Blocks, Cache, Engine};
use stratalloc::lock::Spin;
use stratalloc::os::{Mmap, Relocation, Source, Span};

/// Mapped memory whose calls from `from` up to `to` fail.
struct Failing {
    inner: Mmap,
    calls: AtomicUsize,
    from: AtomicUsize,
    to: AtomicUsize,
    never_purges: AtomicBool,
}

impl Failing {
    fn new(from: usize, to: usize) -> Self {
        let [calls, from, to] = [0, from, to].map(AtomicUsize::new);
        Self { inner: Mmap::new(), calls, from, to, never_purges: AtomicBool::new(false) }
    }

    /// From now on no page is given back.
    fn refuse_purges(&self) {
        self.never_purges.store(true, Relaxed);
    }

    /// Counts a call; whether it is to fail.
    fn fails(&self) -> bool {
        let call = self.calls.fetch_add(1, Relaxed);
        (self.from.load(Relaxed)..self.to.load(Relaxed)).contains(&call)
    }

    /// Lets no further call fail.
    fn heal(&self) {
        self.to.store(0, Relaxed);
    }
}

// SAFETY: `Mmap` promises it all, and a call that fails changes nothing.
unsafe impl Source for Failing {
    fn page_size(&self) -> usize {
        self.inner.page_size()
    }

    fn window(&self) -> Option<Span> {
        self.inner.window()
    }

    fn grow(&self, min: usize, mapped: usize) -> Option<Span> {
        if self.fails() { None } else { self.inner.grow(min, mapped) }
    }

    fn records(&self, bytes: usize) -> Option<NonNull<u8>> {
        if self.fails() { None } else { self.inner.records(bytes) }
    }

    unsafe fn purge(&self, range: Span) -> bool {
        // SAFETY: handed on.
        !self.never_purges.load(Relaxed) && !self.fails() && unsafe { self.inner.purge(range) }
    }

    unsafe fn relocate(&self, from: Span, to: usize) -> Relocation {
        if self.fails() {
            return Relocation::Refused;
        }
        // SAFETY: handed on.
        unsafe { self.inner.relocate(from, to) }
    }
}

/// The next number of a sequence that is the same in every run.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
    *state >> 33
}

fn any_layout(state: &mut u64) -> Layout {
    let log = if next(state).is_multiple_of(32) { 19 } else { next(state) % 17 };
    layout_of_code(size_of_code(log as u8, next(state) as u8, next(state) as u8), (next(state) % 5) as u8)
}

/// A thousand operations and more, on all layers.
fn trace() -> Vec<Burst> {
    let state = &mut 1;
    let op = |state: &mut u64| match next(state) % 16 {
        0..7 => Op::Alloc(any_layout(state)),
        7 => Op::AllocZeroed(any_layout(state)),
        8..13 => Op::Free(next(state) as usize),
        13..15 => Op::Realloc(next(state) as usize, any_layout(state).size()),
        _ => [Op::Park, Op::Collect][next(state) as usize % 2],
    };
    let times = |state: &mut u64| if next(state).is_multiple_of(4) { next(state) as usize % 40 } else { 1 };
    (0..300).map(|_| Burst::new(times(state), op(state))).collect()
}

/// Plays `trace` while the calls from `from` up to `to` fail; how many calls there were in all.
///
/// The heap must be whole all the time, and have everything again once the source has recovered.
fn play(trace: &[Burst], from: usize, to: usize) -> usize {
    let engine = Engine::<_, Spin>::new(Failing::new(from, to));
    let config = Config::new().idle_bytes(256 << 10).idle_share(usize::MAX);
    if !engine.open(&config) {
        engine.source().heal();
        assert!(engine.open(&config), "a later call opens the heap");
    }
    with_player(&engine, &Pool::default(), 1, |player| {
        trace.iter().for_each(|burst| player.play_burst(*burst));
        engine.source().heal();
        assert_usable(player);
    });
    assert_empty(&engine);
    engine.source().calls.load(Relaxed)
}

/// Asserts that the heap serves every kind of request.
fn assert_usable(player: &mut Player<'_, Failing, Spin>) {
    player.audit();
    let served = [1, 100, 2048, 5000, 70_000, 3 << 20].map(|size| player.oracle.alloc(layout_of_code(size, 0)));
    assert_eq!(served, [true; 6]);
    player.finish();
}

#[test]
fn g13_the_source_fails_one_call() {
    let trace = trace();
    let calls = play(&trace, 0, 0);
    assert!(trace.iter().map(|burst| burst.times).sum::<usize>() >= 1000 && calls > 50, "{calls} calls");
    (0..calls).for_each(|call| _ = play(&trace, call, call + 1));
}

#[test]
fn g13_the_source_fails_from_one_call_on() {
    let trace = trace();
    let calls = play(&trace, 0, 0);
    (0..calls).for_each(|call| _ = play(&trace, call, usize::MAX));
}

/// Free pages in slabs that cannot be given back are no reason not to grow.
#[test]
fn g13_a_source_that_never_purges_still_grows() {
    const SIZE: usize = 512;
    let engine = Engine::<_, Spin>::new(Failing::new(usize::MAX, 0));
    assert!(engine.open(&Config::new()));
    let cache = Cache::new();
    // SAFETY: the cache is fresh, stays here until it is detached, and is this thread's.
    unsafe { engine.attach(&cache) };
    // SAFETY: attached above.
    let heap = unsafe { engine.through(&cache) };
    let of = |size| Layout::from_size_align(size, 8).expect("a layout");
    // SAFETY: any layout may be asked for.
    let blocks: Vec<*mut u8> = (0..32_768).map(|_| unsafe { heap.alloc(of(SIZE)) }).collect();
    // One block in four pages stays, so that its slab does.
    for block in blocks.iter().enumerate().filter(|(at, _)| at % 32 != 0).map(|(_, block)| *block) {
        // SAFETY: allocated above for the size, and freed once.
        unsafe { heap.dealloc(block, of(SIZE)) };
    }
    engine.source().refuse_purges();
    // SAFETY: as above.
    let grown: Vec<*mut u8> = (0..64).map(|_| unsafe { heap.alloc(of(1 << 20)) }).collect();
    assert!(blocks.iter().chain(&grown).all(|block| !block.is_null()));
    // SAFETY: allocated above for the size, and freed once.
    grown.into_iter().for_each(|block| unsafe { heap.dealloc(block, of(1 << 20)) });
    for block in blocks.iter().step_by(32) {
        // SAFETY: as above.
        unsafe { heap.dealloc(*block, of(SIZE)) };
    }
    // SAFETY: attached above, and no longer in use.
    unsafe { engine.detach(&cache) };
}
