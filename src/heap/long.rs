//! Long runs on their way: between a thread, its place for the one it uses again and again, its reserve, and the runs.

use super::cache::{Cache, PAGE_LISTS};
use super::hot::{Closed, Hot, KeptCounts};
use super::map::{Entry, Page, Stretch};
use super::reserve::{LONGEST, Leaving, Reserve};
use super::run::check_run;
use super::{Engine, RESERVES};
use crate::lock::{Locked, RawLock};
use crate::os::Source;
use core::alloc::Layout;
use core::ptr::with_exposed_provenance_mut;

impl<S: Source, L: RawLock> Engine<S, L> {
    pub(super) fn reserve(&self, cache: &Cache) -> &Locked<Reserve, L> {
        &self.reserves[cache.reserve() % RESERVES]
    }

    /// Whether runs of that length pass through the reserves, given that they have no run list. Not where addresses are
    /// scarce.
    pub(crate) fn may_be_kept(&self, pages: u32) -> bool {
        (pages as usize) << self.map.page_shift() <= LONGEST && self.source.grows_again() && !self.source.is_shared()
    }

    /// A run for a layout of whole pages from the thread's reserve. The heap need not be open.
    #[inline]
    pub(crate) fn take_long(&self, cache: &Cache, layout: Layout) -> Option<*mut u8> {
        let pages = self.keepable(layout)?;
        let first = self.take_kept(cache, pages, layout.align())?;
        Some(with_exposed_provenance_mut(self.map.address_of(first)))
    }

    /// The pages of a layout that is no class's, if runs of that length pass through the reserves.
    #[inline(always)]
    fn keepable(&self, layout: Layout) -> Option<u32> {
        let shift = self.map.page_shift();
        let pages = (layout.size().wrapping_sub(1) >> shift).wrapping_add(1);
        let short = pages.wrapping_sub(PAGE_LISTS + 1);
        (short < (LONGEST >> shift) - PAGE_LISTS && self.source.grows_again() && !self.source.is_shared())
            .then_some(pages as u32)
    }

    /// Keeps a freed run of that layout in the thread's reserve, if it has room.
    #[inline]
    pub(crate) fn keep_long(&self, cache: &Cache, run: usize, layout: Layout) -> bool {
        self.keepable(layout).is_some_and(|pages| {
            let run = Stretch { first: self.map.page_of(run), pages };
            self.reserve(cache).with(|reserve| reserve.put(&self.map, run))
        })
    }

    /// A run of the thread's reserve. It counts as handed up already.
    #[inline]
    pub(crate) fn take_kept(&self, cache: &Cache, pages: u32, align: usize) -> Option<Page> {
        let first = self.reserve(cache).with(|reserve| reserve.take(&self.map, pages, align))?;
        self.note_taken(cache, Stretch { first, pages });
        Some(first)
    }

    /// After `keep_long` had no room: keeps a freed run in the thread's reserve with a larger allowance, or in place of those
    /// kept longest; false if it is too long for the allowance there may be.
    #[inline(never)]
    pub(crate) fn keep_instead(&self, cache: &Cache, run: Stretch) -> bool {
        // Before others make room: one of them may be this very run, freed twice.
        check_run(&self.map, run);
        let most = (LONGEST >> self.map.page_shift()) as u32;
        let grant = |pages| self.tally.grant(pages, self.allowed_pages());
        let mut leaving = Leaving::NONE;
        let (granted, kept) = self.reserve(cache).with(|reserve| {
            let granted = reserve.widen(run.pages, most, grant);
            (granted, reserve.put_instead(&self.map, run, &mut leaving))
        });
        self.give_runs_back(leaving.runs());
        if granted || !leaving.runs().is_empty() {
            self.keep_idle_bound();
        }
        kept
    }

    /// Gives the kept run that begins with `first`, if one does, back to the runs: a run before it is to grow.
    pub(crate) fn uproot(&self, first: Page) -> bool {
        if !matches!(self.map.entry(first), Entry::Kept(_)) {
            return false;
        }
        let mut reserves = self.reserves.iter();
        let run = reserves.find_map(|reserve| reserve.with(|reserve| reserve.uproot(&self.map, first)));
        match run {
            Some(run) => self.give_runs_back(&[run]),
            None => return self.close_hot_if(|hot| hot.has(self.map.address_of(first))).count() > 0,
        }
        true
    }

    /// Gives all runs of a thread's reserve back.
    pub(crate) fn release_reserve_of(&self, cache: &Cache) {
        self.close_hot(cache);
        self.release(self.reserve(cache));
    }

    /// Gives all runs of all reserves back; false if there was none.
    pub(crate) fn release_reserves(&self) -> bool {
        self.reserves.iter().fold(self.close_all_hot(), |any, reserve| self.release(reserve) | any)
    }

