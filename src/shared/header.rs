//! The first page of a heap's file: what kind of heap it is, and where it lies. Nothing of it is believed before it is checked.

use super::body::Body;
use super::error::SharedError;
use super::lock::Scheme;
use crate::heap::{CLASSES, Cache};
use crate::os::Span;
use crate::sync::{AtomicU64, Relaxed, Release};

/// What a file that is a heap begins with: it is written last.
const MAGIC: u64 = u64::from_le_bytes(*b"strataSH");
/// What a file begins with that is to be a heap: whoever makes it is at it, or has died.
const BEGUN: u64 = u64::from_le_bytes(*b"strataSb");
/// The first bytes of such a file.
pub(super) const UNBORN: [u8; size_of::<Header>()] = {
    let (mut bytes, begun, mut at) = ([0; size_of::<Header>()], BEGUN.to_le_bytes(), 0);
    while at < begun.len() {
        bytes[at] = begun[at];
        at += 1;
    }
    bytes
};
/// Which settings give a place.
pub(super) const RULE: &str = "a heap has 16 MiB to 16 TiB, a multiple of 64 KiB, and lies at a multiple of 1 GiB from \
                               0x2000_0000_0000 on and below 0x4000_0000_0000";
/// The version of what lies in a file.
const VERSION: u32 = 2;
/// Where heaps lie: behind what programs are linked and load at, and below where the kernel maps.
const RANGE: Span = Span { at: 0x2000_0000_0000, bytes: 0x2000_0000_0000 };
/// What a heap's address is a multiple of, at the least.
const STEP: usize = 1 << 30;
/// Bytes of a heap, at the least.
const BYTES_MIN: usize = 16 << 20;
/// Bytes of a heap, at the most: its pages have numbers of 32 bits.
const BYTES_MAX: usize = 16 << 40;

/// What must be the same in all programs that share a heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Kind {
    version: u32,
    word_bytes: u32,
    page_bytes: u32,
    classes: u32,
    hunter: u32,
    scheme: u32,
    /// Of what lies in the file, all of which is laid out as C does: the sizes that features change.
    layout: u64,
}

