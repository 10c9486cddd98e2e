//! Handlers of forks: all locks of the hooks are held over one, and what the child has is told from what was its parent's.

use super::component::Fork;
use super::{CALLBACKS, CENTER, REGISTERED, announce, caches, held};
use crate::os;
use crate::sync::{AtomicU32, Relaxed};

/// Sees to it that forks are survived.
pub(super) fn survive() {
    static REGISTERED: AtomicU32 = AtomicU32::new(0);
    if REGISTERED.swap(1, Relaxed) == 0 {
        os::at_fork(before_fork, after_fork_in_parent, after_fork_in_child);
    }
}

fn tell_of_fork(stage: Fork) {
    if let Some(chosen) = CENTER.chosen() {
        // SAFETY: called by the handlers of that stage.
        unsafe { chosen.component.fork(stage) };
    }
}

extern "C" fn before_fork() {
    // From here to the end of the fork nobody chooses or closes a component.
    CENTER.choosing.hold();
    caches::hold_all();
    REGISTERED.hold();
    held::hold_all();
    tell_of_fork(Fork::Before);
}

extern "C" fn after_fork_in_parent() {
    tell_of_fork(Fork::InParent);
    held::let_go_of_all();
    // SAFETY: held by `before_fork`.
    unsafe { REGISTERED.let_go() };
    // SAFETY: as above.
    unsafe { caches::let_go_of_all() };
    CENTER.choosing.let_go();
}

extern "C" fn after_fork_in_child() {
    tell_of_fork(Fork::InChild);
    held::let_go_of_all();
    // SAFETY: held by `before_fork`, by the thread that this one is a copy of, here and below.
    unsafe { REGISTERED.let_go() };
    // SAFETY: as above.
    unsafe { caches::let_go_of_all() };
    CENTER.choosing.let_go();
    caches::abandon_all();
    CENTER.processing.abandon();
    CALLBACKS.abandon();
    if CENTER.chosen().is_some() {
        CENTER.life.fetch_add(1, Relaxed);
        CENTER.cold.store(1, Relaxed);
        // First: what processes in this thread, if it is forking from inside that, settles nothing from now on.
        CENTER.forked.store(1, Relaxed);
        announce();
    }
}
