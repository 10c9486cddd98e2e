//! The books against the memory: a source that knows of every page whether it is resident, as a kernel with huge pages
//! would have it, and random work over it. What the heap says is resident must never be less than what is.
//!
//! The memory is the process's own, in small pages, so the kernel tells which of them were touched. What a huge page would
//! have made of that is worked out beside it, and at its worst: as soon as one page of a granule that huge pages were
//! asked for is resident, all of it is.

#![allow(clippy::disallowed_methods, reason = "tests map memory beside the heap under test")]

use super::random::Random;
use super::support::{layout, through, with_cache};
use std::alloc::Layout;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ptr::NonNull;
use stratalloc::heap::{Attached, Blocks, Engine};
use stratalloc::lock::Spin;
use stratalloc::os::{Relocation, Source, Span};
use stratalloc::{Config, HugePages};

const PAGE: usize = 4096;
const WINDOW: usize = 64 << 20;
const PAGES: usize = WINDOW / PAGE;

/// What is known of the pages of the window.
struct Known {
    resident: Vec<bool>,
    /// By granule.
    huge: Vec<bool>,
    given: Vec<bool>,
}

/// A source over a window of 64 MiB.
struct Modelled {
    at: usize,
    /// Pages of a granule; 0 for none.
    grain: usize,
    /// Pages of what can be moved; 0 for nothing.
    movable: usize,
    /// Every so many-th purge is refused; 0 for none.
    refuses: u64,
    /// Whether there is a purger, and whether it is at work.
    has_purger: bool,
    at_work: Cell<bool>,
    purges: Cell<u64>,
    moves: Cell<u64>,
    used: Cell<usize>,
    spans: Cell<usize>,
    known: RefCell<Known>,
}

// SAFETY: each test uses its source in one thread.
unsafe impl Sync for Modelled {}

/// A fresh mapping.
fn mapping(bytes: usize) -> Option<NonNull<u8>> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh mapping touches nothing that exists.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, flags, -1, 0) };
    if at == libc::MAP_FAILED { None } else { NonNull::new(at.cast()) }
}

impl Modelled {
    fn new(grain: usize, movable: usize) -> Self {
        let align = grain.max(movable).max(1) * PAGE;
        let at = mapping(WINDOW + align).expect("a window").as_ptr() as usize;
        let at = at.next_multiple_of(align);
        // SAFETY: the mapping is ours; a kernel without huge pages refuses, which is as well.
        let _ = unsafe { libc::madvise(at as *mut libc::c_void, WINDOW, libc::MADV_NOHUGEPAGE) };
        let known =
            Known { resident: vec![false; PAGES], huge: vec![false; PAGES / grain.max(1)], given: vec![false; PAGES] };
        Self {
            at,
            grain,
            movable,
            refuses: 0,
            has_purger: false,
            at_work: Cell::new(false),
            purges: Cell::new(0),
            moves: Cell::new(0),
            used: Cell::new(PAGE),
            spans: Cell::new(0),
            known: RefCell::new(known),
        }
    }

    /// It refuses every so many-th purge.
    fn refusing(mut self, refuses: u64) -> Self {
        self.refuses = refuses;
        self
    }

    /// It has a purger, who looks when the work lets it.
    fn with_purger(mut self) -> Self {
        self.has_purger = true;
        self
    }

    fn range(&self, span: Span) -> std::ops::Range<usize> {
        assert!(span.at.is_multiple_of(PAGE) && span.bytes.is_multiple_of(PAGE), "{span:x?}");
        let first = (span.at - self.at) / PAGE;
        first..first + span.bytes / PAGE
    }

