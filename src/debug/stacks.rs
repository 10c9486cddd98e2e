//! Backtraces, each kept once: a number stands for one in a record.
//!
//! The walk of a stack is dear, and most allocations come from where others came from before. A thread remembers stacks by
//! where they lay: the stack pointer, and in which words which return addresses were. While the same words hold the same
//! addresses, it is the same stack, and comparing them is all there is to do. Recursion makes new stacks all the time, which
//! differ far from where they end; if there are too many of them some are taken for one that was walked before, which has
//! the same depth and the same innermost frames, and their numbers say so.

use super::frames::{Above, Context, Frame, Stack, stack_pointer, walk};
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
        let hash = mix(frames.iter().map(|frame| frame.address)) >> 32;
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
            let frames = if number >= room / 8 * 7 { &frames[..frames.len().min(FIRST + NEAR)] } else { frames };
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
/// Where there are no more than so many, fewer places are looked at.
const FEW: usize = 8;
/// Innermost callers of this crate by which a stack is taken for another, where recursion makes new ones faster than they can be
/// walked.
pub(super) const NEAR: usize = 5;
/// Calls of which it is remembered how far up the stack the next one is, and innermost callers that were seen together.
const STEPS: usize = 256;
const LIKES: usize = 512;
/// Stacks that a thread walks within a step of its clock though it knows one like them: a few per cent of its time.
const WALKS: u32 = 4;
/// Frames of this crate's, more than the one that it has where calls in it are inlined: then the innermost callers are its
/// own, and tell no two stacks apart.
const OWN: usize = if cfg!(debug_assertions) { 12 } else { 0 };
/// Set in the number of a stack of which only the `NEAR` innermost callers are sure.
const LIKE: u32 = 1 << 31;
/// Bytes that an offset is counted in.
const WORD: usize = size_of::<usize>();

/// A stack that was walked. It fills a line of the cache.
#[derive(Debug)]
#[repr(C, align(64))]
struct Seen {
    /// The mix of the stack pointer then and of the first callers; 0: none.
    key: u64,
    /// The mix of the return addresses that are compared.
    mixed: u64,
    number: u32,
    /// How many words above the stack pointer the return addresses lay that are compared, upwards; in places that are left
    /// the last one again, so the last is always the largest.
    offsets: [u16; COMPARED],
    /// 1 if only the first `FEW` places are compared.
    is_short: u16,
}

static_assertions::const_assert!(size_of::<Seen>() == 64 && WORDS[0] < LIKE as usize);

/// A call: its return address, and how many bytes above it the next one lies.
#[derive(Clone, Copy, Debug)]
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

/// Where and when a stack is asked for.
struct Place {
    /// The stack pointer.
    pointer: usize,
    key: u64,
    limit: usize,
    now: u32,
    /// How far above it the return address to the first caller lies that is not this crate's, if that is known.
    caller: usize,
}

/// By which way a call came, of those that most come by: it always has the same frame of this crate's.
#[derive(Clone, Copy, Debug)]
pub(super) enum Door {
    Alloc,
    Free,
}

/// What one thread remembers of its stacks. All zero bits are one that remembers nothing.
#[derive(Debug)]
pub(super) struct Memory {
    seen: UnsafeCell<[Seen; SEEN]>,
    /// How far above the stack pointer `capture`'s own return address lies; 0 before the first walk.
    own: Cell<usize>,
    /// The step from there to the next return address, for each door.
    nearest: [Cell<Step>; 2],
    /// Which of a set is forgotten next.
    next: Cell<usize>,
    steps: UnsafeCell<[Step; STEPS]>,
    likes: UnsafeCell<[Like; LIKES]>,
    /// The step of the clock in which stacks like known ones were walked last, and how many.
    walked: Cell<(u32, u32)>,
    stack: UnsafeCell<Stack>,
}

impl Memory {
    /// The number of the calling thread's backtrace, of up to `limit` frames, at the time `now`.
    #[inline(never)]
    pub(super) fn capture(&self, door: Door, stacks: &Stacks, limit: usize, now: u32) -> u32 {
        let pointer = stack_pointer();
        // SAFETY: a thread's memory is used by that thread alone, and nothing is called here that comes back.
        let stack = unsafe { &mut *self.stack.get() };
        // SAFETY: as above.
        let seen = unsafe { &mut *self.seen.get() };
        // SAFETY: as above.
        let steps = unsafe { &*self.steps.get() };
        // The call of this function, and the callers of the one that it is in: the first may be a shim, so who calls that is
        // looked at, too.
        let above = stack.above(pointer);
        let own = self.own.get();
        let (address, nearest) = (above.word(own), self.nearest[door as usize].get());
        let caller = if nearest.address == address { own.wrapping_add(nearest.up) } else { self.enter(door, address) };
        let first = above.word(caller);
        let second = above.word(up(steps, first, caller));
        let key = key(pointer, first ^ second.rotate_left(16));
        let (sets, _) = seen.as_chunks_mut::<SET>();
        let seen = &mut sets[(key >> 48) as usize % (SEEN / SET)];
        for seen in &*seen {
            if seen.key == key && seen.is_there(above) {
                return seen.number;
            }
        }
        let place = &mut seen[self.next.get() % SET];
        self.capture_new(&Place { pointer, key, limit, now, caller }, stacks, stack, place)
    }

    /// How far up the return address lies above the one to `address`, from where `capture` is called now.
    #[cold]
    #[inline(never)]
    fn enter(&self, door: Door, address: usize) -> usize {
        // SAFETY: as in `capture`.
        let step = unsafe { &*self.steps.get() }[step_of(address)];
        if step.address != address {
            return usize::MAX;
        }
        self.nearest[door as usize].set(step);
        self.own.get().wrapping_add(step.up)
    }

