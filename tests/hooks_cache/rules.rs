//! Row H6: what a cache keeps, for whom, and when it drops it.

use super::own_process::in_own_process;
use super::told;
use super::{Block, PAGE, init};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use stratalloc::Stratalloc;
use stratalloc::hooks::{self, GetError, Limits, RegistrationCache};

#[test]
fn h6_a_part_of_what_is_registered_is_registered() {
    in_own_process(|| {
        assert!(init("allocator"));
        let cache = RegistrationCache::<usize>::new(Limits { entries: 2, bytes: 100 }).expect("a component");
        let bytes = [0_u8; 1000];
        let at = |at: usize| bytes[at..].as_ptr();
        let mut made = 0;
        let mut get = |from: usize, count: usize| {
            let pinned = cache.get(at(from), count, |_, bytes| {
                made += 1;
                Ok::<_, ()>(bytes)
            });
            *pinned.expect("registered")
        };
        assert_eq!(get(100, 50), 50);
        assert_eq!((get(100, 50), get(110, 20), get(149, 1)), (50, 50, 50));
        assert_eq!(get(149, 2), 2, "it ends behind the first");
        assert_eq!(get(0, 60), 60, "more than there is room for");
        assert_eq!(made, 3);
        let stats = cache.stats();
        assert_eq!((stats.hits, stats.misses, stats.evicted), (3, 3, 1));
        assert_eq!((stats.entries, stats.bytes), (2, 62), "the one that was not used for longest has gone");
        let error = cache.get(at(0), 900, |_, _| Err::<usize, _>("no")).expect_err("refused");
        assert_eq!(error, GetError::Register("no"));
        assert_eq!(error.to_string(), "hooks: the range could not be registered: no");
        cache.get(at(0), 0, |_, _| Ok::<_, ()>(1)).map(drop).expect_err("no range");
        assert_eq!(
            (cache.stats().entries, hooks::registered()),
            (0, 0),
            "nothing is left of it, nor of what made room"
        );
        // One that is in use stays, however little room there is.
        let first = cache.get(at(200), 500, |_, bytes| Ok::<_, ()>(bytes)).expect("registered");
        let second = cache.get(at(300), 100, |_, _| Ok::<_, ()>(0)).expect("registered");
        assert_eq!((*first, *second), (500, 500));
        assert_eq!(first.range(), (at(200), 500));
        assert!(first.is_current());
        drop((first, second));
        assert_eq!(cache.stats().entries, 0, "it is larger than what is kept");
        cache.clear();
        assert_eq!((cache.stats().entries, hooks::registered()), (0, 0));
    })
    .well();
}

pub(crate) static UNDONE: AtomicUsize = AtomicUsize::new(0);

/// What is undone when it is dropped.
struct Counted;

impl Drop for Counted {
    fn drop(&mut self) {
        UNDONE.fetch_add(1, SeqCst);
    }
}

#[test]
fn h6_registrations_are_dropped_before_their_memory_goes_or_by_the_next_call() {
    in_own_process(|| {
        assert!(init("allocator"));
        for at_once in [true, false] {
            let limits = Limits { entries: 100, bytes: 1 << 30 };
            let cache =
                if at_once { RegistrationCache::dropping_at_once(limits) } else { RegistrationCache::new(limits) };
            let cache = cache.expect("a component");
            UNDONE.store(0, SeqCst);
            let blocks: Vec<Vec<u8>> = (0..20).map(|_| vec![1; 1 << 20]).collect();
            for block in &blocks {
                cache.get(block.as_ptr(), block.len(), |_, _| Ok::<_, ()>(Counted)).map(drop).expect("registered");
            }
            let pinned = cache.get(blocks[3].as_ptr(), 100, |_, _| Ok::<_, ()>(Counted)).expect("registered");
            assert_eq!((cache.stats().entries, UNDONE.load(SeqCst)), (20, 0));
            drop(blocks);
            Stratalloc::collect();
            // (The thread that gives memory back by itself may have a run in hand just now, of which it tells.)
            let (begun, undone) = (Instant::now(), if at_once { 19 } else { 0 });
            while (hooks::registered(), UNDONE.load(SeqCst)) != (0, undone) && begun.elapsed() < Duration::from_secs(30)
            {
                std::thread::yield_now();
            }
            assert_eq!(UNDONE.load(SeqCst), undone, "but for the one in use");
            assert!(!pinned.is_current());
            assert_eq!((cache.stats().entries, hooks::registered()), (1, 0));
            drop(pinned);
            assert_eq!((cache.stats().entries, UNDONE.load(SeqCst)), (0, 20));
            cache.clear();
            drop(cache);
            assert_eq!(UNDONE.load(SeqCst), 20, "each once");
        }
    })
    .well();
}

/// Memory that a registration is about, and that is looked at when it is dropped, slowly.
pub(crate) struct Slow(usize);

