//! What the rows share: heaps as objects, a source that fails, and memory that no heap knows of.

#![allow(clippy::disallowed_methods, reason = "tests map memory beside the heap under test")]

use std::alloc::Layout;
use std::cell::Cell;
use std::ptr::NonNull;
use stratalloc::Config;
use stratalloc::heap::{Attached, Blocks, Cache, Engine};
use stratalloc::lock::Spin;
use stratalloc::os::{Fixed, Mmap, Relocation, Source, Span};

/// A heap over the process's own memory.
pub(crate) type Roomy = Engine<Mmap, Spin>;

/// Opens an engine with default settings.
pub(crate) fn open<S: Source>(engine: &Engine<S, Spin>) {
    assert!(engine.open(&Config::new()), "there is memory for the heap's records");
}

/// Runs `section` with a heap over the process's own memory and a cache of it.
pub(crate) fn with_roomy(section: impl FnOnce(&Roomy, &Cache)) {
    let engine = Roomy::new(Mmap::new());
    open(&engine);
    with_cache(&engine, |cache| section(&engine, cache));
}

/// Runs `section` with a fresh cache of the engine.
pub(crate) fn with_cache<S: Source>(engine: &Engine<S, Spin>, section: impl FnOnce(&Cache)) {
    let cache = Box::new(Cache::new());
    // SAFETY: the cache is fresh and boxed, and this thread's alone.
    unsafe { engine.attach(&cache) };
    section(&cache);
    // SAFETY: attached above, and `section` is over.
    unsafe { engine.detach(&cache) };
}

/// The heap through its cache.
pub(crate) fn through<'a, S: Source>(engine: &'a Engine<S, Spin>, cache: &'a Cache) -> Attached<'a, S, Spin> {
    // SAFETY: the tests attach every cache and use it in one thread at a time.
    unsafe { engine.through(cache) }
}

/// A layout that is one.
pub(crate) fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("a valid layout")
}

/// A block that must be there.
pub(crate) fn block(heap: &impl Blocks, layout: Layout) -> *mut u8 {
    // SAFETY: any layout may be asked for.
    let at = unsafe { heap.alloc(layout) };
    assert!(!at.is_null(), "no memory for {layout:?}");
    assert_eq!(at.align_offset(layout.align()), 0, "{layout:?}");
    at
}

/// Frees a block.
pub(crate) fn free(heap: &impl Blocks, at: *mut u8, layout: Layout) {
    // SAFETY: the tests free what they allocated, once, with its layout.
    unsafe { heap.dealloc(at, layout) };
}

/// Memory from the system that no heap under test knows of, zeroed.
pub(crate) fn system_memory(bytes: usize) -> NonNull<u8> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a fresh mapping touches nothing that exists.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    NonNull::new(at.cast()).expect("a mapping is nowhere near null")
}

/// A heap on a buffer of that many bytes, in pages of 4 KiB.
pub(crate) fn small(bytes: usize) -> Engine<Fixed, Spin> {
    // SAFETY: the buffer is fresh, zero and nobody else's; it stays mapped.
    let engine = Engine::new(unsafe { Fixed::new(system_memory(bytes), bytes, 4096) });
    open(&engine);
    engine
}

/// The process's own memory, but call number `fails_at` fails, and the following up to `burst` in all.
pub(crate) struct Failing {
    inner: Mmap,
    calls: Cell<u64>,
    fails_at: u64,
    burst: u64,
}

// SAFETY: each test uses its source in one thread.
unsafe impl Sync for Failing {}

impl Failing {
    pub(crate) fn new(fails_at: u64, burst: u64) -> Self {
        Self { inner: Mmap::new(), calls: Cell::new(0), fails_at, burst }
    }

    /// How often the source was called.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.get()
    }

    fn fails(&self) -> bool {
        self.calls.set(self.calls.get() + 1);
        (self.fails_at..self.fails_at + self.burst).contains(&self.calls.get())
    }
}

// SAFETY: `Mmap`'s promises, and to fail is allowed.
unsafe impl Source for Failing {
    fn page_size(&self) -> usize {
        self.inner.page_size()
    }

    fn window(&self) -> Option<Span> {
        if self.fails() { None } else { self.inner.window() }
    }

    fn grow(&self, min: usize, mapped: usize) -> Option<Span> {
        if self.fails() { None } else { self.inner.grow(min, mapped.min(1 << 20)) }
    }

    fn records(&self, bytes: usize) -> Option<NonNull<u8>> {
        if self.fails() { None } else { self.inner.records(bytes) }
    }

    unsafe fn purge(&self, range: Span) -> bool {
        // SAFETY: handed on.
        !self.fails() && unsafe { self.inner.purge(range) }
    }

    unsafe fn relocate(&self, from: Span, to: usize) -> Relocation {
        // SAFETY: handed on.
        if self.fails() { Relocation::Refused } else { unsafe { self.inner.relocate(from, to) } }
    }
}

/// Pages of this process that are resident.
pub(crate) fn resident_pages(process: u32) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{process}/statm")).expect("the process is there");
    text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("statm has a second number")
}
