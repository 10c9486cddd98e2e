//! The front: a heap with the hunter before it, which is a heap as well.

use super::begins::State;
use super::guard::{self, BACK, Pattern, lead, padded};
use super::hunter::{GUARDS, Hunter, OFF, PAGES, now, record_before};
use super::record::{Event, Mark};
use super::report::{Call, Passed};
use super::stacks::Door;
use super::trail::{Held, Trail};
use crate::config::Hunt;
use crate::heap::Blocks;
use crate::os::Span;
use crate::thread;
use core::alloc::Layout;
use core::ptr::{NonNull, null_mut};

/// After so many calls a thread looks at the clock.
const CLOCK_EVERY: u32 = 8;
/// After so many calls it asks for its name, which may have been given late.
const NAME_EVERY: u32 = 4096;

/// `layout` with a byte at least, as every heap serves it.
#[inline(always)]
pub(super) fn whole(layout: Layout) -> Layout {
    // SAFETY: a size of 1 is below every limit.
    unsafe { Layout::from_size_align_unchecked(layout.size().max(1), layout.align()) }
}

/// A guarded heap: `B` with the hunter before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guarded<'a, B> {
    pub(crate) heap: B,
    /// Which heap it is; 0: the process heap, the only one that holds blocks back.
    pub(crate) number: u8,
    pub(crate) hunter: &'static Hunter,
    pub(crate) hunt: &'a Hunt,
    /// Who this process is in a heap that processes share; 0 in others.
    pub(crate) guest: u32,
}

