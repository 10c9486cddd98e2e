//! The shadow oracle: what a heap must be, kept beside it and compared at every step.
//!
//! An [`Oracle`] drives a heap through [`Blocks`] and knows of every live block where it is, what was asked for, and what
//! was written into it. A heap that hands out overlapping, misaligned or dirty memory, or that loses contents, is caught
//! at the call or when the block is freed. [`Player`] plays [`Op`]s on an [`Engine`] through a cache of its own. Property
//! tests and fuzz targets share this file.

#![allow(dead_code, unreachable_pub, reason = "each user of the oracle takes what it needs")]

use std::alloc::Layout;
use std::collections::BTreeMap;
use std::fmt::{self, Debug, Formatter};
use std::sync::{Mutex, PoisonError};
use stratalloc::heap::{Attached, Blocks, Cache, Engine};
use stratalloc::lock::RawLock;
use stratalloc::os::Source;
use stratalloc::{Config, Finding};

/// One step of a test. An index is taken modulo the number of live blocks.
#[derive(Clone, Copy)]
pub enum Op {
    Alloc(Layout),
    AllocZeroed(Layout),
    Free(usize),
    Realloc(usize, usize),
    /// Lays a live block into the pool that all players share.
    Hand(usize),
    /// Takes a block out of the pool, and owns it from then on.
    Take,
    Park,
    Collect,
}

/// So many times the same operation.
#[derive(Clone, Copy)]
pub struct Burst {
    pub times: usize,
    pub op: Op,
}

// On one line each, for a failing script to be read.

impl Debug for Op {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alloc(layout) => write!(f, "alloc {} at {}", layout.size(), layout.align()),
            Self::AllocZeroed(layout) => write!(f, "alloc zeroed {} at {}", layout.size(), layout.align()),
            Self::Free(index) => write!(f, "free #{index}"),
            Self::Realloc(index, size) => write!(f, "realloc #{index} to {size}"),
            Self::Hand(index) => write!(f, "hand #{index} over"),
            Self::Take => write!(f, "take one"),
            Self::Park => write!(f, "park"),
            Self::Collect => write!(f, "collect"),
        }
    }
}

/// Bytes that a burst touches, about: what is larger only takes time.
const BURST_BYTES: usize = 8 << 20;

impl Burst {
    /// `op` up to `times` times, less often if it is about large blocks.
    pub fn new(times: usize, op: Op) -> Self {
        let size = match op {
            Op::Alloc(layout) | Op::AllocZeroed(layout) => layout.size(),
            Op::Realloc(_, size) => size,
            _ => 0,
        };
        Self { times: times.min(BURST_BYTES / size.max(1)), op }
    }
}

impl Debug for Burst {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {:?}", self.times, self.op)
    }
}

/// Doublings in the sizes of [`size_of_code`]: up to 4 MiB.
pub const SIZE_LOGS: u8 = 22;
/// Alignments of [`layout_of_code`]: up to 2 MiB.
pub const ALIGN_LOGS: u8 = 22;

/// A size on or beside the edge of a class or page: doubling `log`, `part` of 256 of the way to the next one, and one
/// less or more by `nudge`.
pub fn size_of_code(log: u8, part: u8, nudge: u8) -> usize {
    let base = 1usize << (log % SIZE_LOGS);
    (base + ((base * usize::from(part)) >> 8) + usize::from(nudge % 3)).saturating_sub(1)
}

/// The layout of `size` bytes at the alignment `1 << align_log`.
pub fn layout_of_code(size: usize, align_log: u8) -> Layout {
    Layout::from_size_align(size, 1 << (align_log % ALIGN_LOGS)).expect("a small size")
}

/// Blocks up to this size are filled and compared whole, larger ones at their ends and once a page.
const WHOLE: usize = 4096;
/// Bytes filled and compared at each place of a larger block.
const PROBE: usize = 64;
/// Steps between these places: every page of every target has one.
const STRIDE: usize = 4096;

