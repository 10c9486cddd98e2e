//! The engine: four layers over a [`Source`], without statics.
//!
//! An [`Engine`] is a heap; a [`Cache`] is one thread's part of it. [`Attached`] ties the two together as [`Blocks`],
//! what every user of a heap calls. The process heap (`global.rs`), heaps as objects, tests and fuzzers all drive this
//! code.
//!
//! This file holds the heap and sends each request on its way: blocks (`traffic.rs`: cache, depot, slabs) or pages
//! (`pages.rs`: run lists, runs, source; `long.rs`: what stands before the runs for long ones). `reclaim.rs` gives memory back, `account.rs` counts, `fork.rs` survives forks.

mod account;
mod audit;
mod batch;
mod bins;
mod cache;
mod class;
mod depot;
#[cfg(feature = "std")]
mod fork;
mod granule;
mod hand;
mod hot;
mod huge;
mod kept;
mod list;
mod listed;
mod long;
mod map;
#[cfg(all(feature = "shared", not(loom)))]
mod mend;
mod note;
mod pages;
#[cfg(all(feature = "std", not(loom)))]
mod purger;
mod reclaim;
mod reserve;
mod roster;
mod run;
mod side;
mod slab;
mod traffic;
#[cfg(all(feature = "shared", not(loom)))]
mod verify;
#[cfg(all(feature = "cli", not(loom)))]
pub(crate) mod view;

pub use cache::Cache;
pub(crate) use class::CLASSES;
pub use class::Class;
pub use hand::Hand;
pub use list::Block;
pub(crate) use list::List;
#[cfg(all(feature = "shared", not(loom)))]
pub(crate) use mend::{Member, Members};

use crate::config::{Config, Purge};
use crate::fatal::{Fatal, die};
use crate::lock::{Locked, Rank, RawLock};
use crate::os::{self, Source};
use crate::sync::{Acquire, AtomicU32, AtomicUsize, Relaxed, Release, array_of};
use crate::twin::{self, Twin};
use account::{Counts, Tally};
use cache::CacheRef;
use class::PerClass;
use core::alloc::Layout;
use core::ptr::NonNull;
use depot::Depot;
#[cfg(feature = "c-abi")]
pub(crate) use map::quick::Quick;
use map::{Entry, Map};
#[cfg(all(any(feature = "shared", feature = "symmetric"), not(loom)))]
pub(crate) use map::{LEAF_BYTES, LEAF_SPAN, WINDOW_PAGES, root_bytes};
use reserve::Reserve;
use run::Runs;
use slab::Slabs;
use traffic::Records;

/// Plays steps on the page runs alone, against their model, in granules of `grain` pages (none for 0); panics where the two
/// differ. For fuzzers.
#[cfg(fuzzing)]
pub fn play_on_runs(grain: u32, steps: impl Iterator<Item = [u8; 4]>) {
    let mut bench = run::model::Bench::new(grain);
    for step in steps {
        bench.play(run::model::Op::decode(step));
        bench.audit();
    }
}

/// What the models drive.
#[cfg(all(test, loom))]
pub(crate) mod model {
    pub(crate) use super::depot::Depot;
    pub(crate) use super::list::{List, block};
}

/// The front seam: a heap as its users call it. Wings decorate it (a guarded heap is `Blocks` over `Blocks`).
///
/// # Safety
/// - A block returned is as large and as aligned as asked for, disjoint from every other live block, and stays so until
///   it is freed; null says that there was no memory, and that nothing has changed.
pub unsafe trait Blocks {
    /// A block for `layout`, or null. Size 0 is served like size 1.
    ///
    /// # Safety
    /// - None beyond those of the implementor's construction.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8;

    /// A block for `layout` whose first `layout.size()` bytes are zero, or null.
    ///
    /// # Safety
    /// - As `alloc`.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8;