impl<B: Blocks + Copy> Guarded<'_, B> {
    #[inline(always)]
    fn phase(&self) -> u32 {
        self.hunter.phase(self.hunt)
    }

    /// Opens the hunter if need be; false without memory.
    #[cfg(any(feature = "shared", feature = "symmetric"))]
    pub(super) fn is_open(&self) -> bool {
        self.phase() >= OFF
    }

    /// What a record says of a call for a block of `size` bytes: in a heap that processes share, of which of them, too.
    #[inline(always)]
    fn event(&self, door: Door, trail: Option<&Trail>, size: usize) -> Event {
        let event = self.hunter.event(door, trail, size);
        if self.guest == 0 { event } else { event.of_guest(self.guest) }
    }

    /// Whose a block is that the thread of `trail` asks for.
    fn mark(&self, trail: Option<&Trail>) -> Mark {
        // What other processes may go on with is in no epoch.
        let trail = trail.filter(|_| self.guest == 0);
        Mark { heap: self.number, epoch: trail.map_or(0, |trail| trail.epoch.get()) }
    }

    /// A block for `layout`, as the settings say.
    #[inline(always)]
    fn serve(&self, layout: Layout, zeroed: bool) -> *mut u8 {
        if Self::passes_by() { self.plain(layout, zeroed) } else { self.serve_hunted(layout, zeroed) }
    }

    /// As `serve`, past the fast path. (It takes itself by value: the fast path needs no memory for it.)
    #[inline(never)]
    fn serve_hunted(self, layout: Layout, zeroed: bool) -> *mut u8 {
        match self.phase() {
            GUARDS => self.allocate(whole(layout), zeroed),
            PAGES => self.allocate_some(whole(layout), zeroed),
            OFF => {
                thread::with_passes(|passes| passes.set(u32::MAX));
                self.plain(layout, zeroed)
            }
            _ => null_mut(),
        }
    }

    /// Whether the next block is none of the hunter's, and counts it: nothing is hunted, or its turn for pages of its own
    /// has not come.
    #[inline(always)]
    pub(crate) fn passes_by() -> bool {
        thread::with_passes(|passes| {
            let left = passes.get();
            if left > 0 {
                passes.set(left - 1);
            }
            left > 0
        })
    }

    /// A block where only some are guarded.
    #[cold]
    fn allocate_some(&self, layout: Layout, zeroed: bool) -> *mut u8 {
        if let Some(trail) = self.hunter.trail().or_else(|| self.begin())
            && self.hunter.is_turn_among_passing(trail)
        {
            return self.allocate_chosen(layout, zeroed);
        }
        self.plain(layout, zeroed)
    }

    /// A block of the inner heap.
    #[inline(always)]
    fn plain(&self, layout: Layout, zeroed: bool) -> *mut u8 {
        if zeroed {
            // SAFETY: any layout may be asked for.
            unsafe { self.heap.alloc_zeroed(layout) }
        } else {
            // SAFETY: as above.
            unsafe { self.heap.alloc(layout) }
        }
    }

    /// A block with pages of its own, or, if it cannot have any, with guards.
    #[cold]
    #[inline(never)]
    fn allocate_chosen(&self, layout: Layout, zeroed: bool) -> *mut u8 {
        let trail = self.call();
        if let Some(at) = self.allocate_lone(layout, zeroed, trail) {
            return at.as_ptr();
        }
        self.hunter.extend_to_all();
        self.allocate_guarded(layout, zeroed, trail)
    }

    /// A block with pages of its own; `None` if it cannot have any.
    #[cold]
    #[inline(never)]
    fn allocate_lone(&self, layout: Layout, zeroed: bool, trail: Option<&Trail>) -> Option<NonNull<u8>> {
        let event = self.event(Door::Alloc, trail, layout.size());
        self.hunter.allocate_lone(layout, event, self.mark(trail), zeroed)
    }

    /// Whether the block at `at`, which the hunter `may_have`, is guarded.
    fn has_indeed(&self, at: NonNull<u8>) -> bool {
        match self.phase() {
            GUARDS => true,
            PAGES => self.hunter.has_some(at.as_ptr() as usize),
            _ => false,
        }
    }

    #[inline]
    fn allocate(&self, layout: Layout, zeroed: bool) -> *mut u8 {
        let trail = self.begun();
        if trail.is_some_and(|trail| self.hunter.is_turn_of_lone(trail))
            && let Some(at) = self.allocate_lone(layout, zeroed, trail)
        {
            return at.as_ptr();
        }
        self.allocate_guarded(layout, zeroed, trail)
    }

    /// A block with guards.
    #[inline]
    pub(super) fn allocate_guarded(&self, layout: Layout, zeroed: bool, trail: Option<&Trail>) -> *mut u8 {
        let hunter = self.hunter;
        let Some(padded) = padded(layout) else { return null_mut() };
        let Some(base) = self.ask(padded, zeroed) else { return null_mut() };
        // SAFETY: inside what was asked for.
        let at = unsafe { base.add(lead(layout.align())) };
        hunter.dress(at, layout, self.event(Door::Alloc, trail, layout.size()), self.mark(trail), zeroed);
        let from = base.as_ptr() as usize;
        if !hunter.begins.enter(at.as_ptr() as usize, from, from + padded.size()) {
            // SAFETY: allocated above for the layout.
            unsafe { self.heap.dealloc(base.as_ptr(), padded) };
            return null_mut();
        }
        at.as_ptr()
    }

    /// Asks the inner heap for a block, again if need be when nothing is held back any more.
    #[inline(always)]
    fn ask(&self, padded: Layout, zeroed: bool) -> Option<NonNull<u8>> {
        NonNull::new(self.plain(padded, zeroed)).or_else(|| self.ask_again(padded, zeroed))
    }

    #[cold]
    #[inline(never)]
    fn ask_again(&self, padded: Layout, zeroed: bool) -> Option<NonNull<u8>> {
        self.drain();
        NonNull::new(self.plain(padded, zeroed))
    }

    /// Counts a call of the calling thread, which asks for a block: its trail.
    #[inline]
    fn begun(&self) -> Option<&'static Trail> {
        self.call().or_else(|| self.begin())
    }

    /// The trail of a thread whose first block this is. It has one once it has a cache.
    #[cold]
    #[inline(never)]
    fn begin(&self) -> Option<&'static Trail> {
        let first = Layout::new::<u64>();
        let block = self.plain(first, false);
        if !block.is_null() {
            // SAFETY: allocated for the layout.
            unsafe { self.heap.dealloc(block, first) };
        }
        self.call()
    }

    /// Counts a call of the calling thread: its trail.
    #[inline]
    pub(super) fn call(&self) -> Option<&'static Trail> {
        let trail = self.hunter.trail()?;
        let calls = trail.calls.get().wrapping_add(1);
        trail.calls.set(calls);
        if calls == trail.due.get() {
            self.tick(trail, calls);
        }
        Some(trail)
    }

    /// Looks at the clock, and sees to what is to be done from time to time.
    #[inline(never)]
    fn tick(&self, trail: &Trail, calls: u32) {
        trail.time.set(now());
        if calls % NAME_EVERY == 1 {
            self.hunter.threads.refresh(trail.number.get());
        }
        let every = self.hunter.hunt().sweep;
        let until_sweep = if every == 0 { CLOCK_EVERY } else { every - calls % every };
        trail.due.set(calls.wrapping_add(until_sweep.min(CLOCK_EVERY - (calls - 1) % CLOCK_EVERY)));
        if every != 0 && calls.is_multiple_of(every) {
            self.hunter.sweep();
        }
    }

    /// `dealloc` of a block that may be the hunter's.
    ///
    /// # Safety
    /// - As for `dealloc`.
    #[inline(never)]
    unsafe fn free_hunted(self, block: *mut u8, layout: Layout) {
        match NonNull::new(block).filter(|at| self.has_indeed(*at)) {
            Some(at) => self.release(at, Some(layout), Call::Free),
            // SAFETY: handed on.
            None => unsafe { self.heap.dealloc(block, layout) },
        }
    }

    /// `realloc` of a block that may be the hunter's.
    ///
    /// # Safety
    /// - As for `realloc`.
    #[inline(never)]
    unsafe fn resize_hunted(self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        match NonNull::new(block).filter(|at| self.has_indeed(*at)) {
            Some(at) => self.reallocate(at, Some(layout), new_size),
            // SAFETY: handed on.
            None => unsafe { self.heap.realloc(block, layout, new_size) },
        }
    }

    /// Frees a block that `layout` is passed with, or that only its address is known of.
    #[inline]
    pub(super) fn release(&self, at: NonNull<u8>, layout: Option<Layout>, call: Call) {
        let hunter = self.hunter;
        let trail = if self.guest == 0 { self.begun() } else { self.call() };
        let passed = Passed { call, at: at.as_ptr() as usize, layout: layout.map(whole), heap: self.number };
        if hunter.lone.has(passed.at) {
            return hunter.release_lone(at, passed, trail);
        }
        if let Err(state) = hunter.begins.hold(passed.at) {
            hunter.report_bad_pointer(passed, state);
            return;
        }
        let Some(facts) = hunter.check_live(at, passed) else { return };
        let size = facts.layout.size();
        let event = self.event(Door::Free, trail, size);
        let held = Held { address: passed.at, bytes: lead(facts.layout.align()) + size + BACK };
        let hunt = hunter.hunt();
        let (share, blocks) = (hunter.trails.share(), hunt.quarantine_blocks);
        let may_wait = self.number == 0 && held.bytes <= share && blocks > 0 && hunt.is_watched(size);
        let waits_with = trail.filter(|_| may_wait);
        // What goes in its place; or the block itself, at once.
        let goes = waits_with.map_or(Some((held, false)), |trail| trail.hold_back(held, share, blocks));
        record_before(at).note_free(&facts, event);
        // SAFETY: the block has that many bytes, and nobody else has it any more.
        unsafe { guard::fill(at, size.min(hunt.poison), Pattern::Poison) };
        if let Some(trail) = waits_with {
            trail.whole();
        }
        let Some((goes, is_beyond)) = goes else { return };
        self.let_go(goes);
        if let Some(trail) = waits_with.filter(|_| is_beyond) {
            self.let_go_beyond(trail, share, blocks);
        }
    }

    /// Lets blocks of a trail go while it holds more than these.
    #[cold]
    #[inline(never)]
    pub(super) fn let_go_beyond(&self, trail: &Trail, bytes: usize, blocks: usize) {
        while let Some(oldest) = trail.release_beyond(bytes, blocks) {
            self.let_go(oldest);
        }
    }

    /// Gives a block that was held back to the heap, if nobody wrote to it.
    #[inline]
    fn let_go(&self, held: Held) {
        let Some(at) = NonNull::new(held.address as *mut u8) else { return };
        let Some(layout) = self.hunter.check_freed(at) else {
            // Its record is gone, so its place is nobody's any more.
            return;
        };
        if self.phase() == GUARDS {
            self.hunter.begins.set(held.address, State::Freed);
        } else {
            // Whoever gets this memory may have no guards.
            self.hunter.begins.forget(Span { at: held.address, bytes: 1 });
        }
        let lead = lead(layout.align());
        // SAFETY: it is what the heap was asked for.
        let padded = unsafe { Layout::from_size_align_unchecked(lead + layout.size() + BACK, layout.align().max(16)) };
        // SAFETY: the block begins so far behind the heap's, which was asked for with this layout.
        unsafe { self.heap.dealloc(at.as_ptr().wrapping_sub(lead), padded) };
    }

    /// Lets everything go that is held back, by all threads.
    #[cold]
    #[inline(never)]
    pub(crate) fn drain(&self) {
        self.hunter.trails.all().for_each(|trail| self.let_go_beyond(trail, 0, 0));
    }

    #[inline(never)]
    fn reallocate(&self, at: NonNull<u8>, layout: Option<Layout>, new_size: usize) -> *mut u8 {
        let hunter = self.hunter;
        let passed =
            Passed { call: Call::Realloc, at: at.as_ptr() as usize, layout: layout.map(whole), heap: self.number };
        let Some(facts) = hunter.look_at_live(at, passed) else { return null_mut() };
        let Ok(new) = Layout::from_size_align(new_size, facts.layout.align()) else { return null_mut() };
        // SAFETY: any layout may be asked for.
        let Some(fresh) = NonNull::new(unsafe { self.alloc(new) }) else { return null_mut() };
        // SAFETY: both are live and apart, and have that many bytes.
        unsafe { fresh.copy_from_nonoverlapping(at, facts.layout.size().min(new_size)) };
        self.release(at, layout, Call::Realloc);
        fresh.as_ptr()
    }
}