/// The places of a block of `size` bytes that are filled and compared.
fn probes(size: usize) -> impl Iterator<Item = (usize, usize)> {
    let step = if size <= WHOLE { WHOLE } else { STRIDE };
    let len = if size <= WHOLE { size } else { PROBE };
    let tail = size.saturating_sub(PROBE);
    (0..tail.max(1)).step_by(step).map(move |at| (at, (at + len).min(size))).chain([(tail, size)])
}

/// The byte at `offset` of a block that was filled with `stamp`.
fn byte(stamp: u64, offset: usize) -> u8 {
    ((stamp.wrapping_add(offset as u64)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// A live block.
#[derive(Debug)]
pub struct Live {
    address: usize,
    layout: Layout,
    stamp: u64,
}

// The oracle alone touches a live block's bytes, and one player owns it at a time.
impl Live {
    fn pointer(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.address)
    }

    fn end(&self) -> usize {
        self.address + self.layout.size().max(1)
    }

    /// The bytes of the block.
    fn bytes(&self) -> &[u8] {
        // SAFETY: the block is live, ours alone, and has that many bytes.
        unsafe { std::slice::from_raw_parts(self.pointer(), self.layout.size()) }
    }

    fn fill(&mut self) {
        // SAFETY: the block is live, ours alone, and has that many bytes.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.pointer(), self.layout.size()) };
        for (from, to) in probes(bytes.len()) {
            (from..to).for_each(|at| bytes[at] = byte(self.stamp, at));
        }
    }

    /// Asserts that the first `len` bytes of `bytes` are those that the block was filled with.
    fn compare(&self, bytes: &[u8], len: usize) {
        for (from, to) in probes(self.layout.size()) {
            let changed = (from..to.min(len)).find(|&at| bytes[at] != byte(self.stamp, at));
            assert_eq!(changed, None, "the block {self:x?} has changed at this offset");
        }
    }

    fn check(&self) {
        self.compare(self.bytes(), self.layout.size());
    }

    fn check_zero(&self) {
        const ZERO: [u8; 4096] = [0; 4096];
        let mut chunks = self.bytes().chunks(ZERO.len());
        assert!(chunks.all(|chunk| *chunk == ZERO[..chunk.len()]), "not zero: {self:x?}");
    }
}

/// A heap, and what is live in it.
#[derive(Debug)]
pub struct Oracle<B> {
    heap: B,
    /// The end of each live block, by its address.
    ranges: BTreeMap<usize, usize>,
    /// The live blocks, in no order.
    live: Vec<Live>,
    stamps: u64,
    /// Requests that ended in null.
    pub refused: usize,
}

impl<B: Blocks> Oracle<B> {
    /// An oracle over `heap`; `seed` tells its contents from those of other oracles.
    pub fn new(heap: B, seed: u64) -> Self {
        Self { heap, ranges: BTreeMap::new(), live: Vec::new(), stamps: seed << 32, refused: 0 }
    }

    /// Allocates; false if the heap refused.
    pub fn alloc(&mut self, layout: Layout) -> bool {
        // SAFETY: any layout may be asked for.
        let at = unsafe { self.heap.alloc(layout) };
        self.enter(at, layout, Live::fill)
    }

    /// Allocates zeroed memory and looks whether it is; false if the heap refused.
    pub fn alloc_zeroed(&mut self, layout: Layout) -> bool {
        // SAFETY: any layout may be asked for.
        let at = unsafe { self.heap.alloc_zeroed(layout) };
        self.enter(at, layout, |live| {
            live.check_zero();
            live.fill();
        })
    }

    /// Frees a block, if there is one.
    pub fn free(&mut self, index: usize) {
        if let Some(live) = self.take(index) {
            self.release(live);
        }
    }

    fn release(&self, live: Live) {
        live.check();
        // SAFETY: the block is live and from this heap for the layout; nobody uses it any more.
        unsafe { self.heap.dealloc(live.pointer(), live.layout) };
    }

    /// Changes the size of a block, if there is one.
    pub fn realloc(&mut self, index: usize, size: usize) {
        let Some(old) = self.take(index) else { return };
        let layout = Layout::from_size_align(size.max(1), old.layout.align()).expect("a small size");
        // SAFETY: the block is live and from this heap for the layout; the new size is valid, as the line above says.
        let at = unsafe { self.heap.realloc(old.pointer(), old.layout, layout.size()) };
        if at.is_null() {
            self.refused += 1;
            old.check();
            return self.adopt(old);
        }
        self.enter(at, layout, |live| {
            old.compare(live.bytes(), old.layout.size().min(layout.size()));
            live.fill();
        });
    }

    /// Takes a live block out, to be adopted by another oracle.
    pub fn take(&mut self, index: usize) -> Option<Live> {
        let index = index.checked_rem(self.live.len())?;
        let live = self.live.swap_remove(index);
        self.ranges.remove(&live.address);
        Some(live)
    }

    /// The size of a live block, if there is one.
    pub fn size(&self, index: usize) -> Option<usize> {
        Some(self.live[index.checked_rem(self.live.len())?].layout.size())
    }

    /// Owns `live` from now on.
    pub fn adopt(&mut self, live: Live) {
        self.claim(&live);
        self.live.push(live);
    }

    /// Asserts that `live` is apart from all others, and notes where it is.
    fn claim(&mut self, live: &Live) {
        let below = self.ranges.range(..live.end()).next_back();
        assert!(below.is_none_or(|(_, end)| *end <= live.address), "{live:x?} overlaps {below:x?}");
        self.ranges.insert(live.address, live.end());
    }

    /// Takes in what the heap returned for `layout`, once `look` has seen it; false if that is nothing.
    fn enter(&mut self, at: *mut u8, layout: Layout, look: impl FnOnce(&mut Live)) -> bool {
        if at.is_null() {
            self.refused += 1;
            return false;
        }
        self.stamps += 1;
        let mut live =
            Live { address: at.expose_provenance(), layout, stamp: self.stamps.wrapping_mul(0xd134_2543_de82_ef95) };
        assert!(live.address.is_multiple_of(layout.align()), "misaligned: {live:x?}");
        assert!(self.heap.usable_size(layout) >= layout.size(), "usable size below the size: {live:x?}");
        self.claim(&live);
        look(&mut live);
        self.live.push(live);
        true
    }

    /// Frees everything.
    pub fn free_all(&mut self) {
        while !self.live.is_empty() {
            self.free(self.live.len() - 1);
        }
    }

    /// Live blocks.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether nothing is live.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Bytes that the heap has granted to live blocks.
    pub fn granted(&self) -> usize {
        self.live.iter().map(|live| self.heap.usable_size(live.layout)).sum()
    }
}

/// Blocks on their way from one player to another.
#[derive(Debug, Default)]
pub struct Pool(Mutex<Vec<Live>>);

impl Pool {
    fn put(&self, live: Live) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(live);
    }

    fn pop(&self) -> Option<Live> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Bytes that `heap` has granted to the blocks here.
    fn granted(&self, heap: &impl Blocks) -> usize {
        let blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.iter().map(|live| heap.usable_size(live.layout)).sum()
    }
}

/// One thread that plays [`Op`]s on an engine.
#[derive(Debug)]
pub struct Player<'a, S, L> {
    pub oracle: Oracle<Attached<'a, S, L>>,
    engine: &'a Engine<S, L>,
    cache: &'a Cache,
    pool: &'a Pool,
}

