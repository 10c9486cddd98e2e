//! Who is told that memory goes: a chain of callbacks that is read without a lock, by whatever thread takes the memory away.
//!
//! A node is never freed, and has one word: its state, how many calls of it run, and how often it was used, so that a handle of an earlier use
//! means nothing. A callback that was taken off is dropped once no call of it runs, by a thread that may free.

use super::component::Release;
use crate::fatal::{Fatal, die};
use crate::os;
use crate::sync::{AcqRel, Acquire, AtomicPtr, AtomicU64, Relaxed, Release as Publish};
use crate::twin::{self, Twin};
use core::cell::Cell;
#[cfg(not(loom))]
use core::cell::UnsafeCell;
use core::ptr::null_mut;
#[cfg(loom)]
use loom::cell::UnsafeCell;
use std::boxed::Box;

/// What is called.
pub(super) type Told = Box<dyn Fn(&Release) + Send + Sync>;

/// States of a node, in the highest bits of its word; then its uses; then the calls that run.
const FREE: u64 = 0;
const TAKEN: u64 = 1;
const LIVE: u64 = 2;
const DYING: u64 = 3;
const STATE: u32 = 62;
const USE: u64 = 1 << 24;
const CALLS: u64 = USE - 1;

struct Node {
    word: AtomicU64,
    /// Set while the state is `LIVE` or `DYING`.
    told: UnsafeCell<Option<Told>>,
    next: AtomicPtr<Node>,
}

// SAFETY: what is told is written by who has taken the node, and read while it is live.
unsafe impl Sync for Node {}

const fn state(word: u64) -> u64 {
    word >> STATE
}

const fn with_state(word: u64, state: u64) -> u64 {
    (word & !(3 << STATE)) | state << STATE
}

/// A thread tells: on its stack, until it has told all.
struct Telling {
    /// What it calls just now.
    node: Cell<Option<&'static Node>>,
    /// Whether it tells from inside the allocator.
    #[cfg_attr(not(debug_assertions), allow(dead_code, reason = "only builds with debug assertions look"))]
    from_allocator: bool,
    /// What it told when a callback made it tell this.
    outer: *const Telling,
}

#[cfg(loom)]
loom::thread_local! {
    static INSIDE: Cell<*const Telling> = Cell::new(core::ptr::null());
}
#[cfg(not(loom))]
std::thread_local! {
    /// What this thread tells; null outside of callbacks.
    static INSIDE: Cell<*const Telling> = const { Cell::new(core::ptr::null()) };
}

/// What this thread tells, the innermost first.
fn told_here() -> impl Iterator<Item = &'static Telling> {
    let mut at = INSIDE.with(Cell::get);
    core::iter::from_fn(move || {
        // SAFETY: it is on this thread's stack below the caller, who uses it no longer than it runs.
        let telling = unsafe { at.as_ref() }?;
        at = telling.outer;
        Some(telling)
    })
}

/// Whether this thread is in a callback.
pub(super) fn is_inside() -> bool {
    told_here().next().is_some()
}

/// Whether this thread is in a callback that may neither allocate nor free.
#[cfg(debug_assertions)]
pub(super) fn is_in_allocator() -> bool {
    told_here().any(|telling| telling.from_allocator)
}

/// The callbacks.
pub(super) struct Callbacks {
    newest: AtomicPtr<Node>,
}

/// A callback that is on the chain, by its node and its use.
#[derive(Clone, Copy)]
pub(super) struct Place {
    node: &'static Node,
    uses: u64,
}

/// Ends the process if it is dropped: a callback that unwinds would unwind the allocator.
struct MustReturn;

impl Drop for MustReturn {
    fn drop(&mut self) {
        die(Fatal::CallbackUnwinds);
    }
}

impl Callbacks {
    crate::sync::const_unless_loom! {
        pub(super) fn new() -> Self {
            Self { newest: AtomicPtr::new(null_mut()) }
        }
    }

