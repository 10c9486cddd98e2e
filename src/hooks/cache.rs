//! A cache of registrations: what is dear to make is made once for each range, and is never used after its memory has gone.
//!
//! The entries lie in a tree of ranges of their own pages (`ranges.rs`), so that a callback from inside the allocator can mark them: it only
//! marks, and takes them out; what they hold is dropped by the next call from outside.

use super::caches::{Hold, Link};
use super::entries::{CacheStats, Inner, Limits, Rest, State};
use super::error::HooksError;
use super::held::{Held, is_holder};
use super::ranges::{Id, Key, Ranges};
use super::{Callback, changed, deregister, is_in_flight, on_release, process, register_as};
use crate::lock::Rank;
use crate::os::{self, Span};
use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::Deref;
use core::ptr::NonNull;
use std::boxed::Box;
use std::sync::{Arc, Weak};

/// Why there is no registration.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GetError<E> {
    /// The range cannot be watched, or is none.
    Hooks(HooksError),
    /// It could not be made.
    Register(E),
    /// Memory of the range went while it was made, three times.
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

impl<E: core::error::Error> core::error::Error for GetError<E> {}

struct Shared<T> {
    /// Itself.
    own: Weak<Self>,
    inner: Held<Inner<T>>,
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

    /// Drops what is to be dropped: outside of the lock, for it may do anything, and not in a callback, which may not free.
    fn bury(&self) {
        if !super::callbacks::is_inside() {
            while self.drop_one() {}
            while let Some(husk) = self.inner.with(Inner::exhume) {
                drop(husk);
            }
        }
    }

    /// Unpins an entry, and makes room if there is too much then.
    fn unpin(&self, id: Id) {
        self.inner.with(|inner| {
            inner.unpin(id);
            inner.make_room(inner.limits);
        });
        self.bury();
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
/// A lookup goes by the range alone, so there is one cache for each kind of registration (a device, its access rights). It is O(log n), but for
/// registrations in its way whose memory went while they were in use; it takes one lock, and with `userfaultfd` a system call. It never returns a
/// registration whose memory has gone, if the component is told of it (the table in `docs/hooks.md`): with `allocator` those of heaps of this crate.
/// Two threads that miss the same range at once make two.
///
/// A `T` is dropped when nobody uses it any more and its memory has gone or there is too much: by the next call that makes or drops something
/// ([`get`](Self::get) where there is none yet, [`clear`](Self::clear), [`invalidate`](Self::invalidate), [`sweep`](Self::sweep), the drop of a
/// [`Pinned`]), in that thread, with no lock held.
///
/// In the child of a fork the registrations are found no more, and are dropped: where that would undo the parent's (a device that both have open),
/// keep `std::process::id()` in the `T`, and do nothing where it is another one.
///
/// Threads share a cache by reference, or in an `Arc` or a `static`, and what it holds, so a `T` must be `Sync`:
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

/// A registration in use: it is not dropped while this lives, even if its memory goes. A clone is one more use of the same.
#[must_use = "the registration may be dropped once this is"]
pub struct Pinned<'a, T: Send + Sync + 'static> {
    /// No reference: with one that owns its part it may go while this is dropped.
    shared: NonNull<Shared<T>>,
    id: Id,
    value: NonNull<T>,
    key: Key,
    cache: PhantomData<&'a Shared<T>>,
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
    const fn new(shared: NonNull<Shared<T>>, id: Id, value: NonNull<T>, key: Key) -> Self {
        Self { shared, id, value, key, cache: PhantomData }
    }

    fn shared(&self) -> &Shared<T> {
        // SAFETY: it is there while this is: it is borrowed, or what owns a part of it is dropped behind this.
        unsafe { self.shared.as_ref() }
    }

    /// The range that was registered, around what was asked for: the first address, and how many bytes.
    #[must_use]
    pub fn range(&self) -> (*const u8, usize) {
        (core::ptr::with_exposed_provenance(self.key.at), self.key.end - self.key.at)
    }

    /// Whether its memory is still there, as far as was told: it does not ask. Call [`process`] first if [`changed`].
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.shared().inner.with(|inner| inner.ranges.value(self.id).state == State::Ready)
    }

    /// The same use, by a value that borrows nothing, and may outlive the cache: for what goes on when the caller has returned.
    pub fn into_owned(self) -> OwnedPinned<T> {
        let this = ManuallyDrop::new(self);
        // It is there: somebody has the cache, or another value that owns a part of it.
        let owner = this.shared().own.upgrade();
        OwnedPinned { pinned: Pinned::new(this.shared, this.id, this.value, this.key), _owner: owner }
    }
}

impl<T: Send + Sync + 'static> Clone for Pinned<'_, T> {
    fn clone(&self) -> Self {
        self.shared().inner.with(|inner| inner.entry(self.id).pins += 1);
        Self::new(self.shared, self.id, self.value, self.key)
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
        self.shared().unpin(self.id);
    }
}

/// A registration in use, as [`Pinned`], which borrows nothing. When its cache has gone it goes with this, and it is not told any more whether
/// its memory has.
#[must_use = "the registration may be dropped once this is"]
pub struct OwnedPinned<T: Send + Sync + 'static> {
    // Fields are dropped in this order.
    pinned: Pinned<'static, T>,
    _owner: Option<Arc<Shared<T>>>,
}

