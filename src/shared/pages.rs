//! Where a shared heap gets its pages: from its file, which is as long as it will ever be, and takes room step by step.
//!
//! Behind the heap's begin lies the page map, each leaf at its place, and behind that the pages. All below `used` have room in the
//! file, or had it until a hole was made: what is handed out after that takes it anew.

use super::body::Body;
use super::{mend, opened, seats};
use crate::heap::{Hand, LEAF_BYTES, LEAF_SPAN, WINDOW_PAGES, root_bytes};
use crate::os::{self, Source, Span};
use crate::sync::{AtomicUsize, Relaxed, step};
use core::ptr::NonNull;

/// Bytes for noting which blocks begin in a heap of so many bytes: guards have none elsewhere.
#[cfg(feature = "malloc-debug")]
const fn begins_bytes(bytes: usize) -> usize {
    bytes.div_ceil(crate::debug::SHARED_SPAN) * crate::debug::SHARED_BYTES
}

#[cfg(not(feature = "malloc-debug"))]
const fn begins_bytes(_: usize) -> usize {
    0
}

/// The pages of a heap's file. It lies in the file, too: it names nothing of one process.
#[derive(Debug)]
#[repr(C)]
pub(super) struct FilePages {
    pub(super) span: Span,
    pub(super) page: usize,
    /// Bytes before the page map.
    pub(super) head: usize,
    /// Bytes of the page map's root.
    pub(super) root: usize,
    /// Where it is noted which blocks begin, behind the page map.
    pub(super) begins: usize,
    /// The first byte of the pages, and the first that has not been taken.
    pub(super) first: usize,
    pub(super) used: AtomicUsize,
    /// 1 once there may be holes.
    has_holes: AtomicUsize,
}

impl FilePages {
    /// The pages of the heap at `span` behind its first `head` bytes.
    pub(super) fn new(span: Span, page: usize, head: usize) -> Self {
        let window = span.bytes.max(WINDOW_PAGES * page);
        let root = root_bytes(window, page).next_multiple_of(page);
        let leaves = span.bytes.div_ceil(LEAF_SPAN * page);
        let begins = head + root + leaves * LEAF_BYTES.next_multiple_of(page);
        let first = begins + begins_bytes(span.bytes);
        Self { span, page, head, root, begins, first, used: AtomicUsize::new(first), has_holes: AtomicUsize::new(0) }
    }

    /// Calls `each` with every word that stays what it is.
    pub(super) fn each_fixed_word(&self, each: &mut dyn FnMut(u64)) {
        let Self { span, page, head, root, begins, first, used: _, has_holes: _ } = self;
        [span.at, span.bytes, *page, *head, *root, *begins, *first].into_iter().for_each(|word| each(word as u64));
    }

    /// Whether what changes is possible, given that what does not is right.
    pub(super) fn is_possible(&self) -> bool {
        let used = self.used.load(Relaxed);
        (self.first..=self.span.bytes).contains(&used) && used.is_multiple_of(self.page)
    }

    /// Pages that the page map's root has room for.
    #[cfg(feature = "cli")]
    pub(super) fn window_pages(&self) -> usize {
        self.span.bytes.max(WINDOW_PAGES * self.page) / self.page
    }

    /// Takes `bytes` bytes, which the file has room for then.
    fn take(&self, bytes: usize) -> Option<Span> {
        let bytes = bytes.checked_next_multiple_of(self.page)?;
        let mut from = self.used.load(Relaxed);
        loop {
            let end = from.checked_add(bytes).filter(|end| *end <= self.span.bytes)?;
            // First the room: so all below `used` has it, whoever dies when.
            if !self.make_room_for_begins(from, end) || !opened::fill(self.span.at, from, bytes) {
                return None;
            }
            step();
            // Relaxed: what was taken is nobody else's, and reads zero.
            match self.used.compare_exchange(from, end, Relaxed, Relaxed) {
                Ok(_) => {
                    step();
                    return Some(Span { at: self.span.at + from, bytes });
                }
                Err(other) => from = other,
            }
        }
    }

