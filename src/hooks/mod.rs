//! Memory hooks: whoever keeps registrations of memory is told when that memory goes. What this crate's heaps take away is told before it goes;
//! what anybody else in the process takes away is known by one load, before a registration is used again. (Open MPI's `opal/mca/memory` anew.)
//!
//! Whoever hands memory to hardware or to the kernel by its addresses keeps what comes of that, a *registration*, since it is expensive to make:
//! pinned pages, a fixed buffer of an io_uring, a memory region of a network card. It is wrong as soon as the memory goes, even if other
//! memory comes to the same addresses; and nobody says when it goes: `free` gives pages back, somebody unmaps a file. So:
//!
//! - [`on_release`] calls a callback for all memory that goes, and [`register`] says which memory it is about.
//! - Before a registration is used again: wait until not [`is_in_flight`], and `if changed() { process()?; }`: what cannot be told by itself is
//!   told by [`process`]. [`changed`] is one relaxed load.
//! - [`RegistrationCache`] does all of that.
//!
//! The rules for callbacks, locks, forks and components, what the kernel does not tell, and what it costs: `docs/hooks.md` in the package.
//!
//! ```
//! use stratalloc::hooks;
//! use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
//!
//! static GONE: AtomicUsize = AtomicUsize::new(0);
//! let _callback = hooks::on_release(|release| {
//!     GONE.fetch_add(release.bytes, Relaxed);
//! })?;
//! let buffer = vec![0_u8; 1 << 20];
//! hooks::register(buffer.as_ptr(), buffer.len(), 7)?;
//! assert!(!hooks::changed());
//! hooks::deregister(buffer.as_ptr(), buffer.len(), 7)?;
//! # Ok::<(), hooks::HooksError>(())
//! ```
//!
//! **Components.** One of them finds out that memory goes. It is chosen at the first use, as `STRATALLOC_HOOKS` says, else by priority, the highest
//! one that does not decline; or by [`init`] before that. A library makes sure by [`require`] that one serves that is told of enough.
//!
//! | component | priority | told of | how |
//! |---|--:|---|---|
//! | `userfaultfd` | 60 | what heaps do, and what anybody in the process does | by itself, before; by `process` |
//! | `allocator` | 40 | what heaps do | by itself, before |
//! | `empty` | 0 | nothing | |
//!
//! **What goes.** Pages that a heap gives back to the system, unmaps, or moves; so never memory that was freed and is kept to be used again,
//! with the same pages behind it. A registration of freed memory stays right as long as nobody is told otherwise: that is what makes caches of
//! them worth while.
//!
//! **Forks.** The child has the memory, but not the registrations, which are the parent's: in it [`changed`] is true, and `process` tells of
//! every range that was registered, and forgets it. Callbacks stay.

mod allocator;
mod cache;
mod caches;
mod callbacks;
mod component;
mod empty;
mod entries;
mod error;
mod forks;
mod gate;
mod held;
mod ranges;
mod settings;
mod site;
mod userfaultfd;

pub use crate::choice::{Choice, ChoiceError};
pub use cache::{GetError, OwnedPinned, Pinned, RegistrationCache};
pub use component::{Component, Declined, Fork, Notice, Release, Support, Unwatched};
pub use entries::{CacheStats, Limits};
pub use error::HooksError;
pub use settings::{Chosen, Settings};

use crate::fatal::{Fatal, die};
use crate::lock::Rank;
use crate::os::{self, Span};
use crate::sync::{Acquire, AtomicPtr, AtomicU32, Relaxed, Release as Publish, is_set};
use callbacks::{Callbacks, Place};
use core::cell::Cell;
use core::ptr::null_mut;
use gate::Gate;
use held::Held;
use ranges::{Key, Ranges};
use site::Site;
use std::boxed::Box;
use std::vec::Vec;

/// 1 while there may be something to process.
static CHANGED: AtomicU32 = AtomicU32::new(0);

/// How often all was told: for the corruption hunter.
#[cfg(feature = "malloc-debug")]
static SETTLED: AtomicU32 = AtomicU32::new(0);

static CALLBACKS: Callbacks = Callbacks::new();

/// What is kept of a range that is registered.
struct Registered {
    /// Where it was.
    #[cfg_attr(not(feature = "malloc-debug"), allow(dead_code, reason = "it is the corruption hunter's"))]
    site: Site,
    /// In which life of the process, counted by forks.
    life: u32,
    /// A cache's, which takes it back itself.
    is_cached: bool,
}

