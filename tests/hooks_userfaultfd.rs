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
        for number in files_of_hooks() {
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

/// The numbers of the files of the hooks.
fn files_of_hooks() -> Vec<i32> {
    let is_ours = |file: &std::fs::DirEntry| {
        let name = std::fs::read_link(file.path()).unwrap_or_default();
        ["userfaultfd", "eventfd"].iter().any(|kind| name.to_string_lossy().contains(kind))
    };
    let number = |file: std::fs::DirEntry| file.file_name().to_string_lossy().parse().expect("a number");
    std::fs::read_dir("/proc/self/fd").expect("files").flatten().filter(is_ours).map(number).collect()
}

/// Another file gets all numbers of the hooks' files; what was registered is told, and the hooks are closed.
fn give_numbers_to(file: i32) -> Vec<i32> {
    let at = map(8);
    hooks::register(at, 4 * PAGE, 1).expect("registered");
    let ours = files_of_hooks();
    assert_eq!(ours.len(), 2);
    for number in &ours {
        // SAFETY: what this breaks is the hooks' own.
        assert_eq!(unsafe { libc::dup2(file, *number) }, *number);
    }
    TOLD.clear();
    unmap(at.wrapping_add(2 * PAGE), 1);
    while !TOLD.covers(at as usize, 4 * PAGE) {
        hooks::process().expect("processed");
        std::thread::yield_now();
    }
    hooks::deregister(at, 4 * PAGE, 1).expect("registered before");
    hooks::close().expect("nothing is registered");
    ours
}

/// The numbers that such a program closes may be other files' by the time that the hooks learn of it.
#[test]
fn h5_a_file_that_has_the_number_by_now_is_left_alone() {
    let ended = in_own_process(|| {
        if !use_userfaultfd() {
            return;
        }
        let _callback = note_all();
        // A pipe in which there is something to read.
        let mut ends = [0; 2];
        // SAFETY: there is room for two.
        assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
        let text = [b'x'; 4096];
        // SAFETY: so many bytes are there.
        assert_eq!(unsafe { libc::write(ends[1], text.as_ptr().cast(), text.len()) }, 4096);
        for number in give_numbers_to(ends[0]) {
            let mut there = 0;
            // SAFETY: the place is an int.
            assert_eq!(unsafe { libc::ioctl(number, libc::FIONREAD, &raw mut there) }, 0, "it is open");
            assert_eq!(there, 4096, "nobody has read of it");
        }
        // A device that can be read for ever, and refuses what it does not know in a userfaultfd's words.
        assert!(use_userfaultfd());
        // SAFETY: the name ends with a zero.
        let device = unsafe { libc::open(c"/dev/urandom".as_ptr(), libc::O_RDONLY) };
        assert!(device >= 0);
        for number in give_numbers_to(device) {
            // SAFETY: no preconditions.
            assert!(unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0, "it is open");
        }
        // Another one serves; and where nothing was heard since its files were closed nobody waits for a thread that cannot be told.
        assert!(use_userfaultfd());
        let at = map(8);
        hooks::register(at, PAGE, 2).expect("there is another one");
        unmap(at, 1);
        TOLD.clear();
        hooks::process().expect("processed");
        assert!(TOLD.covers(at as usize, PAGE));
        hooks::deregister(at, PAGE, 2).expect("registered before");
        for number in files_of_hooks() {
            // SAFETY: as above.
            assert_eq!(unsafe { libc::close(number) }, 0);
        }
        hooks::close().expect("nothing is registered");
    });
    ended.hand_on("SKIPPED");
    ended.well();
}

/// What was heard of addresses before they were registered is told, but is no reason for a report; and registering calls no callback, so it may
/// be done under a lock that callbacks take.
#[test]
fn h5_registering_calls_no_callback() {
    let ended = in_own_process(|| {
        if !use_userfaultfd() {
            return;
        }
        static TABLE: Mutex<Vec<usize>> = Mutex::new(Vec::new());
        let _callback = hooks::on_release(|release| {
            if !release.from_allocator {
                TABLE.lock().expect("not poisoned").push(release.base);
            }
        });
        let at = map(4);
        hooks::register(at, 4 * PAGE, 1).expect("registered");
        // SAFETY: the test's own.
        assert_eq!(unsafe { libc::madvise(at.cast(), PAGE, libc::MADV_DONTNEED) }, 0);
        hooks::deregister(at, 4 * PAGE, 1).expect("registered before");
        let table = TABLE.lock().expect("not poisoned");
        assert!(hooks::changed());
        hooks::register(at, 4 * PAGE, 2).expect("registered");
        drop(table);
        assert_eq!(hooks::process(), Ok(1));
        assert_eq!(*TABLE.lock().expect("not poisoned"), [at as usize]);
        assert!(!hooks::changed());
        hooks::deregister(at, 4 * PAGE, 2).expect("registered before");
        // In a child, too, until it asks.
        hooks::register(at, 4 * PAGE, 3).expect("registered");
        in_child(|| {
            let table = TABLE.lock().expect("not poisoned");
            hooks::register(at, PAGE, 4).expect("registered");
            assert_eq!(hooks::registered(), 1);
            hooks::deregister(at, 4 * PAGE, 3).expect_err("it is the parent's");
            drop(table);
            assert_eq!(hooks::process(), Ok(1), "of the parent's");
            unmap(at, 1);
            assert_eq!(hooks::process(), Ok(1), "of its own");
            hooks::deregister(at, PAGE, 4).expect("registered before");
            assert_eq!(hooks::registered(), 0);
        });
    });
    ended.hand_on("SKIPPED");
    ended.well();
}
