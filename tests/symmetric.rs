//! Rows Y1 and Y6 to Y9: processing elements. Each is this program again, started for one test by the launcher.

#![expect(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "a PE says what it finds, and asks the system itself"
)]

#[path = "symmetric/deaths.rs"]
mod deaths;
#[path = "common/example.rs"]
mod example;

use std::env;
use std::process::{Command, Stdio};
use std::time::Duration;
use stratalloc::symmetric::{self, Outcome, Settings, SymBox, SymSlice, SymmetricError, launch, parse_size};

/// Whether this process is a PE of a test.
fn is_pe() -> bool {
    env::var_os("STRATALLOC_PE").is_some()
}

/// Runs the test `name` as so many PEs, with these variables beside those of this process.
fn run_with(name: &str, pes: usize, variables: &[(&str, &str)]) -> Outcome {
    let command = |_| {
        let mut command = Command::new(env::current_exe().expect("this program"));
        command.args(["--exact", name, "--nocapture"]).envs(variables.iter().copied());
        // What its harness counts is no test of its own; what is wrong is said on the standard error.
        command.stdout(Stdio::null());
        command
    };
    launch(pes, command).expect("a job")
}

/// The same, which must end well.
#[track_caller]
fn run(name: &str, pes: usize, variables: &[(&str, &str)]) {
    assert_eq!(run_with(name, pes, variables), Outcome { status: 0, why: None });
}

const COMPONENTS: [&str; 3] = ["strata", "buddy", "ptmalloc"];

/// Runs `body` as a PE, initialised, where this process is one; else the test `name` as PEs, with each component.
fn as_pes(name: &str, pes: &[usize], body: impl FnOnce(usize, usize)) {
    if is_pe() {
        symmetric::init().expect("a PE");
        body(symmetric::my_pe(), symmetric::n_pes());
        symmetric::finalize().expect("the end");
        return;
    }
    for component in COMPONENTS {
        for pes in pes {
            run(name, *pes, &[("STRATALLOC_MEMHEAP", component), ("SHMEM_SYMMETRIC_SIZE", "32m")]);
        }
    }
}

fn next(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state as usize
}

#[test]
fn y1_the_same_calls_give_the_same_addresses_on_every_pe() {
    as_pes("y1_the_same_calls_give_the_same_addresses_on_every_pe", &[1, 2, 4], |me, pes| {
        assert!(me < pes);
        // What each PE does for itself makes no difference.
        let _private: Vec<Vec<u8>> = (0..100 * me).map(|bytes| vec![1; bytes]).collect();
        let (mut state, mut blocks) = (99, Vec::new());
        let addresses = SymSlice::<u64>::new(2000).expect("room");
        for call in 0..2000 {
            let bytes = 1 + next(&mut state) % (1 << (1 + next(&mut state) % 14));
            let at = symmetric::malloc(bytes).expect("room");
            assert!(is_aligned(at));
            addresses.write(call, &[at as u64]).expect("an element");
            blocks.push(at);
            if call % 3 == 2 {
                let victim = blocks.swap_remove(next(&mut state) % blocks.len());
                // SAFETY: live, and all PEs free it.
                unsafe { symmetric::free(victim) }.expect("freed");
            }
        }
        symmetric::barrier_all();
        let mine = addresses.to_vec();
        for pe in 0..pes {
            let mut theirs = vec![0; mine.len()];
            addresses.get(pe, 0, &mut theirs).expect("elements");
            assert_eq!(mine, theirs, "PE {pe}");
        }
    });
}

/// As every block is, and not null.
fn is_aligned(at: *mut u8) -> bool {
    !at.is_null() && (at as usize).is_multiple_of(16)
}

