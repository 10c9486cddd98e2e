#![expect(clippy::disallowed_methods, reason = "stacks of a test's own")]

use super::unwind::walk_by_tables;
use super::{Context, Frame, Stack, Symbols, stack_pointer, walk};
use core::hint::black_box;
use std::cell::RefCell;

/// Frames from the caller on.
#[inline(never)]
fn callers(frames: &mut [Frame]) -> usize {
    let context = Context::here();
    let len = walk(&context, &mut Stack::unknown(), frames);
    black_box(len)
}

/// The same by the unwinder of C.
#[inline(never)]
fn reference() -> Vec<usize> {
    let mut found = Vec::new();
    // SAFETY: each test has a thread of its own, and the callback does not trace.
    unsafe {
        backtrace::trace_unsynchronized(|frame| {
            found.push(frame.ip() as usize);
            true
        });
    }
    found.retain(|address| *address != 0);
    found
}

/// Walks, and asserts that the unwinder of C finds the same callers, and that they are where they are said to be.
#[inline(never)]
fn assert_same() -> usize {
    let mut frames = [Frame::NONE; 512];
    let len = callers(&mut frames);
    // The first has returned.
    assert_in_place(&frames[1..len]);
    let reference = reference();
    let mine: Vec<_> = frames[1..len].iter().map(|frame| frame.address).collect();
    let from = reference.iter().position(|address| *address == mine[0]);
    let from = from.unwrap_or_else(|| panic!("{mine:x?}\n{reference:x?}"));
    assert!(from < 8, "{mine:x?}\n{reference:x?}");
    assert_eq!(mine, reference[from..], "{mine:x?}\n{reference:x?}");
    len
}

fn assert_in_place(frames: &[Frame]) {
    for frame in frames {
        // SAFETY: a walk has read it, and its function has not returned.
        let word = unsafe { (frame.slot as *const usize).read_volatile() };
        assert_eq!(word, frame.address);
    }
}

fn name(address: usize) -> String {
    let mut text = String::new();
    Symbols::new().write(address, &mut text).expect("a string takes everything");
    text
}

#[inline(never)]
fn innermost(frames: &mut [Frame]) -> usize {
    black_box(callers(frames)) + black_box(0)
}

#[inline(never)]
fn middle(frames: &mut [Frame]) -> usize {
    black_box(innermost(frames)) + black_box(0)
}

#[inline(never)]
fn outermost(frames: &mut [Frame]) -> usize {
    black_box(middle(frames)) + black_box(0)
}

#[test]
fn a_chain_is_named_in_order() {
    let mut frames = [Frame::NONE; 64];
    let len = outermost(&mut frames);
    assert_in_place(&frames[4..len]);
    let names: Vec<_> = frames[..len].iter().map(|frame| name(frame.address)).collect();
    for (name, part) in names.iter().zip(["innermost", "middle", "outermost", "a_chain_is_named_in_order"]) {
        let path = format!("stratalloc::debug::frames::unwind_tests::{part}");
        assert!(name.starts_with(&path) && name.contains("+0x"), "{name}: {names:#?}");
        assert!(name.contains("unwind_tests.rs:"), "{name}: {names:#?}");
    }
}

#[test]
fn the_unwinder_of_c_finds_the_same() {
    assert!(assert_same() > 5);
    std::thread::spawn(assert_same).join().expect("the same");
    std::panic::catch_unwind(assert_same).expect("the same");
}

thread_local! {
    static DEPTHS: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

extern "C" fn compare(a: *const libc::c_void, b: *const libc::c_void) -> libc::c_int {
    DEPTHS.with_borrow_mut(|depths| depths.push(assert_same()));
    let [a, b] = [a, b].map(|element| {
        // SAFETY: `qsort` passes pointers to elements.
        unsafe { element.cast::<i32>().read() }
    });
    a.cmp(&b) as libc::c_int
}

#[test]
fn from_a_callback_of_c() {
    let here = assert_same();
    let mut numbers = [3, 1, 2, 5, 4];
    // SAFETY: five elements of four bytes, and a comparison of such.
    unsafe { libc::qsort(numbers.as_mut_ptr().cast(), 5, 4, Some(compare)) };
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    DEPTHS.with_borrow(|depths| {
        assert!(depths.len() > 3);
        // The comparison, and `qsort` and what it calls.
        assert!(depths.iter().all(|depth| *depth > here + 1));
    });
}

extern "C" fn on_signal(_: libc::c_int) {
    DEPTHS.with_borrow_mut(|depths| depths.push(assert_same()));
}

fn handle(flags: libc::c_int, signal: libc::c_int) {
    // SAFETY: all bytes zero is a valid action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
    action.sa_flags = flags;
    // SAFETY: the action is as the system wants it.
    assert_eq!(unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) }, 0);
}

