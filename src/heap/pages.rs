//! Requests of whole pages: the run lists of a thread, the runs, and the source below them.

use super::cache::{Cache, PAGE_LISTS};
use super::class::{Class, PAGE_MIN};
use super::granule::Fill;
use super::list::{Block, List};
use super::map::Stretch;
use super::map::{Entry, Page};
use super::note::{NOBODY, OF_USER};
use super::run::Runs;
use super::{Engine, Shape};
use crate::fatal::{Fatal, die};
use crate::lock::RawLock;
use crate::os::{Relocation, Source, Span};
use crate::sync::in_order;
use core::alloc::Layout;
use core::ptr::{NonNull, null_mut, with_exposed_provenance_mut};

/// Blocks of at least so many of the source's relocation grains are aligned to it, and moved without copying when they
/// grow. So pieces of the kernel's mappings are never smaller than a grain, and few.
const RELOCATE_GRAINS: usize = 2;
/// Bytes mapped up to which blocks are moved so: at 2 MiB a piece, far from the kernel's limit of 65,530 pieces.
const RELOCATE_UP_TO: usize = 32 << 30;
/// Bytes from which on a zeroed block may be one of which little is ever touched.
const SPARSE: usize = 1 << 20;
/// Dirty pages side by side from which on it is worth a system call not to write them.
const PURGE_FROM: u32 = 16;

/// What a run is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// A user's block: it counts as lent, from the section on in which it is taken.
    Lent,
    /// A slab, or records.
    Own,
}

impl<S: Source, L: RawLock> Engine<S, L> {
    /// The keeper of a run that this thread takes for a user.
    fn keeper_for_user(&self) -> u32 {
        self.hand().map_or(NOBODY, |hand| hand.keeper() | OF_USER)
    }

    /// The length of the run list for a layout that is no class's, in pages, if it has one. (A layout without size has a
    /// shape, and finds its list by that.)
    #[inline(always)]
    fn listed(&self, layout: Layout) -> Option<usize> {
        let index = layout.size().wrapping_sub(1) >> self.map.page_shift();
        if index >= PAGE_LISTS || layout.align() > PAGE_MIN { None } else { Some(index + 1) }
    }

    /// The fast path of `alloc_beyond`: a run of the thread's run lists, or the long one that it uses again and again. The
    /// heap need not be open.
    #[inline(always)]
    pub(crate) fn pop_run(&self, cache: &Cache, layout: Layout) -> Option<*mut u8> {
        match self.listed(layout) {
            Some(pages) => cache.pop_run(pages).map(Block::as_ptr),
            None => self.take_hot(cache, layout),
        }
    }

    /// The fast path for zeroed memory: a run of the thread's run lists, to be written. Longer ones may be zero where nobody
    /// has touched them.
    #[inline(always)]
    pub(crate) fn pop_listed(&self, cache: &Cache, layout: Layout) -> Option<Block> {
        cache.pop_run(self.listed(layout)?)
    }

    /// The fast path of `free_beyond`: a run for the thread's run lists, or for its place for a long one. If false,
    /// `free_beyond` must follow.
    ///
    /// # Safety
    /// - As `free_beyond`.
    #[inline(always)]
    pub(crate) unsafe fn push_listed(&self, cache: &Cache, block: NonNull<u8>, layout: Layout) -> bool {
        // SAFETY: the caller gives up the memory, of at least a block's size.
        let run = unsafe { Block::from_raw(block) };
        match self.listed(layout) {
            Some(pages) => cache.push_run_in_room(pages, run),
            None => self.put_hot(cache, run.address(), layout),
        }
    }

    /// A block for a layout that is no class's.
    #[inline(never)]
    pub(crate) fn alloc_beyond(&self, cache: &Cache, layout: Layout, zeroed: bool) -> *mut u8 {
        match Shape::of(layout, self.map.page_shift()) {
            Some(Shape::Block(class)) => cache.pop(class).map_or_else(|| self.refill(cache, class), Block::as_ptr),
            Some(Shape::Pages(pages)) => self.alloc_pages(cache, layout, pages, zeroed),
            None => null_mut(),
        }
    }

