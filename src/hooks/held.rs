//! Locks that are held over forks, by a thread that may come again before it lets them go: handlers of a program's own, which the hooks know
//! nothing of, may free memory around a fork, and that is told.

use crate::lock::{Locked, Rank, Spin};
use crate::os;
use core::cell::Cell;

std::thread_local! {
    /// The process in which this thread took all such locks for a fork; 0 while it has not.
    static HOLDER: Cell<u32> = const { Cell::new(0) };
}

/// This thread has all of them, for a fork that begins.
pub(super) fn hold_all() {
    HOLDER.set(os::process_number());
}

/// It is about to let them go, or is the child's.
pub(super) fn let_go_of_all() {
    HOLDER.set(0);
}

/// Whether this thread has all of them: then others wait for it.
pub(super) fn is_holder() -> bool {
    HOLDER.get() != 0
}

/// Whether this is the child of a fork, and its handlers of forks have not run yet: what the kernel watches is the parent's.
pub(super) fn is_unborn() -> bool {
    is_holder() && HOLDER.get() != os::process_number()
}

/// A value behind such a lock.
#[derive(Debug)]
pub(super) struct Held<T>(Locked<T, Spin>);

impl<T> Held<T> {
    pub(super) const fn new(rank: Rank, value: T) -> Self {
        Self(Locked::new(rank, value))
    }

    /// Runs `section` with the lock held.
    pub(super) fn with<R>(&self, section: impl FnOnce(&mut T) -> R) -> R {
        if is_holder() {
            // SAFETY: this thread, or the one it was forked from, holds the lock, and sections do not nest.
            return section(unsafe { self.0.held() });
        }
        self.0.with(section)
    }

    /// Takes the lock and keeps it.
    pub(super) fn hold(&self) {
        self.0.hold();
    }

    /// What is behind a lock that `hold` took.
    ///
    /// # Safety
    /// - This thread, or the one it was forked from, holds the lock by `hold`, and no section runs.
    #[allow(clippy::mut_from_ref, reason = "the lock is held")]
    pub(super) unsafe fn held(&self) -> &mut T {
        // SAFETY: handed on to the caller.
        unsafe { self.0.held() }
    }

    /// Gives back what `hold` took.
    ///
    /// # Safety
    /// - This thread, or the one it was forked from, holds the lock by `hold`.
    pub(super) unsafe fn let_go(&self) {
        // SAFETY: handed on to the caller.
        unsafe { self.0.let_go() };
    }
}