impl Registered {
    /// Whether this process registered it, and not one that it was forked from.
    fn is_of_this_life(&self) -> bool {
        self.life == CENTER.life.load(Relaxed)
    }
}

/// All addresses.
const EVERYWHERE: Span = Span { at: 0, bytes: usize::MAX };

/// What is registered.
static REGISTERED: Held<Ranges<Registered>> = Held::new(Rank::Registered, Ranges::new());

static CENTER: Center = Center {
    chosen: AtomicPtr::new(null_mut()),
    choosing: Gate::new(),
    processing: Gate::new(),
    cold: AtomicU32::new(0),
    forked: AtomicU32::new(0),
    life: AtomicU32::new(0),
};

/// Who serves.
struct Center {
    /// The component, once one is chosen. What it points to is never freed: a component is not chosen often.
    chosen: AtomicPtr<Chosen>,
    /// Held by who chooses a component, or closes it.
    choosing: Gate,
    /// Held by who processes.
    processing: Gate,
    /// 1 from a fork, in the child, until the component is opened there.
    cold: AtomicU32,
    /// 1 from a fork, in the child, until all is told there that the parent had registered.
    forked: AtomicU32,
    /// Forks that this process comes from.
    life: AtomicU32,
}

/// What this crate's heaps tell: for components of a program's own that want that, too.
pub static ALLOCATOR: &dyn Component = &allocator::Allocator;

/// The components of this crate.
pub static COMPONENTS: [&dyn Component; 3] = [&userfaultfd::Userfaultfd, &allocator::Allocator, &empty::Empty];

impl Center {
    /// The component, if there is one now.
    fn chosen(&self) -> Option<&'static Chosen> {
        // Acquire: pairs with `choose`.
        let chosen = self.chosen.load(Acquire);
        // SAFETY: null, or never freed.
        unsafe { chosen.as_ref() }
    }

    /// Chooses a component; the gate is held, and there is none.
    fn choose(&self, settings: &Settings) -> Result<&'static Chosen, HooksError> {
        forks::survive();
        // Before anybody can be told of something.
        self.forked.store(0, Relaxed);
        self.cold.store(0, Relaxed);
        let chosen: &'static mut Chosen = Box::leak(Box::new(open_best(settings)?));
        // Release: what was chosen is there; pairs with `chosen`.
        self.chosen.store(&raw mut *chosen, Publish);
        Ok(chosen)
    }

    /// The component, chosen as the environment says if there is none yet.
    fn begin(&self) -> Result<&'static Chosen, HooksError> {
        let chosen = match self.chosen() {
            Some(chosen) => chosen,
            // To choose one allocates.
            None if callbacks::is_inside() => return Err(HooksError::Inside),
            None => {
                let _gate = self.choosing.enter();
                match self.chosen() {
                    Some(chosen) => chosen,
                    None => self.choose(&Settings::from_environment()?)?,
                }
            }
        };
        if !callbacks::is_inside() {
            self.warm(chosen)?;
        }
        Ok(chosen)
    }

    /// In the child of a fork: opens the component there, unless it is open.
    fn warm(&self, chosen: &Chosen) -> Result<(), HooksError> {
        // Acquire, here and in `close`: the component is open; pairs with the store below.
        if self.cold.load(Acquire) == 0 {
            return Ok(());
        }
        let _gate = self.choosing.enter();
        if self.cold.load(Relaxed) != 0 {
            let refusal = |why| ChoiceError::Nobody { refusals: [(chosen.component.name(), why)].into() };
            chosen.component.open().map_err(refusal)?;
            self.cold.store(0, Publish);
        }
        Ok(())
    }
}

/// Opens the component of highest priority that serves.
fn open_best(settings: &Settings) -> Result<Chosen, HooksError> {
    let all = || COMPONENTS.iter().copied().chain(settings.more.iter().copied());
    let names: Vec<&'static str> = all().map(Component::name).collect();
    settings.choice.verify(&names)?;
    let priority_of = |component: &dyn Component| settings.choice.priority_of(component.name(), component.priority());
    let mut asked: Vec<&'static dyn Component> =
        all().filter(|component| settings.choice.asks(component.name())).collect();
    // Of several the first: the order among them stays.
    asked.sort_by_key(|component| core::cmp::Reverse(priority_of(*component)));
    let mut declined = Vec::new();
    for component in asked {
        let lack = component.support().lacks(settings.needs);
        match lack.map_or_else(|| component.open(), |why| Err(Declined(why.into()))) {
            Ok(()) => return Ok(Chosen { component, priority: priority_of(component), declined }),
            Err(why) => declined.push((component.name(), why)),
        }
    }
    Err(HooksError::Choice(ChoiceError::Nobody { refusals: declined }))
}

