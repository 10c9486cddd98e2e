//! A cache that a word of thread-local storage points to, for libraries that C programs load.
//!
//! The word is initial-exec: two instructions reach it wherever the library is, and no function that might allocate. The
//! caches lie in a pool, each for one thread after another. A thread without one frees its first blocks past it: the system
//! frees a little in threads that are about to end, and that is no reason for a cache.

use crate::heap::Cache;
use crate::lock::{Locked, Rank, Spin};
use crate::os;
use core::cell::Cell;
use core::ffi::c_void;
use core::ptr::{NonNull, null, null_mut};

/// What a thread has of its own. All zero bits at its begin.
#[derive(Debug)]
#[repr(C)]
struct Own {
    /// Null while the thread has no cache.
    cache: Cell<*const Cache>,
    /// Blocks freed past a cache, or `ENDED`.
    freed: Cell<usize>,
    /// What the corruption hunter knows of the thread.
    #[cfg(feature = "malloc-debug")]
    trail: Cell<Option<&'static crate::debug::Trail>>,
    /// How many blocks of the thread pass by the hunter.
    #[cfg(feature = "malloc-debug")]
    passes: Cell<u32>,
}

/// Runs `section` with the place of the thread's trail.
#[cfg(feature = "malloc-debug")]
#[inline(always)]
pub(super) fn own_trail<R>(section: impl FnOnce(&Cell<Option<&'static crate::debug::Trail>>) -> R) -> R {
    with_own(|own| section(&own.trail))
}

/// Runs `section` with how many blocks of the thread pass by the hunter.
#[cfg(feature = "malloc-debug")]
#[inline(always)]
pub(crate) fn with_passes<R>(section: impl FnOnce(&Cell<u32>) -> R) -> R {
    with_own(|own| section(&own.passes))
}

/// The thread takes no cache any more, or for now.
const ENDED: usize = usize::MAX;
/// Blocks that a thread without a cache frees before it gets one.
const FREED_BEFORE: usize = 8;

/// The word, in storage that the loader sets up before the thread begins.
#[cfg(target_arch = "x86_64")]
mod word {
    use super::{Cache, Own};

    core::arch::global_asm!(
        ".pushsection .tbss,\"awT\",@nobits",
        ".p2align 4",
        ".globl stratalloc_0_1_own",
        ".hidden stratalloc_0_1_own",
        ".type stratalloc_0_1_own,@object",
        ".size stratalloc_0_1_own,{size}",
        "stratalloc_0_1_own:",
        ".zero {size}",
        ".popsection",
        size = const size_of::<Own>(),
    );

    /// What the word points to.
    #[inline(always)]
    pub(super) fn cache() -> *const Cache {
        let cache: *const Cache;
        // SAFETY: reads the first word of this thread's own storage.
        unsafe {
            core::arch::asm!(
                "mov {0}, qword ptr [rip + stratalloc_0_1_own@GOTTPOFF]",
                "mov {0}, qword ptr fs:[{0}]",
                out(reg) cache,
                options(nostack, preserves_flags, readonly),
            );
        }
        cache
    }

    #[inline(always)]
    pub(super) fn own() -> *const Own {
        let own: *const Own;
        // SAFETY: adds the storage's place to the thread's base; nothing is written.
        unsafe {
            core::arch::asm!(
                "mov {0}, qword ptr fs:[0]",
                "add {0}, qword ptr [rip + stratalloc_0_1_own@GOTTPOFF]",
                out(reg) own,
                options(nostack, readonly),
            );
        }
        own
    }
}
#[cfg(not(target_arch = "x86_64"))]
mod word {
    use super::{Cache, Cell, Own, null};

    std::thread_local! {
        static OWN: Own = const { Own {
            cache: Cell::new(null()),
            freed: Cell::new(0),
            #[cfg(feature = "malloc-debug")]
            trail: Cell::new(None),
            #[cfg(feature = "malloc-debug")]
            passes: Cell::new(0),
        } };
    }

    #[inline(always)]
    pub(super) fn cache() -> *const Cache {
        OWN.with(|own| own.cache.get())
    }

    pub(super) fn own() -> *const Own {
        OWN.with(core::ptr::from_ref)
    }
}

/// Runs `section` with what the thread has of its own.
#[inline(always)]
fn with_own<R>(section: impl FnOnce(&Own) -> R) -> R {
    // SAFETY: the storage is there as long as the thread, zeroed at its begin, and no other thread's.
    section(unsafe { &*word::own() })
}

/// The thread's cache, if it has one.
#[inline(always)]
pub(crate) fn own() -> Option<&'static Cache> {
    // SAFETY: set by `fresh` to a cache that is this thread's until `let_go` clears the word.
    unsafe { word::cache().as_ref() }
}

