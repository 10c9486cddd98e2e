//! The process's own memory, by `mmap`.

#![allow(clippy::disallowed_methods, reason = "this folder is where the system is called")]

#[cfg(all(feature = "std", not(loom)))]
use super::agent::Agent;
use super::release::going;
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
    /// 1 once the kernel has refused to move pages: then it is not asked again.
    rigid: AtomicUsize,
    /// Who purges after the last call.
    #[cfg(all(feature = "std", not(loom)))]
    purger: Agent,
    /// The last span that had to be looked for in the window; 0 if none had.
    detour: AtomicUsize,
    /// Asked of each span before the heap has it.
    #[cfg(feature = "malloc-debug")]
    witness: Option<Witness>,
}

/// Whether a span may be used that has just been mapped.
#[cfg(feature = "malloc-debug")]
pub(crate) type Witness = fn(Span) -> bool;

/// The smallest step by which the heap grows.
const STEP_MIN: usize = 256 << 10;
/// The largest step by which the heap grows beyond what is asked for.
const STEP_MAX: usize = 64 << 20;
/// A huge page of the targets we know; a mapping that may hold one begins at a multiple of it.
const HUGE: usize = 2 << 20;
/// The length of the window: page numbers in it fit 32 bits.
const WINDOW: usize = 1 << 44;
/// What of the window lies on the side of the first mapping to which the kernel does not go on mapping.
const MARGIN: usize = 1 << 39;
/// How far apart the places in the window are that are tried where the kernel's own choice lies outside.
const HINT_STEP: usize = 1 << 36;

static_assertions::assert_eq_size!(usize, u64);

/// By how many bytes a heap grows that has `mapped`, unless it needs more.
pub(crate) fn growth_step(mapped: usize) -> usize {
    (mapped / 4).clamp(STEP_MIN, STEP_MAX).next_multiple_of(STEP_MIN)
}

impl Mmap {
    crate::sync::const_unless_loom! {
        /// A source that has mapped nothing yet.
        #[must_use]
        pub fn new() -> Self {
            Self {
                window: AtomicUsize::new(0),
                huge: AtomicUsize::new(0),
                rigid: AtomicUsize::new(0),
                #[cfg(all(feature = "std", not(loom)))]
                purger: Agent::new(),
                detour: AtomicUsize::new(0),
                #[cfg(feature = "malloc-debug")]
                witness: None,
            }
        }
    }

    /// A source that gives no span which `witness` refuses.
    #[cfg(all(feature = "malloc-debug", feature = "std", not(loom)))]
    pub(crate) const fn with_witness(witness: Witness) -> Self {
        Self { witness: Some(witness), ..Self::new() }
    }

    /// The span, if the witness lets the heap have it.
    fn witnessed(&self, span: Span) -> Option<Span> {
        #[cfg(feature = "malloc-debug")]
        if self.witness.is_some_and(|may_use| !may_use(span)) {
            unmap(span);
            return None;
        }
        Some(span)
    }

    /// A span of at least `bytes` bytes in the window.
    fn map_span(&self, bytes: usize) -> Option<Span> {
        let span = map_stepped(bytes)?;
        if self.is_in_reach(span) {
            return self.witnessed(span);
        }
        unmap(span);
        self.witnessed(self.map_in_reach(bytes.next_multiple_of(HUGE))?)
    }

    /// Sets how huge pages are used by mappings made from now on.
    pub(crate) fn set_huge_pages(&self, huge: HugePages) {
        self.huge.store(huge.code(), Relaxed);
    }

    /// Who purges after the last call.
    #[cfg(all(feature = "std", not(loom)))]
    pub(crate) fn purger(&self) -> &Agent {
        &self.purger
    }

    /// Declines huge pages in a fresh mapping, unless the kernel's own setting is to decide.
    fn decline_huge(&self, span: Span) {
        if HugePages::from_code(self.huge.load(Relaxed)) != HugePages::Kernel {
            advise(span, libc::MADV_NOHUGEPAGE);
        }
    }

