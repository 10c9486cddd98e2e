//! The process heap: the crate's only statics, and the type that users name. The build is composed here, as one type
//! expression each for the engine and for the front that stands before it.

use crate::config::Config;
#[cfg(feature = "malloc-debug")]
use crate::debug::{Guarded, Hooks, Hunter};
use crate::fatal::{Fatal, die};
use crate::finding::Finding;
#[cfg(all(feature = "c-abi", target_arch = "x86_64"))]
use crate::heap::Quick;
use crate::heap::{Block, Blocks, Cache, Class, Engine};
use crate::lock::Spin;
use crate::os::Mmap;
use crate::stats::Stats;
use crate::thread;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{NonNull, null_mut};

/// The heap of the process.
pub(crate) static ENGINE: Engine<Mmap, Spin> = Engine::new(pages());

/// Where heaps get their pages.
pub(crate) const fn pages() -> Mmap {
    #[cfg(not(feature = "malloc-debug"))]
    return Mmap::new();
    #[cfg(feature = "malloc-debug")]
    Mmap::with_witness(|span| HUNTER.covers(span))
}

/// The short way from a block to its class.
#[cfg(all(feature = "c-abi", target_arch = "x86_64"))]
pub(crate) static QUICK: Quick = Quick::none();

/// Called once, before the first block.
pub(crate) fn heap_is_ready() {
    #[cfg(all(feature = "c-abi", target_arch = "x86_64"))]
    // SAFETY: called by the engine when it opens.
    if !unsafe { ENGINE.let_serve(&QUICK) } {
        die(Fatal::PageSize);
    }
}

/// The hunter before all guarded heaps of the process.
#[cfg(feature = "malloc-debug")]
static HUNTER: Hunter = Hunter::new(Hooks {
    fault: |address, at| HUNTER.on_fault(address, at),
    exit: {
        extern "C" fn exit() {
            HUNTER.finish(|address| ENGINE.owns(address));
        }
        exit
    },
});

/// The heap of the process, with the corruption hunter before it if there is one.
#[cfg(not(feature = "malloc-debug"))]
pub(crate) type Base<'a> = Process<'a>;
#[cfg(feature = "malloc-debug")]
pub(crate) type Base<'a> = Guarded<'a, Process<'a>>;

/// The heap for `config`.
#[cfg(not(feature = "malloc-debug"))]
pub(crate) const fn base(config: &Config) -> Base<'_> {
    Process(config)
}
#[cfg(feature = "malloc-debug")]
pub(crate) const fn base(config: &Config) -> Base<'_> {
    Guarded { heap: Process(config), number: 0, hunter: &HUNTER, hunt: &config.hunt, guest: 0 }
}

/// What stands between the users and the engine.
#[cfg(not(feature = "valgrind"))]
type Front<'a> = Base<'a>;
#[cfg(feature = "valgrind")]
type Front<'a> = crate::watch::Watched<Base<'a>>;

/// The front for `config`.
#[cfg(not(feature = "valgrind"))]
const fn front(config: &Config) -> Front<'_> {
    base(config)
}
#[cfg(feature = "valgrind")]
const fn front(config: &Config) -> Front<'_> {
    crate::watch::Watched(base(config))
}

/// What threads and forks tell the hunter.
#[cfg(feature = "malloc-debug")]
pub(crate) mod hunter {
    use super::{Config, HUNTER, base};
    use crate::debug::Trail;
    #[cfg(feature = "allocator-api2")]
    use crate::finding::Verdict;
    #[cfg(any(feature = "allocator-api2", feature = "symmetric", feature = "hooks"))]
    use crate::os::Span;
    #[cfg(any(feature = "allocator-api2", feature = "symmetric"))]
    use crate::{
        debug::Guarded,
        sync::{AtomicU32, Relaxed},
    };

    static CONFIG: Config = Config::new();

    /// A number for a heap, by which its blocks are told from those of the process heap and of most others.
    #[cfg(any(feature = "allocator-api2", feature = "symmetric"))]
    pub(crate) fn number_heap() -> u8 {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        (1 + NEXT.fetch_add(1, Relaxed) % 127) as u8
    }