    /// Frees a block. O(1), but for every `target`-th call of a class.
    ///
    /// # Safety
    /// - `block` came from this heap for `layout` and is live.
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout);

    /// Changes the size of a block to `new_size` bytes, in place where possible. Null says that there was no memory and
    /// that the old block is as it was.
    ///
    /// # Safety
    /// - `block` came from this heap for `layout` and is live;
    /// - `new_size` is not 0 and, rounded up to the alignment, at most `isize::MAX`.
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8;

    /// Bytes that a block for `layout` really has; O(1).
    fn usable_size(&self, layout: Layout) -> usize;
}

/// A heap over the memory of `S`, with locks of kind `L`.
///
/// Its fields lie in this order: first what a small program hardly touches, then what is hardly written, then what each program
/// touches, the classes of large blocks last. So the pages of a small program's heap are few.
#[derive(Debug)]
#[repr(C)]
pub struct Engine<S, L> {
    reserves: [Locked<Reserve, L>; RESERVES],
    run_depots: [Locked<Depot, L>; listed::LENGTHS],
    depots: PerClass<Locked<Depot, L>>,
    settings: Settings,
    /// Blocks in a list of each class; written once, when the heap is opened.
    targets: PerClass<AtomicU32>,
    map: Map,
    source: S,
    /// Not opened, being opened, opened, or without memory for its records.
    phase: AtomicU32,
    /// How often the purger has looked.
    looks: AtomicU32,
    tally: Tally,
    registry: Locked<Registry, L>,
    records: Locked<Records, L>,
    runs: Locked<Runs, L>,
    slabs: PerClass<Locked<Slabs, L>>,
}

/// Reserves of long runs; threads share them by their number.
const RESERVES: usize = 16;

const CLOSED: u32 = 0;
const OPENING: u32 = 1;
const OPEN: u32 = 2;

/// The caches of a heap, and what the departed ones counted.
#[derive(Debug)]
#[repr(C)]
struct Registry {
    newest: Option<CacheRef>,
    caches: usize,
    /// Caches that there ever were.
    joined: usize,
    departed: Counts,
}

// SAFETY: the registry reads the atomics of other threads' caches, and moves their links under its lock.
unsafe impl Send for Registry {}

/// The configuration, as atomics that are written once, when the heap is opened.
#[derive(Debug)]
#[repr(C)]
struct Settings {
    idle_bytes: AtomicUsize,
    idle_share: AtomicUsize,
    list_bytes: AtomicUsize,
    huge_pages: AtomicUsize,
    huge_above: AtomicUsize,
    purge: AtomicUsize,
}

impl<S: Source, L: RawLock> Engine<S, L> {
    crate::sync::const_unless_loom! {
        /// A heap over `source` that has taken no memory yet; [`Engine::open`] comes first.
        #[must_use]
        pub fn new(source: S) -> Self {
            Self {
                phase: AtomicU32::new(CLOSED),
                settings: Settings {
                    idle_bytes: AtomicUsize::new(0),
                    idle_share: AtomicUsize::new(0),
                    list_bytes: AtomicUsize::new(0),
                    huge_pages: AtomicUsize::new(0),
                    huge_above: AtomicUsize::new(0),
                    purge: AtomicUsize::new(0),
                },
                targets: PerClass::new(array_of!(AtomicU32::new(0))),
                map: Map::new(),
                depots: PerClass::new(array_of!(Locked::new(Rank::Depot, Depot::EMPTY))),
                run_depots: array_of!(Locked::new(Rank::Depot, Depot::EMPTY)),
                slabs: PerClass::new(array_of!(Locked::new(Rank::Slabs, Slabs::EMPTY))),
                reserves: array_of!(Locked::new(Rank::Reserve, Reserve::EMPTY)),
                runs: Locked::new(Rank::Runs, Runs::EMPTY),
                records: Locked::new(Rank::Records, Records::EMPTY),
                registry: Locked::new(Rank::Registry, Registry { newest: None, caches: 0, joined: 0, departed: Counts::ZERO }),
                tally: Tally::new(),
                looks: AtomicU32::new(0),
                source,
            }
        }
    }

