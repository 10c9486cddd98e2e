//! `--micro`: instructions of single calls and small patterns on each allocator, counted by valgrind's callgrind.
//!
//! Each loop of the library `counted` runs at two lengths; the difference, less that of its empty loop, is the cost of
//! one turn: exact, whatever else the machine does. Both as a default release build and with fat LTO.

use crate::build::{self, Built};
use crate::child;
use crate::options::Options;
use crate::summary::table;
use counted::ROWS;
use std::collections::{BTreeSet, HashMap};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{available_parallelism, scope};
use std::time::Duration;
use std::{fs, io};

const PROFILES: [(&str, &str); 2] =
    [("release", "Default release build"), ("release-lto", "Fat LTO, one codegen unit")];

/// An empty loop takes a second; longer than this, and the allocator does not get along with valgrind.
const PROBE_LIMIT: Duration = Duration::from_secs(30);

/// Instructions of one turn, or why there are none, by allocator and loop.
type Counts = HashMap<(&'static str, &'static str), Result<f64, String>>;

fn has_valgrind() -> bool {
    let version = Command::new("valgrind").arg("--version").output();
    version.is_ok_and(|output| output.status.success())
}

/// Instructions of the whole process.
fn count(built: &Built, name: &str, turns: usize, limit: Duration) -> Result<f64, String> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(&built.binary);
    let text = child::output(command.args([name, &turns.to_string()]), limit, true)?;
    let number = text.lines().find_map(|line| line.split("Collected : ").nth(1));
    number.and_then(|number| number.trim().parse().ok()).ok_or_else(|| "callgrind gave no count".into())
}

/// Instructions of one turn, start and end of the process taken off.
fn turn(built: &Built, name: &str, [short, long]: [usize; 2]) -> Result<f64, String> {
    Ok((count(built, name, long, child::LIMIT)? - count(built, name, short, child::LIMIT)?) / (long - short) as f64)
}

/// Leaves out, and names, each allocator with which not even an empty loop can be counted.
fn runs_under_valgrind(built: &Built) -> bool {
    let tried = count(built, "empty", 1, PROBE_LIMIT);
    if let Err(why) = &tried {
        eprintln!("!!! {} IS NOT COUNTED: it does not run under valgrind: {why}", built.allocator);
    }
    tried.is_ok()
}

/// Counts all loops on all allocators, as many at a time as there are cores.
fn all(built: &[Built], rows: &[&counted::Row]) -> Counts {
    let empties: BTreeSet<_> = rows.iter().map(|row| (row.empty, row.turns)).collect();
    let fit: Vec<&Built> = built.iter().filter(|built| runs_under_valgrind(built)).collect();
    let loops: Vec<_> = empties.into_iter().chain(rows.iter().map(|row| (row.name, row.turns))).collect();
    let jobs: Vec<_> =
        fit.iter().flat_map(|built| loops.iter().map(move |(name, turns)| (built, *name, *turns))).collect();
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Counts::new()));
    scope(|threads| {
        for _ in 0..available_parallelism().map_or(1, usize::from) {
            threads.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some((built, name, turns)) = jobs.get(index) else { break };
                    if index % 20 == 0 {
                        eprintln!("{index:5}/{} loops counted", jobs.len());
                    }
                    let counted = turn(built, name, *turns);
                    found.lock().expect("no thread panics").insert((built.allocator, name), counted);
                }
            });
        }
    });
    net(built, rows, &found.into_inner().expect("no thread panics"))
}

/// The counts of the rows, their empty loops' taken off.
fn net(built: &[Built], rows: &[&counted::Row], found: &Counts) -> Counts {
    let mut net = Counts::new();
    for (built, row) in built.iter().flat_map(|built| rows.iter().map(move |row| (built, row))) {
        let get = |name| found.get(&(built.allocator, name)).cloned();
        let value = match get(row.name).zip(get(row.empty)) {
            Some((of, empty)) => of.and_then(|of| Ok(of - empty?)),
            None => Err("does not run under valgrind".into()),
        };
        if let (Err(why), Some(_)) = (&value, get(row.name)) {
            eprintln!("!!! NOT COUNTED: {} on {}: {why}", row.name, built.allocator);
        }
        net.insert((built.allocator, row.name), value);
    }
    net
}

fn markdown(built: &[Built], rows: &[&counted::Row], counts: &Counts) -> String {
    let mut head = vec!["loop".to_string()];
    head.extend(built.iter().map(|built| built.allocator.to_string()));
    head.push("lowest".into());
    let mut lines = Vec::new();
    for row in rows {
        let values: Vec<_> =
            built.iter().map(|built| counts[&(built.allocator, row.name)].as_ref().ok().copied()).collect();
        let lowest = values.iter().flatten().copied().fold(f64::MAX, f64::min);
        let best = built.iter().zip(&values).filter(|(_, value)| value.is_some_and(|value| value < lowest + 0.05));
        let best: Vec<_> = best.map(|(built, _)| built.allocator).collect();
        let cell = |value: &Option<f64>| value.map_or("–".into(), |value| format!("{value:.1}"));
        let mut line = vec![row.what.to_string()];
        line.extend(values.iter().map(cell));
        line.push(best.join(", "));
        lines.push(line);
    }
    table(&head, &lines)
}

fn to_csv(file: &mut csv::Writer<fs::File>, profile: &str, built: &[Built], rows: &[&counted::Row], counts: &Counts) {
    for (built, row) in built.iter().flat_map(|built| rows.iter().map(move |row| (built, row))) {
        let (value, status) = match &counts[&(built.allocator, row.name)] {
            Ok(value) => (format!("{value:.3}"), "ok"),
            Err(why) => (String::new(), why.as_str()),
        };
        file.write_record([profile, row.name, built.allocator, &value, status])
            .expect("the output folder can be written");
    }
}

/// Counts and writes `micro.md` and `micro.csv`; false if an allocator that must build did not.
///
/// # Errors
///
/// A line for the user.
pub fn run(options: &Options, machine: &str) -> Result<bool, String> {
    if !has_valgrind() {
        return Err(
            "instructions are counted by valgrind, which is not installed: install the package `valgrind`".into()
        );
    }
    let wanted = |row: &&counted::Row| options.only.is_empty() || options.only.iter().any(|name| name == row.name);
    let rows: Vec<_> = ROWS.iter().filter(wanted).collect();
    if rows.len() < options.only.len() || rows.is_empty() {
        let known: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        return Err(format!("--only: with --micro the rows are {}", known.join(", ")));
    }
    let io = |error: io::Error| format!("{}: {error}", options.out.display());
    fs::create_dir_all(&options.out).map_err(io)?;
    let mut file = csv::Writer::from_writer(fs::File::create(options.out.join("micro.csv")).map_err(io)?);
    file.write_record(["profile", "loop", "allocator", "instructions", "status"]).map_err(|error| error.to_string())?;
    let mut text =
        format!("# Instructions of a call\n\n{machine}\n\nCounted by callgrind, the loop's own taken off.\n");
    let mut complete = true;
    for (profile, title) in PROFILES {
        let outcome = build::all("micro", &options.allocators, profile);
        complete &= outcome.complete;
        eprintln!("counting ({profile})");
        let counts = all(&outcome.built, &rows);
        to_csv(&mut file, profile, &outcome.built, &rows, &counts);
        text += &format!("\n## {title}\n\n{}", markdown(&outcome.built, &rows, &counts));
        file.flush().map_err(io)?;
        fs::write(options.out.join("micro.md"), &text).map_err(io)?;
    }
    println!("{text}");
    Ok(complete)
}
