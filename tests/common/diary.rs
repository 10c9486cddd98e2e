//! What processes write down that die in a shared heap: what they had, and what they were about to do. So it can be told
//! afterwards whether each byte is where it should be.

#![allow(dead_code, reason = "each user takes what it needs")]

use std::env;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};
use stratalloc::{SharedConfig, SharedHeap};

/// Memory that this process and its children share.
pub(crate) struct Common<T: 'static>(pub(crate) &'static T);

impl<T> Common<T> {
    pub(crate) fn new() -> Self {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<T>(), access, flags, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        // SAFETY: zero bits are a `T`, all of atomics; it stays mapped.
        Self(unsafe { &*at.cast() })
    }
}

/// A block that a process says it has: 0, or its address, with the lowest bits saying what is being done with it.
pub(crate) struct Entry {
    pub(crate) at: AtomicUsize,
    pub(crate) size: AtomicUsize,
    pub(crate) seed: AtomicUsize,
}

/// The block is being freed, or changed: it may be there or not.
pub(crate) const GOING: usize = 1;
/// The block is there, and nothing is written in it yet.
pub(crate) const FRESH: usize = 2;

pub(crate) const ENTRIES: usize = 4096;
pub(crate) const GIVEN: usize = 64;

/// What a process does and has.
pub(crate) struct Diary {
    pub(crate) entries: [Entry; ENTRIES],
    /// Bytes of the block that it is asking for just now, or freeing; 0 outside of the heap.
    pub(crate) asking: AtomicUsize,
    pub(crate) steps: AtomicU64,
    /// The step at which it dies; 0: none.
    pub(crate) last: AtomicU64,
    /// The step at which it is stopped; 0: none.
    pub(crate) halt: AtomicU64,
    /// The place of its last step: one of this program's.
    pub(crate) place: AtomicUsize,
    /// Blocks of 64 bytes for whoever takes them; 0 where there is none.
    pub(crate) given: [AtomicUsize; GIVEN],
}

/// The words of a block that are looked at: all of a short one, the first and the last of a long one.
pub(crate) fn words(size: usize) -> impl Iterator<Item = usize> {
    let words = size / 8;
    (0..words.min(32)).chain((words.max(64) - 32)..words)
}

/// Writes to a block what follows from its seed.
pub(crate) fn paint(at: *mut u8, size: usize, seed: usize) {
    // SAFETY: the block is ours, and so large.
    words(size).for_each(|word| unsafe { at.cast::<usize>().add(word).write_volatile(seed.wrapping_add(word)) });
}

pub(crate) fn is_painted(at: *mut u8, size: usize, seed: usize) -> bool {
    // SAFETY: the block is live, and so large.
    words(size).all(|word| unsafe { at.cast::<usize>().add(word).read_volatile() } == seed.wrapping_add(word))
}

impl Diary {
    pub(crate) fn free_entry(&self) -> &Entry {
        self.entries.iter().find(|entry| entry.at.load(Relaxed) == 0).expect("a free entry")
    }

    pub(crate) fn alloc(&self, heap: &SharedHeap, size: usize) -> Option<&Entry> {
        self.alloc_in(heap, size, self.free_entry())
    }

