//! Symmetric heaps: processes that each have a heap at the same addresses, and reach into those of the others.
//!
//! The processes of a job are its *processing elements* (PEs), numbered from 0 on. All of them call [`malloc`] and its like together
//! (*collectively*), with the same arguments; so their heaps stay alike, and an object has the same address on each: it is *symmetric*. By
//! that address a PE can [`put`] to the object of another PE, [`get`] from it, and change words of it by atomic operations, without the
//! other doing anything. [`barrier_all`] is where they wait for each other. OpenSHMEM 1.5 is the law of it.
//!
//! ```text
//!    SymBox, SymSlice (owned.rs)      shmem_ names of C (c_symmetric/)
//!                     \               /
//!                      calls (mod.rs)
//!                            |
//!                       world.rs        what is collective, and who is called
//!                     /          \
//!            memheap.rs          transport.rs            seams
//!           /     |     \              |
//!   strata.rs buddy.rs ptmalloc.rs   local.rs            shared memory of one machine
//!                                      |
//!                                   job.rs <- launch.rs  who is there, keys, barrier, death
//! ```
//!
//! A program is started by `stratalloc run -n 4 -- PROGRAM`, or by [`launch`]; started alone it is a job of one PE.
//!
//! ```
//! use stratalloc::symmetric::{self, SymSlice};
//!
//! symmetric::init()?;
//! let (me, pes) = (symmetric::my_pe(), symmetric::n_pes());
//! let squares = SymSlice::<u64>::new(pes)?;
//! // Everybody tells everybody its square.
//! for pe in 0..pes {
//!     squares.put(pe, me, &[(me * me) as u64])?;
//! }
//! symmetric::barrier_all();
//! assert!(squares.to_vec().iter().enumerate().all(|(pe, square)| *square == (pe * pe) as u64));
//! drop(squares);
//! symmetric::finalize()?;
//! # Ok::<(), symmetric::SymmetricError>(())
//! ```
//!
//! **Which component serves** is chosen when the heap is made: of those in [`memheap::COMPONENTS`], and any of the program's own, the one of
//! highest priority that will. `STRATALLOC_MEMHEAP=buddy` chooses another, `STRATALLOC_MEMHEAP=buddy=50` gives another priority.
//!
//! **Deterministic.** What a component does follows from its calls alone. In builds with debug assertions, or with `SHMEM_DEBUG` set, PEs
//! compare each collective call before it does anything, and the addresses that come of it: where one makes another call the call fails on
//! all, with an error that names that PE and what it called.
//!
//! **Races.** Memory of a symmetric heap is written by others while this PE may read it. So [`SymSlice`] lends no references to it unless
//! asked to by an `unsafe` call: it copies. What a copy sees of a put that is not over yet may be a part of it.

mod buddy;
mod error;
mod front;
mod job;
mod launch;
mod local;
pub mod memheap;
mod owned;
mod ptmalloc;
mod settings;
mod strata;
pub mod transport;
mod world;

pub use bytemuck::Pod;
pub use error::{Call, SymmetricError};
pub use launch::{Outcome, launch};
pub use owned::{SymBox, SymSlice};
pub use settings::{BYTES, DEFAULT_BYTES, Settings, parse_size};

use core::ptr::NonNull;
use local::Local;
use memheap::{Component, Framework};
use std::boxed::Box;
use transport::{AtomicOp, Width};
use world::{World, world};

/// The result of a call.
type Result<T> = core::result::Result<T, SymmetricError>;

/// Makes this process a PE, with a heap as the environment says ([`Settings::from_environment`]): of the job that started it, or of a job of
/// its own. All PEs of a job call it together. A barrier.
///
/// # Errors
/// [`SymmetricError`] says what is wrong; on one PE alone, the others get [`SymmetricError::Peer`]. The process may try again only where it
/// is alone.
pub fn init() -> Result<()> {
    init_with(&Settings::from_environment().inspect_err(|_| Local::refuse())?, &[])
}

/// As [`init`], for a program in C: its global and static variables are symmetric objects, too.
#[cfg(feature = "c-symmetric")]
pub(crate) fn init_with_variables() -> Result<()> {
    init_with(&Settings::from_environment().inspect_err(|_| Local::refuse())?.with_variables(), &[])
}

