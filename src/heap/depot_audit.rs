//! The depot's part of an audit.

use super::{Chunk, ChunkRef, Depot, Heads, LISTS};
use crate::finding::{Layer, Verdict};
use crate::heap::list;
#[cfg(feature = "malloc-debug")]
use crate::os::Span;

impl Depot {
    /// Audits lists of `target` blocks, and the odd ones; `each` sees every block's address before its link is read. `room` says
    /// how many bytes there are for a chunk at an address; there are no more than `records` chunks.
    pub(in crate::heap) fn audit(
        &self,
        target: u32,
        records: u64,
        room: &dyn Fn(usize) -> usize,
        each: &mut dyn FnMut(usize) -> Verdict,
    ) -> Verdict {
        let audit_chunk = |chunk: ChunkRef| {
            let sealed = room(chunk.address()) >= ChunkRef::BYTES && chunk.with(|memory| memory.is_intact());
            Layer::Depot.holds(sealed, "a chunk holds what was written there", chunk.address())
        };
        let (mut count, mut pages) = (0, self.odd_pages);
        let mut lists = |lists: &Heads, len: usize| {
            for (head, held) in lists.iter().take(len) {
                Layer::Depot.holds(head.is_some(), "a list has a head", 0)?;
                count += 1;
                pages = pages.wrapping_add(held);
                list::follow(head, target, Layer::Depot, each)?;
            }
            Ok(())
        };
        lists(&self.lists, self.len)?;
        let (mut older, mut left) = (self.older, self.count.saturating_sub(self.len as u32).div_ceil(LISTS as u32));
        while let Some(chunk) = older {
            Layer::Depot.holds(left > 0, "a list of full chunks has an end", chunk.address())?;
            audit_chunk(chunk)?;
            left -= 1;
            older = chunk.with(|memory| lists(&memory.lists, LISTS).map(|()| memory.older))?;
        }
        let (mut spare, mut left) = (self.spare, records);
        while let Some(chunk) = spare {
            Layer::Depot.holds(left > 0, "a list of empty chunks has an end", chunk.address())?;
            audit_chunk(chunk)?;
            left -= 1;
            spare = chunk.with(|memory| memory.older);
        }
        let counts = (count, pages) == (self.count, self.pages);
        Layer::Depot.holds(counts, "lists and pages are as many as the depot counts", 0)?;
        let (head, len) = self.odd.parts();
        Layer::Depot.holds(len < target, "odd blocks are too few for a list", 0)?;
        list::follow(head, len, Layer::Depot, each)
    }
}

#[cfg(feature = "malloc-debug")]
impl Depot {
    /// Calls `each` with the places of the chunks.
    pub(in crate::heap) fn each_chunk(&self, each: &mut dyn FnMut(Span)) {
        for list in [self.older, self.spare] {
            let mut at = list;
            while let Some(chunk) = at {
                each(Span { at: chunk.address(), bytes: ChunkRef::BYTES });
                at = chunk.with(|memory| memory.older);
            }
        }
    }
}

impl Chunk {
    fn is_intact(&self) -> bool {
        self.seal.is_intact(|| self.words())
    }
}
