//! One command for the comparison with the peers: builds the workloads once per allocator, runs them in rounds, and
//! writes `results.csv`, `summary.md` and the plots. `--micro` counts instructions instead; `--help` lists the options.
//!
//! The exit status is 2 for a bad option, 1 if this crate or the system allocator did not build or nothing could be
//! written, and otherwise 0: a peer that fails is named, loudly, and is no error.

#![allow(clippy::disallowed_macros, reason = "a bench prints its results")]

mod build;
mod child;
mod machine;
mod micro;
mod options;
mod plots;
mod record;
mod roster;
mod rounds;
mod stats;
mod summary;
mod svg;

use options::Options;
use plots::Dots;
use record::{Metric, Run};
use stats::Results;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

/// A line for the user and the exit status.
type Failure = (String, u8);

fn main() -> ExitCode {
    let result = options::parse(std::env::args().skip(1)).map_err(|line| (line, 2)).and_then(|options| go(&options));
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err((line, status)) => {
            eprintln!("compare: {line}");
            ExitCode::from(status)
        }
    }
}

fn go(options: &Options) -> Result<bool, Failure> {
    if options.help {
        println!("{}", options::HELP);
        return Ok(true);
    }
    if options.micro {
        return micro::run(options, &machine::describe()).map_err(|line| (line, 1));
    }
    if let Some(file) = &options.csv_in {
        let (machine, runs) = read(file).map_err(|line| (format!("--csv-in {}: {line}", file.display()), 2))?;
        conclude(&machine, runs, &options.out).map_err(|line| (line, 1))?;
        return Ok(true);
    }
    measure(options)
}

fn read(file: &Path) -> Result<(String, Vec<Run>), String> {
    record::read(fs::File::open(file).map_err(|error| error.to_string())?)
}

/// Builds, runs and concludes.
fn measure(options: &Options) -> Result<bool, Failure> {
    let machine = machine::describe();
    let mut outcome = match &options.binaries {
        Some(folder) => build::prebuilt(folder, &options.allocators),
        None => build::all("workload", &options.allocators, "release"),
    };
    let mut rows = Vec::new();
    outcome.built.retain(|built| match rounds::rows(&built.binary) {
        Ok(names) => {
            rows = if rows.is_empty() { names } else { std::mem::take(&mut rows) };
            true
        }
        Err(why) => {
            eprintln!("!!! {} IS LEFT OUT: its binary does not run: {why}", built.allocator);
            outcome.complete &= roster::is_peer(built.allocator);
            false
        }
    });
    if rows.is_empty() {
        return Err(("there is nothing to run: see above".into(), 1));
    }
    if let Some(unknown) = options.only.iter().find(|name| !rows.contains(name)) {
        return Err((format!("--only {unknown}: there is no such row; there are {}", rows.join(", ")), 2));
    }
    rows.retain(|row| options.only.is_empty() || options.only.contains(row));
    fs::create_dir_all(&options.out).map_err(|error| (format!("{}: {error}", options.out.display()), 1))?;
    let save = |runs: &[Run]| {
        if let Err(error) = save(&options.out, &machine, runs) {
            eprintln!("!!! NOT SAVED: {}: {error}", options.out.display());
        }
    };
    let runs = rounds::all(&outcome.built, &rows, options, save);
    conclude(&machine, runs, &options.out).map_err(|line| (line, 1))?;
    Ok(outcome.complete)
}

fn save(folder: &Path, machine: &str, runs: &[Run]) -> Result<(), csv::Error> {
    record::write(fs::File::create(folder.join("results.csv"))?, machine, runs)
}

/// Writes and prints the summary, and draws the plots.
fn conclude(machine: &str, runs: Vec<Run>, folder: &Path) -> Result<(), String> {
    let results = Results::new(runs);
    let text = summary::write(&results, machine);
    let dots = |metric, title| plots::dots(&results, &Dots { metric, title, machine });
    let plots = [
        ("cpu.svg", dots(Metric::Cpu, "CPU time as a ratio to the system allocator's")),
        ("rss.svg", dots(Metric::Peak, "Peak resident memory as a ratio to the system allocator's")),
        ("idle.svg", dots(Metric::Idle, "Resident memory of the idle program, as a ratio to the system allocator's")),
        ("scaling.svg", plots::scaling(&results, machine)),
    ];
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    write("summary.md", &text)?;
    for (name, plot) in plots {
        match plot {
            Some(plot) => write(name, &plot)?,
            None => eprintln!("no {name}: no run has its figures"),
        }
    }
    println!("{text}");
    eprintln!("written to {}", folder.display());
    Ok(())
}
