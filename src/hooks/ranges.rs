//! Ranges of addresses, each with a value: a search tree (a treap) by where they begin, in which each node knows how far the ranges below it
//! reach. Its nodes lie in pages of its own, so that it can be changed where the heap cannot be called; they never move.
//!
//! To enter, to remove, to find: O(log n) on average.

use crate::os::{self, Span};
use core::mem::MaybeUninit;
use core::ptr::NonNull;

/// A node, by its number; 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(u32);

impl Id {
    const NONE: Self = Self(0);
}

/// What a range is told from others by: where it begins and ends, and a word of the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) at: usize,
    pub(super) end: usize,
    pub(super) tag: u64,
}

impl Key {
    /// Of a range; `None` if it is empty, or ends beyond all addresses.
    pub(super) fn of(span: Span, tag: u64) -> Option<Self> {
        let end = span.at.checked_add(span.bytes)?;
        (span.bytes > 0).then_some(Self { at: span.at, end, tag })
    }

    pub(super) fn span(self) -> Span {
        Span { at: self.at, bytes: self.end - self.at }
    }
}

struct Node<T> {
    key: Key,
    /// How far the ranges of this node and of those below it reach.
    reach: usize,
    /// Below: what begins before, and after. A free node's first is the next free one.
    left: Id,
    right: Id,
    /// No node below has a greater one.
    weight: u32,
    value: MaybeUninit<T>,
}

/// Nodes in the first chunk; each other one has twice as many as the one before.
const FIRST: usize = 64;
const CHUNKS: usize = 24;

/// The ranges.
pub(super) struct Ranges<T> {
    chunks: [Option<NonNull<Node<T>>>; CHUNKS],
    root: Id,
    free: Id,
    /// Nodes that were ever used.
    used: u32,
    count: usize,
    random: u32,
}

// SAFETY: it owns its nodes, as a vector would.
unsafe impl<T: Send> Send for Ranges<T> {}

impl<T> core::fmt::Debug for Ranges<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Ranges({})", self.count)
    }
}

