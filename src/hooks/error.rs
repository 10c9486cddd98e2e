//! What can go wrong with hooks.

use crate::choice::ChoiceError;
use core::fmt;

/// Why a call of the hooks failed; nothing has changed then, but that [`process`](super::process) may have told something.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HooksError {
    /// No component was selected.
    Choice(ChoiceError),
    /// There is one already, of this name: it may be closed first.
    Begun {
        /// Which.
        component: &'static str,
    },
    /// So many ranges are registered while the component was to be closed.
    StillRegistered {
        /// How many.
        count: usize,
    },
    /// No range: it is empty, or ends behind the last address.
    Range {
        /// The first address.
        base: usize,
        /// How many bytes.
        bytes: usize,
    },
    /// The component would not be told if that went.
    Unwatched {
        /// The first address.
        base: usize,
        /// How many bytes.
        bytes: usize,
        /// Why not.
        why: &'static str,
    },
    /// No such range is registered, with just this length and this cookie.
    NotRegistered {
        /// The first address.
        base: usize,
        /// How many bytes.
        bytes: usize,
        /// What it was to be registered with.
        cookie: u64,
    },
    /// The system has no memory for one more.
    NoMemory,
    /// A callback has called what it may not: `process`, `close`, or what would choose a component.
    Inside,
}

impl From<ChoiceError> for HooksError {
    fn from(error: ChoiceError) -> Self {
        Self::Choice(error)
    }
}

impl fmt::Display for HooksError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hooks: ")?;
        match self {
            Self::Choice(error) => error.fmt(f),
            Self::Begun { component } => {
                write!(f, "component `{component}` has begun already; choose before the first use, or call close first")
            }
            Self::StillRegistered { count } => write!(
                f,
                "{count} ranges are still registered; deregister them, or drop the caches that have them, first"
            ),
            Self::Range { base, bytes } => {
                write!(
                    f,
                    "{bytes} bytes at {base:#x} are no range; it must not be empty, nor end behind the last address"
                )
            }
            Self::Unwatched { base, bytes, why } => {
                write!(f, "{bytes} bytes at {base:#x} cannot be watched: {why}; do not keep what is registered of them")
            }
            Self::NotRegistered { base, bytes, cookie } => write!(
                f,
                "{bytes} bytes at {base:#x} are not registered with cookie {cookie:#x}; pass what was registered, to the byte"
            ),
            Self::NoMemory => f.write_str("the system has no memory for one more range; deregister some"),
            Self::Inside => f.write_str(
                "a release callback has called process, close, or what chooses a component; call it outside of one",
            ),
        }
    }
}

impl core::error::Error for HooksError {}
