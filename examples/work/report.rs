//! What the examples say, and how much memory is resident.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::io::{self, Write};

/// Prints a line. Nobody may be listening any more (`quickstart | head`): that is no reason to fail.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Prints a line to standard error.
pub(crate) fn complain(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Resident memory in KiB; `None` where the system has no `/proc`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Resident(Option<u32>);

/// The memory of this process that is resident now: `VmRSS` of `/proc/self/status`.
pub(crate) fn resident() -> Resident {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    Resident(line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()))
}

impl Display for Resident {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(kib) => write!(f, "{:>7.1} MiB", f64::from(kib) / 1024.0),
            None => f.write_str("unknown: this system has no /proc"),
        }
    }
}
