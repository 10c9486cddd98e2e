//! The process's own memory, by `mmap`.

#![allow(clippy::disallowed_methods, reason = "this folder is where the system is called")]

use super::{Relocation, Source, Span};
use crate::config::HugePages;
use crate::sync::{AtomicUsize, Relaxed};
use core::ptr::{NonNull, null_mut};

/// Anonymous private memory of this process.
///
/// It grows by steps that follow what is mapped, and gives pages back by `madvise(MADV_DONTNEED)`: the addresses
/// stay, so that no hole costs a mapping of its own. What it mapped goes with the process.
#[derive(Debug)]
pub struct Mmap {
    /// The first address of the window; 0 until the first mapping.
    window: AtomicUsize,
    /// How the kernel's huge pages are to be used: `HugePages::code`.
    huge: AtomicUsize,
}

/// The smallest step by which the heap grows.
const STEP_MIN: usize = 256 << 10;
/// The largest step by which the heap grows beyond what is asked for.
const STEP_MAX: usize = 64 << 20;
/// A huge page of the targets we know; a mapping that may hold one begins at a multiple of it.
const HUGE: usize = 2 << 20;
/// The reach of the window to either side of the first mapping: page numbers in it fit 32 bits.
const REACH: usize = 1 << 43;

static_assertions::assert_eq_size!(usize, u64);

impl Mmap {
    crate::sync::const_unless_loom! {
        /// A source that has mapped nothing yet.
        #[must_use]
        pub fn new() -> Self {
            Self { window: AtomicUsize::new(0), huge: AtomicUsize::new(0) }
        }
    }

    /// Sets how huge pages are used by mappings made from now on.
    pub(crate) fn set_huge_pages(&self, huge: HugePages) {
        self.huge.store(huge.code(), Relaxed);
    }

    /// Applies the setting for huge pages to a fresh mapping.
    fn advise(&self, span: Span, mapped: usize) {
        let advice = match HugePages::from_code(self.huge.load(Relaxed)) {
            HugePages::Kernel => return,
            HugePages::Never => libc::MADV_NOHUGEPAGE,
            HugePages::Above(bytes) if mapped < bytes || span.bytes < HUGE => libc::MADV_NOHUGEPAGE,
            HugePages::Above(_) => libc::MADV_HUGEPAGE,
        };
        advise(span, advice);
    }
}

impl Default for Mmap {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: anonymous mappings are zero and ours; the window is centred on the first mapping, and what the kernel maps
// outside of it is unmapped again; MADV_DONTNEED makes private anonymous pages read zero.
unsafe impl Source for Mmap {
    fn page_size(&self) -> usize {
        // SAFETY: no preconditions.
        let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(bytes).unwrap_or(0)
    }

    fn window(&self) -> Option<Span> {
        let mut at = self.window.load(Relaxed);
        if at == 0 {
            let probe = map(self.page_size())?;
            unmap(probe);
            let centre = probe.at & !(HUGE - 1);
            at = centre.saturating_sub(REACH).max(HUGE);
            // Two threads may probe at once: the first one's window is everybody's.
            at = self.window.compare_exchange(0, at, Relaxed, Relaxed).err().unwrap_or(at);
        }
        Some(Span { at, bytes: 2 * REACH })
    }

    fn grow(&self, min: usize, mapped: usize) -> Option<Span> {
        let step = (mapped / 4).clamp(STEP_MIN, STEP_MAX).next_multiple_of(STEP_MIN);
        let span = map_stepped(min.max(step)).or_else(|| map_stepped(min))?;
        // The window's first page has the number that means no page.
        let window = self.window()?;
        if !window.contains(span) || span.at == window.at {
            unmap(span);
            return None;
        }
        self.advise(span, mapped);
        Some(span)
    }

    unsafe fn shrink(&self, span: Span) {
        unmap(span);
    }

    fn comes_resident(&self, span: Span) -> bool {
        span.bytes >= HUGE && matches!(HugePages::from_code(self.huge.load(Relaxed)), HugePages::Above(_))
    }

    fn records(&self, bytes: usize) -> Option<NonNull<u8>> {
        let span = map_with(bytes, FLAGS | libc::MAP_NORESERVE)?;
        // Records are sparse: a huge page would make all of them resident.
        if bytes >= HUGE {
            advise(span, libc::MADV_NOHUGEPAGE);
        }
        NonNull::new(span.at as *mut u8)
    }

    unsafe fn purge(&self, range: Span) -> bool {
        // SAFETY: the range is ours and unused, as the caller states.
        unsafe { libc::madvise(range.at as *mut libc::c_void, range.bytes, libc::MADV_DONTNEED) == 0 }
    }

