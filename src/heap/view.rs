//! The engine in the file of a shared heap, for who reads it from outside and without its locks: where its parts lie. What lies
//! there is read by a file beside each layer's own.

use super::class::PerClass;
use super::traffic::Records;
use super::{CLASSES, Engine, Locked, Registry, Settings, listed};
use crate::image::{Image, Words, copy, field};
use core::marker::PhantomData;
use core::mem::offset_of;
use std::vec::Vec;

pub(crate) use super::account::view::{AllCounts, Books, TallyView};
pub(crate) use super::cache::PAGE_LISTS;
pub(crate) use super::cache::view::CacheView;
pub(crate) use super::class::TARGET_MAX;
pub(crate) use super::depot::view::{CHUNK_BYTES, ChunkView, DepotView, Head};
pub(crate) use super::map::view::{MapView, Seen};
pub(crate) use super::map::{Page, Stretch};
pub(crate) use super::run::view::{RunsView, bin_of, key, top_bit};
pub(crate) use super::slab::view::{RECORD_BYTES, SlabView, SlabsView, Standing, next_spare};

/// Run lengths that have a depot.
pub(crate) const LENGTHS: usize = listed::LENGTHS;

/// Runs of `pages` pages in a list of a depot.
pub(crate) const fn run_target(pages: usize) -> u32 {
    listed::target(pages)
}

/// Bytes of a record for slabs of `class`.
pub(crate) const fn slab_record_bytes(class: super::Class, page_shift: u32) -> usize {
    super::slab::SlabRef::record_bytes(class, page_shift)
}

/// A part of the engine with a lock of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Registry,
    /// The depot of the class at that place in the ladder.
    Depot(usize),
    /// The depot of runs of so many pages, and one.
    RunDepot(usize),
    Slabs(usize),
    Reserve(usize),
    Runs,
    Records,
}

/// Where an engine lies in a heap.
pub(crate) struct EngineView<'a, S, L> {
    from: &'a dyn Words,
    at: usize,
    kind: PhantomData<fn() -> (S, L)>,
}

impl<S, L> Clone for EngineView<'_, S, L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S, L> Copy for EngineView<'_, S, L> {}

impl<'a, S, L> EngineView<'a, S, L> {
    /// That at `at`.
    pub(crate) fn new(from: &'a dyn Words, at: usize) -> Self {
        Self { from, at, kind: PhantomData }
    }

    /// Where its source lies, and its map.
    pub(crate) fn source_at(&self) -> usize {
        self.at + offset_of!(Engine<S, L>, source)
    }

    pub(crate) fn map_at(&self) -> usize {
        self.at + offset_of!(Engine<S, L>, map)
    }

    /// Whether it was opened.
    pub(crate) fn is_open(&self) -> bool {
        self.word32(offset_of!(Engine<S, L>, phase)) == super::OPEN
    }

    fn word32(&self, at: usize) -> u32 {
        let at = self.at + at;
        crate::image::number(&[self.from.word(at & !7)], at & 7, 4) as u32
    }

    /// Blocks in a list of the class at a place in the ladder.
    pub(crate) fn target(&self, class: usize) -> u32 {
        let step = size_of::<crate::sync::AtomicU32>();
        self.word32(offset_of!(Engine<S, L>, targets) + class * step)
    }

    /// Calls `each` with the words that `Engine::each_fixed_word` calls it with.
    pub(crate) fn each_fixed_word(&self, each: &mut dyn FnMut(u64)) {
        super::map::view::each_fixed_word(self.from, self.map_at(), each);
        let settings = Image::<Settings>::take(self.from, self.at + offset_of!(Engine<S, L>, settings));
        let fields = [
            field!(Settings, idle_bytes),
            field!(Settings, idle_share),
            field!(Settings, list_bytes),
            field!(Settings, huge_pages),
            field!(Settings, huge_above),
            field!(Settings, purge),
        ];
        fields.into_iter().for_each(|field| each(settings.as_ref().map_or(0, |settings| settings.get(field))));
        (0..CLASSES).for_each(|class| each(u64::from(self.target(class))));
        each(u64::from(self.word32(offset_of!(Engine<S, L>, phase))));
    }

    /// All parts that have locks, in the order of these.
    pub(crate) fn parts() -> impl Iterator<Item = Part> {
        let depots = (0..CLASSES).map(Part::Depot).chain((0..listed::LENGTHS).map(Part::RunDepot));
        let slabs = (0..CLASSES).map(Part::Slabs).chain((0..super::RESERVES).map(Part::Reserve));
        core::iter::once(Part::Registry).chain(depots).chain(slabs).chain([Part::Runs, Part::Records])
    }

