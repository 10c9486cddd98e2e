//! Why a walk goes no further.

/// Why a walk goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The stack ends, or nobody knows how it goes on.
    End,
    /// A word cannot be read in the way that was tried.
    Unreadable,
    /// A register is needed that was not kept.
    Unknown,
}
