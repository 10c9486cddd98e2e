//! A gate through which one thread at a time goes, for long: components are opened and callbacks called meanwhile. It is no lock of the
//! allocator's.

use crate::os;
use crate::sync::{Acquire, AtomicUsize, Relaxed, Release};

std::thread_local! {
    /// By its address a thread is told from others.
    static OWN: u8 = const { 0 };
}

/// A number that is this thread's while it lives, and not 0.
fn own() -> usize {
    OWN.with(|own| core::ptr::from_ref(own) as usize)
}

/// The gate: who is in it; 0: nobody.
#[derive(Debug)]
pub(super) struct Gate(AtomicUsize);

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
        Self(AtomicUsize::new(0))
    }

    /// Waits until nobody is in it, and enters.
    pub(super) fn enter(&self) -> Entered<'_> {
        self.hold();
        Entered(self)
    }

    /// The same, until `let_go`. A fork from the inside of the gate enters once more.
    pub(super) fn hold(&self) {
        // Acquire: what the one before has done is done.
        while self.0.compare_exchange(0, own(), Acquire, Relaxed).is_err_and(|owner| owner != own()) {
            os::rest();
        }
    }

    pub(super) fn let_go(&self) {
        self.0.store(0, Release);
    }

    /// In the child of a fork: other threads are not in it.
    pub(super) fn abandon(&self) {
        if self.0.load(Relaxed) != own() {
            self.let_go();
        }
    }
}
