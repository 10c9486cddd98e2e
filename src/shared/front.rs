//! What stands between the users of a shared heap and the engine: with the feature `malloc-debug` the corruption hunter, else nothing.

#[cfg(feature = "malloc-debug")]
pub(super) use on::{Front, engine, front, layout_of, reallocate, release};

#[cfg(not(feature = "malloc-debug"))]
pub(super) use off::{Front, engine, front, layout_of, reallocate, release};

use super::lock::SharedLock;
use super::pages::FilePages;
use crate::heap::Attached;

/// The engine, through a thread's cache.
pub(super) type Inner<'a> = Attached<'a, FilePages, SharedLock>;

#[cfg(feature = "malloc-debug")]
mod on {
    use super::Inner;
    use crate::debug::{Always, SHARED};
    use crate::global::hunter;
    use crate::shared::opened::Opened;
    use core::alloc::Layout;
    use core::ptr::NonNull;

    pub(in crate::shared) type Front<'a> = Always<Inner<'a>>;

    /// What users call, in the heap of `place`.
    pub(in crate::shared) fn front<'a>(inner: Inner<'a>, place: &Opened) -> Front<'a> {
        // The same in every process: it follows from the address.
        let number = SHARED | (place.span().at >> 30) as u8 & (SHARED - 1);
        Always(hunter::guard_shared(inner, number, place.guest().0))
    }

    pub(in crate::shared) fn engine<'f, 'a>(front: &'f Front<'a>) -> &'f Inner<'a> {
        &front.0.heap
    }

    /// A layout of the kind that the live block at `at` is of.
    pub(in crate::shared) fn layout_of(front: &Front<'_>, at: NonNull<u8>) -> Option<Layout> {
        Layout::from_size_align(front.size(at), 1).ok()
    }

    pub(in crate::shared) fn release(front: &Front<'_>, at: NonNull<u8>) {
        front.release_unsized(at);
    }

    pub(in crate::shared) fn reallocate(front: &Front<'_>, at: NonNull<u8>, bytes: usize) -> *mut u8 {
        front.reallocate_unsized(at, bytes)
    }
}

#[cfg(not(feature = "malloc-debug"))]
mod off {
    use super::Inner;
    use crate::fatal::{Fatal, die};
    use crate::heap::{Blocks, Place};
    use crate::shared::opened::Opened;
    use core::alloc::Layout;
    use core::ptr::NonNull;

    pub(in crate::shared) type Front<'a> = Inner<'a>;

    #[inline(always)]
    pub(in crate::shared) fn front<'a>(inner: Inner<'a>, _: &Opened) -> Front<'a> {
        inner
    }

    pub(in crate::shared) fn engine<'f, 'a>(front: &'f Front<'a>) -> &'f Inner<'a> {
        front
    }

    /// A layout of the kind that the live block at `at` is of. Where no block begins the process ends, as it does in the process
    /// heap.
    #[inline]
    pub(in crate::shared) fn layout_of(front: &Front<'_>, at: NonNull<u8>) -> Option<Layout> {
        let place = front.engine().place_at(at.as_ptr() as usize);
        let layout = place.and_then(|place: Place| Layout::from_size_align(place.bytes(), place.align()).ok());
        Some(layout.unwrap_or_else(|| die(Fatal::Foreign)))
    }

    #[inline]
    pub(in crate::shared) fn release(front: &Front<'_>, at: NonNull<u8>) {
        if let Some(layout) = layout_of(front, at) {
            // SAFETY: the caller gives up a live block; the layout is one of its kind.
            unsafe { front.dealloc(at.as_ptr(), layout) };
        }
    }

    pub(in crate::shared) fn reallocate(front: &Front<'_>, at: NonNull<u8>, bytes: usize) -> *mut u8 {
        match layout_of(front, at) {
            // SAFETY: the block is live; the layout is one of its kind.
            Some(old) if bytes <= isize::MAX as usize - old.align() => unsafe {
                front.realloc(at.as_ptr(), old, bytes)
            },
            _ => core::ptr::null_mut(),
        }
    }
}
