//! Backtraces, each kept once: a number stands for one in a record.
//!
//! The walk of a stack is dear, and most allocations come from where others came from before. A thread remembers stacks by
//! where they lay: the stack pointer, and in which words which return addresses were. While the same words hold the same
//! addresses, it is the same stack, and comparing them is all there is to do. Recursion makes new stacks all the time, which
//! differ far from where they end; if there are too many of them some are taken for one that was walked before, which has
//! the same depth and the same innermost frames, and their numbers say so.

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
        let number = number & !LIKE;
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
        let hash = frames.iter().fold(frames.len() as u64, |hash, frame| mix(hash, frame.address));
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

    /// Whether only the innermost frames of a stack are sure.
    pub(super) const fn is_like(number: u32) -> bool {
        number & LIKE != 0
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
            let (number, room) = (*used, self.room.load(Relaxed));
            // The last room is for the innermost frames alone, of which there are not so many.
            let frames = if number >= room / 8 * 7 { &frames[..frames.len().min(TELLING + NEAR)] } else { frames };
            if there != 0 || number + frames.len() >= room {
                return there;
            }
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
/// Innermost frames that are compared each time, at the most.
const COMPARED: usize = 16;
/// Innermost callers of this crate by which a stack is taken for another, where recursion makes new ones faster than they can be
/// walked.
pub(super) const NEAR: usize = 4;
/// Calls of which it is remembered how far up the stack the next one is, and innermost callers that were seen together.
const STEPS: usize = 256;
const LIKES: usize = 512;
/// Stacks that a thread walks within a step of its clock though it knows one like them: a few per cent of its time.
const WALKS: u32 = 4;
/// Set in the number of a stack of which only the `NEAR` innermost callers are sure.
const LIKE: u32 = 1 << 31;
/// Bytes that an offset is counted in.
const WORD: usize = size_of::<usize>();

/// A stack that was walked. It fills a line of the cache.
#[derive(Debug)]
#[repr(C, align(64))]
struct Seen {
    /// The stack pointer then; 0: none.
    pointer: usize,
    /// The mix of the return addresses that are compared.
    mixed: u64,
    number: u32,
    count: u16,
    /// How many words above the stack pointer each of them lay.
    offsets: [u16; COMPARED],
}

static_assertions::const_assert!(size_of::<Seen>() == 64 && WORDS[0] < LIKE as usize);

/// A call: its return address, and how many bytes above it the next one lies.
#[derive(Debug)]
struct Step {
    address: usize,
    up: usize,
}

/// A stack with these innermost callers.
#[derive(Debug)]
struct Like {
    /// The mix of their return addresses.
    mixed: u64,
    number: u32,
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
    steps: UnsafeCell<[Step; STEPS]>,
    likes: UnsafeCell<[Like; LIKES]>,
    /// The step of the clock in which stacks like known ones were walked last, and how many.
    walked: Cell<(u32, u32)>,
    stack: UnsafeCell<Stack>,
}

impl Memory {
    /// The number of the calling thread's backtrace, of up to `limit` frames, at the time `now`; `kind` is 0 or 1, by who
    /// calls.
    #[inline(never)]
    pub(super) fn capture(&self, stacks: &Stacks, limit: usize, kind: usize, now: u32) -> u32 {
        let context = Context::here();
        let pointer = context.sp();
        // SAFETY: a thread's memory is used by that thread alone, and nothing is called here that comes back.
        let stack = unsafe { &mut *self.stack.get() };
        // SAFETY: as above.
        let seen = unsafe { &mut *self.seen.get() };
        let telling = &self.telling[kind & 1];
        let set = set_of(stack, pointer, telling.get());
        let (sets, _) = seen.as_chunks_mut::<SET>();
        let seen = &mut sets[set];
        if let Some(seen) = seen.iter().find(|seen| seen.pointer == pointer && seen.is_there(stack)) {
            return seen.number;
        }
        let place = &mut seen[self.next.get() % SET];
        self.capture_new(stacks, limit, now, &context, stack, telling, place)
    }

    /// As `capture`, of a stack that is not remembered; it is in `place` if it is walked.
    #[inline(never)]
    #[allow(clippy::too_many_arguments, reason = "all that `capture` has")]
    fn capture_new(
        &self,
        stacks: &Stacks,
        limit: usize,
        now: u32,
        context: &Context,
        stack: &mut Stack,
        telling: &Cell<usize>,
        place: &mut Seen,
    ) -> u32 {
        // SAFETY: as `capture`.
        let (steps, likes) = unsafe { (&mut *self.steps.get(), &mut *self.likes.get()) };
        let near = near(steps, stack, context.sp(), telling.get());
        let like = &mut likes[near as usize % LIKES];
        if near != 0 && like.mixed == near && !self.may_walk(now) {
            return like.number | LIKE;
        }
        self.next.set(self.next.get().wrapping_add(1));
        let mut frames = [Frame::NONE; FRAMES_MAX];
        let count = walk(context, stack, &mut frames[..limit]);
        let frames = &frames[..count];
        if telling.get() == 0 {
            telling.set(frames.get(TELLING).map_or(0, |frame| frame.slot.wrapping_sub(context.sp())));
        }
        for pair in frames.windows(2) {
            steps[step_of(pair[0].address)] =
                Step { address: pair[0].address, up: pair[1].slot.wrapping_sub(pair[0].slot) };
        }
        let number = stacks.keep(frames);
        place.note(context.sp(), frames, number);
        if number != 0
            && let Some(nearest) = frames.get(TELLING..TELLING + NEAR)
        {
            let mixed = nearest.iter().fold(0, |mixed, frame| mix(mixed, frame.address));
            likes[mixed as usize % LIKES] = Like { mixed, number };
        }
        number
    }

    /// Whether there is time to walk a stack that is like another.
    fn may_walk(&self, now: u32) -> bool {
        let (then, walks) = self.walked.get();
        let walks = if then == now { walks } else { 0 };
        self.walked.set((now, walks + 1));
        walks < WALKS
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
    let mixed = (pointer as u64 ^ (word as u64).rotate_left(32)).wrapping_mul(MIX);
    (mixed >> 48) as usize % (SEEN / SET)
}

/// The place of a call among the steps.
#[inline(always)]
fn step_of(address: usize) -> usize {
    ((address as u64).wrapping_mul(MIX) >> 32) as usize % STEPS
}

/// The mix of the addresses of the innermost callers of the stack that ends at `pointer`, by steps that are remembered; 0 if
/// they are not known.
#[inline(always)]
fn near(steps: &[Step; STEPS], stack: &Stack, pointer: usize, telling: usize) -> u64 {
    let (mut slot, mut mixed) = (pointer.wrapping_add(telling), 0);
    for _ in 0..NEAR {
        let Some(address) = stack.word(pointer, slot) else { return 0 };
        mixed = mix(mixed, address);
        let step = &steps[step_of(address)];
        if step.address != address {
            return 0;
        }
        slot = slot.wrapping_add(step.up);
    }
    mixed
}

const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// `mixed` with one more address.
#[inline(always)]
fn mix(mixed: u64, address: usize) -> u64 {
    (mixed ^ address as u64).wrapping_mul(MIX).rotate_left(29)
}

impl Seen {
    /// Whether the words that are compared still hold the same addresses.
    #[inline(always)]
    fn is_there(&self, stack: &Stack) -> bool {
        let offsets = &self.offsets[..usize::from(self.count).min(COMPARED)];
        let last = offsets.last().map_or(0, |last| usize::from(*last));
        if !stack.reaches(self.pointer, self.pointer + last * WORD) {
            return false;
        }
        let mixed = offsets.iter().fold(0, |mixed, offset| {
            let slot = (self.pointer + usize::from(*offset) * WORD) as *const usize;
            // SAFETY: no further than the last, which can be read. It is this thread's own stack.
            mix(mixed, unsafe { slot.read_volatile() })
        });
        mixed == self.mixed
    }

    fn note(&mut self, pointer: usize, frames: &[Frame], number: u32) {
        let compared = &frames[..frames.len().min(COMPARED)];
        // A stack that jumps about, or is far from its words, is not remembered.
        let offset = |frame: &Frame| u16::try_from(frame.slot.wrapping_sub(pointer) / WORD).ok();
        let rises = compared.windows(2).all(|pair| pair[0].slot < pair[1].slot);
        if !rises || compared.is_empty() || !compared.iter().all(|frame| offset(frame).is_some()) {
            self.pointer = 0;
            return;
        }
        for (place, frame) in self.offsets.iter_mut().zip(compared) {
            *place = offset(frame).unwrap_or(0);
        }
        self.mixed = compared.iter().fold(0, |mixed, frame| mix(mixed, frame.address));
        (self.pointer, self.number, self.count) = (pointer, number, compared.len() as u16);
    }
}
