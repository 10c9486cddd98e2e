//! A model of the page runs that knows the state of every page and finds everything by looking at all of them.

use super::{Grant, Purge, Runs};
use crate::heap::granule::{self, Advice, Fill};
use crate::heap::map::{Entry, Map, Page, Stretch};
use crate::os::{Fixed, Source, Span};
use core::ptr::NonNull;
use std::alloc::Layout;
use std::vec::Vec;

pub(crate) const PAGE: usize = 4096;
/// Pages of the window; the bytes behind them are never touched but for the map's records at its low end.
const PAGES: usize = 4096;
/// The spans that the runs are given: apart, adjacent, and long enough for the bins that hold a doubling.
const SPANS: [Stretch; 3] =
    [Stretch { first: 200, pages: 100 }, Stretch { first: 301, pages: 40 }, Stretch { first: 341, pages: 3500 }];

/// What the model knows of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Foreign,
    Used,
    Free { dirty: bool },
}

/// One step. An index is taken modulo the number of runs in use.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Alloc {
        pages: u32,
        align_log: u32,
        fill: Fill,
    },
    Free(usize),
    FreeAsMarked(usize),
    Shrink(usize, u32),
    Grow(usize, u32, Fill),
    /// A run in use will be filled.
    Fill(usize),
    BeginPurge(u32),
    EndPurge {
        purged: bool,
    },
}

/// A buffer with huge pages of so many pages, none for 0.
struct Grained {
    buffer: Fixed,
    grain: u32,
}

// SAFETY: what `Fixed` promises.
unsafe impl Source for Grained {
    fn page_size(&self) -> usize {
        self.buffer.page_size()
    }

    fn window(&self) -> Option<Span> {
        self.buffer.window()
    }

    fn grow(&self, min: usize, mapped: usize) -> Option<Span> {
        self.buffer.grow(min, mapped)
    }

    fn grows_again(&self) -> bool {
        false
    }

    fn huge_bytes(&self) -> usize {
        self.grain as usize * PAGE
    }

    fn records(&self, bytes: usize) -> Option<NonNull<u8>> {
        self.buffer.records(bytes)
    }

    unsafe fn purge(&self, range: Span) -> bool {
        // SAFETY: handed on.
        unsafe { self.buffer.purge(range) }
    }
}

/// The runs, and the model beside them.
pub(crate) struct Bench {
    map: Map,
    grain: u32,
    /// Whether each granule is huge, by its first page.
    huge: Vec<bool>,
    runs: Runs,
    states: Vec<State>,
    /// Runs in use, in no order.
    used: Vec<Stretch>,
    /// Whether each page may hold anything but zeros.
    dirty: Vec<bool>,
    purging: Vec<Purge>,
    /// The memory of the map.
    buffer: (NonNull<u8>, Layout),
}