    /// Learns which pages were touched.
    fn look(&self) {
        let mut known = self.known.borrow_mut();
        let used = self.used.get() / PAGE;
        let mut touched = vec![0u8; used];
        // SAFETY: the range is mapped, and the vector has a byte for each of its pages.
        assert_eq!(unsafe { libc::mincore(self.at as *mut libc::c_void, used * PAGE, touched.as_mut_ptr()) }, 0);
        for (resident, touched) in known.resident.iter_mut().zip(&touched) {
            *resident |= touched & 1 == 1;
        }
        for granule in 0..PAGES / self.grain.max(1) {
            let pages = granule * self.grain..(granule + 1) * self.grain;
            if known.huge[granule] && known.resident[pages.clone()].contains(&true) {
                known.resident[pages].fill(true);
            }
        }
    }

    /// Resident bytes of the spans that were given.
    fn resident(&self) -> usize {
        self.look();
        let known = self.known.borrow();
        known.resident.iter().zip(&known.given).filter(|(resident, given)| **resident && **given).count() * PAGE
    }

    fn drop_pages(&self, span: Span) {
        // SAFETY: the pages are the window's, and nobody uses them.
        let done = unsafe { libc::madvise(span.at as *mut libc::c_void, span.bytes, libc::MADV_DONTNEED) };
        assert_eq!(done, 0);
        self.known.borrow_mut().resident[self.range(span)].fill(false);
    }
}

impl Drop for Modelled {
    fn drop(&mut self) {
        // SAFETY: the window is ours, and the heap over it is gone.
        let _ = unsafe { libc::munmap(self.at as *mut libc::c_void, WINDOW) };
    }
}

// SAFETY: spans are cut off the window one behind the other, whose first page is none's; the memory is fresh, and what is
// dropped reads zero.
unsafe impl Source for Modelled {
    fn page_size(&self) -> usize {
        PAGE
    }

    fn window(&self) -> Option<Span> {
        Some(Span { at: self.at, bytes: WINDOW })
    }

    fn grow(&self, min: usize, _: usize) -> Option<Span> {
        self.look();
        // Spans that begin and end anywhere, some of them apart.
        let spans = self.spans.replace(self.spans.get() + 1);
        let at = self.used.get() + spans % 3 / 2 * PAGE * 5;
        let bytes = min.max((50 + spans % 7) * PAGE).next_multiple_of(PAGE);
        if at + bytes > WINDOW {
            return None;
        }
        self.used.set(at + bytes);
        let span = Span { at: self.at + at, bytes };
        self.known.borrow_mut().given[self.range(span)].fill(true);
        Some(span)
    }

    fn huge_bytes(&self) -> usize {
        self.grain * PAGE
    }

    fn advise_huge(&self, range: Span, huge: bool) {
        self.look();
        let pages = self.range(range);
        assert!((pages.start | pages.end).is_multiple_of(self.grain), "{range:x?} is not whole granules");
        let mut known = self.known.borrow_mut();
        assert!(!known.given[pages.clone()].contains(&false), "{range:x?} was never given");
        known.huge[pages.start / self.grain..pages.end / self.grain].fill(huge);
    }

    fn records(&self, bytes: usize) -> Option<NonNull<u8>> {
        mapping(bytes)
    }

    unsafe fn purge(&self, range: Span) -> bool {
        self.look();
        self.purges.set(self.purges.get() + 1);
        if self.refuses > 0 && self.purges.get().is_multiple_of(self.refuses) {
            return false;
        }
        self.drop_pages(range);
        true
    }

    fn summon_purger(&self) -> bool {
        self.at_work.set(self.has_purger);
        self.has_purger
    }

    fn is_purger_at_work(&self) -> bool {
        self.at_work.get()
    }

    fn has_purger(&self) -> bool {
        self.has_purger
    }

    fn relocation_grain(&self) -> usize {
        self.movable * PAGE
    }

