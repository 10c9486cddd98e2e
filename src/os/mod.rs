//! The operating system, and the seam to it: a [`Source`] is where a heap's pages come from.
//!
//! [`Mmap`] is the process's own memory, [`Fixed`] a buffer of the caller's. Only this folder makes system calls.

#[cfg(all(feature = "std", not(loom)))]
mod agent;
#[cfg(all(any(feature = "shared", feature = "symmetric", feature = "hooks"), not(loom)))]
mod errors;
#[cfg(all(feature = "malloc-debug", feature = "std", not(loom)))]
mod faults;
#[cfg(all(feature = "malloc-debug", feature = "std", not(loom)))]
mod files;
mod fixed;
#[cfg(all(feature = "malloc-debug", feature = "std", not(loom)))]
mod guards;
#[cfg(all(any(feature = "shared", feature = "symmetric"), not(loom)))]
mod heap_file;
#[cfg(all(feature = "symmetric", not(loom)))]
mod jobs;
#[cfg(all(feature = "shared", not(loom)))]
mod locks;
#[cfg(all(feature = "malloc-debug", feature = "std", not(loom)))]
mod maps;
#[cfg(all(feature = "malloc-debug", feature = "std", not(loom)))]
mod memory;
#[cfg(all(feature = "malloc-debug", feature = "std", target_arch = "x86_64", not(loom)))]
mod modules;
#[cfg(all(feature = "malloc-debug", feature = "std", not(loom)))]
mod process;
#[cfg(all(feature = "symmetric", not(loom)))]
mod program;
#[cfg(all(feature = "shared", not(loom)))]
mod shared_file;
#[cfg(all(feature = "malloc-debug", feature = "std", target_arch = "x86_64", not(loom)))]
mod stack;
#[cfg(all(feature = "std", not(loom)))]
mod thread_end;
mod unix;

#[cfg(all(feature = "cli", not(loom)))]
mod reading;
mod release;
#[cfg(all(feature = "hooks", not(loom)))]
mod userfault;