    fn alloc_pages(&self, cache: &Cache, layout: Layout, pages: u32, zeroed: bool) -> *mut u8 {
        if !self.has_list(pages, layout) {
            return self.alloc_long(cache, layout, pages, zeroed);
        }
        let Some(run) = cache.pop_run(pages as usize).or_else(|| self.fetch_run(cache, pages as usize)) else {
            let run = self.alloc_run(Some(cache), layout, pages, zeroed);
            if !run.is_null() {
                cache.count_run_taken(pages as usize);
            }
            return run;
        };
        if zeroed {
            // SAFETY: the run is ours and has the size.
            unsafe { run.as_ptr().write_bytes(0, layout.size()) };
        }
        run.as_ptr()
    }

    /// A run that has no list: of the thread's reserve, or from the runs.
    fn alloc_long(&self, cache: &Cache, layout: Layout, pages: u32, zeroed: bool) -> *mut u8 {
        if self.may_be_kept(pages)
            && !(zeroed && pages as usize >= self.sparse_pages())
            && let Some(first) = self.take_kept(cache, pages, layout.align())
        {
            let run: *mut u8 = with_exposed_provenance_mut(self.map.address_of(first));
            if zeroed {
                // SAFETY: the run is ours and has the size.
                unsafe { run.write_bytes(0, layout.size()) };
            }
            return run;
        }
        self.alloc_run(Some(cache), layout, pages, zeroed)
    }

    /// Whether runs of that length and alignment pass through the run lists.
    fn has_list(&self, pages: u32, layout: Layout) -> bool {
        pages as usize <= PAGE_LISTS && layout.align() <= PAGE_MIN
    }

    /// A run from the runs, zeroed where asked for: only pages that may hold anything are written.
    fn alloc_run(&self, cache: Option<&Cache>, layout: Layout, pages: u32, zeroed: bool) -> *mut u8 {
        let fill = match () {
            () if zeroed && pages as usize >= self.sparse_pages() => Fill::Sparse,
            // Most of its granule would be left free.
            () if layout.align() > (pages as usize) << self.map.page_shift() => Fill::Any,
            () => Fill::Dense,
        };
        let take = || self.take_movable_run(pages, layout, fill, Use::Lent);
        let first = take().or_else(|| {
            self.reclaim(cache);
            take()
        });
        let Some(first) = first else {
            return null_mut();
        };
        if zeroed {
            self.zero(first, pages, layout.size());
        }
        self.hand_over(Stretch { first, pages });
        with_exposed_provenance_mut(self.map.address_of(first))
    }

    /// Pages from which on a zeroed block may be one of which little is ever touched.
    fn sparse_pages(&self) -> usize {
        SPARSE >> self.map.page_shift()
    }

    /// A run for `layout`, at a multiple of the relocation grain if it is long enough to be moved one day.
    fn take_movable_run(&self, pages: u32, layout: Layout, fill: Fill, used: Use) -> Option<Page> {
        let grain = self.source.relocation_grain();
        if grain == 0 || layout.size() < RELOCATE_GRAINS * grain {
            return self.take_run(pages, layout.align(), fill, used);
        }
        let take = |align| self.take_run(pages, align, fill, used);
        take(layout.align().max(grain)).or_else(|| take(layout.align()))
    }

    /// Makes the first `bytes` bytes of a run zero. Of a long run, which may hardly be touched, stretches of dirty pages
    /// are given back: less work where they are not resident, and they are not resident afterwards.
    fn zero(&self, first: Page, pages: u32, bytes: usize) {
        let end = self.map.address_of(first) + bytes;
        // Not in a heap's file: what is purged has no room there until it is taken anew.
        let purges = pages as usize >= self.sparse_pages() && !self.source.is_shared();
        if purges {
            self.fill_sparsely(Stretch { first, pages });
        }
        self.map.dirty_stretches(first, pages, |page, len| {
            if purges && len >= PURGE_FROM && self.purge_pages(page, len) {
                return;
            }
            let span = self.map.span(page, len);
            let bytes = span.bytes.min(end.saturating_sub(span.at));
            // SAFETY: the pages are of a run that is ours alone.
            unsafe { with_exposed_provenance_mut::<u8>(span.at).write_bytes(0, bytes) };
        });
    }