    /// Makes the heap ready with the settings of `config`, once; later calls only wait until it is. False if there is
    /// no memory for its first records; a later call tries again.
    pub fn open(&self, config: &Config) -> bool {
        self.open_and(config, || {})
    }

    /// As `open`; whoever makes it ready runs `last`, before anybody gets a block.
    pub(crate) fn open_and(&self, config: &Config, last: impl FnOnce()) -> bool {
        // Acquire: pairs with the Release below; the settings and the map are there.
        while self.phase.load(Acquire) != OPEN {
            if self.phase.compare_exchange(CLOSED, OPENING, Acquire, Relaxed).is_err() {
                os::yield_now();
                continue;
            }
            self.settings.store(config);
            Class::all().for_each(|class| self.targets[class].store(target_of(class, config), Relaxed));
            let page = self.source.page_size();
            if !page.is_power_of_two() || !(class::PAGE_MIN..=class::PAGE_MAX).contains(&page) {
                die(Fatal::PageSize);
            }
            let opened = self.map.open(&self.source);
            if opened {
                last();
            }
            // Release: publishes the settings and the map.
            let order = if twin::is(Twin::Open) { Relaxed } else { Release };
            self.phase.store(if opened { OPEN } else { CLOSED }, order);
            return opened;
        }
        true
    }

    /// Whether the heap was opened.
    pub fn is_open(&self) -> bool {
        self.phase.load(Acquire) == OPEN
    }

    /// Whether `config` is what the heap was opened with.
    #[cfg(feature = "std")]
    pub(crate) fn is_configured_as(&self, config: &Config) -> bool {
        self.settings.equals(config)
    }

    /// The calling thread's hand, in a heap that processes share.
    #[inline(always)]
    fn hand(&self) -> Option<&Hand> {
        self.source.hand()
    }

    /// The number of that.
    #[inline(always)]
    fn keeper(&self) -> u32 {
        self.hand().map_or(note::NOBODY, Hand::keeper)
    }

    /// The source.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// The source, for who owns the heap alone.
    #[cfg(feature = "allocator-api2")]
    pub(crate) fn source_mut(&mut self) -> &mut S {
        &mut self.source
    }

    /// Whether `address` lies in a slab or begins a run in use of this heap; O(1).
    pub fn owns(&self, address: usize) -> bool {
        self.is_open() && matches!(self.map.look_up(address), Entry::Slab(_) | Entry::Run(_) | Entry::RunEnd)
    }

    /// Bytes in a page.
    #[cfg(feature = "c-abi")]
    pub(crate) fn page_size(&self) -> usize {
        self.source.page_size()
    }

    /// Lets `quick` serve this heap; false if its memory is of another shape.
    ///
    /// # Safety
    /// - Called by the `last` of `open_and`.
    #[cfg(feature = "c-abi")]
    pub(crate) unsafe fn let_serve(&self, quick: &Quick) -> bool {
        // SAFETY: before the heap is open nobody else calls this or has a block.
        unsafe { quick.serve(&self.map) }
    }

    /// What is at `address`, if a block may begin there: the class of its slab, or the length of its run in bytes. O(1).
    #[cfg(any(feature = "c-abi", feature = "symmetric", all(feature = "shared", not(feature = "malloc-debug"))))]
    pub(crate) fn place_at(&self, address: usize) -> Option<Place> {
        match self.is_open().then(|| self.map.look_up(address))? {
            Entry::Slab(slab) => slab.index_of(address).map(|_| Place::Block(slab.class())),
            Entry::Run(pages) if address & (self.map.page_bytes() - 1) == 0 => {
                Some(Place::Run((pages as usize) << self.map.page_shift()))
            }
            _ => None,
        }
    }

    /// Blocks in a list of `class`: the paper's `target`. It is fixed when the heap is opened, and 0 before.
    #[inline]
    #[must_use]
    pub fn target(&self, class: Class) -> u32 {
        self.targets[class].load(Relaxed)
    }

