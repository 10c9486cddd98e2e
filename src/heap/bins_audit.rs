//! The bins' part of an audit.

use super::{BINS, Bins, bin_of, key, side, top_bit};
use crate::finding::{Layer, Verdict};
use crate::heap::map::{Map, Page};

impl Bins {
    /// Audits the tries, in which there must be `runs` runs, all of whose records are intact. O(runs × depth).
    pub(in crate::heap) fn audit(&self, map: &Map, runs: u64) -> Verdict {
        let (mut met, mut steps) = (0, 0);
        for bin in 0..BINS {
            let root = self.root(bin);
            let filled = self.filled.get(bin / 64).is_some_and(|word| word >> (bin % 64) & 1 == 1);
            Layer::Runs.holds(filled == (root != 0), "a bin is marked as filled if it has runs", 0)?;
            let (mut at, mut from) = (root, 0);
            while at != 0 {
                steps += 1;
                // Each is come by from above and from its two children.
                Layer::Runs.holds(steps <= 3 * runs, "a walk through a bin ends", map.address_of(at))?;
                // On the way down: a run that has not been met.
                if map.free_run(at).parent.get() == from {
                    met += 1;
                    Layer::Runs.holds(met <= runs, "a bin has each run once", map.address_of(at))?;
                    self.audit_place(map, bin, at)?;
                }
                (at, from) = (next(map, at, from), at);
            }
        }
        Layer::Runs.holds(met == runs, "every free run is in a bin", 0)
    }

    /// Audits that the run at `page` lies where a search for it ends.
    fn audit_place(&self, map: &Map, bin: usize, page: Page) -> Verdict {
        let address = map.address_of(page);
        let Some(run) = map.free_stretch(page) else {
            return Layer::Runs.holds(false, "runs in bins are free", address);
        };
        Layer::Runs.holds(bin_of(run.pages) == bin, "a run lies in the bin for its length", address)?;
        let (key, mut bit, mut parent, mut at) = (key(page, run.pages), top_bit(run.pages), 0, self.root(bin));
        while at != 0 && at != page {
            parent = at;
            at = map.free_run(at).child[side(key, bit)].get();
            bit = bit.wrapping_sub(1);
        }
        let found = at == page && map.free_run(page).parent.get() == parent;
        Layer::Runs.holds(found, "a run is found in its bin", address)
    }
}

/// Where a walk through a trie goes from `at`, to which it came from `from`: down, or up again; 0 at its end.
fn next(map: &Map, at: Page, from: Page) -> Page {
    let record = map.free_run(at);
    let [left, right] = [&record.child[0], &record.child[1]].map(|child| child.get());
    let parent = record.parent.get();
    match from {
        from if from == parent && left != 0 => left,
        from if (from == parent || from == left) && right != 0 && right != from => right,
        _ => parent,
    }
}
