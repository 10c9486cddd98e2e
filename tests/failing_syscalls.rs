//! System calls that fail: the k-th `mmap`, `mremap`, `madvise` or `munmap` of a heap, or every one from there on, for
//! every k. This program's own definitions of the four stand before the C library's.

// It writes much memory: `cargo test --release --test failing_syscalls`.
#![cfg(not(debug_assertions))]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a test stands in for the system and says what it did"
)]

#[path = "oracle/mod.rs"]
mod oracle;

use libc::{c_int, c_void, off_t, size_t};
use oracle::{Op, Player, Pool, assert_empty, layout_of_code, with_player};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use stratalloc::Config;
use stratalloc::heap::Engine;
use stratalloc::lock::Spin;
use stratalloc::os::Mmap;

const CALLS: [&str; 4] = ["mmap", "mremap", "madvise", "munmap"];
const MMAP: usize = 0;
const MREMAP: usize = 1;
const MADVISE: usize = 2;
const MUNMAP: usize = 3;

/// Which calls of this thread fail.
#[derive(Clone, Copy)]
struct Plan {
    /// Bit `i` is set iff calls of kind `i` are counted, and may fail.
    kinds: u8,
    from: usize,
    to: usize,
    /// Whether a `mremap` that fails has unmapped the new place before, as the kernel does when it fails late.
    late: bool,
    /// Whether a long mapping begins anywhere but where a huge page could, so that a heap must map more and cut it.
    askew: bool,
}

const NOTHING: Plan = Plan { kinds: 0, from: 0, to: 0, late: false, askew: false };
/// Where a huge page may begin.
const HUGE: usize = 2 << 20;
/// What is mapped askew begins so far behind.
const ASKEW: usize = 4096;
/// Mappings from this length on lie apart.
const LONG: usize = 128 << 10;

thread_local! {
    static PLAN: Cell<Plan> = const { Cell::new(NOTHING) };
    static COUNT: Cell<usize> = const { Cell::new(0) };
    /// How many calls of each kind failed since this was last taken.
    static FAILED: Cell<[u32; 4]> = const { Cell::new([0; 4]) };
}

/// Counts a call of `kind`; whether it is to fail.
fn fails(kind: usize) -> bool {
    let plan = PLAN.get();
    if plan.kinds >> kind & 1 == 0 {
        return false;
    }
    let call = COUNT.replace(COUNT.get() + 1);
    let fails = (plan.from..plan.to).contains(&call);
    if fails {
        let mut failed = FAILED.get();
        failed[kind] += 1;
        FAILED.set(failed);
        set_errno(libc::ENOMEM);
    }
    fails
}

fn set_errno(errno: c_int) {
    // SAFETY: no preconditions; it is this thread's.
    let at = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    unsafe { at.write(errno) };
}

#[unsafe(no_mangle)]
extern "C" fn mmap(at: *mut c_void, len: size_t, prot: c_int, flags: c_int, file: c_int, offset: off_t) -> *mut c_void {
    if fails(MMAP) {
        return libc::MAP_FAILED;
    }
    let map = |at: *mut c_void, len: size_t, prot: c_int| {
        // SAFETY: the caller's arguments, as they are, or addresses anywhere.
        (unsafe { libc::syscall(libc::SYS_mmap, at, len, prot, flags, file, offset) }) as *mut c_void
    };
    let plan = PLAN.get();
    if plan.kinds == 0 || len < LONG || !at.is_null() {
        return map(at, len, prot);
    }
    // Long mappings begin where the plan says, with addresses around them that are nobody's: so what a heap does with them
    // does not depend on what else is mapped.
    let wide = map(at, len + 2 * HUGE, libc::PROT_NONE);
    if wide == libc::MAP_FAILED {
        return wide;
    }
    let begin = (wide as usize).next_multiple_of(HUGE) + if plan.askew { ASKEW } else { 0 };
    let begin = wide.with_addr(begin);
    // SAFETY: inside what was mapped just now.
    unsafe { libc::syscall(libc::SYS_mprotect, begin, len, prot) };
    begin
}

#[unsafe(no_mangle)]
extern "C" fn mremap(at: *mut c_void, old: size_t, new: size_t, flags: c_int, to: *mut c_void) -> *mut c_void {
    if fails(MREMAP) {
        if PLAN.get().late {
            // SAFETY: the caller gives the new place up to what is moved there.
            unsafe { libc::syscall(libc::SYS_munmap, to, new) };
            set_errno(libc::ENOMEM);
        }
        return libc::MAP_FAILED;
    }
    // SAFETY: the caller's arguments, as they are.
    (unsafe { libc::syscall(libc::SYS_mremap, at, old, new, flags, to) }) as *mut c_void
}

#[unsafe(no_mangle)]
extern "C" fn madvise(at: *mut c_void, len: size_t, advice: c_int) -> c_int {
    if fails(MADVISE) {
        return -1;
    }
    // SAFETY: the caller's arguments, as they are.
    (unsafe { libc::syscall(libc::SYS_madvise, at, len, advice) }) as c_int
}

#[unsafe(no_mangle)]
extern "C" fn munmap(at: *mut c_void, len: size_t) -> c_int {
    if fails(MUNMAP) {
        return -1;
    }
    // SAFETY: the caller's arguments, as they are.
    (unsafe { libc::syscall(libc::SYS_munmap, at, len) }) as c_int
}

/// How often a call of each name failed in each kind of operation.
type Histogram = BTreeMap<(&'static str, &'static str), u32>;

/// Notes the calls that failed in an operation.
fn note(histogram: &mut Histogram, operation: &'static str) {
    for (call, failed) in CALLS.iter().zip(FAILED.replace([0; 4])).filter(|(_, failed)| *failed > 0) {
        *histogram.entry((call, operation)).or_default() += failed;
    }
}

