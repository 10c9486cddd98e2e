//! Backtraces, each kept once: a number stands for one in a record.
//!
//! The walk of a stack is dear, and most allocations come from where others came from before. A thread remembers stacks by
//! where they lay: the stack pointer, and in which words which return addresses were. While the same words hold the same
//! addresses, it is the same stack, and comparing them is all there is to do.

use super::frames::{Context, Frame, Stack, walk};
use crate::config::FRAMES_MAX;
use crate::lock::{Locked, Rank, Spin};
use crate::os;
use crate::sync::{Acquire, AtomicPtr, AtomicU32, AtomicUsize, Relaxed, Release};
use core::cell::{Cell, UnsafeCell};
use core::ptr::null_mut;

/// Words for backtraces: each has one for its length, and one for each address. As many as can be had, the first that can.
const WORDS: [usize; 3] = [1 << 25, 1 << 22, 1 << 19];
/// Words to a place in the table from a backtrace to its number.
const WORDS_TO_A_PLACE: usize = 64;
/// Places that are tried for one backtrace.
const PROBES: usize = 8;

/// All backtraces. What is not kept for lack of room is number 0.
#[derive(Debug)]
pub(super) struct Stacks {
    places: AtomicPtr<AtomicU32>,
    words: AtomicPtr<u64>,
    /// How many words there are.
    room: AtomicUsize,
    /// Words in use; word 0 is nobody's.
    used: Locked<usize, Spin>,
}

impl Stacks {
    pub(super) const fn new() -> Self {
        Self {
            places: AtomicPtr::new(null_mut()),
            words: AtomicPtr::new(null_mut()),
            room: AtomicUsize::new(0),
            used: Locked::new(Rank::Hunter, 1),
        }
    }

    pub(super) fn open(&self) -> bool {
        if self.words.load(Relaxed).is_null() {
            let found = WORDS.into_iter().find_map(|room| Some((room, os::map_sparse(room * 8)?)));
            let Some((room, words)) = found else { return false };
            let Some(places) = os::map_sparse(room / WORDS_TO_A_PLACE * 4) else {
                os::unmap(words);
                return false;
            };
            self.room.store(room, Relaxed);
            // Release: publishes zeroed memory.
            self.places.store(places.at as *mut AtomicU32, Release);
            self.words.store(words.at as *mut u64, Release);
        }
        true
    }

    /// The addresses of backtrace `number`, the innermost first.
    pub(super) fn get(&self, number: u32) -> &[u64] {
        let words = self.words.load(Relaxed);
        let room = self.room.load(Relaxed);
        if number == 0 || words.is_null() || number as usize >= room {
            return &[];
        }
        // SAFETY: the number lies in the words.
        let length = unsafe { words.wrapping_add(number as usize).read() } as u32 as usize;
        if length > FRAMES_MAX || number as usize + length >= room {
            return &[];
        }
        // SAFETY: as above, and `keep` wrote it before it gave the number away.
        let first = unsafe { words.add(number as usize + 1) };
        // SAFETY: as above; it is never written again.
        unsafe { core::slice::from_raw_parts(first, length) }
    }

