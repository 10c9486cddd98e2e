//! A heap as it is seen from outside: by its file alone, which is read and never written, without joining, and without a lock.
//!
//! Nothing that the file says is believed before it is checked, and only its header is checked once for all: what lies where
//! follows from that, and pointers in the file are followed only to where they may lead. Whoever is in the heap goes on meanwhile:
//! figures of different layers may differ by what they did, and an audit (`audit`) looks again at what seems wrong.

mod audit;
mod figures;
mod file;

use super::SharedError;
use super::body::{Body, HEAD};
use super::guests::{DOOR, GUESTS, Guest, GuestNumber, Guests};
use super::header::Header;
use super::lock::{Scheme, SharedLock};
use super::pages::FilePages;
use super::seats::{SEATS, Seat};
use crate::heap::view::{AllCounts, Books, CacheView, EngineView, MapView};
use crate::image::{Field, Image, Words, field};
use crate::os::{self, FileNumber, Span};
use crate::stats::Stats;
use core::fmt::{self, Display, Formatter};
use core::mem::offset_of;
use core::time::Duration;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::vec::Vec;

pub use audit::{Audit, Fault};
pub use figures::{ClassFigures, Kind, Layers, Tile};
use file::FileWords;

/// Why a heap cannot be looked at.
#[derive(Debug)]
#[non_exhaustive]
pub enum ViewError {
    /// The file is not one that this program could open, either.
    Heap(SharedError),
    /// Nobody has made the heap yet.
    Unborn,
    /// The system refused something.
    System(&'static str, io::Error),
    /// The file is another than it was.
    Changed(&'static str),
}

impl Display for ViewError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            // What to do then is for who opens it to use it.
            Self::Heap(SharedError::NotAFile) => f.write_str("shared heap: it is no regular file"),
            Self::Heap(SharedError::NotAHeap) => f.write_str("shared heap: the file is no heap of stratalloc's"),
            Self::Heap(error) => Display::fmt(error, f),
            Self::Unborn => f.write_str(
                "shared heap: the file is to be a heap, and nobody has made it yet; whoever opens it next makes it",
            ),
            Self::System(what, error) => write!(f, "shared heap: cannot {what}: {error}"),
            Self::Changed(what) => write!(f, "shared heap: {what}"),
        }
    }
}

impl core::error::Error for ViewError {}

/// What the header of a heap says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The version of what lies in the file.
    pub version: u64,
    /// Bytes of a word.
    pub word_bytes: u64,
    /// Bytes of a page.
    pub page_bytes: u64,
    /// How many size classes there are.
    pub classes: u64,
    /// Whether records have copies (feature `malloc-debug`).
    pub has_copies: bool,
    /// How its processes exclude each other.
    pub scheme: Scheme,
    /// Where it lies, in every process.
    pub span: Span,
    /// What `set_global` set.
    pub root: usize,
}

/// A process in a heap.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its place among the processes, from 1 on.
    pub guest: u32,
    /// Its number, as it sees itself.
    pub pid: u32,
    /// For how long it has been there; `None` if that was before the system was started.
    pub age: Option<Duration>,
    /// Whether it lives.
    pub is_alive: bool,
    /// The numbers of its threads that have caches.
    pub threads: Vec<u32>,
    /// Bytes that these have cached.
    pub cached: u64,
    /// Blocks and runs of up to 16 pages that these have allocated, and freed.
    pub allocs: u64,
    /// Those freed.
    pub frees: u64,
    /// The bytes of those allocated.
    pub allocated: u64,
    /// The bytes of those freed.
    pub freed: u64,
}

/// A heap's file, seen from outside.
#[derive(Debug)]
pub struct View {
    file: File,
    words: FileWords,
    facts: Facts,
    identity: (u64, u64),
    pages: FilePages,
}

type Engine<'a> = EngineView<'a, FilePages, SharedLock>;

/// Has the program end with a message, and not by a signal, when a heap's file is cut off while it reads there.
pub fn end_where_cut_off() {
    os::end_where_cut_off();
}

/// The lines and columns of the terminal that the standard output is; `None` if it is something else.
#[must_use]
pub fn terminal() -> Option<(usize, usize)> {
    os::terminal()
}

/// Opens a file to look at it. Nothing but a file is opened: a device may do anything when it is.
fn open(path: &Path) -> io::Result<Option<File>> {
    if !path.symlink_metadata()?.is_file() {
        return Ok(None);
    }
    let file = OpenOptions::new().read(true).custom_flags(os::FLAGS_TO_LOOK).open(path)?;
    // Something else may have come to be there meanwhile.
    Ok(Some(file).filter(|file| file.metadata().is_ok_and(|found| found.is_file())))
}

