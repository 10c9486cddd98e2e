//! Settings, checked when the program is compiled.

#[cfg(feature = "malloc-debug")]
mod hunt;

#[cfg(all(feature = "malloc-debug", feature = "std"))]
pub(crate) use hunt::FRAMES_MAX;
#[cfg(feature = "malloc-debug")]
pub use hunt::{Hunt, Side};

/// How the kernel's transparent huge pages are used, by `madvise` on each mapping of the heap's own, never by `prctl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HugePages {
    /// Huge pages are declined, so that resident memory is what was touched.
    Never,
    /// Nothing is advised: the kernel's own setting decides. With `always` there, the idle bound is not kept.
    Kernel,
    /// While so many bytes are live, huge pages are asked for where 2 MiB of untouched memory begin to be filled; all of
    /// them count as resident from then on. The default, with 8 MiB. Not for zeroed blocks of 1 MiB and more, of which
    /// little may be touched; not beyond 32 GiB of mapped memory; not if the idle bound is below 8 MiB. Before a part of
    /// a huge page is given back, the system is told not to fill it up again, so the idle bound holds.
    Above(usize),
}

impl HugePages {
    /// One word for it, to be kept in an atomic.
    pub(crate) const fn code(self) -> usize {
        match self {
            Self::Never => 0,
            Self::Kernel => 1,
            Self::Above(bytes) => bytes.saturating_add(2),
        }
    }

    /// Live bytes from which on huge pages are asked for.
    pub(crate) const fn above(self) -> usize {
        match self {
            Self::Above(bytes) => bytes,
            Self::Never | Self::Kernel => usize::MAX,
        }
    }

    /// What `code` made a word of.
    pub(crate) const fn from_code(code: usize) -> Self {
        match code {
            0 => Self::Never,
            1 => Self::Kernel,
            bytes => Self::Above(bytes - 2),
        }
    }
}

/// When free memory beyond the idle bound is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Purge {
    /// Less than a second later, by a thread that is started when the bound is passed, or when the lists of a thread fill in a
    /// heap of more than [`Config::idle_bytes`], and ends when there is nothing more to look after. What
    /// the program goes on using is left alone: only pages that nobody has used for 0.15 seconds go (and, before the heap
    /// grows, pages that only blocks of one size could use). The default of the process heap. Where no thread can be started, and in a heap as an object, it is as `AtFree`.
    Soon,
    /// At once, by the call of `free` that passes the bound: no thread is ever started. A program whose live memory swings
    /// by more than the bound pays for it, with two page faults' time for each page and swing.
    AtFree,
}

/// The settings of a heap.
///
/// Build one in a `const`; a value that makes no sense does not compile, and the error says what would be right:
///
/// ```
/// use stratalloc::{Config, Stratalloc};
///
/// const CONFIG: Config = Config::new().idle_bytes(4 << 20).list_bytes(16 << 10);
///
/// #[global_allocator]
/// static A: Stratalloc = Stratalloc::with_config(CONFIG);
/// # fn main() {}
/// ```
///
/// ```compile_fail
/// # use stratalloc::Config;
/// const CONFIG: Config = Config::new().list_bytes(3);
/// # let _ = CONFIG;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    pub(crate) idle_bytes: usize,
    pub(crate) idle_share: usize,
    pub(crate) list_bytes: usize,
    pub(crate) huge_pages: HugePages,
    pub(crate) purge: Purge,
    #[cfg(feature = "malloc-debug")]
    pub(crate) hunt: Hunt,
}

impl Config {
    /// The settings that [`Stratalloc::new`](crate::Stratalloc::new) uses: idle bound 8 MiB or 1/8 of live bytes,
    /// lists of 8 KiB, huge pages from 8 MiB of live bytes on.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            idle_bytes: 8 << 20,
            idle_share: 8,
            list_bytes: 8 << 10,
            huge_pages: HugePages::Above(8 << 20),
            purge: Purge::Soon,
            #[cfg(feature = "malloc-debug")]
            hunt: Hunt::new(),
        }
    }

    /// Free pages kept resident: at most this many bytes, or the share of [`Config::idle_share`] if that is more.
    /// The default is 8 MiB. With 0, the share alone decides; with a share of `usize::MAX` as well, nothing is
    /// retained but what threads' run lists hold.
    ///
    /// # Panics
    /// When `bytes` is over 1 TiB (at compile time, in a `const`).
    #[must_use]
    pub const fn idle_bytes(mut self, bytes: usize) -> Self {
        assert!(bytes <= 1 << 40, "Config::idle_bytes: at most 1 TiB; use a size in bytes such as 8 << 20");
        self.idle_bytes = bytes;
        self
    }

    /// Free pages kept resident: at most one `share`-th of live bytes, or [`Config::idle_bytes`] if that is more.
    /// The default is 8.
    ///
    /// # Panics
    /// When `share` is 0 (at compile time, in a `const`).
    #[must_use]
    pub const fn idle_share(mut self, share: usize) -> Self {
        assert!(share > 0, "Config::idle_share: at least 1 (1 keeps as much as is live, 8 keeps one eighth)");
        self.idle_share = share;
        self
    }

    /// Bytes in one list of blocks (the paper's `target` times the block size). The default is 8 KiB; a list holds at
    /// least 4 and at most 64 blocks, whatever this says. With `fine-classes` and [`Purge::AtFree`] lists are half as long,
    /// but for the least.
    ///
    /// # Panics
    /// When `bytes` is below 64 or above 1 MiB (at compile time, in a `const`).
    #[must_use]
    pub const fn list_bytes(mut self, bytes: usize) -> Self {
        assert!(bytes >= 64 && bytes <= 1 << 20, "Config::list_bytes: from 64 bytes to 1 MiB; 8 << 10 is a good value");
        self.list_bytes = bytes;
        self
    }

    /// How huge pages are used. The default is [`HugePages::Above`] with 8 MiB.
    #[must_use]
    pub const fn huge_pages(mut self, huge: HugePages) -> Self {
        self.huge_pages = huge;
        self
    }

    /// When free memory beyond the idle bound is given back. The default is [`Purge::Soon`].
    #[must_use]
    pub const fn purge(mut self, purge: Purge) -> Self {
        self.purge = purge;
        self
    }

    /// How corruption is hunted in the process heap. The default is [`Hunt::new`].
    #[cfg(feature = "malloc-debug")]
    #[must_use]
    pub const fn hunt(mut self, hunt: Hunt) -> Self {
        self.hunt = hunt;
        self
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}
