//! Fork from a program with busy threads.
//!
//! `prepare` takes every lock in the lock order, so that the child's copy of each layer is whole; parent and child let
//! them go. In the child only the forking thread lives on: the caches of the others are forgotten. A cache may have
//! been in the middle of a change, so its blocks are left alone: what a cache may hold, it keeps for ever in the child.

use super::cache::Cache;
use super::{CLOSED, Engine, OPENING, Registry};
use crate::lock::{Locked, RawLock};
use crate::os::Source;
use crate::sync::Relaxed;
use core::ptr::NonNull;

impl<S: Source, L: RawLock> Engine<S, L> {
    /// Before a fork: takes every lock.
    pub(crate) fn before_fork(&self) {
        self.registry.hold();
        each(self.depots.as_slice(), Locked::hold);
        each(&self.run_depots, Locked::hold);
        each(self.slabs.as_slice(), Locked::hold);
        each(&self.reserves, Locked::hold);
        self.runs.hold();
        self.records.hold();
    }

    /// After a fork, in the parent: lets every lock go.
    ///
    /// # Safety
    /// - This thread, or the one it was forked from, called `before_fork`.
    pub(crate) unsafe fn after_fork(&self) {
        // SAFETY: held since `before_fork`, here and below.
        unsafe { self.records.let_go() };
        // SAFETY: as above.
        unsafe { self.runs.let_go() };
        // SAFETY: as above.
        each(&self.reserves, |reserve| unsafe { reserve.let_go() });
        // SAFETY: as above.
        each(self.slabs.as_slice(), |slabs| unsafe { slabs.let_go() });
        // SAFETY: as above.
        each(&self.run_depots, |depot| unsafe { depot.let_go() });
        // SAFETY: as above.
        each(self.depots.as_slice(), |depot| unsafe { depot.let_go() });
        // SAFETY: as above.
        unsafe { self.registry.let_go() };
    }

    /// After a fork, in the child: lets every lock go, and forgets all caches but the forking thread's.
    ///
    /// # Safety
    /// - As `after_fork`;
    /// - `own` is this thread's cache, if it has one that is attached to this heap.
    pub(crate) unsafe fn after_fork_in_child(&self, own: Option<&Cache>) {
        // SAFETY: handed on.
        unsafe { self.after_fork() };
        // A thread that was opening the heap is not here to end it.
        let _ = self.phase.compare_exchange(OPENING, CLOSED, Relaxed, Relaxed);
        self.map.note_root();
        self.close_all_hot();
        self.registry.with(|registry| registry.keep_only(own));
    }
}

/// Does the same with each lock, in order. (A loop over a known number of them would be unrolled.)
#[inline(never)]
fn each<T, L>(locks: &[Locked<T, L>], what: fn(&Locked<T, L>)) {
    locks.iter().for_each(what);
}

impl Registry {
    fn keep_only(&mut self, own: Option<&Cache>) {
        // What the others counted stays counted; the blocks they hold are for ever in their caches.
        let mut departed = self.departed;
        let others = self.caches().filter(|cache| own.is_none_or(|own| !core::ptr::eq(*cache, own)));
        others.for_each(|cache| departed.add(cache));
        self.departed = departed;
        self.newest = own.map(NonNull::from);
        self.caches = usize::from(own.is_some());
        if let Some(cache) = own {
            cache.older.set(None);
            cache.newer.set(None);
        }
    }
}
