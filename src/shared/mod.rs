//! Heaps that processes share: one file, mapped by all of them at one address, and the engine in it.
//!
//! The file begins with a header that says what kind of heap it is (`header.rs`); the engine's own state follows, then a seat
//! for each thread of each process, with its cache (`seats.rs`), and behind them the pages (`pages.rs`). So a pointer into the
//! heap means the same in every process, and nothing in the file names anything of one process (`opened.rs` has that).

mod error;
mod header;
mod opened;
mod pages;
mod seats;

use crate::config::Config;
use crate::finding::Finding;
use crate::heap::{Attached, Blocks, Cache, Engine};
use crate::lock::{Locked, Rank, Spin};
use crate::os::{self, HeapFile, Identity, Span};
use crate::stats::Stats;
use crate::sync::{AcqRel, Acquire, AtomicU64, AtomicUsize, Relaxed, Release};
use allocator_api2::alloc::{AllocError, Allocator};
use core::alloc::Layout;
use core::ptr::NonNull;
pub use error::SharedError;
use header::Header;
use pages::FilePages;
use seats::{SEATS, Seat};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// What lies at the begin of a heap's file.
#[derive(Debug)]
#[repr(C)]
struct Body {
    header: Header,
    engine: Engine<FilePages, Spin>,
    /// For threads that have no seat.
    common: Locked<Shard, Spin>,
    /// Guests so far.
    guests: AtomicU64,
    /// The first seats, for which there is room in the file.
    furnished: AtomicUsize,
    seats: [Seat; SEATS],
}

impl Body {
    /// The seats that there is room for.
    fn seats(&self) -> &[Seat] {
        // Acquire: pairs with `furnish`.
        &self.seats[..self.furnished.load(Acquire).min(SEATS)]
    }
}

/// A cache that its lock lends to one thread at a time.
#[derive(Debug)]
struct Shard(Cache);

// SAFETY: a cache is bound to no thread, only to one user at a time.
unsafe impl Send for Shard {}

/// Bytes before the seats: there is room for them in every heap's file.
const HEAD: usize = core::mem::offset_of!(Body, seats);

/// How a shared heap is made and opened.
#[derive(Clone, Copy, Debug)]
pub struct SharedConfig {
    bytes: usize,
    at: Option<usize>,
    network: bool,
    wait: Duration,
}

impl SharedConfig {
    /// A heap of up to 64 GiB at an address that follows from the file.
    #[must_use]
    pub const fn new() -> Self {
        let (bytes, wait) = (64 << 30, Duration::from_secs(60));
        Self { bytes, at: None, network: false, wait }
    }

