//! Damage planted in a heap, which the audit must find: each layer's tests plant in what they alone reach, by what is here.
//!
//! A plant is a swap: the first call damages, the second repairs. Planted words are set as the heap sets them, with their
//! copies, so it is rules that find them and no check of a word.

use super::batch::{Batch, Returns};
use super::map::{Entry, Map, Page};
use super::{Attached, Block, Blocks, Cache, Class, Engine};
use crate::config::Config;
use crate::finding::{Finding, Layer};
use crate::lock::Spin;
use crate::os::{Fixed, Mmap, Source};
use core::alloc::Layout;
use core::cell::Cell;
use core::mem::replace;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::Mutex;
use std::vec::Vec;

pub(super) const PAGE: usize = 4096;
const PAGES: usize = 1024;

/// Whether marks tell that a block was met before, and rosters which slabs there are.
pub(super) const MARKED: bool = cfg!(feature = "malloc-debug");

/// A heap, and the caches of two threads, both of which the test plays.
#[derive(Debug)]
pub(super) struct Planted<'a, S> {
    pub(super) engine: &'a Engine<S, Spin>,
    pub(super) caches: &'a [Cache; 2],
}

/// Runs `test` with a heap over a buffer, which is sound in the end.
pub(super) fn with_planted(test: impl FnOnce(&Planted<'_, Fixed>)) {
    let layout = Layout::from_size_align(PAGES * PAGE, PAGE).expect("a layout");
    // SAFETY: the size is not 0.
    let buffer = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).expect("memory");
    // SAFETY: zeroed, ours, and there until the heap has gone.
    with_planted_in(unsafe { Fixed::new(buffer, layout.size(), PAGE) }, test);
    // SAFETY: allocated above for the layout.
    unsafe { std::alloc::dealloc(buffer.as_ptr(), layout) };
}

/// As `with_planted`, for a heap over `source`, where no purger comes.
pub(super) fn with_planted_in<S: Source>(source: S, test: impl FnOnce(&Planted<'_, S>)) {
    let (engine, caches) = (Engine::<_, Spin>::new(source), [Cache::new(), Cache::new()]);
    assert!(engine.open(&Config::new()));
    // SAFETY: the caches are fresh, stay here until they are detached, and are this thread's.
    caches.iter().for_each(|cache| unsafe { engine.attach(cache) });
    let planted = Planted { engine: &engine, caches: &caches };
    test(&planted);
    planted.assert_sound();
    // SAFETY: attached above, and no longer in use.
    caches.iter().for_each(|cache| unsafe { engine.detach(cache) });
}

impl<S: Source> Planted<'_, S> {
    /// The heap as the first thread sees it.
    pub(super) fn heap(&self) -> Attached<'_, S, Spin> {
        through(self.engine, &self.caches[0])
    }

    /// A block of `size` bytes, by the first thread.
    pub(super) fn alloc(&self, size: usize) -> NonNull<u8> {
        alloc(&self.heap(), layout(size))
    }

    /// Frees blocks of `size` bytes, by the first thread.
    pub(super) fn free(&self, size: usize, blocks: &[NonNull<u8>]) {
        // SAFETY: blocks of `alloc`, each of which its test frees once.
        blocks.iter().for_each(|block| unsafe { self.heap().dealloc(block.as_ptr(), layout(size)) });
    }

    pub(super) fn assert_sound(&self) {
        self.assert_verdicts(None, None);
    }

    /// What the audit finds, as beside other threads and alone.
    fn assert_verdicts(&self, beside: Option<Finding>, alone: Option<Finding>) {
        assert_eq!(self.heap().check().err(), beside, "beside others");
        // SAFETY: this thread plays both, and no purger comes.
        assert_eq!(unsafe { self.heap().check_alone() }.err(), alone, "alone");
    }

    /// Plants, looks for `finding`, and repairs.
    pub(super) fn find(&self, finding: Finding, swap: impl FnMut()) {
        self.find_each(Some(finding), Some(finding), swap);
    }

    /// As `find`, where an audit beside others may see less than one alone.
    pub(super) fn find_each(&self, beside: Option<Finding>, alone: Option<Finding>, mut swap: impl FnMut()) {
        self.assert_sound();
        swap();
        self.assert_verdicts(beside, alone);
        swap();
        self.assert_sound();
    }
}