/// Chooses the component, before the first use. O(components).
///
/// # Errors
/// [`HooksError::Begun`] if there is one already; [`HooksError::Choice`] if none serves, with the reason of each; [`HooksError::Inside`] if a
/// callback calls it.
pub fn init(settings: &Settings) -> Result<Chosen, HooksError> {
    if callbacks::is_inside() {
        return Err(HooksError::Inside);
    }
    let _gate = CENTER.choosing.enter();
    match CENTER.chosen() {
        Some(chosen) => Err(HooksError::Begun { component: chosen.component.name() }),
        None => CENTER.choose(settings).cloned(),
    }
}

/// Makes sure that a component serves that is told of so much: for a library, in a program in which others may have chosen already. If there is
/// none it is chosen as the environment says. It may be called again and again.
///
/// # Errors
/// [`HooksError::Choice`] if the one that serves is told of less, or none serves; [`HooksError::Inside`] if there is none, in a callback.
pub fn require(needs: Support) -> Result<Chosen, HooksError> {
    let chosen = loop {
        if let Some(chosen) = CENTER.chosen() {
            break chosen;
        }
        if callbacks::is_inside() {
            return Err(HooksError::Inside);
        }
        let _gate = CENTER.choosing.enter();
        if CENTER.chosen().is_none() {
            CENTER.choose(&Settings::from_environment()?.needs(needs))?;
        }
    };
    match chosen.component.support().lacks(needs) {
        None => Ok(chosen.clone()),
        Some(why) => {
            let mut refusals = chosen.declined.clone();
            refusals.push((chosen.component.name(), Declined(why.into())));
            Err(ChoiceError::Nobody { refusals }.into())
        }
    }
}

/// The component that serves; `None` before the first use, and when it was closed.
#[must_use]
pub fn chosen() -> Option<Chosen> {
    CENTER.chosen().cloned()
}

/// Closes the component: nothing is told any more, until the next use chooses one anew. Callbacks stay. (In the child of a fork it first tells
/// of what the parent had registered, as [`process`] does.)
///
/// # Errors
/// [`HooksError::StillRegistered`], or [`HooksError::Inside`] if a callback calls it; nothing has changed then.
pub fn close() -> Result<(), HooksError> {
    if callbacks::is_inside() {
        return Err(HooksError::Inside);
    }
    if CENTER.forked.load(Relaxed) != 0 {
        // Whether or not the component can be opened there: it is going to be closed.
        _ = process();
    }
    // Whoever processes has ended, and does not begin again with this component. (In this order: who processes may fork, which waits for the
    // other gate.)
    let _processing = CENTER.processing.enter();
    let _gate = CENTER.choosing.enter();
    let component = REGISTERED.with(|registered| {
        let count = count_registered(registered);
        if count > 0 {
            return Err(HooksError::StillRegistered { count });
        }
        let component = CENTER.chosen().map(|chosen| chosen.component);
        // Who registers meanwhile waits for another one.
        CENTER.chosen.store(null_mut(), Publish);
        Ok(component)
    })?;
    if let Some(component) = component {
        if CENTER.cold.load(Acquire) == 0 {
            component.close();
        } else {
            // Heaps told before the fork.
            allocator::ignore();
        }
        CENTER.cold.store(0, Relaxed);
        CENTER.forked.store(0, Relaxed);
        settle();
    }
    Ok(())
}

/// A callback that is told of memory that goes, until this is dropped.
#[must_use = "it is told nothing any more once this is dropped; `forget` keeps it"]
pub struct Callback(Place);

impl core::fmt::Debug for Callback {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Callback")
    }
}

impl Callback {
    /// Takes it off: no call of it begins after this. Outside of a callback it waits for calls that run, and drops the closure; inside of one it
    /// does not wait, and the closure is dropped later. False if it was off already.
    #[allow(clippy::must_use_candidate, reason = "nobody need know")]
    pub fn unregister(&self) -> bool {
        CALLBACKS.take_off(self.0)
    }

    /// Leaves it on for good.
    pub fn forget(self) {
        core::mem::forget(self);
    }
}

impl Drop for Callback {
    fn drop(&mut self) {
        self.unregister();
    }
}

