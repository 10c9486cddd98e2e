//! Row H6 beside forks: of a cache that is in use, of who drops a registration, and with handlers of the program's own that free memory.

use super::own_process::in_own_process;
use super::rules::{UNDONE, slow};
use super::told::in_child;
use super::{Block, PAGE, init};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use stratalloc::Stratalloc;
use stratalloc::hooks::{self, Limits, RegistrationCache};

/// A cache beside forks.
fn forks_with_a_cache(name: &str) {
    if !init(name) {
        return;
    }
    let cache = RegistrationCache::dropping_at_once(Limits { entries: 8, bytes: 1 << 30 }).expect("a component");
    let busy = AtomicBool::new(true);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while busy.load(SeqCst) {
                    let block = Block::new(64);
                    // SAFETY: ours, and so large.
                    unsafe { block.at.write_bytes(0x77, 64 * PAGE) };
                    cache.get(block.at, 64 * PAGE, slow).map(drop).expect("registered");
                    drop(block);
                    Stratalloc::collect();
                }
            });
        }
        let own = Block::new(64);
        // SAFETY: ours, and so large.
        unsafe { own.at.write_bytes(0x77, 64 * PAGE) };
        for _ in 0..60 {
            cache.get(own.at, 64 * PAGE, slow).map(drop).expect("registered");
            in_child(|| {
                // The cache is told of what the child's heap lets go, and serves it.
                drop(Block::new(3000));
                Stratalloc::collect();
                let made = cache.stats().misses;
                cache.get(own.at, 64 * PAGE, slow).map(drop).expect("registered");
                assert_eq!(cache.stats().misses, made + 1, "the parent's registration is not the child's");
                assert!(!hooks::changed());
            });
        }
        busy.store(false, SeqCst);
    });
}

#[test]
fn h6_a_fork_leaves_a_cache_to_both() {
    in_own_process(|| forks_with_a_cache("allocator")).well();
}

#[test]
fn h6_a_fork_leaves_a_cache_to_both_by_userfaultfd() {
    let ended = in_own_process(|| forks_with_a_cache("userfaultfd"));
    ended.hand_on("SKIPPED");
    ended.well();
}

/// A registration whose drop forks, in the process of that number.
struct Forking(u32);

static CHILD: AtomicUsize = AtomicUsize::new(usize::MAX);

impl Drop for Forking {
    fn drop(&mut self) {
        if self.0 == std::process::id() && CHILD.load(SeqCst) == usize::MAX {
            // SAFETY: the child ends by itself.
            CHILD.store(unsafe { libc::fork() } as usize, SeqCst);
        }
        UNDONE.fetch_add(1, SeqCst);
    }
}

#[test]
fn h6_a_fork_from_inside_of_a_drop_ends_it_in_both() {
    in_own_process(|| {
        assert!(init("allocator"));
        UNDONE.store(0, SeqCst);
        let cache = RegistrationCache::dropping_at_once(Limits { entries: 1, bytes: 1 << 30 }).expect("a component");
        let block = Block::new(8);
        let id = std::process::id();
        let mut get = |page: usize| {
            let make = |_, _| Ok::<_, ()>(Forking(id));
            cache.get(block.at.wrapping_add(page * PAGE), PAGE, make).map(drop).expect("registered");
        };
        // The second makes the first go, which forks; then both processes have it made again and again.
        (0..8).for_each(&mut get);
        (0..8).for_each(&mut get);
        assert_eq!(cache.stats().entries, 1);
        drop(cache);
        assert_eq!(UNDONE.load(SeqCst), 16, "each once");
        if CHILD.load(SeqCst) == 0 {
            // SAFETY: no preconditions.
            unsafe { libc::_exit(7) };
        }
        let mut status = 0;
        // SAFETY: the child is ours.
        unsafe { libc::waitpid(CHILD.load(SeqCst) as i32, &raw mut status, 0) };
        assert_eq!(libc::WEXITSTATUS(status), 7, "the child ends well: {status:x}");
    })
    .well();
}

std::thread_local! {
    /// What handlers of forks free, one after the other.
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

extern "C" fn free_one() {
    SPARE.with(|spare| drop(spare.borrow_mut().pop()));
}

/// Handlers that are older than those of the hooks run while these hold their locks.
fn frees_around_forks(name: &str) {
    // SAFETY: functions that stay.
    assert_eq!(unsafe { libc::pthread_atfork(Some(free_one), Some(free_one), Some(free_one)) }, 0);
    if !init(name) {
        return;
    }
    // SAFETY: no preconditions. What hangs is ended.
    unsafe { libc::alarm(60) };
    let cache = RegistrationCache::new(Limits { entries: 8, bytes: 1 << 30 }).expect("a component");
    let count = |bytes: &[u8]| {
        let before = cache.stats().misses;
        cache.get(bytes.as_ptr(), bytes.len(), |_, _| Ok::<_, ()>(1)).map(drop).expect("registered");
        cache.stats().misses - before
    };
    // So long that they go back to the system at once.
    let spare: Vec<Vec<u8>> = (0..3).map(|_| vec![1_u8; 40 << 20]).collect();
    spare.iter().for_each(|bytes| assert_eq!(count(bytes), 1));
    SPARE.set(spare);
    let released = cache.stats().released;
    in_child(|| {
        // One was freed in front of the fork, one here behind it; the third is there.
        assert_eq!(cache.stats().released - released, 2);
        SPARE.with(|spare| assert_eq!(spare.borrow().len(), 1));
    });
    assert_eq!(cache.stats().released - released, 2);
    SPARE.with(|spare| assert_eq!(count(&spare.borrow()[0]), 0, "the third is registered as before"));
    if name == "userfaultfd" {
        // What the child has freed is watched here as before.
        let at = SPARE.with(|spare| spare.borrow()[0].as_ptr().cast_mut());
        let page = at.wrapping_add(at.align_offset(PAGE));
        hooks::register(page, PAGE, 1).expect("registered");
        // SAFETY: no preconditions; the page is a live block's, whose bytes nobody reads again.
        assert_eq!(unsafe { libc::madvise(page.cast(), PAGE, libc::MADV_DONTNEED) }, 0);
        assert!(hooks::changed());
        hooks::process().expect("processed");
        hooks::deregister(page, PAGE, 1).expect("registered before");
    }
    SPARE.with(|spare| spare.borrow_mut().clear());
    drop(cache);
    assert_eq!(hooks::registered(), 0);
}

#[test]
fn h6_memory_is_freed_by_older_handlers_of_forks() {
    in_own_process(|| frees_around_forks("allocator")).well();
}

#[test]
fn h6_memory_is_freed_by_older_handlers_of_forks_by_userfaultfd() {
    let ended = in_own_process(|| frees_around_forks("userfaultfd"));
    ended.hand_on("SKIPPED");
    ended.well();
}