#[test]
fn y6_calls_keep_the_rules_of_the_standard() {
    as_pes("y6_calls_keep_the_rules_of_the_standard", &[1, 2], |me, pes| {
        // Of nothing: null, and no barrier, so a PE may do it alone.
        if me == 0 {
            assert!(symmetric::malloc(0).expect("nothing").is_null());
            assert!(symmetric::calloc(0, 8).expect("nothing").is_null());
            assert!(symmetric::calloc(8, 0).expect("nothing").is_null());
            assert!(symmetric::align(64, 0).expect("nothing").is_null());
            assert!(symmetric::malloc_with_hints(0, 3).expect("nothing").is_null());
            // SAFETY: null.
            unsafe { symmetric::free(std::ptr::null_mut()) }.expect("nothing");
        }
        // Alignments.
        for alignment in [0, 1, 3, 4, 24, usize::MAX] {
            let error = symmetric::align(alignment, 8).expect_err("no alignment");
            assert_eq!(error, SymmetricError::Alignment { alignment });
        }
        for shift in 3..=20 {
            let at = symmetric::align(1 << shift, 40).expect("room");
            assert!(!at.is_null() && (at as usize).is_multiple_of(1 << shift));
            // SAFETY: live.
            unsafe { symmetric::free(at) }.expect("freed");
        }
        // Zeros, in what others had before.
        let old = symmetric::malloc(5000).expect("room");
        // SAFETY: ours, and so large.
        unsafe { old.write_bytes(0xee, 5000) };
        // SAFETY: live.
        unsafe { symmetric::free(old) }.expect("freed");
        let zeroed = symmetric::calloc(500, 10).expect("room");
        // SAFETY: ours, and so large.
        assert!(unsafe { std::slice::from_raw_parts(zeroed, 5000) }.iter().all(|byte| *byte == 0));
        assert!(matches!(symmetric::calloc(usize::MAX, 2), Err(SymmetricError::NoRoom { .. })));
        // A new size.
        for byte in 0..5000 {
            // SAFETY: ours, and so large.
            unsafe { zeroed.wrapping_add(byte).write(byte as u8 ^ me as u8) };
        }
        // SAFETY: live.
        let grown = unsafe { symmetric::realloc(zeroed, 100_000) }.expect("room");
        // SAFETY: ours, and so large.
        let bytes = unsafe { std::slice::from_raw_parts(grown, 5000) };
        assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == at as u8 ^ me as u8));
        // What fails leaves it as it was, on all PEs.
        // SAFETY: live.
        let error = unsafe { symmetric::realloc(grown, 1 << 30) }.expect_err("more than there is");
        assert_eq!(error, SymmetricError::NoRoom { bytes: 1 << 30, heap: 32 << 20 });
        assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == at as u8 ^ me as u8));
        // SAFETY: live.
        let shrunk = unsafe { symmetric::realloc(grown, 10) }.expect("room");
        // SAFETY: live; with no bytes it is freed.
        assert!(unsafe { symmetric::realloc(shrunk, 0) }.expect("freed").is_null());
        // SAFETY: null is a new block.
        let new = unsafe { symmetric::realloc(std::ptr::null_mut(), 77) }.expect("room");
        assert!(is_aligned(new));
        // Hints, which a new size keeps.
        let hinted = symmetric::malloc_with_hints(8, symmetric::HINT_ATOMICS | symmetric::HINT_SIGNAL).expect("room");
        assert!((hinted as usize).is_multiple_of(64));
        // SAFETY: live.
        let hinted = unsafe { symmetric::realloc(hinted, 3000) }.expect("room");
        assert!((hinted as usize).is_multiple_of(64));
        assert_eq!(symmetric::malloc_with_hints(8, 4), Err(SymmetricError::Hints { hints: 4 }));
        // What is no block is not freed; a hunter ends the process.
        if cfg!(not(feature = "malloc-debug")) {
            // SAFETY: nothing is done to it.
            let error = unsafe { symmetric::free(0x1000 as *mut u8) }.expect_err("no block");
            assert_eq!(error, SymmetricError::NoBlock { address: 0x1000 });
        }
        for block in [new, hinted] {
            // SAFETY: live.
            unsafe { symmetric::free(block) }.expect("freed");
        }
        symmetric::collect().expect("together");
        assert!(pes > 0);
    });
}

