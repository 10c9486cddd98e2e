//! All caches of registrations of the process: their locks are held over a fork.

use super::held::{Held, is_holder};
use crate::lock::Rank;
use core::cell::Cell;
use core::ptr::NonNull;

/// A cache in the list of all, by which its lock is held over a fork.
pub(super) struct Link {
    lock: Cell<Option<NonNull<dyn Hold>>>,
    next: Cell<Option<NonNull<Link>>>,
}

/// A lock that is held over a fork.
pub(super) trait Hold {
    fn hold(&self);

    /// # Safety
    /// - This thread, or the one it was forked from, holds it by `hold`.
    unsafe fn let_go(&self);

    /// In the child of a fork: what other threads were dropping they drop no more.
    fn abandon(&self);
}
/// The first of all caches.
struct First(Option<NonNull<Link>>);

// SAFETY: links are reached with the list locked.
unsafe impl Send for First {}

static CACHES: Held<First> = Held::new(Rank::Caches, First(None));

/// Calls `each` with the lock of each cache, in one order; the list is locked, or held.
fn each_lock(first: &First, each: &mut dyn FnMut(&dyn Hold)) {
    let mut at = first.0;
    while let Some(link) = at {
        // SAFETY: a cache is in the list until it is dropped.
        let link = unsafe { link.as_ref() };
        if let Some(lock) = link.lock.get() {
            // SAFETY: it is the cache's own.
            each(unsafe { lock.as_ref() });
        }
        at = link.next.get();
    }
}

/// Before a fork: holds the locks of all caches.
pub(super) fn hold_all() {
    CACHES.hold();
    // SAFETY: held, and no section runs.
    each_lock(unsafe { CACHES.held() }, &mut |lock| lock.hold());
}

/// Gives back what `hold_all` took.
///
/// # Safety
/// - This thread, or the one it was forked from, has called `hold_all`.
pub(super) unsafe fn let_go_of_all() {
    // SAFETY: held, and no section runs.
    each_lock(unsafe { CACHES.held() }, &mut |lock| {
        // SAFETY: held by `hold_all`.
        unsafe { lock.let_go() };
    });
    // SAFETY: as above.
    unsafe { CACHES.let_go() };
}

/// In the child of a fork: other threads are not here.
pub(super) fn abandon_all() {
    CACHES.with(|first| each_lock(first, &mut |lock| lock.abandon()));
}

impl Link {
    pub(super) const fn new() -> Self {
        Self { lock: Cell::new(None), next: Cell::new(None) }
    }

    /// Enters a cache in the list, whose lock this is. Neither moves any more.
    pub(super) fn enter(&self, lock: &(dyn Hold + 'static)) {
        self.lock.set(Some(NonNull::from(lock)));
        if is_holder() {
            // It is let go with the others.
            lock.hold();
        }
        CACHES.with(|first| {
            self.next.set(first.0);
            first.0 = Some(NonNull::from(self));
        });
    }

    /// Takes it out.
    pub(super) fn leave(&self) {
        let own = NonNull::from(self);
        CACHES.with(|first| {
            if first.0 == Some(own) {
                first.0 = self.next.get();
                return;
            }
            let mut at = first.0;
            while let Some(link) = at {
                // SAFETY: as in `each_lock`.
                let link = unsafe { link.as_ref() };
                if link.next.get() == Some(own) {
                    link.next.set(self.next.get());
                }
                at = link.next.get();
            }
        });
    }
}