/// Has `told` called for all memory that goes, whether it is registered or not: by the component `allocator` before it goes, in whatever thread
/// gives it back; by `userfaultfd` for what others do from [`process`], after it went. Several callbacks are called in no order that is
/// promised. It may be told of memory that went before what is registered now at its addresses was: that costs a registration, no more.
///
/// No lock of the hooks is held meanwhile, so a callback may register, deregister and unregister. A lock of the program's it may only take if
/// nobody allocates, frees, or calls [`process`], [`close`] or [`RegistrationCache::get`] who has it. One that is told
/// [`from_allocator`](Release::from_allocator) may neither allocate nor free; none may unwind: that ends the process. It runs where memory is
/// given back: in a thread that is at its end, too, where other thread-locals may have gone; and, with the feature `c-abi`, in the thread that
/// gives memory back by itself, which has 64 KiB of stack and no thread-locals but zeros.
///
/// # Errors
/// If there is no component yet: [`HooksError::Choice`] if the environment cannot be read, or none serves; [`HooksError::Inside`] in a callback.
pub fn on_release(told: impl Fn(&Release) + Send + Sync + 'static) -> Result<Callback, HooksError> {
    CENTER.begin()?;
    Ok(Callback(CALLBACKS.add(Box::new(told))))
}

/// The pages that a range has a part in.
fn pages_of(span: Span) -> Span {
    let page = os::page_bytes();
    let at = span.at & !(page - 1);
    let end = (span.at + span.bytes).checked_next_multiple_of(page).unwrap_or(usize::MAX & !(page - 1));
    Span { at, bytes: end - at }
}

/// Says that something is kept that is about these bytes. Ranges may overlap, nest, and be the same. `cookie` tells those of the same
/// bytes apart, and [`deregister_overlapping`] returns it. O(log n), and two system calls by `userfaultfd`. It calls no callback, and allocates nothing of the heap, once there is a component, and in the child of a fork
/// once [`process`] was called there.
///
/// The component `allocator` is told of heaps alone: it takes other memory, and is not told when that goes. Whoever registers such memory, or
/// does not know which allocator the program has, asks [`require`] for a component that is.
///
/// Register before the device does, and look afterwards whether memory of the range went meanwhile, as [`RegistrationCache`] does.
///
/// # Errors
/// [`HooksError::Range`] for no range; [`HooksError::Unwatched`] if the component refuses: then make a registration for this use alone;
/// [`HooksError::NoMemory`]; [`HooksError::Choice`] and [`HooksError::Inside`] as [`on_release`].
pub fn register(base: *const u8, bytes: usize, cookie: u64) -> Result<(), HooksError> {
    register_as(base, bytes, cookie, false)
}

/// The same, by a cache or not.
fn register_as(base: *const u8, bytes: usize, cookie: u64, is_cached: bool) -> Result<(), HooksError> {
    let base = base as usize;
    let span = Span { at: base, bytes };
    let key = Key::of(span, cookie).ok_or(HooksError::Range { base, bytes })?;
    let range = Registered { site: Site::here(bytes), life: 0, is_cached };
    loop {
        CENTER.begin()?;
        let result = REGISTERED.with(|registered| {
            let Some(chosen) = CENTER.chosen() else { return Ok(false) };
            let pages = pages_of(span);
            let entered = match watch(chosen.component, pages) {
                Err(Unwatched(why)) => Err(HooksError::Unwatched { base, bytes, why }),
                Ok(()) => {
                    let range = Registered { life: CENTER.life.load(Relaxed), ..range };
                    registered.enter(key, range).map_err(|_| HooksError::NoMemory)
                }
            };
            if entered.is_err() {
                // Some of it may be watched.
                unwatch(registered, chosen.component, pages);
            }
            entered.map(|_| true)
        })?;
        if result {
            return Ok(());
        }
    }
}

/// Takes back what [`register`] was told, with just these three. O(log n + k) for k ranges that have pages in common with it, and two system
/// calls or more by `userfaultfd`. It calls no callback, and allocates nothing.
///
/// # Errors
/// [`HooksError::NotRegistered`], and nothing has changed.
pub fn deregister(base: *const u8, bytes: usize, cookie: u64) -> Result<(), HooksError> {
    let base = base as usize;
    let span = Span { at: base, bytes };
    REGISTERED.with(|registered| {
        let find = |key| match CENTER.forked.load(Relaxed) {
            0 => registered.find(key),
            _ => registered.overlapping(span, &mut |other, range| other == key && range.is_of_this_life()),
        };
        let id = Key::of(span, cookie).and_then(find);
        let id = id.ok_or(HooksError::NotRegistered { base, bytes, cookie })?;
        registered.remove(id);
        let _ = registered.give_back(id);
        if let Some(chosen) = CENTER.chosen() {
            unwatch(registered, chosen.component, pages_of(span));
        }
        Ok(())
    })
}