#[test]
fn y6_allocation_waits_for_all_at_its_end_and_free_at_its_begin() {
    as_pes("y6_allocation_waits_for_all_at_its_end_and_free_at_its_begin", &[2, 4], |me, pes| {
        let turns = SymSlice::<u64>::new(1).expect("room");
        for turn in 1..=20 {
            // The last one to come has told all others before: so who is through has been told by all.
            for pe in 0..pes {
                turns.fetch_add(pe, 0, 1).expect("an element");
            }
            if turn as usize % pes == me {
                std::thread::sleep(Duration::from_millis(2));
            }
            let block = symmetric::malloc(100).expect("room");
            assert_eq!(turns.fetch(me, 0), Ok((2 * turn - 1) * pes as u64));
            symmetric::barrier_all();
            for pe in 0..pes {
                turns.fetch_add(pe, 0, 1).expect("an element");
            }
            // SAFETY: live.
            unsafe { symmetric::free(block) }.expect("freed");
            assert_eq!(turns.fetch(me, 0), Ok(2 * turn * pes as u64));
            symmetric::barrier_all();
        }
    });
}

#[test]
fn y6_pes_that_differ_are_told_who_called_what() {
    let name = "y6_pes_that_differ_are_told_who_called_what";
    if !is_pe() {
        return run(name, 3, &[("SHMEM_DEBUG", "1")]);
    }
    symmetric::init().expect("a PE");
    let me = symmetric::my_pe();
    let bytes = if me == 1 { 48 } else { 40 };
    let error = symmetric::malloc(bytes).expect_err("they differ").to_string();
    let (pe, theirs, ours) = if me == 1 { (0, 40, 48) } else { (1, 48, 40) };
    assert_eq!(
        error,
        format!(
            "symmetric heap: PE {pe} called malloc({theirs}) where this one called malloc({ours}); all must make the same calls"
        )
    );
    // Nothing has been done: all go on.
    let at = symmetric::malloc(40).expect("room");
    let error = if me == 2 { symmetric::calloc(5, 8) } else { symmetric::malloc(40) }.expect_err("they differ");
    let text = error.to_string();
    assert!(text.contains(if me == 2 { "PE 0 called malloc(40)" } else { "PE 2 called calloc(5, 8)" }), "{text}");
    // SAFETY: nothing is done: they differ.
    let error = unsafe { symmetric::free(at.wrapping_add(me * 16)) }.expect_err("they differ").to_string();
    assert!(error.contains("called free(0x"), "{error}");
    let error = if me == 0 { symmetric::try_barrier_all() } else { symmetric::collect() }.expect_err("they differ");
    assert!(matches!(error, SymmetricError::Differs { .. }));
    // SAFETY: live.
    unsafe { symmetric::free(at) }.expect("freed");
    symmetric::finalize().expect("the end");
}

#[test]
fn y7_sizes_have_suffixes_and_fractions() {
    for (text, bytes) in [
        ("1048576", 1 << 20),
        ("20m", 20_971_520),
        ("3.1m", 3_250_586),
        ("512K", 512 << 10),
        ("512M", 512 << 20),
        ("1.5g", 3 << 29),
        (".25G", 1 << 28),
        ("2t", 2 << 40),
        ("16T", 16 << 40),
        // The smallest heap.
        ("1", 256 << 10),
        ("1k", 256 << 10),
        ("0.001", 256 << 10),
        ("1048576.5", 1_048_577),
    ] {
        assert_eq!(parse_size(text), Ok(bytes), "{text}");
    }
    for text in
        ["", "m", "20kk", "20mb", "-1m", "+1m", "1e9", "0x100000", "1,5g", "1 g", "0", "0.0", "17t", "1..5g", ".g", "."]
    {
        let error = parse_size(text).expect_err(text).to_string();
        assert!(error.starts_with(&format!("symmetric heap: SHMEM_SYMMETRIC_SIZE is `{text}`; it may be a number")));
    }
}

#[test]
fn y7_the_environment_says_how_large_the_heap_is() {
    let name = "y7_the_environment_says_how_large_the_heap_is";
    if is_pe() {
        let expected = env::var("EXPECTED").expect("what to expect");
        match symmetric::init() {
            Ok(()) => {
                assert_eq!(symmetric::heap().bytes.to_string(), expected);
                symmetric::finalize().expect("the end");
            }
            Err(error) => assert!(error.to_string().contains(&expected), "{error}"),
        }
        return;
    }
    run(name, 2, &[("EXPECTED", "268435456")]);
    run(name, 2, &[("SHMEM_SYMMETRIC_SIZE", "20.001m"), ("EXPECTED", "20975616")]);
    run(name, 2, &[("SMA_SYMMETRIC_SIZE", "1m"), ("EXPECTED", "1048576")]);
    run(name, 2, &[("SHMEM_SYMMETRIC_SIZE", "2m"), ("SMA_SYMMETRIC_SIZE", "1m"), ("EXPECTED", "2097152")]);
    run(name, 2, &[("SHMEM_SYMMETRIC_SIZE", "20kk"), ("EXPECTED", "SHMEM_SYMMETRIC_SIZE is `20kk`; it may be")]);
    run(name, 2, &[("STRATALLOC_MEMHEAP", "budy"), ("EXPECTED", "there is no component `budy`")]);
}

