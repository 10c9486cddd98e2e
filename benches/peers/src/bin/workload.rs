//! Runs one workload in this process and prints one line of figures.

#[path = "../allocator.rs"]
mod allocator;

#[path = "workload/process.rs"]
mod process;

use process::Usage;
use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;
use stratalloc_peers::workloads::{ALL, Outcome, Workload};

const HELP: &str = "use `workload list`, or `workload run NAME [--scale F] [--no-idle]`";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let line = match words.first().map(String::as_str) {
        Some("list") if words.len() == 1 => Ok(list()),
        Some("run") => request(&words[1..]).map(|request| request.run()),
        Some(other) => Err(format!("there is no command {other:?} of that form; {HELP}")),
        None => Err(format!("a command is missing; {HELP}")),
    };
    match line {
        Ok(line) if writeln!(std::io::stdout(), "{line}").is_ok() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "workload: {error}");
            ExitCode::from(2)
        }
    }
}

fn list() -> String {
    let lines: Vec<String> = ALL.iter().map(|workload| format!("{}\t{}", workload.name, workload.about)).collect();
    lines.join("\n")
}

/// What the command line asks for.
struct Request {
    workload: Workload,
    scale: f64,
    idle: bool,
}

fn request(words: &[String]) -> Result<Request, String> {
    let (name, options) = words.split_first().ok_or_else(|| format!("`run` needs a workload's name; {HELP}"))?;
    let workload = *ALL
        .iter()
        .find(|workload| workload.name == name)
        .ok_or_else(|| format!("there is no workload {name:?}; `workload list` prints their names"))?;
    let mut request = Request { workload, scale: 1.0, idle: true };
    let mut options = options.iter();
    while let Some(option) = options.next() {
        match option.as_str() {
            "--no-idle" => request.idle = false,
            "--scale" => request.scale = scale(options.next())?,
            _ => return Err(format!("there is no option {option:?}; {HELP}")),
        }
    }
    Ok(request)
}

fn scale(word: Option<&String>) -> Result<f64, String> {
    let word = word.ok_or("`--scale` needs a number, such as 0.5")?;
    match word.parse::<f64>() {
        Ok(scale) if scale > 0.0 && scale <= 1000.0 => Ok(scale),
        _ => Err(format!("{word:?} is no scale; give a number above 0 and up to 1000, such as 0.5")),
    }
}

impl Request {
    /// Runs the workload; between dropping it and reading the idle size nothing is allocated or freed.
    fn run(&self) -> String {
        let before = process::resident();
        let mut work = (self.workload.prepare)(self.scale);
        let (usage, start) = (Usage::now(), Instant::now());
        let outcome = work();
        let (wall, used) = (start.elapsed().as_secs_f64(), Usage::now().since(&usage));
        let peak = process::peak_kib();
        drop(work);
        let idle = if self.idle { process::resident_when_idle() } else { process::Resident::default() };
        let program = before.private_kib() + process::resident().file_kib();
        let allowed = allowed_by_allocator_kib().map_or(0, |kib| kib + program);
        self.line(&outcome, wall, &used, [peak, idle.all_kib(), allowed])
    }

    fn line(&self, outcome: &Outcome, wall: f64, used: &Usage, [peak, idle, allowed]: [u64; 3]) -> String {
        let (name, allocator) = (self.workload.name, allocator::NAME);
        let (user, sys, ops, checksum) = (used.user, used.sys, outcome.ops, outcome.checksum);
        let failed = outcome.failed.map_or(String::new(), |reason| format!(" failed={reason}"));
        format!(
            "name={name} allocator={allocator} wall_s={wall:.6} user_s={user:.6} sys_s={sys:.6} peak_kib={peak} \
             idle_kib={idle} allowed_kib={allowed} ops={ops} checksum={checksum:016x}{failed}"
        )
    }
}

/// What stratalloc's documentation allows to stay resident now, with default settings: live blocks, free pages
/// retained, pages pinned by the depot and by threads' caches, records.
#[cfg(any(feature = "stratalloc", feature = "stratalloc-fine"))]
fn allowed_by_allocator_kib() -> Option<u64> {
    const MIB: usize = 1 << 20;
    let stats = stratalloc::Stratalloc::stats();
    let retained = (8 * MIB).max(stats.allocated / 8);
    let pinned = (2 + stats.threads) * MIB;
    Some((stats.allocated + retained + pinned + stats.records + stats.map) as u64 >> 10)
}

#[cfg(not(any(feature = "stratalloc", feature = "stratalloc-fine")))]
fn allowed_by_allocator_kib() -> Option<u64> {
    None
}