    fn release(&self, reserve: &Locked<Reserve, L>) -> bool {
        let mut any = false;
        while let Some(run) = reserve.with(|reserve| reserve.evict(&self.map)) {
            self.give_runs_back(&[run]);
            any = true;
        }
        self.cut_allowance(reserve);
        any
    }

    /// Cuts an allowance back to what is there.
    pub(crate) fn cut_allowance(&self, reserve: &Locked<Reserve, L>) {
        reserve.with(|reserve| self.tally.withdraw_grant(reserve.cut_allowance()));
    }

    /// What all reserves counted and hold.
    pub(super) fn count_reserves(&self) -> KeptCounts {
        let mut sum = KeptCounts::ZERO;
        for reserve in &self.reserves {
            sum.add(reserve.with(|reserve| reserve.counts()));
        }
        sum
    }

    /// The run of the thread's place, if it is just what the layout asks for.
    #[inline(always)]
    pub(super) fn take_hot(&self, cache: &Cache, layout: Layout) -> Option<*mut u8> {
        let run = cache.hot().take(self.pages_of_long(layout), layout.align())?;
        Some(with_exposed_provenance_mut(run))
    }

    /// Puts a freed run of that layout into the thread's place, if that is for it.
    #[inline(always)]
    pub(super) fn put_hot(&self, cache: &Cache, run: usize, layout: Layout) -> bool {
        cache.hot().put(run, self.pages_of_long(layout))
    }

    #[inline(always)]
    fn pages_of_long(&self, layout: Layout) -> u64 {
        ((layout.size().wrapping_sub(1) >> self.map.page_shift()) as u64).wrapping_add(1)
    }

    /// After a run was taken from the thread's reserve: opens the place for it if it was the one before, too.
    #[inline]
    pub(super) fn note_taken(&self, cache: &Cache, run: Stretch) {
        if cache.hot().is_again(run.first) && cache.is_live() {
            self.open_hot(cache, run);
        }
    }

    #[cold]
    #[inline(never)]
    fn open_hot(&self, cache: &Cache, run: Stretch) {
        let (hot, at) = (cache.hot(), self.map.address_of(run.first));
        let Some(entry) = self.map.entry_ref(run.first) else {
            return;
        };
        if hot.is_for(at, run.pages) {
            return;
        }
        self.close_hot(cache);
        // What the reserve was granted for this run is granted to the place.
        self.cut_allowance(self.reserve(cache));
        let allowed = self.allowed_pages();
        let opened = self.registry.with(|_| {
            let granted = self.tally.grant(run.pages, allowed);
            if granted {
                hot.open(at, entry, run.pages);
            }
            granted
        });
        if opened {
            self.keep_idle_bound();
        }
    }

    /// Closes the place of a thread.
    pub(super) fn close_hot(&self, cache: &Cache) {
        let closed = self.registry.with(|_| self.close_with_lock(cache.hot()));
        closed.into_iter().for_each(|closed| self.settle(closed));
    }

    /// Closes all places; false if none was open.
    pub(super) fn close_all_hot(&self) -> bool {
        self.close_hot_if(|_| true).count() > 0
    }

    /// The purger's look at the places: those nobody has used since the look before are closed, those with a run only while
    /// too much is retained. Returns the pages of the runs.
    pub(super) fn close_unused_hot(&self) -> usize {
        let closed = self.close_hot_if(|hot| hot.is_unused(self.tally.retained_pages() > self.allowed_pages()));
        let pages = closed.filter(|closed| closed.run.is_some()).map(|closed| closed.pages as usize).sum();
        self.registry.with(|registry| registry.caches().for_each(|cache| cache.hot().note_look()));
        pages
    }

    /// Closes the places that `wanted` names, one with each step.
    fn close_hot_if(&self, wanted: impl Fn(&Hot) -> bool) -> impl Iterator<Item = Closed> {
        core::iter::from_fn(move || self.close_next_hot(&wanted))
    }

    #[inline(never)]
    fn close_next_hot(&self, wanted: &dyn Fn(&Hot) -> bool) -> Option<Closed> {
        let close = |cache: &Cache| if wanted(cache.hot()) { self.close_with_lock(cache.hot()) } else { None };
        let closed = self.registry.with(|registry| registry.caches().find_map(close))?;
        self.settle(closed);
        Some(closed)
    }

    /// With the registry's lock: closes a place, and takes its grant back.
    fn close_with_lock(&self, hot: &Hot) -> Option<Closed> {
        hot.close().inspect(|closed| self.tally.withdraw_grant(closed.pages))
    }

    /// Gives the run of a closed place, if it was there, to the runs.
    #[inline(never)]
    fn settle(&self, closed: Closed) {
        if let Some(run) = closed.run {
            let run = Stretch { first: self.map.page_of(run), pages: closed.pages };
            self.map.set(run.first, Entry::Run(run.pages));
            self.give_runs_back(&[run]);
        }
    }
}
