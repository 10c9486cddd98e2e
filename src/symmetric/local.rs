//! The transport between PEs of one machine: each has the heaps of all mapped, its own at the addresses that all agree on, and copies.

use super::error::SymmetricError;
use super::job::{Job, Place};
use super::settings::BYTES;
use super::transport::{AtomicOp, Transport, WORDS, Width};
use crate::os::{self, HeapFile, Span};
use crate::sync::{AcqRel, Acquire, AtomicU32, AtomicU64, AtomicUsize, Relaxed, full_fence};
use core::ptr::NonNull;
use std::vec::Vec;

/// Where every PE has its own heap.
const BASE: usize = 0x4000_0000_0000;

/// Bytes of a former heap of this process's there, which was finalised.
static SEALED: AtomicUsize = AtomicUsize::new(0);

/// A part of this PE's memory that all share, and where that of each PE is here.
#[derive(Debug)]
struct Segment {
    own: Span,
    bases: Vec<usize>,
}

/// The memory of all PEs, mapped by one of them.
#[derive(Debug)]
pub(super) struct Local {
    job: Job,
    /// The heap, and behind it what else is shared.
    segments: Vec<Segment>,
}

/// A part of this PE's memory, and its file for the others to map.
type Made = (Span, HeapFile);

impl Local {
    /// Comes into the job that the environment names, or begins one of one PE, with a heap of `bytes` bytes; and lets the others at the
    /// variables of the program, if it is to share them.
    pub(super) fn init(bytes: usize, shares_variables: bool) -> Result<Self, SymmetricError> {
        let job = Job::of_environment()?.map_or_else(Job::alone, Ok)?;
        let made = Self::make_heap(&job, bytes);
        let variables = if shares_variables { Self::share_variables(&job) } else { None };
        let length = variables.as_ref().map_or(0, |(span, _)| span.bytes as u64);
        // The keys are there behind this. All come to each barrier, whether or not they could do their part: so nobody waits for who
        // could not.
        let (mut unlike, mut failed, mut alike) = (None, None, true);
        let mine = [bytes as u64, u64::from(made.is_err()), length, 0, 0, 0, 0, 0];
        job.gather(mine, &mut |pe, [theirs, is_failed, their_length, ..]| {
            unlike = unlike.or((is_failed == 0 && theirs != bytes as u64).then_some((pe, theirs)));
            failed = failed.or((is_failed == 1).then_some(pe));
            // Of another program they are others.
            alike &= their_length == length;
        });
        // The files stay until all have opened them, whatever becomes of this PE; then they go, and their memory when nobody has it mapped.
        let (heap, heap_file) = made.map_or_else(|error| (Err(error), None), |(span, file)| (Ok(span), Some(file)));
        let (variables, more_file) = variables.map_or((None, None), |(span, file)| (Some(span), Some(file)));
        let result = heap.and_then(|heap| {
            let segments = match (unlike, failed) {
                (Some((pe, theirs)), _) => Err(SymmetricError::HeapsDiffer { pe, theirs, ours: bytes as u64 }),
                (None, Some(pe)) => Err(SymmetricError::Peer { pe }),
                (None, None) => Self::map_others(&job, heap, variables.filter(|_| alike)),
            };
            if segments.is_err() {
                os::unmap(heap);
            }
            segments
        });
        match &result {
            Ok(_) => {}
            Err(SymmetricError::Peer { .. }) => job.set_state(Place::OUT),
            Err(_) => job.set_state(Place::FAILED),
        }
        job.barrier();
        drop((heap_file, more_file));
        let this = Self { segments: result?, job };
        match this.job.failed() {
            Some(pe) => {
                this.job.set_state(Place::OUT);
                this.unmap();
                Err(SymmetricError::Peer { pe })
            }
            None => Ok(this),
        }
    }

    /// For a PE that cannot begin: the others of its job learn that, and do not wait.
    pub(super) fn refuse() {
        if let Ok(Some(job)) = Job::of_environment() {
            job.gather([0, 1, 0, 0, 0, 0, 0, 0], &mut |_, _| {});
            job.set_state(Place::FAILED);
            job.barrier();
        }
    }

    /// Makes this PE's heap, and tells its key.
    fn make_heap(job: &Job, bytes: usize) -> Result<Made, SymmetricError> {
        if !BYTES.contains(&bytes) {
            return Err(SymmetricError::NoRoom { bytes, heap: *BYTES.end() });
        }
        let file = HeapFile::nameless(c"stratalloc heap").map_err(SymmetricError::of("make a file in memory"))?;
        file.set_bytes(bytes as u64).map_err(SymmetricError::of("make a file in memory as long as the heap"))?;
        let heap = Span { at: BASE, bytes };
        // Of a time before, when this process was a job by itself.
        os::unmap(Span { at: BASE, bytes: SEALED.swap(0, Relaxed) });
        file.map(heap).map_err(SymmetricError::of("map the heap at the addresses of all PEs"))?;
        job.set_key(0, &file);
        Ok((heap, file))
    }

    /// Lets the others at the variables of the program, and tells their key; `None` where that cannot be: they are the program's alone then.
    fn share_variables(job: &Job) -> Option<Made> {
        let span = os::program_variables()?;
        let file = HeapFile::nameless(c"stratalloc variables").ok()?;
        file.set_bytes(span.bytes as u64).ok()?;
        job.set_key(1, &file);
        os::share_variables(span, &file).then_some((span, file))
    }