    /// How large the heap may become, in bytes, when it is made: from 16 MiB to 16 TiB. Its file is so long from the first, and
    /// takes room on the disk only for what was used.
    #[must_use]
    pub const fn max_size(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    /// Where the heap lies when it is made, in place of an address that follows from the file: a multiple of 16 GiB from
    /// 0x2000_0000_0000 on and below 0x4000_0000_0000.
    #[must_use]
    pub const fn address(mut self, at: usize) -> Self {
        self.at = Some(at);
        self
    }

    /// Lets the file be on a network file system. All processes must be on one machine then.
    #[must_use]
    pub const fn network(mut self) -> Self {
        self.network = true;
        self
    }

    /// How long to wait for another process that is making the heap: a minute, if nothing is said.
    #[must_use]
    pub const fn wait(mut self, time: Duration) -> Self {
        self.wait = time;
        self
    }
}

impl Default for SharedConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// A heap in a file, that many processes may have open.
///
/// It is an `Allocator` (crate `allocator-api2`). What is allocated in it stays when it is closed, and is where it was when it
/// is opened again, by whatever process: all have it at one address.
#[derive(Debug)]
pub struct SharedHeap {
    body: NonNull<Body>,
    span: Span,
    /// Which opening of a heap of this process's it is.
    opening: u64,
    path: CString,
}

// SAFETY: the body is reached through locks, atomics, and caches of which each thread has its own.
unsafe impl Send for SharedHeap {}
// SAFETY: as above.
unsafe impl Sync for SharedHeap {}

/// Openings so far.
static OPENINGS: AtomicU64 = AtomicU64::new(0);

/// How long somebody who waits sleeps between two looks.
const NAP: Duration = Duration::from_millis(1);

/// What a file is that was opened.
enum Found {
    /// A heap at these addresses.
    Heap(Span),
    /// No heap yet: whoever makes it is at it, or has died.
    Unborn,
}

impl SharedHeap {
    /// Opens the heap in the file at `path`. If there is none, it is made, and `init` runs in it once, in one process, before
    /// any other gets it; if that process ends before it is done, another begins anew.
    ///
    /// # Errors
    /// [`SharedError`] says what is wrong. A heap is as it was then; a file that is none yet may be left, in which the
    /// next who opens it begins anew.
    pub fn open(path: impl AsRef<Path>, config: SharedConfig, init: impl FnOnce(&Self)) -> Result<Self, SharedError> {
        let path = CString::new(path.as_ref().as_os_str().as_bytes()).map_err(|_| SharedError::Path)?;
        if !header::may_be(config.bytes, config.at) {
            return Err(SharedError::Setting { rule: header::RULE });
        }
        let begun = Instant::now();
        let file = HeapFile::open(&path).map_err(SharedError::of("open the file"))?;
        let identity = identify(&file)?;
        if !config.network && file.is_on_network().map_err(SharedError::of("look at the file system"))? {
            return Err(SharedError::Network);
        }
        loop {
            if let Found::Heap(span) = look(&file)? {
                return Self::map(path, file, span);
            }
            if file.try_lock().map_err(SharedError::of("lock the file"))? {
                // Somebody may have been faster.
                if let Found::Heap(span) = look(&file)? {
                    file.unlock();
                    return Self::map(path, file, span);
                }
                return Self::make(path, file, identity, &config, init);
            }
            if begun.elapsed() >= config.wait {
                return Err(SharedError::Unborn);
            }
            std::thread::sleep(NAP);
        }
    }

    /// Maps the file at `span`.
    fn map(path: CString, file: HeapFile, span: Span) -> Result<Self, SharedError> {
        file.map(span).map_err(|error| match error {
            os::errno::EEXIST => SharedError::Taken { span },
            errno => SharedError::System { what: "map the file", errno },
        })?;
        // The mapping stays while the heap is open.
        let body = NonNull::new(core::ptr::with_exposed_provenance_mut(span.at));
        opened::survive_forks();
        let opening = 1 + OPENINGS.fetch_add(1, Relaxed);
        let entered = opened::enter(span.at, opening, next_guest(span.at), file);
        match body.filter(|_| entered) {
            Some(body) => Ok(Self { body, span, opening, path }),
            None => {
                os::unmap(span);
                Err(SharedError::Setting { rule: "a process may have no more than 64 shared heaps open" })
            }
        }
    }

    /// Makes the heap, in a file whose lock is held.
    fn make(
        path: CString,
        file: HeapFile,
        identity: Identity,
        config: &SharedConfig,
        init: impl FnOnce(&Self),
    ) -> Result<Self, SharedError> {
        let span = header::place(config.bytes, identity.inode, identity.born, config.at)
            .ok_or(SharedError::Setting { rule: header::RULE })?;
        if let Err(error) = prepare(&file, span) {
            // What room it took is given back. A file can be made shorter.
            let _ = file.set_bytes(0);
            return Err(error);
        }
        let heap = Self::map(path, file, span)?;
        heap.write(os::page_bytes());
        if !heap.body().engine.open(&Config::new()) {
            return Err(SharedError::System { what: "take room in the file", errno: os::errno::ENOSPC });
        }
        heap.body().common.with(|shard| {
            // SAFETY: the cache is fresh and stays in the file; its lock lends it out once at a time.
            unsafe { heap.body().engine.attach(&shard.0) };
        });
        init(&heap);
        heap.body().header.be_born();
        opened::unlock(span.at);
        Ok(heap)
    }

