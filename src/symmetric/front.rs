//! What stands between collective calls and the module: with the feature `malloc-debug` the corruption hunter, else nothing.

#[cfg(feature = "malloc-debug")]
pub(super) use on::{Front, Number, forget};

#[cfg(not(feature = "malloc-debug"))]
pub(super) use off::{Front, Number, forget};

#[cfg(feature = "malloc-debug")]
mod on {
    use crate::debug::Always;
    use crate::global::hunter;
    use crate::heap::Blocks;
    use crate::os::Span;
    use crate::symmetric::memheap::{Memheap, Module};
    use core::alloc::Layout;
    use core::marker::PhantomData;
    use core::ptr::{NonNull, null_mut};

    /// A memory heap, of whatever component, as one that can be guarded.
    #[derive(Clone, Copy, Debug)]
    struct Inner(NonNull<Memheap>);

    impl Inner {
        fn with<R>(self, section: impl FnOnce(&mut dyn Module) -> R) -> R {
            let mut memheap = self.0;
            // SAFETY: made by `Front::new`, and used while that has the module for itself.
            section(unsafe { memheap.as_mut() }.module())
        }
    }

    // SAFETY: the module's blocks are disjoint, and large enough.
    unsafe impl Blocks for Inner {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            self.with(|module| module.alloc(layout)).map_or(null_mut(), NonNull::as_ptr)
        }

        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            self.with(|module| module.alloc_zeroed(layout)).map_or(null_mut(), NonNull::as_ptr)
        }

        unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
            if let Some(at) = NonNull::new(block) {
                // SAFETY: the caller's promise.
                self.with(|module| unsafe { module.free(at) });
            }
        }

        unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
            let new = Layout::from_size_align(new_size, layout.align()).ok();
            let both = NonNull::new(block).zip(new);
            // SAFETY: the caller's promise.
            let moved = both.and_then(|(at, new)| self.with(|module| unsafe { module.realloc(at, new) }));
            moved.map_or(null_mut(), NonNull::as_ptr)
        }

        fn usable_size(&self, layout: Layout) -> usize {
            layout.size()
        }
    }

    /// What collective calls are made on. Blocks have guards; none is held back, and none has pages elsewhere: what is done follows from
    /// the calls alone, on every PE.
    pub(in crate::symmetric) struct Front<'a>(Always<Inner>, PhantomData<&'a mut Memheap>);

    /// By what the heap's blocks are told from those of others.
    #[derive(Debug)]
    pub(in crate::symmetric) struct Number(u8);

    impl Number {
        pub(in crate::symmetric) fn new() -> Self {
            Self(hunter::number_heap())
        }
    }

    impl<'a> Front<'a> {
        pub(in crate::symmetric) fn new(memheap: &'a mut Memheap, number: &Number) -> Self {
            let inner = Inner(NonNull::from(memheap));
            Self(Always(hunter::guard_shared(inner, number.0, 0)), PhantomData)
        }

        pub(in crate::symmetric) fn alloc(&mut self, layout: Layout, zeroed: bool) -> Option<NonNull<u8>> {
            // SAFETY: any layout may be asked for.
            NonNull::new(if zeroed { unsafe { self.0.alloc_zeroed(layout) } } else { unsafe { self.0.alloc(layout) } })
        }

        /// What is no live block is reported by what is done to it.
        pub(in crate::symmetric) fn is_block(&self, _: NonNull<u8>) -> bool {
            true
        }

        pub(in crate::symmetric) unsafe fn free(&mut self, at: NonNull<u8>) {
            self.0.release_unsized(at);
        }

        pub(in crate::symmetric) unsafe fn realloc(&mut self, at: NonNull<u8>, layout: Layout) -> Option<NonNull<u8>> {
            NonNull::new(self.0.reallocate_unsized(at, layout.size()))
        }
    }

    /// The heap's memory goes, with all blocks in it.
    pub(in crate::symmetric) fn forget(range: Span) {
        hunter::forget(range);
    }
}

#[cfg(not(feature = "malloc-debug"))]
mod off {
    use crate::os::Span;
    use crate::symmetric::memheap::Memheap;
    use core::alloc::Layout;
    use core::ptr::NonNull;

    /// Heaps need not be told apart.
    #[derive(Debug)]
    pub(in crate::symmetric) struct Number;

    impl Number {
        pub(in crate::symmetric) fn new() -> Self {
            Self
        }
    }

    /// What collective calls are made on: the module itself.
    pub(in crate::symmetric) struct Front<'a>(&'a mut Memheap);

    impl<'a> Front<'a> {
        pub(in crate::symmetric) fn new(memheap: &'a mut Memheap, _: &Number) -> Self {
            Self(memheap)
        }

        pub(in crate::symmetric) fn alloc(&mut self, layout: Layout, zeroed: bool) -> Option<NonNull<u8>> {
            let module = self.0.module();
            if zeroed { module.alloc_zeroed(layout) } else { module.alloc(layout) }
        }

        /// Whether a live block begins there, as far as can be told.
        pub(in crate::symmetric) fn is_block(&self, at: NonNull<u8>) -> bool {
            self.0.bytes_of(at).is_some()
        }

        pub(in crate::symmetric) unsafe fn free(&mut self, at: NonNull<u8>) {
            // SAFETY: handed on.
            unsafe { self.0.module().free(at) };
        }

        pub(in crate::symmetric) unsafe fn realloc(&mut self, at: NonNull<u8>, layout: Layout) -> Option<NonNull<u8>> {
            // SAFETY: handed on.
            unsafe { self.0.module().realloc(at, layout) }
        }
    }

    /// Nothing is known of it.
    pub(in crate::symmetric) fn forget(_: Span) {}
}
