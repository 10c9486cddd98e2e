//! `stratalloc check`

use crate::text;
use crate::{Failure, open};
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use stratalloc::view::{Audit, View};

/// Audits the heap at `path`.
pub(crate) fn run(path: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let view = open(path)?;
    let audit = view.audit();
    let (alive, _) = text::living(&view.processes());
    let what = if audit.is_sound() { "sound" } else { "not sound" };
    verdict(audit.is_sound(), write(&format!("{}: {what}", text::path(path)), &audit, alive > 0, out))
}

/// How a command ends that found a heap to be sound, or not, and has `written` so: whoever reads may have seen enough before the end,
/// and the status tells him nonetheless.
pub(crate) fn verdict(is_sound: bool, written: io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::Output(error)),
        _ if is_sound => Ok(()),
        _ => Err(Failure::Found),
    }
}

/// Writes a line, and what an audit found below it, in a heap that `is_used`, or not.
pub(crate) fn write(line: &str, audit: &Audit, is_used: bool, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{line}")?;
    write_found(audit, is_used, out)
}

/// Writes what an audit found, in a heap that `is_used`, or not.
pub(crate) fn write_found(audit: &Audit, is_used: bool, out: &mut dyn Write) -> io::Result<()> {
    for process in &audit.dead {
        let who = format!("process {}, there for {}, has died", process.pid, text::age(process.age));
        let how = if is_used {
            "whoever is there mends the heap when next it grows, or somebody joins"
        } else {
            "`stratalloc repair` mends the heap, or whoever opens it next"
        };
        writeln!(out, "  {who}, and nobody has mended the heap since: {how}")?;
    }
    for fault in &audit.faults {
        writeln!(out, "  {fault}")?;
    }
    for part in &audit.moving {
        let why = if is_used { "it never held still" } else { "somebody died in the midst of it" };
        writeln!(out, "  not judged: {part}: {why}")?;
    }
    let counts = [
        text::count(audit.slabs, "slab"),
        text::count(audit.runs, "run") + " in use",
        text::count(audit.free_runs, "free run"),
        text::count(audit.listed, "free block") + " and runs in lists",
    ];
    writeln!(out, "  looked at {}", counts.join(", "))
}

/// Opens the heap at `path` anew, and audits it.
pub(crate) fn audit(path: &Path) -> Result<(View, Audit), Failure> {
    let view = open(path)?;
    let audit = view.audit();
    Ok((view, audit))
}
