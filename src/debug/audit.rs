//! Audits: the records and guards of all live blocks, and the patterns of those that are held back, beside whatever other
//! threads do.

use super::begins::State;
use super::guard::{self, BACK, FRONT, Pattern};
use super::hunter::Hunter;
use super::record::Facts;
use super::report::{Case, Crime};
use crate::finding::{Layer, Verdict};
use crate::os;
use core::ptr::NonNull;

/// How often what looks damaged is looked at again: its owner may be freeing it just now.
const LOOKS: u32 = 3;

impl Hunter {
    /// What is wrong with a block: its record, or the guards around it, or, if it is held back, what is in it.
    #[inline]
    pub(super) fn damage(&self, at: NonNull<u8>, state: State) -> Option<Case> {
        match self.record(at).read() {
            None => Some(Case::of(Crime::Record, at, None)),
            Some(facts) => self.damage_around(at, &facts).or_else(|| self.damage_inside(at, &facts, state)),
        }
    }

    /// What is wrong with the guards of a block.
    #[inline]
    pub(super) fn damage_around(&self, at: NonNull<u8>, facts: &Facts) -> Option<Case> {
        let size = facts.layout.size();
        let front = self.lone.front(at).unwrap_or(FRONT);
        let back = self.lone.back(at, size).unwrap_or(BACK);
        let (before, behind) = (guard::at(at, -(front as isize)), guard::at(at, size as isize));
        let changed = |crime, from: NonNull<u8>, bytes, pattern| {
            // SAFETY: the guards lie around each block.
            let index = unsafe { guard::first_changed(from, bytes, pattern) }?;
            let bad = from.as_ptr() as usize + index;
            Some(Case { bad, guard: (from, bytes), ..Case::of(crime, at, Some(*facts)) })
        };
        changed(Crime::Underflow, before, front, Pattern::Guard)
            .or_else(|| changed(Crime::Overflow, behind, back, Pattern::Guard))
    }

    /// What is wrong with the bytes of a block that is held back.
    #[inline]
    fn damage_inside(&self, at: NonNull<u8>, facts: &Facts, state: State) -> Option<Case> {
        let poisoned = facts.layout.size().min(self.hunt().poison);
        if state != State::Held {
            return None;
        }
        // SAFETY: the block has that many bytes, and is nobody's.
        let index = unsafe { guard::first_changed(at, poisoned, Pattern::Poison) }?;
        let bad = at.as_ptr() as usize + index;
        Some(Case { bad, guard: (at, poisoned), ..Case::of(Crime::WrittenAfterFree, at, Some(*facts)) })
    }

    /// Shows every damaged block to `show`, until it has seen enough. O(blocks).
    fn each_damage(&self, mut show: impl FnMut(&Case) -> bool) {
        let mut goes_on = true;
        self.each_block(|begin, state| {
            if state == State::Live
                && let Some(at) = NonNull::new(begin as *mut u8)
                && let Some(case) = self.lasting_damage(at)
            {
                goes_on = show(&case);
            }
            goes_on
        });
        for trail in self.trails.all() {
            // A block that is in a trail is wholly freed, and stays there while the trail is locked; what is found is shown
            // once it is not.
            let mut found = None;
            trail.each_held(|held| {
                found = NonNull::new(held.address as *mut u8).and_then(|at| self.damage(at, State::Held));
                found.is_none()
            });
            if goes_on && let Some(case) = found {
                goes_on = show(&case);
            }
        }
    }

    /// What is wrong with a live block, in several looks. (It may be freed, and others made in its place, between two words
    /// that are read here.)
    fn lasting_damage(&self, at: NonNull<u8>) -> Option<Case> {
        let mut last = None;
        for look in 0..LOOKS {
            let case = self.while_live(at, || self.damage(at, State::Live))??;
            if self.state(at.as_ptr() as usize) != Some(State::Live) {
                return None;
            }
            last = Some(case);
            if look + 1 < LOOKS {
                os::sleep(1);
            }
        }
        last
    }

    /// Reports every damaged block.
    pub(super) fn sweep(&self) {
        self.each_damage(|case| {
            self.report(case);
            true
        });
    }

    /// The first damaged block, as a finding.
    pub(crate) fn check(&self) -> Verdict {
        if !self.is_begun() {
            return Ok(());
        }
        let mut verdict = Ok(());
        self.each_damage(|case| {
            verdict = Layer::Blocks.holds(false, case.crime.rule(), case.at.as_ptr() as usize);
            false
        });
        verdict
    }
}