/// Runs `section` with the thread's cache, or a dead one if it cannot have one.
#[inline(always)]
pub(crate) fn with_cache<R>(section: impl FnOnce(&Cache) -> R) -> R {
    match own() {
        Some(cache) => section(cache),
        None => without(section, fresh()),
    }
}

/// `with_cache` for a section that frees.
#[inline(always)]
pub(crate) fn with_cache_to_free<R>(section: impl FnOnce(&Cache) -> R) -> R {
    match own() {
        Some(cache) => section(cache),
        None => without(section, fresh_to_free()),
    }
}

#[cold]
fn without<R>(section: impl FnOnce(&Cache) -> R, fresh: Option<&Cache>) -> R {
    match fresh {
        Some(cache) => section(cache),
        None => section(&Cache::dead()),
    }
}

/// Counts a free without a cache; gives the thread one if there were some of them.
#[cold]
#[inline(never)]
fn fresh_to_free() -> Option<&'static Cache> {
    let enough = with_own(|own| {
        let freed = own.freed.get();
        own.freed.set(if freed < FREED_BEFORE { freed + 1 } else { freed });
        freed >= FREED_BEFORE
    });
    if enough { fresh() } else { None }
}

/// Gives the thread a cache that no heap has adopted; `None` if it takes none, or if there is no memory.
#[cold]
#[inline(never)]
fn fresh() -> Option<&'static Cache> {
    if with_own(|own| own.freed.get() == ENDED) {
        return None;
    }
    let place = POOL.with(Pool::take).or_else(|| {
        let chunk = os::map(CHUNK)?;
        POOL.with(|pool| pool.feed(chunk));
        POOL.with(Pool::take)
    })?;
    let place = place.cast::<Cache>();
    // SAFETY: the pool gives places for a cache, each to one thread.
    unsafe { place.write(Cache::new()) };
    with_own(|own| own.cache.set(place.as_ptr()));
    own()
}

/// Takes the dead cache of this thread away from it, for good.
pub(super) fn let_go(cache: &Cache) {
    with_own(|own| {
        own.cache.set(null());
        own.freed.set(ENDED);
    });
    POOL.with(|pool| pool.put(NonNull::from(cache).cast()));
}

/// Whether `end` will be called at the end of this thread: by C's thread-specific data alone. (The C library's list of
/// destructors is behind the loader's lock, which a library that waits for this thread may hold while it is loaded.)
pub(super) fn hear_of_end(late: bool) -> bool {
    late
}

/// Bytes of places taken from the system at a time.
const CHUNK: usize = (16 * PLACE).next_multiple_of(64 << 10);
const PLACE: usize = size_of::<Cache>().next_multiple_of(64);

/// Places for caches that no thread has.
struct Pool {
    /// Linked through their first words.
    free: *mut c_void,
}

// SAFETY: a pool's places are nobody else's.
unsafe impl Send for Pool {}

static POOL: Locked<Pool, Spin> = Locked::new(Rank::Shard, Pool { free: null_mut() });

impl Pool {
    fn feed(&mut self, chunk: os::Span) {
        let places = (chunk.at..=chunk.at + chunk.bytes - PLACE).step_by(PLACE);
        places.filter_map(|at| NonNull::new(core::ptr::with_exposed_provenance_mut(at))).for_each(|at| self.put(at));
    }

    fn put(&mut self, place: NonNull<c_void>) {
        // SAFETY: a place of the pool's, large enough and aligned for a word.
        unsafe { place.cast::<*mut c_void>().write(self.free) };
        self.free = place.as_ptr();
    }

    fn take(&mut self) -> Option<NonNull<c_void>> {
        let place = NonNull::new(self.free)?;
        // SAFETY: written by `put`.
        self.free = unsafe { place.cast::<*mut c_void>().read() };
        Some(place)
    }
}

/// What a fork must hold and let go.
pub(super) mod pool {
    use super::POOL;

    pub(in crate::thread) fn hold() {
        POOL.hold();
    }

    /// # Safety
    /// - This thread, or the one it was forked from, called `hold`.
    pub(in crate::thread) unsafe fn release() {
        // SAFETY: handed on.
        unsafe { POOL.let_go() };
    }
}