    #[cfg(target_os = "linux")]
    unsafe fn relocate(&self, from: Span, to: usize) -> Relocation {
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
        let (old, new) = (from.at as *mut libc::c_void, to as *mut libc::c_void);
        // SAFETY: both ranges are ours, as the caller states. With DONTUNMAP the old addresses stay mapped and empty.
        let moved = unsafe { libc::mremap(old, from.bytes, from.bytes, flags, new) };
        if moved != libc::MAP_FAILED {
            return Relocation::Moved;
        }
        // A kernel that refuses late (the range spans two of its mappings; no DONTUNMAP before 5.7) has already
        // unmapped the new place.
        let to = Span { at: to, bytes: from.bytes };
        if !remap(to) {
            return Relocation::Lost;
        }
        self.advise(to, 0);
        Relocation::Refused
    }
}

/// Puts fresh zeroed memory in the place of what is, or was, mapped there.
#[cfg(target_os = "linux")]
fn remap(span: Span) -> bool {
    // SAFETY: the caller owns the addresses and what is in them.
    let at = unsafe { libc::mmap(span.at as *mut libc::c_void, span.bytes, ACCESS, FLAGS | libc::MAP_FIXED, -1, 0) };
    at != libc::MAP_FAILED
}

const ACCESS: libc::c_int = libc::PROT_READ | libc::PROT_WRITE;
const FLAGS: libc::c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

/// Advises the kernel on a fresh mapping.
fn advise(span: Span, advice: libc::c_int) {
    // SAFETY: the mapping is fresh and ours; advice on huge pages changes no contents. A kernel without huge pages
    // refuses, and then there is nothing to advise.
    let _ = unsafe { libc::madvise(span.at as *mut libc::c_void, span.bytes, advice) };
}

/// Maps `bytes` bytes; from `HUGE` on, beginning and ending at multiples of `HUGE`, so that page tables can move
/// whole and a huge page can fit.
fn map_stepped(bytes: usize) -> Option<Span> {
    if bytes < HUGE {
        return map(bytes);
    }
    let bytes = bytes.checked_next_multiple_of(HUGE)?;
    let lucky = map(bytes)?;
    if lucky.at.is_multiple_of(HUGE) {
        return Some(lucky);
    }
    unmap(lucky);
    let wide = map(bytes.checked_add(HUGE)?)?;
    let at = wide.at.next_multiple_of(HUGE);
    unmap(Span { at: wide.at, bytes: at - wide.at });
    unmap(Span { at: at + bytes, bytes: wide.at + wide.bytes - at - bytes });
    Some(Span { at, bytes })
}

/// Maps fresh zeroed memory anywhere. The system may refuse more than it could ever have.
pub(crate) fn map(bytes: usize) -> Option<Span> {
    map_with(bytes, FLAGS)
}

/// Maps fresh zeroed memory anywhere, with these flags.
fn map_with(bytes: usize, flags: libc::c_int) -> Option<Span> {
    // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches nothing that exists.
    let at = unsafe { libc::mmap(null_mut(), bytes, ACCESS, flags, -1, 0) };
    (at != libc::MAP_FAILED).then_some(Span { at: at as usize, bytes })
}

/// Unmaps what [`map`] mapped, or a part of it.
pub(crate) fn unmap(span: Span) {
    if span.bytes > 0 {
        // SAFETY: the span is ours and nobody has been given it. A refusal leaves it mapped and unused.
        let _ = unsafe { libc::munmap(span.at as *mut libc::c_void, span.bytes) };
    }
}

/// Lets another thread run.
pub(crate) fn yield_now() {
    // SAFETY: no preconditions; it cannot fail on the systems we know.
    let _ = unsafe { libc::sched_yield() };
}

/// Writes `line` to file descriptor 2, as much as it takes.
pub(crate) fn last_words(line: &str) {
    // SAFETY: the text is valid for its length. There is nobody to tell if the write fails.
    let _ = unsafe { libc::write(2, line.as_ptr().cast(), line.len()) };
}

/// Ends the process by SIGABRT.
pub(crate) fn abort() -> ! {
    // SAFETY: no preconditions.
    unsafe { libc::abort() }
}

/// Registers, once, what is to be done around every `fork`.
#[cfg(all(feature = "std", not(loom)))]
pub(crate) fn at_fork_once(prepare: extern "C" fn(), parent: extern "C" fn(), child: extern "C" fn()) {
    static REGISTERED: AtomicUsize = AtomicUsize::new(0);
    if REGISTERED.swap(1, Relaxed) == 0 {
        // SAFETY: the three are functions of this program that stay as long as its code. Without memory for the
        // registration a fork is as unsafe as in a program that registers nothing; there is nobody to tell.
        let _ = unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
    }
}
