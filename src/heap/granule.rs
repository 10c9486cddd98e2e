//! Huge pages, by granules.
//!
//! A granule is an aligned stretch of pages that the system can back by one huge page: one fault in place of 512, and one
//! entry of the processor's in place of 512. Its price is memory: all of it comes resident with the first byte. So a
//! granule is *huge* (its bit in the map is set, and the system was asked for a huge page) only if it was wholly free and
//! untouched when a part of it was handed out to be filled, in a heap that is large enough. From then on all its pages
//! count as dirty. What is freed is purged by whole granules as long as there are any; before a part of one is purged, it
//! stops being huge, lest the system fills it up again behind our back.
//!
//! So a huge granule is either untouched, with no dirty page, or every free page of it is dirty. Everything here happens
//! under the lock of the runs; what the system must be told is returned as [`Advice`].

use super::map::{Map, Page, Stretch};

/// How a run will be used, as far as its taker can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    /// Most of it will be written soon: huge pages pay.
    Dense,
    /// Perhaps little of it will be touched: huge pages would cost more than they save.
    Sparse,
    /// Its granules may stay what they are.
    Any,
}

/// What the system must be told of some granules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Advice {
    pub(crate) granules: Stretch,
    pub(crate) huge: bool,
}

/// What taking a part of a free run makes of its granules.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Touched {
    /// Free pages directly before and behind the part that have become dirty.
    pub(crate) before: u32,
    pub(crate) behind: u32,
    pub(crate) advice: Option<Advice>,
}

/// The whole granules inside `free`, as pages from the first to the end.
fn inside(free: Stretch, grain: u32) -> (Page, Page) {
    let end = free.first + free.pages;
    (free.first.next_multiple_of(grain), end - end % grain)
}

/// The largest part of `run` that consists of whole granules; `None` if it has none.
pub(crate) fn interior(map: &Map, run: Stretch) -> Option<Stretch> {
    let grain = map.grain();
    if grain == 0 || run.pages < grain {
        return None;
    }
    let (first, end) = inside(run, grain);
    (first < end).then(|| Stretch { first, pages: end - first })
}

/// Hands `part` of the free run `free`, which has `dirty` dirty pages, out for `fill`. O(granules of `part`), or O(pages)
/// where the run is partly dirty.
#[inline(never)]
pub(crate) fn take(map: &Map, free: Stretch, dirty: u32, part: Stretch, fill: Fill) -> Touched {
    let grain = map.grain();
    if dirty == free.pages || interior(map, free).is_none() {
        return Touched::default();
    }
    let end = part.first + part.pages;
    let (least, most) = inside(free, grain);
    let (first, last) = ((part.first - part.first % grain).max(least), end.next_multiple_of(grain).min(most));
    let is_fresh = |granule: Page| dirty == 0 || map.dirty(granule, grain) == 0;
    let advice = change(map, first, last, fill, is_fresh);
    let (mut before, mut behind) = (0, 0);
    if first < part.first && map.is_huge(first) && is_fresh(first) {
        before = part.first - first;
    }
    if last > end && first < last && map.is_huge(last - grain) && is_fresh(last - grain) {
        behind = last - end;
    }
    map.soil(part.first - before, before);
    map.soil(end, behind);
    Touched { before, behind, advice }
}

/// Makes the first stretch of fresh granules from `first` to `last` that is not yet as `fill` wants it so.
#[inline(never)]
pub(crate) fn change(
    map: &Map,
    first: Page,
    last: Page,
    fill: Fill,
    is_fresh: impl Fn(Page) -> bool,
) -> Option<Advice> {
    let huge = match fill {
        Fill::Dense => true,
        Fill::Sparse => false,
        Fill::Any => return None,
    };
    let grain = map.grain();
    let differs = |granule: Page| map.is_huge(granule) != huge && is_fresh(granule);
    let begin = (first..last).step_by(grain as usize).find(|granule| differs(*granule))?;
    let mut end = begin;
    while end < last && differs(end) {
        map.set_huge(end, huge);
        end += grain;
    }
    map.add_seams(Stretch { first: begin, pages: end - begin });
    Some(Advice { granules: Stretch { first: begin, pages: end - begin }, huge })
}

/// Before `run` is freed with its dirty bits as they are: where it ends inside a huge granule, which others have a part
/// of, its part is dirty.
pub(crate) fn soil_edges(map: &Map, run: Stretch) {
    let grain = map.grain();
    if grain == 0 {
        return;
    }
    let end = run.first + run.pages;
    let head = (run.first.next_multiple_of(grain) - run.first).min(run.pages);
    let tail = (end % grain).min(run.pages);
    if map.is_huge(run.first) {
        map.soil(run.first, head);
    }
    if map.is_huge(end - 1) {
        map.soil(end - tail, tail);
    }
}