    /// Whether all of a span has a page number that is not 0.
    fn is_in_reach(&self, span: Span) -> bool {
        self.window().is_some_and(|window| window.contains(span) && span.at > window.at)
    }

    /// A span in the window where the kernel's own choice lies outside of it: something large has been mapped since.
    fn map_in_reach(&self, bytes: usize) -> Option<Span> {
        let window = self.window()?;
        let below_last = self.detour.load(Relaxed).saturating_sub(bytes) & !(HUGE - 1);
        let steps = (1..window.bytes / HINT_STEP).map(|step| window.at + window.bytes - step * HINT_STEP);
        let found = core::iter::once(below_last).chain(steps).find_map(|hint| self.map_at(hint, bytes))?;
        self.detour.store(found.at, Relaxed);
        Some(found)
    }

    /// A span at `hint`, or where the kernel likes, if that is in the window.
    fn map_at(&self, hint: usize, bytes: usize) -> Option<Span> {
        let span = map_hinted(hint, bytes, FLAGS)?;
        if !self.is_in_reach(span) {
            unmap(span);
            return None;
        }
        Some(span)
    }
}

impl Default for Mmap {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: anonymous mappings are zero and ours; the window never changes once it is stored, and what the kernel maps
// outside of it, or at its first page, is unmapped again; MADV_DONTNEED makes private anonymous pages read zero.
unsafe impl Source for Mmap {
    fn page_size(&self) -> usize {
        page_bytes()
    }

    fn window(&self) -> Option<Span> {
        let mut at = self.window.load(Relaxed);
        if at == 0 {
            let probe = map(self.page_size())?;
            unmap(probe);
            // The kernel maps downwards from the stack, or, by its old layout, upwards from far below it.
            let upwards = (&raw const probe as usize).saturating_sub(probe.at) > probe.at;
            let below = if upwards { MARGIN } else { WINDOW - MARGIN };
            at = (probe.at & !(HUGE - 1)).saturating_sub(below).max(HUGE);
            // Two threads may probe at once: the first one's window is everybody's.
            at = self.window.compare_exchange(0, at, Relaxed, Relaxed).err().unwrap_or(at);
        }
        Some(Span { at, bytes: WINDOW - HUGE })
    }

    fn grow(&self, min: usize, mapped: usize) -> Option<Span> {
        let step = growth_step(mapped);
        let span = self.map_span(min.max(step)).or_else(|| self.map_span(min))?;
        self.decline_huge(span);
        Some(span)
    }

    unsafe fn shrink(&self, span: Span) {
        unmap(span);
    }

    fn huge_bytes(&self) -> usize {
        match HugePages::from_code(self.huge.load(Relaxed)) {
            HugePages::Above(_) => HUGE,
            HugePages::Never | HugePages::Kernel => 0,
        }
    }

    fn advise_huge(&self, range: Span, huge: bool) {
        advise(range, if huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE });
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
        going(range);
        // SAFETY: the range is ours and unused, as the caller states.
        unsafe { libc::madvise(range.at as *mut libc::c_void, range.bytes, libc::MADV_DONTNEED) == 0 }
    }

    #[cfg(all(feature = "std", not(loom)))]
    #[inline]
    fn summon_purger(&self) -> bool {
        self.purger.summon()
    }

    #[cfg(all(feature = "std", not(loom)))]
    #[inline]
    fn is_purger_at_work(&self) -> bool {
        self.purger.is_at_work()
    }

    #[cfg(all(feature = "std", not(loom)))]
    #[inline]
    fn has_purger(&self) -> bool {
        self.purger.is_enlisted()
    }

    fn relocation_grain(&self) -> usize {
        if self.rigid.load(Relaxed) == 0 { HUGE } else { 0 }
    }