#[test]
fn y7_pes_that_are_started_unlike_say_so() {
    let name = "y7_pes_that_are_started_unlike_say_so";
    if is_pe() {
        let error = symmetric::init().expect_err("unlike").to_string();
        let me = env::var("STRATALLOC_PE").expect("a number");
        let expected = env::var(format!("EXPECTED_{me}")).expect("what to expect");
        assert!(error.contains(&expected), "PE {me}: {error}");
        return;
    }
    let start = |variable: &str, values: [&str; 3], expected: [&str; 3]| {
        let command = |pe: usize| {
            let mut command = Command::new(env::current_exe().expect("this program"));
            command.args(["--exact", name, "--nocapture"]).env(variable, values[pe]).stdout(Stdio::null());
            command.env(format!("EXPECTED_{pe}"), expected[pe]);
            command
        };
        assert_eq!(launch(3, command).expect("a job"), Outcome { status: 0, why: None });
    };
    start(
        "SHMEM_SYMMETRIC_SIZE",
        ["1m", "1m", "2m"],
        [
            "PE 2 has a heap of 2097152 bytes, and this one of 1048576",
            "PE 2 has a heap",
            "PE 0 has a heap of 1048576 bytes",
        ],
    );
    start(
        "SHMEM_SYMMETRIC_SIZE",
        ["1m", "x", "1m"],
        ["PE 1 could not initialise", "SHMEM_SYMMETRIC_SIZE is `x`", "PE 1 could not initialise"],
    );
    start(
        "STRATALLOC_MEMHEAP",
        ["buddy", "buddy", "strata"],
        ["PE 2 has the component `strata`, and this one `buddy`", "PE 2 has", "PE 0 has the component `buddy`"],
    );
    start(
        "STRATALLOC_MEMHEAP",
        ["buddy", "none", "buddy"],
        ["PE 1 could not", "no component `none`", "PE 1 could not"],
    );
}

#[test]
fn y8_what_is_put_is_there_and_what_is_got_was() {
    as_pes("y8_what_is_put_is_there_and_what_is_got_was", &[1, 2, 4], |me, pes| {
        let right = (me + 1) % pes;
        for bytes in [1usize, 7, 8, 64, 1000, 4096, 100_000, 3 << 20] {
            let slice = SymSlice::<u8>::new(bytes).expect("room");
            let told: Vec<u8> = (0..bytes).map(|at| (at * 31 + me) as u8).collect();
            slice.put(right, 0, &told).expect("a neighbour");
            symmetric::barrier_all();
            let left = (me + pes - 1) % pes;
            let expected: Vec<u8> = (0..bytes).map(|at| (at * 31 + left) as u8).collect();
            assert_eq!(slice.to_vec(), expected);
            let mut got = vec![0; bytes];
            slice.get(right, 0, &mut got).expect("a neighbour");
            assert_eq!(got, told);
        }
    });
}