fn through<'a, S: Source>(engine: &'a Engine<S, Spin>, cache: &'a Cache) -> Attached<'a, S, Spin> {
    // SAFETY: whoever asks has attached the cache, which is its own.
    unsafe { engine.through(cache) }
}

pub(super) fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a small size")
}

pub(super) fn class(size: usize) -> Class {
    Class::of(layout(size)).expect("a block's size")
}

fn alloc(heap: &impl Blocks, layout: Layout) -> NonNull<u8> {
    // SAFETY: any layout may be asked for.
    NonNull::new(unsafe { heap.alloc(layout) }).expect("memory")
}

/// The free block at `at`, which the test has, or plants a link to.
pub(super) fn block(at: NonNull<u8>) -> Block {
    // SAFETY: a block of the heap, which no other thread uses.
    unsafe { Block::from_raw(at) }
}

/// The blocks linked from `head` on.
pub(super) fn linked(head: Option<Block>) -> Vec<Block> {
    core::iter::successors(head, |block| block.next()).collect()
}

/// Swaps what is in `cell` for `value`.
pub(super) fn swap_cell<T: Copy>(cell: &Cell<T>, value: T) -> impl FnMut() {
    let mut other = value;
    move || other = cell.replace(other)
}

/// Swaps what `block` links to for `next`.
pub(super) fn relink(block: Block, next: Option<Block>) -> impl FnMut() {
    let mut other = next;
    move || {
        let old = block.next();
        block.set_next(other);
        other = old;
    }
}

/// Swaps the entries of `pages` for those beside them.
pub(super) fn swap_entries<const N: usize>(map: &Map, pages: [(Page, Entry); N]) -> impl FnMut() {
    let mut others = pages;
    move || {
        for (page, other) in &mut others {
            let old = map.entry(*page);
            map.set(*page, *other);
            *other = old;
        }
    }
}

/// Swaps a free block of `size` bytes, the lowest of its slab's, into the slab and out of it, while it stays where it is: as a
/// second free does whose first one has gone all the way down.
pub(super) fn swap_into_slab<'a, S: Source>(
    planted: &'a Planted<'_, S>,
    size: usize,
    block: Block,
) -> impl FnMut() + 'a {
    let (engine, mut out) = (planted.engine, true);
    move || {
        if replace(&mut out, false) {
            let Entry::Slab(slab) = engine.map.look_up(block.address()) else { panic!("it lies in none") };
            let mut returns = Returns::new();
            returns.push(slab, slab.index_of(block.address()).expect("it is one of the slab's"));
            let whole = engine.with_slabs(class(size), |slabs| slabs.sort(&returns, 0));
            return assert_eq!(whole, None, "others are out");
        }
        let mut batch = Batch::new();
        engine.with_slabs(class(size), |slabs| slabs.fill(1, &mut batch));
        assert!(batch.addresses().eq([block.address()]), "it is the lowest");
    }
}

/// Blocks on their way from one thread to another.
type Handed = Mutex<Vec<(usize, Layout)>>;

/// Takes blocks and runs of all sizes, frees them, some of them in other threads, until told to stop.
fn work(heap: &impl Blocks, seed: usize, handed: &Handed, stop: &AtomicBool, rounds: &AtomicUsize) {
    let (mut kept, mut state) = (Vec::new(), seed);
    let free = |(block, layout): (usize, Layout)| {
        // SAFETY: allocated below, by whichever thread, and freed once.
        unsafe { heap.dealloc(core::ptr::with_exposed_provenance_mut(block), layout) };
    };
    while !stop.load(Relaxed) {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        // Blocks mostly, and runs up to 4 MiB.
        let log = if state >> 40 & 7 == 0 { 12 + (state >> 50) % 10 } else { 3 + (state >> 50) % 10 };
        let layout = layout((1 << log) + (state >> 20) % (1 << log));
        let block = alloc(heap, layout);
        // SAFETY: fresh, and at least 8 bytes.
        unsafe { block.write_bytes(0xa5, 1) };
        kept.push((block.as_ptr().expose_provenance(), layout));
        if kept.len() > 64 || state >> 33 & 1 == 0 {
            let block = kept.swap_remove((state >> 24) % kept.len());
            let mut handed = handed.lock().expect("no thread has failed");
            let next = if state >> 36 & 1 == 0 { handed.pop() } else { None };
            if handed.len() < 64 {
                handed.push(block)
            } else {
                kept.push(block)
            }
            drop(handed);
            next.into_iter().for_each(free);
        }
        if kept.len() > 128 {
            kept.drain(..).for_each(free);
        }
        rounds.fetch_add(1, Relaxed);
    }
    kept.into_iter().for_each(free);
}