    fn nodes(&self) -> impl Iterator<Item = &'static Node> {
        // Acquire, here and below: pairs with `extend`.
        let mut at = self.newest.load(Acquire);
        core::iter::from_fn(move || {
            // SAFETY: nodes are never freed.
            let node: &'static Node = unsafe { at.as_ref() }?;
            at = node.next.load(Acquire);
            Some(node)
        })
    }

    /// Puts a callback on the chain.
    pub(super) fn add(&self, told: Told) -> Place {
        self.sweep();
        let node = self.nodes().find(|node| node.take(FREE)).unwrap_or_else(|| self.extend());
        node.set(Some(told));
        let word = with_state(node.word.load(Relaxed).wrapping_add(USE), LIVE);
        // Release: what is told is there; pairs with `enter`.
        node.word.store(word, Publish);
        Place { node, uses: word }
    }

    /// A new node, which is taken.
    fn extend(&self) -> &'static Node {
        let node: &'static mut Node = Box::leak(Box::new(Node {
            word: AtomicU64::new(with_state(0, TAKEN)),
            told: UnsafeCell::new(None),
            next: AtomicPtr::new(null_mut()),
        }));
        let node: &'static Node = node;
        let mut newest = self.newest.load(Relaxed);
        loop {
            node.next.store(newest, Relaxed);
            // Release: publishes the node; pairs with `nodes`.
            match self.newest.compare_exchange(newest, (&raw const *node).cast_mut(), Publish, Relaxed) {
                Ok(_) => return node,
                Err(other) => newest = other,
            }
        }
    }

    /// Tells all of them.
    pub(super) fn tell(&self, release: &Release) {
        let outer = INSIDE.with(Cell::get);
        let telling = Telling { node: Cell::new(None), from_allocator: release.from_allocator, outer };
        INSIDE.with(|inside| inside.set(&raw const telling));
        for node in self.nodes().filter(|node| node.enter()) {
            telling.node.set(Some(node));
            let must_return = MustReturn;
            node.call(release);
            core::mem::forget(must_return);
            telling.node.set(None);
            // Release: the call has ended; pairs with `take`.
            node.word.fetch_sub(1, if twin::is(Twin::Told) { Relaxed } else { Publish });
        }
        INSIDE.with(|inside| inside.set(outer));
    }

    /// Takes a callback off the chain: no call of it begins any more. Outside of callbacks it waits until none runs. False if it was off.
    pub(super) fn take_off(&self, place: Place) -> bool {
        let mut word = place.node.word.load(Relaxed);
        loop {
            if word & !CALLS != place.uses {
                return false;
            }
            match place.node.word.compare_exchange(word, with_state(word, DYING), AcqRel, Relaxed) {
                Ok(_) => break,
                Err(other) => word = other,
            }
        }
        if !is_inside() {
            let dying = with_state(place.uses, DYING);
            // Somebody else may have swept it meanwhile.
            while place.node.word.load(Acquire) & !CALLS == dying && !place.node.clear() {
                os::yield_now();
            }
        }
        true
    }

    /// Drops what was taken off where it could not be dropped.
    pub(super) fn sweep(&self) {
        if !is_inside() {
            for node in self.nodes() {
                node.clear();
            }
        }
    }

    /// In the child of a fork: calls of other threads do not run here; those run that this thread is forking from the inside of.
    pub(super) fn abandon(&self) {
        for node in self.nodes() {
            let is_own = |telling: &Telling| telling.node.get().is_some_and(|called| core::ptr::eq(called, node));
            let own = told_here().filter(|telling| is_own(telling)).count() as u64;
            node.word.store(node.word.load(Relaxed) & !CALLS | own, Relaxed);
        }
    }
}

impl Node {
    /// Puts what is told in the place of what was, which is dropped. The node is taken.
    fn set(&self, told: Option<Told>) {
        #[cfg(not(loom))]
        let place = self.told.get();
        // SAFETY: taken, so ours alone.
        #[cfg(not(loom))]
        let before = unsafe { place.replace(told) };
        // SAFETY: as above; loom checks it.
        #[cfg(loom)]
        let before = self.told.with_mut(|place| unsafe { place.replace(told) });
        drop(before);
    }

    /// Calls it: a call has begun.
    fn call(&self, release: &Release) {
        #[cfg(not(loom))]
        let place = self.told.get().cast_const();
        // SAFETY: live while a call runs, and not written then.
        #[cfg(not(loom))]
        let told = unsafe { &*place };
        #[cfg(not(loom))]
        if let Some(told) = told {
            told(release);
        }
        // SAFETY: as above; loom checks it.
        #[cfg(loom)]
        self.told.with(|place| unsafe { (*place).as_ref() }.map_or((), |told| told(release)));
    }

    /// Takes a node in that state in which no call runs.
    fn take(&self, from: u64) -> bool {
        let word = self.word.load(Relaxed);
        let fits = state(word) == from && word & CALLS == 0;
        // Acquire: what the last user and the last call did is done; pairs with `clear` and `tell`.
        fits && self.word.compare_exchange(word, with_state(word, TAKEN), Acquire, Relaxed).is_ok()
    }

    /// Begins a call, if it is live.
    fn enter(&self) -> bool {
        let mut word = self.word.load(Relaxed);
        while state(word) == LIVE {
            // Acquire: pairs with `add`.
            match self.word.compare_exchange(word, word + 1, Acquire, Relaxed) {
                Ok(_) => return true,
                Err(other) => word = other,
            }
        }
        false
    }

    /// Drops the callback of one that is off the chain and that no call runs of; false if there is nothing to drop yet.
    fn clear(&self) -> bool {
        if !self.take(DYING) {
            return false;
        }
        self.set(None);
        let word = self.word.load(Relaxed);
        // Release: the place is empty; pairs with `take`.
        self.word.store(with_state(word, FREE), Publish);
        true
    }
}