#[test]
fn y8_memory_of_others_has_an_address_here() {
    as_pes("y8_memory_of_others_has_an_address_here", &[1, 3], |me, pes| {
        let word = SymBox::new(me as u64).expect("room");
        let at = word.slice().as_ptr();
        for pe in 0..pes {
            let there = symmetric::ptr(at, pe).expect("within reach");
            assert_eq!(there.as_ptr() == at, pe == me);
            // SAFETY: nobody writes.
            assert_eq!(unsafe { there.read_volatile() }, pe as u64);
            assert!(symmetric::addr_accessible(at, pe));
        }
        let heap = symmetric::heap();
        let (own, last) = (1u64, (heap.at + heap.bytes - 1) as *const u8);
        assert!(symmetric::addr_accessible(last, 0) && !symmetric::addr_accessible(last.wrapping_add(1), 0));
        assert!(!symmetric::addr_accessible(&raw const own, 0) && symmetric::ptr(&raw const own, 0).is_none());
        assert!(!symmetric::addr_accessible(at, pes) && symmetric::ptr(at, pes).is_none());
        // Nothing is touched that is not in the heap.
        let error = SymmetricError::Pe { pe: pes, pes };
        assert_eq!(word.get(pes), Err(error.clone()));
        assert_eq!(word.put(pes, 1), Err(error.clone()));
        assert_eq!(word.slice().fetch_add(pes, 0, 1), Err(error.clone()));
        assert_eq!(word.slice().broadcast(pes), Err(error));
        assert!(matches!(word.slice().get_one(0, 1), Err(SymmetricError::NotSymmetric { .. })));
        let outside = (&raw const own).cast_mut();
        // SAFETY: it is refused.
        assert!(matches!(unsafe { symmetric::put(outside, &[2], 0) }, Err(SymmetricError::NotSymmetric { .. })));
        // SAFETY: as above.
        let error =
            unsafe { symmetric::fetch_add(at.cast::<u32>().wrapping_byte_add(1), 1, 0) }.expect_err("misaligned");
        assert!(error.to_string().contains("it must lie at a multiple of its size"));
        symmetric::barrier_all();
        assert_eq!((own, word.get(me)), (1, Ok(me as u64)));
    });
}

#[test]
fn y8_atomics_are_one_step_each() {
    as_pes("y8_atomics_are_one_step_each", &[1, 4], |me, pes| {
        const EACH: u64 = 2000;
        let words = SymSlice::<u64>::new(4).expect("room");
        let small = SymBox::new(0i32).expect("room");
        for _ in 0..EACH {
            words.fetch_add(0, 0, 1).expect("a word");
            small.slice().fetch_add(0, 0, -1).expect("a word");
            // A lock, by which a sum is made in two steps.
            while words.compare_swap(0, 1, 0, me as u64 + 1).expect("a word") != 0 {
                std::thread::yield_now();
            }
            let sum = words.get_one(0, 2).expect("a word");
            words.put(0, 2, &[sum + 3]).expect("a word");
            symmetric::quiet();
            assert_eq!(words.swap(0, 1, 0), Ok(me as u64 + 1));
        }
        symmetric::barrier_all();
        assert_eq!(words.fetch(0, 0), Ok(EACH * pes as u64));
        assert_eq!(words.get_one(0, 2), Ok(3 * EACH * pes as u64));
        assert_eq!(small.get(0), Ok(-(EACH as i32) * pes as i32));
        // Bits.
        symmetric::barrier_all();
        let at = words.as_ptr().wrapping_add(3);
        // SAFETY: a live word.
        unsafe { symmetric::fetch_or(at, 1 << me, 0) }.expect("a word");
        symmetric::barrier_all();
        assert_eq!(words.fetch(0, 3), Ok((1 << pes) - 1));
        symmetric::barrier_all();
        // SAFETY: as above.
        unsafe { symmetric::fetch_xor(at, 1 << me, 0) }.expect("a word");
        symmetric::barrier_all();
        assert_eq!(words.fetch(0, 3), Ok(0));
    });
}

#[test]
fn y8_a_word_is_waited_for() {
    as_pes("y8_a_word_is_waited_for", &[2, 4], |me, pes| {
        // A token that goes round, with what it was passed along with.
        let (token, data) = (SymBox::new(0u64).expect("room"), SymSlice::<u64>::new(1000).expect("room"));
        let right = (me + 1) % pes;
        for round in 1..=50u64 {
            if me != 0 {
                token.slice().wait_until(0, |value| value == round).expect("a word");
                assert!(data.to_vec().iter().all(|value| *value == round));
            }
            data.put(right, 0, &vec![round; 1000]).expect("elements");
            symmetric::fence();
            token.slice().swap(right, 0, round).expect("a word");
            if me == 0 {
                token.slice().wait_until(0, |value| value == round).expect("a word");
            }
        }
    });
}