    /// Bytes of pages that the cached free blocks of one thread pin at the most, whatever the pattern of calls, while it is
    /// busy. A block no longer than half a page that ends in the page behind, as some of `fine-classes` do, counts as one page.
    #[must_use]
    pub fn cache_bytes_max(&self) -> usize {
        let purger = self.source.has_purger();
        Cache::pages_max(|class| self.target(class), self.map.page_shift(), purger) << self.map.page_shift()
    }

    /// Bytes of pages that the free blocks in the depot pin at the most, whatever the pattern of calls: at any time where no
    /// purger comes, else once nobody uses them.
    #[must_use]
    pub fn depot_bytes_max(&self) -> usize {
        (depot::pages_max(self.map.page_shift()) as usize) << self.map.page_shift()
    }

    /// Makes `cache` one of this heap's, which is open.
    ///
    /// # Safety
    /// - `cache` is fresh, stays where it is until `detach`, and is used by one thread at a time.
    pub unsafe fn attach(&self, cache: &Cache) {
        cache.open(|class| self.target(class), self.map.page_shift(), self.source.has_purger());
        self.registry.with(|registry| registry.add(cache));
    }

    /// Gives back all that `cache` holds and forgets it; it takes nothing more.
    ///
    /// # Safety
    /// - `cache` is attached to this heap and not in use.
    pub unsafe fn detach(&self, cache: &Cache) {
        self.flush(cache);
        cache.close();
        self.registry.with(|registry| registry.remove(cache));
    }

    /// The heap as seen through `cache`.
    ///
    /// # Safety
    /// - `cache` is attached to this heap, and used by this thread alone while the result lives.
    pub unsafe fn through<'a>(&'a self, cache: &'a Cache) -> Attached<'a, S, L> {
        Attached { engine: self, cache }
    }
}

/// Blocks in a list of `class` with the settings of `config`.
fn target_of(class: Class, config: &Config) -> u32 {
    let target = class.target(config.list_bytes);
    // Nobody takes full lists from a thread that rests: with four times the classes they must be shorter.
    let short = class::FINE && config.purge == Purge::AtFree;
    if short { (target / 2).max(class::TARGET_MIN) } else { target }
}

impl Settings {
    fn store(&self, config: &Config) {
        self.idle_bytes.store(config.idle_bytes, Relaxed);
        self.idle_share.store(config.idle_share, Relaxed);
        self.list_bytes.store(config.list_bytes, Relaxed);
        self.huge_pages.store(config.huge_pages.code(), Relaxed);
        self.huge_above.store(config.huge_pages.above(), Relaxed);
        self.purge.store(config.purge as usize, Relaxed);
    }

    #[cfg(feature = "std")]
    fn equals(&self, config: &Config) -> bool {
        self.idle_bytes.load(Relaxed) == config.idle_bytes
            && self.idle_share.load(Relaxed) == config.idle_share
            && self.list_bytes.load(Relaxed) == config.list_bytes
            && self.huge_pages.load(Relaxed) == config.huge_pages.code()
            && self.purge.load(Relaxed) == config.purge as usize
    }
}

impl Registry {
    fn add(&mut self, cache: &Cache) {
        cache.be_live();
        self.link(cache);
        cache.use_reserve(self.joined);
        self.joined += 1;
    }

    fn link(&mut self, cache: &Cache) {
        let older = self.newest.replace(NonNull::from(cache));
        cache.older.set(older);
        cache.newer.set(None);
        if let Some(older) = older {
            // SAFETY: a cache in the registry stays where it is until it is removed.
            unsafe { older.as_ref() }.newer.set(Some(NonNull::from(cache)));
        }
        self.caches += 1;
    }

