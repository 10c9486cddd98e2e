//! A cache of registrations: what is dear to make is made once for each range, and is never used after its memory has gone.
//!
//! The entries lie in a tree of ranges of their own pages (`ranges.rs`), so that a callback from inside the allocator can mark them: it only
//! marks, and takes them out; what they hold is dropped by the next call from outside.

use super::caches::{Hold, Link};
use super::entries::{CacheStats, Inner, Limits, Rest, State};
use super::error::HooksError;
use super::held::{Held, is_holder};
use super::ranges::{Id, Key, Ranges};
use super::{Callback, changed, deregister, is_in_flight, on_release, process, register};
use crate::lock::Rank;
use crate::os::{self, Span};
use core::fmt;
use core::ops::Deref;
use core::ptr::NonNull;
use std::boxed::Box;
use std::sync::Arc;
/// Why there is no registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GetError<E> {
    /// The range cannot be watched, or is none.
    Hooks(HooksError),
    /// It could not be made.
    Register(E),
    /// Memory of the range went while it was made, again and again.
    Released,
}

impl<E> From<HooksError> for GetError<E> {
    fn from(error: HooksError) -> Self {
        Self::Hooks(error)
    }
}

impl<E: fmt::Display> fmt::Display for GetError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hooks(error) => error.fmt(f),
            Self::Register(error) => write!(f, "hooks: the range could not be registered: {error}"),
            Self::Released => f.write_str(
                "hooks: the range went while it was registered, each time; it must stay mapped until that is done",
            ),
        }
    }
}

impl<E: core::error::Error + 'static> core::error::Error for GetError<E> {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Hooks(error) => Some(error),
            Self::Register(error) => Some(error),
            Self::Released => None,
        }
    }
}
struct Shared<T> {
    inner: Held<Inner<T>>,
    limits: Limits,
    /// Whether values are dropped in callbacks.
    at_once: bool,
    link: Link,
}

// SAFETY: the link is reached with the list locked; the rest is `Sync` by itself.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Shared<T> {}
impl<T> Hold for Held<Inner<T>> {
    fn hold(&self) {
        Self::hold(self);
    }

    unsafe fn let_go(&self) {
        // SAFETY: handed on.
        unsafe { Self::let_go(self) };
    }

    fn abandon(&self) {
        self.with(|inner| {
            let mut at = inner.dead;
            while let Some(id) = at {
                let entry = inner.entry(id);
                if entry.rest.is_of_other() {
                    entry.rest = Rest::Husk;
                }
                at = entry.older;
            }
        });
    }
}
impl<T: 'static> Shared<T> {
    /// Drops one of the values that are to be dropped; false if there is none.
    fn drop_one(&self) -> bool {
        let Some((id, value)) = self.inner.with(Inner::next_to_drop) else { return false };
        // A husk it is, too, if that unwinds.
        let _dropped = Dropped { shared: self, id };
        // SAFETY: nobody has it pinned, and nobody else drops it.
        unsafe { value.drop_in_place() };
        true
    }

    /// Memory goes.
    fn release(&self, span: Span) {
        self.inner.with(|inner| inner.release(span));
        if self.at_once {
            while self.drop_one() {}
            // Another thread may be dropping one: it must be over before the memory goes. (Unless it waits for this one, which forks.)
            while !is_holder() && self.inner.with(|inner| inner.is_dropping(span)) {
                os::yield_now();
            }
        }
    }
}

/// A value is being dropped, until this is.
struct Dropped<'a, T> {
    shared: &'a Shared<T>,
    id: Id,
}

impl<T> Drop for Dropped<'_, T> {
    fn drop(&mut self) {
        self.shared.inner.with(|inner| inner.entry(self.id).rest = Rest::Husk);
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        self.link.leave();
    }
}

/// A cache of registrations of memory, each a `T` that is made once and dropped when it is no use: when its memory goes, or when there are too
/// many. What is dropped takes the registration back, whatever that means: unpin, unlock, deregister.
///
/// A lookup is O(log n), but for registrations in its way whose memory went while they were in use; it takes one lock, and with `userfaultfd` a
/// call of the system's. It never returns a registration whose memory has gone, as far as the component of the hooks is told. Two threads that
/// miss the same range at once make two.
///
/// In the child of a fork the registrations are found no more, and are dropped: where that would harm the parent's, a `T` must know whose
/// process it is in.
///
/// Threads share what it holds, so a `T` must be `Sync`:
///
/// ```compile_fail
/// let cache = stratalloc::hooks::RegistrationCache::<std::cell::Cell<u64>>::new(Default::default());
/// ```
///
/// ```
/// use stratalloc::hooks::{Limits, RegistrationCache};
///
/// struct Pinned(usize); // what a device made of the memory
/// let cache = RegistrationCache::new(Limits::default())?;
/// let buffer = vec![1_u8; 1 << 16];
/// let make = |at: *const u8, bytes: usize| Ok::<_, std::io::Error>(Pinned(at as usize + bytes));
/// let first = cache.get(buffer.as_ptr(), buffer.len(), make)?;
/// let part = cache.get(buffer[100..].as_ptr(), 50, make)?;
/// assert_eq!(first.0, part.0, "the same one covers a part of its range");
/// assert_eq!(cache.stats().misses, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RegistrationCache<T: Send + Sync + 'static> {
    shared: Arc<Shared<T>>,
    callback: Callback,
}