/// Calls `is_own` with each registered range that overlaps these bytes (the first address, how many bytes, the cookie), and takes it back if that
/// says that it is the caller's: others in the process may have registered some. For a callback, which so learns what it is told of, in the
/// child of a fork, too. Those of a [`RegistrationCache`] are not among them. O(k log n), and O(k²) where ranges nest, for k of them. It allocates
/// nothing; no lock is held while `is_own` runs. How many were taken back.
pub fn deregister_overlapping(
    base: *const u8,
    bytes: usize,
    is_own: &mut dyn FnMut(*const u8, usize, u64) -> bool,
) -> usize {
    let span = Span { at: base as usize, bytes };
    let mut last = Key { at: 0, end: 0, tag: 0 };
    let mut count = 0;
    let next = |last| {
        REGISTERED.with(|registered| {
            let id = registered.overlapping(span, &mut |key, range| key > last && !range.is_cached)?;
            Some(registered.key(id))
        })
    };
    while let Some(key) = next(last) {
        last = key;
        if !is_own(core::ptr::with_exposed_provenance(key.at), key.end - key.at, key.tag) {
            continue;
        }
        // All that have this key: it is the same caller's.
        while REGISTERED.with(|registered| take_back(registered, key)) {
            count += 1;
        }
    }
    count
}

/// Takes a range of this key back that is no cache's; false if there is none.
fn take_back(registered: &mut Ranges<Registered>, key: Key) -> bool {
    let Some(id) = registered.overlapping(key.span(), &mut |other, range| other == key && !range.is_cached) else {
        return false;
    };
    registered.remove(id);
    let _ = registered.give_back(id);
    if let Some(chosen) = CENTER.chosen() {
        unwatch(registered, chosen.component, pages_of(key.span()));
    }
    true
}

/// Ends the process if it is dropped: a component that unwinds would leave a lock held.
struct MustReturn;

impl Drop for MustReturn {
    fn drop(&mut self) {
        die(Fatal::ComponentUnwinds);
    }
}

/// Has the component watch these pages.
fn watch(component: &dyn Component, pages: Span) -> Result<(), Unwatched> {
    if held::is_unborn() {
        return Err(Unwatched("a fork has not ended yet"));
    }
    let must_return = MustReturn;
    let result = component.watch(pages.at, pages.bytes);
    core::mem::forget(must_return);
    result
}

/// Has the component watch those of these pages no more that are no registered range's.
fn unwatch(registered: &Ranges<Registered>, component: &dyn Component, pages: Span) {
    if held::is_unborn() {
        return;
    }
    let must_return = MustReturn;
    let from = Cell::new(pages.at);
    let give_up = |to: usize| {
        if to > from.get() {
            component.unwatch(from.get(), to - from.get());
        }
    };
    registered.overlapping(pages, &mut |key, range| {
        if !range.is_of_this_life() {
            return false;
        }
        let others = pages_of(key.span());
        give_up(others.at);
        from.set(from.get().max(others.at + others.bytes));
        false
    });
    give_up(pages.at + pages.bytes);
    core::mem::forget(must_return);
}

/// The same, of pages that nobody may have registered.
fn unwatch_unregistered(span: Span) {
    REGISTERED.with(|registered| {
        if let Some(chosen) = CENTER.chosen() {
            unwatch(registered, chosen.component, pages_of(span));
        }
    });
}

/// How many ranges are registered. O(1), but in the child of a fork until [`process`] was called there.
#[must_use]
pub fn registered() -> usize {
    REGISTERED.with(|registered| count_registered(registered))
}

/// How many of these are not an earlier life's.
fn count_registered(registered: &Ranges<Registered>) -> usize {
    if CENTER.forked.load(Relaxed) == 0 {
        return registered.len();
    }
    let mut count = 0;
    registered.overlapping(EVERYWHERE, &mut |_, range| {
        count += usize::from(range.is_of_this_life());
        false
    });
    count
}

