//! What tests of memory hooks have in common: what was told, and memory that goes.

#![allow(dead_code, reason = "each user takes what it needs")]

#[path = "skipped.rs"]
pub(crate) mod skipped;

use skipped::skipped;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use stratalloc::Stratalloc;
use stratalloc::hooks::{self, Callback, Choice, Release, Settings};

pub(crate) const PAGE: usize = 4096;

pub(crate) fn use_component(name: &str) {
    hooks::init(&Settings::new().choice(Choice::new().only(name))).unwrap_or_else(|error| panic!("{error}"));
}

/// Uses userfaultfd, if there is one; false, and a loud line, if there is none.
pub(crate) fn use_userfaultfd() -> bool {
    match hooks::init(&Settings::new().choice(Choice::new().only("userfaultfd"))) {
        Ok(_) => true,
        Err(error) => {
            skipped(&format!("no userfaultfd here: {error}"));
            false
        }
    }
}

/// What was told, without allocating: a fixed number of ranges.
pub(crate) struct Told {
    ranges: [(AtomicUsize, AtomicUsize); 4096],
    count: AtomicUsize,
}

impl Told {
    pub(crate) const fn new() -> Self {
        Self { ranges: [const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; 4096], count: AtomicUsize::new(0) }
    }

    pub(crate) fn note(&self, release: &Release) {
        let at = self.count.fetch_add(1, SeqCst);
        let place = self.ranges.get(at).expect("room for what is told");
        place.0.store(release.base, SeqCst);
        place.1.store(release.bytes, SeqCst);
    }

    pub(crate) fn all(&self) -> Vec<(usize, usize)> {
        let count = self.count.load(SeqCst).min(self.ranges.len());
        self.ranges[..count].iter().map(|(at, bytes)| (at.load(SeqCst), bytes.load(SeqCst))).collect()
    }

    pub(crate) fn clear(&self) {
        self.count.store(0, SeqCst);
    }

    /// Whether every page of the range was told.
    pub(crate) fn covers(&self, at: usize, bytes: usize) -> bool {
        let ranges = self.all();
        (at..at + bytes)
            .step_by(PAGE)
            .all(|page| ranges.iter().any(|(base, bytes)| *base <= page && page + PAGE <= base + bytes))
    }
}

pub(crate) static TOLD: Told = Told::new();

pub(crate) fn note_all() -> Callback {
    hooks::on_release(|release| TOLD.note(release)).expect("a component")
}

/// Fresh memory of the process's, of so many pages, every one of which is touched.
pub(crate) fn map(pages: usize) -> *mut u8 {
    map_with(pages, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)
}

pub(crate) fn map_with(pages: usize, flags: i32) -> *mut u8 {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: it replaces nothing.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), pages * PAGE, access, flags, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    // SAFETY: just mapped.
    unsafe { at.cast::<u8>().write_bytes(1, pages * PAGE) };
    at.cast()
}

pub(crate) fn unmap(at: *mut u8, pages: usize) {
    // SAFETY: the test's own.
    assert_eq!(unsafe { libc::munmap(at.cast(), pages * PAGE) }, 0);
}

/// Lets a heap give pages back.
pub(crate) fn give_back() {
    drop(vec![1_u8; 30 << 20]);
    Stratalloc::collect();
}

/// In a forked child: ends it with 0 if `work` did.
pub(crate) fn in_child(work: impl FnOnce()) {
    // SAFETY: the child ends by itself.
    let process = unsafe { libc::fork() };
    if process == 0 {
        // SAFETY: no preconditions.
        unsafe { libc::alarm(120) };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        // SAFETY: no preconditions.
        unsafe { libc::_exit(i32::from(result.is_err())) };
    }
    let mut status = 0;
    // SAFETY: the child is ours.
    unsafe { libc::waitpid(process, &raw mut status, 0) };
    assert_eq!(status, 0, "the child ends well");
}

/// A component beside forks.
pub(crate) fn forks(name: &str) {
    if name == "userfaultfd" && !use_userfaultfd() {
        return;
    }
    if name != "userfaultfd" {
        use_component(name);
    }
    let _callback = note_all();
    let at = map(8);
    hooks::register(at, 3 * PAGE, 1).expect("registered");
    hooks::register(at.wrapping_add(PAGE), PAGE, 2).expect("registered");
    let (begun, busy) = (Instant::now(), AtomicBool::new(true));
    // Others are at it meanwhile.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while busy.load(SeqCst) {
                    let block = vec![1_u8; 3 << 20];
                    hooks::register(block.as_ptr(), block.len(), 5).expect("registered");
                    hooks::deregister(block.as_ptr(), block.len(), 5).expect("registered before");
                    drop(block);
                    Stratalloc::collect();
                    TOLD.clear();
                }
            });
        }
        while begun.elapsed() < Duration::from_millis(300) {
            in_child(|| {
                assert!(hooks::changed(), "what the parent registered is not the child's");
                TOLD.clear();
                assert!(hooks::process().expect("processed") >= 2);
                assert!(TOLD.covers(at as usize, 3 * PAGE));
                assert!(!hooks::changed() && hooks::registered() == 0);
                hooks::deregister(at, 3 * PAGE, 1).expect_err("it is not registered here");
                hooks::register(at, 3 * PAGE, 1).expect("it may be");
                if name == "userfaultfd" {
                    unmap(at, 3);
                    assert!(hooks::changed());
                    TOLD.clear();
                    hooks::process().expect("processed");
                    assert!(TOLD.covers(at as usize, 3 * PAGE));
                }
            });
        }
        busy.store(false, SeqCst);
    });
    assert!(!hooks::changed() && hooks::registered() == 2, "the parent goes on as before");
    hooks::deregister(at, 3 * PAGE, 1).expect("registered before");
    hooks::deregister(at.wrapping_add(PAGE), PAGE, 2).expect("registered before");
}
