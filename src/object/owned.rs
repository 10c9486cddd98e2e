//! The process's own memory for a heap that goes before the process does.

use crate::config::HugePages;
use crate::global::pages;
use crate::lock::{Locked, Rank, Spin};
use crate::os::{Mmap, Source, Span, map, release, unmap};
use core::ptr::NonNull;

/// [`Mmap`] with a ledger of what it mapped, so that all of it can be unmapped at once.
#[derive(Debug)]
pub(crate) struct Owned {
    mmap: Mmap,
    ledger: Locked<Option<NonNull<Leaf>>, Spin>,
}

/// Mappings in a leaf of the ledger, which fills 4 KiB.
const LEAF_SPANS: usize = 4096 / size_of::<Span>() - 1;

/// A leaf of the ledger.
#[derive(Debug)]
#[repr(C)]
struct Leaf {
    older: Option<NonNull<Leaf>>,
    len: usize,
    spans: [Span; LEAF_SPANS],
}

// SAFETY: leaves are reached under the ledger's lock.
unsafe impl Send for Owned {}
// SAFETY: as above.
unsafe impl Sync for Owned {}

impl Owned {
    /// A source that has mapped nothing yet.
    pub(crate) const fn new() -> Self {
        Self { mmap: pages(), ledger: Locked::new(Rank::Records, None) }
    }

    /// Fresh memory for a `T`, not in any ledger.
    pub(crate) fn map_for<T>() -> Option<NonNull<T>> {
        NonNull::new(core::ptr::with_exposed_provenance_mut(map(size_of::<T>())?.at))
    }

    /// Unmaps what `map_for` mapped.
    pub(crate) fn unmap_for<T>(at: NonNull<T>) {
        unmap(Span { at: at.as_ptr() as usize, bytes: size_of::<T>() });
    }

    pub(crate) fn set_huge_pages(&self, huge: HugePages) {
        self.mmap.set_huge_pages(huge);
    }

    /// Unmaps everything, the ledger included; `last` is told of each span before.
    pub(crate) fn unmap_all(&mut self, last: impl Fn(Span)) {
        let mut at = self.ledger.with(Option::take);
        while let Some(leaf) = at {
            // SAFETY: `note` wrote the leaf, and nobody else has it any more.
            let Leaf { older, len, spans } = unsafe { leaf.read() };
            for span in spans.into_iter().take(len) {
                last(span);
                release(span);
            }
            Self::unmap_for(leaf);
            at = older;
        }
    }

    /// Enters a fresh mapping in the ledger; without memory for that, unmaps it.
    fn note(&self, span: Span) -> Option<Span> {
        let noted = self.ledger.with(|newest| enter(newest, span)) || self.note_in_new_leaf(span);
        if !noted {
            unmap(span);
        }
        noted.then_some(span)
    }

    fn note_in_new_leaf(&self, span: Span) -> bool {
        let Some(leaf) = Self::map_for::<Leaf>() else { return false };
        self.ledger.with(|newest| {
            let empty = Leaf { older: newest.replace(leaf), len: 0, spans: [Span { at: 0, bytes: 0 }; LEAF_SPANS] };
            // SAFETY: the leaf is fresh and ours.
            unsafe { leaf.write(empty) };
            enter(newest, span)
        })
    }
}

/// Enters `span` in the newest leaf if there is room.
fn enter(newest: &mut Option<NonNull<Leaf>>, span: Span) -> bool {
    // SAFETY: the lock is held, and `note_in_new_leaf` wrote the leaf.
    let Some(leaf) = newest.as_mut().map(|leaf| unsafe { leaf.as_mut() }) else { return false };
    let Some(slot) = leaf.spans.get_mut(leaf.len) else { return false };
    *slot = span;
    leaf.len += 1;
    true
}

// SAFETY: all but the ledger is `Mmap`'s. Nothing is relocated: what the ledger names is mapped until it is unmapped.
unsafe impl Source for Owned {
    fn page_size(&self) -> usize {
        self.mmap.page_size()
    }

    fn window(&self) -> Option<Span> {
        self.mmap.window()
    }

    fn grow(&self, min: usize, mapped: usize) -> Option<Span> {
        self.note(self.mmap.grow(min, mapped)?)
    }

    fn huge_bytes(&self) -> usize {
        self.mmap.huge_bytes()
    }

    fn advise_huge(&self, range: Span, huge: bool) {
        self.mmap.advise_huge(range, huge);
    }

    fn records(&self, bytes: usize) -> Option<NonNull<u8>> {
        let at = self.mmap.records(bytes)?;
        self.note(Span { at: at.as_ptr() as usize, bytes })?;
        Some(at)
    }

    unsafe fn purge(&self, range: Span) -> bool {
        // SAFETY: handed on.
        unsafe { self.mmap.purge(range) }
    }
}