/// The header of a file, with its length and identity.
fn look(file: &File) -> Result<(Facts, (u64, u64)), ViewError> {
    let found = file.metadata().map_err(|error| ViewError::System("look at the file", error))?;
    let mut bytes = [0; size_of::<Header>()];
    let mut count = 0;
    while count < bytes.len() {
        match file.read_at(&mut bytes[count..], count as u64) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ViewError::System("read the file", error)),
        }
    }
    if count == 0 {
        return Err(ViewError::Heap(SharedError::NotAHeap));
    }
    let header = Header::of(&bytes[..count]).map_err(ViewError::Heap)?.ok_or(ViewError::Unborn)?;
    let (span, scheme) = header.span(found.len(), os::page_bytes()).map_err(ViewError::Heap)?;
    let [version, word_bytes, page_bytes, classes, copies, _, _] = header.parts().map(|(_, part)| part);
    let root = header.root.load(crate::sync::Relaxed) as usize;
    let has_copies = copies != 0;
    let facts = Facts { version, word_bytes, page_bytes, classes, has_copies, scheme, span, root };
    Ok((facts, (found.dev(), found.ino())))
}

/// Whether a file begins as a heap does; an error if it cannot be read.
///
/// # Errors
/// The system's.
pub fn is_heap(path: &Path) -> io::Result<bool> {
    let Some(file) = open(path)? else {
        return Ok(false);
    };
    let mut bytes = [0; 8];
    Ok(file.read_at(&mut bytes, 0)? == bytes.len() && super::header::is_begin(bytes))
}