    /// Maps the memory of the others.
    fn map_others(job: &Job, heap: Span, more: Option<Span>) -> Result<Vec<Segment>, SymmetricError> {
        let mut segments = Vec::new();
        for (number, own) in [Some(heap), more].into_iter().flatten().enumerate() {
            let mut segment = Segment { own, bases: Vec::new() };
            let result = segment.map(job, number);
            segments.push(segment);
            if let Err(error) = result {
                segments.iter().for_each(|segment| segment.each_other(os::unmap));
                return Err(error);
            }
        }
        Ok(segments)
    }

    /// Unmaps all that is mapped but the program's own variables.
    fn unmap(&self) {
        self.segments.iter().for_each(|segment| segment.each_other(os::release));
        os::release(heap_of(&self.segments));
    }

    /// Gives all memory back; the addresses stay taken. So a thread that uses the heap after its end does not come to something else.
    fn seal(&self) {
        self.segments.iter().for_each(|segment| segment.each_other(os::reserve));
        let heap = heap_of(&self.segments);
        os::reserve(heap);
        SEALED.store(heap.bytes, Relaxed);
    }

    /// Where the byte at `at` of PE `pe` is here.
    #[inline]
    fn place(&self, at: usize, pe: usize) -> *mut u8 {
        let byte = Span { at, bytes: 0 };
        let segment = self.segments.iter().find(|segment| segment.own.contains(byte));
        let offset = |segment: &Segment| segment.bases.get(pe).map(|base| base + (at - segment.own.at));
        core::ptr::with_exposed_provenance_mut(segment.and_then(offset).unwrap_or(at))
    }
}

/// The heap among the segments.
fn heap_of(segments: &[Segment]) -> Span {
    segments.first().map_or(Span { at: BASE, bytes: 0 }, |segment| segment.own)
}

impl Segment {
    /// Maps those of the other PEs.
    fn map(&mut self, job: &Job, number: usize) -> Result<(), SymmetricError> {
        for pe in 0..job.pes() {
            let base = if pe == job.me() {
                self.own.at
            } else {
                let mapped = job.file_of(pe, number)?.map_anywhere(self.own.bytes);
                mapped.map_err(SymmetricError::of("map the memory of another PE"))?.at
            };
            self.bases.push(base);
        }
        Ok(())
    }

    /// Does `what` to those of the other PEs.
    fn each_other(&self, what: impl Fn(Span)) {
        let others = self.bases.iter().filter(|base| **base != self.own.at);
        others.for_each(|at| what(Span { at: *at, bytes: self.own.bytes }));
    }
}

/// Does `op` to a word.
macro_rules! operate {
    ($word:expr, $op:expr, $type:ty) => {
        match $op {
            AtomicOp::Fetch => $word.load(Acquire),
            AtomicOp::Swap(new) => $word.swap(new as $type, AcqRel),
            AtomicOp::Add(more) => $word.fetch_add(more as $type, AcqRel),
            AtomicOp::And(bits) => $word.fetch_and(bits as $type, AcqRel),
            AtomicOp::Or(bits) => $word.fetch_or(bits as $type, AcqRel),
            AtomicOp::Xor(bits) => $word.fetch_xor(bits as $type, AcqRel),
            AtomicOp::CompareSwap { expected, new } => {
                let result = $word.compare_exchange(expected as $type, new as $type, AcqRel, Acquire);
                result.unwrap_or_else(|old| old)
            }
        }
    };
}

// SAFETY: each heap is mapped as a whole; what is copied and changed is what was told.
unsafe impl Transport for Local {
    fn my_pe(&self) -> usize {
        self.job.me()
    }

    fn n_pes(&self) -> usize {
        self.job.pes()
    }

    fn heap(&self) -> Span {
        heap_of(&self.segments)
    }

    fn is_symmetric(&self, span: Span) -> bool {
        self.segments.iter().any(|segment| segment.own.contains(span))
    }

    fn ptr(&self, at: usize, pe: usize) -> Option<NonNull<u8>> {
        NonNull::new(self.place(at, pe))
    }

    unsafe fn put(&self, to: usize, from: *const u8, bytes: usize, pe: usize) {
        // SAFETY: the caller's promise. It may be a part of the same heap, and overlap.
        unsafe { core::ptr::copy(from, self.place(to, pe), bytes) };
    }

    unsafe fn get(&self, to: *mut u8, from: usize, bytes: usize, pe: usize) {
        // SAFETY: as above.
        unsafe { core::ptr::copy(self.place(from, pe), to, bytes) };
    }

    unsafe fn atomic(&self, op: AtomicOp, at: usize, width: Width, pe: usize) -> u64 {
        let word = self.place(at, pe);
        match width {
            Width::Eight => {
                // SAFETY: the word is there, and at a multiple of its width, as the caller promises.
                let word = unsafe { AtomicU64::from_ptr(word.cast()) };
                operate!(word, op, u64)
            }
            Width::Four => {
                // SAFETY: as above.
                let word = unsafe { AtomicU32::from_ptr(word.cast()) };
                u64::from(operate!(word, op, u32))
            }
        }
    }

    fn fence(&self) {
        full_fence();
    }

    fn quiet(&self) {
        full_fence();
    }

    fn barrier(&self) {
        self.job.barrier();
    }

    fn rest(&self, round: u32) {
        self.job.rest(round);
    }

    fn gather(&self, mine: [u64; WORDS], each: &mut dyn FnMut(usize, [u64; WORDS])) {
        self.job.gather(mine, each);
    }

    fn refuse(&self) {
        self.job.set_state(Place::FAILED);
    }

    fn exit_all(&self, status: i32) -> ! {
        self.job.end(status);
        std::process::exit(status)
    }

    fn finalize(&self) -> Result<(), SymmetricError> {
        self.seal();
        self.job.leave();
        Ok(())
    }
}
