//! A run and its figures: the line a workload prints, and the row of `results.csv` that keeps it.
//!
//! The CSV's first line is a comment that holds the machine, so that a later summary of it names the right one.

use std::collections::HashMap;
use std::io::{Read, Write};

/// The status of a run that went well; any other text says why not.
pub const OK: &str = "ok";

/// The figures of a run, by key; in this order in the CSV.
pub const FIGURES: [&str; 7] = ["wall_s", "user_s", "sys_s", "peak_kib", "idle_kib", "allowed_kib", "ops"];

/// What is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Metric {
    Wall,
    Cpu,
    Peak,
    Idle,
    Allowed,
    Ops,
}

#[derive(Clone, PartialEq, Debug, Default)]
pub struct Run {
    pub round: u32,
    pub workload: String,
    pub allocator: String,
    pub status: String,
    pub figures: [Option<f64>; FIGURES.len()],
    pub checksum: String,
}

impl Run {
    pub fn failed(round: u32, workload: &str, allocator: &str, why: &str) -> Self {
        let status = why.split_whitespace().collect::<Vec<_>>().join(" ");
        Self { round, workload: workload.into(), allocator: allocator.into(), status, ..Self::default() }
    }

    /// Reads the line that `workload run` printed.
    pub fn of_line(round: u32, workload: &str, allocator: &str, line: &str) -> Self {
        let failed = |why: &str| Self::failed(round, workload, allocator, why);
        if let Some((_, why)) = line.split_once("failed=") {
            return failed(&format!("failed: {why}"));
        }
        let pairs: HashMap<&str, &str> = line.split_whitespace().filter_map(|word| word.split_once('=')).collect();
        if pairs.get("allocator") != Some(&allocator) || pairs.get("name") != Some(&workload) {
            return failed(&format!("not this run's line: {line}"));
        }
        let figures = FIGURES.map(|key| pairs.get(key).and_then(|word| word.parse().ok()).filter(|v: &f64| *v >= 0.0));
        if let Some(missing) = (0..4).find(|index| figures[*index].is_none()) {
            return failed(&format!("no {} in: {line}", FIGURES[missing]));
        }
        let checksum = pairs.get("checksum").copied().unwrap_or_default().to_string();
        Self { status: OK.into(), figures, checksum, ..failed("") }
    }

    pub fn is_ok(&self) -> bool {
        self.status == OK
    }

    pub fn get(&self, metric: Metric) -> Option<f64> {
        let [wall, user, sys, peak, idle, allowed, ops] = self.figures;
        let positive = |value: Option<f64>| value.filter(|value| *value > 0.0);
        match metric {
            Metric::Wall => positive(wall),
            Metric::Cpu => positive(Some(user? + sys?)),
            Metric::Peak => positive(peak),
            Metric::Idle => positive(idle),
            Metric::Allowed => positive(allowed),
            Metric::Ops => positive(ops),
        }
    }
}

/// Writes the machine and all runs.
///
/// # Errors
///
/// Those of the writer.
pub fn write(mut out: impl Write, machine: &str, runs: &[Run]) -> Result<(), csv::Error> {
    writeln!(out, "# {machine}")?;
    let mut table = csv::Writer::from_writer(out);
    table.write_record(["round", "workload", "allocator", "status"].into_iter().chain(FIGURES).chain(["checksum"]))?;
    for run in runs {
        let figures = run.figures.map(|figure| figure.map_or(String::new(), |figure| figure.to_string()));
        let names = [&run.round.to_string(), &run.workload, &run.allocator, &run.status];
        table.write_record(names.into_iter().chain(&figures).chain([&run.checksum]))?;
    }
    Ok(table.flush()?)
}

/// Reads what `write` wrote: the machine, and the runs.
///
/// # Errors
///
/// A line for the user.
pub fn read(mut from: impl Read) -> Result<(String, Vec<Run>), String> {
    let mut text = String::new();
    from.read_to_string(&mut text).map_err(|error| error.to_string())?;
    let machine = text.lines().next().and_then(|line| line.strip_prefix("# ")).unwrap_or("machine unknown").to_string();
    let mut table = csv::ReaderBuilder::new().comment(Some(b'#')).from_reader(text.as_bytes());
    let header = table.headers().map_err(|error| error.to_string())?.clone();
    let column = |name: &str| header.iter().position(|title| title == name).ok_or(format!("no column {name}"));
    let names = ["round", "workload", "allocator", "status", "checksum"].map(column);
    let [round, workload, allocator, status, checksum] = names;
    let (round, workload, allocator, status, checksum) = (round?, workload?, allocator?, status?, checksum?);
    let figures = FIGURES.into_iter().map(column).collect::<Result<Vec<_>, _>>()?;
    let mut runs = Vec::new();
    for row in table.records() {
        let row = row.map_err(|error| error.to_string())?;
        let mut run = Run::failed(0, &row[workload], &row[allocator], &row[status]);
        run.round = row[round].parse().map_err(|_| format!("round {} is not a number", &row[round]))?;
        run.checksum = row[checksum].into();
        for (figure, column) in run.figures.iter_mut().zip(&figures) {
            *figure = row[*column].parse().ok();
        }
        runs.push(run);
    }
    Ok((machine, runs))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "name=json allocator=system wall_s=1.5 user_s=1.25 sys_s=0.25 peak_kib=1024 idle_kib=512 \
                        allowed_kib=800 ops=1000 checksum=abc";

    #[test]
    fn a_line_is_read() {
        let run = Run::of_line(3, "json", "system", LINE);
        assert!(run.is_ok(), "{}", run.status);
        assert_eq!((run.get(Metric::Cpu), run.get(Metric::Idle)), (Some(1.5), Some(512.0)));
        assert_eq!(run.checksum, "abc");
    }

    #[test]
    fn a_failure_and_a_line_of_another_run_are_failed_runs() {
        assert_eq!(Run::of_line(1, "json", "system", "name=json failed=no such file").status, "failed: no such file");
        assert!(!Run::of_line(1, "json", "mimalloc2", LINE).is_ok());
        assert!(!Run::of_line(1, "json", "system", "").is_ok());
    }

    #[test]
    fn the_csv_comes_back_as_it_was() {
        let mut runs = vec![Run::of_line(1, "json", "system", LINE)];
        runs.push(Run::failed(2, "json", "smmalloc", "signal: 11, \"quoted\""));
        runs.push(Run::of_line(1, "json", "system", &LINE.replace("idle_kib=512", "idle_kib=-")));
        let mut file = Vec::new();
        write(&mut file, "a machine, of some kind", &runs).unwrap();
        assert_eq!(read(file.as_slice()), Ok(("a machine, of some kind".into(), runs)));
    }

    #[test]
    fn a_missing_column_is_named() {
        assert_eq!(read("round,workload\n".as_bytes()), Err("no column allocator".into()));
    }
}
