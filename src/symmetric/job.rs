//! Who is in a job: a directory that all PEs of one machine have mapped. In it each finds the others, they exchange the keys of their
//! heaps' memory, tell each other words, wait for each other, and learn that one has died.
//!
//! The directory is a file without a name, of whoever started the job (`launch.rs`); PEs find it by what their environment says. A PE that
//! nobody has started is a job of its own, and its directory plain memory.

use super::error::SymmetricError;
use super::transport::WORDS;
use crate::os::{self, HeapFile, Span, futex_wait, futex_wake_all};
use crate::sync::{AcqRel, Acquire, AtomicU32, AtomicU64, Relaxed, Release};
use core::ptr::NonNull;
use std::env;
use std::ffi::CString;
use std::format;
use std::string::String;
use std::time::{Duration, Instant};

/// PEs of a job.
pub(super) const PES: usize = 1024;
/// Segments of memory that a PE shares: its heap, and the variables of its program.
pub(super) const SEGMENTS: usize = 2;
/// Where a PE finds its job's directory.
pub(super) const JOB: &str = "STRATALLOC_JOB";
/// Where a PE finds its number.
pub(super) const PE: &str = "STRATALLOC_PE";

const MAGIC: u64 = u64::from_ne_bytes(*b"stratPE1");

/// Rounds in which a PE that waits does not sleep: for long enough that a barrier of PEs that all run needs no call of the system's.
const SPINS: u32 = 2000;
/// How long PEs have to end by themselves, once the job has: then they are killed.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// A PE that sleeps looks after so many milliseconds whether the job has ended.
const LOOK: i64 = 100;

/// What the job has once. All zero bits, but for what `make` writes.
#[derive(Debug)]
#[repr(C, align(128))]
struct Head {
    magic: AtomicU64,
    pes: AtomicU32,
    /// Whether PEs spin before they sleep: there is a processor for each.
    spins: AtomicU32,
    /// The process that started the job; 0 if nobody did.
    launcher: AtomicU32,
    /// PEs that have come to the barrier, in a line of its own.
    arrived: Line,
    /// How many barriers there have been: what PEs wait for.
    turn: Line,
    /// PEs that sleep in one.
    sleepers: Line,
    /// 1 once the job is to end, whatever PEs still wait for; and the status then.
    ended: AtomicU32,
    status: AtomicU32,
}

#[derive(Debug)]
#[repr(C, align(128))]
struct Line(AtomicU32);

/// What is known of a PE.
#[derive(Debug)]
#[repr(C, align(128))]
pub(super) struct Place {
    /// What it tells the others, for gathers of even and of odd number: so that nobody waits for all to have read. Each
    /// is a line of the cache.
    words: [[AtomicU64; WORDS]; 2],
    /// What the PE has done: see the constants of [`Place`].
    state: AtomicU32,
    /// The number of its process, and of its segments' files there: the keys of its memory.
    process: AtomicU32,
    files: [AtomicU32; SEGMENTS],
}

impl Place {
    /// It has come, it could not initialise, it has finalised, and it is none since another one could not initialise.
    pub(super) const HERE: u32 = 1;
    pub(super) const FAILED: u32 = 2;
    pub(super) const LEFT: u32 = 3;
    pub(super) const OUT: u32 = 4;
}

/// A job, as one of its PEs or the one who started it has it.
#[derive(Debug)]
pub(super) struct Job {
    head: NonNull<Head>,
    span: Span,
    me: usize,
    pes: usize,
    gathers: AtomicU64,
}

// SAFETY: the directory is atomics, and mapped while this lives.
unsafe impl Send for Job {}
// SAFETY: as above.
unsafe impl Sync for Job {}

/// Bytes of a directory.
fn bytes_for(pes: usize) -> usize {
    (size_of::<Head>() + pes * size_of::<Place>()).next_multiple_of(os::page_bytes())
}

impl Job {
    /// A directory for `pes` PEs, in a file for all of them.
    pub(super) fn make(pes: usize) -> Result<(HeapFile, Self), SymmetricError> {
        let bytes = bytes_for(pes);
        let file = HeapFile::nameless(c"stratalloc job").map_err(SymmetricError::of("make a file in memory"))?;
        file.set_bytes(bytes as u64).map_err(SymmetricError::of("make a file in memory"))?;
        let span = file.map_anywhere(bytes).map_err(SymmetricError::of("map the job's directory"))?;
        let job = Self::at(span, pes, pes).ok_or(SymmetricError::Job { why: "the job's directory has no place" })?;
        job.head().launcher.store(std::process::id(), Relaxed);
        job.begin();
        Ok((file, job))
    }