static EARLY: AtomicUsize = AtomicUsize::new(0);

impl Drop for Slow {
    fn drop(&mut self) {
        for _ in 0..20 {
            // SAFETY: pages of the heap, which stay mapped: what has gone reads zero.
            let byte = unsafe { (self.0 as *const u8).read_volatile() };
            EARLY.fetch_add(usize::from(byte == 0), SeqCst);
            std::thread::yield_now();
        }
        UNDONE.fetch_add(1, SeqCst);
    }
}

pub(crate) fn slow(at: *const u8, _: usize) -> Result<Slow, ()> {
    Ok(Slow(at as usize))
}

#[test]
fn h6_memory_goes_when_its_registration_was_dropped_by_whomever() {
    in_own_process(|| {
        assert!(init("allocator"));
        let cache = RegistrationCache::dropping_at_once(Limits { entries: 2, bytes: 1 << 30 }).expect("a component");
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..150 {
                        let blocks: Vec<Block> = (0..3).map(|_| Block::new(64)).collect();
                        for block in &blocks {
                            // SAFETY: ours, and so large.
                            unsafe { block.at.write_bytes(0x77, 64 * PAGE) };
                            // One that is in the way is evicted, and dropped by this thread while another may let its memory go.
                            cache.get(block.at, 64 * PAGE, slow).map(drop).expect("registered");
                        }
                        drop(blocks);
                        Stratalloc::collect();
                    }
                });
            }
        });
        drop(cache);
        assert_eq!(EARLY.load(SeqCst), 0, "looks at memory that had gone");
        assert!(UNDONE.load(SeqCst) > 100);
    })
    .well();
}

/// A cache that has five registrations of ten bytes each.
fn cache_of_five(bytes: &[u8; 100]) -> RegistrationCache<usize> {
    let cache = RegistrationCache::new(Limits::default()).expect("a component");
    for number in 0..5 {
        let pinned = cache.get(bytes[number * 10..].as_ptr(), 10, |_, _| Ok::<_, ()>(number));
        assert_eq!(*pinned.expect("registered"), number);
    }
    cache
}

#[test]
fn h6_what_cannot_be_made_is_tried_again_with_room_and_what_is_invalid_is_not_found() {
    in_own_process(|| {
        assert!(init("allocator"));
        let bytes = [0_u8; 100];
        let at = |at: usize| bytes[at..].as_ptr();
        let cache = cache_of_five(&bytes);
        // As where only so much may be locked.
        let full = |_, _| if cache.stats().entries > 1 { Err("full") } else { Ok(77) };
        assert_eq!(*cache.get(at(90), 10, full).expect("there is room once the others have gone"), 77);
        assert_eq!((cache.stats().evicted, cache.stats().entries), (5, 1));
        let pinned = cache.get(at(90), 10, full).expect("it is there");
        cache.get(at(0), 10, full).map(drop).expect_err("that one is in use");
        cache.invalidate(at(95), 1);
        assert!(!pinned.is_current());
        drop(pinned);
        assert_eq!((cache.stats().entries, hooks::registered()), (0, 0));
    })
    .well();
}

/// Whatever is said to go, goes: ranges that would end behind the last address end there.
#[test]
fn h6_a_range_that_ends_nowhere_is_all_that_is_behind_it() {
    in_own_process(|| {
        assert!(init("allocator"));
        let limits = Limits { entries: 100, bytes: 1 << 30 };
        for cache in [RegistrationCache::new(limits), RegistrationCache::dropping_at_once(limits)] {
            let cache = cache.expect("a component");
            let bytes = [0_u8; 100];
            cache.get(bytes.as_ptr(), 10, |_, _| Ok::<_, ()>(1)).map(drop).expect("registered");
            cache.invalidate(bytes[5..].as_ptr(), usize::MAX);
            assert_eq!((cache.stats().entries, cache.stats().released), (0, 1));
        }
    })
    .well();
}

#[test]
fn h6_what_is_never_unpinned_goes_with_its_cache() {
    in_own_process(|| {
        assert!(init("allocator"));
        UNDONE.store(0, SeqCst);
        let cache = RegistrationCache::new(Limits::default()).expect("a component");
        let bytes = [0_u8; 100];
        for at in 0..3 {
            let pinned = cache.get(bytes[at * 10..].as_ptr(), 10, |_, _| Ok::<_, ()>(Counted)).expect("registered");
            std::mem::forget(pinned);
        }
        assert_eq!(hooks::registered(), 3);
        drop(cache);
        assert_eq!((hooks::registered(), UNDONE.load(SeqCst)), (0, 3));
        hooks::close().expect("nothing is registered");
    })
    .well();
}

/// A registration that, when it is dropped, has its cache forget where it was.
struct Thorough(usize);