    /// Frees a block of a layout that is no class's.
    ///
    /// # Safety
    /// - `block` came from this heap for `layout` and is live.
    #[inline(never)]
    pub(crate) unsafe fn free_beyond(&self, cache: &Cache, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller gives up the memory, of at least a block's size.
        let run = unsafe { Block::from_raw(block) };
        if self.keep_long(cache, run.address(), layout) {
            return;
        }
        self.free_beyond_lists(cache, run, layout);
    }

    #[inline(never)]
    fn free_beyond_lists(&self, cache: &Cache, run: Block, layout: Layout) {
        match Shape::of(layout, self.map.page_shift()) {
            Some(Shape::Block(class)) if !cache.push(class, run) => self.spill(cache, class, run),
            Some(Shape::Pages(pages)) => self.free_pages(cache, run, layout, pages),
            _ => {}
        }
    }

    fn free_pages(&self, cache: &Cache, run: Block, layout: Layout, pages: u32) {
        if !self.has_list(pages, layout) {
            let run = Stretch { first: self.map.page_of(run.address()), pages };
            let kept = pages as usize > PAGE_LISTS && self.may_be_kept(pages) && self.keep_instead(cache, run);
            if !kept {
                self.give_run_back(run);
            }
            return;
        }
        self.keep_run(cache, pages as usize, run);
    }

    /// Gives a run that this thread has in hand to its user.
    pub(super) fn hand_over(&self, run: Stretch) {
        if self.hand().is_some() {
            in_order();
            self.map.set(run.first, Entry::Run(run.pages));
        }
    }

    /// Gives a run of a user back to the runs.
    pub(crate) fn give_run_back(&self, run: Stretch) {
        let bytes = (run.pages as usize) << self.map.page_shift();
        if let Some(hand) = self.hand() {
            let held = Entry::Held(run.pages, hand.keeper() | OF_USER);
            if !self.map.exchange(run.first, Entry::Run(run.pages), held) {
                die(Fatal::NotARun);
            }
            in_order();
            return self.with_runs(|runs| {
                runs.free_held(&self.map, run);
                self.tally.returned(bytes);
            });
        }
        self.with_runs(|runs| {
            runs.free(&self.map, run);
            self.tally.returned(bytes);
        });
        self.keep_idle_bound_after(run.pages);
    }

    /// Gives runs back to the runs, all at once.
    pub(crate) fn give_runs_back(&self, given: &[Stretch]) {
        self.give_listed_back(given, &List::EMPTY);
    }

    /// `give_runs_back`, of runs that have come from `list`.
    #[inline(never)]
    pub(super) fn give_listed_back(&self, given: &[Stretch], list: &List) {
        if !given.is_empty() {
            let pages: u32 = given.iter().map(|run| run.pages).sum();
            self.with_runs(|runs| {
                given.iter().for_each(|run| runs.free(&self.map, *run));
                self.tally.returned((pages as usize) << self.map.page_shift());
                list.advance();
            });
        }
    }

    /// Runs `section` with the runs locked, and publishes how many dirty pages they have.
    pub(crate) fn with_runs<R>(&self, section: impl FnOnce(&mut Runs) -> R) -> R {
        self.runs.with(|runs| {
            let result = section(runs);
            runs.note_low();
            self.tally.set_dirty_pages(runs.dirty_pages);
            result
        })
    }