#[cfg(all(feature = "std", not(loom)))]
pub(crate) use agent::sleep;
#[cfg(all(any(feature = "shared", feature = "symmetric"), not(loom)))]
pub(crate) use errors::Errno;
#[cfg(all(any(feature = "shared", feature = "symmetric"), not(loom)))]
pub(crate) use errors::describe;
#[cfg(all(feature = "malloc-debug", feature = "std", not(loom)))]
pub(crate) use faults::{OnFault, Registers, on_fault, on_stack};
#[cfg(all(feature = "malloc-debug", feature = "std", not(loom)))]
pub(crate) use files::{File, Room, link_target};
pub use fixed::Fixed;
#[cfg(all(feature = "malloc-debug", feature = "std", not(loom)))]
pub(crate) use guards::{install_guard, remove_guard, set_access};
#[cfg(all(feature = "shared", not(loom)))]
pub(crate) use heap_file::FileNumber;
#[cfg(all(any(feature = "shared", feature = "symmetric"), not(loom)))]
pub(crate) use heap_file::HeapFile;
#[cfg(all(feature = "symmetric", not(loom)))]
pub(crate) use jobs::{
    ask_to_end, end_with, exit_now, futex_wait, futex_wake_all, is_process, reserve, take_memory_away, wait_until_ended,
};
#[cfg(all(feature = "shared", not(loom)))]
pub(crate) use locks::{Robust, Semaphores, since_boot};
#[cfg(all(feature = "malloc-debug", feature = "std", not(loom)))]
pub(crate) use maps::{each_mapping, each_writable_mapping, mapping_around};
#[cfg(all(feature = "malloc-debug", feature = "std", not(loom)))]
pub(crate) use memory::{copy_from, is_resident};
#[cfg(all(feature = "malloc-debug", feature = "std", target_arch = "x86_64", not(loom)))]
pub(crate) use modules::{Found, Module, module_at, program_start};
#[cfg(all(feature = "malloc-debug", feature = "std", not(loom)))]
pub(crate) use process::{at_exit, environment, milliseconds, thread_name, ticks};
#[cfg(all(feature = "c-symmetric", not(loom)))]
pub(crate) use program::survive_forks;
#[cfg(all(feature = "symmetric", not(loom)))]
pub(crate) use program::{program_variables, share_variables};
#[cfg(all(feature = "cli", not(loom)))]
pub(crate) use reading::{FLAGS_TO_LOOK, end_where_cut_off, terminal};
#[cfg(feature = "shared")]
pub(crate) use release::going;
#[cfg(all(feature = "hooks", not(loom)))]
pub(crate) use release::listen;
#[cfg(all(feature = "shared", not(loom)))]
pub(crate) use shared_file::{Identity, remove_file};
#[cfg(all(feature = "malloc-debug", feature = "std", target_arch = "x86_64", not(loom)))]
pub(crate) use stack::{readable_until, stack_end};
#[cfg(all(feature = "std", not(loom)))]
pub(crate) use thread_end::at_thread_end;
#[cfg(all(feature = "std", not(feature = "c-abi"), not(loom)))]
pub(crate) use thread_end::not_at_thread_end;
pub use unix::Mmap;
#[cfg(all(any(feature = "shared", feature = "symmetric", feature = "hooks"), not(loom)))]
pub(crate) use unix::at_fork;
#[cfg(all(feature = "std", not(loom)))]
pub(crate) use unix::at_fork_once;
#[cfg(all(any(feature = "shared", feature = "symmetric"), not(loom)))]
pub(crate) use unix::growth_step;
#[cfg(any(feature = "c-abi", feature = "c-shared", all(feature = "malloc-debug", feature = "std", not(loom))))]
pub(crate) use unix::keep_errno;
#[cfg(any(feature = "allocator-api2", feature = "c-abi", feature = "symmetric", feature = "hooks"))]
pub(crate) use unix::map;
#[cfg(any(feature = "symmetric", all(feature = "malloc-debug", feature = "std", not(loom))))]
pub(crate) use unix::map_sparse;
#[cfg(any(
    feature = "shared",
    feature = "symmetric",
    feature = "hooks",
    all(feature = "malloc-debug", feature = "std", not(loom))
))]
pub(crate) use unix::page_bytes;
#[cfg(all(any(feature = "shared", feature = "hooks"), not(loom)))]
pub(crate) use unix::process_number;
#[cfg(any(feature = "allocator-api2", feature = "symmetric"))]
pub(crate) use unix::release;
#[cfg(any(feature = "c-abi", feature = "c-shared"))]
pub(crate) use unix::set_errno;
#[cfg(any(feature = "shared", all(feature = "malloc-debug", feature = "std", not(loom))))]
pub(crate) use unix::thread_id;
#[cfg(any(feature = "allocator-api2", feature = "malloc-debug", feature = "symmetric", feature = "hooks"))]
pub(crate) use unix::unmap;
pub(crate) use unix::{abort, rest, say, yield_now};
#[cfg(all(feature = "hooks", not(loom)))]
pub(crate) use userfault::{
    Helper, Message, Signal, Userfault, is_mapped, is_of_another_kind, why_refused, why_unwatched,
};

/// Numbers of errors.
#[cfg(any(feature = "c-abi", feature = "shared", feature = "symmetric"))]
pub(crate) mod errno {
    #[cfg(any(feature = "c-abi", feature = "c-shared"))]
    pub(crate) use libc::EINVAL;
    #[cfg(any(feature = "c-abi", feature = "c-shared", feature = "symmetric"))]
    pub(crate) use libc::ENOMEM;
    #[cfg(feature = "c-shared")]
    pub(crate) use libc::{EADDRINUSE, EBUSY, EMFILE, ENODEV, ENOTSUP, EREMOTE, ETIMEDOUT, EUCLEAN, EUSERS};
    #[cfg(feature = "shared")]
    pub(crate) use libc::{EEXIST, ENOENT, ENOSPC};
}

use core::ptr::NonNull;

/// Contiguous addresses: from `at` on, `bytes` long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Span {
    /// The first address.
    pub at: usize,
    /// The length in bytes.
    pub bytes: usize,
}

impl Span {
    /// Whether `other` lies wholly inside.
    #[must_use]
    pub const fn contains(&self, other: Self) -> bool {
        other.at >= self.at && other.at - self.at <= self.bytes && other.bytes <= self.bytes - (other.at - self.at)
    }
}

/// What became of a request to move pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relocation {
    /// The bytes are at the new place, and the old one reads zero.
    Moved,
    /// Nothing has changed.
    Refused,
    /// The old place is unchanged; the new one is the heap's no more, and `grow` may give its addresses again.
    Lost,
}