/// Whether memory may have gone of which nobody was told yet: then [`process`] tells. Always false where the component tells by itself, but in
/// the child of a fork until [`process`] was called there. One relaxed load.
///
/// It is true before the call returns that took the memory away, to whoever comes behind that. But the kernel may hand the addresses out a
/// moment earlier, to another thread that maps memory meanwhile: who may have got them so asks [`is_in_flight`] first.
#[inline]
#[must_use]
pub fn changed() -> bool {
    is_set(&CHANGED)
}

/// Whether somebody in the process is about to take registered memory away, or has just done so, and was not heard yet. When this was false,
/// [`changed`] knows of all that had gone. A system call by `userfaultfd`, which may miss some before Linux 5.15; else always false.
#[must_use]
pub fn is_in_flight() -> bool {
    CENTER.chosen().is_some_and(|chosen| chosen.component.is_in_flight())
}

/// Tells of all that has gone since the last call and was not told, and returns how many releases were told, each to all callbacks. When it
/// returns, all was told that calls took away which had returned before it was called, by whatever thread: it waits for others that are at it.
///
/// # Errors
/// [`HooksError::Inside`] if a callback calls it. In the child of a fork [`HooksError::Choice`] if the component does not open there: what was the
/// parent's was told all the same.
pub fn process() -> Result<usize, HooksError> {
    if callbacks::is_inside() {
        return Err(HooksError::Inside);
    }
    let gate = CENTER.processing.enter();
    let Some(chosen) = CENTER.chosen() else { return Ok(0) };
    let told = Cell::new(0);
    let count = || told.set(told.get() + 1);
    while CENTER.forked.load(Relaxed) != 0 {
        let life = CENTER.life.load(Relaxed);
        // First: what callbacks register from here on is this process's, and watched.
        let opened = CENTER.warm(chosen);
        tell_of_earlier_lives(&count);
        opened?;
        // Else a callback has forked, and this is its child.
        if CENTER.life.load(Relaxed) == life {
            CENTER.forked.store(0, Relaxed);
        }
    }
    chosen.component.process(&mut |release| {
        tell(&release);
        count();
    });
    drop(gate);
    CALLBACKS.sweep();
    Ok(told.get())
}

/// In the child of a fork: tells of all that was registered in earlier lives of the process, and takes it out.
fn tell_of_earlier_lives(count: &dyn Fn()) {
    let next = |registered: &mut Ranges<Registered>| {
        registered.overlapping(EVERYWHERE, &mut |_, range| !range.is_of_this_life()).map(|id| registered.key(id))
    };
    while let Some(key) = REGISTERED.with(next) {
        CALLBACKS.tell(&Release { base: key.at, bytes: key.end - key.at, from_allocator: false });
        count();
        // Then only: a child of this one has it to be told of, if a thread forks meanwhile.
        REGISTERED.with(|registered| {
            let mut is_told = |other, range: &Registered| other == key && !range.is_of_this_life();
            if let Some(id) = registered.overlapping(key.span(), &mut is_told) {
                registered.remove(id);
                let _ = registered.give_back(id);
            }
        });
    }
}

/// For components of the callback kind: tells all callbacks that this goes. No lock of the component's may be held that a callback could take.
pub fn tell(release: &Release) {
    CALLBACKS.tell(release);
    site::report_left(&REGISTERED, release.span());
}

/// Calls `each` with every range that is registered, whatever it does with them.
fn each_registered(each: &mut dyn FnMut(Span)) {
    let mut last = Key { at: 0, end: 0, tag: 0 };
    while let Some(key) = REGISTERED.with(|registered| registered.next_after(last).map(|id| registered.key(id))) {
        each(key.span());
        last = key;
    }
}

/// Whether heaps of this crate tell when this goes, whatever the kernel does.
fn is_of_heap(span: Span) -> bool {
    #[cfg(feature = "shared")]
    return crate::shared::is_of_one(span);
    #[cfg(not(feature = "shared"))]
    {
        let _ = span;
        false
    }
}

/// Ends the process if this thread is in a callback that may neither allocate nor free.
#[cfg(debug_assertions)]
#[inline]
pub(crate) fn may_call_heap() {
    if callbacks::is_in_allocator() {
        die(Fatal::CallbackAllocates);
    }
}

/// For components: something has changed.
pub fn announce() {
    CHANGED.store(1, Relaxed);
}

/// For components: all that has changed was told.
pub fn settle() {
    #[cfg(feature = "malloc-debug")]
    SETTLED.fetch_add(1, Relaxed);
    // In the child of a fork nothing is told of what was registered before, until `process` has.
    if CENTER.forked.load(Relaxed) == 0 {
        CHANGED.store(0, Relaxed);
    }
}
