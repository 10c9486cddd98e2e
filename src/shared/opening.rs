//! How a process comes into a heap: by its file, whose door it locks, and as a guest; and how a heap is made there.

use super::body::{Body, HEAD};
use super::config::SharedConfig;
use super::guests::{DOOR, GUESTS, GuestNumber, ROOM};
use super::header::{self, Header};
use super::lock::{LOCKS, Scheme, SharedLock};
use super::pages::FilePages;
use super::{SharedError, SharedHeap, mend, opened};
use crate::config::Config;
use crate::heap::Engine;
use crate::os::{self, HeapFile, Identity, Semaphores, Span};
use crate::sync::{AtomicU64, Relaxed};
use core::borrow::Borrow;
use core::ptr::NonNull;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Openings so far.
static OPENINGS: AtomicU64 = AtomicU64::new(0);

/// Places at which who makes a heap tries to map it, before it is told that all are taken.
const TURNS: u64 = 64;

/// How long somebody who waits sleeps between two looks.
const NAP: Duration = Duration::from_millis(1);

/// What a file is that was opened.
#[derive(Clone, Copy)]
enum Found {
    /// A heap at these addresses, with this scheme.
    Heap(Span, Scheme),
    /// No heap yet: whoever was to make it has died.
    Unborn,
}

impl SharedHeap {
    /// Opens the heap, and puts it where `keep` wants it: there it lies already when `init` runs.
    pub(crate) fn open_as<H: Borrow<Self>>(
        path: impl AsRef<Path>,
        config: SharedConfig,
        keep: impl FnOnce(Self) -> H,
        init: impl FnOnce(&Self),
    ) -> Result<H, SharedError> {
        // What `destroy` removes is this file, wherever the process works by then. (An empty path stays one.)
        let path = std::path::absolute(&path).unwrap_or_else(|_| path.as_ref().to_path_buf());
        let path = CString::new(path.into_os_string().into_vec()).map_err(|_| SharedError::Path)?;
        if !header::may_be(config.bytes, config.at) {
            return Err(SharedError::Setting { rule: header::RULE });
        }
        let begun = Instant::now();
        loop {
            // A fork meanwhile would give the child an opening that nobody there knows of.
            match opened::leaving(|| Self::try_to_enter(&path, &config))? {
                Some((heap, Found::Heap(_, scheme))) => return heap.join(scheme).map(keep),
                Some((heap, Found::Unborn)) => return heap.make(&config, keep, init),
                None if begun.elapsed() >= config.wait => return Err(SharedError::Unborn),
                None => std::thread::sleep(NAP),
            }
        }
    }

    /// Maps the heap in the file at `path`, with its door locked; `None` if somebody else is at the door.
    fn try_to_enter(path: &CStr, config: &SharedConfig) -> Result<Option<(Self, Found)>, SharedError> {
        let file = HeapFile::open(path).map_err(SharedError::of("open the file"))?;
        let identity = identify(&file)?;
        if !config.network && file.is_on_network().map_err(SharedError::of("look at the file system"))? {
            return Err(SharedError::Network);
        }
        // What is no heap is told at once.
        look(&file, config)?;
        if !file.number().try_lock(DOOR).map_err(SharedError::of("lock the file"))? || !identify(&file)?.is_named {
            // Or it was removed just now.
            return Ok(None);
        }
        let found = look(&file, config)?;
        let span = match found {
            Found::Heap(span, _) => map(&file, span).map(|()| span)?,
            Found::Unborn => Self::make_room(&file, identity, config)?,
        };
        Self::mapped(path.into(), file, span).map(|heap| Some((heap, found)))
    }

    /// A heap whose file is mapped at `span`.
    fn mapped(path: CString, file: HeapFile, span: Span) -> Result<Self, SharedError> {
        // The mapping stays while the heap is open.
        let body = NonNull::new(core::ptr::with_exposed_provenance_mut(span.at));
        opened::survive_forks();
        let opening = 1 + OPENINGS.fetch_add(1, Relaxed);
        match (body, opened::enter(span, opening, file)) {
            (Some(body), Ok(place)) => Ok(Self { body, span, opening, place, path }),
            _ => {
                os::unmap(span);
                Err(SharedError::Setting { rule: "a process may have no more than 64 shared heaps open" })
            }
        }
    }