impl<S: Source, L: RawLock> Player<'_, S, L> {
    pub fn play(&mut self, op: Op) {
        match op {
            Op::Alloc(layout) => _ = self.oracle.alloc(layout),
            Op::AllocZeroed(layout) => _ = self.oracle.alloc_zeroed(layout),
            Op::Free(index) => self.oracle.free(index),
            Op::Realloc(index, size) => self.oracle.realloc(index, size),
            Op::Hand(index) => self.oracle.take(index).into_iter().for_each(|live| self.pool.put(live)),
            Op::Take => self.pool.pop().into_iter().for_each(|live| self.oracle.adopt(live)),
            Op::Park => self.heap().park(),
            Op::Collect => self.heap().collect(),
        }
    }

    pub fn heap(&self) -> Attached<'_, S, L> {
        // SAFETY: the cache is attached, and this thread's.
        unsafe { self.engine.through(self.cache) }
    }

    pub fn play_burst(&mut self, burst: Burst) {
        (0..burst.times).for_each(|_| self.play(burst.op));
    }

    /// Takes all blocks out of the pool and frees all that is live.
    pub fn finish(&mut self) {
        while let Some(live) = self.pool.pop() {
            self.oracle.adopt(live);
        }
        self.oracle.free_all();
    }

    /// The figures of the engine, this thread's cache included.
    pub fn stats(&self) -> stratalloc::Stats {
        self.engine.stats(Some(self.cache))
    }

    /// Audits the heap: only for a player who is alone.
    pub fn check(&self) -> Result<(), Finding> {
        match self.engine.source().has_purger() {
            true => self.heap().check(),
            // SAFETY: the player is alone, and no purger comes.
            false => unsafe { self.heap().check_alone() },
        }
    }

    /// Asserts that the heap's layers agree with each other, and its books with what the oracle knows: only for a player who
    /// is alone.
    pub fn audit(&self) {
        self.check().unwrap_or_else(|finding| panic!("{finding}"));
        let stats = self.stats();
        let granted = self.oracle.granted() + self.pool.granted(&self.oracle.heap);
        assert_eq!(stats.allocated, granted, "bytes in live blocks");
        assert!(stats.allocated <= stats.active && stats.active <= stats.mapped, "{stats}");
        assert!(stats.retained <= stats.resident && stats.resident <= stats.mapped, "{stats}");
    }
}