    /// The directory of a PE that is alone.
    pub(super) fn alone() -> Result<Self, SymmetricError> {
        let span =
            os::map(bytes_for(1)).ok_or(SymmetricError::System { what: "map memory", errno: os::errno::ENOMEM })?;
        let job = Self::at(span, 0, 1).ok_or(SymmetricError::Job { why: "the job's directory has no place" })?;
        job.begin();
        Ok(job)
    }

    /// The job that the environment names, if it does: this process is one of its PEs.
    pub(super) fn of_environment() -> Result<Option<Self>, SymmetricError> {
        let (Some(path), Some(pe)) = (env::var_os(JOB), env::var_os(PE)) else { return Ok(None) };
        let wrong = |why| SymmetricError::Job { why };
        let pe: Option<usize> = pe.to_str().and_then(|text| text.parse().ok());
        let me = pe.filter(|pe| *pe < PES).ok_or(wrong("STRATALLOC_PE is no number of a PE"))?;
        let path = path.into_string().ok().and_then(|path: String| CString::new(path).ok());
        let path = path.ok_or(wrong("STRATALLOC_JOB is no path"))?;
        let file = HeapFile::there(&path).map_err(|_| wrong("the directory that STRATALLOC_JOB names is not there"))?;
        let bytes = file.bytes().unwrap_or(0) as usize;
        if bytes < bytes_for(1) {
            return Err(wrong("what STRATALLOC_JOB names is no job's directory"));
        }
        let span = file.map_anywhere(bytes).map_err(SymmetricError::of("map the job's directory"))?;
        let mut job = Self::at(span, me, 1).ok_or(wrong("the job's directory has no place"))?;
        let pes = job.head().pes.load(Relaxed) as usize;
        // Acquire: pairs with `begin`.
        if job.head().magic.load(Acquire) != MAGIC || bytes != bytes_for(pes) || me >= pes {
            return Err(wrong("what STRATALLOC_JOB names is no directory of a job that has this PE"));
        }
        job.pes = pes;
        let place = job.place(me);
        if place.state.compare_exchange(0, Place::HERE, AcqRel, Relaxed).is_err() {
            return Err(wrong("the PE that STRATALLOC_PE names has begun already, or has ended"));
        }
        // Relaxed, as the keys are: read behind a barrier.
        place.process.store(std::process::id(), Relaxed);
        Ok(Some(job))
    }

    fn at(span: Span, me: usize, pes: usize) -> Option<Self> {
        let head = NonNull::new(core::ptr::with_exposed_provenance_mut(span.at))?;
        Some(Self { head, span, me, pes, gathers: AtomicU64::new(0) })
    }

    fn begin(&self) {
        let processors = std::thread::available_parallelism().map_or(1, core::num::NonZero::get);
        self.head().pes.store(self.pes as u32, Relaxed);
        self.head().spins.store(u32::from(self.pes <= processors), Relaxed);
        // Release: pairs with `of_environment`.
        self.head().magic.store(MAGIC, Release);
    }

    fn head(&self) -> &Head {
        // SAFETY: mapped while this lives, all atomics.
        unsafe { self.head.as_ref() }
    }

    /// What is known of PE `pe`, which there is.
    fn place(&self, pe: usize) -> &Place {
        let first = self.head.as_ptr().wrapping_add(1).cast::<Place>();
        // SAFETY: the places lie behind the head; there are that many.
        unsafe { &*first.wrapping_add(pe.min(self.pes.saturating_sub(1))) }
    }

    pub(super) fn me(&self) -> usize {
        self.me
    }

    pub(super) fn pes(&self) -> usize {
        self.pes
    }

    /// Says what file a segment of this PE is.
    pub(super) fn set_key(&self, segment: usize, file: &HeapFile) {
        self.place(self.me).files[segment % SEGMENTS].store(file.number().word() as u32, Relaxed);
    }

    /// The file of a segment of another PE, which has told its key before the last barrier.
    pub(super) fn file_of(&self, pe: usize, segment: usize) -> Result<HeapFile, SymmetricError> {
        let place = self.place(pe);
        let number = place.files[segment % SEGMENTS].load(Relaxed);
        let path = format!("/proc/{}/fd/{number}", place.process.load(Relaxed));
        let path = CString::new(path).map_err(|_| SymmetricError::Job { why: "the key of another PE is none" })?;
        HeapFile::there(&path).map_err(SymmetricError::of("open the memory of another PE, by its number in /proc"))
    }

    /// Says what this PE has done.
    pub(super) fn set_state(&self, state: u32) {
        // Release: pairs with `state_of`.
        self.place(self.me).state.store(state, Release);
    }

