//! A reserve against a model that knows the state of every page, and damage planted in the reserve of a heap.

use super::{CUT_PART, Reserve, SLOTS, Stretch};
use crate::finding::Layer;
use crate::heap::granule::Fill;
use crate::heap::map::{Entry, Map};
use crate::heap::planted_tests::{swap_entries, with_planted_in};
use crate::heap::run::Runs;
use crate::os::{Fixed, Mmap};
use core::mem::swap;
use core::ptr::NonNull;
use proptest::prelude::*;
use std::alloc::Layout;
use std::vec::Vec;

const PAGE: usize = 4096;
const PAGES: usize = 2048;
const SPAN: Stretch = Stretch { first: 100, pages: 1900 };
/// Pages that the reserve may hold.
const ALLOWANCE: u32 = 600;

/// One step. An index is taken modulo the number of runs in use.
#[derive(Clone, Copy, Debug)]
enum Op {
    /// From the reserve, or else from the runs.
    Take {
        pages: u32,
        align_log: u32,
    },
    Put(usize),
    Evict,
    Look,
    EvictSeen,
}

struct Bench {
    map: Map,
    runs: Runs,
    reserve: Reserve,
    used: Vec<Stretch>,
    /// The kept runs, the one kept longest first, and how many of them the last look has seen.
    kept: Vec<Stretch>,
    seen: usize,
    buffer: (NonNull<u8>, Layout),
}