impl<T> Ranges<T> {
    pub(super) const fn new() -> Self {
        let (chunks, none) = ([None; CHUNKS], Id::NONE);
        Self { chunks, root: none, free: none, used: 0, count: 0, random: 0x9e37_79b9 }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Where node number `index`, from 0 on, lies: in which chunk, and where there.
    const fn place(index: usize) -> (usize, usize) {
        let chunk = (index / FIRST + 1).ilog2() as usize;
        (chunk, index - FIRST * ((1 << chunk) - 1))
    }

    /// The node, which is one that was ever used.
    fn pointer(&self, id: Id) -> *mut Node<T> {
        let (chunk, at) = Self::place(id.0 as usize - 1);
        self.chunks[chunk].map_or(core::ptr::null_mut(), |chunk| chunk.as_ptr().wrapping_add(at))
    }

    fn node(&self, id: Id) -> &Node<T> {
        // SAFETY: ids are handed out for nodes that are there, and nodes stay.
        unsafe { &*self.pointer(id) }
    }

    fn node_mut(&mut self, id: Id) -> &mut Node<T> {
        // SAFETY: as above; and the borrow is of all of them.
        unsafe { &mut *self.pointer(id) }
    }

    pub(super) fn key(&self, id: Id) -> Key {
        self.node(id).key
    }

    /// The value of a range that is entered.
    pub(super) fn value(&self, id: Id) -> &T {
        // SAFETY: an entered node has one.
        unsafe { self.node(id).value.assume_init_ref() }
    }

    /// As above.
    pub(super) fn value_mut(&mut self, id: Id) -> &mut T {
        // SAFETY: as above.
        unsafe { self.node_mut(id).value.assume_init_mut() }
    }

    fn reach(&self, id: Id) -> usize {
        if id == Id::NONE { 0 } else { self.node(id).reach }
    }

    /// Says anew how far a node reaches, after one below it has changed.
    fn settle(&mut self, id: Id) {
        let node = self.node(id);
        let reach = node.key.end.max(self.reach(node.left)).max(self.reach(node.right));
        self.node_mut(id).reach = reach;
    }

    /// A node that nobody uses; `None` without memory for one.
    fn fresh(&mut self) -> Option<Id> {
        if self.free != Id::NONE {
            let id = self.free;
            self.free = self.node(id).left;
            return Some(id);
        }
        let (chunk, _) = Self::place(self.used as usize);
        if chunk >= CHUNKS {
            return None;
        }
        if self.chunks[chunk].is_none() {
            let span = os::map((FIRST << chunk) * size_of::<Node<T>>())?;
            self.chunks[chunk] = NonNull::new(core::ptr::with_exposed_provenance_mut(span.at));
        }
        self.used += 1;
        Some(Id(self.used))
    }

    /// Enters a range, beside any others; without memory for it, the value comes back.
    pub(super) fn enter(&mut self, key: Key, value: T) -> Result<Id, T> {
        let Some(id) = self.fresh() else { return Err(value) };
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        let (weight, value, none) = (self.random, MaybeUninit::new(value), Id::NONE);
        let node = Node { key, reach: key.end, left: none, right: none, weight, value };
        // SAFETY: the node is there, and nobody's.
        unsafe { self.pointer(id).write(node) };
        let (before, behind) = self.split(self.root, key);
        let before = self.join(before, id);
        self.root = self.join(before, behind);
        self.count += 1;
        Ok(id)
    }

    /// Parts a tree: what is no greater than `key`, and what is.
    fn split(&mut self, tree: Id, key: Key) -> (Id, Id) {
        if tree == Id::NONE {
            return (tree, tree);
        }
        let (own, left, right) = (self.node(tree).key, self.node(tree).left, self.node(tree).right);
        if own <= key {
            let (before, behind) = self.split(right, key);
            self.node_mut(tree).right = before;
            self.settle(tree);
            (tree, behind)
        } else {
            let (before, behind) = self.split(left, key);
            self.node_mut(tree).left = behind;
            self.settle(tree);
            (before, tree)
        }
    }

    /// Makes one tree of two, of which the first has no greater key than the second.
    fn join(&mut self, before: Id, behind: Id) -> Id {
        if before == Id::NONE || behind == Id::NONE {
            return if before == Id::NONE { behind } else { before };
        }
        if self.node(before).weight >= self.node(behind).weight {
            let right = self.join(self.node(before).right, behind);
            self.node_mut(before).right = right;
            self.settle(before);
            before
        } else {
            let left = self.join(before, self.node(behind).left);
            self.node_mut(behind).left = left;
            self.settle(behind);
            behind
        }
    }

    /// Takes a node out of the tree, and returns what the tree is then.
    fn cut(&mut self, tree: Id, id: Id) -> Option<Id> {
        if tree == Id::NONE {
            return None;
        }
        let (left, right) = (self.node(tree).left, self.node(tree).right);
        if tree == id {
            return Some(self.join(left, right));
        }
        let (key, own) = (self.key(id), self.key(tree));
        // Of those with the same key there may be some on both sides.
        let below = (key <= own).then(|| self.cut(left, id)).flatten();
        match below {
            Some(left) => self.node_mut(tree).left = left,
            None if key >= own => {
                let right = self.cut(right, id)?;
                self.node_mut(tree).right = right;
            }
            None => return None,
        }
        self.settle(tree);
        Some(tree)
    }

    /// Takes a range out that is entered. Its node stays, with its value, until `give_back`.
    pub(super) fn remove(&mut self, id: Id) {
        if let Some(root) = self.cut(self.root, id) {
            self.root = root;
            self.count -= 1;
        }
    }

    /// Gives the node of a range back that was removed.
    pub(super) fn give_back(&mut self, id: Id) -> T {
        let free = self.free;
        let node = self.node_mut(id);
        node.left = free;
        // SAFETY: the value was there, and is read once: the node is free from now on.
        let value = unsafe { node.value.assume_init_read() };
        self.free = id;
        value
    }

    /// A range with just this key.
    pub(super) fn find(&self, key: Key) -> Option<Id> {
        let mut at = self.root;
        while at != Id::NONE {
            let node = self.node(at);
            match key.cmp(&node.key) {
                core::cmp::Ordering::Equal => return Some(at),
                core::cmp::Ordering::Less => at = node.left,
                core::cmp::Ordering::Greater => at = node.right,
            }
        }
        None
    }

    /// A range around `span` that is `fit`.
    pub(super) fn around(&self, span: Span, fit: &dyn Fn(&T) -> bool) -> Option<Id> {
        let key = Key::of(span, 0)?;
        self.around_in(self.root, key, fit)
    }

    fn around_in(&self, tree: Id, key: Key, fit: &dyn Fn(&T) -> bool) -> Option<Id> {
        if self.reach(tree) < key.end {
            return None;
        }
        let node = self.node(tree);
        if node.key.at > key.at {
            return self.around_in(node.left, key, fit);
        }
        if node.key.end >= key.end && fit(self.value(tree)) {
            return Some(tree);
        }
        self.around_in(node.left, key, fit).or_else(|| self.around_in(node.right, key, fit))
    }

    /// The first range, by where they begin, that overlaps `span` and is `fit`.
    pub(super) fn overlapping(&self, span: Span, fit: &mut dyn FnMut(Key, &T) -> bool) -> Option<Id> {
        // What would end behind the last address ends there.
        let end = span.at.saturating_add(span.bytes);
        if span.bytes == 0 {
            return None;
        }
        self.overlapping_in(self.root, Key { at: span.at, end, tag: 0 }, fit)
    }

    fn overlapping_in(&self, tree: Id, key: Key, fit: &mut dyn FnMut(Key, &T) -> bool) -> Option<Id> {
        if self.reach(tree) <= key.at {
            return None;
        }
        let node = self.node(tree);
        if let Some(found) = self.overlapping_in(node.left, key, fit) {
            return Some(found);
        }
        if node.key.at >= key.end {
            return None;
        }
        if node.key.end > key.at && fit(node.key, self.value(tree)) {
            return Some(tree);
        }
        self.overlapping_in(node.right, key, fit)
    }

    /// The first range behind `key`, in their order.
    pub(super) fn next_after(&self, key: Key) -> Option<Id> {
        let (mut at, mut best) = (self.root, None);
        while at != Id::NONE {
            let node = self.node(at);
            if node.key > key {
                best = Some(at);
                at = node.left;
            } else {
                at = node.right;
            }
        }
        best
    }

    /// Any range that there is.
    pub(super) fn any(&self) -> Option<Id> {
        (self.root != Id::NONE).then_some(self.root)
    }
}

impl<T> Drop for Ranges<T> {
    fn drop(&mut self) {
        while let Some(id) = self.any() {
            self.remove(id);
            drop(self.give_back(id));
        }
        for (number, chunk) in self.chunks.iter().enumerate().filter_map(|(at, chunk)| Some((at, (*chunk)?))) {
            os::unmap(Span { at: chunk.as_ptr() as usize, bytes: (FIRST << number) * size_of::<Node<T>>() });
        }
    }
}

#[cfg(test)]
#[path = "ranges_tests.rs"]
mod tests;