    unsafe fn relocate(&self, from: Span, to: usize) -> Relocation {
        self.moves.set(self.moves.get() + 1);
        if self.moves.get().is_multiple_of(3) {
            return Relocation::Refused;
        }
        self.look();
        let target = Span { at: to, bytes: from.bytes };
        self.drop_pages(target);
        let (old, new) = (self.range(from), self.range(target));
        let moves: Vec<bool> = self.known.borrow().resident[old.clone()].to_vec();
        for (page, _) in moves.iter().enumerate().filter(|(_, resident)| **resident) {
            let (source, target) = ((from.at + page * PAGE) as *const u8, (to + page * PAGE) as *mut u8);
            // SAFETY: both pages are the window's and apart.
            unsafe { target.copy_from_nonoverlapping(source, PAGE) };
        }
        self.drop_pages(from);
        let mut known = self.known.borrow_mut();
        known.resident[new.clone()].copy_from_slice(&moves);
        let granule = |page: usize| page / self.grain.max(1);
        let huge = known.huge[granule(old.start)..granule(old.end)].to_vec();
        known.huge[granule(new.start)..granule(new.end)].copy_from_slice(&huge);
        Relocation::Moved
    }
}

type Heap = Engine<Modelled, Spin>;

/// Random work on a heap, whose books are compared after each step.
struct Work<'a> {
    engine: &'a Heap,
    heap: Attached<'a, Modelled, Spin>,
    random: Random,
    live: Vec<(usize, Layout)>,
}

impl Work<'_> {
    fn any_layout(&mut self) -> Layout {
        let size = match self.random.below(10) {
            0..4 => 16 << self.random.below(8),
            4..8 => PAGE * (1 + self.random.below(40)) - self.random.below(PAGE),
            8 => PAGE * (1 + self.random.below(16)),
            _ => PAGE * (40 + self.random.below(300)),
        };
        let align = if self.random.below(8) == 0 { 1 << (12 + self.random.below(7)) } else { 8 };
        layout(size, align)
    }

    /// Allocates, and writes all of it, or a part, or nothing.
    fn allocate(&mut self, layout: Layout, zeroed: bool) {
        let at = if zeroed {
            // SAFETY: any layout may be asked for.
            unsafe { self.heap.alloc_zeroed(layout) }
        } else {
            // SAFETY: as above.
            unsafe { self.heap.alloc(layout) }
        };
        if at.is_null() {
            return;
        }
        let (size, part) = (layout.size(), self.random.below(3));
        let (begin, end) = match part {
            0 => (0, size),
            1 => (self.random.below(size), size),
            _ => (0, 0),
        };
        for page in (begin..end).step_by(PAGE) {
            // SAFETY: inside the block, and ours.
            unsafe { at.wrapping_add(page).write(1) };
        }
        self.live.push((at as usize, layout));
    }

    fn free(&mut self, index: usize) {
        let (at, layout) = self.live.swap_remove(index);
        // SAFETY: allocated for the layout, and freed once.
        unsafe { self.heap.dealloc(at as *mut u8, layout) };
    }

    fn free_some(&mut self, times: usize, in_order: bool) {
        for _ in 0..times.min(self.live.len()) {
            let index = if in_order { self.live.len() - 1 } else { self.random.below(self.live.len()) };
            self.free(index);
        }
    }

    fn resize(&mut self) {
        if self.live.is_empty() {
            return;
        }
        let index = self.random.below(self.live.len());
        let (at, old) = self.live[index];
        let size = (old.size() * (1 + self.random.below(40)) / 16).clamp(1, 4 << 20);
        // SAFETY: the block is live and of that layout; the size is small.
        let moved = unsafe { self.heap.realloc(at as *mut u8, old, size) };
        if !moved.is_null() {
            self.live[index] = (moved as usize, layout(size, old.align()));
        }
    }

    fn step(&mut self) {
        let times = 1 + if self.random.below(3) == 0 { self.random.below(300) } else { 0 };
        match self.random.below(20) {
            0..7 => {
                let layout = self.any_layout();
                let times = times.min((2 << 20) / layout.size() + 1);
                (0..times).for_each(|_| self.allocate(layout, false));
            }
            7..9 => {
                let layout = self.any_layout();
                self.allocate(layout, true);
            }
            9..12 => self.resize(),
            12..15 => self.free_some(times, true),
            15..18 => self.free_some(times, false),
            18 if self.engine.source().has_purger => _ = self.purger_looks(),
            18 => self.heap.park(),
            _ => self.collect(),
        }
    }

    /// The purger's look, if it is at work.
    fn purger_looks(&self) -> bool {
        let source = self.engine.source();
        let goes_on = source.at_work.get() && self.engine.purge_unused();
        source.at_work.set(goes_on);
        goes_on
    }

    /// After `collect` nothing is resident but what lies in pages with live bytes, and the records.
    fn collect(&mut self) {
        self.heap.collect();
        let resident = self.engine.source().resident();
        if self.engine.source().refuses == 0 {
            let pages = |(at, layout): &(usize, Layout)| at / PAGE..=(at + layout.size() - 1) / PAGE;
            let held: BTreeSet<usize> = self.live.iter().flat_map(pages).collect();
            let allowed = held.len() * PAGE + self.engine.stats(None).records;
            assert!(resident <= allowed, "{resident} bytes resident after collect, {allowed} allowed");
            assert_eq!(self.engine.stats(None).retained, 0);
        }
    }

    /// The heap's books never say less than what is, and nobody retains more than the bound, but a purger for a while.
    fn audit(&self, step: usize) {
        let (source, stats) = (self.engine.source(), self.engine.stats(None));
        let resident = source.resident();
        assert!(stats.resident >= resident, "step {step}: {resident} bytes are resident\n{stats}");
        assert!(stats.retained <= stats.resident && stats.resident <= stats.mapped, "step {step}: {stats}");
        if source.refuses == 0 && !source.at_work.get() {
            assert!(stats.retained <= IDLE.max(stats.active / 8), "step {step}: beyond the idle bound\n{stats}");
        }
    }
}