impl Bench {
    pub(crate) fn new(grain: u32) -> Self {
        let layout = Layout::from_size_align(PAGES * PAGE, 1 << 22).unwrap();
        // SAFETY: the size is not 0.
        let at = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).unwrap();
        // SAFETY: zeroed memory that lives as long as the map.
        let buffer = unsafe { Fixed::new(at, layout.size(), PAGE) };
        let source = Grained { buffer, grain };
        let map = Map::new();
        assert!(map.open(&source) && source.window().is_some());
        let mut bench = Self {
            map,
            grain,
            huge: std::vec![false; PAGES],
            runs: Runs::EMPTY,
            states: std::vec![State::Foreign; PAGES],
            used: Vec::new(),
            dirty: std::vec![false; PAGES],
            purging: Vec::new(),
            buffer: (at, layout),
        };
        SPANS.iter().for_each(|span| bench.add_span(*span));
        bench
    }

    fn add_span(&mut self, span: Stretch) {
        self.runs.add_span(&self.map, span);
        self.set(span, State::Free { dirty: false });
    }

    fn set(&mut self, run: Stretch, state: State) {
        self.states[range(run)].fill(state);
    }

    /// Marks `run` free in the model, dirty where the model says so.
    fn set_free(&mut self, run: Stretch) {
        for page in range(run) {
            self.states[page] = State::Free { dirty: self.dirty[page] };
        }
    }

    fn soil(&mut self, run: Stretch) {
        self.dirty[range(run)].fill(true);
    }

    /// The free runs, by address: each as long as it can be, so neighbours are merged.
    fn free_runs(&self) -> Vec<Stretch> {
        let is_free = |page: usize| matches!(self.states[page], State::Free { .. });
        let starts = (1..PAGES).filter(|&page| is_free(page) && !is_free(page - 1));
        starts.map(|page| stretch(page, (page..PAGES).take_while(|&page| is_free(page)).count())).collect()
    }

    fn dirty_pages(&self, run: Stretch) -> usize {
        self.dirty[range(run)].iter().filter(|dirty| **dirty).count()
    }

    fn pick(&self, index: usize) -> Option<usize> {
        index.checked_rem(self.used.len())
    }

    pub(crate) fn play(&mut self, op: Op) {
        match op {
            Op::Alloc { pages, align_log, fill } => _ = self.alloc(pages, 1 << align_log, fill),
            Op::Free(index) => self.free(index, true),
            Op::FreeAsMarked(index) => self.free(index, false),
            Op::Shrink(index, pages) => self.shrink(index, pages),
            Op::Grow(index, pages, fill) => self.grow(index, pages, fill),
            Op::Fill(index) => self.fill(index),
            Op::BeginPurge(want) => self.begin_purge(want),
            Op::EndPurge { purged } => self.end_purge(purged),
        }
    }

    fn best_fit(&self, pages: u32) -> Option<Stretch> {
        let fitting = self.free_runs().into_iter().filter(|run| run.pages >= pages);
        fitting.min_by_key(|run| (run.pages, run.first))
    }

    /// Allocates, and asserts that it is the best fit: among runs that hold an aligned one wherever they begin, or, if
    /// there is none, among all, if that one happens to begin aligned.
    pub(crate) fn alloc(&mut self, pages: u32, align: usize, fill: Fill) -> Option<Stretch> {
        let aligned = |run: &Stretch| (run.first as usize).is_multiple_of(align / PAGE);
        let best = self.best_fit(pages + (align / PAGE) as u32 - 1);
        let best = best.or_else(|| self.best_fit(pages).filter(aligned));
        let expected = best.map(|run| (run.first as usize).next_multiple_of(align / PAGE) as Page);
        let grant = self.runs.alloc(&self.map, pages, align, fill, 0);
        assert_eq!(grant.map(|grant| grant.first), expected, "best fit for {pages} pages at {align}");
        let (free, run) = (best?, Stretch { first: expected?, pages });
        self.touch(free, run, fill, grant?);
        self.set(run, State::Used);
        self.used.push(run);
        Some(run)
    }

    /// The granules, by their first pages, that lie wholly in `run` and in part in `part`.
    fn granules(&self, run: Stretch, part: Stretch) -> Vec<usize> {
        if self.grain == 0 {
            return Vec::new();
        }
        let (grain, run, part) = (self.grain as usize, range(run), range(part));
        let whole = (0..PAGES).step_by(grain).filter(|first| run.start <= *first && first + grain <= run.end);
        whole.filter(|first| *first < part.end && first + grain > part.start).collect()
    }

    fn is_fresh(&self, granule: usize) -> bool {
        self.dirty_pages(stretch(granule, self.grain as usize)) == 0
    }

    /// Makes the first stretch of fresh ones of `granules` that are not as `fill` wants them so, and asserts that `advice`
    /// says just that.
    fn change(&mut self, granules: &[usize], fill: Fill, advice: Option<Advice>) {
        let huge = fill == Fill::Dense;
        let differs = |granule: &&usize| fill != Fill::Any && self.huge[**granule] != huge && self.is_fresh(**granule);
        let changed = granules.iter().skip_while(|granule| !differs(granule)).take_while(differs).copied();
        let changed: Vec<usize> = changed.collect();
        let told = changed.first().map(|first| stretch(*first, changed.len() * self.grain as usize));
        assert_eq!(advice, told.map(|granules| Advice { granules, huge }));
        changed.into_iter().for_each(|granule| self.huge[granule] = huge);
    }

    /// `part` of the free run `free` is handed out: its fresh granules become what `fill` says, and where one is huge, what
    /// it has beside `part` is dirty from now on.
    fn touch(&mut self, free: Stretch, part: Stretch, fill: Fill, grant: Grant) {
        let granules = self.granules(free, part);
        let fresh: Vec<usize> = granules.iter().copied().filter(|granule| self.is_fresh(*granule)).collect();
        self.change(&granules, fill, grant.advice);
        let mut soiled = false;
        for granule in fresh.into_iter().filter(|granule| self.huge[*granule]).collect::<Vec<usize>>() {
            for page in (granule..granule + self.grain as usize).filter(|page| !range(part).contains(page)) {
                (self.dirty[page], self.states[page], soiled) = (true, State::Free { dirty: true }, true);
            }
        }
        assert_eq!(grant.soiled, soiled);
    }

    /// As `Engine::fill_densely`.
    fn fill(&mut self, index: usize) {
        let Some(index) = self.pick(index) else { return };
        let run = self.used[index];
        let Some(whole) = granule::interior(&self.map, run) else {
            return assert!(self.granules(run, run).is_empty());
        };
        let is_fresh = |granule| self.map.dirty(granule, self.grain) == 0;
        let advice = granule::change(&self.map, whole.first, whole.first + whole.pages, Fill::Dense, is_fresh);
        self.change(&self.granules(run, run), Fill::Dense, advice);
    }

    fn free(&mut self, index: usize, soiled: bool) {
        let Some(index) = self.pick(index) else { return };
        let run = self.used.swap_remove(index);
        if soiled || self.was_grown(run) {
            self.runs.free(&self.map, run);
            self.soil(run);
        } else {
            self.runs.free_as_marked(&self.map, run);
            // What it has of huge granules that others have a part of.
            let huge: Vec<usize> = range(run).filter(|page| self.is_huge(*page)).collect();
            for page in huge {
                let granule = page - page % self.grain as usize;
                let whole = range(run).start <= granule && granule + self.grain as usize <= range(run).end;
                self.dirty[page] |= !whole;
            }
        }
        self.set_free(run);
    }

    /// Whether the run has parts of a huge granule that were handed out at different times: then its bits are not what is to
    /// be known of it, and the heap frees no such run as marked.
    fn was_grown(&self, run: Stretch) -> bool {
        let dirty = |granule: usize| self.dirty_pages(stretch(granule, self.grain as usize)) as u32;
        let granules = self.granules(run, run).into_iter().filter(|granule| self.huge[*granule]);
        granules.map(dirty).any(|dirty| dirty > 0 && dirty < self.grain)
    }

    fn is_huge(&self, page: usize) -> bool {
        self.grain > 0 && self.huge[page - page % self.grain as usize]
    }

    #[cfg(test)]
    pub(crate) fn free_run(&mut self, run: Stretch) {
        let index = self.used.iter().position(|used| *used == run).expect("in use");
        self.free(index, true);
    }

    fn shrink(&mut self, index: usize, pages: u32) {
        let Some(index) = self.pick(index) else { return };
        let Stretch { first, pages: old } = self.used[index];
        let new = pages % old;
        if new == 0 {
            return;
        }
        self.runs.shrink(&self.map, first, old, new);
        self.used[index].pages = new;
        let tail = Stretch { first: first + new, pages: old - new };
        self.soil(tail);
        self.set_free(tail);
    }

    fn grow(&mut self, index: usize, more: u32, fill: Fill) {
        let Some(index) = self.pick(index) else { return };
        let Stretch { first, pages: old } = self.used[index];
        let tail = Stretch { first: first + old, pages: more };
        let free = self.free_runs().into_iter().find(|run| run.first == tail.first && run.pages >= more);
        let grant = self.runs.grow(&self.map, first, old, old + more, fill);
        assert_eq!(grant.is_some(), free.is_some());
        let (Some(grant), Some(free)) = (grant, free) else { return };
        self.touch(free, tail, fill, grant);
        self.set(tail, State::Used);
        self.used[index].pages += more;
    }

    /// Begins a purge, and asserts that it is of a whole dirty run, and of a tail of it that has what is wanted; of whole
    /// granules as long as there are any dirty ones.
    fn begin_purge(&mut self, want: u32) {
        let [fine, coarse] = [0, 1].map(|queue: usize| self.runs.dirty[queue].oldest);
        let expected = if coarse == 0 { fine } else { coarse };
        let oldest = self.free_runs().into_iter().find(|run| run.first == expected);
        let purge = self.runs.begin_purge(&self.map, want, 0);
        assert_eq!(purge.map(|purge| purge.run), oldest);
        let Some(purge) = purge else { return };
        let granules = self.granules(purge.run, purge.run);
        let is_dirty = |granule: &usize| !self.is_fresh(*granule);
        let all = if granules.iter().any(is_dirty) {
            assert!((purge.part.first | purge.part.pages).is_multiple_of(self.grain), "{purge:?}");
            stretch(granules[0], granules.len() * self.grain as usize)
        } else {
            purge.run
        };
        assert_eq!(purge.part.first + purge.part.pages, all.first + all.pages);
        assert!(purge.part.first >= all.first);
        assert_eq!(purge.dirty as usize, self.dirty_pages(purge.part));
        assert!(purge.dirty >= want || purge.dirty as usize == self.dirty_pages(all));
        self.set(purge.run, State::Used);
        self.purging.push(purge);
    }

    /// As `Engine::purge_pages` for each dirty stretch: granules that it only has a part of stop being huge.
    fn split_huge(&mut self, part: Stretch) {
        let mut stretches = Vec::new();
        self.map.dirty_stretches(part.first, part.pages, |first, pages| stretches.push(Stretch { first, pages }));
        for stretch in stretches {
            let ends = [range(stretch).start, last(stretch)].map(|page| (page, self.is_huge(page)));
            for (page, _) in ends.into_iter().filter(|(_, huge)| *huge) {
                let granule = page - page % self.grain as usize;
                if granule < range(stretch).start || granule + self.grain as usize > range(stretch).end {
                    self.map.set_huge(granule as Page, false);
                    self.huge[granule] = false;
                }
            }
        }
    }

    fn end_purge(&mut self, purged: bool) {
        let Some(purge) = self.purging.pop() else { return };
        self.split_huge(purge.part);
        self.runs.end_purge(&self.map, purge, purged);
        if purged {
            self.dirty[range(purge.part)].fill(false);
        }
        self.set_free(purge.run);
    }

    /// Asserts that the runs, the page map and the model agree in everything.
    pub(crate) fn audit(&self) {
        let free = self.free_runs();
        self.audit_entries(&free);
        self.audit_bins(&free);
        self.audit_dirty(&free);
        self.audit_huge();
        assert_eq!(self.runs.free_pages, free.iter().map(|run| u64::from(run.pages)).sum::<u64>());
        assert_eq!(self.runs.mapped_pages, SPANS.iter().map(|run| u64::from(run.pages)).sum::<u64>());
    }

    /// Free runs and runs in use have their entries at both ends, and no page has another one.
    fn audit_entries(&self, free: &[Stretch]) {
        let mut expected = std::vec![Entry::None; PAGES + 1];
        for run in free {
            expected[run.first as usize] = Entry::Free(run.pages);
            expected[last(*run)] = Entry::Free(run.pages);
        }
        for run in self.used.iter().copied().chain(self.purging.iter().map(|purge| purge.run)) {
            expected[last(run)] = Entry::RunEnd;
            expected[run.first as usize] = Entry::Run(run.pages);
        }
        for (page, expected) in expected.into_iter().enumerate() {
            assert_eq!(self.map.entry(page as Page), expected, "page {page}");
        }
    }

    /// The bins hold exactly the free runs: the tries hang together, and each length is found at its lowest address.
    fn audit_bins(&self, free: &[Stretch]) {
        let mut reached: Vec<Page> = free.iter().flat_map(|run| self.children(run.first)).collect();
        reached.extend(free.iter().map(|run| run.first).filter(|page| self.map.free_run(*page).parent.get() == 0));
        reached.sort_unstable();
        assert!(reached.iter().copied().eq(free.iter().map(|run| run.first)), "each run hangs in one place");
        for pages in free.iter().flat_map(|run| [run.pages - 1, run.pages, run.pages + 1]).filter(|pages| *pages > 0) {
            let best = free.iter().filter(|run| run.pages >= pages).min_by_key(|run| (run.pages, run.first));
            assert_eq!(self.runs.bins.best_fit(&self.map, pages), best.map(|run| (run.first, run.pages)));
        }
    }

    /// The nodes below `page`, which know it as their parent.
    fn children(&self, page: Page) -> impl Iterator<Item = Page> {
        let children = self.map.free_run(page).child.iter().map(|child| child.get()).filter(|child| *child != 0);
        children.inspect(move |child| assert_eq!(self.map.free_run(*child).parent.get(), page))
    }

    /// The counts of dirty pages are the model's, and the list by age has the dirty runs, each once.
    fn audit_dirty(&self, free: &[Stretch]) {
        let mut expected = Vec::new();
        for run in free {
            let dirty = self.dirty_pages(*run);
            assert_eq!(self.map.dirty(run.first, run.pages) as usize, dirty, "{run:?}");
            assert_eq!(self.map.free_run(run.first).dirty.get() as usize, dirty, "{run:?}");
            expected.extend((dirty > 0).then_some(run.first));
        }
        let mut listed = self.by_age();
        listed.sort_unstable();
        assert_eq!(listed, expected, "the dirty runs");
        assert_eq!(self.runs.dirty_pages, free.iter().map(|run| self.dirty_pages(*run) as u64).sum::<u64>());
    }

    /// The huge granules are the model's; and each of them is either untouched, or all its free pages are dirty.
    fn audit_huge(&self) {
        for granule in (0..PAGES).step_by(self.grain.max(1) as usize).take_while(|_| self.grain > 0) {
            assert_eq!(self.map.is_huge(granule as Page), self.huge[granule], "granule {granule}");
            let free = |clean: bool| move |state: &State| *state == State::Free { dirty: !clean };
            let pages = &self.states[granule..granule + self.grain as usize];
            let untouched = pages.iter().all(free(true));
            assert!(!self.huge[granule] || untouched || !pages.iter().any(free(true)), "granule {granule}: {pages:?}");
        }
    }

    /// The dirty runs of both queues, each from the oldest on. Asserts that a run with a whole granule is in the second.
    fn by_age(&self) -> Vec<Page> {
        let [fine, coarse] = [0, 1].map(|queue| self.queue_by_age(queue));
        let is_coarse = |first: &Page| {
            let Entry::Free(pages) = self.map.entry(*first) else { panic!("page {first} begins no free run") };
            !self.granules(Stretch { first: *first, pages }, Stretch { first: *first, pages }).is_empty()
        };
        assert!(!fine.iter().any(is_coarse) && coarse.iter().all(is_coarse), "{fine:?} {coarse:?}");
        [fine, coarse].concat()
    }

    /// The dirty runs of a queue, the oldest first. Asserts that it reads the same from its other end.
    fn queue_by_age(&self, queue: usize) -> Vec<Page> {
        let follow = |from: Page, step: fn(&Map, Page) -> Page| {
            let next = move |page: &Page| Some(step(&self.map, *page)).filter(|page| *page != 0);
            core::iter::successors(Some(from).filter(|page| *page != 0), next).take(PAGES).collect::<Vec<Page>>()
        };
        let forth = follow(self.runs.dirty[queue].oldest, |map, page| map.free_run(page).newer.get());
        let back = follow(self.runs.dirty[queue].newest, |map, page| map.free_run(page).older.get());
        assert!(forth.iter().eq(back.iter().rev()), "{forth:?} {back:?}");
        forth
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` for the layout.
        unsafe { std::alloc::dealloc(self.buffer.0.as_ptr(), self.buffer.1) }
    }
}

fn stretch(first: usize, pages: usize) -> Stretch {
    Stretch { first: first as Page, pages: pages as u32 }
}

fn range(run: Stretch) -> core::ops::Range<usize> {
    run.first as usize..(run.first + run.pages) as usize
}

pub(crate) fn last(run: Stretch) -> usize {
    (run.first + run.pages - 1) as usize
}

#[cfg(fuzzing)]
impl Op {
    /// The step that four bytes stand for.
    pub(crate) fn decode([kind, index, length, part]: [u8; 4]) -> Self {
        let fill = [Fill::Dense, Fill::Sparse, Fill::Any][usize::from(kind / 64) % 3];
        // Mostly short, up to 2,000 pages.
        let pages = 1 + (u32::from(length) << (part % 4)) * u32::from(length % 8 != 0);
        let index = usize::from(index);
        match kind % 16 {
            0..6 => Self::Alloc { pages, align_log: 12 + u32::from(part / 8 % 8) * u32::from(part >= 192), fill },
            6..10 => Self::Free(index),
            10 => Self::FreeAsMarked(index),
            11 => Self::Shrink(index, pages),
            12 => Self::Grow(index, pages.min(40), fill),
            13 => Self::Fill(index),
            14 => Self::BeginPurge(pages),
            _ => Self::EndPurge { purged: part % 4 != 0 },
        }
    }
}