static CACHE: std::sync::OnceLock<RegistrationCache<Thorough>> = std::sync::OnceLock::new();

impl Drop for Thorough {
    fn drop(&mut self) {
        CACHE.get().expect("made before").invalidate(self.0 as *const u8, PAGE);
        UNDONE.fetch_add(1, SeqCst);
    }
}

#[test]
fn h6_who_drops_a_registration_does_not_wait_for_itself() {
    in_own_process(|| {
        assert!(init("allocator"));
        UNDONE.store(0, SeqCst);
        let cache = RegistrationCache::dropping_at_once(Limits { entries: 1, bytes: 1 << 30 }).expect("a component");
        let cache = CACHE.get_or_init(|| cache);
        let block = Block::new(8);
        for page in 0..8 {
            let make = |at: *const u8, _| Ok::<_, ()>(Thorough(at as usize));
            cache.get(block.at.wrapping_add(page * PAGE), PAGE, make).map(drop).expect("registered");
        }
        assert_eq!(UNDONE.load(SeqCst), 7);
        cache.clear();
        assert_eq!(UNDONE.load(SeqCst), 8);
    })
    .well();
}

/// A registration is in use as often as it is pinned, by clones and by values that own their part, which may outlive the cache.
#[test]
fn h6_a_registration_is_in_use_as_long_as_anything_of_it_is() {
    in_own_process(|| {
        assert!(init("allocator"));
        UNDONE.store(0, SeqCst);
        let cache = RegistrationCache::new(Limits { entries: 0, bytes: 1 << 30 }).expect("a component");
        let bytes = vec![0_u8; 1000];
        let first = cache.get(bytes.as_ptr(), 1000, |_, _| Ok::<_, ()>(Counted)).expect("registered");
        assert_eq!((cache.stats().entries, cache.stats().in_use), (1, 1));
        let second = first.clone();
        let owned = second.clone().into_owned();
        let other = owned.clone();
        drop((first, second));
        let address = bytes.as_ptr() as usize;
        let ended = std::thread::spawn(move || {
            assert!(owned.is_current() && owned.range() == (address as *const u8, 1000));
            drop(owned);
        });
        ended.join().expect("it ends well");
        assert_eq!((UNDONE.load(SeqCst), cache.stats().in_use), (0, 1));
        drop(cache);
        assert_eq!((UNDONE.load(SeqCst), hooks::registered()), (0, 1));
        drop(other);
        assert_eq!((UNDONE.load(SeqCst), hooks::registered()), (1, 0));
        // Each goes by itself when the cache has, however much that kept.
        UNDONE.store(0, SeqCst);
        let cache = RegistrationCache::new(Limits::default()).expect("a component");
        let get = |at: usize| cache.get(bytes[at..].as_ptr(), 10, |_, _| Ok::<_, ()>(Counted)).expect("registered");
        let (first, second, _idle) = (get(0).into_owned(), get(20).into_owned(), drop(get(40)));
        drop(cache);
        assert_eq!((UNDONE.load(SeqCst), hooks::registered()), (1, 2));
        drop(first);
        assert_eq!((UNDONE.load(SeqCst), hooks::registered()), (2, 1));
        drop(second);
        assert_eq!((UNDONE.load(SeqCst), hooks::registered()), (3, 0));
    })
    .well();
}

#[test]
fn h6_room_is_made_only_where_that_helps() {
    in_own_process(|| {
        assert!(init("allocator"));
        let bytes = [0_u8; 100];
        let at = |at: usize| bytes[at..].as_ptr();
        let cache = cache_of_five(&bytes);
        // Of each error: how often it was tried, and how many of the others stay.
        for (what, tries, stay) in [("wrong", 1, 5), ("full", 2, 0)] {
            let mut tried = 0;
            let make = |_, _| {
                tried += 1;
                Err::<usize, _>(what)
            };
            let error = cache.get_with_room(at(60), 10, make, |error| *error == "full").expect_err("it fails");
            assert_eq!((error, tried, cache.stats().entries), (GetError::Register(what), tries, stay));
        }
    })
    .well();
}

/// An idle program drops what has gone without making anything.
#[test]
fn h6_sweep_drops_what_has_gone() {
    let ended = in_own_process(|| {
        if !init("userfaultfd") {
            return;
        }
        UNDONE.store(0, SeqCst);
        let cache = RegistrationCache::new(Limits::default()).expect("a component");
        let at = told::map(4);
        cache.get(at, 4 * PAGE, |_, _| Ok::<_, ()>(Counted)).map(drop).expect("registered");
        told::unmap(at, 4);
        assert_eq!((UNDONE.load(SeqCst), cache.stats().entries), (0, 1));
        cache.sweep().expect("swept");
        assert_eq!((UNDONE.load(SeqCst), cache.stats().entries), (1, 0));
    });
    ended.hand_on("SKIPPED");
    ended.well();
}
