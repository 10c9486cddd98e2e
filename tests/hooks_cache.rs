//! Row H6: the cache of registrations never hands out one whose memory has gone.
//!
//! What is registered here is a pipe that holds the pages themselves, as a device would: by `vmsplice` it has them without a copy. Whether a
//! registration is of the pages that are at an address now is proved by a stamp: written at the address, and read through the pipe.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a test takes memory away, and says what was skipped"
)]

#[path = "hooks_cache/forks.rs"]
mod forks;
#[path = "common/own_process.rs"]
mod own_process;
#[path = "common/random.rs"]
mod random;
#[path = "common/told.rs"]
mod told;

use own_process::in_own_process;
use random::Random;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use stratalloc::Stratalloc;
use stratalloc::hooks::{self, Choice, GetError, Limits, RegistrationCache, Settings};
use told::skipped::skipped;

#[global_allocator]
static A: Stratalloc = Stratalloc::new();

const PAGE: usize = 4096;

/// Two ends of a pipe.
#[derive(Debug)]
struct Pipe([i32; 2]);

impl Pipe {
    fn new() -> std::io::Result<Self> {
        let mut ends = [0; 2];
        // SAFETY: room for two.
        let result = unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) };
        if result == 0 { Ok(Self(ends)) } else { Err(std::io::Error::last_os_error()) }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        for end in self.0 {
            // SAFETY: ours.
            unsafe { libc::close(end) };
        }
    }
}

/// How many registrations there are.
static LIVE: AtomicUsize = AtomicUsize::new(0);

/// The first eight bytes of each page of a range: a pipe has those pages.
#[derive(Debug)]
struct Held {
    pipe: Pipe,
    at: usize,
    pages: usize,
}

/// Pages that a pipe takes without being told to be larger.
const MOST: usize = 12;

impl Held {
    fn new(at: *const u8, bytes: usize) -> std::io::Result<Self> {
        assert!((at as usize).is_multiple_of(PAGE) && bytes.is_multiple_of(PAGE) && bytes <= MOST * PAGE);
        let pipe = Pipe::new()?;
        let pages = bytes / PAGE;
        for page in 0..pages {
            // A page that nobody has written to is nobody's: all share one.
            // SAFETY: the place is the caller's.
            unsafe { at.wrapping_add(page * PAGE).cast_mut().write_volatile(1) };
            let place = libc::iovec { iov_base: at.wrapping_add(page * PAGE).cast_mut().cast(), iov_len: 8 };
            // SAFETY: the place is the caller's.
            if unsafe { libc::vmsplice(pipe.0[1], &raw const place, 1, 0) } != 8 {
                return Err(std::io::Error::last_os_error());
            }
        }
        LIVE.fetch_add(1, SeqCst);
        Ok(Self { pipe, at: at as usize, pages })
    }

    /// What the pages that it holds have in their first words.
    fn read(&self) -> [u64; MOST] {
        let copy = Pipe::new().expect("a pipe");
        let mut words = [0; MOST];
        // SAFETY: both are pipes.
        let count = unsafe { libc::tee(self.pipe.0[0], copy.0[1], self.pages * 8, 0) };
        assert_eq!(count, self.pages as isize * 8, "{}", std::io::Error::last_os_error());
        // SAFETY: there is room.
        let count = unsafe { libc::read(copy.0[0], words.as_mut_ptr().cast(), self.pages * 8) };
        assert_eq!(count, self.pages as isize * 8);
        words
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        LIVE.fetch_sub(1, SeqCst);
    }
}

static STAMP: AtomicU64 = AtomicU64::new(1);

type Cache = RegistrationCache<Held>;

/// Looks the range up, and whether what is found has the pages that are there now: `None` if it could not be registered.
fn is_current(cache: &Cache, at: *mut u8, pages: usize) -> Option<bool> {
    let held = match cache.get(at, pages * PAGE, Held::new) {
        Ok(held) => held,
        Err(GetError::Register(_)) => return None,
        Err(error) => panic!("{error}"),
    };
    let first = (at as usize - held.at) / PAGE;
    let stamp = STAMP.fetch_add(pages as u64, SeqCst);
    for page in 0..pages {
        // SAFETY: the range is the caller's.
        unsafe { at.wrapping_add(page * PAGE).cast::<u64>().write_volatile(stamp + page as u64) };
    }
    let words = held.read();
    Some((0..pages).all(|page| words[first + page] == stamp + page as u64))
}

/// A block of whole pages of the heap.
struct Block {
    at: *mut u8,
    pages: usize,
}

// SAFETY: it is its owner's.
unsafe impl Send for Block {}

impl Block {
    fn layout(pages: usize) -> std::alloc::Layout {
        std::alloc::Layout::from_size_align(pages * PAGE, PAGE).expect("a layout")
    }

    fn new(pages: usize) -> Self {
        // SAFETY: the size is not 0.
        Self { at: unsafe { std::alloc::alloc(Self::layout(pages)) }, pages }
    }