    unsafe fn relocate(&self, from: Span, to: usize) -> Relocation {
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
        let (old, new) = (from.at as *mut libc::c_void, to as *mut libc::c_void);
        // What lay at the new place goes, too.
        going(from);
        going(Span { at: to, bytes: from.bytes });
        // SAFETY: both ranges are ours, as the caller states. `from` is one mapping of the kernel's, which moves all of it
        // or nothing. With DONTUNMAP the old addresses stay mapped and empty.
        let moved = unsafe { libc::mremap(old, from.bytes, from.bytes, flags, new) };
        if moved != libc::MAP_FAILED {
            return Relocation::Moved;
        }
        // Pages of which a part is watched (feature `hooks`) are several mappings until they are watched no more.
        if errno() != libc::EFAULT {
            self.rigid.store(1, Relaxed);
        }
        // A kernel that knows no DONTUNMAP (before 5.7) says so at once. One that fails later may have unmapped the new
        // place already; and then the place may be another's by now.
        if errno() == libc::EINVAL || map_fixed(Span { at: to, bytes: from.bytes }) {
            Relocation::Refused
        } else {
            Relocation::Lost
        }
    }
}

/// Bytes in a page; 0 if the system does not say.
pub(crate) fn page_bytes() -> usize {
    // SAFETY: no preconditions.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(0)
}

/// The number of the last error of this thread.
pub(super) fn errno() -> libc::c_int {
    // SAFETY: no preconditions; it is this thread's.
    let at = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    unsafe { at.read() }
}

/// Runs `section`, after which this thread's error number is what it was before.
#[cfg(any(feature = "c-abi", feature = "c-shared", all(feature = "malloc-debug", feature = "std", not(loom))))]
pub(crate) fn keep_errno<R>(section: impl FnOnce() -> R) -> R {
    let before = errno();
    let result = section();
    set_errno(before);
    result
}

/// Sets the number of the last error of this thread.
#[cfg(any(feature = "c-abi", feature = "c-shared", all(feature = "malloc-debug", feature = "std", not(loom))))]
pub(crate) fn set_errno(number: libc::c_int) {
    // SAFETY: no preconditions; it is this thread's.
    let at = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    unsafe { at.write(number) };
}