impl<T: Send + Sync + 'static> fmt::Debug for RegistrationCache<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegistrationCache({:?})", self.stats())
    }
}

/// A registration in use: it is not dropped while this lives, even if its memory goes.
#[must_use = "the registration may be dropped once this is"]
pub struct Pinned<'a, T: Send + Sync + 'static> {
    cache: &'a RegistrationCache<T>,
    id: Id,
    value: NonNull<T>,
    key: Key,
}

// SAFETY: it lends out a `T`, which threads may share, and unpins it under the cache's lock; whoever unpins it last may drop it, in any thread.
unsafe impl<T: Send + Sync + 'static> Send for Pinned<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync + 'static> Sync for Pinned<'_, T> {}

impl<T: Send + Sync + fmt::Debug + 'static> fmt::Debug for Pinned<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pinned({:?}, {} bytes at {:#x})", **self, self.key.end - self.key.at, self.key.at)
    }
}

impl<T: Send + Sync + 'static> Pinned<'_, T> {
    /// The range that was registered, around what was asked for: the first address, and how many bytes.
    #[must_use]
    pub fn range(&self) -> (*const u8, usize) {
        (core::ptr::with_exposed_provenance(self.key.at), self.key.end - self.key.at)
    }

    /// Whether its memory is still there, as far as was told.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.cache.shared.inner.with(|inner| inner.ranges.value(self.id).state == State::Ready)
    }
}

impl<T: Send + Sync + 'static> Deref for Pinned<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: it stays where it is while it is pinned.
        unsafe { self.value.as_ref() }
    }
}

impl<T: Send + Sync + 'static> Drop for Pinned<'_, T> {
    fn drop(&mut self) {
        self.cache.unpin(self.id);
    }
}

/// How often it is asked whether something is in flight.
const PATIENCE: usize = 1000;

/// Has all told that has gone before this; false if it is not known what has.
fn catch_up() -> Result<bool, HooksError> {
    let is_known = (0..PATIENCE).any(|round| {
        let is_known = !is_in_flight();
        if !is_known && round > 10 {
            os::yield_now();
        }
        is_known
    });
    if changed() {
        process()?;
    }
    Ok(is_known)
}

/// How often a range is registered anew that went meanwhile.
const TRIES: usize = 3;

