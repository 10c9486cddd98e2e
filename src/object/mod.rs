//! A heap as an object: what is allocated in it goes when it goes, all at once.

// What stands between the users and the engine.
#[cfg(feature = "malloc-debug")]
mod guarded;
#[cfg(feature = "malloc-debug")]
use guarded as front;
mod owned;
#[cfg(not(feature = "malloc-debug"))]
mod plain;
#[cfg(not(feature = "malloc-debug"))]
use plain as front;

use crate::config::Config;
use crate::finding::Finding;
use crate::heap::{Blocks, Cache, Engine};
use crate::lock::{Locked, Rank, Spin};
use crate::stats::Stats;
use crate::sync::{AtomicUsize, Relaxed};
use allocator_api2::alloc::{AllocError, Allocator};
use core::alloc::Layout;
use core::cell::Cell;
use core::ptr::NonNull;
use owned::Owned;

/// Caches of one heap; threads share them by their number.
const SHARDS: usize = 16;

/// A heap of its own, apart from the process heap.
///
/// It is an `Allocator` (crate `allocator-api2`) for collections that take one, by reference or by value, and may be used
/// by many threads at once. Dropping it gives all its memory back at once, whatever was not freed before; the borrow
/// checker sees to it that nothing in it is used later.
///
/// Its caches live in the heap: there are 16, each behind a lock of its own, and a thread uses the one of its number; so a
/// thread that ends leaves nothing behind, and threads that meet at one cache wait for each other. A call costs an
/// uncontended lock more than one of the process heap. Each heap takes about 3 MiB of addresses for its page map, and
/// some 100 KiB of memory.
///
/// In a forked child, a heap that another thread of the parent was using must not be used.
///
/// ```
/// use allocator_api2::vec::Vec;
/// use stratalloc::Heap;
///
/// let heap = Heap::new()?;
/// let mut squares = Vec::new_in(&heap);
/// squares.extend((0..1000u64).map(|n| n * n));
/// assert_eq!(squares[999], 998_001);
/// drop(squares);
/// drop(heap); // gives everything back
/// # Ok::<(), allocator_api2::alloc::AllocError>(())
/// ```
#[derive(Debug)]
pub struct Heap {
    body: NonNull<Body>,
}

/// The heap itself, in a mapping of its own, since caches must not move.
#[derive(Debug)]
struct Body {
    engine: Engine<Owned, Spin>,
    shards: [Locked<Shard, Spin>; SHARDS],
    number: front::Number,
}

impl Body {
    /// Writes an unopened heap, a part at a time: the whole is large for a thread's stack.
    fn write(at: NonNull<Self>) {
        let body = at.as_ptr();
        // SAFETY: the mapping is ours, and as large and aligned as a body.
        let engine = unsafe { &raw mut (*body).engine };
        // SAFETY: as above.
        unsafe { engine.write(Engine::new(Owned::new())) };
        // SAFETY: as above.
        let number = unsafe { &raw mut (*body).number };
        // SAFETY: as above.
        unsafe { number.write(front::Number::new()) };
        // SAFETY: as above.
        let shards = unsafe { &raw mut (*body).shards }.cast::<Locked<Shard, Spin>>();
        for shard in 0..SHARDS {
            // SAFETY: as above; there are that many.
            unsafe { shards.wrapping_add(shard).write(Locked::new(Rank::Shard, Shard(Cache::new()))) };
        }
    }
}

/// A cache that its lock lends to one thread at a time.
#[derive(Debug)]
struct Shard(Cache);

// SAFETY: a cache is bound to no thread, only to one user at a time.
unsafe impl Send for Shard {}

// SAFETY: the body is reached through locks and atomics alone, by any thread.
unsafe impl Send for Heap {}
// SAFETY: as above.
unsafe impl Sync for Heap {}

impl Heap {
    /// A heap with default settings.
    ///
    /// # Errors
    /// [`AllocError`] when there is no memory for its records.
    pub fn new() -> Result<Self, AllocError> {
        const DEFAULT: Config = Config::new();
        Self::with_config(&DEFAULT)
    }

    /// A heap with settings of your own.
    ///
    /// # Errors
    /// [`AllocError`] when there is no memory for its records.
    pub fn with_config(config: &Config) -> Result<Self, AllocError> {
        let body = Owned::map_for::<Body>().ok_or(AllocError)?;
        Body::write(body);
        let heap = Self { body };
        heap.body().engine.source().set_huge_pages(config.huge_pages);
        if !heap.body().engine.open(config) {
            return Err(AllocError);
        }
        for shard in &heap.body().shards {
            // SAFETY: the cache is fresh, lies in the body until the heap is dropped, and its lock lends it out once at a
            // time.
            shard.with(|shard| unsafe { heap.body().engine.attach(&shard.0) });
        }
        Ok(heap)
    }

