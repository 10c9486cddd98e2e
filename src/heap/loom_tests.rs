//! The heap as a whole under loom: its first use by two threads, and a fork beside a busy thread.

use super::{Class, Engine};
use crate::config::Config;
use crate::models::{Memory, Modelled, holds_and_breaks_with, holds_and_twin_fails};
use crate::sync::Relaxed;
use crate::twin::Twin;
use loom::sync::Arc;

type Heap = Engine<Memory, Modelled<true>>;

const IDLE_BYTES: usize = 5 << 20;

/// A heap, made on a stack of its own: it is larger than that of a model's thread.
fn heap() -> Arc<Heap> {
    stacker::grow(1 << 20, || Arc::new(Engine::new(Memory::new(64 * 4096))))
}

/// Two threads use a heap at once that nobody has opened: both find it whole.
fn first_use() {
    let heap = heap();
    let begin = |heap: &Heap| {
        assert!(heap.open(&Config::new().idle_bytes(IDLE_BYTES)));
        assert_eq!(heap.settings.idle_bytes.load(Relaxed), IDLE_BYTES);
        assert!(Class::all().all(|class| heap.target(class) > 0));
        assert_eq!(heap.map.page_shift(), 12);
    };
    let other = loom::thread::spawn({
        let heap = Arc::clone(&heap);
        move || begin(&heap)
    });
    begin(&heap);
    other.join().expect("the other ends well");
}

/// A fork beside a thread that changes two layers, one after the other: the child finds each whole, and nobody waits for
/// ever.
fn fork_beside(hold: fn(&Heap), let_go: fn(&Heap)) {
    let heap = heap();
    let other = loom::thread::spawn({
        let heap = Arc::clone(&heap);
        move || {
            heap.registry.with(|registry| registry.joined += 1);
            heap.runs.with(|runs| (runs.allocs, runs.frees) = (runs.allocs + 1, runs.frees + 1));
        }
    });
    hold(&heap);
    let joined = heap.registry.peek(|registry| registry.joined);
    let counts = heap.runs.peek(|runs| (runs.allocs, runs.frees));
    assert!(joined <= 1 && [(0, 0), (1, 1)].contains(&counts));
    let_go(&heap);
    other.join().expect("the other ends well");
}

#[test]
fn heap_first_use_by_two_threads() {
    holds_and_breaks_with("heap_first_use_by_two_threads", first_use, Twin::Open);
}

#[test]
fn heap_fork_beside_a_busy_thread() {
    // SAFETY: this thread has taken the locks.
    let let_go = |heap: &Heap| unsafe { heap.after_fork() };
    let sound = move || fork_beside(Heap::before_fork, let_go);
    holds_and_twin_fails("heap_fork_beside_a_busy_thread", sound, || fork_beside(|_| (), |_| ()));
}