#[test]
fn y8_broadcast_and_sum_reach_all() {
    as_pes("y8_broadcast_and_sum_reach_all", &[1, 2, 4], |me, pes| {
        let slice = SymSlice::<f64>::new(10_000).expect("room");
        for root in 0..pes {
            let values: Vec<f64> = (0..10_000).map(|at| (at + 1000 * me) as f64).collect();
            slice.write(0, &values).expect("elements");
            slice.broadcast(root).expect("together");
            assert!(slice.to_vec().iter().enumerate().all(|(at, value)| *value == (at + 1000 * root) as f64));
            symmetric::barrier_all();
        }
        let (sums, source) = (SymSlice::<f64>::new(10_000).expect("room"), slice);
        let values: Vec<f64> = (0..10_000).map(|at| at as f64 / (me + 3) as f64).collect();
        source.write(0, &values).expect("elements");
        sums.sum_to_all(&source).expect("together");
        // As rounding has it, in the order of PEs.
        let expected = |at: usize| (0..pes).fold(0.0, |sum, pe| sum + at as f64 / (pe + 3) as f64);
        assert!(sums.to_vec().iter().enumerate().all(|(at, sum)| *sum == expected(at)));
        // Into the same elements, too.
        source.sum_to_all(&source).expect("together");
        assert_eq!(source.to_vec(), sums.to_vec());
        // Of nothing, and of what has no bytes.
        let (none, empty) = (SymSlice::<u64>::new(0).expect("nothing"), SymSlice::<()>::new(7).expect("nothing"));
        none.broadcast(0).expect("together");
        assert!(
            none.is_empty() && none.to_vec().is_empty() && none.put(0, 0, &[]).is_ok() && empty.to_vec().len() == 7
        );
        // SAFETY: nobody writes.
        assert!(unsafe { none.as_slice() }.is_empty());
        // SAFETY: as above.
        assert_eq!(unsafe { empty.as_slice() }.len(), 7);
        let short = SymSlice::<f64>::new(3).expect("room");
        assert_eq!(short.sum_to_all(&source), Err(SymmetricError::Lengths { left: 3, right: 10_000 }));
    });
}

#[test]
fn y8_the_library_begins_and_ends_again() {
    let name = "y8_the_library_begins_and_ends_again";
    if !is_pe() {
        // Alone, without a launcher: a job of one, as often as it likes.
        for bytes in [1 << 20, 2 << 20] {
            symmetric::init_with(&Settings::new().bytes(bytes), &[]).expect("alone");
            assert_eq!((symmetric::my_pe(), symmetric::n_pes(), symmetric::heap().bytes), (0, 1, bytes));
            assert_eq!(symmetric::init(), Err(SymmetricError::Twice));
            let kept = SymSlice::<u64>::new(10).expect("room");
            symmetric::finalize().expect("the end");
            assert!(!symmetric::is_initialized());
            // What is left over is nothing any more, and is dropped as such.
            assert!(kept.to_vec().is_empty() && kept.write(0, &[1]).is_err());
        }
        return run(name, 2, &[]);
    }
    symmetric::init().expect("a PE");
    symmetric::finalize().expect("the end");
    let error = symmetric::init().expect_err("a PE begins once").to_string();
    assert!(error.contains("has begun already, or has ended"), "{error}");
}

/// What an example says, run as so many PEs with these arguments.
fn said_by(name: &str, pes: usize, component: &str, arguments: &[&str]) -> String {
    let (program, file) = (example::path_of_this_build(name), env::temp_dir());
    let file = file.join(format!("stratalloc-{name}-{}", std::process::id()));
    let command = |_| {
        let output = std::fs::OpenOptions::new().create(true).append(true).open(&file).expect("a file");
        let mut command = Command::new(&program);
        command.args(arguments).env("STRATALLOC_MEMHEAP", component).stdout(output);
        command
    };
    let outcome = launch(pes, command).expect("a job");
    let said = std::fs::read_to_string(&file).expect("what it said");
    std::fs::remove_file(&file).expect("removed");
    assert_eq!(outcome, Outcome { status: 0, why: None }, "{said}");
    said
}

