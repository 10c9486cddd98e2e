//! `summary.md`: the tables.
//!
//! A cell whose allocator failed in any round says so and stays out of the means; a mean that misses rows says over how
//! many it is.

use crate::record::{Metric, OK};
use crate::roster::{self, FINE, OURS, SYSTEM};
use crate::stats::{Results, geometric_mean, median, throughput};
use std::fmt::Write;

const NONE: &str = "–";

fn cell(value: Option<f64>) -> String {
    value.map_or(NONE.into(), |value| format!("{value:.3}"))
}

/// A markdown table: first column to the left, all others to the right.
pub fn table(head: &[String], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule = format!("|---|{}\n", "--:|".repeat(head.len() - 1));
    line(head) + &rule + &rows.iter().map(|row| line(row)).collect::<String>()
}

/// A table's head: a title and the allocators' names.
fn head(results: &Results, title: &str) -> Vec<String> {
    let names = results.allocators.iter().map(|allocator| allocator.name);
    std::iter::once(title).chain(names).map(String::from).collect()
}

/// A row's cells by allocator, `failed` where a run failed; the lowest of them bold.
fn cells(results: &Results, row: &str, value: impl Fn(&str) -> Option<f64>, digits: usize) -> Vec<String> {
    let values: Vec<_> = results.allocators.iter().map(|of| value(of.name)).collect();
    let lowest = values.iter().flatten().copied().fold(f64::MAX, f64::min);
    let mut cells = vec![row.to_string()];
    for (of, value) in results.allocators.iter().zip(values) {
        cells.push(match value {
            _ if results.has_failed(row, of.name) => "failed".into(),
            Some(value) if value == lowest => format!("**{value:.digits$}**"),
            Some(value) => format!("{value:.digits$}"),
            None => NONE.into(),
        });
    }
    cells
}

/// The geometric means of all allocators, with the count of rows where some are missing.
fn means(results: &Results, metric: Metric) -> Vec<String> {
    let all = results.compared().count();
    let mut row = vec!["**geometric mean**".to_string()];
    for of in &results.allocators {
        row.push(match results.mean(of.name, SYSTEM, metric) {
            Some((mean, rows)) if rows == all => format!("**{mean:.3}**"),
            Some((mean, rows)) => format!("{mean:.3} ({rows} of {all})"),
            None => NONE.into(),
        });
    }
    row
}

/// Ratios to the system's on the rows compared, and their means.
fn ratios(results: &Results, metric: Metric) -> String {
    let ratio = |row: &str, of: &str| results.ratio(row, of, SYSTEM, metric);
    let mut rows: Vec<_> = results.compared().map(|row| cells(results, row, |of| ratio(row, of), 3)).collect();
    rows.push(means(results, metric));
    table(&head(results, "row"), &rows)
}

/// Our CPU time against the row's named peer, the best peer and the system.
fn duel(results: &Results) -> String {
    let titles = [
        "row",
        "named peer",
        "stratalloc / named",
        "lowest to highest",
        "fine / named",
        "best peer",
        "stratalloc / best",
        "stratalloc / system",
    ];
    let (mut rows, mut columns) = (Vec::new(), [const { Vec::new() }; 4]);
    for row in results.compared() {
        let ratio = |over: &str, under: &str| results.ratio(row, over, under, Metric::Cpu);
        let named = roster::named_peer(row);
        let best = results.best_peer(row, Metric::Cpu);
        let values = [
            named.and_then(|peer| ratio(OURS, peer)),
            named.and_then(|peer| ratio(FINE, peer)),
            best.and_then(|(peer, _)| ratio(OURS, peer)),
            ratio(OURS, SYSTEM),
        ];
        columns.iter_mut().zip(values).for_each(|(column, value)| column.extend(value));
        let spread = named.map_or(Vec::new(), |peer| results.ratios(row, OURS, peer, Metric::Cpu));
        let best = best.map_or(NONE.into(), |(peer, ratio)| format!("{peer} ({ratio:.3})"));
        let [ours, fine, by_best, by_system] = values.map(cell);
        rows.push(vec![row.into(), named.unwrap_or(NONE).into(), ours, range(&spread), fine, best, by_best, by_system]);
    }
    for (name, of) in [("geometric mean", geometric_mean as fn(&[f64]) -> Option<f64>), ("highest", highest)] {
        let [ours, fine, by_best, by_system] = columns.each_ref().map(|column| format!("**{}**", cell(of(column))));
        let empty = String::new;
        rows.push(vec![format!("**{name}**"), empty(), ours, empty(), fine, empty(), by_best, by_system]);
    }
    table(&titles.map(String::from), &rows)
}

fn highest(values: &[f64]) -> Option<f64> {
    values.iter().copied().reduce(f64::max)
}

fn range(values: &[f64]) -> String {
    let lowest = values.iter().copied().reduce(f64::min);
    lowest.zip(highest(values)).map_or(NONE.into(), |(low, high)| format!("{low:.2} to {high:.2}"))
}

/// Idle memory in MiB beside the bound; an asterisk where it is above.
fn idle(results: &Results) -> String {
    let mib = |metric: Metric| move |run: &crate::record::Run| Some(run.get(metric)? / 1024.0);
    let mut titles = head(results, "row");
    titles.push("bound".into());
    let mut rows = Vec::new();
    for row in &results.workloads {
        let bound = results.median_of(row, OURS, mib(Metric::Allowed));
        let value = |of: &str| results.median_of(row, of, mib(Metric::Idle));
        let mut line = cells(results, row, value, 1);
        for (cell, of) in line[1..].iter_mut().zip(&results.allocators) {
            if value(of.name).zip(bound).is_some_and(|(idle, bound)| idle > bound) {
                cell.push_str(" \\*");
            }
        }
        line.push(bound.map_or(NONE.into(), |bound| format!("{bound:.1}")));
        rows.push(line);
    }
    let mut mean = means(results, Metric::Idle);
    mean[0] = "**geometric mean, to system's**".into();
    mean.push(String::new());
    rows.push(mean);
    table(&titles, &rows)
}