/// Runs `test` beside three threads at work, and once they have begun.
fn beside_work(test: impl FnOnce(&Planted<'_, Mmap>)) {
    with_planted_in(Mmap::new(), |planted| {
        let (handed, stop, rounds) = (Handed::default(), AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let (engine, handed, stop, rounds) = (planted.engine, &handed, &stop, &rounds);
            for seed in 1..4 {
                scope.spawn(move || {
                    let cache = Cache::new();
                    // SAFETY: fresh, here until it is detached, and this thread's.
                    unsafe { engine.attach(&cache) };
                    work(&through(engine, &cache), seed, handed, stop, rounds);
                    // SAFETY: attached above, and no longer in use.
                    unsafe { engine.detach(&cache) };
                });
            }
            let stop_at_end = StopAtEnd(stop);
            while rounds.load(Relaxed) < 1000 {
                std::thread::yield_now();
            }
            test(planted);
            drop(stop_at_end);
        });
        for (block, layout) in handed.into_inner().expect("no thread has failed") {
            // SAFETY: handed over by a thread that has ended, and freed once.
            unsafe { planted.heap().dealloc(core::ptr::with_exposed_provenance_mut(block), layout) };
        }
    });
}

/// Tells threads to stop, also where the test fails that they run beside.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn d11_audits_beside_threads_at_work_find_nothing() {
    beside_work(|planted| {
        let held: Vec<_> = (0..100).map(|at| planted.alloc(8 + at * 100)).collect();
        for round in 0..60 {
            planted.heap().check().unwrap_or_else(|finding| panic!("round {round}: {finding}"));
        }
        (0..100).for_each(|at| planted.free(8 + at * 100, &held[at..=at]));
    });
}

/// Plants, looks for `finding` beside threads at work, and repairs; a few times, with audits of the sound heap between.
fn find_beside_work(planted: &Planted<'_, Mmap>, finding: Finding, mut swap: impl FnMut()) {
    for _ in 0..5 {
        planted.heap().check().expect("a sound heap");
        swap();
        assert_eq!(planted.heap().check(), Err(finding));
        swap();
    }
    planted.heap().check().expect("a repaired heap");
}

/// In each layer what no thread at work stumbles over.
#[test]
fn d11_damage_beside_threads_at_work_is_found() {
    beside_work(|planted| {
        let Planted { engine, caches } = planted;
        let (size, pages) = (48, 3 * PAGE);
        let (live, run) = (planted.alloc(size), planted.alloc(pages));
        let list = linked(caches[0].pop(class(size)));
        let last = list[list.len() - 1];
        assert!(caches[0].push(class(size), list[0]), "it goes back to its place");
        let broken = Layer::Cache.breaks("nothing is linked behind a list's last block", last.address());
        find_beside_work(planted, broken, relink(last, Some(block(live))));

        let depot = Layer::Depot.breaks("lists and pages are as many as the depot counts", 0);
        let mut more = 1;
        find_beside_work(planted, depot, || {
            engine.depots[class(size)].with(|depot| depot.count = depot.count.wrapping_add(more));
            more = more.wrapping_neg();
        });

        let runs = Layer::Runs.breaks("free and dirty pages are as many as the page map has", 0);
        let mut more = 1;
        find_beside_work(planted, runs, || {
            engine.runs.with(|runs| runs.free_pages = runs.free_pages.wrapping_add(more));
            more = more.wrapping_neg();
        });

        // In the middle of a run, where nobody looks who merges.
        let address = run.as_ptr() as usize;
        let map = Layer::Map.breaks("no page of a run in use is free", address);
        let middle = engine.map.page_of(address) + 1;
        find_beside_work(planted, map, swap_entries(&engine.map, [(middle, Entry::Free(1))]));

        if MARKED {
            let slabs = Layer::Slabs.breaks("blocks outside are as many as the slabs lack", 0);
            let mut more = 1;
            find_beside_work(planted, slabs, || {
                engine.slabs[class(size)].with(|slabs| slabs.blocks_out = slabs.blocks_out.wrapping_add(more));
                more = more.wrapping_neg();
            });
        }
        planted.free(size, &[live]);
        planted.free(pages, &[run]);
    });
}