    /// Another heap than the process's, with the hunter before it.
    #[cfg(feature = "allocator-api2")]
    pub(crate) const fn guard<B>(heap: B, number: u8) -> Guarded<'static, B> {
        Guarded { heap, number, hunter: &HUNTER, hunt: &CONFIG.hunt, guest: 0 }
    }

    /// A heap that processes share, where this one is `guest`.
    #[cfg(any(feature = "shared", feature = "symmetric"))]
    pub(crate) const fn guard_shared<B>(heap: B, number: u8, guest: u32) -> Guarded<'static, B> {
        Guarded { heap, number, hunter: &HUNTER, hunt: &CONFIG.hunt, guest }
    }

    /// The heap at `span`, which processes share, is open here no more.
    #[cfg(feature = "shared")]
    pub(crate) fn disown(span: Span) {
        HUNTER.disown(span);
    }

    /// Whether nothing is hunted.
    #[cfg(feature = "allocator-api2")]
    pub(crate) fn is_off() -> bool {
        HUNTER.is_off(&CONFIG.hunt)
    }

    /// The memory of `span` goes, with all blocks in it.
    #[cfg(any(feature = "allocator-api2", feature = "symmetric"))]
    pub(crate) fn forget(span: Span) {
        HUNTER.forget(span);
    }

    /// The first damaged block.
    #[cfg(feature = "allocator-api2")]
    pub(crate) fn check() -> Verdict {
        HUNTER.check()
    }

    /// Where the caller registers `bytes` bytes with the hooks.
    #[cfg(feature = "hooks")]
    #[inline(always)]
    pub(crate) fn site(bytes: usize) -> crate::debug::Site {
        HUNTER.site(&CONFIG.hunt, bytes)
    }

    /// The memory of `gone` went while a range was registered with that cookie.
    #[cfg(feature = "hooks")]
    pub(crate) fn report_registered(gone: Span, range: (Span, u64), site: crate::debug::Site) {
        HUNTER.report_registered(&CONFIG.hunt, gone, range, site);
    }

    /// The thread of `trail` ends.
    pub(crate) fn end_thread(trail: &Trail) {
        HUNTER.end_thread(trail, &base(&CONFIG));
    }

    pub(crate) fn before_fork() {
        HUNTER.before_fork();
    }

    /// # Safety
    /// - `before_fork` was called.
    pub(crate) unsafe fn after_fork() {
        // SAFETY: handed on.
        unsafe { HUNTER.after_fork() };
    }

    /// # Safety
    /// - `before_fork` was called, by the thread that this one is a copy of, whose trail is `own`.
    pub(crate) unsafe fn after_fork_in_child(own: Option<&Trail>) {
        // SAFETY: handed on.
        unsafe { HUNTER.after_fork_in_child(own) };
    }
}

/// The global allocator.
///
/// All values in a process share one heap; the settings of all must be the same.
///
/// ```
/// use stratalloc::Stratalloc;
///
/// #[global_allocator]
/// static A: Stratalloc = Stratalloc::new();
///
/// fn main() {
///     let words: Vec<String> = "one two three".split(' ').map(String::from).collect();
///     assert!(Stratalloc::is_active());
///     println!("{}\n{words:?}", Stratalloc::stats());
/// }
/// ```
#[derive(Debug)]
pub struct Stratalloc {
    config: Config,
}

impl Stratalloc {
    /// The allocator with default settings.
    #[must_use]
    pub const fn new() -> Self {
        Self::with_config(Config::new())
    }

    /// The allocator with settings of your own, checked when the program is compiled.
    #[must_use]
    pub const fn with_config(config: Config) -> Self {
        Self { config }
    }

    /// The figures of the process heap; O(classes × threads), and it allocates nothing.
    #[must_use]
    pub fn stats() -> Stats {
        thread::with_cache(|cache| ENGINE.stats(cache.is_live().then_some(cache)))
    }

