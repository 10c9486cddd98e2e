//! Each thread's cache of the process heap: where it lies, when it begins, how it ends.
//!
//! The cache is a thread-local without a destructor, so it can be reached at any time. A second thread-local with one is
//! registered when the cache begins: when it is dropped, at the end of the thread, the cache gives everything back and
//! takes nothing more; destructors that run later are served past it. This holds for the main thread and for threads
//! made by C code.

use crate::config::{Config, Purge};
use crate::fatal::{Fatal, die};
use crate::global::ENGINE;
use crate::heap::Cache;
use crate::os;
use crate::twin::{self, Twin};
use core::ffi::c_void;
use core::ptr::NonNull;

std::thread_local! {
    static CACHE: Cache = const { Cache::new() };
    static END: End = const { End };
}

/// Its drop is the end of the thread's cache.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        os::not_at_thread_end();
        end();
    }
}

/// The end of a cache that has begun when the destructors of thread-locals had run, in a destructor of C's
/// thread-specific data: `END` is dropped no more.
extern "C" fn end_late(_: *mut c_void) {
    end();
}

fn end() {
    with_cache(|cache| {
        if cache.is_live() && !twin::is(Twin::G11) {
            // SAFETY: the cache is attached, and nobody uses it now.
            unwatched(|| unsafe { ENGINE.detach(cache) });
        }
    });
}

/// Runs `work`, in which the heap touches free blocks outside of its front.
#[cfg(not(feature = "valgrind"))]
pub(crate) fn unwatched<R>(work: impl FnOnce() -> R) -> R {
    work()
}
#[cfg(feature = "valgrind")]
pub(crate) use crate::watch::quietly as unwatched;

/// Runs `section` with the thread's cache.
#[inline(always)]
pub(crate) fn with_cache<R>(section: impl FnOnce(&Cache) -> R) -> R {
    // The section is not handed on: the compiler would not inline what is handed a long one.
    let cache = CACHE.with(|cache| NonNull::from(in_register(cache)));
    // SAFETY: the thread-local has no destructor, so it stays where it is until the thread has ended.
    section(unsafe { cache.as_ref() })
}

/// The same reference, in a register: one addition to the thread's base, where the compiler would address every field by
/// the thread's segment.
#[inline(always)]
fn in_register(cache: &Cache) -> &Cache {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        let mut at: *const Cache = cache;
        // SAFETY: no instruction; the value is what it was, and nothing behind it is read.
        #[allow(clippy::pointers_in_nomem_asm_block, reason = "the block only pins the value to a register")]
        unsafe {
            core::arch::asm!("/* {0} */", inout(reg) at, options(pure, nomem, nostack, preserves_flags));
        }
        // SAFETY: as `cache`.
        unsafe { &*at }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    cache
}

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
        os::at_thread_end(end_late);
        // The registration may allocate: by now the cache can serve it.
        if END.try_with(|_| ()).is_err() {
            // SAFETY: attached above. The thread is past the point where `End` could do it.
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
    loop {
        os::sleep(LOOK_EVERY);
        if unwatched(|| ENGINE.purge_unused()) {
            continue;
        }
        ENGINE.source().purger().dismiss();
        // Who freed before the dismissal has summoned nobody: a last look is ours, when all processors know of both.
        os::sleep(1);
        if !ENGINE.needs_purger() || !ENGINE.source().purger().stay() {
            return nothing;
        }
    }
}

/// Opens the process heap for `config`, which must be what it was opened with before.
fn open(config: &Config) -> bool {
    if !ENGINE.is_open() {
        os::at_fork_once(prepare, parent, child);
        ENGINE.source().set_huge_pages(config.huge_pages);
        if !ENGINE.open(config) {
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
        ENGINE.before_fork();
    }
}

extern "C" fn parent() {
    if !twin::is(Twin::G12) {
        // SAFETY: `prepare` ran before.
        unsafe { ENGINE.after_fork() };
    }
}

extern "C" fn child() {
    if !twin::is(Twin::G12) {
        ENGINE.source().purger().forget();
        // SAFETY: `prepare` ran before, in the thread this one is a copy of.
        with_cache(|cache| unsafe { ENGINE.after_fork_in_child(cache.is_live().then_some(cache)) });
    }
}