#[test]
fn through_a_signal_handler() {
    let here = assert_same();
    let room = Box::leak(vec![0_u8; 1 << 20].into_boxed_slice());
    let other = libc::stack_t { ss_sp: room.as_mut_ptr().cast(), ss_flags: 0, ss_size: room.len() };
    // SAFETY: the room is there for good.
    assert_eq!(unsafe { libc::sigaltstack(&raw const other, std::ptr::null_mut()) }, 0);
    for (flags, signal) in [(0, libc::SIGUSR1), (libc::SA_ONSTACK | libc::SA_SIGINFO, libc::SIGUSR2)] {
        handle(flags, signal);
        // SAFETY: the signal is handled.
        assert_eq!(unsafe { libc::raise(signal) }, 0);
    }
    DEPTHS.with_borrow(|depths| assert!(depths.len() == 2 && depths.iter().all(|depth| *depth > here + 2)));
}

/// Recursion in frames of different sizes and registers, by a generator's numbers.
#[inline(never)]
fn recurse<const WORDS: usize>(depth: usize, random: &mut u64) -> u64 {
    let mut room = [0_u64; WORDS];
    for word in &mut room {
        *word = next(random);
    }
    let room = black_box(&mut room);
    let sum: u64 = room.iter().fold(0, |sum, word| sum.wrapping_add(*word));
    if depth == 0 {
        assert_same();
        return sum;
    }
    let below = match next(random) % 5 {
        0 => recurse::<1>(depth - 1, random),
        1 => recurse::<7>(depth - 1, random),
        2 => recurse::<100>(depth - 1, random),
        3 => recurse::<900>(depth - 1, random),
        _ => aligned(depth - 1, random),
    };
    black_box(below.wrapping_add(sum).wrapping_add(room[0]))
}

#[repr(align(128))]
struct Aligned([u64; 32]);

/// A frame that aligns itself.
#[inline(never)]
fn aligned(depth: usize, random: &mut u64) -> u64 {
    let mut room = black_box(Aligned([next(random); 32]));
    let below = recurse::<3>(depth.saturating_sub(1), random);
    black_box(&mut room).0[5].wrapping_add(below)
}

fn next(random: &mut u64) -> u64 {
    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*random >> 33) ^ *random << 31
}

#[test]
fn recursion_of_all_shapes() {
    for seed in 0..60 {
        let mut random = seed;
        black_box(recurse::<2>(seed as usize % 40, &mut random));
    }
}

#[inline(never)]
fn descend(depth: usize, frames: &mut [Frame]) -> usize {
    let len = if depth == 0 { callers(frames) } else { descend(depth - 1, frames) };
    black_box(len)
}

#[test]
fn as_many_as_there_is_room_for() {
    for room in [0, 1, 2, 16, 63] {
        let mut frames = vec![Frame::NONE; room + 1];
        assert_eq!(descend(100, &mut frames[..room]), room);
        assert!(frames[..room].iter().all(|frame| frame.address != 0 && frame.slot != 0));
        assert!(frames[..room].is_sorted_by_key(|frame| frame.slot));
        assert_eq!(frames[room], Frame::NONE);
    }
}

/// All registers are kept where one is needed that is not kept else.
#[test]
fn with_all_registers() {
    let (context, mut stack) = (Context::here(), Stack::unknown());
    let (mut frames, mut again) = ([Frame::NONE; 64], [Frame::NONE; 64]);
    let len = walk(&context, &mut stack, &mut frames);
    assert_eq!(walk_by_tables(&context, &mut stack, &mut again), len);
    assert_eq!(frames, again);
    assert_eq!(walk_by_tables(&context, &mut stack, &mut again[..2]), 2);
}