impl<T: Send + Sync + fmt::Debug + 'static> fmt::Debug for OwnedPinned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pinned.fmt(f)
    }
}

impl<T: Send + Sync + 'static> OwnedPinned<T> {
    /// As [`Pinned::range`].
    #[must_use]
    pub fn range(&self) -> (*const u8, usize) {
        self.pinned.range()
    }

    /// As [`Pinned::is_current`].
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.pinned.is_current()
    }
}

impl<T: Send + Sync + 'static> Clone for OwnedPinned<T> {
    fn clone(&self) -> Self {
        self.pinned.clone().into_owned()
    }
}

impl<T: Send + Sync + 'static> Deref for OwnedPinned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.pinned
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
            limits,
            idle: Limits { entries: 0, bytes: 0 },
            dead: None,
            next_tag: 0,
            stats: CacheStats::default(),
        };
        let shared = Arc::new_cyclic(|own| Shared {
            own: Weak::clone(own),
            inner: Held::new(Rank::Cached, inner),
            at_once,
            link: Link::new(),
        });
        shared.link.enter(&shared.inner);
        let told = Arc::clone(&shared);
        let callback = on_release(move |release| told.release(release.span()))?;
        Ok(Self { shared, callback })
    }

    /// A registration that covers these bytes: one that there is, or one of just these that `make` makes, which is passed them as they are. O(log
    /// n), and what `make` takes.
    ///
    /// The memory must be the caller's, and stay mapped until this returns. Keep it while the [`Pinned`] lives: the cache does not. If it goes all
    /// the same, the registration is not found again, and dropped with the last `Pinned`.
    ///
    /// What goes beyond a registration that there is gets one of its own; both stay, and may have pages in common.
    ///
    /// `make` is called with no lock held, three times at the most: again where memory of the range went meanwhile, and where it failed, once all
    /// that nobody uses was dropped to make room. It may call callbacks, and wait for another thread that does, as [`process`].
    ///
    /// # Errors
    /// [`GetError`]: then there is no registration of these bytes, but others may have been dropped. In a callback it is
    /// [`HooksError::Inside`] if there is something to be told.
    pub fn get<E>(
        &self,
        base: *const u8,
        bytes: usize,
        make: impl FnMut(*const u8, usize) -> Result<T, E>,
    ) -> Result<Pinned<'_, T>, GetError<E>> {
        self.get_with_room(base, bytes, make, |_| true)
    }

    /// The same, but where `make` fails it makes room, and tries again, only if `is_full` says of the error that there is too much.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_with_room<E>(
        &self,
        base: *const u8,
        bytes: usize,
        mut make: impl FnMut(*const u8, usize) -> Result<T, E>,
        is_full: impl Fn(&E) -> bool,
    ) -> Result<Pinned<'_, T>, GetError<E>> {
        let span = Span { at: base as usize, bytes };
        let none = HooksError::Range { base: span.at, bytes };
        Key::of(span, 0).ok_or(none)?;
        let shared = &*self.shared;
        // Where others take memory away all the time, a registration of these bytes alone is right in any case.
        if catch_up()?
            && let Some((id, value, key)) = shared.inner.with(|inner| inner.find(span))
        {
            return Ok(Pinned::new(NonNull::from(shared), id, value, key));
        }
        for round in 1..=TRIES {
            shared.bury();
            let begun = shared.inner.with(|inner| inner.begin(span));
            let unfinished = Unfinished { shared, id: begun.ok_or(HooksError::NoMemory)? };
            match unfinished.finish(&mut make) {
                Ok(Some(pinned)) => return Ok(pinned),
                Ok(None) => {}
                Err(GetError::Register(error)) => {
                    let has_idle = shared.inner.with(|inner| inner.idle.entries) > 0;
                    if round == TRIES || !has_idle || !is_full(&error) {
                        return Err(GetError::Register(error));
                    }
                    self.clear();
                }
                Err(error) => return Err(error),
            }
        }
        Err(GetError::Released)
    }

    /// Has told what has gone, and drops registrations whose memory has: for a program that is idle.
    ///
    /// # Errors
    /// As [`process`].
    pub fn sweep(&self) -> Result<(), HooksError> {
        if changed() {
            process()?;
        }
        self.shared.bury();
        Ok(())
    }

    /// Finds no registration any more that overlaps these bytes: for memory that is going to go without a word of anybody's. What nobody uses
    /// is dropped. O(k log n) for k of them.
    pub fn invalidate(&self, base: *const u8, bytes: usize) {
        self.shared.release(Span { at: base as usize, bytes });
        self.shared.bury();
    }

    /// What it has done.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        self.shared.inner.with(|inner| CacheStats { in_use: inner.stats.entries - inner.idle.entries, ..inner.stats })
    }

    /// Drops all registrations that nobody uses. O(n log n).
    pub fn clear(&self) {
        self.shared.inner.with(|inner| inner.make_room(Limits { entries: 0, bytes: 0 }));
        self.shared.bury();
    }
}

