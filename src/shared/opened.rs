//! The shared heaps that this process has open, by where they lie: what lies in a file knows no process's own file number.

use super::body::Body;
use super::guests::GuestNumber;
use super::lock::LOCKS;
use super::seats;
use crate::lock::{Locked, Rank, RawLock, Spin};
use crate::os::{self, FileNumber, HeapFile, Span};
use crate::sync::{Acquire, AtomicU32, AtomicU64, AtomicUsize, Relaxed, Release};

/// Heaps that a process may have open.
const MOST: usize = 64;
/// The number of no file.
const NO_FILE: u32 = u32::MAX;

/// An open heap. Its words are written by who opens or closes it; whoever is in the heap reads them.
#[derive(Debug)]
pub(super) struct Opened {
    /// Where it lies; 0: no heap.
    at: AtomicUsize,
    bytes: AtomicUsize,
    /// Which opening of a heap it is.
    opening: AtomicU64,
    /// Who this process is there.
    guest: AtomicU32,
    /// 1 once all is made anew that the guest may have to make anew.
    is_ready: AtomicU32,
    file: AtomicU32,
    /// For each lock of a heap with file locks, one among the threads of this process.
    locks: [Spin; LOCKS],
}

impl Opened {
    const fn none() -> Self {
        Self {
            at: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            opening: AtomicU64::new(0),
            guest: AtomicU32::new(0),
            is_ready: AtomicU32::new(0),
            file: AtomicU32::new(0),
            locks: [const { Spin::NEW }; LOCKS],
        }
    }

    pub(super) fn file(&self) -> FileNumber {
        FileNumber::of(self.file.load(Relaxed) as i32)
    }

    /// Nobody in a process that was forked and has not joined yet.
    pub(super) fn guest(&self) -> GuestNumber {
        GuestNumber(self.guest.load(Relaxed))
    }

    /// Whether this process is a guest, and may use the heap.
    #[inline]
    pub(super) fn is_ready(&self) -> bool {
        // Acquire: pairs with `be_ready`.
        self.is_ready.load(Acquire) == 1
    }

    pub(super) fn be_ready(&self) {
        self.is_ready.store(1, Release);
    }

    #[cfg(any(feature = "malloc-debug", feature = "hooks"))]
    pub(super) fn span(&self) -> Span {
        Span { at: self.at.load(Relaxed), bytes: self.bytes.load(Relaxed) }
    }

    /// Lock `number` of the heap, among the threads of this process.
    pub(super) fn lock_here(&self, number: usize) -> &Spin {
        &self.locks[number % LOCKS]
    }

    pub(super) fn set_guest(&self, guest: GuestNumber) {
        self.guest.store(guest.0, Relaxed);
    }

    /// The heap's begin.
    pub(super) fn body(&self) -> &'static Body {
        // SAFETY: it is mapped while it is open.
        unsafe { &*core::ptr::with_exposed_provenance(self.at.load(Relaxed)) }
    }

    fn is_around(&self, address: usize) -> bool {
        // Acquire: pairs with `enter`.
        let at = self.at.load(Acquire);
        at != 0 && address.wrapping_sub(at) < self.bytes.load(Relaxed)
    }
}

static OPENED: [Opened; MOST] = [const { Opened::none() }; MOST];

/// Held while a heap is entered or left.
static CHANGING: Locked<(), Spin> = Locked::new(Rank::Hunter, ());

/// Held while a thread leaves its seats, while a heap is closed, and while a forked process joins, the system's calls included.
static LEAVING: Locked<(), Spin> = Locked::new(Rank::Hunter, ());

/// Sees to it that forks are survived: a child has the heaps of its parent open, and none of its seats.
pub(super) fn survive_forks() {
    extern "C" fn prepare() {
        LEAVING.hold();
        CHANGING.hold();
    }
    extern "C" fn parent() {
        // SAFETY: `prepare` ran before.
        unsafe { CHANGING.let_go() };
        // SAFETY: as above.
        unsafe { LEAVING.let_go() };
    }
    extern "C" fn child() {
        for heap in OPENED.iter().filter(|heap| heap.at.load(Relaxed) != 0) {
            // It is another guest, once it uses the heap. Its parent's opening of the file would keep that alive.
            heap.set_guest(GuestNumber::NONE);
            // SAFETY: whoever held one is not here.
            heap.locks.iter().for_each(|lock| unsafe { lock.release() });
            // Without an opening of its own it can be no guest: locks of one opening do not exclude each other.
            let again = HeapFile::open_again(heap.file());
            drop(HeapFile::of(heap.file()));
            heap.is_ready.store(0, Relaxed);
            heap.file.store(again.map_or(NO_FILE, |again| again.into_number().word() as u32), Relaxed);
        }
        parent();
        seats::forget();
    }
    static REGISTERED: AtomicU32 = AtomicU32::new(0);
    if REGISTERED.swap(1, Relaxed) == 0 {
        os::at_fork(prepare, parent, child);
    }
}

/// Keeps the file of the heap at `span`; the file comes back if there are too many.
pub(super) fn enter(span: Span, opening: u64, file: HeapFile) -> Result<&'static Opened, HeapFile> {
    CHANGING.with(|()| {
        let Some(place) = OPENED.iter().find(|place| place.at.load(Relaxed) == 0) else {
            return Err(file);
        };
        place.bytes.store(span.bytes, Relaxed);
        place.opening.store(opening, Relaxed);
        place.set_guest(GuestNumber::NONE);
        place.is_ready.store(0, Relaxed);
        place.file.store(file.into_number().word() as u32, Relaxed);
        // Release: pairs with `is_around`.
        place.at.store(span.at, Release);
        Ok(place)
    })
}

/// The file of a heap, which is open no more.
pub(super) fn leave(place: &Opened) -> HeapFile {
    CHANGING.with(|()| {
        place.at.store(0, Relaxed);
        place.opening.store(0, Relaxed);
        HeapFile::of(place.file())
    })
}

/// The heap around an address.
pub(super) fn around(address: usize) -> Option<&'static Opened> {
    OPENED.iter().find(|heap| heap.is_around(address))
}

/// Whether an opening is open.
pub(super) fn is_open(opening: u64) -> bool {
    opening != 0 && OPENED.iter().any(|heap| heap.opening.load(Relaxed) == opening)
}

/// Runs `work`, while no heap is closed and no thread leaves its seats. (Not by a section: `work` takes locks of its own.)
pub(super) fn leaving<R>(work: impl FnOnce() -> R) -> R {
    LEAVING.hold();
    let result = work();
    // SAFETY: held above.
    unsafe { LEAVING.let_go() };
    result
}

/// Takes room in the file of the heap at `at`; false if there is none.
pub(super) fn fill(at: usize, from: usize, bytes: usize) -> bool {
    around(at).is_some_and(|heap| heap.file().fill(from as u64, bytes as u64).is_ok())
}

/// Takes room out of the file of the heap at `at`.
pub(super) fn punch(at: usize, from: usize, bytes: usize) -> bool {
    around(at).is_some_and(|heap| heap.file().punch(from as u64, bytes as u64))
}
