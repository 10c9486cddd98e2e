//! What a cache of registrations holds: a tree of ranges, those among them that nobody uses by when they were used, and those that are
//! to be dropped. All of it changes under the cache's lock, without a call of the heap's.

use super::deregister;
use super::gate::own;
use super::ranges::{Id, Key, Ranges};
use crate::os::Span;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use std::boxed::Box;

/// How much a cache keeps that nobody uses. What is in use is beside that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Registrations.
    pub entries: usize,
    /// Bytes of their ranges, all together; where ranges overlap, of each. One that is longer by itself is kept while it is in use only.
    pub bytes: usize,
}

impl Default for Limits {
    /// 1,024 registrations, and a GiB all together.
    fn default() -> Self {
        Self { entries: 1024, bytes: 1 << 30 }
    }
}

/// What a cache has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Registrations that it holds, in use or not.
    pub entries: usize,
    /// Those that are in use, or are being made.
    pub in_use: usize,
    /// Bytes of the ranges of all of them.
    pub bytes: usize,
    /// Calls that found one.
    pub hits: u64,
    /// Attempts to make one.
    pub misses: u64,
    /// Registrations whose memory went, or that were invalidated, those that were being made among them.
    pub released: u64,
    /// Registrations that had to make room, or were cleared, or were too long to be kept.
    pub evicted: u64,
}
/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is being made, by somebody who has it pinned.
    Making,
    Ready,
    /// Its memory has gone: nobody gets it any more.
    Stale,
}

/// What is there of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    Whole,
    /// The thread of that number is dropping it.
    Dropping(usize),
    /// Its box.
    Husk,
}

impl Rest {
    /// Whether another thread is dropping it.
    pub(super) fn is_of_other(self) -> bool {
        matches!(self, Self::Dropping(thread) if thread != own())
    }
}

pub(super) struct Entry<T> {
    pub(super) state: State,
    pub(super) pins: usize,
    /// Made by a box, and dropped as one: where nobody holds the lock.
    pub(super) value: Option<NonNull<T>>,
    /// How far that is.
    pub(super) rest: Rest,
    /// Whether the hooks know of it, by its key.
    pub(super) is_registered: bool,
    /// Neighbours among those that are idle, by when they were used; `older` links what is to be dropped, too.
    pub(super) newer: Option<Id>,
    pub(super) older: Option<Id>,
}

// SAFETY: it owns its value.
unsafe impl<T: Send> Send for Entry<T> {}

pub(super) struct Inner<T> {
    pub(super) ranges: Ranges<Entry<T>>,
    /// Those that are ready and not pinned, by when they were used.
    pub(super) newest: Option<Id>,
    pub(super) oldest: Option<Id>,
    /// How much may be idle, and how much is.
    pub(super) limits: Limits,
    pub(super) idle: Limits,
    /// Those that are out of the tree, whose values are to be dropped.
    pub(super) dead: Option<Id>,
    pub(super) next_tag: u64,
    pub(super) stats: CacheStats,
}
impl<T> Inner<T> {
    pub(super) fn entry(&mut self, id: Id) -> &mut Entry<T> {
        self.ranges.value_mut(id)
    }

    pub(super) fn bytes(&self, id: Id) -> usize {
        self.ranges.key(id).span().bytes
    }

    /// A ready one around the span, which is pinned then.
    pub(super) fn find(&mut self, span: Span) -> Option<(Id, NonNull<T>, Key)> {
        let id = self.ranges.around(span, &|entry| entry.state == State::Ready)?;
        let value = self.entry(id).value?;
        if self.entry(id).pins == 0 {
            self.leave_idle(id);
        }
        self.entry(id).pins += 1;
        self.stats.hits += 1;
        Some((id, value, self.ranges.key(id)))
    }

    /// A new one, pinned, that is to be made.
    pub(super) fn begin(&mut self, span: Span) -> Option<Id> {
        self.next_tag += 1;
        let entry = Entry {
            state: State::Making,
            pins: 1,
            value: None,
            rest: Rest::Whole,
            is_registered: false,
            newer: None,
            older: None,
        };
        let id = self.ranges.enter(Key::of(span, self.next_tag)?, entry).ok()?;
        self.stats.misses += 1;
        self.stats.entries += 1;
        self.stats.bytes += span.bytes;
        Some(id)
    }

    /// The hooks know of it now; false if its memory has gone.
    pub(super) fn note_registered(&mut self, id: Id) -> bool {
        let entry = self.entry(id);
        entry.is_registered = entry.state == State::Making;
        entry.is_registered
    }

    /// It is made; false if its memory has gone meanwhile.
    pub(super) fn finish(&mut self, id: Id, value: NonNull<T>) -> bool {
        let entry = self.entry(id);
        entry.value = Some(value);
        let is_there = entry.state == State::Making;
        if is_there {
            entry.state = State::Ready;
        }
        is_there
    }

    pub(super) fn unpin(&mut self, id: Id) {
        let (bytes, limits) = (self.bytes(id), self.limits);
        let entry = self.entry(id);
        entry.pins -= 1;
        if entry.pins > 0 {
            return;
        }
        match entry.state {
            State::Ready if bytes <= limits.bytes => self.join_idle(id),
            // It would take the place of all others.
            State::Ready => {
                self.stats.evicted += 1;
                self.take_out(id);
            }
            State::Making | State::Stale => self.take_out(id),
        }
    }