/// Operations that make every kind of system call.
fn operations() -> Vec<(&'static str, Op)> {
    const MIB: usize = 1 << 20;
    let mut operations = Vec::new();
    let alloc = |size: usize| ("alloc", Op::Alloc(layout_of_code(size, 0)));
    for round in 0..2 {
        // Long blocks that cannot grow where they are.
        operations.extend([5 * MIB, 5 * MIB, 4 * MIB].map(alloc));
        operations.extend([9, 13].map(|size| ("realloc", Op::Realloc(round, size * MIB))));
        operations.push(("alloc zeroed", Op::AllocZeroed(layout_of_code(5 * MIB, 0))));
        operations.push(("alloc zeroed", Op::AllocZeroed(layout_of_code(MIB, 21))));
        for size in [24, 600, 2000, 5000, 60_000, 900_000] {
            operations.extend((0..1_000_000 / (size * 8)).map(|_| alloc(size)));
        }
        operations.push(("realloc", Op::Realloc(round + 1, 3 * MIB)));
        operations.extend((0..2_500).map(|step| ("free", Op::Free(step * 7))));
        operations.push(("park", Op::Park));
        operations.push(("collect", Op::Collect));
    }
    operations
}

/// Plays the operations while calls fail as `plan` says; how many calls there were of these kinds. The heap must be whole
/// all the time, and serve everything once the system has recovered.
fn play(operations: &[(&'static str, Op)], plan: Plan, histogram: &mut Histogram) -> usize {
    let engine = Engine::<_, Spin>::new(Mmap::new());
    let config = Config::new().idle_bytes(256 << 10).idle_share(usize::MAX);
    COUNT.set(0);
    let armed = |work: &mut dyn FnMut()| {
        PLAN.set(plan);
        work();
        PLAN.set(NOTHING);
    };
    let mut opened = false;
    armed(&mut || opened = engine.open(&config));
    note(histogram, "open");
    assert!(opened || engine.open(&config), "a later call opens the heap");
    with_player(&engine, &Pool::default(), 1, |player| {
        for (name, operation) in operations {
            armed(&mut || player.play(*operation));
            note(histogram, name);
        }
        assert_usable(player);
    });
    assert_empty(&engine);
    COUNT.get()
}

/// Asserts that the heap serves every kind of request.
fn assert_usable(player: &mut Player<'_, Mmap, Spin>) {
    player.audit();
    let served =
        [1, 100, 2048, 5000, 70_000, 3 << 20, 9 << 20].map(|size| player.oracle.alloc(layout_of_code(size, 0)));
    assert_eq!(served, [true; 7]);
    player.oracle.free_all();
    player.audit();
}

/// One test at a time has this.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Plays with every call of `kinds` failing, alone and from there on.
fn fail_each(name: &str, kinds: u8, least: usize, like: Plan) {
    // One test at a time: what a late failure unmaps, another thread would map.
    let _alone = alone();
    let (operations, mut histogram) = (operations(), Histogram::new());
    let calls = play(&operations, Plan { kinds, from: 0, to: 0, ..like }, &mut histogram);
    assert!(calls >= least, "only {calls} calls of {name}");
    for from in 0..calls {
        for to in [from + 1, usize::MAX] {
            play(&operations, Plan { kinds, from, to, ..like }, &mut histogram);
        }
    }
    let failed: u32 = histogram.values().sum();
    println!("{name}: {calls} calls; {failed} failed, all of them the heap's");
    for ((call, operation), count) in &histogram {
        println!("    {call:8} in {operation:12} {count:6}");
    }
    for (kind, call) in CALLS.iter().enumerate().filter(|(kind, _)| kinds >> kind & 1 == 1) {
        assert!(histogram.keys().any(|(failed, _)| failed == call), "{call} ({kind}) never failed");
    }
}

#[test]
fn g13_each_mmap_fails() {
    fail_each("mmap", 1 << MMAP, 8, NOTHING);
    fail_each("mmap, askew", 1 << MMAP, 12, Plan { askew: true, ..NOTHING });
}

/// (Once the system has refused to move pages it is not asked again: there is one failure in each heap.)
#[test]
fn g13_each_mremap_fails() {
    fail_each("mremap", 1 << MREMAP, 3, NOTHING);
    fail_each("mremap that fails late", 1 << MREMAP, 3, Plan { late: true, ..NOTHING });
}

/// Then the place that a late failure has unmapped cannot be mapped again.
#[test]
fn g13_each_mremap_and_the_calls_behind_it_fail() {
    fail_each("mremap that fails late, and mmap", 1 << MREMAP | 1 << MMAP, 12, Plan { late: true, ..NOTHING });
}

#[test]
fn g13_each_madvise_fails() {
    fail_each("madvise", 1 << MADVISE, 20, NOTHING);
}

#[test]
fn g13_each_munmap_fails() {
    fail_each("munmap, askew", 1 << MUNMAP, 15, Plan { askew: true, ..NOTHING });
}

#[test]
fn g13_each_call_of_any_kind_fails() {
    fail_each("any", 0b1111, 40, NOTHING);
}

/// What the oracle itself allocates makes no call that is counted.
#[test]
fn only_the_heaps_calls_are_counted() {
    // Nor is it mapped where another test's heap has just lost its place.
    let _alone = alone();
    COUNT.set(0);
    PLAN.set(Plan { kinds: 0b1111, ..NOTHING });
    drop(std::hint::black_box(vec![1u8; 64 << 20]));
    PLAN.set(NOTHING);
    assert_eq!(COUNT.get(), 0);
}