    /// Whether this allocator is the one that the process allocates with: it allocates a byte and looks where it is.
    #[must_use]
    pub fn is_active() -> bool {
        let layout = Layout::new::<u8>();
        // SAFETY: the size is not 0.
        let byte = core::hint::black_box(unsafe { std::alloc::alloc(layout) });
        if byte.is_null() {
            return false;
        }
        let ours = ENGINE.owns(byte as usize);
        // SAFETY: allocated above for the layout.
        unsafe { std::alloc::dealloc(byte, layout) };
        ours
    }

    /// Gives back every page that no live block and no other thread's cache holds, the retained ones included.
    /// O(free memory).
    pub fn collect() {
        if ENGINE.is_open() {
            Self::thread_park();
            thread::unwatched(|| ENGINE.collect());
        }
    }

    /// Gives back what the calling thread has cached: for a thread that is about to wait for long. Its next allocations
    /// fetch what they need anew.
    pub fn thread_park() {
        thread::with_cache(|cache| {
            if cache.is_live() {
                // SAFETY: the cache is this thread's, and attached.
                thread::unwatched(|| unsafe { ENGINE.through(cache) }.park());
            }
        });
    }

    /// Audits the process heap beside whatever other threads do: the records of all layers, and the lists of free blocks of
    /// the depot and of the calling thread. With the feature `malloc-debug` every word of a record has a copy, so that
    /// whatever was written over it is found; without it, what contradicts itself. O(pages of the address ranges that the
    /// page map describes, 64 Ki pages at a time): a millisecond, and three more for each GiB. It takes one lock after another, and
    /// allocates nothing; who needs the lock of the page runs waits meanwhile.
    ///
    /// # Errors
    /// The first rule that does not hold. The heap is damaged then: nothing that it does is certain any more.
    pub fn check() -> Result<(), Finding> {
        thread::with_cache(|cache| thread::unwatched(|| ENGINE.check(cache.is_live().then_some(cache))))?;
        #[cfg(feature = "malloc-debug")]
        HUNTER.check()?;
        Ok(())
    }

    /// Tells, on file descriptor 2, of live blocks to which no pointer is left, by where they were allocated; how many there
    /// are. A word of the program's writable memory, outside of the heap or in a block that can be reached, is taken for a
    /// pointer if it could be one. O(writable memory). It allocates nothing; what other threads change meanwhile may be
    /// missed, or told of too much.
    #[cfg(feature = "malloc-debug")]
    pub fn leaks() -> u64 {
        HUNTER.tell_leaks(|address| ENGINE.owns(address))
    }

    /// Runs `work`, and panics if blocks are left that this thread allocated in it, after telling on file descriptor 2 where
    /// that was. O(blocks).
    ///
    /// ```
    /// # #[global_allocator]
    /// # static A: stratalloc::Stratalloc = stratalloc::Stratalloc::new();
    /// stratalloc::Stratalloc::assert_no_leaks(|| drop(vec![1, 2, 3]));
    /// ```
    ///
    /// # Panics
    /// When something is left.
    #[cfg(feature = "malloc-debug")]
    #[track_caller]
    pub fn assert_no_leaks<R>(work: impl FnOnce() -> R) -> R {
        let before = HUNTER.begin_epoch();
        let result = work();
        let left = HUNTER.end_epoch(before);
        assert!(left == 0, "{left} blocks were allocated and not freed");
        result
    }

    /// Whether the calling thread's blocks have backtraces and are held back when it frees them; the default is that they
    /// are. Guards they have in any case.
    #[cfg(feature = "malloc-debug")]
    pub fn watch_thread(wanted: bool) {
        HUNTER.watch_thread(wanted);
    }

    /// Bytes that a block for `layout` really has, all of them usable; 0 if `layout` is beyond every heap. O(1).
    #[must_use]
    pub fn usable_size(layout: Layout) -> usize {
        front(&Config::new()).usable_size(layout)
    }

    #[inline(always)]
    const fn front(&self) -> Front<'_> {
        front(&self.config)
    }
}

