//! What is written around a block, and whether it still stands there when the block comes back or goes.

use super::begins::State;
use super::guard::{self, Pattern};
use super::hunter::{Hunter, record_before};
use super::record::{Event, Facts, Mark};
use super::report::{Case, Crime, Passed};
use super::stacks::Door;
use super::trail::Trail;
use core::alloc::Layout;
use core::ptr::NonNull;

impl Hunter {
    /// Writes what stands around and in a fresh block.
    #[inline]
    pub(super) fn dress(&self, at: NonNull<u8>, layout: Layout, event: Event, mark: Mark, zeroed: bool) {
        record_before(at).write(layout, mark, event);
        // SAFETY: room for it was asked for.
        unsafe { guard::surround(at, layout.size()) };
        if !zeroed {
            // SAFETY: the block has that many bytes.
            unsafe { guard::poison_fresh(at, layout.size().min(self.hunt().poison)) };
        }
    }

    /// Checks the record and the guards of a block that is not lone, and whether it is what the caller says. What the record
    /// says, after reports, if it can be believed.
    #[inline]
    pub(super) fn check_live(&self, at: NonNull<u8>, passed: Passed) -> Option<Facts> {
        if let Some(facts) = record_before(at).read()
            // SAFETY: the guards lie around each block.
            && unsafe { guard::is_surrounded(at, facts.layout.size()) }
            && passed.layout.is_none_or(|layout| layout == facts.layout)
            && passed.heap == facts.heap
        {
            return Some(facts);
        }
        self.look_closely(at, passed)
    }

    /// As `check_live`, for any block: what is wrong is reported.
    #[cold]
    #[inline(never)]
    pub(super) fn look_closely(&self, at: NonNull<u8>, passed: Passed) -> Option<Facts> {
        if let Some(case) = self.damage(at, State::Live) {
            self.report(&Case { passed: Some(passed), ..case });
        }
        let facts = self.record(at).read()?;
        if passed.heap != facts.heap {
            self.report(&Case { passed: Some(passed), ..Case::of(Crime::Heap, at, Some(facts)) });
            return None;
        }
        if passed.layout.is_some_and(|layout| layout != facts.layout) {
            self.report(&Case { passed: Some(passed), ..Case::of(Crime::Layout, at, Some(facts)) });
        }
        Some(facts)
    }

    /// Takes a lone block from the program.
    #[cold]
    #[inline(never)]
    pub(super) fn release_lone(&self, at: NonNull<u8>, passed: Passed, trail: Option<&Trail>) {
        if let Err(state) = self.lone.take_back(passed.at) {
            self.report_bad_pointer(passed, state);
        } else if let Some(facts) = self.look_closely(at, passed) {
            self.record(at).note_free(&facts, self.event(Door::Free, trail, facts.layout.size()));
            self.lone.retire(passed.at);
        }
    }

    /// What a live block's record says, if the guards are intact and the caller may do what `passed` says; else nothing,
    /// after a report.
    pub(super) fn look_at_live(&self, at: NonNull<u8>, passed: Passed) -> Option<Facts> {
        match self.state(passed.at) {
            Some(State::Live) => self.look_closely(at, passed),
            state => self.report_bad_pointer(passed, state),
        }
    }

    /// Checks a block that is held back; what it was allocated with, if its record can be believed.
    #[inline]
    pub(super) fn check_freed(&self, at: NonNull<u8>) -> Option<Layout> {
        if let Some(facts) = record_before(at).read() {
            let size = facts.layout.size();
            // SAFETY: the guards lie around each block.
            let around = unsafe { guard::is_surrounded(at, size) };
            // SAFETY: the block has that many bytes, and is nobody's.
            if around && unsafe { guard::is_filled(at, size.min(self.hunt().poison), Pattern::Poison) } {
                return Some(facts.layout);
            }
        }
        self.report_freed(at)
    }

    /// Reports what is wrong with a block that is held back.
    #[cold]
    #[inline(never)]
    pub(super) fn report_freed(&self, at: NonNull<u8>) -> Option<Layout> {
        if let Some(case) = self.damage(at, State::Held) {
            self.report(&case);
        }
        self.record(at).read().map(|facts| facts.layout)
    }
}
