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
#[path = "hooks_cache/rules.rs"]
mod rules;
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