impl Default for Stratalloc {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether the calling thread may call the heap now: release callbacks may not, from inside it.
#[cfg(all(feature = "hooks", debug_assertions))]
use crate::hooks::may_call_heap as may_call;
#[cfg(not(all(feature = "hooks", debug_assertions)))]
#[inline(always)]
const fn may_call() {}

// SAFETY: the front is `Blocks`, whose promises are those of `GlobalAlloc`; no path unwinds.
unsafe impl GlobalAlloc for Stratalloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        may_call();
        // SAFETY: handed on, here and below.
        unsafe { self.front().alloc(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        may_call();
        // SAFETY: as above.
        unsafe { self.front().dealloc(block, layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        may_call();
        // SAFETY: as above.
        unsafe { self.front().alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        may_call();
        // SAFETY: as above.
        unsafe { self.front().realloc(block, layout, new_size) }
    }
}

/// The process heap through the calling thread's cache.
///
/// It carries the settings of the `Stratalloc` value, for the slow paths alone; these take it by value, so that the fast
/// paths need no memory for it.
#[derive(Clone, Copy)]
pub(crate) struct Process<'a>(&'a Config);

/// What the C names do, who know a block's class or its length.
#[cfg(feature = "c-abi")]
impl<'a> Process<'a> {
    pub(crate) const fn new(config: &'a Config) -> Self {
        Self(config)
    }

    /// Frees a block of a class, past the fast path.
    pub(crate) fn spill(self, block: Block, class: Class) {
        spill(block, class, self);
    }

    /// Frees a run of `bytes` bytes, a layout of which, at `align`, is no class's.
    ///
    /// # Safety
    /// - It came from the process heap, and is live.
    pub(crate) unsafe fn free_run(self, run: NonNull<u8>, bytes: usize, align: usize) {
        // SAFETY: handed on; a run may go to another list than the one it came from.
        unsafe { free_beyond(run, bytes, align) };
    }
}

impl Process<'_> {
    /// The slow path of `alloc` for blocks.
    #[cold]
    #[inline(never)]
    fn refill(self, class: Class) -> *mut u8 {
        thread::with_cache(|cache| {
            // First what needs no look at the settings.
            if let Some(block) = cache.promote(class) {
                return block.as_ptr();
            }
            if cache.is_fresh() {
                if !thread::begin(cache, self.0) {
                    return null_mut();
                }
                // What begins a cache may allocate, and so may have filled `main`.
                if let Some(block) = cache.pop(class) {
                    return block.as_ptr();
                }
            }
            self.check_config();
            ENGINE.refill(cache, class)
        })
    }

    /// A block of class `to` with the first `bytes` bytes of `old`, of class `from`, which is freed; null, and nothing
    /// changed, without memory. `bytes` are no more than either has.
    #[inline]
    pub(crate) fn move_block(self, old: Block, from: Class, to: Class, bytes: usize) -> *mut u8 {
        let fresh = thread::with_cache(|cache| cache.pop(to)).map_or_else(|| self.refill(to), Block::as_ptr);
        if !fresh.is_null() {
            // SAFETY: both blocks have that many bytes, are apart, and are ours.
            unsafe { fresh.copy_from_nonoverlapping(old.as_ptr(), bytes) };
            if !thread::with_cache(|cache| cache.push(from, old)) {
                spill(old, from, self);
            }
        }
        fresh
    }

    #[inline(never)]
    fn alloc_beyond_lists(self, cache: &Cache, layout: Layout, zeroed: bool) -> *mut u8 {
        if !zeroed && let Some(run) = ENGINE.take_long(cache, layout) {
            return run;
        }
        if cache.is_fresh() && !thread::begin(cache, self.0) {
            return null_mut();
        }
        self.check_config();
        ENGINE.alloc_beyond(cache, layout, zeroed)
    }

    fn check_config(self) {
        if !ENGINE.is_configured_as(self.0) {
            die(Fatal::OtherConfig);
        }
    }
}

/// `alloc` for what is no class's, of `size` and `align`.
#[inline(never)]
fn alloc_beyond(size: usize, align: usize, front: Process<'_>) -> *mut u8 {
    // SAFETY: the two are a layout's.
    let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
    thread::with_cache(|cache| match ENGINE.pop_run(cache, layout) {
        Some(run) => run,
        None => front.alloc_beyond_lists(cache, layout, false),
    })
}

/// `alloc_zeroed` for what is no class's, of `size` and `align`.
#[inline(never)]
fn alloc_zeroed_beyond(size: usize, align: usize, front: Process<'_>) -> *mut u8 {
    // SAFETY: the two are a layout's.
    let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
    thread::with_cache(|cache| match ENGINE.pop_listed(cache, layout) {
        Some(run) => {
            // SAFETY: the run is ours and has the size.
            unsafe { run.as_ptr().write_bytes(0, size) };
            run.as_ptr()
        }
        None => front.alloc_beyond_lists(cache, layout, true),
    })
}

/// The slow path of `dealloc` for blocks. (The arguments stand where `dealloc` has them, here and below: in a build without
/// link-time optimisation that saves moves on the fast path.)
#[cold]
#[inline(never)]
fn spill(block: Block, class: Class, front: Process<'_>) {
    thread::with_cache_to_free(|cache| {
        if ENGINE.stack(cache, class, block) {
            return;
        }
        // A thread may free before it allocates. The heap is open: the block came from it. A cache that has just begun
        // has room, and no full `main` that could be spilled.
        if cache.is_fresh() && thread::begin(cache, front.0) && cache.push(class, block) {
            return;
        }
        ENGINE.spill_beyond(cache, class, block);
    });
}

/// `dealloc` for what is no class's.
///
/// # Safety
/// - `block` came from the process heap for a layout of `size` and `align`, and is live.
#[inline(never)]
unsafe fn free_beyond(block: NonNull<u8>, size: usize, align: usize) {
    // SAFETY: the two are a layout's.
    let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
    thread::with_cache_to_free(|cache| {
        // SAFETY: handed on.
        if !unsafe { ENGINE.push_listed(cache, block, layout) } {
            // SAFETY: handed on.
            unsafe { ENGINE.free_beyond(cache, block, layout) };
        }
    });
}

// SAFETY: see `heap::Attached`; the cache is the calling thread's.
unsafe impl Blocks for Process<'_> {
    #[inline(always)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(class) = Class::of(layout) else {
            return alloc_beyond(layout.size(), layout.align(), *self);
        };
        match thread::with_cache(|cache| cache.pop(class)) {
            Some(block) => block.as_ptr(),
            None => self.refill(class),
        }
    }

    #[inline(always)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if Class::of(layout).is_none() {
            return alloc_zeroed_beyond(layout.size(), layout.align(), *self);
        }
        // SAFETY: handed on.
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() {
            // SAFETY: the block is ours and has the size.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    #[inline(always)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller gives up a live block, which is never null.
        let at = unsafe { NonNull::new_unchecked(block) };
        let Some(class) = Class::of(layout) else {
            // SAFETY: handed on.
            return unsafe { free_beyond(at, layout.size(), layout.align()) };
        };
        // SAFETY: as above, of this class.
        let block = unsafe { Block::from_raw(at) };
        if !thread::with_cache_to_free(|cache| cache.push(class, block)) {
            spill(block, class, *self);
        }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if let (Some(from), Some(to)) = (Class::of(layout), Class::of_size(new_size, layout.align())) {
            if from == to {
                return block;
            }
            // SAFETY: a live block is never null.
            let old = unsafe { NonNull::new_unchecked(block) };
            // SAFETY: of class `from`; the caller gives it up if this succeeds, and it is written to only then.
            let old = unsafe { Block::from_raw(old) };
            return self.move_block(old, from, to, layout.size().min(new_size));
        }
        let Ok(new) = Layout::from_size_align(new_size, layout.align()) else {
            return null_mut();
        };
        // SAFETY: handed on.
        unsafe { ENGINE.resize_pages(self, block, layout, new) }
    }

    #[inline]
    fn usable_size(&self, layout: Layout) -> usize {
        ENGINE.usable_size(layout)
    }
}