/// As [`init`], with these settings, and more components than those of this crate.
///
/// # Errors
/// As those of [`init`].
pub fn init_with(settings: &Settings, more: &[&'static Component]) -> Result<()> {
    if world::get().is_some() {
        return Err(SymmetricError::Twice);
    }
    let page = crate::os::page_bytes();
    let bytes = settings.bytes.checked_next_multiple_of(page).unwrap_or(usize::MAX);
    let local = Local::init(bytes, settings.variables)?;
    world::enter(Box::new(local), &Framework::open(more), settings)
}

/// As [`init_with`], over a transport of the caller's, which has the heap and knows the other PEs. It has nothing of the size in `settings`.
///
/// # Errors
/// Those of components. The transport is finalised then.
pub fn init_over(
    transport: Box<dyn transport::Transport>,
    settings: &Settings,
    more: &[&'static Component],
) -> Result<()> {
    if world::get().is_some() {
        return Err(SymmetricError::Twice);
    }
    world::enter(transport, &Framework::open(more), settings)
}

/// Whether this process is a PE: it was initialised, and not finalised.
#[must_use]
pub fn is_initialized() -> bool {
    world::get().is_some()
}

/// Ends what [`init`] began: the heap goes, and whatever is in it. All PEs call it together; a barrier. The process goes on.
///
/// # Errors
/// [`SymmetricError::Differs`] where calls are compared, and the PE is one still; the system's.
pub fn finalize() -> Result<()> {
    world::leave()
}

/// The number of this PE, from 0 on. Before [`init`] this and all calls that follow end the process.
#[must_use]
#[inline]
pub fn my_pe() -> usize {
    world().transport().my_pe()
}

/// How many PEs there are.
#[must_use]
#[inline]
pub fn n_pes() -> usize {
    world().transport().n_pes()
}

/// The name of the component that manages the heap.
#[must_use]
pub fn component() -> &'static str {
    world().component()
}

/// Where the heap lies, on every PE.
#[must_use]
pub fn heap() -> crate::os::Span {
    world().transport().heap()
}

/// Waits until all PEs are here; what was put before has arrived then. O(PEs).
///
/// Where calls are compared and another PE makes another one, this PE says so on file descriptor 2, and goes on: see [`try_barrier_all`].
pub fn barrier_all() {
    if let Err(error) = try_barrier_all() {
        crate::fatal::tell(&std::format!("stratalloc: {error}\n"));
    }
}

/// As [`barrier_all`].
///
/// # Errors
/// [`SymmetricError::Differs`] where calls are compared.
pub fn try_barrier_all() -> Result<()> {
    world().barrier_all()
}

/// What was put to one PE arrives before what is put to it later.
pub fn fence() {
    world().transport().fence();
}

/// Waits until all that this PE has put has arrived.
pub fn quiet() {
    world().transport().quiet();
}

/// Ends all PEs, with this status.
pub fn global_exit(status: i32) -> ! {
    world().transport().exit_all(status)
}

/// A block of at least `bytes` bytes on every PE, at one address, aligned to 16 bytes; of 0 bytes a null pointer, without a barrier. All
/// PEs call it together. A barrier when it is done. O(PEs), and what the component needs.
///
/// # Errors
/// [`SymmetricError::NoRoom`], on all PEs; where calls are compared, that they differ.
pub fn malloc(bytes: usize) -> Result<*mut u8> {
    world().malloc(bytes)
}

/// A block of `count` times `bytes` bytes that are zero; else as [`malloc`].
///
/// # Errors
/// As those of [`malloc`].
pub fn calloc(count: usize, bytes: usize) -> Result<*mut u8> {
    world().calloc(count, bytes)
}

/// A block at a multiple of `alignment`, a power of two from 8 on; else as [`malloc`].
///
/// # Errors
/// [`SymmetricError::Alignment`], and those of [`malloc`].
pub fn align(alignment: usize, bytes: usize) -> Result<*mut u8> {
    world().align(alignment, bytes)
}

/// It is for atomics: see [`malloc_with_hints`].
pub const HINT_ATOMICS: u64 = 1;
/// It is for signals.
pub const HINT_SIGNAL: u64 = 2;

/// A block for what the `hints` say, of [`HINT_ATOMICS`] and [`HINT_SIGNAL`]: it has lines of the cache for itself. With 0, and in all else,
/// as [`malloc`].
///
/// # Errors
/// [`SymmetricError::Hints`], and those of [`malloc`].
pub fn malloc_with_hints(bytes: usize, hints: u64) -> Result<*mut u8> {
    world().malloc_with_hints(bytes, hints)
}

/// Makes a block one of `bytes` bytes, and returns where it is then, on all PEs: what was in it is kept, up to the smaller size. Of a null
/// pointer it makes a new block; with 0 bytes it frees the block, and returns a null pointer. Barriers at its begin and its end.
///
/// # Safety
/// - Nobody uses the block, on whatever PE, once the last PE has come.
///
/// # Errors
/// [`SymmetricError::NoRoom`]: the block is as it was, on all PEs; [`SymmetricError::NoBlock`]; where calls are compared, that they differ.
pub unsafe fn realloc(block: *mut u8, bytes: usize) -> Result<*mut u8> {
    world().realloc(block, bytes)
}

/// Frees a block on all PEs; of a null pointer nothing. A barrier at its begin.
///
/// # Safety
/// - Nobody uses the block, on whatever PE, once the last PE has come.
///
/// # Errors
/// [`SymmetricError::NoBlock`], as far as the component can tell; where calls are compared, that they differ.
pub unsafe fn free(block: *mut u8) -> Result<()> {
    world().free(block)
}

/// Gives the memory of free pages back to the system, on all PEs. All call it together; a barrier.
///
/// # Errors
/// Where calls are compared, that they differ.
pub fn collect() -> Result<()> {
    world().collect()
}

/// Where this process can load and store what is at `at` on PE `pe`; `None` if that lies in no symmetric heap, or the PE is out of reach.
#[must_use]
pub fn ptr<T>(at: *const T, pe: usize) -> Option<NonNull<T>> {
    let world = world();
    world.verify(at as usize, size_of::<T>(), pe).ok()?;
    world.transport().ptr(at as usize, pe).map(NonNull::cast)
}

/// Whether `at` is a symmetric address that PE `pe` can be reached by.
#[must_use]
pub fn addr_accessible<T>(at: *const T, pe: usize) -> bool {
    world().verify(at as usize, size_of::<T>().max(1), pe).is_ok()
}

/// Copies `source` to `dest` on PE `pe`. `source` is free again once it returns; [`quiet`] says when all has arrived. O(bytes).
///
/// # Safety
/// - What is at `dest` is a live symmetric object of so many `T`s, and what others do with it meanwhile is theirs to order.
///
/// # Errors
/// [`SymmetricError::Pe`], [`SymmetricError::NotSymmetric`]: nothing was copied.
#[inline]
pub unsafe fn put<T: Copy>(dest: *mut T, source: &[T], pe: usize) -> Result<()> {
    // SAFETY: the source is a slice; the rest is the caller's promise.
    unsafe { put_bytes(dest as usize, source.as_ptr().cast(), size_of_val(source), pe) }
}

/// Copies what is at `source` on PE `pe` to `dest`. O(bytes).
///
/// # Safety
/// - What is at `source` is a live symmetric object of so many `T`s, and they are valid ones whatever others write meanwhile.
///
/// # Errors
/// [`SymmetricError::Pe`], [`SymmetricError::NotSymmetric`]: nothing was copied.
#[inline]
pub unsafe fn get<T: Copy>(dest: &mut [T], source: *const T, pe: usize) -> Result<()> {
    // SAFETY: the destination is a slice.
    unsafe { get_bytes(dest.as_mut_ptr().cast(), source as usize, size_of_val(dest), pe) }
}

/// As [`put`], of bytes.
///
/// # Safety
/// - As those of [`put`]; `source` is so many readable bytes.
#[inline]
pub(crate) unsafe fn put_bytes(dest: usize, source: *const u8, bytes: usize, pe: usize) -> Result<()> {
    // SAFETY: handed on.
    unsafe { world().put(dest, source, bytes, pe) }
}

/// As [`get`], of bytes.
///
/// # Safety
/// - As those of [`get`]; `dest` is so many writable bytes.
#[inline]
pub(crate) unsafe fn get_bytes(dest: *mut u8, source: usize, bytes: usize, pe: usize) -> Result<()> {
    // SAFETY: handed on.
    unsafe { world().get(dest, source, bytes, pe) }
}

/// A word that atomic operations work on.
pub trait Word: Pod + PartialEq + sealed::Sealed {
    #[doc(hidden)]
    const WIDTH: Width;
    #[doc(hidden)]
    fn bits(self) -> u64;
    #[doc(hidden)]
    fn of(bits: u64) -> Self;
}

mod sealed {
    /// Words are known.
    pub trait Sealed {}
}

macro_rules! words {
    ($($type:ty: $width:ident),*) => {
        $(
            impl sealed::Sealed for $type {}
            impl Word for $type {
                const WIDTH: Width = Width::$width;
                #[inline]
                fn bits(self) -> u64 {
                    self as u64
                }
                #[inline]
                fn of(bits: u64) -> Self {
                    bits as Self
                }
            }
        )*
    };
}
words!(i32: Four, u32: Four, i64: Eight, u64: Eight, isize: Eight, usize: Eight);

/// Does `op` to the word at `at` on PE `pe`; what it was before.
#[inline]
///
/// # Safety
/// - As those of `atomic_of`.
unsafe fn atomic<T: Word>(op: AtomicOp, at: *const T, pe: usize) -> Result<T> {
    // SAFETY: whatever the word was, it is one; who calls has promised the rest.
    unsafe { atomic_of(op, at as usize, T::WIDTH, pe) }.map(T::of)
}

/// The same, of whatever type the word is.
///
/// # Safety
/// - A live symmetric word is at `at`, and nobody reads or writes it meanwhile but by such calls.
#[inline]
pub(crate) unsafe fn atomic_of(op: AtomicOp, at: usize, width: Width, pe: usize) -> Result<u64> {
    let world: &World = world();
    world.verify(at, width.bytes(), pe)?;
    if !at.is_multiple_of(width.bytes()) {
        return Err(SymmetricError::Misaligned { address: at });
    }
    // SAFETY: verified.
    Ok(unsafe { world.transport().atomic(op, at, width, pe) })
}

/// A rest in a loop that waits for another PE.
#[cfg(feature = "c-symmetric")]
pub(crate) fn rest(round: u32) {
    world().transport().rest(round);
}

/// The atomic operations. Each acts on the word at `at` of PE `pe` as one step for all others of these calls.
macro_rules! atomics {
    ($($(#[$meta:meta])* $name:ident($($argument:ident),*) -> $op:expr;)*) => {
        $(
            $(#[$meta])*
            ///
            /// # Safety
            /// - A live symmetric object is at `at`, and nobody reads or writes it meanwhile but by such calls.
            ///
            /// # Errors
            /// [`SymmetricError::Pe`], [`SymmetricError::NotSymmetric`], [`SymmetricError::Misaligned`]: nothing was done.
            #[inline]
            pub unsafe fn $name<T: Word>(at: *mut T $(, $argument: T)*, pe: usize) -> Result<T> {
                // SAFETY: the caller's promise.
                unsafe { atomic($op, at, pe) }
            }
        )*
    };
}
atomics! {
    /// The word.
    fetch() -> AtomicOp::Fetch;
    /// Makes the word `value`; what it was.
    swap(value) -> AtomicOp::Swap(value.bits());
    /// Adds to the word, wrapping; what it was.
    fetch_add(value) -> AtomicOp::Add(value.bits());
    /// Leaves the bits that are in `value`, too; what it was.
    fetch_and(value) -> AtomicOp::And(value.bits());
    /// Sets the bits of `value`; what it was.
    fetch_or(value) -> AtomicOp::Or(value.bits());
    /// Turns the bits of `value`; what it was.
    fetch_xor(value) -> AtomicOp::Xor(value.bits());
    /// Makes the word `new` if it is `expected`; what it was.
    compare_swap(expected, new) -> AtomicOp::CompareSwap { expected: expected.bits(), new: new.bits() };
}

/// Makes the word at `at` on PE `pe` this.
///
/// # Safety
/// - As those of [`swap`].
///
/// # Errors
/// As those of [`swap`].
#[inline]
pub unsafe fn set<T: Word>(at: *mut T, value: T, pe: usize) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { atomic(AtomicOp::Swap(value.bits()), at, pe) }.map(|_| ())
}

/// Waits until the word at `at` of this PE fulfils `condition`, as others change it; what it is then.
///
/// # Safety
/// - As those of [`fetch`].
///
/// # Errors
/// As those of [`fetch`].
pub unsafe fn wait_until<T: Word>(at: *const T, condition: impl Fn(T) -> bool) -> Result<T> {
    let mut round = 0;
    loop {
        // SAFETY: the caller's promise.
        let value = unsafe { atomic(AtomicOp::Fetch, at, my_pe()) }?;
        if condition(value) {
            return Ok(value);
        }
        world().transport().rest(round);
        round = round.saturating_add(1);
    }
}
