//! Mapped memory that goes when its heap does: a fuzzer makes thousands of heaps.

use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};
use stratalloc::os::{Mmap, Relocation, Source, Span};

/// The system's memory, unmapped when this is dropped.
#[derive(Debug, Default)]
pub struct Tracked {
    source: Mmap,
    spans: Mutex<Vec<Span>>,
}

impl Tracked {
    fn note(&self, span: Span) {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).push(span);
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        for span in self.spans.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            #[expect(clippy::disallowed_methods, reason = "what takes the heap's mappings away is no part of the heap")]
            // SAFETY: a mapping of the heap's, which is gone.
            let unmapped = unsafe { libc::munmap(span.at as *mut libc::c_void, span.bytes) };
            assert_eq!(unmapped, 0);
        }
    }
}

// SAFETY: the promises of `Mmap`.
unsafe impl Source for Tracked {
    fn page_size(&self) -> usize {
        self.source.page_size()
    }

    fn window(&self) -> Option<Span> {
        self.source.window()
    }

    fn grow(&self, min: usize, mapped: usize) -> Option<Span> {
        let span = self.source.grow(min, mapped)?;
        self.note(span);
        Some(span)
    }

    unsafe fn shrink(&self, span: Span) {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| *other != span);
        // SAFETY: handed on.
        unsafe { self.source.shrink(span) };
    }

    fn huge_bytes(&self) -> usize {
        self.source.huge_bytes()
    }

    fn advise_huge(&self, range: Span, huge: bool) {
        self.source.advise_huge(range, huge);
    }

    fn records(&self, bytes: usize) -> Option<NonNull<u8>> {
        let at = self.source.records(bytes)?;
        self.note(Span { at: at.as_ptr() as usize, bytes });
        Some(at)
    }

    unsafe fn purge(&self, range: Span) -> bool {
        // SAFETY: handed on.
        unsafe { self.source.purge(range) }
    }

    fn relocation_grain(&self) -> usize {
        self.source.relocation_grain()
    }

    unsafe fn relocate(&self, from: Span, to: usize) -> Relocation {
        // SAFETY: handed on.
        unsafe { self.source.relocate(from, to) }
    }
}