    /// Becomes a guest of the heap; the door is ours.
    fn join(self, scheme: Scheme) -> Result<Self, SharedError> {
        self.enter_as_guest(scheme, true)?;
        self.place.file().unlock(DOOR);
        Ok(self)
    }

    /// Becomes a guest; whoever calls has the door, and says whether the heap `is_made`.
    pub(super) fn enter_as_guest(&self, scheme: Scheme, is_made: bool) -> Result<(), SharedError> {
        let (body, file) = (self.body(), self.place.file());
        if is_made {
            body.verify_frame()?;
        }
        let is_alone = !body.guests.each().any(|(guest, _)| body.guests.is_alive(guest, GuestNumber::NONE, file));
        if is_alone && is_made {
            body.engine.verify().map_err(|finding| SharedError::Records { finding })?;
        }
        // Where all places are of the dead, none of them is believed below.
        let anew = || {
            body.guests.keep_only(GuestNumber::NONE);
            body.guests.join(file, ROOM)
        };
        let guest = match body.guests.join(file, ROOM) {
            Some(guest) => Some(guest),
            None if is_alone => anew(),
            None => self.join_among_the_dead(),
        };
        let Some(guest) = guest else {
            return Err(SharedError::Full);
        };
        // Other threads of this process do nothing in the heap before all is ready.
        self.place.set_guest(guest);
        if is_alone && let Err(errno) = self.prepare_locks(scheme) {
            self.leave(guest);
            return Err(SharedError::System { what: "make the heap's locks", errno });
        }
        if is_alone && is_made {
            mend::begin_anew(self.place, body);
        } else if mend::has_dead(self.place, body) {
            mend::mend(self.place, body);
        }
        self.place.be_ready();
        Ok(())
    }

    /// Takes a place among the guests that the dead had, as all places are taken and some guest lives: a spare place serves until the
    /// heap is mended.
    #[cold]
    fn join_among_the_dead(&self) -> Option<GuestNumber> {
        let (body, file) = (self.body(), self.place.file());
        if !mend::has_dead(self.place, body) {
            return None;
        }
        let spare = body.guests.join(file, GUESTS)?;
        self.place.set_guest(spare);
        mend::mend(self.place, body);
        self.leave(spare);
        body.guests.join(file, ROOM)
    }

    /// Gives up a guest's place, who has nothing in the heap.
    fn leave(&self, guest: GuestNumber) {
        self.place.set_guest(GuestNumber::NONE);
        self.body().guests.free(guest);
        self.place.file().unlock(guest.byte());
    }

    /// Makes all locks anew: the system may have been started since they were made, and nobody else has the heap open.
    fn prepare_locks(&self, scheme: Scheme) -> Result<(), os::Errno> {
        let body = self.body();
        if scheme == Scheme::Semaphores && !body.semaphores().are_free(LOCKS) {
            body.semaphores.store(Semaphores::new(LOCKS)?.0 as u32, Relaxed);
        }
        let (mut number, mut result) = (0, Ok(()));
        body.engine.each_lock(&mut |lock: &SharedLock| {
            result = result.and(lock.prepare(scheme, number));
            number += 1;
        });
        result
    }

