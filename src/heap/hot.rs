//! The long run that a thread frees and asks for again and again.
//!
//! Beside its reserve a thread has a place for one run. When it has taken the same run from the reserve twice in a row, it
//! opens the place for that run, which from then on comes and goes by an exchange, without a lock and without a look into
//! the map. The owner alone opens the place and uses it. Whoever needs memory closes it, and so does the purger if it was not
//! used from one look to the next; the run, if it is there, goes to the runs.
//!
//! As in a reserve, the run is in use for the map, but as `Entry::Kept`, and its pages are granted: from when the place is
//! opened until it is closed, whether the run is there or not. Opening, closing and the grant that goes with them are one
//! section of the registry's lock, so that a fork never comes between them.

use super::map::{Entry, EntryRef, Map, Page};
use crate::fatal::{Fatal, die};
use crate::finding::{Layer, Verdict};
use crate::sync::{Acquire, AtomicU64, AtomicUsize, Relaxed, Release, bump};
use core::cell::Cell;

/// The states of a place: closed, or open for a run of so many pages, which is in use or here.
const CLOSED: u64 = 0;
const OUT: u64 = 1;
const HERE: u64 = 2;
const PAGES_SHIFT: u32 = 2;

/// A place for a long run.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Hot {
    /// `CLOSED`, or the run's pages with `OUT` or `HERE` below them. The owner goes from closed to out, and back and forth
    /// between out and here; others go to closed alone.
    state: AtomicU64,
    /// The run's address. Written by the owner while the place is closed.
    at: AtomicUsize,
    /// The entry of the run's first page.
    entry: Cell<Option<EntryRef>>,
    /// The run that the owner last took from the reserve.
    last: Cell<Page>,
    /// Runs handed out, and runs taken back.
    allocs: AtomicU64,
    frees: AtomicU64,
    /// What `uses` was at the purger's last look.
    seen: AtomicU64,
}

/// What a closed place leaves: its grant, and the address of its run if that was here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed {
    pub(super) pages: u32,
    pub(super) run: Option<usize>,
}

/// What was handed out and taken back in places and reserves, and pages in them.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct KeptCounts {
    pub(super) allocs: u64,
    pub(super) frees: u64,
    pub(super) pages: u64,
}

impl KeptCounts {
    pub(super) const ZERO: Self = Self { allocs: 0, frees: 0, pages: 0 };

    pub(super) fn add(&mut self, other: Self) {
        self.allocs += other.allocs;
        self.frees += other.frees;
        self.pages += other.pages;
    }
}

const fn state(pages: u64, what: u64) -> u64 {
    pages << PAGES_SHIFT | what
}

impl Hot {
    crate::sync::const_unless_loom! {
        pub(super) fn new() -> Self {
            Self {
                state: AtomicU64::new(CLOSED),
                at: AtomicUsize::new(0),
                entry: Cell::new(None),
                last: Cell::new(0),
                allocs: AtomicU64::new(0),
                frees: AtomicU64::new(0),
                seen: AtomicU64::new(0),
            }
        }
    }

    /// By the owner: takes the run, if it is here and has just so many pages, and that alignment in bytes.
    #[inline(always)]
    pub(super) fn take(&self, pages: u64, align: usize) -> Option<usize> {
        let (here, at) = (state(pages, HERE), self.at.load(Relaxed));
        if self.state.load(Relaxed) != here || at & (align - 1) != 0 {
            return None;
        }
        // Relaxed: the owner itself put it here.
        self.state.compare_exchange(here, state(pages, OUT), Relaxed, Relaxed).ok()?;
        self.entry.get()?.set(Entry::Run(pages as u32));
        bump(&self.allocs, 1);
        Some(at)
    }

