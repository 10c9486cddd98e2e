//! Short runs on their way: between the run lists of a thread, their depots, and the runs.
//!
//! As blocks do, runs of up to [`LENGTHS`] pages go up and down a list at a time: a thread's list that has used up the
//! budget goes to the depot of its length, whole lists of `target` runs, and comes back from there, so that a program that
//! frees many short runs and asks for them again is served without the lock of the runs. This is so where a purger comes:
//! it gives to the runs what nobody has taken from one look to the next, and no more is mapped while the depots hold a good
//! part of what there is. What lies here is free and resident: the tally counts it as retained.

use super::Engine;
use super::cache::{Cache, PAGE_LISTS};
use super::depot::{ChunkRef, Depot, Refusal};
use super::list::{Block, List};
use super::map::Stretch;
use super::note::Note;
use crate::lock::RawLock;
use crate::os::Source;

/// Run lengths that have a depot, in pages: longer runs that are kept apart would leave too many holes between them.
pub(super) const LENGTHS: usize = 4;
/// Pages in a list of the depots, about.
const LIST_PAGES: usize = 16;

/// Runs of `pages` pages in a list: `target`.
pub(super) const fn target(pages: usize) -> u32 {
    (LIST_PAGES / pages) as u32
}

impl<S: Source, L: RawLock> Engine<S, L> {
    /// Runs `section` with the depot for runs of `pages` pages locked, and publishes what it has.
    fn with_run_depot<R>(&self, pages: usize, section: impl FnOnce(&mut Depot) -> R) -> R {
        let at = (pages - 1) % LENGTHS;
        self.run_depots[at].with(|depot| {
            let result = section(depot);
            self.tally.set_listed(at, depot.pages());
            result
        })
    }

    /// A run of `pages` pages from the depot; the rest of its list goes to the cache.
    #[inline(never)]
    pub(super) fn fetch_run(&self, cache: &Cache, pages: usize) -> Option<Block> {
        if pages > LENGTHS || self.tally.listed_pages() < pages || !cache.is_live() {
            return None;
        }
        let list = self.take_listed(pages)?;
        while !cache.has_room_for_runs(pages, list.len()) {
            let Some(largest) = cache.largest_run_list() else { break };
            self.spill_runs(cache, largest);
        }
        cache.receive_runs(pages, list);
        cache.pop_run(pages)
    }

    /// Puts a run on the thread's list for its length; if the budget is used up, perhaps by lengths that are no longer asked
    /// for, the longest list leaves for it.
    pub(super) fn keep_run(&self, cache: &Cache, pages: usize, run: Block) {
        if cache.push_run(pages, run) {
            return;
        }
        let note = self.hand().map_or(Note::NONE, |hand| hand.hold_run(pages, run));
        if let Some(largest) = cache.largest_run_list() {
            self.spill_runs(cache, largest);
        }
        if !cache.push_run(pages, run) {
            cache.count_runs_given(pages, 1);
            let mut list = List::EMPTY;
            list.push(run);
            return self.free_list(pages, list.noted(note));
        }
        note.move_to(None);
    }

    /// Lets the list for runs of `pages` pages leave: to the depot, or to the runs where none may be kept.
    fn spill_runs(&self, cache: &Cache, pages: usize) {
        let mut runs = cache.drain_runs(pages);
        let target = target(pages);
        while pages <= LENGTHS && self.source.has_purger() && !self.source.is_shared() && runs.len() >= target {
            cache.count_runs_stowed(pages, target);
            self.stow_runs(pages, runs.split_off(target));
        }
        cache.count_runs_given(pages, runs.len());
        self.free_list(pages, runs);
    }

    /// Gives all runs of a thread's lists back.
    pub(super) fn flush_runs(&self, cache: &Cache) {
        for pages in 1..=PAGE_LISTS {
            let runs = cache.drain_runs(pages);
            cache.count_runs_given(pages, runs.len());
            self.free_list_unheard(pages, runs);
        }
        self.release_reserve_of(cache);
    }

    /// Gives a list of `target` runs to the depot.
    #[inline(never)]
    fn stow_runs(&self, pages: usize, list: List) {
        let held = list.len() * pages as u32;
        match self.with_run_depot(pages, |depot| depot.put(list, held, u32::MAX)) {
            Ok(()) => {}
            Err(Refusal::NoRoom(list) | Refusal::NoChunk(list)) => self.stow_runs_with_chunk(pages, list),
        }
        self.keep_idle_bound();
    }

    #[cold]
    #[inline(never)]
    fn stow_runs_with_chunk(&self, pages: usize, list: List) {
        let held = list.len() * pages as u32;
        let refused = match self.carve_record(ChunkRef::BYTES) {
            None => Some(list),
            Some(memory) => self.with_run_depot(pages, |depot| {
                // SAFETY: the record is fresh and for this depot alone.
                depot.add_chunk(unsafe { ChunkRef::create(memory) });
                match depot.put(list, held, u32::MAX) {
                    Ok(()) => None,
                    Err(Refusal::NoRoom(list) | Refusal::NoChunk(list)) => Some(list),
                }
            }),
        };
        if let Some(list) = refused {
            self.free_list(pages, list);
        }
    }

    /// Takes a list out of a depot.
    #[inline(never)]
    fn take_listed(&self, pages: usize) -> Option<List> {
        self.with_run_depot(pages, |depot| depot.take(target(pages)))
    }

    /// Gives runs of `pages` pages back to the runs.
    fn free_list(&self, pages: usize, list: List) {
        if !list.is_empty() {
            self.free_list_unheard(pages, list);
            self.keep_idle_bound();
        }
    }

    /// `free_list`, but it is the caller who looks at the idle bound.
    #[inline(never)]
    fn free_list_unheard(&self, pages: usize, mut list: List) {
        let mut given = [Stretch { first: 0, pages: pages as u32 }; 4 * LIST_PAGES];
        while !list.is_empty() {
            let mut count = 0;
            while count < given.len() {
                let Some(run) = list.pop() else { break };
                given[count].first = self.map.page_of(run.address());
                count += 1;
            }
            self.give_listed_back(&given[..count], &list);
        }
    }

    /// Gives one list of a depot to the runs; false if there was none.
    #[inline(never)]
    pub(super) fn release_listed(&self, pages: usize) -> bool {
        let list = self.take_listed(pages);
        list.map(|list| self.free_list_unheard(pages, list)).is_some()
    }

    /// Gives all that lies in the depots of runs to the runs; false if there was nothing.
    pub(super) fn drain_run_depots(&self) -> bool {
        let drain = |pages| core::iter::repeat_with(|| self.release_listed(pages)).take_while(|more| *more).count() > 0;
        self.tally.listed_pages() > 0 && (1..=LENGTHS).fold(false, |any, pages| drain(pages) | any)
    }

    /// Whether the depots of runs hold so much that it is worth merging before the heap grows.
    pub(super) fn run_depots_hoard(&self) -> bool {
        self.tally.listed_pages() > self.hoard_pages()
    }

    /// The purger's look at the depots of runs: while too much is retained, lists that nobody has taken since the look before
    /// go to the runs. Returns the pages of that.
    pub(super) fn release_unused_runs(&self) -> u32 {
        let mut released = 0;
        for pages in 1..=LENGTHS {
            let mut unused = self.with_run_depot(pages, Depot::note_look);
            while unused > 0 && self.tally.retained_pages() > self.allowed_pages() && self.release_listed(pages) {
                released += target(pages) * pages as u32;
                unused -= 1;
            }
        }
        released
    }
}
