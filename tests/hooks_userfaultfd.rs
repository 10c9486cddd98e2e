//! Row H5: component `userfaultfd`. Each test in a process of its own.

#![expect(clippy::disallowed_methods, reason = "a test takes memory away")]

#[path = "common/own_process.rs"]
mod own_process;
#[path = "common/told.rs"]
mod told;

use own_process::in_own_process;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use stratalloc::Stratalloc;
use stratalloc::hooks;
use told::skipped::skipped;
use told::{PAGE, TOLD, forks, in_child, map, map_with, note_all, unmap, use_component, use_userfaultfd};

#[global_allocator]
static A: Stratalloc = Stratalloc::new();

/// What takes memory away, beside what it is called.
type Way = (&'static str, fn(*mut u8, usize));

const WAYS: [Way; 7] = [
    ("munmap", |at, pages| unmap(at, pages)),
    ("mmap over it", |at, pages| {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: the test's own.
        let new = unsafe { libc::mmap(at.cast(), pages * PAGE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        assert_eq!(new, at.cast());
    }),
    ("mremap away", |at, pages| {
        // SAFETY: the test's own.
        let new = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                pages * PAGE,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: the test's own.
        let moved = unsafe { libc::mremap(at.cast(), pages * PAGE, pages * PAGE, flags, new) };
        assert_eq!(moved, new);
    }),
    ("mremap onto it", |at, pages| {
        let other = map(pages);
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: the test's own.
        let moved = unsafe { libc::mremap(other.cast(), pages * PAGE, pages * PAGE, flags, at) };
        assert_eq!(moved, at.cast());
    }),
    ("a shrinking mremap", |at, pages| {
        // SAFETY: the test's own. All but the first page goes.
        let result = unsafe { libc::mremap(at.cast(), pages * PAGE, PAGE, 0) };
        assert_eq!(result, at.cast());
    }),
    ("MADV_DONTNEED", |at, pages| {
        // SAFETY: the test's own.
        assert_eq!(unsafe { libc::madvise(at.cast(), pages * PAGE, libc::MADV_DONTNEED) }, 0);
    }),
    ("MADV_FREE", |at, pages| {
        // SAFETY: the test's own.
        assert_eq!(unsafe { libc::madvise(at.cast(), pages * PAGE, libc::MADV_FREE) }, 0);
    }),
];

fn userfaultfd_hears_of_all() {
    if !use_userfaultfd() {
        return;
    }
    let _callback = note_all();
    for (name, way) in WAYS {
        for _ in 0..20 {
            let at = map(8);
            hooks::register(at, 8 * PAGE, 1).expect("registered");
            assert!(!hooks::changed(), "{name}");
            TOLD.clear();
            way(at, 8);
            // It has returned: nobody could have had the addresses before this is true.
            assert!(hooks::changed(), "{name}");
            let told = hooks::process().expect("processed");
            assert!(told > 0 && !hooks::changed(), "{name}");
            let skipped = if name == "a shrinking mremap" { 1 } else { 0 };
            assert!(TOLD.covers(at as usize + skipped * PAGE, (8 - skipped) * PAGE), "{name}: {:x?}", TOLD.all());
            hooks::deregister(at, 8 * PAGE, 1).expect("registered before");
        }
    }
    // A shared memory file, whose pages are removed.
    let at = map_with(8, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    hooks::register(at, 8 * PAGE, 1).expect("registered");
    TOLD.clear();
    // SAFETY: the test's own.
    assert_eq!(unsafe { libc::madvise(at.cast(), 8 * PAGE, libc::MADV_REMOVE) }, 0);
    assert!(hooks::changed());
    hooks::process().expect("processed");
    assert!(TOLD.covers(at as usize, 8 * PAGE));
    hooks::deregister(at, 8 * PAGE, 1).expect("registered before");
    unmap(at, 8);
    // What is not registered is none of its affairs, nor is what is not any more.
    let at = map(8);
    hooks::register(at, 2 * PAGE, 1).expect("registered");
    unmap(at.wrapping_add(4 * PAGE), 4);
    hooks::deregister(at, 2 * PAGE, 1).expect("registered before");
    unmap(at, 4);
    assert!(!hooks::changed());
    // What is not mapped, or only in part, cannot be watched, which is said.
    let holed = map(4);
    unmap(holed.wrapping_add(PAGE), 1);
    for from in [0, 1] {
        let error = hooks::register(holed.wrapping_add(from * PAGE), 3 * PAGE, 1).expect_err("there is a hole");
        assert!(error.to_string().contains("not all of it is mapped"), "{error}");
    }
    let error = hooks::register(at, PAGE, 1).expect_err("nothing is mapped there");
    assert!(error.to_string().contains("cannot be watched: "), "{error}");
    assert_eq!(hooks::registered(), 0);
}

#[test]
fn h5_userfaultfd_hears_of_what_anybody_does() {
    let ended = in_own_process(userfaultfd_hears_of_all);
    ended.hand_on("SKIPPED");
    ended.well();
}

#[test]
fn h5_a_plain_user_has_it_or_is_told_why_not() {
    let ended = in_own_process(|| {
        // SAFETY: no preconditions.
        if unsafe { libc::geteuid() } == 0 {
            // SAFETY: no preconditions, here and below; this process gives up what it may do.
            let _ = unsafe { libc::setgroups(0, std::ptr::null()) };
            // SAFETY: as above.
            let _ = unsafe { libc::setgid(65534) };
            // SAFETY: as above.
            if unsafe { libc::setuid(65534) } != 0 {
                skipped("there is no other user here that this process can be");
                return;
            }
        }
        userfaultfd_hears_of_all();
        // Whether or not it serves, somebody does.
        if hooks::chosen().is_none() {
            hooks::register(map(1), PAGE, 1).expect("registered");
            let chosen = hooks::chosen().expect("chosen");
            assert_eq!(chosen.component.name(), "allocator");
            assert!(!chosen.declined[0].1.0.is_empty());
        }
    });
    ended.hand_on("SKIPPED");
    ended.well();
}

#[test]
fn h5_what_is_heard_is_kept_until_it_is_asked_for() {
    let ended = in_own_process(|| {
        if !use_userfaultfd() {
            return;
        }
        static BYTES: AtomicUsize = AtomicUsize::new(0);
        let _callback = hooks::on_release(|release| {
            if !release.from_allocator {
                BYTES.fetch_add(release.bytes, SeqCst);
            }
        });
        // More than are read at once, and than there is room for at the begin; nobody waits for who asks.
        let at = map(2000);
        hooks::register(at, 2000 * PAGE, 1).expect("registered");
        for page in 0..2000 {
            // SAFETY: the test's own.
            assert_eq!(unsafe { libc::madvise(at.wrapping_add(page * PAGE).cast(), PAGE, libc::MADV_DONTNEED) }, 0);
        }
        assert_eq!(hooks::process(), Ok(2000));
        assert_eq!(BYTES.load(SeqCst), 2000 * PAGE);
        hooks::deregister(at, 2000 * PAGE, 1).expect("registered before");
        // Another component may serve then, and this one again.
        for _ in 0..3 {
            hooks::close().expect("nothing is registered");
            use_component("allocator");
            hooks::close().expect("nothing is registered");
            assert!(use_userfaultfd());
            hooks::register(at, PAGE, 1).expect("registered");
            // SAFETY: the test's own.
            assert_eq!(unsafe { libc::madvise(at.cast(), PAGE, libc::MADV_DONTNEED) }, 0);
            assert_eq!(hooks::process(), Ok(1));
            hooks::deregister(at, PAGE, 1).expect("registered before");
        }
        unmap(at, 2000);
    });
    ended.hand_on("SKIPPED");
    ended.well();
}

static OUTSIDE: Mutex<()> = Mutex::new(());

/// A lock of the program's that is held over forks.
mod outside {
    use super::OUTSIDE;
    use std::cell::Cell;

    std::thread_local! {
        static HELD: Cell<Option<std::sync::MutexGuard<'static, ()>>> = const { Cell::new(None) };
    }

    extern "C" fn hold() {
        HELD.set(Some(OUTSIDE.lock().expect("not poisoned")));
    }

    extern "C" fn let_go() {
        HELD.set(None);
    }

    pub(crate) fn hold_over_forks() {
        // SAFETY: functions that stay.
        assert_eq!(unsafe { libc::pthread_atfork(Some(hold), Some(let_go), Some(let_go)) }, 0);
    }
}

#[test]
fn h5_memory_goes_under_a_lock_that_is_held_over_forks() {
    let ended = in_own_process(|| {
        // Before hooks have handlers of their own, so this one runs after theirs.
        outside::hold_over_forks();
        if !use_userfaultfd() {
            return;
        }
        // SAFETY: no preconditions. What hangs is ended.
        unsafe { libc::alarm(60) };
        let busy = AtomicBool::new(true);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while busy.load(SeqCst) {
                    let at = map(2);
                    hooks::register(at, 2 * PAGE, 1).expect("registered");
                    let outside = OUTSIDE.lock().expect("not poisoned");
                    unmap(at, 2);
                    drop(outside);
                    hooks::deregister(at, 2 * PAGE, 1).expect("registered before");
                }
            });
            (0..100).for_each(|_| in_child(|| ()));
            busy.store(false, SeqCst);
        });
    });
    ended.hand_on("SKIPPED");
    ended.well();
}