    /// The number of a backtrace, which is kept if it is new.
    fn keep(&self, frames: &[Frame]) -> u32 {
        let places = self.places.load(Acquire);
        if frames.is_empty() || places.is_null() {
            return 0;
        }
        let mix = |hash: u64, frame: &Frame| {
            (hash ^ frame.address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
        };
        let hash = frames.iter().fold(frames.len() as u64, mix);
        let count = self.room.load(Relaxed) / WORDS_TO_A_PLACE;
        for probe in 0..PROBES {
            // SAFETY: there are that many places.
            let place = unsafe { places.add((hash as usize).wrapping_add(probe) % count) };
            // SAFETY: as above; they are there for good.
            let place = unsafe { &*place };
            // Acquire: pairs with `append`: the words are written.
            let number = match place.load(Acquire) {
                0 => self.append(place, frames),
                number => number,
            };
            if number == 0 || self.is(number, frames) {
                return number;
            }
        }
        0
    }

    fn is(&self, number: u32, frames: &[Frame]) -> bool {
        let kept = self.get(number);
        kept.len() == frames.len() && kept.iter().zip(frames).all(|(kept, frame)| *kept == frame.address as u64)
    }

    /// Keeps a backtrace, if `place` is still free; the number that is there then.
    #[cold]
    fn append(&self, place: &AtomicU32, frames: &[Frame]) -> u32 {
        let words = self.words.load(Relaxed);
        self.used.with(|used| {
            let there = place.load(Relaxed);
            if there != 0 || *used + frames.len() >= self.room.load(Relaxed) {
                return there;
            }
            let number = *used;
            let all = core::iter::once(frames.len() as u64).chain(frames.iter().map(|frame| frame.address as u64));
            for (index, word) in all.enumerate() {
                // SAFETY: there is room, as seen above, and the lock is held.
                unsafe { words.wrapping_add(number + index).write(word) };
            }
            *used = number + 1 + frames.len();
            // Release: publishes the words; pairs with `keep`.
            place.store(number as u32, Release);
            number as u32
        })
    }

    pub(super) fn hold(&self) {
        self.used.hold();
    }

    /// # Safety
    /// - This thread, or the one it was forked from, called `hold`.
    pub(super) unsafe fn let_go(&self) {
        // SAFETY: handed on.
        unsafe { self.used.let_go() };
    }
}

/// Stacks that a thread remembers, in sets of those among which one is looked for.
const SEEN: usize = 1024;
const SET: usize = 4;

/// A stack that was walked.
#[derive(Debug)]
#[repr(C)]
struct Seen {
    /// The stack pointer then; 0: none.
    pointer: usize,
    number: u32,
    count: u32,
    /// The last of `offsets`, which is the largest.
    last: u32,
    /// How far above the stack pointer each return address lay, and which it was.
    offsets: [u32; FRAMES_MAX],
    addresses: [usize; FRAMES_MAX],
}

/// What one thread remembers of its stacks. All zero bits are one that remembers nothing.
#[derive(Debug)]
pub(super) struct Memory {
    seen: UnsafeCell<[Seen; SEEN]>,
    /// For each kind of call: how far above the stack pointer the return address lies that tells stacks apart; 0 before the
    /// first walk. It is the same in all of them: what is called in between is this crate's.
    telling: [Cell<usize>; 2],
    /// Which of a set is forgotten next.
    next: Cell<usize>,
    stack: UnsafeCell<Stack>,
}

impl Memory {
    /// The number of the calling thread's backtrace, of up to `limit` frames; `kind` is 0 or 1, by who calls.
    #[inline(never)]
    pub(super) fn capture(&self, stacks: &Stacks, limit: usize, kind: usize) -> u32 {
        let context = Context::here();
        let pointer = context.sp();
        // SAFETY: a thread's memory is used by that thread alone, and nothing is called here that comes back.
        let stack = unsafe { &mut *self.stack.get() };
        // SAFETY: as above.
        let seen = unsafe { &mut *self.seen.get() };
        let telling = &self.telling[kind & 1];
        let set = set_of(stack, pointer, telling.get());
        let (sets, _) = seen.as_chunks_mut::<SET>();
        if let Some(seen) = sets[set].iter().find(|seen| seen.pointer == pointer && seen.is_there(stack)) {
            return seen.number;
        }
        let mut frames = [Frame::NONE; FRAMES_MAX];
        let count = walk(&context, stack, &mut frames[..limit]);
        let frames = &frames[..count];
        if telling.get() == 0 {
            telling.set(frames.get(TELLING).map_or(0, |frame| frame.slot.wrapping_sub(pointer)));
        }
        let next = self.next.get();
        self.next.set(next.wrapping_add(1));
        sets[set][next % SET].note(pointer, frames, stacks.keep(frames))
    }

    /// Another thread's from now on.
    pub(super) fn forget(&self) {
        // SAFETY: nobody uses it now.
        unsafe { *self.stack.get() = Stack::unknown() };
    }
}

/// Which frame tells stacks apart: the first that is not this crate's.
const TELLING: usize = 1;

/// The set in which a stack that ends at `pointer` is remembered.
#[inline(always)]
fn set_of(stack: &Stack, pointer: usize, telling: usize) -> usize {
    let word = stack.word(pointer, pointer.wrapping_add(telling)).unwrap_or(0);
    let mixed = (pointer as u64 ^ (word as u64).rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 48) as usize % (SEEN / SET)
}

impl Seen {
    /// Whether every word still holds the same address.
    #[inline(always)]
    fn is_there(&self, stack: &Stack) -> bool {
        let count = (self.count as usize).min(FRAMES_MAX);
        if !stack.reaches(self.pointer, self.pointer + self.last as usize) {
            return false;
        }
        let (offsets, addresses) = (&self.offsets[..count], &self.addresses[..count]);
        offsets.iter().zip(addresses).all(|(offset, address)| {
            let slot = (self.pointer + *offset as usize) as *const usize;
            // SAFETY: no further than the last, which can be read. It is this thread's own stack.
            (unsafe { slot.read_volatile() }) == *address
        })
    }

    fn note(&mut self, pointer: usize, frames: &[Frame], number: u32) -> u32 {
        // A stack that jumps about is not remembered.
        let offset = |frame: &Frame| u32::try_from(frame.slot.wrapping_sub(pointer)).ok();
        let rises = frames.windows(2).all(|pair| pair[0].slot < pair[1].slot);
        if !rises || frames.is_empty() || !frames.iter().all(|frame| offset(frame).is_some()) {
            self.pointer = 0;
            return number;
        }
        for (index, frame) in frames.iter().enumerate() {
            self.offsets[index] = offset(frame).unwrap_or(0);
            self.addresses[index] = frame.address;
        }
        self.last = self.offsets[frames.len() - 1];
        (self.pointer, self.number, self.count) = (pointer, number, frames.len() as u32);
        number
    }
}