/// Where a heap's pages come from.
///
/// # Safety
/// - `page_size` is a power of two from 4096 to 65536 and never changes;
/// - every span and every record is page-aligned (records: 64-byte aligned), readable, writable and zero, belongs to
///   the heap alone, and stays so until the source is dropped;
/// - every span lies inside `window`, which never changes once it was given, and never contains its first page;
/// - after `purge` returned true every byte of the range reads zero; after false none has changed;
/// - `relocate` does what the [`Relocation`] it returns says.
pub unsafe trait Source {
    /// Bytes in a page.
    fn page_size(&self) -> usize;

    /// The addresses that all spans will lie in; `None` if not even these are to be had.
    fn window(&self) -> Option<Span>;

    /// A fresh span of at least `min` bytes; `mapped` bytes were given so far (a source grows by steps that follow
    /// it). `None` when there is no more.
    fn grow(&self, min: usize, mapped: usize) -> Option<Span>;

    /// Takes back a span that `grow` gave and that cannot be used after all. A source may keep it for good.
    ///
    /// # Safety
    /// - The span is what `grow` returned, whole, and nobody uses it.
    unsafe fn shrink(&self, span: Span) {
        let _ = span;
    }

    /// Bytes of a huge page that `advise_huge` can ask for, a power of two from 128 KiB on and more than a page; 0 if there
    /// are none. Where there are, the window begins at a multiple of it, and the relocation grain is one.
    fn huge_bytes(&self) -> usize {
        0
    }

    /// Asks for huge pages in a range that was untouched when a part of it was handed out, or declines them. The range is
    /// whole, aligned huge pages of spans of this source, and keeps its contents.
    fn advise_huge(&self, range: Span, huge: bool) {
        let _ = (range, huge);
    }

    /// Whether `grow` may give spans more than once.
    fn grows_again(&self) -> bool {
        true
    }

    /// Memory for the heap's own records, `bytes` long; it is never given back one by one.
    fn records(&self, bytes: usize) -> Option<NonNull<u8>>;

    /// Memory for the page map's leaf of that number, as `records`.
    fn leaf(&self, number: usize, bytes: usize) -> Option<NonNull<u8>> {
        let _ = number;
        self.records(bytes)
    }

    /// Where `leaf` gives that memory, if it has a place of its own there.
    fn place_of_leaf(&self, number: usize, bytes: usize) -> Option<usize> {
        let _ = (number, bytes);
        None
    }

    /// Whether other processes use the heap, and may die in it: see `hand`, `given` and `back`.
    #[inline(always)]
    fn is_shared(&self) -> bool {
        false
    }

    /// The calling thread's hand in a heap that processes share.
    #[doc(hidden)]
    #[inline(always)]
    fn hand(&self) -> Option<&crate::heap::Hand> {
        None
    }

    /// In a heap that processes share: all that `grow` has given, one span.
    fn given(&self) -> Span {
        Span { at: 0, bytes: 0 }
    }

    /// In a heap that processes share: sees to it that there is memory behind pages that were given; false if there is none.
    fn back(&self, range: Span) -> bool {
        let _ = range;
        true
    }

    /// Gives the memory behind whole pages back; the addresses stay.
    ///
    /// # Safety
    /// - The range is whole pages of spans of this source, and nobody uses it.
    unsafe fn purge(&self, range: Span) -> bool;

    /// Makes sure that somebody comes, soon and again and again while there is need, to purge what is retained beyond the
    /// idle bound. False if nobody does: then the caller purges.
    fn summon_purger(&self) -> bool {
        false
    }

    /// Whether somebody is at it.
    fn is_purger_at_work(&self) -> bool {
        false
    }

    /// Whether a summons would bring, or has brought, somebody.
    fn has_purger(&self) -> bool {
        false
    }

    /// What `relocate` moves begins at, and is, a multiple of so many bytes, more than a page; 0 if nothing can be moved.
    fn relocation_grain(&self) -> usize {
        0
    }

    /// Moves pages from `from` to the equally long `to` without copying.
    ///
    /// # Safety
    /// - Both are multiples of the grain and parts of spans of this source, apart, and nobody but the caller uses them;
    /// - `from` is a part of one span or of one earlier `to`, and no later `to` has taken a piece of it.
    unsafe fn relocate(&self, from: Span, to: usize) -> Relocation {
        let _ = (from, to);
        Relocation::Refused
    }
}
