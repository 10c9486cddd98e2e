//! A profiler's signal a thousand times a second, while threads do little but allocate: nothing breaks, and most signals
//! find the allocator in the middle of something.

// Where nothing is inlined, most of what the allocator does lies in the core library's functions, and is counted as elsewhere:
// `cargo test --release --test signals`.
#![cfg(not(debug_assertions))]
#![allow(clippy::disallowed_macros, clippy::disallowed_methods, reason = "a test sets a timer and says what it saw")]

#[path = "common/own_process.rs"]
mod own_process;

use own_process::in_own_process;
use std::alloc::{Layout, alloc, dealloc, realloc};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use stratalloc::Stratalloc;

#[global_allocator]
static A: Stratalloc = Stratalloc::new();

/// Signals whose place is kept.
const KEPT: usize = 1 << 14;
/// How long the threads are busy, at the least.
const BUSY: Duration = Duration::from_secs(3);
const THREADS: u64 = 4;

/// Where the signals found the program.
static PLACES: [AtomicUsize; KEPT] = [const { AtomicUsize::new(0) }; KEPT];
static SIGNALS: AtomicUsize = AtomicUsize::new(0);

/// Keeps the interrupted instruction's address.
extern "C" fn on_signal(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let at = SIGNALS.fetch_add(1, Relaxed);
    if let Some(place) = PLACES.get(at) {
        // SAFETY: the kernel hands the context of the interrupted thread.
        let context = unsafe { &*context.cast::<libc::ucontext_t>() };
        #[cfg(target_arch = "x86_64")]
        let address = context.uc_mcontext.gregs[libc::REG_RIP as usize] as usize;
        #[cfg(target_arch = "aarch64")]
        let address = context.uc_mcontext.pc as usize;
        place.store(address, Relaxed);
    }
}

/// Has `SIGPROF` delivered after each millisecond of CPU time that the process has used.
fn profile() {
    // SAFETY: zero bits are a valid value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: the handler touches atomics alone.
    assert_eq!(unsafe { libc::sigaction(libc::SIGPROF, &raw const action, std::ptr::null_mut()) }, 0);
    let millisecond = libc::timeval { tv_sec: 0, tv_usec: 1000 };
    let timer = libc::itimerval { it_interval: millisecond, it_value: millisecond };
    // SAFETY: the value is valid.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, std::ptr::null_mut()) }, 0);
}

/// Blocks of every kind come, grow and go until the time is up; each keeps what was written at its ends.
fn churn(seed: u64, begun: Instant) {
    const SLOTS: usize = 300;
    let mut state = seed;
    let mut random = |end: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % end
    };
    let mut held = [(std::ptr::null_mut::<u8>(), 0, 0u8); SLOTS];
    let of = |size| Layout::from_size_align(size, 8).expect("a layout");
    // The timer counts what the threads are given of the processors: on a busy machine that may be little.
    let is_going_on = || begun.elapsed() < BUSY || SIGNALS.load(Relaxed) < 1000 && begun.elapsed() < 20 * BUSY;
    while is_going_on() {
        for turn in 0..2000 {
            let slot = random(SLOTS);
            let (block, size, mark) = held[slot];
            let ends = |block: *mut u8, size: usize| [block, block.wrapping_add(size - 1)];
            if !block.is_null() {
                // SAFETY: a live block of that size.
                assert!(ends(block, size).iter().all(|at| unsafe { at.read() } == mark));
            }
            let wanted = 8 + random([16, 64, 300, 2000, 5000, 30_000, 200_000][turn % 7]);
            let fresh = if turn % 5 == 0 && !block.is_null() {
                // SAFETY: the block is live, of that size, and given up.
                unsafe { realloc(block, of(size), wanted) }
            } else {
                if !block.is_null() {
                    // SAFETY: as above.
                    unsafe { dealloc(block, of(size)) };
                }
                // SAFETY: the size is not 0.
                unsafe { alloc(of(wanted)) }
            };
            assert!(!fresh.is_null());
            // SAFETY: a live block of that size.
            ends(fresh, wanted).iter().for_each(|at| unsafe { at.write(turn as u8) });
            held[slot] = (fresh, wanted, turn as u8);
            for size in [40, 2500, 40_000, 500_000] {
                // SAFETY: the size is not 0.
                let block = unsafe { alloc(of(size)) };
                // SAFETY: allocated above for the layout.
                unsafe { dealloc(block, of(size)) };
            }
        }
    }
}

/// The part of the program that an address belongs to: a file of the allocator's, or something else.
fn place(address: usize) -> String {
    let mut found = String::from("elsewhere");
    backtrace::resolve(address as *mut std::ffi::c_void, |symbol| {
        let file = symbol.filename().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        if let Some((_, inside)) = file.split_once("/src/").filter(|_| found == "elsewhere" && is_ours(&file)) {
            found = inside.to_string();
        }
    });
    found
}

/// Whether a source file is the allocator's, or one of the lock that it spins on.
fn is_ours(file: &str) -> bool {
    file.starts_with(concat!(env!("CARGO_MANIFEST_DIR"), "/src/")) || file.contains("/spin-")
}

#[test]
fn g6_signals_a_thousand_times_a_second() {
    let ended = in_own_process(|| {
        profile();
        let begun = Instant::now();
        std::thread::scope(|scope| (1..=THREADS).for_each(|seed| drop(scope.spawn(move || churn(seed, begun)))));
        // SAFETY: signals are ignored from now on.
        unsafe { libc::signal(libc::SIGPROF, libc::SIG_IGN) };
        let kept = SIGNALS.load(Relaxed).min(KEPT);
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        PLACES[..kept].iter().for_each(|at| *counts.entry(place(at.load(Relaxed))).or_default() += 1);
        let inside = 100 * (kept - counts.get("elsewhere").copied().unwrap_or(0)) / kept.max(1);
        let mut places: Vec<_> = counts.into_iter().collect();
        places.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let places: Vec<String> = places.into_iter().map(|(place, count)| format!("{place} {count}")).collect();
        let line = format!("signals: {kept}, {inside} % inside the allocator: {}", places.join(", "));
        writeln!(std::io::stderr(), "{line}").expect("it can be said");
        assert!(kept > 200, "only {kept} signals came");
        assert!(inside >= 30, "{line}");
    });
    ended.hand_on("signals:");
    ended.well();
}