/// Operations a second of the churn rows, and how they scale; ns an operation of the runs rows; `oscillate`.
fn scaling(results: &Results) -> String {
    let mut rows = Vec::new();
    let apart = || results.workloads.iter().filter(|row| roster::is_apart(row));
    for row in apart().filter(|row| row.starts_with("churn-")) {
        let speed = |of: &str| Some(results.median_of(row, of, throughput)? / 1e6);
        rows.push(titled(cells(results, row, speed, 2), format!("{row}, million operations a second")));
    }
    for (over, under) in [("churn-2", "churn-1"), ("churn-8", "churn-2"), ("churn-64", "churn-2")] {
        let present = |name: &str| results.workloads.iter().any(|row| row == name);
        if present(over) && present(under) {
            let name = format!("{over} / {under}");
            rows.push(cells(results, &name, |of| results.scaling(of, over, under), 2));
        }
    }
    for row in apart().filter(|row| row.starts_with("runs-")) {
        let time = |of: &str| Some(1e9 / results.median_of(row, of, throughput)?);
        rows.push(titled(cells(results, row, time, 1), format!("{row}, ns an operation beside 10^k free runs")));
    }
    for (metric, name) in [(Metric::Cpu, "CPU"), (Metric::Peak, "peak RSS"), (Metric::Idle, "idle")] {
        for row in apart().filter(|row| *row == "oscillate") {
            let ratio = |of: &str| median(results.ratios(row, of, SYSTEM, metric));
            rows.push(titled(cells(results, row, ratio, 3), format!("{row}, {name} / system's")));
        }
    }
    // Up is better in some of these rows and down in others.
    rows.iter_mut().flatten().for_each(|cell| *cell = cell.replace("**", ""));
    table(&head(results, "row"), &rows)
}

fn titled(mut row: Vec<String>, title: String) -> Vec<String> {
    row[0] = title;
    row
}

fn failures(results: &Results) -> String {
    let failed = results.runs.iter().filter(|run| run.status != OK);
    let mut text = String::new();
    for run in failed {
        let _ = writeln!(text, "- round {}, {} on {}: {}", run.round, run.workload, run.allocator, run.status);
    }
    if text.is_empty() { "None.\n".into() } else { text }
}

fn versions() -> String {
    let peers = roster::ALLOCATORS.iter().filter(|of| roster::is_peer(of.name));
    let named = peers.filter_map(|of| Some(format!("{}: {} {}", of.name, of.package, roster::version(of)?)));
    named.collect::<Vec<_>>().join("; ")
}

/// The whole summary.
pub fn write(results: &Results, machine: &str) -> String {
    let has_idle = results.runs.iter().any(|run| run.get(Metric::Idle).is_some());
    let has_apart = results.workloads.iter().any(|row| roster::is_apart(row));
    let mut text = format!(
        "# stratalloc and its peers\n\n{machine}\n\nRounds: {}. Each ratio is taken within a round and to the system \
         allocator's run, unless a title says otherwise; the table shows the median over rounds. Lower is better.\n\n\
         Crates: {}.\n",
        results.rounds,
        versions()
    );
    let mut section = |title: &str, body: String| {
        let _ = write!(text, "\n## {title}\n\n{body}");
    };
    section("CPU time against the named peer", duel(results));
    section("CPU time (user and system)", ratios(results, Metric::Cpu));
    section("Wall time", ratios(results, Metric::Wall));
    section("Peak resident memory", ratios(results, Metric::Peak));
    if has_idle {
        section("Idle resident memory, MiB; \\* above the bound that stratalloc documents", idle(results));
    }
    if has_apart {
        section("Scaling and oscillation (not in the means)", scaling(results));
    }
    section("Failed runs", failures(results));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Run;

    fn run(workload: &str, allocator: &str, cpu: f64) -> Run {
        let line = format!(
            "name={workload} allocator={allocator} wall_s={cpu} user_s={cpu} sys_s=0 peak_kib=2048 idle_kib=2048 \
             allowed_kib=1024 ops=1000 checksum=0"
        );
        Run::of_line(1, workload, allocator, &line)
    }

    #[test]
    fn the_summary_shows_ratios_bounds_scaling_and_failures() {
        let mut runs = Vec::new();
        for (name, cpu) in [("system", 4.0), ("stratalloc", 1.0), ("mimalloc2", 2.0)] {
            runs.extend(["json", "churn-1", "churn-2"].map(|row| run(row, name, cpu)));
        }
        runs.push(Run::failed(1, "json", "smmalloc", "signal: 11"));
        let text = write(&Results::new(runs), "a machine");
        for expected in [
            "| json | 1.000 | **0.250** | 0.500 | failed |",
            "| json | mimalloc2 | 0.500 | 0.50 to 0.50 | – | mimalloc2 (0.500) | 0.500 | 0.250 |",
            "| json | **2.0** \\* | **2.0** \\* | **2.0** \\* | failed | 1.0 |",
            "| churn-2 / churn-1 | 1.00 | 1.00 | 1.00 | – |",
            "- round 1, json on smmalloc: signal: 11",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
    }
}