impl<T: Send + Sync + 'static> Drop for RegistrationCache<T> {
    fn drop(&mut self) {
        // What is in use is not kept when it is no more: nobody is told any longer that its memory goes.
        self.shared.inner.with(|inner| inner.limits = Limits { entries: 0, bytes: 0 });
        self.clear();
        self.callback.unregister();
    }
}

/// An entry that is being made. It is dropped where that fails.
struct Unfinished<'a, T: Send + Sync + 'static> {
    shared: &'a Shared<T>,
    id: Id,
}

impl<T: Send + Sync + 'static> Drop for Unfinished<'_, T> {
    fn drop(&mut self) {
        self.shared.unpin(self.id);
    }
}

impl<'a, T: Send + Sync + 'static> Unfinished<'a, T> {
    /// Makes what is missing. `None` if the memory went meanwhile.
    fn finish<E>(
        self,
        make: &mut dyn FnMut(*const u8, usize) -> Result<T, E>,
    ) -> Result<Option<Pinned<'a, T>>, GetError<E>> {
        let Self { shared, id } = self;
        let inner = &shared.inner;
        let key = inner.with(|inner| inner.ranges.key(id));
        let (base, bytes) = (core::ptr::with_exposed_provenance(key.at), key.end - key.at);
        register_as(base, bytes, key.tag, true)?;
        if !inner.with(|inner| inner.note_registered(id)) {
            // It went when nobody knew yet that there was something to take back.
            let _ = deregister(base, bytes, key.tag);
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
        Ok(Some(Pinned::new(NonNull::from(shared), id, value, key)))
    }
}
