//! The bins' part of an audit.

use super::{BINS, Bins, bin_of, key, side, top_bit};
use crate::finding::{Layer, Verdict};
use crate::heap::map::{FreeRun, Map, Page, Stretch};

/// What whoever is reached in a bin must be.
const FREE: &str = "runs in bins are free";
const UPWARDS: &str = "a run in a bin knows the one above it";

impl Bins {
    /// Audits the tries: all that is in them are the free runs of the map, of which there are `runs`. O(runs).
    pub(in crate::heap) fn audit(&self, map: &Map, runs: u64) -> Verdict {
        let (mut met, mut steps) = (0, 0);
        for bin in 0..BINS {
            let root = self.root(bin);
            let filled = self.filled.get(bin / 64).is_some_and(|word| word >> (bin % 64) & 1 == 1);
            Layer::Runs.holds(filled == (root != 0), "a bin is marked as filled if it has runs", 0)?;
            let (mut at, mut from) = (root, 0);
            while at != 0 {
                let (run, record) = map.audit_free_run(at, FREE)?;
                Layer::Runs.holds(
                    bin_of(run.pages) == bin,
                    "a run lies in the bin for its length",
                    map.address_of(at),
                )?;
                steps += 1;
                // Each is come by from above and from its two children.
                Layer::Runs.holds(steps <= 3 * runs, "a walk through a bin ends", map.address_of(at))?;
                // On the way down: a run that has not been met.
                if record.parent.get() == from {
                    met += 1;
                    Layer::Runs.holds(met <= runs, "a bin has each run once", map.address_of(at))?;
                    audit_children(map, at, record)?;
                }
                (at, from) = (next(map, at, from), at);
            }
        }
        Layer::Runs.holds(met == runs, "every free run is in a bin", 0)
    }

    /// Audits that a free run of the map lies where a search for it ends. O(depth).
    pub(in crate::heap) fn audit_place(&self, map: &Map, run: Stretch) -> Verdict {
        let (key, top, address) = (key(run.first, run.pages), top_bit(run.pages), map.address_of(run.first));
        let (mut parent, mut at) = (0, self.root(bin_of(run.pages)));
        // There is no way longer than a key has bits.
        for bit in (0..=top).rev() {
            if at == 0 || at == run.first {
                break;
            }
            parent = at;
            at = map.audit_free_run(at, FREE)?.1.child[side(key, bit)].get();
        }
        Layer::Runs.holds(at == run.first, "a run is found in its bin", address)?;
        let known = map.audit_free_run(at, FREE)?.1.parent.get() == parent;
        Layer::Runs.holds(known, UPWARDS, address)
    }
}

/// Audits that those below a run know it, and are two: so there is no way down to a run from more than one.
fn audit_children(map: &Map, page: Page, record: &FreeRun) -> Verdict {
    let [left, right] = [&record.child[0], &record.child[1]].map(|child| child.get());
    Layer::Runs.holds(left == 0 || left != right, "a bin has each run once", map.address_of(left))?;
    [left, right].into_iter().filter(|child| *child != 0).try_for_each(|child| {
        let known = map.audit_free_run(child, FREE)?.1.parent.get() == page;
        Layer::Runs.holds(known, UPWARDS, map.address_of(child))
    })
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
