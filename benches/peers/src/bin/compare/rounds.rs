//! The runs: in each round every row once on every allocator, one process each.
//!
//! The allocators of a row run one after the other, in an order shuffled anew for each row and round, but the same in
//! every repetition. A crash, a hang or a wrong checksum is a failed run, and says so.

use crate::build::Built;
use crate::child;
use crate::machine;
use crate::options::Options;
use crate::record::Run;
use crate::roster::SYSTEM;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The rows that a workload binary has, by name.
///
/// # Errors
///
/// A line: the binary does not run.
pub fn rows(binary: &Path) -> Result<Vec<String>, String> {
    let text = child::output(Command::new(binary).arg("list"), child::LIMIT, false)?;
    let names = text.lines().filter_map(|line| line.split('\t').next()).filter(|name| !name.is_empty());
    Ok(names.map(String::from).collect())
}

/// A fixed order of `items` for each `seed`.
fn shuffle<T>(items: &mut [T], mut seed: u64) {
    for end in (1..items.len()).rev() {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        items.swap(end, ((mixed ^ (mixed >> 31)) % (end as u64 + 1)) as usize);
    }
}

fn run(built: &Built, round: u32, workload: &str, options: &Options) -> Run {
    let mut command = Command::new(&built.binary);
    command.args(["run", workload, "--scale", &options.scale.to_string()]);
    if options.no_idle {
        command.arg("--no-idle");
    }
    machine::warm_memory();
    match child::output(&mut command, child::LIMIT, false) {
        Ok(text) => Run::of_line(round, workload, built.allocator, text.lines().next_back().unwrap_or_default()),
        Err(why) => Run::failed(round, workload, built.allocator, &why),
    }
}

/// Fails every run of a row whose checksum is not the system's, or where that failed, the first one's.
fn check(runs: &mut [Run], expected: &mut Option<String>) {
    if expected.is_none() {
        let system = runs.iter().find(|run| run.is_ok() && run.allocator == SYSTEM);
        *expected = system.or(runs.iter().find(|run| run.is_ok())).map(|run| run.checksum.clone());
    }
    let Some(expected) = expected else { return };
    for run in runs.iter_mut().filter(|run| run.is_ok() && run.checksum != *expected) {
        run.status = format!("checksum {}, expected {expected}", run.checksum);
    }
}

/// Where we are, on standard error.
struct Progress {
    start: Instant,
    done: usize,
    total: usize,
}

impl Progress {
    fn report(&mut self, round: u32, row: &str, count: usize) {
        self.done += count;
        let left = self.start.elapsed().as_secs_f64() / self.done as f64 * (self.total - self.done) as f64;
        let left = Duration::from_secs(left as u64).as_secs();
        let (minutes, seconds) = (left / 60, left % 60);
        eprintln!("{:5}/{} runs, {minutes} min {seconds:02} s left: round {round}, {row}", self.done, self.total);
    }
}

/// Runs everything; `save` is called after each round with all runs so far.
pub fn all(built: &[Built], rows: &[String], options: &Options, save: impl Fn(&[Run])) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut expected = vec![None; rows.len()];
    let total = options.rounds as usize * rows.len() * built.len();
    let mut progress = Progress { start: Instant::now(), done: 0, total };
    for round in 1..=options.rounds {
        for (index, row) in rows.iter().enumerate() {
            let mut order: Vec<&Built> = built.iter().collect();
            shuffle(&mut order, u64::from(round) << 32 | index as u64);
            let mut these: Vec<Run> = order.into_iter().map(|built| run(built, round, row, options)).collect();
            check(&mut these, &mut expected[index]);
            for run in these.iter().filter(|run| !run.is_ok()) {
                eprintln!("!!! FAILED: {row} on {}: {}", run.allocator, run.status);
            }
            runs.append(&mut these);
            progress.report(round, row, built.len());
        }
        save(&runs);
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_fixed_and_differ() {
        let order = |seed| {
            let mut items: Vec<u32> = (0..11).collect();
            shuffle(&mut items, seed);
            items
        };
        assert_eq!(order(7), order(7));
        assert_ne!(order(7), order(8));
        let mut sorted = order(7);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..11).collect::<Vec<_>>());
    }

    #[test]
    fn a_checksum_unlike_the_systems_fails() {
        let line =
            |name, sum| format!("name=json allocator={name} wall_s=1 user_s=1 sys_s=1 peak_kib=1 ops=1 checksum={sum}");
        let mut runs = [("stratalloc", 1), ("system", 2), ("jemalloc", 2)]
            .map(|(name, sum)| Run::of_line(1, "json", name, &line(name, sum)));
        check(&mut runs, &mut None);
        assert_eq!(runs.map(|run| run.is_ok()), [false, true, true]);
    }
}