    /// By the owner: puts the run of `pages` pages at `run`, which its user has freed, here, if the place is for it.
    #[inline(always)]
    pub(super) fn put(&self, run: usize, pages: u64) -> bool {
        let out = state(pages, OUT);
        if self.state.load(Relaxed) != out || self.at.load(Relaxed) != run {
            return false;
        }
        let Some(entry) = self.entry.get() else {
            return false;
        };
        // Before others can see it here.
        if !entry.exchange(Entry::Run(pages as u32), Entry::Kept(pages as u32)) {
            die(Fatal::NotARun);
        }
        // Release: its user is done with it; pairs with `close`.
        if self.state.compare_exchange(out, state(pages, HERE), Release, Relaxed).is_err() {
            entry.set(Entry::Run(pages as u32));
            return false;
        }
        bump(&self.frees, 1);
        true
    }

    /// By the owner: whether the run taken from the reserve is the one that was taken the time before.
    pub(super) fn is_again(&self, first: Page) -> bool {
        self.last.replace(first) == first
    }

    /// Whether the place is open for the run of `pages` pages at `run`.
    pub(super) fn is_for(&self, run: usize, pages: u32) -> bool {
        let state = self.state.load(Relaxed);
        state != CLOSED && state >> PAGES_SHIFT == u64::from(pages) && self.at.load(Relaxed) == run
    }

    /// Whether the run at `run` is here.
    pub(super) fn has(&self, run: usize) -> bool {
        self.pages() > 0 && self.at.load(Relaxed) == run
    }

    /// By the owner, which has closed it, with the registry's lock: opens it for the run at `run`, which is in use. That
    /// counts as a use.
    pub(super) fn open(&self, run: usize, entry: EntryRef, pages: u32) {
        self.at.store(run, Relaxed);
        self.entry.set(Some(entry));
        self.seen.store(self.uses().wrapping_sub(1), Relaxed);
        // Release: publishes the address; pairs with `close`.
        self.state.store(state(u64::from(pages), OUT), Release);
    }

    /// By anybody, with the registry's lock: closes it; `None` if it was closed.
    pub(super) fn close(&self) -> Option<Closed> {
        // Acquire: pairs with `open` and `put`. The address stays what it is: the owner opens the place anew only with the
        // lock that the caller holds.
        let was = self.state.swap(CLOSED, Acquire);
        let run = (was & HERE != 0).then(|| self.at.load(Relaxed));
        (was != CLOSED).then_some(Closed { pages: (was >> PAGES_SHIFT) as u32, run })
    }

    /// Pages of the run, if it is here.
    fn pages(&self) -> u64 {
        let state = self.state.load(Relaxed);
        if state & HERE != 0 { state >> PAGES_SHIFT } else { 0 }
    }

    /// What it counted, and the pages of its run if that is here.
    pub(super) fn counts(&self) -> KeptCounts {
        KeptCounts { allocs: self.allocs.load(Relaxed), frees: self.frees.load(Relaxed), pages: self.pages() }
    }

    /// By the owner, with the registry's lock: audits that the run, if it is here, is one for the map.
    pub(super) fn audit(&self, map: &Map) -> Verdict {
        let (pages, at) = (self.pages(), self.at.load(Relaxed));
        let kept = pages == 0 || map.look_up(at) == Entry::Kept(pages as u32);
        Layer::Cache.holds(kept, "a kept run has the length that the page map says", at)
    }

    /// How often the run came or went.
    fn uses(&self) -> u64 {
        self.allocs.load(Relaxed).wrapping_add(self.frees.load(Relaxed))
    }

    /// By the purger: whether the place was not used since the look before, and is empty or may be `emptied`.
    pub(super) fn is_unused(&self, emptied: bool) -> bool {
        self.uses() == self.seen.load(Relaxed) && (emptied || self.pages() == 0)
    }

    /// By the purger: says that it has looked.
    pub(super) fn note_look(&self) {
        self.seen.store(self.uses(), Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
#[path = "hot_tests.rs"]
mod tests;

#[cfg(all(test, loom))]
#[path = "hot_loom_tests.rs"]
mod loom_tests;