    /// Marks all whose memory goes, and takes out those that nobody uses.
    pub(super) fn release(&mut self, span: Span) {
        while let Some(id) = self.ranges.overlapping(span, &mut |_, entry| entry.state != State::Stale) {
            self.stats.released += 1;
            self.take_back(id);
            let entry = self.entry(id);
            let was_idle = entry.state == State::Ready && entry.pins == 0;
            entry.state = State::Stale;
            if was_idle {
                self.leave_idle(id);
                self.take_out(id);
            }
        }
    }

    /// Takes those out that were not used for longest, until there is no more than `limits`.
    pub(super) fn make_room(&mut self, limits: Limits) {
        while (self.idle.entries > limits.entries || self.idle.bytes > limits.bytes)
            && let Some(id) = self.oldest
        {
            self.stats.evicted += 1;
            self.leave_idle(id);
            self.take_out(id);
        }
    }

    /// The hooks need not know of it any more.
    pub(super) fn take_back(&mut self, id: Id) {
        if core::mem::take(&mut self.entry(id).is_registered) {
            let key = self.ranges.key(id);
            let base = core::ptr::with_exposed_provenance(key.at);
            // It is registered, unless this is the child of a fork, where it is no more.
            let _ = deregister(base, key.end - key.at, key.tag);
        }
    }

    /// Takes one out of the tree that is not idle nor pinned: what it holds is to be dropped.
    pub(super) fn take_out(&mut self, id: Id) {
        self.take_back(id);
        self.stats.entries -= 1;
        self.stats.bytes -= self.bytes(id);
        self.ranges.remove(id);
        self.entry(id).older = self.dead;
        self.dead = Some(id);
    }

    /// One of the values that are to be dropped, by whoever gets it.
    pub(super) fn next_to_drop(&mut self) -> Option<(Id, NonNull<T>)> {
        let mut at = self.dead;
        while let Some(id) = at {
            let entry = self.entry(id);
            if let Some(value) = entry.value.filter(|_| entry.rest == Rest::Whole) {
                entry.rest = Rest::Dropping(own());
                return Some((id, value));
            }
            at = entry.older;
        }
        None
    }

    /// Whether another thread is dropping the value of a range that overlaps this one.
    pub(super) fn is_dropping(&self, span: Span) -> bool {
        let mut at = self.dead;
        while let Some(id) = at {
            let (key, entry) = (self.ranges.key(id), self.ranges.value(id));
            let overlaps = key.at < span.at.saturating_add(span.bytes) && span.at < key.end;
            if overlaps && entry.rest.is_of_other() {
                return true;
            }
            at = entry.older;
        }
        false
    }

    /// The box of a value that was dropped.
    pub(super) fn exhume(&mut self) -> Option<Box<MaybeUninit<T>>> {
        let (mut at, mut younger) = (self.dead, None);
        while let Some(id) = at {
            let Entry { value, older, rest, .. } = self.entry(id);
            let (value, older, rest) = (*value, *older, *rest);
            at = older;
            if value.is_some() && rest != Rest::Husk {
                younger = Some(id);
                continue;
            }
            match younger {
                Some(younger) => self.entry(younger).older = older,
                None => self.dead = older,
            }
            let _ = self.ranges.give_back(id);
            if let Some(value) = value {
                // SAFETY: made by a box; the value was dropped.
                return Some(unsafe { Box::from_raw(value.cast().as_ptr()) });
            }
        }
        None
    }

    pub(super) fn join_idle(&mut self, id: Id) {
        let (newest, bytes) = (self.newest, self.bytes(id));
        let entry = self.entry(id);
        (entry.newer, entry.older) = (None, newest);
        match newest {
            Some(other) => self.entry(other).newer = Some(id),
            None => self.oldest = Some(id),
        }
        self.newest = Some(id);
        self.idle.entries += 1;
        self.idle.bytes += bytes;
    }

    pub(super) fn leave_idle(&mut self, id: Id) {
        let bytes = self.bytes(id);
        let entry = self.entry(id);
        let (newer, older) = (entry.newer.take(), entry.older.take());
        match newer {
            Some(other) => self.entry(other).older = older,
            None => self.newest = older,
        }
        match older {
            Some(other) => self.entry(other).newer = newer,
            None => self.oldest = newer,
        }
        self.idle.entries -= 1;
        self.idle.bytes -= bytes;
    }
}

impl<T> Drop for Inner<T> {
    fn drop(&mut self) {
        // Where the cache was dropped inside of a callback.
        self.make_room(Limits { entries: 0, bytes: 0 });
        // Those that were pinned by who never unpinned them.
        while let Some(id) = self.ranges.any() {
            self.take_out(id);
        }
        while let Some((id, value)) = self.next_to_drop() {
            // SAFETY: nobody has it pinned.
            unsafe { value.drop_in_place() };
            self.entry(id).rest = Rest::Husk;
        }
        while let Some(husk) = self.exhume() {
            drop(husk);
        }
    }
}