    /// A run of `pages` pages at a multiple of `align` bytes, from the free ones or from the source.
    #[inline(never)]
    pub(super) fn take_run(&self, pages: u32, align: usize, fill: Fill, used: Use) -> Option<Page> {
        let fill = self.fill_at_this_size(fill);
        let (keeper, bytes) = match used {
            Use::Lent => (self.keeper_for_user(), (pages as usize) << self.map.page_shift()),
            Use::Own => (self.keeper(), 0),
        };
        let take = || {
            let grant = self.with_runs(|runs| {
                let grant = runs.alloc(&self.map, pages, align, fill, keeper)?;
                self.tally.lent(bytes);
                Some(grant)
            })?;
            self.settle_grant(grant);
            let run = Stretch { first: grant.first, pages };
            self.is_backed(run).then_some(run.first).or_else(|| {
                self.with_runs(|runs| {
                    runs.free_as_marked(&self.map, run);
                    self.tally.returned(bytes);
                });
                None
            })
        };
        // Another thread may take what this one has mapped: then it goes round again. When the source has no more, a
        // last look: another thread may just have freed or mapped.
        loop {
            let run = take();
            if run.is_some() {
                return run;
            }
            if !self.use_hoards(pages) && !self.grow(pages, align) {
                return take();
            }
        }
    }

    /// Rather than more memory: sorts, merges or purges what lies free, but in blocks or runs of other sizes; false if there
    /// is not so much of it that it is worth it, or if nothing came of it.
    fn use_hoards(&self, pages: u32) -> bool {
        if self.depots_hoard() {
            Class::all().for_each(|class| self.drain_depot(class));
            return true;
        }
        self.run_depots_hoard() && self.drain_run_depots()
            || self.release_for(pages)
            || self.slabs_hoard() && self.purge_slabs()
    }

    /// Gives all reserves back if they may hold `pages` pages; false if nothing came of it.
    fn release_for(&self, pages: u32) -> bool {
        self.tally.granted_pages() >= pages as usize && self.release_reserves()
    }

    /// Takes a span from the source that a run of `pages` pages at a multiple of `align` bytes fits into.
    fn grow(&self, pages: u32, align: usize) -> bool {
        let shift = self.map.page_shift();
        let spare = if align > self.map.page_bytes() { align } else { 0 };
        let Some(bytes) = ((pages as usize) << shift).checked_add(spare) else {
            return false;
        };
        let mapped = self.tally.mapped();
        let Some(span) = self.source.grow(bytes, mapped) else {
            return false;
        };
        if self.source.is_shared() {
            return self.take_all_in();
        }
        let fresh = Stretch { first: self.map.page_of(span.at), pages: (span.bytes >> shift) as u32 };
        if !self.map.cover(fresh.first, fresh.pages, &self.source) {
            // SAFETY: fresh, and nobody has been told of it.
            unsafe { self.source.shrink(span) };
            return false;
        }
        let was_small = !self.is_beyond_bound();
        self.tally.add_mapped(span.bytes);
        self.with_runs(|runs| {
            self.map.set_seams(fresh.first, fresh.pages);
            runs.add_span(&self.map, fresh);
        });
        if was_small {
            self.look_at_caches();
        }
        true
    }

    /// Takes in all that the source of a heap that processes share has given and that is not in yet: they may have had it grow at
    /// once, and one may have died over it. False if there is no memory for the map.
    fn take_all_in(&self) -> bool {
        let given = self.source.given();
        let (first, all) = (self.map.page_of(given.at), (given.bytes >> self.map.page_shift()) as u32);
        self.map.cover(first, all, &self.source) && {
            self.with_runs(|runs| {
                let known = runs.mapped_pages as u32;
                if known < all {
                    runs.add_span(&self.map, Stretch { first: first + known, pages: all - known });
                    self.tally.set_mapped(given.bytes);
                }
            });
            true
        }
    }

    /// Whether there is memory behind a run: in a heap's file there may be a hole.
    fn is_backed(&self, run: Stretch) -> bool {
        !self.source.is_shared() || self.source.back(self.map.span(run.first, run.pages))
    }