    /// Writes a heap that is not open yet, a part at a time: the whole is large for a thread's stack.
    fn write(&self, page: usize) {
        let (body, used) = (self.body.as_ptr(), size_of::<Body>().next_multiple_of(page));
        // SAFETY: the mapping is ours alone, as large and aligned as a body, and there is room in the file for its head.
        let engine = unsafe { &raw mut (*body).engine };
        // SAFETY: as above.
        unsafe { engine.write(Engine::new(FilePages::new(self.span, page, used))) };
        // SAFETY: as above.
        let common = unsafe { &raw mut (*body).common };
        // SAFETY: as above.
        unsafe { common.write(Locked::new(Rank::Shard, Shard(Cache::new()))) };
        // SAFETY: as above.
        let header = unsafe { &raw mut (*body).header };
        // SAFETY: as above.
        unsafe { header.write(Header::new(self.span, page)) };
    }

    fn body(&self) -> &Body {
        // SAFETY: written by whoever made the heap, and mapped while it is open.
        unsafe { self.body.as_ref() }
    }

    /// Where the heap lies, in every process.
    #[must_use]
    pub const fn span(&self) -> Span {
        self.span
    }

    /// Sets the root, by which a process that opens the heap finds what is in it. It may be null.
    pub fn set_global<T>(&self, root: *const T) {
        // Release: publishes what it points to.
        self.body().header.root.store(root.expose_provenance() as u64, Release);
    }

    /// The root that was set last, in whatever process; null in a new heap.
    #[must_use]
    pub fn global<T>(&self) -> *mut T {
        // Acquire: pairs with `set_global`.
        core::ptr::with_exposed_provenance_mut(self.body().header.root.load(Acquire) as usize)
    }

    /// The figures of the heap; `threads` counts its caches, of all processes.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.body().engine.stats(None)
    }

    /// Audits the heap beside whatever others do with it.
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn check(&self) -> Result<(), Finding> {
        self.body().engine.check(None)
    }

