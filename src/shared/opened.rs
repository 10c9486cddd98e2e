//! The shared heaps that this process has open, by where they lie: what lies in a file knows no process's own file number.

use super::seats;
use crate::lock::{Locked, Rank, Spin};
use crate::os::{self, HeapFile};
use crate::sync::{AtomicU32, Relaxed};

/// Heaps that a process may have open.
const MOST: usize = 64;

/// An open heap.
#[derive(Debug)]
struct Opened {
    at: usize,
    /// Which opening of a heap it is.
    opening: u64,
    /// Who this process is there.
    guest: u64,
    file: HeapFile,
}

static OPENED: Locked<[Option<Opened>; MOST], Spin> = Locked::new(Rank::Hunter, [const { None }; MOST]);

/// Held while a thread leaves its seats, and while a heap is closed, the system's calls of both included.
static LEAVING: Locked<(), Spin> = Locked::new(Rank::Hunter, ());

/// Sees to it that forks are survived: a child has the heaps of its parent open, and none of its seats.
pub(super) fn survive_forks() {
    extern "C" fn prepare() {
        LEAVING.hold();
        OPENED.hold();
    }
    extern "C" fn parent() {
        // SAFETY: `prepare` ran before.
        unsafe { OPENED.let_go() };
        // SAFETY: as above.
        unsafe { LEAVING.let_go() };
    }
    extern "C" fn child() {
        // The seats that its parent has are not the child's, who is another guest.
        // SAFETY: `prepare` ran before, so this thread alone is there, and no heap is being opened or closed.
        let opened = unsafe { OPENED.held() };
        opened.iter_mut().flatten().for_each(|heap| heap.guest = super::next_guest(heap.at));
        parent();
        seats::forget();
    }
    static REGISTERED: AtomicU32 = AtomicU32::new(0);
    if REGISTERED.swap(1, Relaxed) == 0 {
        os::at_fork(prepare, parent, child);
    }
}

/// Keeps the file of the heap at `at`; false if there are too many.
pub(super) fn enter(at: usize, opening: u64, guest: u64, file: HeapFile) -> bool {
    OPENED.with(|opened| match opened.iter_mut().find(|place| place.is_none()) {
        Some(place) => {
            *place = Some(Opened { at, opening, guest, file });
            true
        }
        None => false,
    })
}

/// The file of an opening, which is open no more.
pub(super) fn leave(opening: u64) -> Option<HeapFile> {
    OPENED.with(|opened| {
        let place = opened.iter_mut().find(|place| place.as_ref().is_some_and(|heap| heap.opening == opening))?;
        place.take().map(|heap| heap.file)
    })
}

/// Who this process is in an opening; `None` if that is open no more.
pub(super) fn guest(opening: u64) -> Option<u64> {
    OPENED.with(|opened| opened.iter().flatten().find(|heap| heap.opening == opening).map(|heap| heap.guest))
}

/// Whether an opening is open.
pub(super) fn is_open(opening: u64) -> bool {
    guest(opening).is_some()
}

/// Runs `work`, while no heap is closed and no thread leaves its seats. (Not by a section: `work` takes locks of its own.)
pub(super) fn leaving(work: impl FnOnce()) {
    LEAVING.hold();
    work();
    // SAFETY: held above.
    unsafe { LEAVING.let_go() };
}

/// Gives back the lock of the file of the heap at `at`.
pub(super) fn unlock(at: usize) {
    OPENED.with(|opened| opened.iter().flatten().filter(|heap| heap.at == at).for_each(|heap| heap.file.unlock()));
}

/// Takes room in the file of the heap at `at`; false if there is none.
pub(super) fn fill(at: usize, from: usize, bytes: usize) -> bool {
    let file = OPENED.with(|opened| Some(opened.iter().flatten().find(|heap| heap.at == at)?.file.number()));
    // Not under the lock. The file stays open: whoever calls is in the heap.
    file.is_some_and(|file| file.fill(from as u64, bytes as u64).is_ok())
}
