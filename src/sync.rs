//! The door to atomics: the standard ones, or loom's when a model runs. No other file names them.

#[cfg(feature = "malloc-debug")]
pub(crate) use core::sync::atomic::AtomicU8;
#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};

/// Atomics in mapped memory. Loom's are no plain words: there a model sees the standard ones, and no order between them but
/// what locks and publications make.
pub(crate) mod mapped {
    pub(crate) use core::sync::atomic::AtomicU64;
}

#[cfg(feature = "malloc-debug")]
pub(crate) use core::sync::atomic::Ordering::SeqCst;
pub(crate) use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// Whether the word is not 0, by a relaxed load. A comparison with memory and a branch: of an atomic load the compiler makes a third
/// instruction.
#[cfg(all(feature = "hooks", target_arch = "x86_64", target_pointer_width = "64", not(any(loom, miri))))]
#[inline]
pub(crate) fn is_set(word: &AtomicU32) -> bool {
    // SAFETY: the word is there, and what reads it here does so as a relaxed load does; flags are not kept.
    unsafe {
        core::arch::asm!(
            "cmp dword ptr [{at}], 0",
            "jne {set}",
            at = in(reg) word.as_ptr(),
            set = label { return true },
            options(nostack, readonly),
        );
    }
    false
}

/// Whether the word is not 0, by a relaxed load.
#[cfg(all(feature = "hooks", not(all(target_arch = "x86_64", target_pointer_width = "64", not(any(loom, miri))))))]
#[inline]
pub(crate) fn is_set(word: &AtomicU32) -> bool {
    word.load(Relaxed) != 0
}

/// What is read before it is read before what is read behind it.
#[cfg(feature = "cli")]
pub(crate) fn fence_loads() {
    core::sync::atomic::fence(Acquire);
}

/// What stands before it is done, for all who look, before what stands behind it.
#[cfg(feature = "symmetric")]
pub(crate) fn full_fence() {
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
}

/// Declares a function that is `const` wherever the atomics of this build have a `const` constructor
/// (loom's have none).
macro_rules! const_unless_loom {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) -> $ret:ty $body:block) => {
        #[cfg(not(loom))]
        $(#[$meta])* $vis const fn $name($($arg: $ty),*) -> $ret $body
        #[cfg(loom)]
        $(#[$meta])* $vis fn $name($($arg: $ty),*) -> $ret $body
    };
}
pub(crate) use const_unless_loom;

/// An array of `N` values, each made by the expression anew.
#[cfg(not(loom))]
macro_rules! array_of {
    ($value:expr) => {
        [const { $value }; _]
    };
}
#[cfg(loom)]
macro_rules! array_of {
    ($value:expr) => {
        core::array::from_fn(|_| $value)
    };
}
pub(crate) use array_of;

/// What stands before it in the program is in memory before what stands behind it, as far as somebody can tell who looks once
/// this thread is dead. No instruction: a processor leaves memory as if it had come just so far. Only shared heaps are looked
/// at then.
#[inline(always)]
#[cfg_attr(feature = "fault-points", track_caller)]
pub(crate) fn in_order() {
    #[cfg(feature = "shared")]
    core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
    step();
}

/// What this thread wrote before is seen by whoever sees what it writes after, and calls `see`.
pub(crate) fn publish() {
    core::sync::atomic::fence(Release);
    step();
}

/// What others published before they wrote what this thread has read is seen from now on.
#[cfg(feature = "shared")]
pub(crate) fn see() {
    core::sync::atomic::fence(Acquire);
}

/// A step that changes what processes share: for tests that let a process die at each. Nothing in other builds.
#[inline(always)]
#[cfg_attr(feature = "fault-points", track_caller)]
pub(crate) fn step() {
    #[cfg(feature = "fault-points")]
    fault::pass(core::panic::Location::caller());
}

/// Steps at which a test may let its process die.
#[cfg(feature = "fault-points")]
pub mod fault {
    use core::panic::Location;
    use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

    /// What a test wants to be called at each step, with its place in the sources.
    pub type Hook = fn(&'static Location<'static>);

    static HOOK: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

    /// Has `hook` called at each step from now on, in whatever thread.
    pub fn at_each_step(hook: Hook) {
        HOOK.store(hook as *mut (), Relaxed);
    }

    pub(super) fn pass(place: &'static Location<'static>) {
        let hook = HOOK.load(Relaxed);
        if !hook.is_null() {
            // SAFETY: set by `at_each_step` alone.
            let hook = unsafe { core::mem::transmute::<*mut (), Hook>(hook) };
            hook(place);
        }
    }
}

/// Adds to a counter that only this thread writes.
pub(crate) fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed) + by, Relaxed);
}
