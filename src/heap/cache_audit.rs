//! A cache's part of an audit: by its owner, between two calls, or while nobody uses the heap. With the registry's lock, so
//! that the purger takes no list meanwhile.

use super::{Cache, PAGE_LISTS, run_index};
use crate::finding::{Finding, Layer, Verdict};
use crate::heap::class::Class;
use crate::heap::list;
use crate::heap::map::Map;
use crate::heap::side::SLOTS;
use crate::sync::Acquire;
use core::ptr::NonNull;

impl Cache {
    /// Audits the lists of a class, of `target` blocks; `each` sees every block's address before its link is read.
    pub(in crate::heap) fn audit_class(
        &self,
        class: Class,
        target: u32,
        each: &mut dyn FnMut(usize) -> Verdict,
    ) -> Verdict {
        let (bin, side) = (self.main(class), self.side(class));
        Layer::Cache.holds(side.target() == target, "a list has as many blocks as those of the heap", 0)?;
        list::follow(bin.head.get(), count(target, bin.room.get())?, Layer::Cache, each)?;
        for at in 0..SLOTS as u32 {
            // Acquire: the links of the list are there.
            let head = NonNull::new(side.slot(side.oldest.get().wrapping_add(at)).head.load(Acquire));
            // SAFETY: the head of a list that is here, and that nobody takes meanwhile.
            let Some(head) = head.map(|head| unsafe { list::Block::from_raw(head) }) else { continue };
            // (The purger may have emptied any.)
            Layer::Cache.holds(at < side.len(), "full lists lie in their part of the ring", head.address())?;
            list::follow(Some(head), target, Layer::Cache, each)?;
        }
        Ok(())
    }

    /// Audits the run lists, the place for a long run, and what the budgets count; `each` sees every run's length and address
    /// before its link is read.
    pub(in crate::heap) fn audit_runs(&self, map: &Map, each: &mut dyn FnMut(usize, usize) -> Verdict) -> Verdict {
        // In 64 bits, which no damaged count overflows.
        let full = |class| u64::from(self.side(class).len()) * u64::from(self.side(class).target());
        let full = Class::all().map(|class| full(class) * u64::from(class.pages())).sum::<u64>();
        let full = full == u64::from(self.full_pages.get());
        Layer::Cache.holds(full, "full lists count for as many pages as they may lie in", 0)?;
        let runs = |pages| pages as u64 * u64::from(self.admitted[run_index(pages)].get());
        let runs = (1..=PAGE_LISTS).map(runs).sum::<u64>() == u64::from(self.run_pages.get());
        Layer::Cache.holds(runs, "run lists count for as many pages as they may hold", 0)?;
        for pages in 1..=PAGE_LISTS {
            let bin = self.run_bin(pages);
            let len = count(self.admitted[run_index(pages)].get(), bin.room.get())?;
            list::follow(bin.head.get(), len, Layer::Cache, &mut |address| each(pages, address))?;
        }
        self.hot.audit(map)
    }
}

/// Blocks in a list that has, or has room for, `most` of them.
fn count(most: u32, room: i32) -> Result<u32, Finding> {
    let room = u32::try_from(room).unwrap_or(0);
    Layer::Cache.holds(room <= most, "a list has room for no more than it may hold", 0)?;
    Ok(most - room)
}