    /// Where a part lies: its lock, and its value with the bytes of that.
    fn places(&self, part: Part) -> (usize, usize, usize) {
        fn of<T, L>(at: usize) -> (usize, usize, usize) {
            let (lock, value) = Locked::<T, L>::PLACES;
            (at + lock, at + value, size_of::<T>())
        }
        use super::{Depot, Reserve, Runs, Slabs};
        match part {
            Part::Registry => of::<Registry, L>(self.at + offset_of!(Engine<S, L>, registry)),
            Part::Depot(class) => of::<Depot, L>(
                self.at + offset_of!(Engine<S, L>, depots) + PerClass::<Locked<Depot, L>>::place_of(class),
            ),
            Part::RunDepot(number) => {
                of::<Depot, L>(self.at + offset_of!(Engine<S, L>, run_depots) + number * size_of::<Locked<Depot, L>>())
            }
            Part::Slabs(class) => of::<Slabs, L>(
                self.at + offset_of!(Engine<S, L>, slabs) + PerClass::<Locked<Slabs, L>>::place_of(class),
            ),
            Part::Reserve(number) => of::<Reserve, L>(
                self.at + offset_of!(Engine<S, L>, reserves) + number * size_of::<Locked<Reserve, L>>(),
            ),
            Part::Runs => of::<Runs, L>(self.at + offset_of!(Engine<S, L>, runs)),
            Part::Records => of::<Records, L>(self.at + offset_of!(Engine<S, L>, records)),
        }
    }

    /// Where the lock of a part lies.
    pub(crate) fn lock_at(&self, part: Part) -> usize {
        self.places(part).0
    }

    /// All words of what a part's lock guards, but for what lies elsewhere.
    pub(crate) fn words_of(&self, part: Part) -> Option<Vec<u64>> {
        let (_, value, bytes) = self.places(part);
        copy(self.from, value, bytes.div_ceil(8))
    }

    pub(crate) fn depot(&self, class: usize) -> Option<DepotView> {
        DepotView::take(self.from, self.places(Part::Depot(class)).1)
    }

    pub(crate) fn run_depot(&self, number: usize) -> Option<DepotView> {
        DepotView::take(self.from, self.places(Part::RunDepot(number)).1)
    }

    pub(crate) fn slabs(&self, class: usize) -> Option<SlabsView> {
        SlabsView::take(self.from, self.places(Part::Slabs(class)).1)
    }

    pub(crate) fn runs(&self) -> Option<RunsView> {
        RunsView::take(self.from, self.places(Part::Runs).1)
    }

    /// The next byte that a record is cut from, the end of that run, and the bytes of all such runs.
    pub(crate) fn records(&self) -> Option<[usize; 3]> {
        let image = Image::<Records>::take(self.from, self.places(Part::Records).1)?;
        Some(Records::FIELDS.map(|field| image.address(field)))
    }

    pub(crate) fn tally(&self) -> Option<TallyView> {
        TallyView::take(self.from, self.at + offset_of!(Engine<S, L>, tally))
    }

    fn registry(&self) -> Option<Image<Registry>> {
        Image::take(self.from, self.places(Part::Registry).1)
    }

    /// The newest cache in the list of all, and how many there are.
    pub(crate) fn caches(&self) -> Option<(usize, u64)> {
        let registry = self.registry()?;
        Some((registry.address(field!(Registry, newest)), registry.get(field!(Registry, caches))))
    }

    /// What the caches that have left counted.
    pub(crate) fn departed(&self) -> Option<AllCounts> {
        Some(AllCounts::departed(&self.registry()?, offset_of!(Registry, departed)))
    }

    /// Copies all that figures are made of; `counts` are those of the caches that are there.
    pub(crate) fn books(&self, page_shift: u32, counts: &AllCounts) -> Option<Books> {
        let mut all = self.departed()?;
        all.add(counts);
        Some(Books {
            page_shift,
            targets: (0..CLASSES).map(|class| self.target(class)).collect(),
            counts: all,
            caches: self.caches()?.1 as usize,
            depots: (0..CLASSES).map(|class| self.depot(class)).collect::<Option<_>>()?,
            slabs: (0..CLASSES).map(|class| self.slabs(class)).collect::<Option<_>>()?,
            runs: self.runs()?,
            tally: self.tally()?,
            records: self.records()?[2],
        })
    }
}
