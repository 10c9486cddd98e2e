#![expect(clippy::disallowed_methods, reason = "mappings that refuse")]

use super::{ACCESSIBLE_MAX, BY_ACCESS, BY_MARK, IN_USE, LENGTHS, Lone, NO_GUARD, NO_STACK, UNKNOWN};
use crate::os::{self, Span, copy_from};
use crate::sync::Relaxed;
use core::ffi::c_void;
use std::os::fd::AsRawFd;
use std::time::Instant;
use std::vec::Vec;

/// Tests slots whose guards are made in this way; by marks only where the kernel has them.
fn with(way: u32, test: impl FnOnce(&Lone)) {
    let lone = Lone::new();
    lone.way.store(if way == BY_MARK { UNKNOWN } else { way }, Relaxed);
    assert!(lone.open());
    if lone.way.load(Relaxed) == way {
        test(&lone);
    }
    lone.spans().into_iter().for_each(os::unmap);
}

fn is_readable(at: usize) -> bool {
    copy_from(at, &mut [0]) == 1
}

fn behind(span: Span) -> usize {
    span.at + span.bytes
}

impl Lone {
    fn write(&self, index: usize) {
        let slot = self.span(index);
        // SAFETY: the slot was taken.
        unsafe { (slot.at as *mut u8).write_bytes(1, slot.bytes) };
    }

    fn is_zero(&self, index: usize) -> bool {
        let slot = self.span(index);
        // SAFETY: the slot was taken.
        (slot.at..behind(slot)).all(|at| unsafe { (at as *const u8).read() } == 0)
    }

    /// From now on there are no fresh slots.
    fn use_up(&self) {
        let total = self.bytes.load(Relaxed) >> self.page_shift.load(Relaxed);
        self.slots.with(|slots| slots.fresh = total);
    }
}

#[test]
fn a_freed_slot_is_unreachable_and_comes_back_zeroed_and_last() {
    for way in [BY_MARK, BY_ACCESS] {
        with(way, |lone| {
            let taken: Vec<usize> = (0..10).map(|_| lone.take(3).expect("a slot")).collect();
            for index in &taken {
                lone.write(*index);
                assert!(!is_readable(behind(lone.span(*index))), "the guard");
            }
            taken.iter().for_each(|index| lone.put(*index));
            assert!(taken.iter().all(|index| !is_readable(lone.span(*index).at)));
            assert!(!taken.contains(&lone.take(3).expect("a fresh one")));
            lone.use_up();
            for index in &taken {
                assert_eq!(lone.take(3), Some(*index));
                assert!(lone.is_zero(*index) && !is_readable(behind(lone.span(*index))));
            }
            assert_eq!(lone.take(3), None);
            assert_eq!(lone.accessible.load(Relaxed), 11);
        });
    }
}

#[test]
fn where_guards_cost_mappings_there_are_so_many_blocks_and_each_free_makes_room() {
    with(BY_ACCESS, |lone| {
        let taken: Vec<usize> = (0..ACCESSIBLE_MAX).map(|_| lone.take(1).expect("a slot")).collect();
        for index in taken.iter().rev().step_by(7) {
            assert_eq!(lone.take(1), None);
            lone.put(*index);
            assert!(!is_readable(lone.span(*index).at));
            assert!(lone.take(1).is_some_and(|index| is_readable(lone.span(index).at)));
        }
        assert_eq!(lone.accessible.load(Relaxed), ACCESSIBLE_MAX);
    });
}

#[test]
fn a_slot_that_cannot_be_opened_waits() {
    with(BY_ACCESS, |lone| {
        let index = lone.take(1).expect("a slot");
        lone.put(index);
        lone.use_up();
        // A file that may only be read does not become memory that may be written.
        let slot = lone.span(index);
        let file = std::fs::File::open("/proc/self/exe").expect("it runs");
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        let to = slot.at as *mut c_void;
        // SAFETY: in place of a slot that nobody has.
        let at = unsafe { libc::mmap(to, slot.bytes, libc::PROT_NONE, flags, file.as_raw_fd(), 0) };
        assert_eq!(at, to);
        assert_eq!([lone.take(1), lone.take(1)], [None; 2]);
        assert_eq!(lone.accessible.load(Relaxed), 0);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: as above.
        let at = unsafe { libc::mmap(to, slot.bytes, libc::PROT_NONE, flags, -1, 0) };
        assert_eq!((at, lone.take(1)), (to, Some(index)));
    });
}

/// The kernel marks no guards in memory that is locked.
fn lock(at: usize) {
    // SAFETY: the memory stays as it is.
    assert_eq!(unsafe { libc::mlock(at as *const c_void, 1) }, 0);
}

#[test]
fn a_fresh_slot_without_a_guard_waits_for_one() {
    with(BY_MARK, |lone| {
        let first = lone.take(1).expect("a slot");
        // The guard of the next slot of one page.
        let guard = lone.span(first).at + 3 * lone.span(first).bytes;
        lock(guard);
        assert_eq!((lone.take(1), lone.accessible.load(Relaxed)), (None, 1));
        lone.use_up();
        assert_eq!(lone.take(1), None);
        // SAFETY: as in `lock`.
        assert_eq!(unsafe { libc::munlock(guard as *const c_void, 1) }, 0);
        let second = lone.take(1).expect("it has waited");
        assert_eq!(behind(lone.span(second)), guard);
        assert!(!is_readable(guard) && lone.is_zero(second));
    });
}

#[test]
fn a_slot_that_cannot_be_closed_is_nobodys_any_more() {
    with(BY_MARK, |lone| {
        let index = lone.take(1).expect("a slot");
        lock(lone.span(index).at);
        lone.put(index);
        lone.use_up();
        assert!((0..=LENGTHS).all(|pages| lone.take(pages).is_none()));
        assert_eq!((lone.accessible.load(Relaxed), lone.has_warned.load(Relaxed)), (1, NO_GUARD.0));
    });
}

#[test]
fn a_stack_that_never_was_is_not_waited_for() {
    with(BY_ACCESS, |lone| {
        let stack = lone.take_stack().expect("one");
        assert_eq!(lone.stack.load(Relaxed), IN_USE);
        lone.put_stack(stack);
        assert_eq!(lone.take_stack(), Some(stack));
        lone.stack.store(NO_STACK, Relaxed);
        let begun = Instant::now();
        assert!(lone.take_stack().is_none() && begun.elapsed().as_secs() < 20);
    });
}
