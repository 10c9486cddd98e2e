//! Each thread's cache of the process heap: where it lies, when it begins, how it ends.
//!
//! The cache is a thread-local without a destructor, so it can be reached at any time. A second thread-local with one is
//! registered when the cache begins: when it is dropped, at the end of the thread, the cache gives everything back and
//! takes nothing more; destructors that run later are served past it. This holds for the main thread and for threads
//! made by C code. (Behind C names a word of thread-local storage points to the cache, which lies in a pool, and its end
//! comes with C's thread-specific data: `thread/pointed.rs`.)

use crate::config::{Config, Purge};
#[cfg(feature = "malloc-debug")]
use crate::debug::Trail;
use crate::fatal::{Fatal, die};
use crate::global::ENGINE;
#[cfg(feature = "malloc-debug")]
use crate::global::hunter;
use crate::heap::Cache;
use crate::os;
use crate::twin::{self, Twin};
#[cfg(feature = "malloc-debug")]
use core::cell::Cell;
use core::ffi::c_void;

// Where the cache lies, and how its end is heard of.
#[cfg(not(feature = "c-abi"))]
mod local;
#[cfg(all(feature = "malloc-debug", not(feature = "c-abi")))]
use local::own_trail;
#[cfg(all(feature = "malloc-debug", not(feature = "c-abi")))]
pub(crate) use local::with_passes;
#[cfg(not(feature = "c-abi"))]
use local::{hear_of_end, let_go, pool};
#[cfg(not(feature = "c-abi"))]
pub(crate) use local::{with_cache, with_cache_to_free};
#[cfg(feature = "c-abi")]
mod pointed;
#[cfg(all(feature = "malloc-debug", feature = "c-abi"))]
use pointed::own_trail;
#[cfg(all(feature = "malloc-debug", feature = "c-abi"))]
pub(crate) use pointed::with_passes;
#[cfg(feature = "c-abi")]
use pointed::{hear_of_end, let_go, pool};
#[cfg(feature = "c-abi")]
pub(crate) use pointed::{own, with_cache, with_cache_to_free};

/// The end of a cache that has begun when the destructors of thread-locals had run, in a destructor of C's
/// thread-specific data: `END` is dropped no more.
extern "C" fn end_late(_: *mut c_void) {
    end();
}

fn end() {
    with_cache(|cache| {
        if cache.is_live() && !twin::is(Twin::G11) {
            #[cfg(feature = "malloc-debug")]
            end_trail();
            // SAFETY: the cache is attached, and nobody uses it now.
            unwatched(|| unsafe { ENGINE.detach(cache) });
            let_go(cache);
        }
    });
}

/// The calling thread's trail, which `make` makes if there is none; `None` before the thread has a cache, and after its end.
#[cfg(feature = "malloc-debug")]
#[inline(always)]
pub(crate) fn trail(make: impl FnOnce() -> Option<&'static Trail>) -> Option<&'static Trail> {
    own_trail(Cell::get).or_else(|| begin_trail(make))
}

#[cfg(feature = "malloc-debug")]
#[cold]
#[inline(never)]
fn begin_trail(make: impl FnOnce() -> Option<&'static Trail>) -> Option<&'static Trail> {
    let trail = with_cache(Cache::is_live).then(make).flatten();
    own_trail(|own| own.set(trail));
    trail
}

#[cfg(feature = "malloc-debug")]
fn end_trail() {
    if let Some(trail) = own_trail(Cell::take) {
        unwatched(|| hunter::end_thread(trail));
    }
}

/// Runs `work`, in which the heap touches free blocks outside of its front.
#[cfg(not(feature = "valgrind"))]
pub(crate) fn unwatched<R>(work: impl FnOnce() -> R) -> R {
    work()
}
#[cfg(feature = "valgrind")]
pub(crate) use crate::watch::quietly as unwatched;

/// Makes the thread's cache ready, and the heap before it. Without memory for that nothing changes, and the caller finds
/// the cache not live.
#[cold]
#[inline(never)]
pub(crate) fn begin(cache: &Cache, config: &Config) -> bool {
    if !open(config) {
        return false;
    }
    if cache.is_fresh() {
        // SAFETY: the cache is this thread's and lies where it is until the thread has ended; `end` detaches it.
        unsafe { ENGINE.attach(cache) };
        let late = os::at_thread_end(end_late);
        // The registration may allocate: by now the cache can serve it.
        if !hear_of_end(late) {
            // SAFETY: attached above. The thread is past the point where somebody could do it.
            unsafe { ENGINE.detach(cache) };
        }
    }
    true
}

/// Milliseconds between two looks of the purger's: memory that was not used from one look to the next goes, so it has gone
/// after two of them.
const LOOK_EVERY: u32 = 150;

/// The purger: a thread that lives while more is retained than the idle bound allows. It has no cache and takes no signal.
extern "C" fn purger(nothing: *mut c_void) -> *mut c_void {
    let agent = ENGINE.source().purger();
    loop {
        os::sleep(LOOK_EVERY);
        if unwatched(|| ENGINE.purge_unused()) {
            continue;
        }
        agent.dismiss();
        // Who freed before the dismissal has summoned nobody: a last look is ours, when all processors know of both.
        os::sleep(1);
        if !ENGINE.needs_purger() && agent.leave() {
            return nothing;
        }
        agent.stay();
    }
}

/// Sees to it that forks are survived. Handlers that are registered before may not allocate.
pub(crate) fn register_fork() {
    os::at_fork_once(prepare, parent, child);
}

/// Opens the process heap for `config`, which must be what it was opened with before.
fn open(config: &Config) -> bool {
    if !ENGINE.is_open() {
        register_fork();
        ENGINE.source().set_huge_pages(config.huge_pages);
        if !ENGINE.open_and(config, crate::global::heap_is_ready) {
            return false;
        }
        if config.purge == Purge::Soon {
            ENGINE.source().purger().enlist(purger);
        }
    }
    if !ENGINE.is_configured_as(config) {
        die(Fatal::OtherConfig);
    }
    true
}

extern "C" fn prepare() {
    if !twin::is(Twin::G12) {
        pool::hold();
        ENGINE.before_fork();
        #[cfg(feature = "malloc-debug")]
        hunter::before_fork();
    }
}

extern "C" fn parent() {
    if !twin::is(Twin::G12) {
        // SAFETY: `prepare` ran before.
        #[cfg(feature = "malloc-debug")]
        unsafe {
            hunter::after_fork();
        }
        // SAFETY: `prepare` ran before.
        unsafe { ENGINE.after_fork() };
        // SAFETY: as above.
        unsafe { pool::release() };
    }
}

extern "C" fn child() {
    if !twin::is(Twin::G12) {
        ENGINE.source().purger().forget();
        // SAFETY: `prepare` ran before, in the thread this one is a copy of.
        #[cfg(feature = "malloc-debug")]
        own_trail(|own| unsafe { hunter::after_fork_in_child(own.get()) });
        // SAFETY: `prepare` ran before, in the thread this one is a copy of.
        unsafe { pool::release() };
        // SAFETY: as above.
        with_cache(|cache| unsafe { ENGINE.after_fork_in_child(cache.is_live().then_some(cache)) });
    }
}
