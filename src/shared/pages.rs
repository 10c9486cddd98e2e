//! Where a shared heap gets its pages: from its file, which is as long as it will ever be, and takes room step by step.

use super::opened;
use crate::os::{Source, Span};
use crate::sync::{AtomicUsize, Relaxed};
use core::ptr::NonNull;

/// The smallest step by which a heap takes room in its file, and the largest beyond what is asked for.
const STEP_MIN: usize = 256 << 10;
const STEP_MAX: usize = 64 << 20;
/// The window of a heap is so long at the least: then its page map grows with it.
const WINDOW_MIN: usize = 1 << 40;

/// The pages of a heap's file. It lies in the file, too: it names nothing of one process.
#[derive(Debug)]
#[repr(C)]
pub(super) struct FilePages {
    span: Span,
    page: usize,
    /// The first byte that has not been taken.
    used: AtomicUsize,
}

impl FilePages {
    /// The pages of the heap at `span` behind its first `used` bytes.
    pub(super) const fn new(span: Span, page: usize, used: usize) -> Self {
        Self { span, page, used: AtomicUsize::new(used) }
    }

    /// Takes `bytes` bytes, which the file has room for then.
    fn take(&self, bytes: usize) -> Option<Span> {
        let bytes = bytes.checked_next_multiple_of(self.page)?;
        // Relaxed: what was taken is nobody else's.
        let from = self
            .used
            .fetch_update(Relaxed, Relaxed, |used| used.checked_add(bytes).filter(|end| *end <= self.span.bytes))
            .ok()?;
        let span = Span { at: self.span.at + from, bytes };
        if !opened::fill(self.span.at, from, bytes) {
            // Nobody has taken more meanwhile, or the addresses stay unused.
            let _ = self.used.compare_exchange(from + bytes, from, Relaxed, Relaxed);
            return None;
        }
        Some(span)
    }
}

// SAFETY: every range is taken once, and reads zero: the file was new. The header is the first page.
unsafe impl Source for FilePages {
    fn page_size(&self) -> usize {
        self.page
    }

    fn window(&self) -> Option<Span> {
        Some(Span { at: self.span.at, bytes: self.span.bytes.max(WINDOW_MIN) })
    }

    fn grow(&self, min: usize, mapped: usize) -> Option<Span> {
        let step = (mapped / 4).clamp(STEP_MIN, STEP_MAX).next_multiple_of(STEP_MIN);
        self.take(min.max(step)).or_else(|| self.take(min))
    }

    fn records(&self, bytes: usize) -> Option<NonNull<u8>> {
        NonNull::new(core::ptr::with_exposed_provenance_mut(self.take(bytes)?.at))
    }

    unsafe fn purge(&self, _: Span) -> bool {
        false
    }
}