#[test]
fn y1_the_examples_say_the_same_on_however_many_pes() {
    for (name, begin) in [("symmetric_table", "400000 words, "), ("symmetric_heat", "384 x 256 cells, mean ")] {
        let alone = said_by(name, 1, "strata", &[]);
        let sum = |said: &str| said.split("; PEs").next().unwrap_or_default().to_string();
        assert!(alone.starts_with(begin) && alone.ends_with("; PEs: 1\n"), "{alone}");
        for (pes, component) in [(2, "strata"), (4, "buddy"), (4, "ptmalloc"), (3, "strata")] {
            assert_eq!(sum(&said_by(name, pes, component, &[])), sum(&alone), "{name} on {pes} PEs, {component}");
        }
    }
    let picture = env::temp_dir().join(format!("stratalloc-heat-{}.bmp", std::process::id()));
    said_by("symmetric_heat", 2, "strata", &[picture.to_str().expect("a path")]);
    let bytes = std::fs::read(&picture).expect("a picture");
    std::fs::remove_file(&picture).expect("removed");
    // White where it is hottest, at the begin of the upper edge; black where no heat comes.
    assert!(bytes.starts_with(b"BM") && bytes.len() == 54 + 384 * 256 * 3);
    let pixel = |row: usize, column: usize| &bytes[54 + (row * 384 + column) * 3..][..3];
    assert!(pixel(255, 100)[2] == 255 && pixel(255, 100)[1] > 200 && pixel(128, 380)[2] < 30);
}

#[test]
fn y2_a_component_of_another_crate_serves() {
    let said = said_by("symmetric_component", 2, "", &[]);
    // Guards have their room, where there are any.
    let (first, second) = if cfg!(feature = "malloc-debug") { (0x30, 0x1fb0) } else { (0, 0x1f40) };
    assert_eq!(said, format!("component stack: blocks at {first:#x} and {second:#x}; PEs: 2\n"));
}

/// What a PE says that ends by what the hunter found, `what` the test's PE 1 does.
#[cfg(feature = "malloc-debug")]
fn hunted(what: &str) -> String {
    let file = env::temp_dir().join(format!("stratalloc-hunted-{what}-{}", std::process::id()));
    let command = |_| {
        let output = std::fs::OpenOptions::new().create(true).append(true).open(&file).expect("a file");
        let mut command = Command::new(env::current_exe().expect("this program"));
        command
            .args(["--exact", "s13_blocks_of_symmetric_heaps_have_guards", "--nocapture"])
            .env("WHAT", what)
            .stdout(Stdio::null())
            .stderr(output);
        command
    };
    let outcome = launch(2, command).expect("a job");
    let said = std::fs::read_to_string(&file).expect("what it said");
    std::fs::remove_file(&file).expect("removed");
    assert_eq!(outcome.status, 128 + 6, "{what}: {:?} {said}", outcome.why);
    said
}

#[cfg(feature = "malloc-debug")]
#[test]
fn s13_blocks_of_symmetric_heaps_have_guards() {
    if !is_pe() {
        for (what, line) in [
            ("behind", "overflow"),
            ("before", "underflow"),
            ("twice", "double free"),
            ("inside", "not to the begin of a block"),
            ("afar", "overflow"),
        ] {
            let said = hunted(what).to_lowercase();
            assert!(said.contains(line), "{what}: {said}");
        }
        return;
    }
    symmetric::init().expect("a PE");
    let (me, what) = (symmetric::my_pe(), env::var("WHAT").expect("what to do"));
    let block = symmetric::malloc(40).expect("room");
    symmetric::barrier_all();
    if me == 1 {
        match what.as_str() {
            // SAFETY: it is found, and that is the test.
            "behind" => unsafe { block.wrapping_add(40).write(7) },
            // SAFETY: as above.
            "before" => unsafe { block.wrapping_sub(1).write(7) },
            // What another PE's block suffers is found there.
            // SAFETY: as above.
            "afar" => unsafe { symmetric::put(block, &[7u8; 41], 0) }.expect("within the heap"),
            _ => {}
        }
    }
    let freed = if what == "inside" { block.wrapping_add(8) } else { block };
    // SAFETY: as above.
    unsafe { symmetric::free(freed) }.expect("freed");
    // SAFETY: as above.
    unsafe { symmetric::free(block) }.expect("freed");
    symmetric::barrier_all();
    std::process::exit(0);
}