impl<T: Send + Sync + 'static> RegistrationCache<T> {
    /// A cache that keeps so much.
    ///
    /// # Errors
    /// As those of [`on_release`].
    pub fn new(limits: Limits) -> Result<Self, HooksError> {
        Self::make(limits, false)
    }

    /// The same, for registrations that are taken back by a call of the system's or the like: they are dropped by the callback itself, and not
    /// by the next call of this cache: before their memory goes where a heap lets it go, and by [`process`] where it was somebody else. To drop a `T` must neither allocate nor free: builds with debug assertions
    /// end the process if it does.
    ///
    /// # Errors
    /// As those of [`on_release`].
    pub fn dropping_at_once(limits: Limits) -> Result<Self, HooksError> {
        Self::make(limits, true)
    }

    fn make(limits: Limits, at_once: bool) -> Result<Self, HooksError> {
        let inner = Inner {
            ranges: Ranges::new(),
            newest: None,
            oldest: None,
            idle: Limits { entries: 0, bytes: 0 },
            dead: None,
            next_tag: 0,
            stats: CacheStats::default(),
        };
        let shared = Arc::new(Shared { inner: Held::new(Rank::Cached, inner), limits, at_once, link: Link::new() });
        shared.link.enter(&shared.inner);
        let told = Arc::clone(&shared);
        let callback = on_release(move |release| told.release(release.span()))?;
        Ok(Self { shared, callback })
    }

    /// A registration that covers these bytes: one that there is, or one of just these that `make` makes.
    ///
    /// It may call callbacks, and wait for another thread that does, as [`process`].
    ///
    /// The memory must be the caller's, and stay mapped until this returns. While the [`Pinned`] lives it must not go, or what the registration
    /// stands for goes with it; that it is not found again is this cache's affair.
    ///
    /// # Errors
    /// [`GetError`]; nothing has changed then.
    pub fn get<E>(
        &self,
        base: *const u8,
        bytes: usize,
        mut make: impl FnMut(*const u8, usize) -> Result<T, E>,
    ) -> Result<Pinned<'_, T>, GetError<E>> {
        let span = Span { at: base as usize, bytes };
        let none = HooksError::Range { base: span.at, bytes };
        Key::of(span, 0).ok_or(none)?;
        // Where others take memory away all the time, a registration of these bytes alone is right in any case.
        if catch_up()?
            && let Some((id, value, key)) = self.shared.inner.with(|inner| inner.find(span))
        {
            return Ok(Pinned { cache: self, id, value, key });
        }
        for round in 1..=TRIES {
            self.bury();
            let begun = self.shared.inner.with(|inner| inner.begin(span));
            let unfinished = Unfinished { cache: self, id: begun.ok_or(HooksError::NoMemory)? };
            match unfinished.finish(&mut make) {
                Ok(Some(pinned)) => return Ok(pinned),
                Ok(None) => {}
                // There may be too much registered: what nobody uses makes room, once.
                Err(GetError::Register(error)) => {
                    if round == TRIES || self.shared.inner.with(|inner| inner.idle.entries) == 0 {
                        return Err(GetError::Register(error));
                    }
                    self.clear();
                }
                Err(error) => return Err(error),
            }
        }
        Err(GetError::Released)
    }

    /// Finds no registration any more that overlaps these bytes: for memory that is going to go without a word of anybody's. What nobody uses
    /// is dropped. O(k log n) for k of them.
    pub fn invalidate(&self, base: *const u8, bytes: usize) {
        self.shared.release(Span { at: base as usize, bytes });
        self.bury();
    }

    /// What it has done.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        self.shared.inner.with(|inner| inner.stats)
    }

    /// Drops all registrations that nobody uses. O(n log n).
    pub fn clear(&self) {
        self.shared.inner.with(|inner| inner.make_room(Limits { entries: 0, bytes: 0 }));
        self.bury();
    }

    /// Drops what is to be dropped: outside of the lock, for it may do anything, and not in a callback, which may not free.
    fn bury(&self) {
        if !super::callbacks::is_inside() {
            while self.shared.drop_one() {}
            while let Some(husk) = self.shared.inner.with(Inner::exhume) {
                drop(husk);
            }
        }
    }

    /// Unpins an entry, and makes room if there is too much then.
    fn unpin(&self, id: Id) {
        let limits = self.shared.limits;
        self.shared.inner.with(|inner| {
            inner.unpin(id, limits);
            inner.make_room(limits);
        });
        self.bury();
    }
}

impl<T: Send + Sync + 'static> Drop for RegistrationCache<T> {
    fn drop(&mut self) {
        self.clear();
        self.callback.unregister();
    }
}

/// An entry that is being made. It is dropped where that fails.
struct Unfinished<'a, T: Send + Sync + 'static> {
    cache: &'a RegistrationCache<T>,
    id: Id,
}

impl<T: Send + Sync + 'static> Drop for Unfinished<'_, T> {
    fn drop(&mut self) {
        self.cache.unpin(self.id);
    }
}

impl<'a, T: Send + Sync + 'static> Unfinished<'a, T> {
    /// Makes what is missing. `None` if the memory went meanwhile.
    fn finish<E>(
        self,
        make: &mut dyn FnMut(*const u8, usize) -> Result<T, E>,
    ) -> Result<Option<Pinned<'a, T>>, GetError<E>> {
        let Self { cache, id } = self;
        let inner = &cache.shared.inner;
        let key = inner.with(|inner| inner.ranges.key(id));
        let (base, bytes) = (core::ptr::with_exposed_provenance(key.at), key.end - key.at);
        register(base, bytes, key.tag)?;
        if !inner.with(|inner| inner.note_registered(id)) {
            // It went when nobody knew yet that there was something to take back.
            deregister(base, bytes, key.tag)?;
            return Ok(None);
        }
        let value = Box::new(make(base, bytes).map_err(GetError::Register)?);
        if changed() {
            process()?;
        }
        let value = NonNull::from(Box::leak(value));
        if !inner.with(|inner| inner.finish(id, value)) {
            return Ok(None);
        }
        core::mem::forget(self);
        Ok(Some(Pinned { cache, id, value, key }))
    }
}
