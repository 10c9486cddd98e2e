//! What carries puts, gets, atomics and barriers between processing elements. Nothing above knows which it is.

use super::error::SymmetricError;
use crate::os::Span;
use core::fmt::Debug;
use core::ptr::NonNull;

/// What an atomic operation makes of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomicOp {
    /// It stays.
    Fetch,
    /// It is this.
    Swap(u64),
    /// This is added, wrapping.
    Add(u64),
    /// Bits that are in both.
    And(u64),
    /// Bits that are in either.
    Or(u64),
    /// Bits that are in one.
    Xor(u64),
    /// It is `new` if it was `expected`.
    CompareSwap {
        /// What it must be.
        expected: u64,
        /// What it is then.
        new: u64,
    },
}

/// How wide a word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// Four bytes.
    Four,
    /// Eight bytes.
    Eight,
}

impl Width {
    /// Bytes of such a word.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Four => 4,
            Self::Eight => 8,
        }
    }
}

/// Words that each PE tells all others in one [`Transport::gather`].
pub const WORDS: usize = 8;

/// A way between PEs.
///
/// Addresses are those of the heap in the calling PE: an object has the same one on every PE. Whoever calls has verified that the
/// PE exists and that the range is symmetric.
///
/// # Safety
/// - `heap` never changes, is whole pages, reads zero at first, is readable and writable on this PE, and is the transport's until it is finalised;
/// - puts, gets and atomics touch the ranges they are told, on the PE that they are told, and nothing else.
pub unsafe trait Transport: Send + Sync + Debug {
    /// The number of this PE, from 0 on.
    fn my_pe(&self) -> usize;

    /// How many there are.
    fn n_pes(&self) -> usize;

    /// Where this PE's heap lies; the others' have the same addresses.
    fn heap(&self) -> Span;

    /// Whether these addresses are those of a symmetric object: of the heap, or of what else this transport reaches.
    fn is_symmetric(&self, span: Span) -> bool {
        self.heap().contains(span)
    }

    /// Where the byte at `at` of PE `pe` can be loaded from and stored to by this one, if it can. O(1).
    fn ptr(&self, at: usize, pe: usize) -> Option<NonNull<u8>>;

    /// Copies `bytes` bytes from `from`, anywhere in this process, to `to` on PE `pe`. `from` may be written again once it returns.
    ///
    /// # Safety
    /// - `from` is so many readable bytes, and `to` so many symmetric ones.
    unsafe fn put(&self, to: usize, from: *const u8, bytes: usize, pe: usize);

    /// Copies `bytes` bytes from `from` on PE `pe` to `to`, anywhere in this process.
    ///
    /// # Safety
    /// - `to` is so many writable bytes, and `from` so many symmetric ones.
    unsafe fn get(&self, to: *mut u8, from: usize, bytes: usize, pe: usize);

    /// Does `op` to the word at `at` of PE `pe`, as one step for all who use atomics of that width; what it was before.
    ///
    /// # Safety
    /// - The word is symmetric, at a multiple of its width.
    unsafe fn atomic(&self, op: AtomicOp, at: usize, width: Width, pe: usize) -> u64;

    /// What was put before to one PE arrives there before what is put later.
    fn fence(&self);

    /// Waits until all that was put has arrived.
    fn quiet(&self);

    /// As `quiet`, and waits until all PEs are here.
    fn barrier(&self);

    /// A rest in a loop that waits for another PE: it does not return if the job has ended.
    fn rest(&self, round: u32);

    /// Tells all PEs `mine`, and calls `each` with what each has told, this one included. A barrier.
    fn gather(&self, mine: [u64; WORDS], each: &mut dyn FnMut(usize, [u64; WORDS]));

    /// This PE has no memory heap, and ends: said before the last barrier, so that whoever looks knows where it began.
    fn refuse(&self) {}

    /// Ends all PEs with this status.
    fn exit_all(&self, status: i32) -> !;

    /// The last call, once all PEs have passed a barrier: it gives everything back, the heap included.
    ///
    /// # Errors
    /// The system's.
    fn finalize(&self) -> Result<(), SymmetricError>;
}
