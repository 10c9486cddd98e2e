//! The component `strata`: this crate's own engine over the range, with one cache.
//!
//! Records of slabs lie in the range, as in every heap of the engine's; the page map, the cache and the engine itself lie outside. The
//! range is taken from its low end on, by steps, and free memory is given back within the engine's idle bound. Nothing the engine does
//! follows from anything but its calls: no other thread works on it, and it looks at no clock.

use super::memheap::{Component, Declined, INTERFACE, Module};
use crate::config::Config;
use crate::heap::{Attached, Blocks, Cache, Engine, LEAF_BYTES, LEAF_SPAN, WINDOW_PAGES, root_bytes};
use crate::lock::Spin;
use crate::os::{self, Source, Span};
use crate::sync::{AtomicUsize, Relaxed};
use core::alloc::Layout;
use core::ptr::NonNull;
use std::boxed::Box;

/// The component.
pub(super) static STRATA: Component = Component {
    name: "strata",
    interface: INTERFACE,
    priority: 30,
    data: &(),
    init: |component, range| {
        let strata = Strata::new(component, range).ok_or(Declined("no memory for its page map".into()))?;
        Ok(Box::new(strata))
    },
};

/// What every block of so many bytes, or more, is aligned to.
const ALIGN: usize = 16;

/// The range as a source, and the page map beside it.
#[derive(Debug)]
struct RangePages {
    range: Span,
    page: usize,
    map: Span,
    /// Bytes of the page map's root.
    root: usize,
    used: AtomicUsize,
}

impl RangePages {
    fn new(range: Span) -> Option<Self> {
        let page = os::page_bytes();
        let root = root_bytes(range.bytes.max(WINDOW_PAGES * page) + page, page).next_multiple_of(page);
        let leaves = (range.bytes + page).div_ceil(LEAF_SPAN * page);
        let map = os::map_sparse(root + leaves * LEAF_BYTES.next_multiple_of(page))?;
        Some(Self { range, page, map, root, used: AtomicUsize::new(0) })
    }

    fn in_map(&self, at: usize, bytes: usize) -> Option<NonNull<u8>> {
        let place = Span { at: self.map.at + at, bytes };
        self.map.contains(place).then(|| NonNull::new(core::ptr::with_exposed_provenance_mut(place.at)))?
    }
}

// SAFETY: what `grow` gives begins where the last one ended; the root and each leaf of the map have a place of their own. The window
// begins a page before the range.
unsafe impl Source for RangePages {
    fn page_size(&self) -> usize {
        self.page
    }

    fn window(&self) -> Option<Span> {
        let bytes = self.range.bytes.max(WINDOW_PAGES * self.page) + self.page;
        Some(Span { at: self.range.at.checked_sub(self.page)?, bytes })
    }

    fn grow(&self, min: usize, mapped: usize) -> Option<Span> {
        let (used, step) = (self.used.load(Relaxed), os::growth_step(mapped));
        let left = (self.range.bytes - used) & !(self.page - 1);
        let min = min.checked_next_multiple_of(self.page)?;
        let bytes = min.max(step.next_multiple_of(self.page)).min(left);
        if min > left || bytes == 0 {
            return None;
        }
        self.used.store(used + bytes, Relaxed);
        Some(Span { at: self.range.at + used, bytes })
    }

    fn records(&self, bytes: usize) -> Option<NonNull<u8>> {
        self.in_map(0, bytes)
    }

    fn leaf(&self, number: usize, bytes: usize) -> Option<NonNull<u8>> {
        self.in_map(self.root + number * LEAF_BYTES.next_multiple_of(self.page), bytes)
    }

    unsafe fn purge(&self, range: Span) -> bool {
        if !os::take_memory_away(range) {
            // On every PE the same has happened then, as far as the heap can tell.
            // SAFETY: the range is ours and unused, as the caller states.
            unsafe { core::ptr::write_bytes(core::ptr::with_exposed_provenance_mut::<u8>(range.at), 0, range.bytes) };
        }
        true
    }
}

