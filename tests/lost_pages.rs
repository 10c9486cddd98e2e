//! Pages that get lost while a block is moved without copying: their addresses are given again before the heap knows.

#[path = "oracle/mod.rs"]
mod oracle;

use oracle::{Oracle, layout_of_code};
use std::alloc::Layout;
use std::cell::Cell;
use std::ptr::{NonNull, with_exposed_provenance_mut};
use stratalloc::Config;
use stratalloc::heap::{Attached, Blocks, Cache, Engine};
use stratalloc::lock::Spin;
use stratalloc::os::{Relocation, Source, Span};

const GRAIN: usize = 64 << 10;
const MIB: usize = 1 << 20;
const WINDOW: usize = 256 * MIB;

/// A buffer with spans apart from each other, which loses each place that pages are moved to, and gives it again at once.
struct Losing {
    at: usize,
    /// The next span's address.
    next: Cell<usize>,
    lost: Cell<Option<Span>>,
    losses: Cell<usize>,
    /// What somebody else does between the loss and the return to the heap.
    meanwhile: Cell<Option<fn()>>,
}

// SAFETY: this test has one thread.
unsafe impl Sync for Losing {}

// SAFETY: zeroed memory that stays, each part of it given once, or again once it was lost and is zero.
unsafe impl Source for Losing {
    fn page_size(&self) -> usize {
        4096
    }

    fn window(&self) -> Option<Span> {
        Some(Span { at: self.at, bytes: WINDOW })
    }

    fn grow(&self, min: usize, _mapped: usize) -> Option<Span> {
        if let Some(lost) = self.lost.take_if_long(min) {
            return Some(lost);
        }
        let (at, bytes) = (self.next.get(), min.next_multiple_of(GRAIN));
        self.next.set(at + bytes + GRAIN);
        (at + bytes <= self.at + WINDOW).then_some(Span { at, bytes })
    }

    fn records(&self, bytes: usize) -> Option<NonNull<u8>> {
        // SAFETY: the size is not 0. It is never freed: a test runs briefly.
        NonNull::new(unsafe { std::alloc::alloc_zeroed(Layout::from_size_align(bytes, 64).ok()?) })
    }

    unsafe fn purge(&self, range: Span) -> bool {
        // SAFETY: the range is the heap's, and nobody uses it.
        unsafe { with_exposed_provenance_mut::<u8>(range.at).write_bytes(0, range.bytes) };
        true
    }

    fn relocation_grain(&self) -> usize {
        GRAIN
    }

    unsafe fn relocate(&self, from: Span, to: usize) -> Relocation {
        // SAFETY: the new place is the heap's, and nobody uses it.
        unsafe { with_exposed_provenance_mut::<u8>(to).write_bytes(0, from.bytes) };
        self.losses.set(self.losses.get() + 1);
        self.lost.set(Some(Span { at: to, bytes: from.bytes }));
        if let Some(meanwhile) = self.meanwhile.take() {
            meanwhile();
        }
        Relocation::Lost
    }
}

trait TakeIfLong {
    fn take_if_long(&self, min: usize) -> Option<Span>;
}

impl TakeIfLong for Cell<Option<Span>> {
    fn take_if_long(&self, min: usize) -> Option<Span> {
        let lost = self.get().filter(|span| span.bytes >= min)?;
        self.set(None);
        Some(lost)
    }
}

thread_local! {
    static HEAP: Cell<Option<&'static Engine<Losing, Spin>>> = const { Cell::new(None) };
}

/// A heap that stays, and a cache of it.
fn heap(engine: &'static Engine<Losing, Spin>) -> Attached<'static, Losing, Spin> {
    let cache: &'static Cache = Box::leak(Box::new(Cache::new()));
    // SAFETY: the cache is fresh, stays, and is this thread's.
    unsafe { engine.attach(cache) };
    // SAFETY: attached above.
    unsafe { engine.through(cache) }
}

/// Gets the lost place, writes it, and frees it.
fn another_one() {
    let mut other = Oracle::new(heap(HEAP.get().expect("the heap")), 2);
    assert!(other.alloc(layout_of_code(9 * MIB / 2, 0)) && other.alloc(layout_of_code(450 << 10, 0)));
    other.free_all();
}

#[test]
fn g8_a_place_that_got_lost_is_another_spans_alone() {
    let layout = Layout::from_size_align(WINDOW, GRAIN).expect("a layout");
    // SAFETY: the size is not 0. It is never freed, as the heap is not.
    let at = unsafe { std::alloc::alloc_zeroed(layout) }.expose_provenance();
    let [next, losses] = [at + GRAIN, 0].map(Cell::new);
    let source = Losing { at, next, lost: Cell::new(None), losses, meanwhile: Cell::new(None) };
    let engine: &'static Engine<Losing, Spin> = Box::leak(Box::new(Engine::new(source)));
    assert!(engine.open(&Config::new().idle_bytes(512 * MIB)));
    HEAP.set(Some(engine));
    let heap_of_one = heap(engine);
    let mut one = Oracle::new(heap(engine), 1);
    for meanwhile in [None, Some(another_one as fn()), Some(another_one as fn())] {
        assert!(one.alloc(layout_of_code(5 * MIB, 0)));
        engine.source().meanwhile.set(meanwhile);
        one.realloc(one.len() - 1, 7 * MIB);
        // SAFETY: this thread is alone.
        unsafe { heap_of_one.check_alone() }.unwrap_or_else(|finding| panic!("{finding}"));
        assert!([42 * MIB / 10, 2 * MIB, 300_000].iter().all(|size| one.alloc_zeroed(layout_of_code(*size, 0))));
        one.free(one.len() - 1);
    }
    assert!(engine.source().losses.get() >= 3);
    one.free_all();
    // SAFETY: as above.
    unsafe { heap_of_one.check_alone() }.unwrap_or_else(|finding| panic!("{finding}"));
    assert_eq!(heap_of_one.usable_size(layout), WINDOW);
}