    /// This PE has finalised; one that could not initialise stays such.
    pub(super) fn leave(&self) {
        let _ = self.place(self.me).state.compare_exchange(Place::HERE, Place::LEFT, Release, Relaxed);
    }

    /// What PE `pe` has done; 0 if it has not come.
    pub(super) fn state_of(&self, pe: usize) -> u32 {
        self.place(pe).state.load(Acquire)
    }

    /// The first PE that could not initialise.
    pub(super) fn failed(&self) -> Option<usize> {
        (0..self.pes).find(|pe| self.state_of(*pe) == Place::FAILED)
    }

    /// Ends the job with this status: PEs that wait do not wait any more.
    pub(super) fn end(&self, status: i32) {
        self.head().status.store(status as u32, Relaxed);
        // Release: the status is there; pairs with `ended`.
        self.head().ended.store(1, Release);
        futex_wake_all(&self.head().turn.0);
    }

    /// The status that the job is to end with, if it is to end.
    pub(super) fn ended(&self) -> Option<i32> {
        (self.head().ended.load(Acquire) == 1).then(|| self.head().status.load(Relaxed) as i32)
    }

    /// Waits until all PEs are here. If the job ends meanwhile, this does not return: whoever started it ends the process.
    pub(super) fn barrier(&self) {
        let head = self.head();
        // Acquire and Release: what all have done before is there behind it.
        let turn = head.turn.0.load(Acquire);
        if head.arrived.0.fetch_add(1, AcqRel) as usize + 1 == self.pes {
            head.arrived.0.store(0, Relaxed);
            head.turn.0.fetch_add(1, AcqRel);
            // Pairs with the one in `rest_at`: who goes to sleep sees the turn, or is seen.
            crate::sync::full_fence();
            if head.sleepers.0.load(Relaxed) > 0 {
                futex_wake_all(&head.turn.0);
            }
            return;
        }
        let mut round = 0;
        while head.turn.0.load(Acquire) == turn {
            self.rest_at(round, turn);
            round += 1;
        }
    }

    /// A rest in a loop that waits, the first of them short. It does not return once the job has ended.
    pub(super) fn rest(&self, round: u32) {
        if round.is_multiple_of(256) {
            self.stay_if_ended();
        }
        match round {
            0..SPINS if self.head().spins.load(Relaxed) == 1 => core::hint::spin_loop(),
            0..100_000 => os::yield_now(),
            _ => {
                self.end_if_orphaned();
                os::rest();
            }
        }
    }

    /// The same, for who waits for the barrier of number `turn`.
    fn rest_at(&self, round: u32, turn: u32) {
        let head = self.head();
        let spins = if head.spins.load(Relaxed) == 1 { SPINS } else { 0 };
        if round < spins {
            core::hint::spin_loop();
            return;
        }
        self.stay_if_ended();
        if round > spins {
            // It has slept once: who has to wait long looks whether there is anybody to wait for.
            self.end_if_orphaned();
        }
        head.sleepers.0.fetch_add(1, Relaxed);
        // Pairs with the one in `barrier`.
        crate::sync::full_fence();
        if head.turn.0.load(Acquire) == turn {
            futex_wait(&head.turn.0, turn, LOOK);
        }
        head.sleepers.0.fetch_sub(1, Relaxed);
    }

    /// Ends this process if whoever started the job is no more.
    fn end_if_orphaned(&self) {
        let launcher = self.head().launcher.load(Relaxed);
        if launcher != 0 && !os::is_process(launcher) {
            os::exit_now(1);
        }
    }

    /// Does nothing any more once the job has ended: whoever started it ends this process, too. One that is no child of that one's ends by
    /// itself, after a while.
    fn stay_if_ended(&self) {
        if let Some(status) = self.ended() {
            let begun = Instant::now();
            while begun.elapsed() < 2 * GRACE {
                os::rest();
            }
            os::exit_now(status.max(1));
        }
    }

    /// Tells all PEs `mine`, and calls `each` with what each has told. A barrier.
    pub(super) fn gather(&self, mine: [u64; WORDS], each: &mut dyn FnMut(usize, [u64; WORDS])) {
        // A PE writes words of the same parity again only after the next gather's barrier, to which all come after they have read.
        let parity = (self.gathers.fetch_add(1, Relaxed) % 2) as usize;
        for (word, value) in self.place(self.me).words[parity].iter().zip(mine) {
            word.store(value, Relaxed);
        }
        self.barrier();
        for pe in 0..self.pes {
            each(pe, core::array::from_fn(|at| self.place(pe).words[parity][at].load(Relaxed)));
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        os::unmap(self.span);
    }
}
