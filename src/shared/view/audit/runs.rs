//! The pages of a heap: the page map first, then what is counted of it, the bins of free runs, and records.

use super::tiles::{Found, record_room};
use super::{Auditor, Fault, TIMES, Verdict, holds};
use crate::heap::view::{Page, Part, RunsView, bin_of, key, top_bit};
use crate::heap::{CLASSES, Class};
use core::time::Duration;
use std::collections::HashSet;
use std::format;
use std::string::String;
use std::vec::Vec;

const RUNS: &str = "runs";

/// How often the page map is walked, for sums that hold still meanwhile.
const WALKS: u64 = 8;

/// A part whose sums are compared with what a walk found.
struct Candidate {
    part: Part,
    /// How often they were found to be wrong.
    times: usize,
    is_done: bool,
}

impl Auditor<'_> {
    /// Audits the page map, and what is counted of it: of a part that changes meanwhile, once more.
    pub(super) fn audit_pages(&self) {
        let parts = [Part::Runs].into_iter().chain((0..CLASSES).map(Part::Slabs));
        let mut candidates: Vec<Candidate> = parts.map(|part| Candidate { part, times: 0, is_done: false }).collect();
        for walk in 0..WALKS {
            self.view.words.forget();
            let has_life = self.view.has_life();
            let mut versions = self.class_versions();
            versions.insert(0, self.version(&[Part::Runs]));
            let found = self.walk();
            self.count(&found);
            self.audit_gauges(&found, versions[0].as_ref());
            if self.has_enough() {
                return;
            }
            for (candidate, version) in candidates.iter_mut().zip(&versions).filter(|(candidate, _)| !candidate.is_done)
            {
                self.compare(candidate, version.as_ref(), &found, has_life);
            }
            if candidates.iter().all(|candidate| candidate.is_done) || !has_life && walk > 0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(if has_life { 2 * walk } else { 0 }));
        }
        let moving = candidates.iter().filter(|it| !it.is_done).map(|it| super::describe(it.part));
        moving.for_each(|part| self.is_moving(format!("what is counted of {part}")));
        self.audit_outside();
        if self.view.facts.has_copies {
            self.judge(&[Part::Runs], &mut || self.look_at_bitmaps());
        }
        self.judge(&[Part::Runs], &mut || self.look_at_bins(None));
        self.audit_chains();
        self.judge(&[Part::Records], &mut || self.look_at_records());
    }

    /// Audits what is told of all parts together, where nobody is in the heap, and nobody has died there. What a walk `found` counts
    /// if the runs are as they were before it: in `version`.
    fn audit_gauges(&self, found: &Found, version: Option<&Vec<u64>>) {
        self.judge(&[Part::Runs], &mut || self.look_at_gauges(found, version));
        for class in Class::all() {
            let parts = [Part::Depot(class.index()), Part::Slabs(class.index())];
            self.judge(&parts, &mut || self.look_at_gauges_of(class));
        }
    }

    /// Whether nobody is in the heap, and nobody has died there: then what parts count together is told.
    fn is_at_rest(&self) -> bool {
        !self.view.has_life() && self.view.guests().next().is_none()
    }

    fn look_at_gauges(&self, found: &Found, version: Option<&Vec<u64>>) -> Verdict {
        let (engine, shift) = (self.engine(), self.view.map().page_shift);
        let (Some(tally), Some(runs), Some(records)) = (engine.tally(), engine.runs(), engine.records()) else {
            return Ok(());
        };
        let is_still = version.is_some() && version == self.version(&[Part::Runs]).as_ref();
        if found.has_gaps || !is_still || !self.is_at_rest() {
            return Ok(());
        }
        let lent = (found.used_pages << shift).saturating_sub(records[2] as u64);
        let names = ["bytes in runs that are lent", "dirty pages", "bytes from the file"];
        let right = [lent, runs.dirty_pages(), runs.mapped_pages().wrapping_mul(1 << shift)];
        compare_gauges(names, tally.all(), right, "")
    }

    fn look_at_gauges_of(&self, class: Class) -> Verdict {
        let (engine, at) = (self.engine(), class.index());
        let (Some(tally), Some(slabs), Some(depot)) = (engine.tally(), engine.slabs(at), engine.depot(at)) else {
            return Ok(());
        };
        if !self.is_at_rest() {
            return Ok(());
        }
        let names = ["blocks outside", "idle pages", "pages in the depot", "blocks in the depot"];
        let in_depot = depot.blocks(engine.target(at));
        let right = [slabs.blocks_out(), u64::from(slabs.idle_pages()), u64::from(depot.pages()), in_depot];
        compare_gauges(names, tally.class(at), right, &format!(", of {} bytes", class.size()))
    }

    fn count(&self, found: &Found) {
        let mut audit = self.found.borrow_mut();
        audit.slabs = found.slabs.iter().map(|slabs| slabs.len() as u64).sum();
        (audit.runs, audit.free_runs) = (found.used, found.free.len() as u64);
    }

    /// Compares what a part counts with what the walk found, if it has held still since `version`.
    fn compare(&self, candidate: &mut Candidate, version: Option<&Vec<u64>>, found: &Found, has_life: bool) {
        let verdict = match candidate.part {
            Part::Slabs(class) => Class::all().nth(class).map_or(Ok(()), |class| self.look_at_sums(class, found)),
            _ => self.look_at_bins(Some(found)),
        };
        let is_still = version.is_some() && version == self.version(&[candidate.part]).as_ref();
        match verdict {
            Ok(()) if is_still && !found.has_gaps => candidate.is_done = true,
            // What could not be told is in no sum; why has been said.
            Err(_) if is_still && !found.has_gaps => {
                candidate.times += 1;
                if !has_life || candidate.times >= TIMES {
                    candidate.is_done = true;
                    verdict.err().into_iter().for_each(|fault| self.note(fault));
                }
            }
            _ => candidate.is_done = !has_life && self.found.borrow().faults.iter().any(|fault| fault.part.is_some()),
        }
    }

    /// What is noted of pages, against its copies.
    fn look_at_bitmaps(&self) -> Verdict {
        let broken = self.view.map().bitmaps_break();
        holds(broken.is_none(), || {
            Fault::new("page map", "the bits of pages are what was set", broken.unwrap_or(0), String::new()).mendable()
        })
    }

    /// The bins of free runs and the queue of those to purge, and the sums of what a walk `found`.
    fn look_at_bins(&self, found: Option<&Found>) -> Verdict {
        let Some(runs) = self.engine().runs() else {
            return Ok(());
        };
        let binned = self.look_at_tries(&runs)?;
        let queued = self.look_at_queue(&runs)?;
        let Some(found) = found else {
            return Ok(());
        };
        let sums = [
            ("every free run is in a bin", found.free.len() as u64, binned),
            ("every dirty run is in its queue", found.dirty_runs, queued),
            ("free pages are as many as are counted", found.free_pages, runs.free_pages()),
            ("dirty pages are as many as are counted", found.dirty_pages, runs.dirty_pages()),
            ("every page is of a free run, a run in use or a slab", found.pages, runs.mapped_pages()),
        ];
        sums.into_iter().try_for_each(|(rule, there, counted)| {
            holds(there == counted, || {
                Fault::new(RUNS, rule, 0, format!("{there} are there, and {counted} counted")).mendable()
            })
        })
    }

    /// Goes through the bins: how many runs there are.
    fn look_at_tries(&self, runs: &RunsView) -> Result<u64, Fault> {
        let map = self.view.map();
        let mut met = HashSet::new();
        for (bin, (root, is_filled)) in runs.bins().enumerate() {
            let fault = |page: Page, rule| {
                let at = if page == 0 { 0 } else { map.address_of(page) };
                Fault::new(RUNS, rule, at, format!("bin {bin}")).mendable()
            };
            holds(is_filled == (root != 0), || fault(0, "a bin is marked as filled if it has runs"))?;
            // A run, the one above it, the bit that its children differ in, and what its key must have.
            let mut left = std::vec![(root, 0, u32::MAX, (0, 0))];
            while let Some((page, parent, bit, (mask, bits))) = left.pop().filter(|(page, ..)| *page != 0) {
                let crate::heap::view::Seen::Free(pages) = map.entry(page) else {
                    return Err(fault(page, "runs in bins are free"));
                };
                let bit = bit.min(top_bit(pages));
                let record = map.free_run(page).ok_or_else(|| fault(page, "runs in bins are free"))?;
                holds(bin_of(pages) == bin, || fault(page, "a run lies in the bin for its length"))?;
                holds(key(page, pages) & mask == bits, || fault(page, "a run is found in its bin"))?;
                holds(met.insert(page), || fault(page, "a bin has each run once"))?;
                holds(record.parent() == parent, || fault(page, "a run in a bin knows the one above it"))?;
                let children = record.children();
                holds(bit < 64 || children == [0, 0], || fault(page, "a bin is no deeper than its keys"))?;
                for (turn, child) in children.into_iter().enumerate().filter(|(_, child)| *child != 0) {
                    let side = 1_u64.checked_shl(bit).unwrap_or(0);
                    let below = (mask | side, bits | if turn == 1 { side } else { 0 });
                    left.push((child, page, bit.wrapping_sub(1), below));
                }
            }
        }
        Ok(met.len() as u64)
    }

    /// Follows the queue of runs to purge: how many there are.
    fn look_at_queue(&self, runs: &RunsView) -> Result<u64, Fault> {
        let map = self.view.map();
        let ((oldest, newest), mut met, mut before) = (runs.queue(), HashSet::new(), 0);
        let mut page = oldest;
        while page != 0 {
            let fault = |rule| Fault::new(RUNS, rule, map.address_of(page), String::new()).mendable();
            let is_free = matches!(map.entry(page), crate::heap::view::Seen::Free(_));
            let record = map.free_run(page).filter(|record| is_free && record.dirty() > 0);
            let record = record.ok_or_else(|| fault("runs to purge are free, and dirty"))?;
            holds(met.insert(page), || fault("the queue of runs to purge has an end"))?;
            holds(record.older() == before, || fault("neighbours in a queue know each other"))?;
            (before, page) = (page, record.newer());
        }
        holds(newest == before, || {
            Fault::new(RUNS, "the last run to purge is the last in the queue", 0, String::new()).mendable()
        })?;
        Ok(met.len() as u64)
    }

    /// Where records are cut from next.
    fn look_at_records(&self) -> Verdict {
        let map = self.view.map();
        let Some([next, end, bytes]) = self.engine().records() else {
            return Ok(());
        };
        let detail = || format!("from {next:#x} to {end:#x}");
        let room = if end == 0 { 0 } else { record_room(map, end.wrapping_sub(64)) };
        let run = (map.record_pages() as usize) << map.page_shift;
        let is_inside =
            end == 0 && next == 0 || room == 64 && next <= end && end - next <= run && next.is_multiple_of(64);
        holds(is_inside, || {
            Fault::new("records", "the next record is cut from a run for records", 0, detail()).mendable()
        })?;
        let (first, behind) = self.view.given();
        holds(bytes <= behind - first && bytes.is_multiple_of(run), || {
            Fault::new("records", "runs for records are pages of the heap", 0, format!("{bytes} bytes"))
        })
    }
}

/// That gauges say what is right.
fn compare_gauges<const N: usize>(names: [&str; N], said: [u64; N], right: [u64; N], of: &str) -> Verdict {
    names.into_iter().zip(said.into_iter().zip(right)).try_for_each(|(name, (said, right))| {
        holds(said == right, || {
            let detail = format!("{name}{of}: {said}, and {right} would be right");
            Fault::new("counts", "what all parts count together is what each counts", 0, detail).mendable()
        })
    })
}