    fn resize(&mut self, pages: usize) {
        // SAFETY: live; the size is not 0.
        self.at = unsafe { std::alloc::realloc(self.at, Self::layout(self.pages), pages * PAGE) };
        assert!(!self.at.is_null());
        self.pages = pages;
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: live.
        unsafe { std::alloc::dealloc(self.at, Self::layout(self.pages)) };
    }
}

/// Memory of the process's that everybody takes away and puts there anew, under its lock.
struct Slot(usize);

const SLOT_PAGES: usize = 16;
const ACCESS: i32 = libc::PROT_READ | libc::PROT_WRITE;
const FLAGS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

impl Slot {
    fn new() -> Self {
        // SAFETY: it replaces nothing.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), SLOT_PAGES * PAGE, ACCESS, FLAGS, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        Self(at as usize)
    }

    /// Lets some of its pages go, in one of the ways there are; then others are there.
    fn ruin(&mut self, random: &mut Random) {
        let first = random.below(SLOT_PAGES);
        let bytes = (1 + random.below(SLOT_PAGES - first)) * PAGE;
        let at = (self.0 + first * PAGE) as *mut libc::c_void;
        let over = |at| {
            // SAFETY: the slot's own addresses.
            let new = unsafe { libc::mmap(at, bytes, ACCESS, FLAGS | libc::MAP_FIXED, -1, 0) };
            assert_eq!(new, at);
        };
        match random.below(6) {
            0 => over(at),
            1 => {
                // All of it, and what comes instead often comes to the same addresses.
                // SAFETY: as above.
                assert_eq!(unsafe { libc::munmap(self.0 as *mut libc::c_void, SLOT_PAGES * PAGE) }, 0);
                *self = Self::new();
            }
            2 => {
                // SAFETY: as above.
                assert_eq!(unsafe { libc::madvise(at, bytes, libc::MADV_DONTNEED) }, 0);
            }
            3 => {
                // SAFETY: it replaces nothing.
                let other = unsafe { libc::mmap(std::ptr::null_mut(), bytes, ACCESS, FLAGS, -1, 0) };
                // SAFETY: ours, and so large.
                unsafe { other.cast::<u8>().write_bytes(9, bytes) };
                let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
                // SAFETY: as above.
                assert_eq!(unsafe { libc::mremap(other, bytes, bytes, flags, at) }, at);
            }
            4 => {
                // To other addresses, piece by piece: several mappings cannot be moved as one.
                let other = Self::new();
                for page in 0..SLOT_PAGES {
                    let place = |slot: usize| (slot + page * PAGE) as *mut libc::c_void;
                    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
                    // SAFETY: both are ours.
                    let moved = unsafe { libc::mremap(place(self.0), PAGE, PAGE, flags, place(other.0)) };
                    assert_eq!(moved, place(other.0));
                }
                *self = other;
            }
            _ => {
                // SAFETY: as above.
                unsafe { libc::madvise(at, bytes, libc::MADV_FREE) };
                // SAFETY: as above. What is free may come back; this lets it go.
                unsafe { libc::madvise(at, bytes, libc::MADV_DONTNEED) };
            }
        }
    }
}

/// What became of a stress.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    lookups: usize,
    stale: usize,
}

/// What the threads of a stress share.
struct Stress {
    cache: Cache,
    slots: Vec<Mutex<Slot>>,
    shelf: Vec<Mutex<Option<Block>>>,
    with_slots: bool,
    busy: AtomicBool,
    lookups: AtomicUsize,
    stale: AtomicUsize,
}

impl Stress {
    fn look(&self, at: *mut u8, pages: usize) {
        if let Some(current) = is_current(&self.cache, at, pages) {
            self.lookups.fetch_add(1, SeqCst);
            self.stale.fetch_add(usize::from(!current), SeqCst);
        }
    }

    fn slot(&self, random: &mut Random) -> std::sync::MutexGuard<'_, Slot> {
        self.slots[random.below(self.slots.len())].lock().expect("not poisoned")
    }

    fn place(&self, random: &mut Random) -> std::sync::MutexGuard<'_, Option<Block>> {
        self.shelf[random.below(self.shelf.len())].lock().expect("not poisoned")
    }

    /// Registers ranges of slots and of blocks, which it lets go at times.
    fn register(&self, random: &mut Random) {
        if self.with_slots && random.below(2) == 0 {
            let mut slot = self.slot(random);
            let (first, pages) = (random.below(8), 1 + random.below(8));
            self.look((slot.0 + first * PAGE) as *mut u8, pages);
            if random.below(3) == 0 {
                slot.ruin(random);
                self.look((slot.0 + first * PAGE) as *mut u8, pages);
            }
            return;
        }
        let mut place = self.place(random);
        let block = place.get_or_insert_with(|| Block::new(1 + random.below(MOST)));
        match random.below(4) {
            0 => *place = None,
            1 => {
                block.resize(1 + random.below(MOST));
                self.look(block.at, block.pages);
            }
            _ => self.look(block.at, block.pages),
        }
    }

    /// Lets memory go.
    fn ruin(&self, random: &mut Random) {
        match random.below(4) {
            0 => Stratalloc::collect(),
            1 => {
                let pages = 1 + random.below(4000);
                let mut block = Block::new(pages);
                // SAFETY: ours, and so large.
                unsafe { block.at.write_bytes(1, pages * PAGE) };
                block.resize(1 + random.below(6000));
            }
            2 => *self.place(random) = None,
            _ if self.with_slots => self.slot(random).ruin(random),
            _ => std::thread::yield_now(),
        }
    }
}