/// The engine and its cache, which do not move.
#[derive(Debug)]
struct Body {
    engine: Engine<RangePages, Spin>,
    cache: Cache,
}

/// The engine over a range.
#[derive(Debug)]
struct Strata {
    component: &'static Component,
    at: Span,
    body: NonNull<Body>,
}

// SAFETY: the body is the module's own, and has one user at a time.
unsafe impl Send for Strata {}

impl Strata {
    fn new(component: &'static Component, range: Span) -> Option<Self> {
        let source = RangePages::new(range)?;
        let Some(at) = os::map_sparse(size_of::<Body>().next_multiple_of(source.page)) else {
            os::unmap(source.map);
            return None;
        };
        let body = core::ptr::with_exposed_provenance_mut::<Body>(at.at);
        // SAFETY: the mapping is ours, and as large and aligned as a body.
        let engine = unsafe { &raw mut (*body).engine };
        // SAFETY: as above. A part at a time: the whole is large for a thread's stack.
        unsafe { engine.write(Engine::new(source)) };
        // SAFETY: as above.
        let cache = unsafe { &raw mut (*body).cache };
        // SAFETY: as above.
        unsafe { cache.write(Cache::new()) };
        let mut strata = Self { component, at, body: NonNull::new(body)? };
        if !strata.body().engine.open(&Config::new()) {
            strata.finalize();
            return None;
        }
        // SAFETY: the cache is fresh, and stays in the body; the module has one user at a time.
        unsafe { strata.body().engine.attach(&strata.body().cache) };
        Some(strata)
    }

    fn body(&self) -> &Body {
        // SAFETY: written by `new`, and mapped until `finalize`.
        unsafe { self.body.as_ref() }
    }

    fn blocks(&self) -> Attached<'_, RangePages, Spin> {
        // SAFETY: attached by `new`; whoever calls has the module for itself.
        unsafe { self.body().engine.through(&self.body().cache) }
    }

    /// A layout of the kind that the block at `block` is of.
    fn layout_of(&self, block: NonNull<u8>) -> Option<Layout> {
        let place = self.body().engine.place_at(block.as_ptr() as usize)?;
        Layout::from_size_align(place.bytes(), place.align()).ok()
    }
}

// SAFETY: the engine's blocks are disjoint, and lie in what the source gave of the range.
unsafe impl Module for Strata {
    fn component(&self) -> &'static Component {
        self.component
    }

    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: any layout may be asked for.
        NonNull::new(unsafe { self.blocks().alloc(layout) })
    }

    fn alloc_zeroed(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: as above.
        NonNull::new(unsafe { self.blocks().alloc_zeroed(layout) })
    }

    fn bytes_of(&self, block: NonNull<u8>) -> Option<usize> {
        self.layout_of(block).map(|layout| layout.size())
    }

    unsafe fn free(&mut self, block: NonNull<u8>) {
        if let Some(layout) = self.layout_of(block) {
            // SAFETY: the caller gives up a live block; the layout is one of its kind.
            unsafe { self.blocks().dealloc(block.as_ptr(), layout) };
        }
    }

    unsafe fn realloc(&mut self, block: NonNull<u8>, layout: Layout) -> Option<NonNull<u8>> {
        let old = self.layout_of(block)?;
        // From 16 bytes on, blocks of every class are at multiples of 16.
        if layout.align() > ALIGN || layout.size() < layout.align() {
            // SAFETY: handed on.
            return unsafe { self.move_block(block, layout) };
        }
        // SAFETY: the block is live, and its layout is one of its kind.
        NonNull::new(unsafe { self.blocks().realloc(block.as_ptr(), old, layout.size()) })
    }

    fn collect(&mut self) {
        self.blocks().collect();
    }

    fn finalize(&mut self) {
        os::unmap(self.body().engine.source().map);
        os::unmap(self.at);
    }
}