const IDLE: usize = 2 << 20;

/// Random work over `source`, the same for the same `seed`.
fn work(source: Modelled, seed: u64) {
    let engine = Heap::new(source);
    let config = Config::new().idle_bytes(IDLE).huge_pages(HugePages::Above((seed as usize % 3) << 20));
    assert!(engine.open(&config));
    with_cache(&engine, |cache| {
        let heap = through(&engine, cache);
        let mut work = Work { engine: &engine, heap, random: Random::new(seed), live: Vec::new() };
        for step in 0..150 {
            work.step();
            work.audit(step);
        }
        // Without a further call, two looks are enough, or three if the first was not the first of this need.
        let looks = (0..4).take_while(|_| work.purger_looks()).count();
        assert!(looks < 3, "the purger goes on");
        work.audit(200);
        work.free_some(usize::MAX, false);
        work.audit(300);
        work.collect();
        work.audit(301);
    });
}

#[test]
fn g14_books_without_huge_pages() {
    (1..10).for_each(|seed| work(Modelled::new(0, 0), seed));
}

#[test]
fn g14_books_with_small_granules() {
    (1..16).for_each(|seed| work(Modelled::new(32, 0), seed));
}

#[test]
fn g14_books_with_large_granules() {
    (1..16).for_each(|seed| work(Modelled::new(64, 0), seed));
}

#[test]
fn g14_books_where_blocks_move() {
    (1..10).for_each(|seed| work(Modelled::new(32, 32), seed));
    (1..10).for_each(|seed| work(Modelled::new(32, 64), seed));
}

#[test]
fn g14_books_where_the_system_refuses() {
    (1..10).for_each(|seed| work(Modelled::new(32, 64).refusing(1 + seed % 4), seed));
}

#[test]
fn g14_books_with_a_purger() {
    (1..10).for_each(|seed| work(Modelled::new(32, 0).with_purger(), seed));
    (1..10).for_each(|seed| work(Modelled::new(64, 64).with_purger(), seed));
}
