//! What a test does not check on this machine.

use std::io::Write;

/// Says so in a line of its own that begins with `SKIPPED`, past the harness, which keeps what a test prints to itself.
pub(crate) fn skipped(what: &str) {
    _ = writeln!(std::io::stderr(), "\nSKIPPED: {what}");
}
