//! A gate through which one thread at a time goes, for long: components are opened and callbacks called meanwhile. It is no lock of the
//! allocator's.

use crate::os;
use crate::sync::{Acquire, AtomicU32, AtomicUsize, Relaxed, Release};

std::thread_local! {
    /// By its address a thread is told from others.
    static OWN: u8 = const { 0 };
}

/// A number that is this thread's while it lives, and not 0.
pub(super) fn own() -> usize {
    OWN.with(|own| core::ptr::from_ref(own) as usize)
}

/// The gate.
#[derive(Debug)]
pub(super) struct Gate {
    /// Who is in it; 0: nobody.
    owner: AtomicUsize,
    /// How often whoever is in it has entered. Nobody else changes it.
    depth: AtomicU32,
}

/// Somebody is in the gate, until this is dropped.
#[derive(Debug)]
pub(super) struct Entered<'a>(&'a Gate);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

impl Gate {
    pub(super) const fn new() -> Self {
        Self { owner: AtomicUsize::new(0), depth: AtomicU32::new(0) }
    }

    /// Waits until nobody is in it, and enters.
    pub(super) fn enter(&self) -> Entered<'_> {
        self.hold();
        Entered(self)
    }

    /// The same, until `let_go`. Whoever is in it enters once more: a fork from the inside of the gate does.
    pub(super) fn hold(&self) {
        // Acquire: what the one before has done is done.
        while self.owner.compare_exchange(0, own(), Acquire, Relaxed).is_err_and(|owner| owner != own()) {
            os::rest();
        }
        self.depth.store(self.depth.load(Relaxed) + 1, Relaxed);
    }

    pub(super) fn let_go(&self) {
        let depth = self.depth.load(Relaxed) - 1;
        self.depth.store(depth, Relaxed);
        if depth == 0 {
            self.owner.store(0, Release);
        }
    }

    /// In the child of a fork: other threads are not in it.
    pub(super) fn abandon(&self) {
        if self.owner.load(Relaxed) != own() {
            self.depth.store(0, Relaxed);
            self.owner.store(0, Release);
        }
    }
}
