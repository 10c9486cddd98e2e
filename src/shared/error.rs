//! Why a heap cannot be opened.

use super::lock::Scheme;
use crate::finding::Finding;
use crate::os::{Errno, Span, describe};
use core::fmt::{self, Display, Formatter};

/// Why a shared heap cannot be opened, made or left. The file is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SharedError {
    /// The system refused something.
    #[non_exhaustive]
    System {
        /// What was asked for.
        what: &'static str,
        /// The system's number of the error.
        errno: Errno,
    },
    /// The path has a zero byte in it.
    Path,
    /// The path names something else than a regular file.
    NotAFile,
    /// The file lies on a network file system, whose other machines would not see what this one writes.
    Network,
    /// The file is no heap: it begins with something else.
    NotAHeap,
    /// The file is a heap of another kind than this program's.
    #[non_exhaustive]
    Other {
        /// What differs.
        what: &'static str,
        /// What the file says.
        theirs: u64,
        /// What this program would need.
        ours: u64,
    },
    /// A field of the file's header is not what any heap has there.
    #[non_exhaustive]
    Damaged {
        /// What is wrong.
        what: &'static str,
    },
    /// The heap's records contradict each other.
    #[non_exhaustive]
    Records {
        /// What is wrong, and where.
        finding: Finding,
    },
    /// The file is shorter or longer than its heap.
    #[non_exhaustive]
    Length {
        /// How long it is, in bytes.
        bytes: u64,
        /// How long it was made.
        made: u64,
    },
    /// The addresses that the heap lies at are taken in this process.
    #[non_exhaustive]
    Taken {
        /// The addresses.
        span: Span,
    },
    /// The settings ask for something that cannot be.
    #[non_exhaustive]
    Setting {
        /// What would be right.
        rule: &'static str,
    },
    /// The heap was made with another locking scheme than the one that was asked for.
    #[non_exhaustive]
    OtherScheme {
        /// Its scheme.
        theirs: Scheme,
        /// The one that was asked for.
        ours: Scheme,
    },
    /// There are as many processes in the heap as there may be, or its first pages have no room.
    Full,
    /// Whoever makes the heap has not finished within the time that was to be waited.
    Unborn,
}

impl Display for SharedError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("shared heap: ")?;
        match self {
            Self::System { what, errno } => write!(f, "cannot {what}: {} (error {errno})", describe(*errno)),
            Self::Path => f.write_str("a path has no zero byte in it"),
            Self::NotAFile => f.write_str("the path names no regular file; give one that is a heap, or a new name"),
            Self::Network => f.write_str(
                "the file is on a network file system, where processes of two machines would damage it; \
                 put it on a local one, or insist by SharedConfig::network",
            ),
            Self::NotAHeap => f.write_str("the file is no heap of stratalloc's, and stays as it is; give a new name"),
            Self::Other { what, theirs, ours } => {
                write!(f, "the file's {what} is {theirs}, this program's is {ours}; both must be the same")
            }
            Self::Damaged { what } => write!(f, "the begin of the file is damaged: {what}; restore it from a copy"),
            Self::Records { finding } => write!(
                f,
                "the file's records are damaged: {:?}: not so: {} (at {:#x}); restore the file from a copy",
                finding.layer(),
                finding.rule(),
                finding.address()
            ),
            Self::Length { bytes, made } => {
                write!(f, "the file has {bytes} bytes, and was made with {made}: it was cut off or appended to")
            }
            Self::Taken { span } => write!(
                f,
                "the heap lies at {:#x} to {:#x}, where this process has something else mapped",
                span.at,
                span.at + span.bytes
            ),
            Self::Setting { rule } => f.write_str(rule),
            Self::OtherScheme { theirs, ours } => write!(
                f,
                "the heap was made with {}, and {} were asked for; ask for its own, or for none",
                theirs.name(),
                ours.name()
            ),
            Self::Full => f.write_str("512 processes have the heap open; there can be no more"),
            Self::Unborn => f.write_str("another process is making the heap, and has not finished in time"),
        }
    }
}

impl core::error::Error for SharedError {}

impl SharedError {
    /// That the system refused `what`.
    pub(super) fn of(what: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self::System { what, errno }
    }
}
