//! A cache that is a thread-local itself: one addition to the thread's base, and the compiler may fold the rest.

use super::end;
#[cfg(feature = "malloc-debug")]
use crate::debug::Trail;
use crate::heap::Cache;
use crate::os;
#[cfg(feature = "malloc-debug")]
use core::cell::Cell;
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

/// Sees to it that `end` is called at the end of this thread; false if it is past that. May allocate. That C's
/// thread-specific data will tell `late` is of use only to who is past it.
pub(super) fn hear_of_end(_late: bool) -> bool {
    END.try_with(|_| ()).is_ok()
}

/// The cache is dead: it lies there until the thread has ended.
pub(super) fn let_go(_: &Cache) {}

/// Runs `section` with the place of the thread's trail.
#[cfg(feature = "malloc-debug")]
#[inline(always)]
pub(super) fn own_trail<R>(section: impl FnOnce(&Cell<Option<&'static Trail>>) -> R) -> R {
    std::thread_local! {
        static TRAIL: Cell<Option<&'static Trail>> = const { Cell::new(None) };
    }
    TRAIL.with(section)
}

/// Runs `section` with how many blocks of the thread pass by the hunter.
#[cfg(feature = "malloc-debug")]
#[inline(always)]
pub(crate) fn with_passes<R>(section: impl FnOnce(&Cell<u32>) -> R) -> R {
    std::thread_local! {
        static PASSES: Cell<u32> = const { Cell::new(0) };
    }
    PASSES.with(section)
}

/// Runs `section` with the thread's cache.
#[inline(always)]
pub(crate) fn with_cache<R>(section: impl FnOnce(&Cache) -> R) -> R {
    // The section is not handed on: the compiler would not inline what is handed a long one.
    let cache = CACHE.with(|cache| NonNull::from(in_register(cache)));
    // SAFETY: the thread-local has no destructor, so it stays where it is until the thread has ended.
    section(unsafe { cache.as_ref() })
}

/// `with_cache` for a section that frees.
#[inline(always)]
pub(crate) fn with_cache_to_free<R>(section: impl FnOnce(&Cache) -> R) -> R {
    with_cache(section)
}

/// What a fork must hold and let go.
pub(super) mod pool {
    pub(in crate::thread) fn hold() {}

    /// # Safety
    /// - This thread, or the one it was forked from, called `hold`.
    pub(in crate::thread) unsafe fn release() {}
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
