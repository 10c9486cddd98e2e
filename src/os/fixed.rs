//! A source over a buffer of the caller's: for tests, models and fuzzers, and for heaps inside other memory.

use super::{Source, Span};
use crate::sync::{AtomicUsize, Relaxed};
use core::ptr::NonNull;

/// A caller's buffer as a [`Source`]: it never grows, and what is purged is overwritten with zeros.
///
/// The low end of the buffer holds the heap's page map, the rest its pages.
#[derive(Debug)]
pub struct Fixed {
    window: Span,
    page: usize,
    /// The first byte not yet given to records; all of the buffer once the span was given.
    used: AtomicUsize,
}

impl Fixed {
    /// A source over `bytes` bytes from `at` on, in pages of `page` bytes. The buffer is cut to whole pages.
    ///
    /// A `page` that is no power of two from 4096 to 65536 gives a source without memory.
    ///
    /// # Safety
    /// - The buffer is readable, writable and zero, and nobody else uses it while the source lives.
    #[must_use]
    pub unsafe fn new(at: NonNull<u8>, bytes: usize, page: usize) -> Self {
        let sound = page.is_power_of_two() && (4096..=65536).contains(&page);
        let page = if sound { page } else { 4096 };
        let start = at.as_ptr() as usize;
        let first = start.next_multiple_of(page);
        let end = if sound { (start + bytes) & !(page - 1) } else { 0 };
        let window = Span { at: first, bytes: end.saturating_sub(first) };
        Self { window, page, used: AtomicUsize::new(0) }
    }

    /// Takes `bytes` off the low end of what is left, or all of it.
    fn claim(&self, bytes: Option<usize>) -> Option<Span> {
        let take = |used: usize| {
            let left = self.window.bytes - used;
            bytes.map_or(Some(self.window.bytes), |bytes| (bytes <= left).then_some(used + bytes))
        };
        let used = self.used.fetch_update(Relaxed, Relaxed, take).ok()?;
        let bytes = bytes.unwrap_or(self.window.bytes - used);
        (bytes > 0).then_some(Span { at: self.window.at + used, bytes })
    }
}

// SAFETY: every range is claimed once; the first page holds records, since the heap asks for them first.
unsafe impl Source for Fixed {
    fn page_size(&self) -> usize {
        self.page
    }

    fn window(&self) -> Option<Span> {
        (self.window.bytes > 0).then_some(self.window)
    }

    fn grow(&self, min: usize, _mapped: usize) -> Option<Span> {
        let left = self.window.bytes - self.used.load(Relaxed);
        if min > left { None } else { self.claim(None) }
    }

    fn grows_again(&self) -> bool {
        false
    }

    fn records(&self, bytes: usize) -> Option<NonNull<u8>> {
        let span = self.claim(Some(bytes.next_multiple_of(self.page)))?;
        NonNull::new(span.at as *mut u8)
    }

    unsafe fn purge(&self, range: Span) -> bool {
        // SAFETY: the range is ours and unused, as the caller states.
        unsafe { core::ptr::write_bytes(range.at as *mut u8, 0, range.bytes) };
        true
    }
}
