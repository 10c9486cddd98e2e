//! Where a program is: the callers of a place, and their names.
//!
//! All of this runs inside of the allocator. It allocates nothing, takes no lock, does not panic, and does not fault,
//! whatever is on the stack or in a file; it leaves `errno` as it was.
//!
//! - `unwind.rs` walks a stack, whose words `words.rs` reads. `rules.rs` remembers how to get from an instruction to its
//!   caller; what it does not remember `tables.rs` looks up in the module's unwind tables (which `homes.rs` remembers),
//!   whose `program.rs` yields a `row.rs`, which may say it by an `expression.rs`.
//! - `symbols.rs` names an address: `maps.rs` says which file it is from, `elf.rs` which function, `lines.rs` and
//!   `files.rs` which line of which file. Files are read a piece at a time (`window.rs`), not mapped: a file that is cut
//!   short while it is mapped would end the process.
//!
//! # Limits
//!
//! - The walk knows x86_64 alone. It ends at code without unwind tables: what a just-in-time compiler made, for example.
//! - After `dlclose` another library may come to the same addresses. What was remembered of the first one is wrong for it:
//!   the walk may end early or name callers that are none.
//! - A C library before glibc 2.35 is not asked where modules are, since it locks; the kernel's list of mappings is read
//!   instead, which costs 0.1 ms for each frame whose rule is not remembered.
//! - What was inlined is not named, but its line is. Compressed debug sections, and those in files of their own, are not
//!   read.

mod elf;
#[cfg(target_arch = "x86_64")]
mod expression;
mod files;
#[cfg(target_arch = "x86_64")]
mod homes;
mod lines;
mod maps;
#[cfg(target_arch = "x86_64")]
mod program;
mod reader;
#[cfg(target_arch = "x86_64")]
mod registers;
#[cfg(target_arch = "x86_64")]
mod row;
#[cfg(target_arch = "x86_64")]
mod rules;
#[cfg(target_arch = "x86_64")]
mod stop;
mod symbols;
#[cfg(target_arch = "x86_64")]
mod tables;
#[cfg(not(target_arch = "x86_64"))]
#[path = "nowhere.rs"]
mod unwind;
#[cfg(target_arch = "x86_64")]
mod unwind;
mod window;
#[cfg(target_arch = "x86_64")]
mod words;

#[cfg(all(test, target_arch = "x86_64"))]
mod unwind_tests;

pub(crate) use symbols::Symbols;
#[cfg(not(target_arch = "x86_64"))]
pub(crate) use unwind::{Above, Stack};
pub(crate) use unwind::{Context, stack_pointer, walk};
#[cfg(target_arch = "x86_64")]
pub(crate) use words::{Above, Stack};

/// A call that has not returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The return address: the instruction behind the call.
    pub(crate) address: usize,
    /// The address of the word on the stack in which it lies.
    pub(crate) slot: usize,
}

impl Frame {
    /// No call.
    pub(crate) const NONE: Self = Self { address: 0, slot: 0 };
}