impl Bench {
    fn new() -> Self {
        let layout = Layout::from_size_align(PAGES * PAGE, 1 << 22).unwrap();
        // SAFETY: the size is not 0.
        let at = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).unwrap();
        // SAFETY: zeroed memory that lives as long as the map.
        let source = unsafe { Fixed::new(at, layout.size(), PAGE) };
        let map = Map::new();
        assert!(map.open(&source));
        let (mut runs, mut reserve) = (Runs::EMPTY, Reserve::EMPTY);
        runs.add_span(&map, SPAN);
        reserve.allowance = ALLOWANCE;
        Self { map, runs, reserve, used: Vec::new(), kept: Vec::new(), seen: 0, buffer: (at, layout) }
    }

    fn play(&mut self, op: Op) {
        match op {
            Op::Take { pages, align_log } => self.take(pages, 1 << align_log),
            Op::Put(index) => self.put(index),
            Op::Evict => self.evict(false),
            Op::EvictSeen => self.evict(true),
            Op::Look => {
                self.reserve.note_look();
                self.seen = self.kept.len();
            }
        }
    }

    /// Takes a run, and asserts that the reserve serves from the smallest that fits and is not too long, the newest among equals.
    fn take(&mut self, pages: u32, align: usize) {
        let lengths = pages..=pages + pages / CUT_PART;
        let fits =
            |run: &&Stretch| lengths.contains(&run.pages) && self.map.address_of(run.first).is_multiple_of(align);
        let best = self.kept.iter().rev().filter(fits).min_by_key(|run| run.pages).copied();
        let taken = self.reserve.take(&self.map, pages, align);
        assert_eq!(taken, best.map(|run| run.first), "{pages} pages at {align}");
        let Some(run) = best else {
            let grant = self.runs.alloc(&self.map, pages, align, Fill::Any, 0);
            return self.used.extend(grant.map(|grant| Stretch { first: grant.first, pages }));
        };
        self.used.push(Stretch { first: run.first, pages });
        let at = self.kept.iter().position(|kept| *kept == run).unwrap();
        if run.pages == pages {
            self.remove(at);
        } else {
            self.kept[at] = Stretch { first: run.first + pages, pages: run.pages - pages };
        }
    }

    fn remove(&mut self, at: usize) -> Stretch {
        self.seen -= usize::from(at < self.seen);
        self.kept.remove(at)
    }

    fn put(&mut self, index: usize) {
        let Some(index) = index.checked_rem(self.used.len()) else { return };
        let mut run = self.used[index];
        let is_beside = |kept: &Stretch| kept.first + kept.pages == run.first || run.first + run.pages == kept.first;
        let held: u32 = self.kept.iter().map(|run| run.pages).sum();
        let neighbours: Vec<usize> = (0..self.kept.len()).filter(|at| is_beside(&self.kept[*at])).collect();
        let room = held + run.pages <= ALLOWANCE && (self.kept.len() < SLOTS || !neighbours.is_empty());
        assert_eq!(self.reserve.put(&self.map, run), room);
        if !room {
            return;
        }
        self.used.swap_remove(index);
        for at in neighbours.into_iter().rev() {
            let other = self.remove(at);
            run = Stretch { first: run.first.min(other.first), pages: run.pages + other.pages };
        }
        self.kept.push(run);
    }

    fn evict(&mut self, seen: bool) {
        let evicted = if seen { self.reserve.evict_seen(&self.map) } else { self.reserve.evict(&self.map) };
        let expected = (!self.kept.is_empty() && (!seen || self.seen > 0)).then(|| self.remove(0));
        assert_eq!(evicted, expected);
        evicted.into_iter().for_each(|run| self.runs.free(&self.map, run));
    }

    /// The reserve, the page map and the model agree.
    fn audit(&self) {
        assert_eq!(&self.reserve.runs[..self.reserve.len], &self.kept[..]);
        assert_eq!(self.reserve.seen, self.seen);
        assert_eq!(self.reserve.pages, self.kept.iter().map(|run| run.pages).sum::<u32>());
        let mut expected: Vec<(u32, Entry)> = Vec::new();
        for (run, entry) in self.used.iter().map(|run| (run, Entry::Run(run.pages))) {
            expected.push((run.first + run.pages - 1, Entry::RunEnd));
            expected.push((run.first, entry));
        }
        for (run, entry) in self.kept.iter().map(|run| (run, Entry::Kept(run.pages))) {
            expected.push((run.first + run.pages - 1, Entry::RunEnd));
            expected.push((run.first, entry));
        }
        let mut in_use = std::vec![Entry::None; PAGES];
        expected.into_iter().for_each(|(page, entry)| in_use[page as usize] = entry);
        for (page, expected) in in_use.into_iter().enumerate() {
            let found = self.map.entry(page as u32);
            assert_eq!(if matches!(found, Entry::Free(_)) { Entry::None } else { found }, expected, "page {page}");
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` for the layout.
        unsafe { std::alloc::dealloc(self.buffer.0.as_ptr(), self.buffer.1) }
    }
}

fn op() -> impl Strategy<Value = Op> {
    let align_log = prop_oneof![6 => Just(12), 1 => 13..20u32];
    let pages = prop_oneof![3 => 17..40u32, 1 => 1..300u32];
    prop_oneof![
        8 => (pages, align_log).prop_map(|(pages, align_log)| Op::Take { pages, align_log }),
        6 => any::<usize>().prop_map(Op::Put),
        1 => Just(Op::Evict),
        1 => Just(Op::Look),
        1 => Just(Op::EvictSeen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reserves_are_what_a_list_of_runs_says(ops in prop::collection::vec(op(), 1..300)) {
        let mut bench = Bench::new();
        for op in ops {
            bench.play(op);
            bench.audit();
        }
        // All of it comes together again.
        while !bench.kept.is_empty() {
            bench.play(Op::Evict);
        }
        bench.used.iter().for_each(|run| bench.runs.free(&bench.map, *run));
        assert_eq!(bench.map.entry(SPAN.first), Entry::Free(SPAN.pages));
    }
}

/// A run that was kept and cut: of what is left the reserve, or the page map, has a length older than that.
#[test]
fn d7_a_kept_run_with_a_length_older_than_a_cut_is_named() {
    with_planted_in(Mmap::new(), |planted| {
        let (map, [whole, part]) = (&planted.engine.map, [40, 35]);
        let reserve = planted.engine.reserve(&planted.caches[0]);
        let run = planted.alloc(whole * PAGE);
        planted.free(whole * PAGE, &[run]);
        let taken = planted.alloc(part * PAGE);
        assert_eq!(taken, run, "it was cut");
        let rest = Stretch { first: map.page_of(run.as_ptr() as usize) + part as u32, pages: (whole - part) as u32 };
        assert_eq!(reserve.with(|reserve| reserve.runs[0]), rest);
        let stale = Stretch { pages: whole as u32, ..rest };
        let at = map.address_of(rest.first);
        let found = Layer::Cache.breaks("a kept run has the length that the page map says", at);
        let mut other = stale;
        planted.find(found, || reserve.with(|reserve| swap(&mut reserve.runs[0], &mut other)));
        let swap_length = |pages| swap_entries(map, [(rest.first, Entry::Kept(pages))]);
        let beside = Layer::Map.breaks("no page of a run in use is free", at);
        let alone = Layer::Map.breaks("a run's last page has the entry that its first one asks for", at);
        planted.find_each(Some(beside), Some(alone), swap_length(stale.pages));
        // Shorter than it is: so it reaches into no free one, and its last page is one too many.
        let end = map.address_of(rest.first + rest.pages - 1);
        let alone = Layer::Map.breaks("the last page of a run lies behind its first", end);
        planted.find_each(Some(found), Some(alone), swap_length(1));
        planted.free(part * PAGE, &[taken]);
    });
}

#[test]
fn d7_a_reserve_with_other_pages_than_it_counts_is_named() {
    with_planted_in(Mmap::new(), |planted| {
        let reserve = planted.engine.reserve(&planted.caches[0]);
        let run = planted.alloc(40 * PAGE);
        planted.free(40 * PAGE, &[run]);
        let pages = Layer::Cache.breaks("a reserve has as many pages as it counts, and may hold them", 0);
        for wrong in [39, 41, u32::MAX] {
            let mut other = wrong;
            planted.find(pages, || reserve.with(|reserve| swap(&mut reserve.pages, &mut other)));
        }
        let mut other = 39;
        planted.find(pages, || reserve.with(|reserve| swap(&mut reserve.allowance, &mut other)));
        let slots = Layer::Cache.breaks("a reserve holds no more runs than it has slots for", 0);
        let mut other = SLOTS + 1;
        planted.find(slots, || reserve.with(|reserve| swap(&mut reserve.len, &mut other)));
        let mut other = 2;
        planted.find(slots, || reserve.with(|reserve| swap(&mut reserve.seen, &mut other)));
    });
}