#[test]
fn a_stack_that_is_known_is_read_as_it_is() {
    let (context, mut stack, mut frames) = (Context::here(), Stack::unknown(), [[Frame::NONE; 32]; 2]);
    assert!(!stack.holds(stack_pointer()));
    let len = frames.each_mut().map(|frames| walk(&context, &mut stack, frames));
    assert_eq!(frames[0], frames[1]);
    assert!(stack.holds(stack_pointer()) && context.ip() != 0);
    for frame in &frames[0][..len[0]] {
        assert_eq!(stack.above(stack_pointer()).word(frame.slot - stack_pointer()), frame.address);
    }
    assert_eq!(stack.above(stack_pointer()).word(usize::MAX & !7), 0);
    assert_eq!(stack.above(0).word(frames[0][0].slot), 0);
}

const PAGE: usize = 4096;
const PAGES: usize = 4;

/// Pages of a test's own, behind which nothing can be read.
fn with_pages(test: impl FnOnce(&mut [usize])) {
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a fresh mapping.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), (PAGES + 1) * PAGE, access, flags, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    // SAFETY: the last page of it.
    assert_eq!(unsafe { libc::mprotect(at.wrapping_byte_add(PAGES * PAGE), PAGE, libc::PROT_NONE) }, 0);
    // SAFETY: the mapping but for its last page.
    test(unsafe { std::slice::from_raw_parts_mut(at.cast(), PAGES * PAGE / 8) });
    // SAFETY: mapped above, and used no more.
    unsafe { libc::munmap(at, (PAGES + 1) * PAGE) };
}

/// An address in the code of the program or the C library.
fn code(random: &mut u64) -> usize {
    let from = [recursion_of_all_shapes as fn() as usize, libc::qsort as *const () as usize][next(random) as usize % 2];
    from + next(random) as usize % (64 << 10)
}

fn number(random: &mut u64, around: usize) -> usize {
    match next(random) % 6 {
        0 => next(random) as usize,
        1 => next(random) as usize % (1 << 47),
        2 => around.wrapping_add(next(random) as usize % (PAGES * PAGE + 64)) & !7,
        3 => usize::MAX - next(random) as usize % 64,
        _ => code(random),
    }
}

#[test]
fn whatever_is_on_a_stack() {
    with_pages(|words| {
        let (start, mut random) = (words.as_ptr() as usize, 1);
        let end = start + PAGES * PAGE;
        let mut most = 0;
        for round in 0..if cfg!(debug_assertions) { 10_000_usize } else { 200_000 } {
            for word in &mut *words {
                if round % 64 == 0 {
                    *word = number(&mut random, start);
                }
            }
            let rsp = match round % 8 {
                0 => end - 8 * (1 + round / 8 % 9),
                1 => number(&mut random, start),
                2 => end,
                3 => 0,
                _ => start + next(&mut random) as usize % (PAGES * PAGE / 8) * 8,
            };
            let mut frames = [Frame::NONE; 40];
            let context = Context::made_up(code(&mut random), rsp, number(&mut random, start));
            let len = walk(&context, &mut Stack::unknown(), &mut frames);
            assert!(frames[len..].iter().all(|frame| *frame == Frame::NONE));
            walk_by_tables(&context, &mut Stack::unknown(), &mut frames);
            most = most.max(len);
        }
        assert!(most > 3, "some of it looks like a stack: {most}");
    });
}

#[test]
fn a_function_without_tables_is_the_last() {
    let mut frames = [Frame::NONE; 8];
    let nowhere = Context::made_up(0x1234, &raw const frames as usize, 0);
    assert_eq!(walk(&nowhere, &mut Stack::unknown(), &mut frames), 0);
}

#[test]
fn errno_is_kept() {
    // SAFETY: no preconditions.
    let number = unsafe { libc::__errno_location() };
    // SAFETY: this thread's.
    unsafe { number.write(77) };
    let mut frames = [Frame::NONE; 8];
    walk(&Context::made_up(code(&mut 5), 8, 8), &mut Stack::unknown(), &mut frames);
    black_box(name(walk as *const () as usize));
    black_box(name(3));
    // SAFETY: this thread's.
    assert_eq!(unsafe { number.read() }, 77);
}