    /// Makes a file whose door is ours one that is to be a heap, and maps it.
    fn make_room(file: &HeapFile, identity: Identity, config: &SharedConfig) -> Result<Span, SharedError> {
        if let Err(error) = prepare(file, config.bytes) {
            // What room it took is given back. A file can be made shorter.
            let _ = file.set_bytes(0);
            return Err(error);
        }
        let place = |turn| header::place(config.bytes, identity.inode, identity.born, config.at, turn);
        let mut turn = 0;
        loop {
            let span = place(turn).ok_or(SharedError::Setting { rule: header::RULE })?;
            turn += 1;
            match map(file, span) {
                Ok(()) => return Ok(span),
                // Only this process has something there, and nobody has the heap yet: it may lie elsewhere.
                Err(SharedError::Taken { .. }) if config.at.is_none() && turn < TURNS => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes the heap, in a file whose door is ours.
    fn make<H: Borrow<Self>>(
        self,
        config: &SharedConfig,
        keep: impl FnOnce(Self) -> H,
        init: impl FnOnce(&Self),
    ) -> Result<H, SharedError> {
        let scheme = config.scheme.unwrap_or_default();
        self.write(os::page_bytes(), scheme);
        self.enter_as_guest(scheme, false)?;
        // What is freed stays in the file: whoever gives it back asks for it.
        if !self.body().engine.open(&Config::new().idle_bytes(1 << 40)) {
            return Err(SharedError::System { what: "take room in the file", errno: os::errno::ENOSPC });
        }
        self.body().frame.store(self.body().sum(), Relaxed);
        let kept = keep(self);
        let heap = kept.borrow();
        init(heap);
        heap.body().header.be_born();
        heap.place.file().unlock(DOOR);
        Ok(kept)
    }

    /// Writes a heap that is not open yet, a part at a time: the whole is large for a thread's stack.
    fn write(&self, page: usize, scheme: Scheme) {
        let (body, used) = (self.body.as_ptr(), size_of::<Body>().next_multiple_of(page));
        // SAFETY: the mapping is ours alone, as large and aligned as a body, and there is room in the file for its head.
        let engine = unsafe { &raw mut (*body).engine };
        // SAFETY: as above.
        unsafe { engine.write(Engine::new(FilePages::new(self.span, page, used))) };
        // SAFETY: as above.
        let header = unsafe { &raw mut (*body).header };
        // SAFETY: as above.
        unsafe { header.write(Header::new(self.span, page, scheme)) };
    }
}

/// Maps the file at `span`, by an opening of its own: what is mapped keeps its opening, in forked children, too, and an opening
/// keeps its locks. Those must go with the process alone.
fn map(file: &HeapFile, span: Span) -> Result<(), SharedError> {
    let again = HeapFile::open_again(file.number());
    let other = again.map_err(SharedError::of("open the file again, by its number in /proc/self/fd"))?;
    other.map(span).map_err(|error| match error {
        os::errno::EEXIST => SharedError::Taken { span },
        errno => SharedError::System { what: "map the file", errno },
    })
}

/// Waits for the door of the heap in `file`.
pub(super) fn pass(file: os::FileNumber, begun: Instant, wait: Duration) -> Result<(), SharedError> {
    while !file.try_lock(DOOR).map_err(SharedError::of("lock the file"))? {
        if begun.elapsed() >= wait {
            return Err(SharedError::Unborn);
        }
        std::thread::sleep(NAP);
    }
    Ok(())
}

/// What the file is, if it is one for a heap.
fn identify(file: &HeapFile) -> Result<Identity, SharedError> {
    let identity = file.identity().map_err(SharedError::of("look at the file"))?;
    if identity.is_regular { Ok(identity) } else { Err(SharedError::NotAFile) }
}

/// Makes a file, whatever was in it, one that is to be a heap of `bytes` bytes, with room for its head.
fn prepare(file: &HeapFile, bytes: usize) -> Result<(), SharedError> {
    file.set_bytes(0).map_err(SharedError::of("make the file anew"))?;
    file.write(&header::UNBORN).map_err(SharedError::of("write the file"))?;
    file.set_bytes(bytes as u64).map_err(SharedError::of("make the file as long as the heap"))?;
    file.number().fill(0, HEAD as u64).map_err(SharedError::of("take room in the file"))
}

/// Looks at the header of a file.
fn look(file: &HeapFile, config: &SharedConfig) -> Result<Found, SharedError> {
    let mut bytes = [0; size_of::<Header>()];
    let count = file.read(&mut bytes).map_err(SharedError::of("read the file"))?;
    match Header::of(&bytes[..count])? {
        None => Ok(Found::Unborn),
        Some(header) => {
            let (span, scheme) = header.span(identify(file)?.bytes, os::page_bytes())?;
            match config.scheme.filter(|wanted| *wanted != scheme) {
                Some(ours) => Err(SharedError::OtherScheme { theirs: scheme, ours }),
                None => Ok(Found::Heap(span, scheme)),
            }
        }
    }
}