/// Maps fresh zeroed memory at just these addresses, if nothing is mapped there.
fn map_fixed(span: Span) -> bool {
    let flags = FLAGS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: it replaces nothing.
    let at = unsafe { libc::mmap(span.at as *mut libc::c_void, span.bytes, ACCESS, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return false;
    }
    advise(span, libc::MADV_NOHUGEPAGE);
    at as usize == span.at
}

const ACCESS: libc::c_int = libc::PROT_READ | libc::PROT_WRITE;
const FLAGS: libc::c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

/// Advises the kernel on huge pages.
fn advise(span: Span, advice: libc::c_int) {
    // SAFETY: the memory is ours, and advice on huge pages changes no contents. A kernel without huge pages
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

/// Fresh zeroed memory that becomes resident where it is written, however much of it there is.
#[cfg(any(feature = "symmetric", all(feature = "malloc-debug", feature = "std", not(loom))))]
pub(crate) fn map_sparse(bytes: usize) -> Option<Span> {
    let span = map_with(bytes, FLAGS | libc::MAP_NORESERVE)?;
    // SAFETY: the mapping is ours; advice on huge pages changes no contents.
    let _ = unsafe { libc::madvise(span.at as *mut libc::c_void, span.bytes, libc::MADV_NOHUGEPAGE) };
    Some(span)
}

/// Maps fresh zeroed memory anywhere, with these flags.
fn map_with(bytes: usize, flags: libc::c_int) -> Option<Span> {
    map_hinted(0, bytes, flags)
}

/// Maps fresh zeroed memory, at `hint` if that is free, else anywhere.
fn map_hinted(hint: usize, bytes: usize, flags: libc::c_int) -> Option<Span> {
    // SAFETY: a fresh anonymous mapping at addresses that are free touches nothing that exists.
    let at = unsafe { libc::mmap(hint as *mut libc::c_void, bytes, ACCESS, flags, -1, 0) };
    (at != libc::MAP_FAILED).then_some(Span { at: at as usize, bytes })
}

/// Unmaps memory that somebody may have been given.
#[cfg(any(feature = "allocator-api2", feature = "symmetric"))]
pub(crate) fn release(span: Span) {
    going(span);
    unmap(span);
}

/// Unmaps what [`map`] mapped, or a part of it, of which nobody was given anything.
pub(crate) fn unmap(span: Span) {
    if span.bytes > 0 {
        // SAFETY: the span is ours and nobody has been given it. A refusal leaves it mapped and unused.
        let _ = unsafe { libc::munmap(span.at as *mut libc::c_void, span.bytes) };
    }
}

/// Lets every other thread run for a while, those of lower priority too.
pub(crate) fn rest() {
    pause(50_000);
}

/// Lets the calling thread sleep for so many nanoseconds, below a second. (By the system call itself: the C library's
/// function is a point at which the thread may be cancelled, and `malloc` must be none.)
pub(super) fn pause(nanoseconds: i64) {
    let time = libc::timespec { tv_sec: 0, tv_nsec: nanoseconds };
    // SAFETY: the time is there to be read; to wake early does no harm.
    let _ = unsafe {
        libc::syscall(libc::SYS_clock_nanosleep, libc::CLOCK_MONOTONIC, 0, &raw const time, null_mut::<()>())
    };
}

/// The number of the calling process.
#[cfg(all(any(feature = "shared", feature = "hooks"), not(loom)))]
pub(crate) fn process_number() -> u32 {
    // SAFETY: no preconditions.
    unsafe { libc::getpid() as u32 }
}

/// The system's number of the calling thread.
#[cfg(any(feature = "shared", all(feature = "malloc-debug", feature = "std", not(loom))))]
pub(crate) fn thread_id() -> u32 {
    // SAFETY: no preconditions.
    let id = unsafe { libc::syscall(libc::SYS_gettid) };
    u32::try_from(id).unwrap_or(0)
}

/// Lets another thread run.
pub(crate) fn yield_now() {
    #[cfg(loom)]
    loom::thread::yield_now();
    // SAFETY: no preconditions; it cannot fail on the systems we know.
    let _ = unsafe { libc::sched_yield() };
}

/// How often, a millisecond each time, a file descriptor 2 that takes nothing is waited for.
const PATIENCE: u32 = 1000;

/// Writes all of `bytes` to file descriptor 2, and waits if it is a pipe that is full. (By the system call itself: the C
/// library's function is a point at which the thread may be cancelled.)
pub(crate) fn say(mut bytes: &[u8]) {
    let mut refusals = 0;
    while !bytes.is_empty() && refusals < PATIENCE {
        // SAFETY: the bytes are valid.
        let count = unsafe { libc::syscall(libc::SYS_write, 2, bytes.as_ptr(), bytes.len()) };
        match usize::try_from(count) {
            Ok(count) if count > 0 => bytes = bytes.get(count..).unwrap_or_default(),
            // A signal came, or the pipe does not wait by itself.
            Err(_) if [libc::EINTR, libc::EAGAIN].contains(&errno()) => {
                refusals += 1;
                pause(1_000_000);
            }
            // There is nobody to tell.
            _ => return,
        }
    }
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
        at_fork(prepare, parent, child);
    }
}

/// Registers what is to be done around every `fork`.
#[cfg(all(feature = "std", not(loom)))]
pub(crate) fn at_fork(prepare: extern "C" fn(), parent: extern "C" fn(), child: extern "C" fn()) {
    // SAFETY: the three are functions of this program that stay as long as its code. Without memory for the
    // registration a fork is as unsafe as in a program that registers nothing; there is nobody to tell.
    let _ = unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
}
