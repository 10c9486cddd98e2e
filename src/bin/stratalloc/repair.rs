//! `stratalloc repair`

use crate::check;
use crate::text;
use crate::{Failure, open};
use std::cell::Cell;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;
use stratalloc::view::{Audit, View};
use stratalloc::{SharedConfig, SharedHeap};

/// How long to wait for somebody who is at the door of the heap.
const WAIT: Duration = Duration::from_secs(5);

/// Mends the heap at `path`, unless somebody lives in it, and audits it.
pub(crate) fn run(path: &Path, network: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let (view, before) = check::audit(path)?;
    refuse_the_living(path, &view)?;
    let broken = before.faults.iter().filter(|fault| !fault.is_mendable).count() as u64;
    if broken > 0 {
        let line = format!("{}: cannot be mended, and stays as it is", text::path(path));
        let why = "what is damaged there follows from nothing else: take what you need of it, and make the heap anew";
        let written = check::write(&line, &before, false, out)
            .and_then(|()| writeln!(out, "  {}: {why}", text::count(broken, "fault")));
        return check::verdict(false, written);
    }
    if before.is_sound() && before.moving.is_empty() {
        let line = format!("{}: sound, and nothing is to be mended", text::path(path));
        return check::verdict(true, check::write(&line, &before, false, out));
    }
    let was_free = free_bytes(&view);
    drop(view);
    mend(path, network)?;
    let (view, after) = check::audit(path)?;
    let freed = free_bytes(&view).saturating_sub(was_free);
    check::verdict(after.is_sound(), report(path, &before, &after, freed, out))
}

/// Bytes that are free in slabs, in the depot and in runs: mending sorts the depot into slabs.
fn free_bytes(view: &View) -> u64 {
    let layers = view.layers();
    layers.free_blocks.1 + layers.depot_blocks.1 + layers.free_runs.1
}

/// Refuses to touch a heap that somebody lives in.
fn refuse_the_living(path: &Path, view: &View) -> Result<(), Failure> {
    let processes = view.processes();
    let living: Vec<String> =
        processes.iter().filter(|process| process.is_alive).map(|process| process.pid.to_string()).collect();
    if living.is_empty() {
        return Ok(());
    }
    let (path, who) = (text::path(path), living.join(", "));
    let (who, what) = match living.len() {
        1 => (format!("process {who} lives"), "mends"),
        _ => (format!("processes {who} live"), "mend"),
    };
    let how = "when need be; once all have left, it can be repaired";
    Err(Failure::Refused(format!("{path}: {who} in the heap, and {what} it {how}")))
}

/// Has a process of its own mend the heap: whatever it comes to there, this one says how it ended.
fn mend(path: &Path, network: bool) -> Result<(), Failure> {
    let refused = |why: String| Failure::Refused(format!("{}: {why}", text::path(path)));
    // This very program, whatever its file has become meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.arg("mend-alone").args(network.then_some("--network")).arg("--").arg(path);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = command.output().map_err(|error| refused(format!("cannot start a process: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().strip_prefix("stratalloc: ").unwrap_or(said.trim());
    Err(Failure::Refused(if said.is_empty() { ended(path, output.status) } else { said.to_string() }))
}

fn ended(path: &Path, status: ExitStatus) -> String {
    format!("{}: whoever was to mend it ended with {status}: the heap is damaged beyond that", text::path(path))
}

fn report(path: &Path, before: &Audit, after: &Audit, freed: u64, out: &mut dyn Write) -> io::Result<()> {
    let what = if after.is_sound() { "mended, and sound" } else { "mended, but not sound" };
    writeln!(out, "{}: {what}", text::path(path))?;
    for process in &before.dead {
        writeln!(out, "  process {}, which had died, is out of it", process.pid)?;
    }
    if !before.dead.is_empty() {
        let who = if before.dead.len() == 1 { "it" } else { "they" };
        writeln!(out, "  {} that {who} had cached or half done are free again", text::bytes(freed))?;
    }
    for fault in &before.faults {
        writeln!(out, "  was: {fault}")?;
    }
    check::write_found(after, false, out)
}

/// Opens the heap at `path`, mends it, and leaves.
pub(crate) fn mend_alone(path: &Path, network: bool) -> Result<(), Failure> {
    let refused = |why: String| Failure::Refused(format!("{}: {why}", text::path(path)));
    // The file is there, and is a heap: else it would be made.
    refuse_the_living(path, &open(path)?)?;
    let config = SharedConfig::new().wait(WAIT);
    let config = if network { config.network() } else { config };
    let is_new = Cell::new(false);
    let unmake = |_: &SharedHeap| {
        is_new.set(true);
        // Nobody gets it before this is done, and whoever waits makes one anew.
        let _ = std::fs::remove_file(path);
    };
    let heap = SharedHeap::open(path, config, unmake).map_err(|error| refused(error.to_string()))?;
    if is_new.get() {
        return Err(refused(String::from("the file was removed meanwhile")));
    }
    // Whoever opens a heap that nobody is in makes anew all that follows from other words.
    heap.close();
    Ok(())
}