    /// Runs `section` with the heap as seen through the calling thread's cache.
    fn with<R>(&self, section: impl FnOnce(&Attached<'_, FilePages, Spin>) -> R) -> R {
        let body = self.body();
        let seat = seats::seat(self.opening).or_else(|| seats::sit_down(self.opening, self.body, || self.take_seat()));
        if let Some(seat) = seat {
            // SAFETY: the seat is this thread's while it sits there.
            let seat = unsafe { seat.as_ref() };
            // SAFETY: as above; `take_seat` attached the cache.
            return section(&unsafe { body.engine.through(seat.cache()) });
        }
        // SAFETY: attached by `make`; the lock keeps others out.
        body.common.with(|shard| section(&unsafe { body.engine.through(&shard.0) }))
    }

    /// A free seat, for the calling thread.
    fn take_seat(&self) -> Option<NonNull<Seat>> {
        let (body, guest) = (self.body(), opened::guest(self.opening)?);
        let seat = loop {
            match body.seats().iter().find(|seat| seat.take(guest)) {
                Some(seat) => break seat,
                None if self.furnish() => {}
                None => return None,
            }
        };
        seat.renew();
        // SAFETY: the cache is fresh, lies in the file, and is this thread's.
        unsafe { body.engine.attach(seat.cache()) };
        Some(NonNull::from(seat))
    }

    /// Takes room in the file for a seat more; false if there is none.
    fn furnish(&self) -> bool {
        let (body, bytes) = (self.body(), size_of::<Seat>());
        let next = body.furnished.load(Acquire);
        // Two that do it at once do it for the same seat.
        next < SEATS && opened::fill(self.span.at, HEAD + next * bytes, bytes) && {
            // Release: the room is there; pairs with `seats`.
            let _ = body.furnished.compare_exchange(next, next + 1, AcqRel, Acquire);
            true
        }
    }

    /// Closes the heap and removes its file's name. Processes that have it open go on with it.
    ///
    /// # Errors
    /// The system's, if the name cannot be removed: the heap is closed all the same.
    pub fn destroy(self) -> Result<(), SharedError> {
        let path = self.path.clone();
        drop(self);
        os::remove_file(&path).map_err(SharedError::of("remove the file"))
    }
}

/// What the file is, if it is one for a heap.
fn identify(file: &HeapFile) -> Result<Identity, SharedError> {
    let identity = file.identity().map_err(SharedError::of("look at the file"))?;
    if identity.is_regular { Ok(identity) } else { Err(SharedError::NotAFile) }
}

/// Makes a file, whatever was in it, one that is to be a heap at `span`, with room for its head.
fn prepare(file: &HeapFile, span: Span) -> Result<(), SharedError> {
    file.set_bytes(0).map_err(SharedError::of("make the file anew"))?;
    file.write(&header::UNBORN).map_err(SharedError::of("write the file"))?;
    file.set_bytes(span.bytes as u64).map_err(SharedError::of("make the file as long as the heap"))?;
    file.number().fill(0, HEAD as u64).map_err(SharedError::of("take room in the file"))
}

/// A number for a guest of the heap at `at`, which is mapped.
fn next_guest(at: usize) -> u64 {
    let body = core::ptr::with_exposed_provenance::<Body>(at);
    // SAFETY: there is a body, or zeros that are to be one, with room for them in the file.
    let guests = unsafe { &raw const (*body).guests };
    // SAFETY: as above.
    1 + unsafe { &*guests }.fetch_add(1, Relaxed)
}

/// Looks at the header of a file.
fn look(file: &HeapFile) -> Result<Found, SharedError> {
    let mut bytes = [0; size_of::<Header>()];
    let count = file.read(&mut bytes).map_err(SharedError::of("read the file"))?;
    match Header::of(&bytes[..count])? {
        None => Ok(Found::Unborn),
        Some(header) => header.span(identify(file)?.bytes, os::page_bytes()).map(Found::Heap),
    }
}

/// A thread ends that sat on `seat` in an opening of a heap.
fn stand_up(opening: u64, body: NonNull<Body>, seat: NonNull<Seat>) {
    opened::leaving(|| {
        if opened::is_open(opening) {
            // SAFETY: the heap is open, and is not closed meanwhile: so it is mapped.
            let body = unsafe { body.as_ref() };
            // SAFETY: as above.
            let seat = unsafe { seat.as_ref() };
            // SAFETY: attached by `take_seat`; the thread that used it is at its end.
            unsafe { body.engine.detach(seat.cache()) };
            seat.give_up();
        }
    });
}

impl Drop for SharedHeap {
    fn drop(&mut self) {
        opened::leaving(|| {
            let guest = opened::guest(self.opening);
            for seat in self.body().seats().iter().filter(|seat| guest.is_some_and(|guest| seat.is_of(guest))) {
                // SAFETY: nobody uses the heap any more in this process, through whatever thread.
                unsafe { self.body().engine.detach(seat.cache()) };
                seat.give_up();
            }
            let file = opened::leave(self.opening);
            os::unmap(self.span);
            drop(file);
        });
    }
}

/// A block as the trait wants it: with the bytes that were asked for.
fn slice(at: *mut u8, bytes: usize) -> Result<NonNull<[u8]>, AllocError> {
    NonNull::new(at).map(|at| NonNull::slice_from_raw_parts(at, bytes)).ok_or(AllocError)
}

// SAFETY: blocks are disjoint and valid until they are freed, in all processes; moving a heap does not move them.
unsafe impl Allocator for SharedHeap {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: any layout may be asked for.
        slice(self.with(|blocks| unsafe { blocks.alloc(layout) }), layout.size())
    }

    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: any layout may be asked for.
        slice(self.with(|blocks| unsafe { blocks.alloc_zeroed(layout) }), layout.size())
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: handed on.
        self.with(|blocks| unsafe { blocks.dealloc(block.as_ptr(), layout) });
    }
}