#[test]
fn h5_a_fork_inside_of_process_settles_nothing_in_the_child() {
    let ended = in_own_process(|| {
        if !use_userfaultfd() {
            return;
        }
        let at = map(8);
        hooks::register(at, 4 * PAGE, 1).expect("registered");
        static FORKED: AtomicUsize = AtomicUsize::new(0);
        static CHILD: AtomicBool = AtomicBool::new(false);
        let _callback = hooks::on_release(|_| {
            if FORKED.fetch_add(1, SeqCst) == 0 {
                // SAFETY: the child goes on below.
                CHILD.store(unsafe { libc::fork() } == 0, SeqCst);
            }
        })
        .expect("a component");
        unmap(at, 1);
        hooks::process().expect("processed");
        if CHILD.load(SeqCst) {
            let fine = hooks::changed() && hooks::process().is_ok_and(|told| told > 0) && hooks::registered() == 0;
            // SAFETY: no preconditions.
            unsafe { libc::_exit(if fine && !hooks::changed() { 0 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: the child is ours.
        unsafe { libc::wait(&raw mut status) };
        assert_eq!(status, 0, "the child ends well");
        assert_eq!(hooks::registered(), 1);
    });
    ended.hand_on("SKIPPED");
    ended.well();
}

/// A program that makes itself a daemon closes all files that it knows nothing of.
#[test]
fn h5_when_its_file_is_closed_all_that_was_registered_is_told() {
    let ended = in_own_process(|| {
        if !use_userfaultfd() {
            return;
        }
        let _callback = note_all();
        let at = map(8);
        hooks::register(at, 4 * PAGE, 1).expect("registered");
        let files = std::fs::read_dir("/proc/self/fd").expect("files").flatten();
        let ours = files.filter(|file| {
            std::fs::read_link(file.path()).is_ok_and(|name| name.to_string_lossy().contains("userfaultfd"))
        });
        for file in ours {
            let number = file.file_name().to_string_lossy().parse().expect("a number");
            // SAFETY: what this breaks is the hooks' own.
            assert_eq!(unsafe { libc::close(number) }, 0);
        }
        // Whoever waits to be heard goes on.
        unmap(at.wrapping_add(2 * PAGE), 1);
        while !TOLD.covers(at as usize, 4 * PAGE) {
            hooks::process().expect("processed");
            std::thread::yield_now();
        }
        hooks::register(at, PAGE, 2).expect_err("nothing can be watched");
        hooks::deregister(at, 4 * PAGE, 1).expect("registered before");
        hooks::close().expect("nothing is registered");
        assert!(use_userfaultfd());
        hooks::register(at, PAGE, 2).expect("there is another one");
    });
    ended.hand_on("SKIPPED");
    ended.well();
}

#[test]
fn h5_a_fork_leaves_userfaultfd_to_the_parent() {
    let ended = in_own_process(|| forks("userfaultfd"));
    ended.hand_on("SKIPPED");
    ended.well();
}