    /// The figures of this heap. `threads` counts its caches.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.body().shards.iter().for_each(|shard| shard.with(|shard| shard.0.publish_all()));
        self.body().engine.stats(None)
    }

    /// Gives back every page that no live block holds. O(free memory).
    pub fn collect(&self) {
        for shard in &self.body().shards {
            shard.with(|shard| self.body().engine.reclaim(Some(&shard.0)));
        }
        self.body().engine.collect();
    }

    /// Audits the heap, beside whatever other threads do with it: as `Stratalloc::check` audits the process heap, and all of
    /// this one's caches. O(pages of the heap's address ranges).
    ///
    /// # Errors
    /// The first rule that does not hold. The heap is damaged then: nothing that it does is certain any more.
    pub fn check(&self) -> Result<(), Finding> {
        let engine = &self.body().engine;
        engine.check(None)?;
        front::check()?;
        self.body().shards.iter().try_for_each(|shard| shard.with(|shard| engine.check_cache(&shard.0)))
    }

    /// Bytes that a block for `layout` really has.
    #[must_use]
    pub fn usable_size(&self, layout: Layout) -> usize {
        front::usable_size(&self.body().engine, layout)
    }

    fn body(&self) -> &Body {
        // SAFETY: written by `with_config`, and there until the drop.
        unsafe { self.body.as_ref() }
    }

    /// Runs `section` with the heap as seen through the calling thread's cache.
    fn with<R>(&self, section: impl FnOnce(&front::Front<'_>) -> R) -> R {
        let body = self.body();
        body.shards[thread_number() % SHARDS].with(|shard| {
            // SAFETY: attached by `with_config`; the lock keeps others out.
            section(&body.number.front(unsafe { body.engine.through(&shard.0) }))
        })
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        // SAFETY: nobody uses the heap any more, and nothing in it: its users borrowed or owned it.
        let body = unsafe { self.body.as_mut() };
        // The caches lie in the mapping that goes: nobody looks at the registry again.
        body.engine.source_mut().unmap_all(front::forget);
        Owned::unmap_for(self.body);
    }
}

/// The number of the calling thread: the first is 0, the next 1, and so on.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    std::thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    if NUMBER.get() == usize::MAX {
        NUMBER.set(NEXT.fetch_add(1, Relaxed));
    }
    NUMBER.get()
}

/// A block as the trait wants it: with the bytes it really has.
fn slice(heap: &Heap, at: *mut u8, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
    let at = NonNull::new(at).ok_or(AllocError)?;
    Ok(NonNull::slice_from_raw_parts(at, heap.usable_size(layout)))
}

/// A layout that a block for another one may be resized to.
fn resized(heap: &Heap, block: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
    let size = new.size().max(1);
    let old = if old.size() == 0 { one_byte(old) } else { old };
    // SAFETY: the caller of the trait's method gives a live block of this heap for `old`.
    slice(heap, heap.with(|blocks| unsafe { blocks.realloc(block.as_ptr(), old, size) }), new)
}

/// What a layout of size 0 is served as.
fn one_byte(layout: Layout) -> Layout {
    Layout::from_size_align(1, layout.align()).unwrap_or(layout)
}

// SAFETY: blocks are disjoint and valid until they are freed or the heap is dropped; moving a heap does not move them.
unsafe impl Allocator for Heap {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: any layout may be asked for.
        slice(self, self.with(|blocks| unsafe { blocks.alloc(layout) }), layout)
    }

    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: any layout may be asked for.
        let at = NonNull::new(self.with(|blocks| unsafe { blocks.alloc_zeroed(layout) })).ok_or(AllocError)?;
        // What the block has beyond the layout is not zeroed, and so not told.
        Ok(NonNull::slice_from_raw_parts(at, layout.size()))
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: handed on.
        self.with(|blocks| unsafe { blocks.dealloc(block.as_ptr(), layout) });
    }

    unsafe fn grow(&self, block: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if old.align() == new.align() {
            return resized(self, block, old, new);
        }
        // SAFETY: handed on.
        unsafe { self.move_to_new(block, old, new) }
    }

    unsafe fn shrink(&self, block: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if old.align() == new.align() {
            return resized(self, block, old, new);
        }
        // SAFETY: handed on.
        unsafe { self.move_to_new(block, old, new) }
    }
}

impl Heap {
    /// Allocates for `new`, copies what fits, and frees the old block.
    ///
    /// # Safety
    /// - `block` is a live block of this heap for `old`.
    unsafe fn move_to_new(&self, block: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let fresh = self.allocate(new)?;
        // SAFETY: both are live and apart, and have that many bytes.
        unsafe { fresh.cast::<u8>().copy_from_nonoverlapping(block, old.size().min(new.size())) };
        // SAFETY: the caller gives the old block up.
        unsafe { self.deallocate(block, old) };
        Ok(fresh)
    }
}
