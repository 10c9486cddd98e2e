//! The corruption hunter (feature `malloc-debug`): a wing on the front seam. [`Guarded`] stands before a heap and is one; a
//! [`Hunter`] is what all guarded heaps of a process share.
//!
//! `hunter.rs` has what all share, `guarded.rs` the calls, `checks.rs` what they check.
//!
//! Each block has a record and guards around it (`guard.rs`, `record.rs`), and its begin is noted out of reach of whoever
//! writes beyond a block (`begins.rs`). A free checks all of that, takes a backtrace, fills the block with a pattern, and
//! holds it back (`trail.rs`); when it leaves, the pattern is checked. One block in so many has pages of its own
//! (`lone.rs`). An audit checks everything at once (`audit.rs`). What is found is told by `report.rs`, which takes no lock and
//! allocates nothing.
//!
//! What a caller's mistake may have damaged is evidence here, and never trusted: a record is read only where `begins.rs` says
//! that a block begins, and believed only if its check holds.

#[cfg(any(feature = "shared", feature = "symmetric"))]
mod always;
mod audit;
mod begins;
mod checks;
mod frames;
mod guard;
mod guarded;
mod hunter;
mod leaks;
mod lone;
mod record;
#[cfg(feature = "hooks")]
mod registered;
mod report;
mod stacks;
mod threads;
mod trail;
mod voice;

#[cfg(any(feature = "shared", feature = "symmetric"))]
pub(crate) use always::Always;
#[cfg(feature = "shared")]
pub(crate) use always::SHARED;
#[cfg(feature = "shared")]
pub(crate) use begins::{SHARED_BYTES, SHARED_SPAN};
pub(crate) use guarded::Guarded;
pub(crate) use hunter::{Hooks, Hunter};
#[cfg(feature = "hooks")]
pub(crate) use registered::Site;
pub(crate) use trail::Trail;