    fn remove(&mut self, cache: &Cache) {
        cache.be_dead();
        let (older, newer) = (cache.older.take(), cache.newer.take());
        if let Some(older) = older {
            // SAFETY: a cache in the registry stays where it is until it is removed.
            unsafe { older.as_ref() }.newer.set(newer);
        }
        match newer {
            // SAFETY: as above.
            Some(newer) => unsafe { newer.as_ref() }.older.set(older),
            None => self.newest = older,
        }
        self.caches -= 1;
        self.departed.add(cache);
    }

    /// Whether a cache may pin so much that a purger should look after it.
    fn need_purger(&self) -> bool {
        self.caches().any(Cache::needs_purger)
    }

    /// The caches, the newest first.
    fn caches(&self) -> impl Iterator<Item = &Cache> {
        let mut at = self.newest;
        core::iter::from_fn(move || {
            // SAFETY: a cache in the registry stays where it is until it is removed.
            let cache = unsafe { at?.as_ref() };
            at = cache.older.get();
            Some(cache)
        })
    }
}

/// Where a block is that somebody frees who does not know its size.
#[cfg(any(feature = "c-abi", feature = "symmetric", all(feature = "shared", not(feature = "malloc-debug"))))]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// In a slab of that class.
    Block(Class),
    /// It is a run of so many bytes.
    Run(usize),
}

#[cfg(any(feature = "c-abi", feature = "symmetric", all(feature = "shared", not(feature = "malloc-debug"))))]
impl Place {
    /// Bytes that the block has.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Block(class) => class.size(),
            Self::Run(bytes) => bytes,
        }
    }

    /// An alignment that makes a layout of so many bytes one of its kind. A run no longer than blocks is one that was asked for
    /// at an alignment beyond those of blocks.
    pub(crate) fn align(self) -> usize {
        match self {
            Self::Run(bytes) if bytes <= class::BLOCK_MAX => class::ALIGN_BEYOND,
            _ => 8,
        }
    }
}

#[cfg(all(feature = "shared", not(feature = "malloc-debug")))]
impl<S, L> Attached<'_, S, L> {
    /// The heap.
    pub(crate) fn engine(&self) -> &Engine<S, L> {
        self.engine
    }
}

/// How a request is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// By a block of a class.
    Block(Class),
    /// By whole pages.
    Pages(u32),
}

impl Shape {
    /// The shape for `layout` in pages of `1 << page_shift` bytes; `None` if it is beyond every heap.
    fn of(layout: Layout, page_shift: u32) -> Option<Self> {
        if let Some(class) = Class::of(layout) {
            return Some(Self::Block(class));
        }
        if layout.size() == 0 && layout.align() <= class::BLOCK_MAX {
            return Class::of(Layout::from_size_align(1, layout.align()).ok()?).map(Self::Block);
        }
        let pages = layout.size().max(1).div_ceil(1 << page_shift);
        u32::try_from(pages).ok().map(Self::Pages)
    }
}

/// A heap through one thread's cache.
#[derive(Debug)]
pub struct Attached<'a, S, L> {
    engine: &'a Engine<S, L>,
    cache: &'a Cache,
}

#[cfg(feature = "malloc-debug")]
impl<S, L> Clone for Attached<'_, S, L> {
    fn clone(&self) -> Self {
        *self
    }
}

#[cfg(feature = "malloc-debug")]
impl<S, L> Copy for Attached<'_, S, L> {}

