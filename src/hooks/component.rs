//! Components: who finds out that memory goes. One of them serves.

pub use crate::choice::Declined;
use crate::os::Span;
use core::fmt;

/// When it is told that memory goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Notice {
    /// Not at all.
    Never,
    /// By [`process`](super::process), after it went, and after [`changed`](super::changed) has become true.
    Polled,
    /// By itself, before it goes.
    Before,
}

/// What a component is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Support {
    /// Of what this crate's heaps unmap, move, or give back to the system.
    pub heaps: Notice,
    /// Of what others in the process do: `munmap`, a mapping over another one, `mremap`, and `madvise` with `MADV_DONTNEED`, `MADV_FREE`
    /// or `MADV_REMOVE`.
    pub process: Notice,
}

impl Support {
    /// None.
    pub const NONE: Self = Self { heaps: Notice::Never, process: Notice::Never };
    /// Of all memory of the process: before it goes where a heap of this crate lets it go, else by [`process`](super::process).
    pub const ALL: Self = Self { heaps: Notice::Before, process: Notice::Polled };

    /// What of `other` is not there: in words; `None` if all is.
    pub(super) fn lacks(self, other: Self) -> Option<&'static str> {
        match () {
            () if self.heaps < other.heaps && other.heaps == Notice::Before => {
                Some("it is not told before a heap's memory goes")
            }
            () if self.heaps < other.heaps => Some("it is not told of what heaps do"),
            () if self.process < other.process && other.process == Notice::Before => {
                Some("it is not told before what others do in the process")
            }
            () if self.process < other.process => Some("it is not told of what others do in the process"),
            () => None,
        }
    }
}

/// Memory that goes, or has gone: the addresses themselves, or what was behind them. It need not be what was registered: compare by
/// [`overlaps`](Release::overlaps). The same memory may be told twice, by a heap before it goes, and by [`process`](super::process).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// The first address; heaps and the kernel tell whole pages.
    pub base: usize,
    /// How many bytes.
    pub bytes: usize,
    /// Whether this is told from inside the allocator: then the callback may neither allocate nor free with a heap of this crate. (With
    /// another allocator it may: with the C library's, unless the feature `c-override` has replaced that.) Builds with debug assertions end
    /// the process if it calls the global one; others may wait for themselves.
    pub from_allocator: bool,
}

impl Release {
    pub(super) fn span(&self) -> Span {
        Span { at: self.base, bytes: self.bytes }
    }

    /// Whether it has bytes in common with these. O(1).
    #[must_use]
    pub fn overlaps(&self, base: usize, bytes: usize) -> bool {
        let end = |base: usize, bytes: usize| base.saturating_add(bytes);
        bytes > 0 && self.bytes > 0 && base < end(self.base, self.bytes) && self.base < end(base, bytes)
    }
}

/// Why a range cannot be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unwatched(pub &'static str);

impl fmt::Display for Unwatched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// A fork, as a component sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// Before it: locks that the child must find free are taken.
    Before,
    /// After it, in the process that forked: they are given back.
    InParent,
    /// After it, in the child: they are, and what the parent goes on with is ended here without harm to it.
    InChild,
}

/// Somebody who finds out that memory goes: of the callback kind, which tells by itself, by [`tell`](super::tell); of the polled kind, which
/// announces, and tells when it is asked to by [`process`](Component::process); or both. What heaps tell goes to the component
/// [`ALLOCATOR`](super::ALLOCATOR): one that wants that, too, opens and closes it when it is opened and closed.
///
/// ```
/// use std::sync::Mutex;
/// use stratalloc::hooks::{self, ALLOCATOR, Component, Declined, Notice, Release, Settings, Support};
///
/// /// Of a library that unmaps memory, and says so.
/// #[derive(Debug)]
/// struct Library;
/// static UNMAPPED: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());
///
/// /// Called by the library before it unmaps.
/// fn unmaps(base: usize, bytes: usize) {
///     let mut unmapped = UNMAPPED.lock().unwrap();
///     unmapped.push((base, bytes));
///     hooks::announce();
/// }
///
/// impl Component for Library {
///     fn name(&self) -> &'static str {
///         "library"
///     }
///     fn priority(&self) -> i32 {
///         70
///     }
///     fn support(&self) -> Support {
///         Support { heaps: Notice::Before, process: Notice::Never }
///     }
///     fn open(&self) -> Result<(), Declined> {
///         ALLOCATOR.open()
///     }
///     fn close(&self) {
///         ALLOCATOR.close();
///     }
///     fn process(&self, each: &mut dyn FnMut(Release)) {
///         loop {
///             let mut unmapped = UNMAPPED.lock().unwrap();
///             let Some((base, bytes)) = unmapped.pop() else {
///                 // Under the lock under which it announces: nothing comes between.
///                 return hooks::settle();
///             };
///             drop(unmapped);
///             each(Release { base, bytes, from_allocator: false });
///         }
///     }
/// }
///
/// static LIBRARY: Library = Library;
/// hooks::init(&Settings::new().component(&LIBRARY))?;
/// let _callback = hooks::on_release(|release| assert!(release.overlaps(0x5000, 1)))?;
/// unmaps(0x4000, 0x2000);
/// assert!(hooks::changed());
/// assert_eq!(hooks::process()?, 1);
/// assert!(!hooks::changed());
/// # Ok::<(), hooks::HooksError>(())
/// ```
pub trait Component: Sync + fmt::Debug {
    /// Its name, by which users choose it.
    fn name(&self) -> &'static str;

    /// Its priority, unless the user gives it another: the highest one serves, of those that do not decline.
    fn priority(&self) -> i32;

    /// What it is told of, once it is open.
    fn support(&self) -> Support;

    /// Begins. Called again after [`close`](Component::close).
    ///
    /// # Errors
    /// [`Declined`] says why it does not serve: another one will.
    fn open(&self) -> Result<(), Declined>;

    /// Ends: nothing is told any more.
    fn close(&self);

    /// Around a fork, with the locks of the hooks held: it may neither allocate nor free. In the child only the calling thread goes on; there [`open`](Component::open) follows when hooks are
    /// used.
    ///
    /// # Safety
    /// - The hooks call it, at that stage of a fork.
    unsafe fn fork(&self, stage: Fork) {
        let _ = stage;
    }

    /// Watches whole pages from now on, some of which it may watch already. It may not allocate; it is called under a spin lock for which whoever
    /// takes memory away may wait, as is `unwatch`, so it is short.
    ///
    /// # Errors
    /// [`Unwatched`] if it would not be told of what it is said to be told of; then [`unwatch`](Component::unwatch) follows. It may not
    /// unwind, nor may that.
    fn watch(&self, base: usize, bytes: usize) -> Result<(), Unwatched> {
        let _ = (base, bytes);
        Ok(())
    }

    /// Need not watch these whole pages any more, which may be mapped no more. It may not allocate.
    fn unwatch(&self, base: usize, bytes: usize) {
        let _ = (base, bytes);
    }

    /// For one of the polled kind: whether memory has gone, or may be about to, of which it has not heard yet.
    fn is_in_flight(&self) -> bool {
        false
    }

    /// For one of the polled kind: tells of all that it has heard of since the last call; when there is no more, it calls
    /// [`settle`](super::settle), under the lock under which it calls [`announce`](super::announce): else what it hears of between the two is
    /// lost. One call at a time.
    fn process(&self, each: &mut dyn FnMut(Release)) {
        let _ = each;
        super::settle();
    }
}
