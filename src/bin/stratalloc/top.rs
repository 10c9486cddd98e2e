//! `stratalloc top`

use crate::text::{self, Table, bytes};
use crate::{Failure, open, refused};
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};
use stratalloc::view::{ClassFigures, Process, View, terminal};

/// Goes to the top left of a terminal; clears a line from there on, and all below.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// Seconds between two looks, as somebody gives them.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let rule = "a number of seconds from 0.01 to 86400 would be right";
    let seconds: f64 = text.parse().map_err(|_| rule.to_string())?;
    if (0.01..=86_400.0).contains(&seconds) { Ok(Duration::from_secs_f64(seconds)) } else { Err(rule.to_string()) }
}

/// What a look found.
struct Look {
    at: Instant,
    processes: Vec<Process>,
    classes: Vec<ClassFigures>,
    runs: ClassFigures,
}

impl Look {
    fn take(view: &View) -> Self {
        let (classes, runs) = view.classes();
        Self { at: Instant::now(), processes: view.processes(), classes, runs }
    }
}

/// How much more there is of something that only grows, for each second.
fn rate(now: u64, before: u64, seconds: f64) -> String {
    format!("{:.0}", now.saturating_sub(before) as f64 / seconds)
}

/// Shows who is in the heap at `path` and what becomes of its bytes, `count` times or without end.
pub(crate) fn run(path: &Path, interval: Duration, count: Option<u64>, out: &mut dyn Write) -> Result<(), Failure> {
    let mut view = open(path)?;
    let (mut before, mut done) = (Look::take(&view), 0);
    while count.is_none_or(|count| done < count) {
        std::thread::sleep(interval);
        view.refresh().map_err(|error| refused(path, &error))?;
        let now = Look::take(&view);
        let mut text = Vec::new();
        show(path, &view, &now, &before, &mut text)?;
        match terminal() {
            Some(size) => draw(&String::from_utf8_lossy(&text), size, out)?,
            None => {
                out.write_all(&text)?;
                writeln!(out)?;
            }
        }
        out.flush()?;
        (before, done) = (now, done + 1);
    }
    Ok(())
}

/// Draws a look over the one before, as much of it as a terminal of so many lines and columns has room for.
fn draw(text: &str, (rows, columns): (usize, usize), out: &mut dyn Write) -> io::Result<()> {
    let all = text.lines().count();
    // The cursor rests on a line of its own.
    let room = rows.saturating_sub(1).max(1);
    let shown = if all <= room { all } else { room - 1 };
    write!(out, "{HOME}")?;
    for line in text.lines().take(shown) {
        let line: String = line.chars().take(columns).collect();
        writeln!(out, "{CLEAR_LINE}{line}")?;
    }
    if shown < all {
        let rest: String =
            format!("({} below)", text::count((all - shown) as u64, "line")).chars().take(columns).collect();
        writeln!(out, "{CLEAR_LINE}{rest}")?;
    }
    write!(out, "{CLEAR_BELOW}")
}

fn show(path: &Path, view: &View, now: &Look, before: &Look, out: &mut dyn Write) -> Result<(), Failure> {
    let seconds = now.at.duration_since(before.at).as_secs_f64().max(0.001);
    let (alive, dead) = text::living(&now.processes);
    let threads: usize = now.processes.iter().map(|process| process.threads.len()).sum();
    let all = bytes(view.facts().span.bytes as u64);
    let who = text::count(alive as u64, "process");
    writeln!(out, "{}: {} of {all} in use", text::path(path), bytes(view.used()))?;
    let dead = if dead > 0 { format!(", {dead} dead") } else { String::new() };
    writeln!(out, "{who}{dead}, {}, over {seconds:.1} s\n", text::count(threads as u64, "thread"))?;
    processes(now, before, seconds).write(0, out)?;
    writeln!(out)?;
    classes(now, before, seconds).write(0, out)?;
    Ok(())
}

fn processes(now: &Look, before: &Look, seconds: f64) -> Table {
    let mut table = Table::new(0, ["PID", "STATE", "THREADS", "CACHED", "TAKEN", "ALLOCS/S", "FREES/S"]);
    let known: HashMap<(u32, u32), &Process> =
        before.processes.iter().map(|process| ((process.guest, process.pid), process)).collect();
    for process in &now.processes {
        let was = known.get(&(process.guest, process.pid));
        let state = if process.is_alive { "alive" } else { "dead" };
        let rates = [
            // Who has come since the look before has done all of it since then.
            rate(process.allocs, was.map_or(0, |was| was.allocs), seconds),
            rate(process.frees, was.map_or(0, |was| was.frees), seconds),
        ];
        let [allocs, frees] = rates;
        let (pid, threads) = (process.pid.to_string(), process.threads.len().to_string());
        table.add([pid, state.to_string(), threads, bytes(process.cached), taken(process), allocs, frees]);
    }
    table
}

/// What the threads of a process have allocated beyond what they have freed, of whatever other process's.
fn taken(process: &Process) -> String {
    let more = process.allocated.wrapping_sub(process.freed) as i64;
    format!("{}{}", if more < 0 { "-" } else { "" }, bytes(more.unsigned_abs()))
}

fn classes(now: &Look, before: &Look, seconds: f64) -> Table {
    let mut table = Table::new(0, ["CLASS", "LIVE", "CACHED", "DEPOT", "FREE", "ALLOCS/S", "FREES/S"]);
    let mut sums = [0; 4];
    let (rows, runs) = (now.classes.iter().zip(&before.classes), [(&now.runs, &before.runs)]);
    for (number, (class, was)) in rows.chain(runs).enumerate() {
        let is_runs = number == now.classes.len();
        let held =
            [class.live, class.cached, class.depot, class.free].map(|count| count.wrapping_mul(class.size as u64));
        sums.iter_mut().zip(held).for_each(|(sum, more)| *sum = u64::wrapping_add(*sum, more));
        if held == [0; 4] && class.allocs == was.allocs {
            continue;
        }
        let [live, cached, depot, free] = held.map(bytes);
        let name = if is_runs { String::from("runs") } else { class.size.to_string() };
        let rates = [rate(class.allocs, was.allocs, seconds), rate(class.frees, was.frees, seconds)];
        let [allocs, frees] = rates;
        table.add([name, live, cached, depot, free, allocs, frees]);
    }
    let [live, cached, depot, free] = sums.map(bytes);
    table.add([String::from("all"), live, cached, depot, free, String::new(), String::new()]);
    table
}