/// The calls of C, which do not say what a block was asked for with.
#[cfg(feature = "c-abi")]
impl<B: Blocks + Copy> Guarded<'_, B> {
    /// Whether blocks in the heap's slabs may be guarded.
    #[inline(always)]
    pub(crate) fn may_have_in_slabs(&self) -> bool {
        self.hunter.may_have_all()
    }

    /// Whether the block at `at` is guarded.
    pub(crate) fn has(&self, at: NonNull<u8>) -> bool {
        self.hunter.may_have(at.as_ptr() as usize) && self.has_indeed(at)
    }

    /// `free` by the address alone.
    pub(crate) fn release_unsized(&self, at: NonNull<u8>) {
        self.release(at, None, Call::Free);
    }

    /// `realloc` by the address alone.
    pub(crate) fn reallocate_unsized(&self, at: NonNull<u8>, new_size: usize) -> *mut u8 {
        self.reallocate(at, None, new_size)
    }

    /// Bytes that the block was asked for with; a pointer to none is reported.
    pub(crate) fn size(&self, at: NonNull<u8>) -> usize {
        let passed = Passed { call: Call::Realloc, at: at.as_ptr() as usize, layout: None, heap: self.number };
        self.hunter.look_at_live(at, passed).map_or(0, |facts| facts.layout.size())
    }
}

// SAFETY: blocks lie in blocks of the inner heap, which are larger; see `guard.rs`.
unsafe impl<B: Blocks + Copy> Blocks for Guarded<'_, B> {
    #[inline(always)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.serve(layout, false)
    }

    #[inline(always)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.serve(layout, true)
    }

    #[inline(always)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if self.hunter.may_have(block as usize) {
            // SAFETY: handed on.
            unsafe { self.free_hunted(block, layout) };
        } else {
            // SAFETY: handed on.
            unsafe { self.heap.dealloc(block, layout) };
        }
    }

    #[inline(always)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if self.hunter.may_have(block as usize) {
            // SAFETY: handed on.
            unsafe { self.resize_hunted(block, layout, new_size) }
        } else {
            // SAFETY: handed on.
            unsafe { self.heap.realloc(block, layout, new_size) }
        }
    }

    fn usable_size(&self, layout: Layout) -> usize {
        if self.phase() == OFF { self.heap.usable_size(layout) } else { layout.size() }
    }
}