/// Registers ranges of heap blocks, and of slots if `with_slots`, from four threads for so long, while two others let memory go.
fn stress(time: Duration, with_slots: bool) -> (Found, hooks::CacheStats) {
    let stress = Stress {
        cache: Cache::new(Limits { entries: 64, bytes: 4 << 20 }).expect("a component"),
        slots: (0..8).map(|_| Mutex::new(Slot::new())).collect(),
        shelf: (0..32).map(|_| Mutex::new(None)).collect(),
        with_slots,
        busy: AtomicBool::new(true),
        lookups: AtomicUsize::new(0),
        stale: AtomicUsize::new(0),
    };
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..6_u64 {
            let stress = &stress;
            scope.spawn(move || {
                let mut random = Random::new(thread * 7919 + 13);
                while stress.busy.load(SeqCst) {
                    if thread < 4 { stress.register(&mut random) } else { stress.ruin(&mut random) }
                }
            });
        }
        while begun.elapsed() < time {
            std::thread::sleep(Duration::from_millis(10));
        }
        stress.busy.store(false, SeqCst);
    });
    let stats = stress.cache.stats();
    let found = Found { lookups: stress.lookups.load(SeqCst), stale: stress.stale.load(SeqCst) };
    drop(stress);
    assert_eq!((LIVE.load(SeqCst), hooks::registered()), (0, 0), "nothing is left");
    (found, stats)
}

/// How long, in seconds: `HOOKS_SECONDS`, for a campaign.
fn time() -> Duration {
    Duration::from_secs(std::env::var("HOOKS_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3))
}

fn init(name: &str) -> bool {
    match hooks::init(&Settings::new().choice(Choice::new().only(name))) {
        Ok(_) => true,
        Err(error) => {
            skipped(&format!("no {name} here: {error}"));
            false
        }
    }
}

#[track_caller]
fn none_is_stale((found, stats): (Found, hooks::CacheStats)) {
    eprintln!("FIGURES: {found:?} {stats:?}");
    assert_eq!(found.stale, 0, "{found:?} {stats:?}");
    assert!(
        found.lookups > 1000 && stats.hits > 100 && stats.released > 10 && stats.evicted > 0,
        "{found:?} {stats:?}"
    );
}

#[test]
fn h6_no_stale_registration_of_heap_blocks_by_allocator() {
    let ended = in_own_process(|| {
        assert!(init("allocator"));
        none_is_stale(stress(time(), false));
    });
    ended.hand_on("FIGURES");
    ended.well();
}

#[test]
fn h6_no_stale_registration_of_anything_by_userfaultfd() {
    let ended = in_own_process(|| {
        if init("userfaultfd") {
            none_is_stale(stress(time(), true));
        }
    });
    ended.hand_on("SKIPPED");
    ended.hand_on("FIGURES");
    ended.well();
}

/// The proof can fail: where nobody tells, there are stale ones.
#[test]
fn h6_without_hooks_there_are_stale_ones() {
    in_own_process(|| {
        assert!(init("empty"));
        let (found, stats) = stress(Duration::from_secs(2), true);
        assert!(found.stale > 0, "{found:?} {stats:?}");
    })
    .well();
}

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

static UNDONE: AtomicUsize = AtomicUsize::new(0);

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
struct Slow(usize);

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

fn slow(at: *const u8, _: usize) -> Result<Slow, ()> {
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

#[test]
fn h6_what_cannot_be_made_is_tried_again_with_room_and_what_is_invalid_is_not_found() {
    in_own_process(|| {
        assert!(init("allocator"));
        let cache = RegistrationCache::<usize>::new(Limits::default()).expect("a component");
        let bytes = [0_u8; 100];
        let at = |at: usize| bytes[at..].as_ptr();
        for number in 0..5 {
            assert_eq!(*cache.get(at(number * 10), 10, |_, _| Ok::<_, ()>(number)).expect("registered"), number);
        }
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
    })
    .well();
}

#[test]
fn h6_room_is_made_only_where_that_helps() {
    in_own_process(|| {
        assert!(init("allocator"));
        let cache = RegistrationCache::<usize>::new(Limits::default()).expect("a component");
        let bytes = [0_u8; 100];
        let at = |at: usize| bytes[at..].as_ptr();
        for number in 0..5 {
            assert_eq!(*cache.get(at(number * 10), 10, |_, _| Ok::<_, ()>(number)).expect("registered"), number);
        }
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