    /// Whether the block of `old` at `block` can serve `new`, once its run is cut or grown where that is possible.
    ///
    /// # Safety
    /// - `block` came from this heap for `old` and is live.
    #[inline(never)]
    pub(crate) unsafe fn resize_in_place(&self, block: *mut u8, old: Layout, new: Layout) -> bool {
        let shift = self.map.page_shift();
        match (Shape::of(old, shift), Shape::of(new, shift)) {
            (Some(Shape::Block(old)), Some(Shape::Block(new))) => old == new,
            (Some(Shape::Pages(old)), Some(Shape::Pages(new))) if old == new => true,
            (Some(Shape::Pages(old)), Some(Shape::Pages(new))) => self.resize_run(block as usize, old, new),
            _ => false,
        }
    }

    fn resize_run(&self, address: usize, old: u32, new: u32) -> bool {
        let (first, shift) = (self.map.page_of(address), self.map.page_shift());
        if new > old {
            let fill = self.fill_at_this_size(Fill::Dense);
            let bytes = ((new - old) as usize) << shift;
            let grow = || {
                self.with_runs(|runs| {
                    let grant = runs.grow(&self.map, first, old, new, fill)?;
                    self.tally.lent(bytes);
                    Some(grant)
                })
            };
            let grown = grow().or_else(|| if self.uproot(first + old) { grow() } else { None });
            let Some(grant) = grown else {
                return false;
            };
            self.settle_grant(grant);
            if !self.is_backed(Stretch { first: first + old, pages: new - old }) {
                self.with_runs(|runs| {
                    runs.shrink(&self.map, first, new, old);
                    self.tally.returned(bytes);
                });
                return false;
            }
            return true;
        }
        self.with_runs(|runs| {
            runs.shrink(&self.map, first, old, new);
            self.tally.returned(((old - new) as usize) << shift);
        });
        self.keep_idle_bound();
        true
    }

    /// Moves a large block that grows to a longer run by its page tables; what cannot be moved so is copied. `None` if that
    /// is not the way.
    ///
    /// # Safety
    /// - `block` came from this heap for `old` and is live.
    #[inline(never)]
    pub(crate) unsafe fn relocate(&self, block: *mut u8, old: Layout, new: Layout) -> Option<*mut u8> {
        let from = self.movable(block as usize, old, new)?;
        let pages = u32::try_from(new.size().div_ceil(self.map.page_bytes())).ok()?;
        // `finish_relocation` lends it.
        let to = self.take_movable_run(pages, new, Fill::Any, Use::Own)?;
        let fresh: *mut u8 = with_exposed_provenance_mut(self.map.address_of(to));
        let (moved, outcome) = self.move_pieces(from, Stretch { first: to, pages });
        let bytes = (moved as usize) << self.map.page_shift();
        match outcome {
            Relocation::Lost => {
                // SAFETY: the old place is there: what had moved comes back.
                unsafe { block.copy_from_nonoverlapping(fresh, bytes) };
                self.give_up(to, moved, pages);
            }
            Relocation::Refused if moved == 0 => {
                self.with_runs(|runs| runs.free_as_marked(&self.map, Stretch { first: to, pages }));
            }
            Relocation::Refused | Relocation::Moved => {
                let rest = old.size() - bytes.min(old.size());
                // SAFETY: behind what was moved, both blocks have that many bytes.
                unsafe { fresh.wrapping_add(bytes).copy_from_nonoverlapping(block.wrapping_add(bytes), rest) };
                self.fill_densely(Stretch { first: to + moved, pages: pages - moved });
                self.finish_relocation(Stretch { first: from.first, pages: moved }, Stretch { first: to, pages });
                return Some(fresh);
            }
        }
        None
    }