    /// As `capture`, of a stack that is not remembered; it is in `place` if it is walked.
    #[inline(never)]
    fn capture_new(&self, at: &Place, stacks: &Stacks, stack: &mut Stack, place: &mut Seen) -> u32 {
        // SAFETY: as in `capture`.
        let steps = unsafe { &mut *self.steps.get() };
        // SAFETY: as above.
        let likes = unsafe { &mut *self.likes.get() };
        let near = near(steps, stack.above(at.pointer), at.caller);
        let like = &mut likes[(near >> 32) as usize % LIKES];
        if OWN == 0 && near != 0 && like.mixed == near && !self.may_walk(at.now) {
            return like.number | LIKE;
        }
        self.next.set(self.next.get().wrapping_add(1));
        // One more: the call of this function is none that is asked for.
        let mut frames = [Frame::NONE; FRAMES_MAX + 1];
        let count = walk(&Context::here(), stack, &mut frames[..=(at.limit + OWN).min(FRAMES_MAX)]);
        let own = frames[..count].iter().take_while(|frame| frame.slot < at.pointer).count();
        let frames = &frames[own..count];
        self.own.set(frames.first().map_or(0, |frame| frame.slot - at.pointer));
        for pair in frames.windows(2) {
            let (address, up) = (pair[0].address, pair[1].slot.wrapping_sub(pair[0].slot));
            steps[step_of(address)] = Step { address, up };
        }
        let number = stacks.keep(frames);
        place.note(at, frames, number);
        if number != 0
            && let Some(nearest) = frames.get(FIRST..FIRST + NEAR)
        {
            let mixed = mix(nearest.iter().map(|frame| frame.address));
            likes[(mixed >> 32) as usize % LIKES] = Like { mixed, number };
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

/// The frame of the first caller: the one before it is this crate's, which has the call of `capture` inlined.
const FIRST: usize = 1;

/// By what a stack is looked for that ends at `pointer` and has these first callers.
#[inline(always)]
fn key(pointer: usize, callers: usize) -> u64 {
    (pointer as u64 ^ (callers as u64).rotate_left(32)).wrapping_mul(MIX) | 1
}

/// The place of a call among the steps.
#[inline(always)]
fn step_of(address: usize) -> usize {
    address % STEPS
}

/// How far up the return address above `address` lies, which is `offset` bytes up itself, by the step that is remembered;
/// beyond every stack if there is none.
#[inline(always)]
fn up(steps: &[Step; STEPS], address: usize, offset: usize) -> usize {
    let step = &steps[step_of(address)];
    if step.address == address { offset.wrapping_add(step.up) } else { usize::MAX }
}

/// The mix of the addresses of the innermost callers of a stack, from the one `caller` bytes up on, by steps that are
/// remembered; 0 if they are not known.
#[inline(always)]
fn near(steps: &[Step; STEPS], above: Above, caller: usize) -> u64 {
    let (mut offset, mut nearest) = (caller, [0; NEAR]);
    for place in &mut nearest {
        *place = above.word(offset);
        if *place == 0 {
            return 0;
        }
        offset = up(steps, *place, offset);
    }
    mix(nearest.into_iter())
}

const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// What tells one sequence of addresses from another. (A sum of products: none waits for the one before.)
#[inline(always)]
fn mix(addresses: impl Iterator<Item = usize>) -> u64 {
    addresses
        .zip(&FACTORS)
        .fold(0, |mixed, (address, factor)| mixed.wrapping_add((address as u64).wrapping_mul(u64::from(*factor))))
}

/// A factor for each frame: odd, nowhere near each other, and no longer than an instruction takes.
const FACTORS: [u32; FRAMES_MAX] = {
    let mut factors = [0; FRAMES_MAX];
    let (mut factor, mut at) = (MIX, 0);
    while at < FRAMES_MAX {
        factors[at] = (factor >> 33) as u32 | 1;
        factor = factor.wrapping_mul(0xd129_0d3f_5a2b_8c35).rotate_left(23) | 1;
        at += 1;
    }
    factors
};

impl Seen {
    /// Whether the words that are compared still hold the same addresses.
    #[inline(always)]
    fn is_there(&self, above: Above) -> bool {
        // SAFETY: no further up than the last, which the stack has.
        let word = |offset: &u16| unsafe { above.word_unchecked(usize::from(*offset) * WORD) };
        above.has(usize::from(self.offsets[COMPARED - 1]) * WORD)
            && self.mixed
                == match self.offsets.first_chunk::<FEW>() {
                    Some(few) if self.is_short != 0 => mix(few.iter().map(word)),
                    _ => mix(self.offsets.iter().map(word)),
                }
    }

    fn note(&mut self, at: &Place, frames: &[Frame], number: u32) {
        let compared = &frames[..frames.len().min(COMPARED)];
        // A stack that jumps about, or is far from its words, is not remembered.
        let offset = |frame: &Frame| u16::try_from(frame.slot.wrapping_sub(at.pointer) / WORD).ok();
        let rises = compared.windows(2).all(|pair| pair[0].slot < pair[1].slot);
        let Some(last) = compared.last().filter(|_| rises && compared.iter().all(|frame| offset(frame).is_some()))
        else {
            self.key = 0;
            return;
        };
        let places = compared.iter().chain(core::iter::repeat(last)).take(COMPARED);
        for (place, frame) in self.offsets.iter_mut().zip(places.clone()) {
            *place = offset(frame).unwrap_or(0);
        }
        let is_short = compared.len() <= FEW;
        let addresses = places.map(|frame| frame.address).take(if is_short { FEW } else { COMPARED });
        (self.key, self.number, self.mixed) = (at.key, number, mix(addresses));
        self.is_short = u16::from(is_short);
    }
}