    /// Takes room for what is noted of blocks between `from` and `end`.
    #[cfg(not(feature = "malloc-debug"))]
    fn make_room_for_begins(&self, _: usize, _: usize) -> bool {
        true
    }

    /// Takes room for what is noted of blocks between `from` and `end`.
    #[cfg(feature = "malloc-debug")]
    fn make_room_for_begins(&self, from: usize, end: usize) -> bool {
        use crate::debug::{SHARED_BYTES, SHARED_SPAN};
        let (first, leaves) = (from / SHARED_SPAN, end.div_ceil(SHARED_SPAN) - from / SHARED_SPAN);
        opened::fill(self.span.at, self.begins + first * SHARED_BYTES, leaves * SHARED_BYTES)
    }

    /// Where it is noted which blocks begin around `address`, if that is one of the pages.
    #[cfg(feature = "malloc-debug")]
    pub(super) fn begins_around(&self, address: usize) -> Option<usize> {
        use crate::debug::{SHARED_BYTES, SHARED_SPAN};
        let at = address.wrapping_sub(self.span.at);
        let is_page = (self.first..self.used.load(Relaxed)).contains(&at);
        is_page.then(|| self.span.at + self.begins + at / SHARED_SPAN * SHARED_BYTES)
    }

    /// Room at a place of its own, for records of the page map.
    fn place(&self, from: usize, bytes: usize) -> Option<NonNull<u8>> {
        if !opened::fill(self.span.at, from, bytes) {
            return None;
        }
        NonNull::new(core::ptr::with_exposed_provenance_mut(self.span.at + from))
    }

    /// Whoever takes more room looks before whether somebody has died, and left some.
    fn look_for_dead(&self) {
        if let Some(place) = opened::around(self.span.at) {
            let body: &Body = place.body();
            if !seats::has_all() && mend::has_dead(place, body) {
                mend::mend(place, body);
            }
        }
    }
}

// SAFETY: every range is taken once, and reads zero: the file was new. The heap's begin is the first page.
unsafe impl Source for FilePages {
    fn page_size(&self) -> usize {
        self.page
    }

    fn window(&self) -> Option<Span> {
        Some(Span { at: self.span.at, bytes: self.span.bytes.max(WINDOW_PAGES * self.page) })
    }

    fn grow(&self, min: usize, mapped: usize) -> Option<Span> {
        self.look_for_dead();
        self.take(min.max(os::growth_step(mapped))).or_else(|| self.take(min))
    }

    fn records(&self, bytes: usize) -> Option<NonNull<u8>> {
        if bytes > self.root { None } else { self.place(self.head, bytes) }
    }

    fn leaf(&self, number: usize, bytes: usize) -> Option<NonNull<u8>> {
        let at = self.place_of_leaf(number, bytes)?;
        self.place(at - self.span.at, bytes)
    }

    fn place_of_leaf(&self, number: usize, bytes: usize) -> Option<usize> {
        let at = self.head + self.root + number * LEAF_BYTES.next_multiple_of(self.page);
        let fits = bytes <= LEAF_BYTES && at + bytes <= self.begins;
        fits.then_some(self.span.at + at)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn hand(&self) -> Option<&Hand> {
        seats::hand()
    }

    fn given(&self) -> Span {
        Span { at: self.span.at + self.first, bytes: self.used.load(Relaxed) - self.first }
    }

    fn back(&self, range: Span) -> bool {
        self.has_holes.load(Relaxed) == 0 || opened::fill(self.span.at, range.at - self.span.at, range.bytes)
    }

    unsafe fn purge(&self, range: Span) -> bool {
        os::going(range);
        self.has_holes.store(1, Relaxed);
        step();
        opened::punch(self.span.at, range.at - self.span.at, range.bytes)
    }

    // Nobody comes, and there is no need: what was freed stays in the file until `SharedHeap::collect`.
    fn summon_purger(&self) -> bool {
        true
    }

    fn is_purger_at_work(&self) -> bool {
        true
    }

    fn has_purger(&self) -> bool {
        true
    }
}