    /// The pages of the block at `address` that can be moved without copying when it grows from `old` to `new`: whole grains.
    fn movable(&self, address: usize, old: Layout, new: Layout) -> Option<Stretch> {
        let grain = self.source.relocation_grain();
        let wanted = grain > 0 && old.size() >= RELOCATE_GRAINS * grain && new.size() > old.size();
        if !wanted || self.tally.mapped() > RELOCATE_UP_TO {
            return None;
        }
        let pages = (old.size() / grain * grain / self.map.page_bytes()) as u32;
        Some(Stretch { first: self.map.page_of(address), pages })
    }

    /// Gives up the run of `pages` pages at `to`, which has no entries, once a piece of it was lost: its other pages stay mapped
    /// and unused. This happens once in a heap, whose source moves nothing any more.
    #[cold]
    fn give_up(&self, to: Page, moved: u32, pages: u32) {
        if moved > 0 {
            // SAFETY: whole pages of ours, which nobody uses any more. Where the system refuses they stay resident.
            let _ = unsafe { self.source.purge(self.map.span(to, moved)) };
        }
        self.with_runs(|runs| runs.give_up(pages));
        self.tally.lost_mapped((pages as usize) << self.map.page_shift());
    }

    /// Moves the pages `from` to the begin of the run `to`, one of the kernel's mappings after the other. Returns how many have
    /// moved, and what became of the last attempt. The run has no entries from then on: should a piece of it get lost, its
    /// addresses may be another span's before we know.
    fn move_pieces(&self, from: Stretch, to: Stretch) -> (u32, Relocation) {
        let mut done = 0;
        while done < from.pages {
            let (at, place) = (from.first + done, to.first + done);
            let grain = self.source.relocation_grain();
            let (len, dirty, movable) = self.with_runs(|_| {
                self.map.clear_run(to.first, to.pages);
                let len = self.map.seamless(at, from.pages - done);
                let (span, target) = (self.map.span(at, len), self.map.address_of(place));
                let movable = grain > 0 && (span.at | span.bytes | target) % grain == 0;
                let dirty = self.map.dirty(place, len);
                if movable {
                    self.map.clean(place, len);
                    self.map.forget_huge(Stretch { first: place, pages: len });
                }
                (len, dirty, movable)
            });
            if !movable {
                return (done, Relocation::Refused);
            }
            match self.move_piece(Stretch { first: at, pages: len }, place, dirty > 0) {
                Relocation::Moved => done += len,
                other => return (done, other),
            }
        }
        (done, Relocation::Moved)
    }

    /// Moves a piece to a place of which the map says nothing for now, and which was dirty, or not.
    fn move_piece(&self, piece: Stretch, to: Page, dirty: bool) -> Relocation {
        let (span, target) = (self.map.span(piece.first, piece.pages), self.map.address_of(to));
        // SAFETY: the old pages are the caller's and lie in one mapping, the new ones ours; they are apart.
        let outcome = unsafe { self.source.relocate(span, target) };
        self.with_runs(|_| match outcome {
            Relocation::Moved => {
                self.map.set_seams(to, piece.pages);
                self.map.copy_huge(piece.first, to, piece.pages);
            }
            Relocation::Refused if dirty => self.map.soil(to, piece.pages),
            _ => {}
        });
        if outcome == Relocation::Refused {
            self.source.advise_huge(Span { at: target, bytes: span.bytes }, false);
        }
        outcome
    }

    /// Frees the run whose first pages `moved` have gone to the run `to`, which is in use from now on.
    fn finish_relocation(&self, moved: Stretch, to: Stretch) {
        let shift = self.map.page_shift();
        self.tally.relocated();
        let Entry::Run(old) = self.map.entry(moved.first) else { die(Fatal::NotARun) };
        self.with_runs(|runs| {
            self.tally.lent((to.pages as usize) << shift);
            self.tally.returned((old as usize) << shift);
            self.map.set_run(to.first, to.pages);
            self.map.soil(moved.first, old);
            self.map.clean(moved.first, moved.pages);
            runs.free_as_marked(&self.map, Stretch { first: moved.first, pages: old });
        });
        self.keep_idle_bound_after(old);
    }
}
