//! What can go wrong with a symmetric heap.

use super::memheap::ChoiceError;
use crate::os::{Errno, describe};
use core::fmt;
use std::string::String;

/// A collective call, as PEs are compared by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// Its name.
    pub name: &'static str,
    /// Its arguments; those it does not have are 0.
    pub arguments: [u64; 3],
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, third] = self.arguments;
        match self.name {
            "malloc" => write!(f, "malloc({first})"),
            "calloc" => write!(f, "calloc({first}, {second})"),
            "align" => write!(f, "align({first}, {second})"),
            "malloc_with_hints" => write!(f, "malloc_with_hints({first}, {second:#x})"),
            "realloc" => write!(f, "realloc({first:#x}, {second})"),
            "free" => write!(f, "free({first:#x})"),
            name => write!(f, "{name}({first:#x}, {second}, {third})"),
        }
    }
}

/// Why something was not done with a symmetric heap. Nothing has changed then, on any PE that was told so.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SymmetricError {
    /// A setting in the environment cannot be read.
    Setting {
        /// Its name.
        name: &'static str,
        /// As it was.
        text: String,
        /// What would be right.
        rule: &'static str,
    },
    /// No component serves.
    Component(ChoiceError),
    /// The library was initialised before.
    Twice,
    /// PEs were started with heaps of different lengths.
    HeapsDiffer {
        /// Another PE.
        pe: usize,
        /// Bytes of its heap.
        theirs: u64,
        /// Bytes of this one's.
        ours: u64,
    },
    /// PEs were started with different components.
    ComponentsDiffer {
        /// Another PE.
        pe: usize,
        /// The name of its component.
        theirs: String,
        /// That of this one's.
        ours: String,
    },
    /// Another PE could not initialise; it says why.
    Peer {
        /// Which.
        pe: usize,
    },
    /// This process is no PE of the job that its environment names.
    Job {
        /// Why not.
        why: &'static str,
    },
    /// There can be no job of so many PEs.
    Pes {
        /// That many.
        pes: usize,
    },
    /// The program of a PE cannot be started.
    Program {
        /// Its name.
        name: String,
        /// The system's number of the error.
        errno: i32,
    },
    /// There is no room for so many bytes.
    NoRoom {
        /// That many.
        bytes: usize,
        /// Bytes of the whole heap.
        heap: usize,
    },
    /// An alignment is no power of two, or no multiple of a pointer's size.
    Alignment {
        /// The alignment.
        alignment: usize,
    },
    /// Hints that there are none of.
    Hints {
        /// The hints.
        hints: u64,
    },
    /// There is no PE of that number.
    Pe {
        /// The number.
        pe: usize,
        /// How many there are.
        pes: usize,
    },
    /// An address or a range does not lie in the symmetric heap.
    NotSymmetric {
        /// The address.
        address: usize,
        /// Bytes from there on.
        bytes: usize,
    },
    /// No live block begins at an address.
    NoBlock {
        /// The address.
        address: usize,
    },
    /// A word of an atomic operation does not lie at a multiple of its size.
    Misaligned {
        /// The address.
        address: usize,
    },
    /// Two slices of a call should be of one length.
    Lengths {
        /// One, in elements.
        left: usize,
        /// The other.
        right: usize,
    },
    /// Another PE came to a collective call with other arguments, or to another one.
    Differs {
        /// Which PE.
        pe: usize,
        /// What it called.
        theirs: Call,
        /// What this one called.
        ours: Call,
    },
    /// The same calls gave another address on another PE: something wrote over the heap's records.
    Diverged {
        /// Which PE.
        pe: usize,
        /// What it got.
        theirs: usize,
        /// What this one got.
        ours: usize,
    },
    /// The system refused something.
    System {
        /// What.
        what: &'static str,
        /// Its number of the error.
        errno: i32,
    },
}

impl SymmetricError {
    pub(super) const fn of(what: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::System { what, errno }
    }
}

impl From<ChoiceError> for SymmetricError {
    fn from(error: ChoiceError) -> Self {
        Self::Component(error)
    }
}

impl fmt::Display for SymmetricError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("symmetric heap: ")?;
        match self {
            Self::Setting { name, text, rule } => write!(f, "{name} is `{text}`; it may be {rule}"),
            Self::Component(error) => error.fmt(f),
            Self::Twice => f.write_str("it was initialised before; finalize it first"),
            Self::HeapsDiffer { pe, theirs, ours } => {
                write!(f, "PE {pe} has a heap of {theirs} bytes, and this one of {ours}; start all with the same")
            }
            Self::ComponentsDiffer { pe, theirs, ours } => {
                write!(f, "PE {pe} has the component `{theirs}`, and this one `{ours}`; start all with the same")
            }
            Self::Peer { pe } => write!(f, "PE {pe} could not initialise, and says why"),
            Self::Job { why } => write!(f, "{why}; start the program by `stratalloc run`, or alone"),
            Self::Pes { pes } => write!(f, "a job of {pes} PEs; there may be from 1 to {}", super::job::PES),
            Self::Program { name, errno } => {
                write!(f, "cannot start `{name}`: {} (errno {errno})", describe(*errno))
            }
            Self::NoRoom { bytes, heap } => write!(
                f,
                "no room for {bytes} bytes in a heap of {heap}; free some, or set SHMEM_SYMMETRIC_SIZE to more"
            ),
            Self::Alignment { alignment } => write!(
                f,
                "an alignment of {alignment}; it must be a power of two, and {} or more",
                size_of::<*const u8>()
            ),
            Self::Hints { hints } => {
                write!(f, "hints {hints:#x}; there are 0, 1 (atomics) and 2 (signals), and both, 3")
            }
            Self::Pe { pe, pes } => write!(f, "there is no PE {pe}; they are 0 to {}", pes.saturating_sub(1)),
            Self::NotSymmetric { address, bytes } => {
                write!(
                    f,
                    "{bytes} bytes at {address:#x} are not symmetric; pass what the heap's malloc gave, or in C a variable of the program, if it had \
                 one thread when it began"
                )
            }
            Self::NoBlock { address } => {
                write!(f, "no live block begins at {address:#x}; pass what malloc gave, once")
            }
            Self::Misaligned { address } => {
                write!(f, "a word for atomics at {address:#x}; it must lie at a multiple of its size")
            }
            Self::Lengths { left, right } => write!(f, "{left} elements and {right}; they must be as many"),
            Self::Differs { pe, theirs, ours } => {
                write!(f, "PE {pe} called {theirs} where this one called {ours}; all must make the same calls")
            }
            Self::Diverged { pe, theirs, ours } => write!(
                f,
                "the same calls gave {theirs:#x} on PE {pe} and {ours:#x} here; something wrote over the heap's records"
            ),
            Self::System { what, errno } => write!(f, "cannot {what}: {} (errno {errno})", describe(*errno)),
        }
    }
}

impl core::error::Error for SymmetricError {}
