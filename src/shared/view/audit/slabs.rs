//! The slabs of a class: their bins, the list of those to purge, spare records, and what is counted.

use super::tiles::{Found, record_room};
use super::{Auditor, Fault, Verdict, holds};
use crate::heap::view::{Page, Part, Seen, SlabView, SlabsView, Standing, next_spare};
use crate::heap::{CLASSES, Class};
use std::collections::HashSet;
use std::format;
use std::string::String;
use std::vec::Vec;

const SLABS: &str = "slabs";

/// What the slabs of a class add up to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    slabs: u64,
    blocks_out: u64,
    binned: u64,
    queued: u64,
    idle_pages: u64,
    untouched_pages: u64,
}

impl Auditor<'_> {
    /// Audits the lists of all classes, each while that holds still.
    pub(super) fn audit_chains(&self) {
        for class in Class::all() {
            self.judge(&[Part::Slabs(class.index())], &mut || self.look_at_chains(class).map(|_| ()));
        }
    }

    /// What the map found of the slabs of a class, against what the class counts.
    pub(super) fn look_at_sums(&self, class: Class, found: &Found) -> Verdict {
        let Some(slabs) = self.engine().slabs(class.index()) else {
            return Ok(());
        };
        let mut sum = Sum::default();
        let shift = self.view.map().page_shift;
        for record in &found.slabs[class.index() % CLASSES] {
            let Some(slab) = SlabView::take(&self.view.words, *record, shift) else { continue };
            let standing = slab.standing();
            if matches!(standing, Standing::Apart(_)) {
                continue;
            }
            sum.slabs += 1;
            sum.blocks_out += u64::from(slab.blocks().saturating_sub(slab.free()));
            sum.binned += u64::from(matches!(standing, Standing::Bin(_)));
            sum.queued += u64::from(slab.is_queued());
            sum.idle_pages += if standing == Standing::Purging { 0 } else { u64::from(slab.idle_pages()) };
            sum.untouched_pages += u64::from(slab.untouched_pages());
        }
        let (binned, queued) = self.look_at_chains(class)?;
        let counted = [
            ("slabs are as many as are counted", sum.slabs, slabs.count()),
            ("slabs with free blocks are in their bins", sum.binned, binned),
            ("slabs to purge are in their list", sum.queued, queued),
            ("blocks outside are as many as the slabs lack", sum.blocks_out, slabs.blocks_out()),
            ("idle pages are as many as the slabs have", sum.idle_pages, u64::from(slabs.idle_pages())),
            ("untouched pages are as many as the slabs have", sum.untouched_pages, u64::from(slabs.untouched_pages())),
        ];
        counted.into_iter().try_for_each(|(rule, there, counted)| {
            holds(there == counted, || {
                let detail = format!("of {} bytes, {there} are there, and {counted} counted", class.size());
                Fault::new(SLABS, rule, 0, detail).mendable()
            })
        })
    }

    /// Follows the lists of a class; how many slabs are in bins, and how many are to be purged.
    fn look_at_chains(&self, class: Class) -> Result<(u64, u64), Fault> {
        let Some(slabs) = self.engine().slabs(class.index()) else {
            return Ok((0, 0));
        };
        let mut binned = 0;
        for (bin, (head, is_filled)) in slabs.bins().enumerate() {
            holds(is_filled == (head != 0), || {
                let detail = format!("bin {bin} of {} bytes", class.size());
                Fault::new(SLABS, "a bin is marked as filled if it has slabs", 0, detail).mendable()
            })?;
            let place = Standing::Bin(bin as u32);
            let is_there = |slab: &SlabView| slab.standing() == place;
            binned += self
                .follow(class, head, "a slab in a bin is of that bin", &is_there, SlabView::next, SlabView::prev)?
                .0;
        }
        let is_due = |slab: &SlabView| slab.is_queued() && slab.idle_pages() > 0;
        let rule = "slabs to purge have pages to purge";
        let (queued, last) = self.follow(class, slabs.soonest(), rule, &is_due, SlabView::later, SlabView::sooner)?;
        holds(last == slabs.latest(), || {
            Fault::new(SLABS, "the last slab to purge is the last in the list", last, String::new()).mendable()
        })?;
        self.look_at_spare(class, &slabs)?;
        Ok((binned, queued))
    }

    /// Follows slabs from `head` on by `next`, whose `before` is the one before; how many there are, and the last one.
    fn follow(
        &self,
        class: Class,
        head: usize,
        rule: &'static str,
        is_right: &dyn Fn(&SlabView) -> bool,
        next: fn(&SlabView) -> usize,
        before: fn(&SlabView) -> usize,
    ) -> Result<(u64, usize), Fault> {
        let map = self.view.map();
        let (mut at, mut last, mut met) = (head, 0, HashSet::new());
        while at != 0 {
            let fault = |rule| Fault::new(SLABS, rule, at, format!("of {} bytes", class.size())).mendable();
            holds(met.insert(at), || fault("a list of slabs has an end"))?;
            let is_of = |page: Page| map.entry(page) == Seen::Slab(at, class);
            let slab =
                SlabView::take(map.from, at, map.page_shift).filter(|slab| slab.class == class && is_of(slab.first()));
            let slab = slab.ok_or_else(|| fault("a list of slabs leads to slabs of its class"))?;
            holds(is_right(&slab), || fault(rule))?;
            holds(before(&slab) == last, || fault("neighbours in a list of slabs know each other"))?;
            (last, at) = (at, next(&slab));
        }
        Ok((met.len() as u64, last))
    }

    fn look_at_spare(&self, class: Class, slabs: &SlabsView) -> Verdict {
        let map = self.view.map();
        let bytes = crate::heap::view::slab_record_bytes(class, map.page_shift);
        let (mut at, mut met) = (slabs.spare(), HashSet::new());
        while at != 0 {
            let fault = |rule| Fault::new(SLABS, rule, at, format!("of {} bytes", class.size()));
            holds(met.insert(at), || fault("a list of spare records has an end"))?;
            holds(record_room(map, at) >= bytes, || fault("a spare record lies where records are cut from"))?;
            at = next_spare(map.from, at).unwrap_or(0);
        }
        Ok(())
    }

    /// The words that must hold still for the sums of each class.
    pub(super) fn class_versions(&self) -> Vec<Option<Vec<u64>>> {
        (0..CLASSES).map(|class| self.version(&[Part::Slabs(class)])).collect()
    }
}