/// Runs `play` with a player of its own on `engine`, which is open. What it leaves live is freed.
pub fn with_player<S: Source, L: RawLock, R>(
    engine: &Engine<S, L>,
    pool: &Pool,
    seed: u64,
    play: impl FnOnce(&mut Player<'_, S, L>) -> R,
) -> R {
    let cache = Cache::new();
    // SAFETY: the cache is fresh, stays here until it is detached, and is this thread's.
    unsafe { engine.attach(&cache) };
    // SAFETY: attached above.
    let heap = unsafe { engine.through(&cache) };
    let mut player = Player { oracle: Oracle::new(heap, seed), engine, cache: &cache, pool };
    let result = play(&mut player);
    player.oracle.free_all();
    // SAFETY: attached above, and no longer in use.
    unsafe { engine.detach(&cache) };
    result
}

/// Asserts that nothing is left in a heap whose players have gone: no page in use but the records', none resident.
pub fn assert_empty<S: Source, L: RawLock>(engine: &Engine<S, L>) {
    engine.collect();
    let stats = engine.stats(None);
    assert_eq!((stats.allocated, stats.active, stats.retained), (0, 0, 0), "{stats}");
    assert!(stats.classes.iter().all(|class| class.allocs == class.frees && class.slabs == 0), "{stats}");
    assert!(stats.runs.list_allocs + stats.runs.allocs >= stats.runs.frees, "{stats}");
}

/// The engine of `source`, opened with `config`; `None` if the source is too small for its records.
pub fn open<S: Source, L: RawLock>(source: S, config: &Config) -> Option<Engine<S, L>> {
    let engine = Engine::new(source);
    engine.open(config).then_some(engine)
}