impl Kind {
    fn ours(page_bytes: usize, scheme: u32) -> Self {
        // Seats are aligned to pages: so what is before them may be another and take as much.
        let behind_guests = core::mem::offset_of!(Body, furnished);
        let sizes = [size_of::<Body>(), size_of::<Cache>(), super::body::HEAD, behind_guests];
        let mixed = sizes.iter().fold(0, |mixed: u64, size| (mixed ^ *size as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self {
            version: VERSION,
            word_bytes: size_of::<usize>() as u32,
            page_bytes: page_bytes as u32,
            classes: CLASSES as u32,
            hunter: u32::from(cfg!(feature = "malloc-debug")),
            scheme,
            layout: mixed,
        }
    }

    /// The parts, with their names.
    fn parts(&self) -> [(&'static str, u64); 7] {
        [
            ("version", u64::from(self.version)),
            ("size of a word in bytes", u64::from(self.word_bytes)),
            ("size of a page in bytes", u64::from(self.page_bytes)),
            ("number of size classes (feature fine-classes)", u64::from(self.classes)),
            ("hunter (feature malloc-debug, 1 for yes)", u64::from(self.hunter)),
            ("locking scheme", u64::from(self.scheme)),
            ("layout of records (by features)", self.layout),
        ]
    }
}

/// The header.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Header {
    magic: AtomicU64,
    kind: Kind,
    at: u64,
    bytes: u64,
    /// A mix of what stands above.
    check: u64,
    /// What `set_global` set.
    pub(super) root: AtomicU64,
}

impl Header {
    /// The header of a new heap at `span`, which is not born yet.
    pub(super) fn new(span: Span, page_bytes: usize, scheme: Scheme) -> Self {
        let (kind, at, bytes) = (Kind::ours(page_bytes, scheme.code()), span.at as u64, span.bytes as u64);
        Self { magic: AtomicU64::new(BEGUN), kind, at, bytes, check: check(&kind, at, bytes), root: AtomicU64::new(0) }
    }

    /// The heap is whole.
    pub(super) fn be_born(&self) {
        // Release: whoever reads it finds all that was written before.
        self.magic.store(MAGIC, Release);
    }

    /// The header in the first bytes of a file, as a copy; `None` if the file is to be a heap.
    pub(super) fn of(bytes: &[u8]) -> Result<Option<Self>, SharedError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let whole = bytes.first_chunk::<{ size_of::<Self>() }>().ok_or(SharedError::NotAHeap)?;
        // SAFETY: any bits are a header.
        let header = unsafe { whole.as_ptr().cast::<Self>().read_unaligned() };
        match header.magic.load(Relaxed) {
            BEGUN => Ok(None),
            MAGIC => Ok(Some(header)),
            _ => Err(SharedError::NotAHeap),
        }
    }

    /// What must be the same in all programs that share the heap, by name.
    #[cfg(feature = "cli")]
    pub(super) fn parts(&self) -> [(&'static str, u64); 7] {
        self.kind.parts()
    }

    /// The locking scheme. The header was checked.
    pub(super) fn scheme(&self) -> Scheme {
        Scheme::of(self.kind.scheme).unwrap_or_default()
    }

    /// Where the heap of a file of `file_bytes` bytes lies, if this program may join it, and its locking scheme.
    pub(super) fn span(&self, file_bytes: u64, page_bytes: usize) -> Result<(Span, Scheme), SharedError> {
        let scheme = Scheme::of(self.kind.scheme).ok_or(SharedError::Damaged { what: "it names no locking scheme" })?;
        let ours = Kind::ours(page_bytes, self.kind.scheme);
        for ((what, theirs), (_, ours)) in self.kind.parts().into_iter().zip(ours.parts()) {
            if theirs != ours {
                return Err(SharedError::Other { what, theirs, ours });
            }
        }
        if self.check != check(&self.kind, self.at, self.bytes) {
            return Err(SharedError::Damaged { what: "its check does not hold" });
        }
        let (Ok(at), Ok(bytes)) = (usize::try_from(self.at), usize::try_from(self.bytes)) else {
            return Err(SharedError::Damaged { what: "it names no addresses" });
        };
        let span = Span { at, bytes };
        if !is_place(span) {
            return Err(SharedError::Damaged { what: "it names addresses where no heap may lie" });
        }
        if file_bytes != self.bytes {
            return Err(SharedError::Length { bytes: file_bytes, made: self.bytes });
        }
        Ok((span, scheme))
    }
}

/// Whether a file that begins so is a heap, or is to be one.
#[cfg(feature = "cli")]
pub(super) fn is_begin(bytes: [u8; 8]) -> bool {
    [MAGIC, BEGUN].contains(&u64::from_ne_bytes(bytes))
}

fn check(kind: &Kind, at: u64, bytes: u64) -> u64 {
    let parts = kind.parts().map(|(_, part)| part).into_iter().chain([at, bytes]);
    parts.fold(MAGIC, |mixed, part| (mixed ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29))
}

/// Whether a heap may lie there.
fn is_place(span: Span) -> bool {
    RANGE.contains(span)
        && span.at.is_multiple_of(STEP)
        && (BYTES_MIN..=BYTES_MAX).contains(&span.bytes)
        && span.bytes.is_multiple_of(1 << 16)
}

/// Whether a heap of `bytes` bytes may be made, at `at` if that is given.
pub(super) fn may_be(bytes: usize, at: Option<usize>) -> bool {
    place(bytes, 0, 0, at, 0).is_some()
}

/// A place for a heap of `bytes` bytes that follows from a file's `inode` and the time `born`, so that two files rarely have one
/// place; or `at`, if that is given. Another one for each `turn`. `None` if there can be none.
pub(super) fn place(bytes: usize, inode: u64, born: u64, at: Option<usize>, turn: u64) -> Option<Span> {
    let step = bytes.checked_next_power_of_two()?.max(STEP);
    let places = (RANGE.bytes / step) as u64;
    let mixed = (inode ^ born.rotate_left(32)).wrapping_add(turn).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let chosen = || RANGE.at + (mixed % places.max(1)) as usize * step;
    let span = Span { at: at.unwrap_or_else(chosen), bytes };
    is_place(span).then_some(span)
}