// SAFETY: the engine hands out disjoint blocks of the class or run that serves the layout; see the layers.
unsafe impl<S: Source, L: RawLock> Blocks for Attached<'_, S, L> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match Class::of(layout) {
            Some(class) => match self.cache.pop(class) {
                Some(block) => block.as_ptr(),
                None => self.engine.refill(self.cache, class),
            },
            None => match self.engine.pop_run(self.cache, layout) {
                Some(run) => run,
                None => self.engine.alloc_beyond(self.cache, layout, false),
            },
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if Class::of(layout).is_none() {
            return self.engine.alloc_beyond(self.cache, layout, true);
        }
        // SAFETY: handed on.
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() {
            // SAFETY: the block is ours and has the size.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(at) = NonNull::new(block) else {
            return;
        };
        let Some(class) = Class::of(layout) else {
            // SAFETY: handed on.
            if !unsafe { self.engine.push_listed(self.cache, at, layout) } {
                // SAFETY: handed on.
                unsafe { self.engine.free_beyond(self.cache, at, layout) };
            }
            return;
        };
        // SAFETY: the caller gives up a live block of this class.
        let block = unsafe { Block::from_raw(at) };
        if !self.cache.push(class, block) {
            self.engine.spill(self.cache, class, block);
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Ok(new) = Layout::from_size_align(new_size, layout.align()) else {
            return core::ptr::null_mut();
        };
        // SAFETY: handed on.
        unsafe { self.engine.resize(self, block, layout, new) }
    }

    fn usable_size(&self, layout: Layout) -> usize {
        self.engine.usable_size(layout)
    }
}

impl<S: Source, L: RawLock> Engine<S, L> {
    /// What `heap`, a front of this engine, does to change the block of `old` at `block` to `new`: in place, by its page
    /// tables, or by copying.
    ///
    /// # Safety
    /// - `block` came from `heap` for `old` and is live.
    #[inline(always)]
    pub(crate) unsafe fn resize(&self, heap: &impl Blocks, block: *mut u8, old: Layout, new: Layout) -> *mut u8 {
        match (Class::of(old), Class::of(new)) {
            (Some(from), Some(to)) if from == to => block,
            // SAFETY: handed on.
            (Some(_), Some(_)) => unsafe { copy_to_new(heap, block, old, new) },
            // SAFETY: handed on.
            _ => unsafe { self.resize_pages(heap, block, old, new) },
        }
    }

    /// `resize` where one of the layouts is no class's.
    ///
    /// # Safety
    /// - As `resize`.
    #[inline(never)]
    pub(crate) unsafe fn resize_pages(&self, heap: &impl Blocks, block: *mut u8, old: Layout, new: Layout) -> *mut u8 {
        // SAFETY: handed on.
        if unsafe { self.resize_in_place(block, old, new) } {
            return block;
        }
        // SAFETY: handed on.
        if let Some(moved) = unsafe { self.relocate(block, old, new) } {
            return moved;
        }
        // SAFETY: the block is live, and stays so if there is no memory.
        unsafe { copy_to_new(heap, block, old, new) }
    }
}

/// Allocates for `new`, copies what fits, and frees the old block; null, and nothing changed, without memory.
///
/// # Safety
/// - `block` came from `heap` for `old` and is live.
#[inline]
unsafe fn copy_to_new(heap: &impl Blocks, block: *mut u8, old: Layout, new: Layout) -> *mut u8 {
    // SAFETY: any layout may be asked for.
    let fresh = unsafe { heap.alloc(new) };
    if twin::is(Twin::G13) && fresh.is_null() {
        // SAFETY: none: this is the broken twin.
        unsafe { heap.dealloc(block, old) };
    }
    if !fresh.is_null() {
        // SAFETY: both are live and apart, and have that many bytes.
        unsafe { fresh.copy_from_nonoverlapping(block, old.size().min(new.size())) };
        // SAFETY: the caller gives the old block up.
        unsafe { heap.dealloc(block, old) };
    }
    fresh
}

impl<S: Source, L: RawLock> Engine<S, L> {
    /// Bytes that a block for `layout` really has; 0 if no heap can serve it.
    pub fn usable_size(&self, layout: Layout) -> usize {
        let shift = match self.map.page_shift() {
            0 => self.source.page_size().trailing_zeros(),
            shift => shift,
        };
        match Shape::of(layout, shift) {
            Some(Shape::Block(class)) => class.size(),
            Some(Shape::Pages(pages)) => (pages as usize) << shift,
            None => 0,
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests;

#[cfg(all(test, not(loom)))]
mod planted_tests;