impl View {
    /// Opens the heap in the file at `path` to look at it.
    ///
    /// # Errors
    /// [`ViewError`] says what is wrong.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ViewError> {
        let file = open(path.as_ref()).map_err(|error| ViewError::System("open the file", error))?;
        let file = file.ok_or(ViewError::Heap(SharedError::NotAFile))?;
        let (facts, identity) = look(&file)?;
        let page = facts.page_bytes as usize;
        let words =
            FileWords::map(&file, facts.span, page).map_err(|error| ViewError::System("map the file", error))?;
        let pages = FilePages::new(facts.span, page, size_of::<Body>().next_multiple_of(page));
        Ok(Self { file, words, facts, identity, pages })
    }

    /// Looks whether the file is still as long as its heap; what is read from now on is as it is from now on.
    ///
    /// # Errors
    /// [`ViewError`] says what is wrong.
    pub fn refresh(&mut self) -> Result<(), ViewError> {
        let (facts, identity) = look(&self.file)?;
        if (facts.span, identity) != (self.facts.span, self.identity) {
            return Err(ViewError::Changed("the file has become another heap's"));
        }
        self.facts = facts;
        self.words.forget();
        Ok(())
    }

    /// What the header says.
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.facts
    }

    /// Bytes that the file takes on the disk.
    ///
    /// # Errors
    /// The system's.
    pub fn bytes_on_disk(&self) -> Result<u64, ViewError> {
        let found = self.file.metadata().map_err(|error| ViewError::System("look at the file", error))?;
        Ok(found.blocks().saturating_mul(512))
    }

    fn at(&self) -> usize {
        self.facts.span.at
    }

    fn engine(&self) -> Engine<'_> {
        EngineView::new(&self.words, self.at() + offset_of!(Body, engine))
    }

    fn map(&self) -> MapView<'_> {
        let page = self.facts.page_bytes as usize;
        let root = self.at() + self.pages.head;
        let mut map = MapView {
            from: &self.words,
            origin: self.at(),
            page_shift: page.trailing_zeros(),
            root,
            leaves_at: root + self.pages.root,
            leaves: 0,
        };
        map.leaves = (self.pages.begins - self.pages.head - self.pages.root) / map.leaf_bytes();
        map
    }

    fn word32(&self, at: usize) -> u32 {
        crate::image::number(&[self.words.word(at & !7)], at & 7, 4) as u32
    }

    /// The number in a field of the file's source of pages.
    fn page_word(&self, field: Field<FilePages>) -> usize {
        let image = Image::<FilePages>::take(&self.words, self.engine().source_at());
        image.map_or(0, |image| image.address(field))
    }

    /// The first byte of the file that no page has been taken from yet, as the file says.
    fn used_word(&self) -> usize {
        self.page_word(field!(FilePages, used))
    }

    /// The first byte of the file's pages, and the one behind the last that was taken.
    fn given(&self) -> (usize, usize) {
        let (first, page) = (self.pages.first, self.facts.page_bytes as usize);
        let used = self.used_word().clamp(first, self.facts.span.bytes);
        (first, used - used % page)
    }

    /// The seats that there is room for in the file.
    fn furnished(&self) -> usize {
        let furnished = self.words.word(self.at() + offset_of!(Body, furnished));
        usize::try_from(furnished).unwrap_or(SEATS).min(SEATS)
    }

    fn seat_at(&self, number: usize) -> usize {
        self.at() + HEAD + number * size_of::<Seat>()
    }

    /// Whose thread sits on a seat.
    fn sitter(&self, seat: usize) -> GuestNumber {
        GuestNumber(self.word32(self.seat_at(seat) + offset_of!(Seat, guest)))
    }

    /// The seats that are taken: each one's number, and whose thread sits there.
    fn seats_taken(&self) -> impl Iterator<Item = (usize, GuestNumber)> {
        let sitters = (0..self.furnished()).map(|number| (number, self.sitter(number)));
        sitters.filter(|(_, guest)| *guest != GuestNumber::NONE)
    }

    fn cache(&self, seat: usize) -> Option<CacheView> {
        CacheView::take(&self.words, self.seat_at(seat) + offset_of!(Seat, cache))
    }

    fn number(&self) -> FileNumber {
        FileNumber::of(self.file.as_raw_fd())
    }

    fn is_alive(&self, guest: GuestNumber) -> bool {
        self.number().is_locked(guest.byte())
    }

    /// Whether somebody is in the heap, or about to come in.
    fn has_life(&self) -> bool {
        self.number().is_locked(DOOR) || self.guests().any(|(guest, _)| self.is_alive(guest))
    }

    /// The place of a guest, if it is taken.
    fn guest(&self, guest: GuestNumber) -> Option<Image<Guest>> {
        const { assert!(size_of::<Guests>() == GUESTS * size_of::<Guest>()) };
        let place = self.at() + offset_of!(Body, guests) + (guest.0 as usize - 1) * size_of::<Guest>();
        Image::take(&self.words, place).filter(|image| image.get(field!(Guest, is_taken)) == 1)
    }

    /// The places of guests that are taken.
    fn guests(&self) -> impl Iterator<Item = (GuestNumber, Image<Guest>)> {
        (1..=GUESTS as u32).map(GuestNumber).filter_map(|guest| Some((guest, self.guest(guest)?)))
    }

    /// Whether a guest lives; `None` if it is not there any more. One that leaves gives up its place first, and its lock then.
    fn life(&self, guest: GuestNumber, place: &Image<Guest>) -> Option<bool> {
        let is_alive = self.is_alive(guest);
        (is_alive || self.guest(guest).as_ref() == Some(place)).then_some(is_alive)
    }

    /// The processes in the heap, those that died there included.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        let now = os::since_boot();
        let guests = self.guests().filter_map(|(guest, image)| {
            Some(Process {
                guest: guest.0,
                pid: image.get_u32(field!(Guest, process)),
                age: now.checked_sub(image.get(field!(Guest, since))).map(Duration::from_millis),
                is_alive: self.life(guest, &image)?,
                threads: Vec::new(),
                cached: 0,
                allocs: 0,
                frees: 0,
                allocated: 0,
                freed: 0,
            })
        });
        let mut processes: Vec<Process> = guests.collect();
        for (seat, guest) in self.seats_taken() {
            let (Some(process), Some(cache)) =
                (processes.iter_mut().find(|process| process.guest == guest.0), self.cache(seat))
            else {
                continue;
            };
            process.threads.push(self.word32(self.seat_at(seat) + offset_of!(Seat, thread)));
            let sums = AllCounts::of(&cache).sums(self.map().page_shift);
            process.cached = process.cached.wrapping_add(sums.cached);
            process.allocs = process.allocs.wrapping_add(sums.allocs);
            process.frees = process.frees.wrapping_add(sums.frees);
            process.allocated = process.allocated.wrapping_add(sums.allocated);
            process.freed = process.freed.wrapping_add(sums.freed);
        }
        processes
    }

    /// What the caches that are there have counted.
    fn counts(&self) -> AllCounts {
        let mut counts = AllCounts::zero();
        let live = |cache: &CacheView| cache.is_live() == Some(true);
        self.seats_taken()
            .filter_map(|(seat, _)| self.cache(seat))
            .filter(live)
            .for_each(|cache| counts.add(&AllCounts::of(&cache)));
        counts
    }

    /// The figures of the heap: those of `SharedHeap::stats`, exact where it is at rest.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.books().map_or(Stats::ZERO, |books| books.stats())
    }

    fn books(&self) -> Option<Books> {
        self.engine().books(self.map().page_shift, &self.counts())
    }
}
