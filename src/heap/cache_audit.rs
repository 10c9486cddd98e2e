//! A cache's part of an audit.

use super::{Cache, PAGE_LISTS, run_index};
use crate::finding::{Finding, Layer, Verdict};
use crate::heap::class::Class;
use crate::heap::list;
use crate::sync::Acquire;
use core::ptr::NonNull;

impl Cache {
    /// Audits the lists, all of them or, beside a purger, those that their owner alone reaches; `block` and `run` see every
    /// block's address before its link is read. By the owner, between two calls.
    pub(in crate::heap) fn audit(
        &self,
        beside_purger: bool,
        block: &mut dyn FnMut(Class, usize) -> Verdict,
        run: &mut dyn FnMut(usize, usize) -> Verdict,
    ) -> Verdict {
        for class in Class::all() {
            let (bin, side) = (self.main(class), self.side(class));
            let len = count(side.target(), bin.room.get())?;
            list::follow(bin.head.get(), len, Layer::Cache, &mut |address| block(class, address))?;
            for slot in side.slots().filter(|_| !beside_purger) {
                // Acquire: the links of the list are there.
                let head = NonNull::new(slot.head.load(Acquire));
                // SAFETY: the head of a list that is here, and that nobody takes meanwhile.
                let head = head.map(|head| unsafe { list::Block::from_raw(head) });
                let len = if head.is_some() { side.target() } else { 0 };
                list::follow(head, len, Layer::Cache, &mut |address| block(class, address))?;
            }
        }
        for pages in 1..=PAGE_LISTS {
            let bin = self.run_bin(pages);
            let len = count(self.admitted[run_index(pages)].get(), bin.room.get())?;
            list::follow(bin.head.get(), len, Layer::Cache, &mut |address| run(pages, address))?;
        }
        Ok(())
    }
}

/// Blocks in a list that has, or has room for, `most` of them.
fn count(most: u32, room: i32) -> Result<u32, Finding> {
    let room = u32::try_from(room).unwrap_or(0);
    Layer::Cache.holds(room <= most, "a list has room for no more than it may hold", 0)?;
    Ok(most - room)
}
