//! Row S9: what is no heap, a heap of another kind, or a damaged one.

use super::damaged::Sound;
use super::place::Place;
use super::random::{Random, seed};
use super::{SMALL, open};
use std::env;
use std::fs;
use std::os::unix::fs::FileExt;
use std::time::Duration;
use stratalloc::{SharedError, SharedHeap};

/// Runs `work` in a forked child, which must end in an orderly way; `what` tells what it was about.
pub(crate) fn in_orderly_child(what: &dyn std::fmt::Debug, work: impl FnOnce()) {
    // SAFETY: the child calls the heap, and reports by ending.
    let process = unsafe { libc::fork() };
    assert!(process >= 0);
    if process == 0 {
        // SAFETY: no preconditions. What hangs is ended.
        unsafe { libc::alarm(120) };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        // SAFETY: no preconditions.
        unsafe { libc::_exit(i32::from(result.is_err())) };
    }
    let mut status = 0;
    // SAFETY: the child is ours.
    assert_eq!(unsafe { libc::waitpid(process, &raw mut status, 0) }, process);
    assert_eq!(status, 0, "{what:?}");
}

#[test]
fn s9_what_is_no_heap_is_refused_and_stays_as_it_is() {
    let place = Place::new("s9");
    fs::write(&place.0, b"something else").expect("a file");
    assert_eq!(SharedHeap::open(&place.0, SMALL, |_| {}).err(), Some(SharedError::NotAHeap));
    assert_eq!(fs::read(&place.0).expect("the file"), b"something else");
}

#[test]
fn s9_a_changed_header_is_refused_and_says_why() {
    let place = Place::new("s9-header");
    drop(open(&place.0));
    let file = fs::OpenOptions::new().read(true).write(true).open(&place.0).expect("the file");
    let mut first = [0; 64];
    file.read_exact_at(&mut first, 0).expect("a header");
    for at in 0..first.len() {
        for bit in 0..8 {
            let mut bytes = first;
            bytes[at] ^= 1 << bit;
            file.write_all_at(&bytes, 0).expect("written");
            let error = SharedHeap::open(&place.0, SMALL.wait(Duration::ZERO), |_| {}).expect_err("it is changed");
            assert!(error.to_string().starts_with("shared heap: "), "{error}");
        }
    }
    file.write_all_at(&first, 0).expect("written");
    for bytes in [4096, (64 << 20) - 4096, (64 << 20) + 4096] {
        file.set_len(bytes).expect("cut");
        let error = SharedHeap::open(&place.0, SMALL, |_| {}).expect_err("it has another length");
        assert!(error.to_string().contains("was made with 67108864"), "{error}");
        file.set_len(64 << 20).expect("as it was");
    }
    for path in ["/dev/null", "/tmp", "/nowhere/at/all", "/proc/self/mem"] {
        let error = SharedHeap::open(path, SMALL, |_| {}).expect_err("no regular file");
        assert!(!error.to_string().is_empty(), "{error}");
    }
    let place = Place::new("s9-link");
    std::os::unix::fs::symlink("/tmp/elsewhere", &place.0).expect("a link");
    SharedHeap::open(&place.0, SMALL, |_| {}).expect_err("a link is not followed");
}

#[test]
fn s9_random_bytes_in_any_record_are_an_error_or_do_no_harm() {
    let place = Place::new("s9-random");
    let sound = Sound::make(&place.0, SMALL);
    let rounds = env::var("SHARED_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(600);
    let mut random = Random::new(seed());
    for _ in 0..rounds {
        let mut changes = Vec::new();
        for _ in 0..=random.word() % 3 {
            let (at, old) = sound.word(random.word() % sound.words());
            let new = match random.word() % 5 {
                0 => random.word(),
                1 => old ^ 1 << (random.word() % 64),
                2 => old.wrapping_add(8 * (random.word() % 64)),
                3 => u64::MAX >> (random.word() % 64),
                _ => 0,
            };
            sound.set(at, new);
            changes.push((at, old, new));
        }
        in_orderly_child(&changes, || sound.use_it(SMALL));
        sound.restore();
    }
    // The file itself is still a heap.
    open(&place.0).check().expect("a sound heap");
}

/// Words that are off by a little are believed more easily than random ones: counts, places to cut from, links from record to record.
#[test]
fn s9_a_word_that_is_off_by_a_little_is_an_error_or_does_no_harm() {
    let place = Place::new("s9-little");
    let sound = Sound::make(&place.0, SMALL);
    // Every how manieth word; a campaign takes each.
    let stride = env::var("SHARED_STRIDE").ok().and_then(|text| text.parse().ok()).unwrap_or(sound.words() / 100 + 1);
    let changes: [fn(u64) -> u64; 6] = [
        |old| old.wrapping_sub(64),
        |old| old.wrapping_add(64),
        |old| old ^ 512,
        |old| old ^ 4096,
        |old| old.wrapping_sub(1),
        |old| old.wrapping_add(1 << 32),
    ];
    for index in (seed() % stride..sound.words()).step_by(stride as usize) {
        let (at, old) = sound.word(index);
        for change in changes {
            sound.set(at, change(old));
            in_orderly_child(&(at, old, change(old)), || sound.use_it(SMALL));
            sound.restore();
        }
    }
    open(&place.0).check().expect("a sound heap");
}