    pub(crate) fn alloc_in<'a>(&self, heap: &SharedHeap, size: usize, entry: &'a Entry) -> Option<&'a Entry> {
        self.asking.store(size, SeqCst);
        let at = heap.malloc(size);
        if at.is_null() {
            self.asking.store(0, SeqCst);
            return None;
        }
        entry.at.store(at as usize | FRESH, SeqCst);
        self.asking.store(0, SeqCst);
        let seed = at as usize ^ size;
        paint(at, size, seed);
        entry.size.store(size, SeqCst);
        entry.seed.store(seed, SeqCst);
        entry.at.store(at as usize, SeqCst);
        Some(entry)
    }

    pub(crate) fn free(&self, heap: &SharedHeap, entry: &Entry) {
        let at = entry.at.load(SeqCst);
        self.asking.store(entry.size.load(SeqCst), SeqCst);
        entry.at.store(at | GOING, SeqCst);
        // SAFETY: ours, and live.
        unsafe { heap.free(at as *mut u8) };
        entry.at.store(0, SeqCst);
        self.asking.store(0, SeqCst);
    }

    /// Grows or shrinks a block that keeps its begin.
    pub(crate) fn resize(&self, heap: &SharedHeap, entry: &Entry, size: usize) {
        let (at, old) = (entry.at.load(SeqCst), entry.size.load(SeqCst));
        self.asking.store(old.max(size), SeqCst);
        entry.at.store(at | GOING, SeqCst);
        // SAFETY: ours, and live.
        let new = unsafe { heap.realloc(at as *mut u8, size) };
        let (new, size) = if new.is_null() { (at as *mut u8, old) } else { (new, size) };
        let kept = entry.seed.load(SeqCst);
        // SAFETY: the block is ours, and so large.
        let is_kept = |word: usize| unsafe { new.cast::<usize>().add(word).read_volatile() } == kept.wrapping_add(word);
        assert!((0..32.min(old.min(size) / 8)).all(is_kept), "realloc keeps what was there");
        let seed = new as usize ^ size;
        paint(new, size, seed);
        entry.size.store(size, SeqCst);
        entry.seed.store(seed, SeqCst);
        entry.at.store(new as usize, SeqCst);
        self.asking.store(0, SeqCst);
    }

    pub(crate) fn live(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.at.load(SeqCst) != 0)
    }

    /// The place of its last step.
    #[track_caller]
    pub(crate) fn last_place(&self) -> &'static Location<'static> {
        // SAFETY: the hook wrote it, in a process forked from this one.
        let place = unsafe { (self.place.load(Relaxed) as *const Location<'static>).as_ref() };
        // Or it died before its first step.
        place.unwrap_or(Location::caller())
    }

    /// Whether all blocks that the process had are as it left them.
    pub(crate) fn is_whole(&self) -> bool {
        let steady = self.live().filter(|entry| entry.at.load(SeqCst) & (GOING | FRESH) == 0);
        steady
            .into_iter()
            .all(|entry| is_painted(entry.at.load(SeqCst) as *mut u8, entry.size.load(SeqCst), entry.seed.load(SeqCst)))
    }

    /// After the death of its process, for the next one to go on with it: what it was about to free is there or not, what it has
    /// just got is there.
    pub(crate) fn settle(&self, heap: &SharedHeap) {
        for entry in self.live() {
            let at = entry.at.load(SeqCst);
            if at & FRESH != 0 {
                // SAFETY: live, and nobody's any more.
                unsafe { heap.free((at & !FRESH) as *mut u8) };
            }
            if at & (GOING | FRESH) != 0 {
                entry.at.store(0, SeqCst);
            }
        }
    }

    /// After the death of its process: frees what it had; the bytes that may be lost.
    pub(crate) fn inherit(&self, heap: &SharedHeap) -> usize {
        let doubt = self.asking.swap(0, SeqCst);
        for entry in self.live() {
            let at = entry.at.swap(0, SeqCst);
            if at & GOING == 0 {
                // SAFETY: live, and nobody's any more.
                unsafe { heap.free((at & !FRESH) as *mut u8) };
            }
        }
        doubt
    }
}

/// The diary of a child, for the hook.
pub(crate) static CHILD: AtomicUsize = AtomicUsize::new(0);

/// Counts a step of a child's, and stops or ends the child where it is to.
pub(crate) fn count(place: &'static Location<'static>) {
    let at = CHILD.load(Relaxed) as *const Diary;
    // SAFETY: a child sets it once, to what stays mapped.
    if let Some(diary) = unsafe { at.as_ref() } {
        let step = diary.steps.load(Relaxed) + 1;
        diary.steps.store(step, Relaxed);
        diary.place.store(std::ptr::from_ref(place) as usize, Relaxed);
        for (when, signal) in [(&diary.last, libc::SIGKILL), (&diary.halt, libc::SIGSTOP)] {
            if step == when.load(Relaxed) {
                // SAFETY: no preconditions.
                unsafe { libc::kill(libc::getpid(), signal) };
            }
        }
    }
}

/// A child goes when its parent does.
pub(crate) fn go_with_parent() {
    // SAFETY: no preconditions.
    let _ = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// Bytes that may be lost with a block of so many, or come back: of a class it may be twice as large, and with guards more.
pub(crate) fn in_doubt(bytes: usize) -> usize {
    let guards = if cfg!(feature = "malloc-debug") { 128 } else { 0 };
    if bytes == 0 { 0 } else { (2 * (bytes + guards)).max(8).next_multiple_of(4096) }
}

/// Begins `work` in a forked child.
pub(crate) fn begin(work: impl FnOnce()) -> i32 {
    // SAFETY: the child calls nothing but the heap and the system.
    let process = unsafe { libc::fork() };
    assert!(process >= 0);
    if process == 0 {
        go_with_parent();
        work();
        // SAFETY: no preconditions.
        unsafe { libc::_exit(0) };
    }
    process
}

/// Runs `work` in a forked child, and returns how that ended.
pub(crate) fn forked(work: impl FnOnce()) -> i32 {
    wait_for(begin(work))
}

/// Begins to wander in a child, with a copy of the heap of its own, that stops at step `halt` and dies at `last`.
pub(crate) fn begin_to_wander(heap: &SharedHeap, diary: &Diary, halt: u64, last: u64) -> i32 {
    diary.steps.store(0, SeqCst);
    diary.halt.store(halt, SeqCst);
    diary.last.store(last, SeqCst);
    begin(|| {
        CHILD.store(std::ptr::from_ref(diary) as usize, SeqCst);
        // Closed by the child for itself.
        // SAFETY: nobody else in the child uses it.
        let heap = unsafe { std::ptr::read(heap) };
        wander(&heap, diary);
        drop(heap);
    })
}

/// Sizes that go every way there is: lists of several classes, run lists, long runs.
pub(crate) const SIZES: [usize; 7] = [8, 64, 200, 2000, 5000, 40_000, 300_000];

/// Goes every way through the heap, and leaves some blocks.
pub(crate) fn wander(heap: &SharedHeap, diary: &Diary) {
    let mut mine: [Option<&Entry>; 512] = [None; 512];
    for size in SIZES {
        let count = (1 << 20) / size;
        let count = count.clamp(3, 150);
        for place in &mut mine[..count] {
            *place = diary.alloc(heap, size);
        }
        // Every second first: so slabs are partly free, and neighbours of runs.
        for place in mine[..count].iter_mut().step_by(2) {
            place.take().into_iter().for_each(|entry| diary.free(heap, entry));
        }
        let mut left = mine[..count].iter_mut().filter(|place| place.is_some());
        if size >= 5000
            && let Some(entry) = left.next().and_then(|place| *place)
        {
            diary.resize(heap, entry, size * 2);
            diary.resize(heap, entry, size / 2);
            diary.resize(heap, entry, size * 5);
        }
        // The first of what is left stays.
        for place in left.skip(1) {
            place.take().into_iter().for_each(|entry| diary.free(heap, entry));
        }
        mine.fill(None);
    }
    heap.collect();
    diary.alloc(heap, 64);
}

pub(crate) const SMALL: SharedConfig = SharedConfig::new().max_size(256 << 20);

/// Survivors go on: they allocate, write and free, of every size, and the heap is sound.
pub(crate) fn go_on(heap: &SharedHeap, own: &Diary) {
    let begun = Instant::now();
    heap.mend();
    heap.check().expect("a sound heap");
    for size in SIZES {
        let count = ((64 << 10) / size).clamp(2, 20);
        let entries: Vec<&Entry> = (0..count).filter_map(|_| own.alloc(heap, size)).collect();
        assert_eq!(entries.len(), count);
        assert!(own.is_whole());
        entries.into_iter().for_each(|entry| own.free(heap, entry));
    }
    // On a machine that is busy with other things, too.
    assert!(begun.elapsed() < Duration::from_secs(30), "survivors go on");
}

/// How many steps to go on for each death; the environment may ask for each.
pub(crate) fn stride(usual: u64) -> u64 {
    env::var("SHARED_STRIDE").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// How a child ends.
pub(crate) fn wait_for(process: i32) -> i32 {
    let mut status = 0;
    // SAFETY: the child is ours.
    assert_eq!(unsafe { libc::waitpid(process, &raw mut status, 0) }, process);
    status
}
