//! The statistics: medians over rounds of ratios within a round, and geometric means over rows.
//!
//! Both sides of a ratio ran in the same round, minutes apart at the most, so that a machine that is slower for an hour
//! does not show.

use crate::record::{Metric, Run};
use crate::roster;
use std::collections::HashMap;

pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

pub fn geometric_mean(values: &[f64]) -> Option<f64> {
    let logarithms: f64 = values.iter().map(|value| value.ln()).sum();
    (!values.is_empty()).then(|| (logarithms / values.len() as f64).exp())
}

/// All runs, and their order in the tables.
pub struct Results {
    pub runs: Vec<Run>,
    pub rounds: u32,
    pub workloads: Vec<String>,
    pub allocators: Vec<&'static roster::Allocator>,
    index: HashMap<(u32, String, String), usize>,
}

impl Results {
    /// Rows in the order of their first run, allocators in the roster's.
    pub fn new(runs: Vec<Run>) -> Self {
        let mut workloads: Vec<String> = Vec::new();
        for run in &runs {
            if !workloads.contains(&run.workload) {
                workloads.push(run.workload.clone());
            }
        }
        let ran = |name: &str| runs.iter().any(|run| run.allocator == name);
        let allocators = roster::ALLOCATORS.iter().filter(|allocator| ran(allocator.name)).collect();
        let key = |run: &Run| (run.round, run.workload.clone(), run.allocator.clone());
        let index = runs.iter().enumerate().map(|(at, run)| (key(run), at)).collect();
        let rounds = runs.iter().map(|run| run.round).max().unwrap_or(0);
        Self { runs, rounds, workloads, allocators, index }
    }

    /// The rows that the means are taken over.
    pub fn compared(&self) -> impl Iterator<Item = &str> {
        self.workloads.iter().map(String::as_str).filter(|row| !roster::is_apart(row))
    }

    fn run(&self, round: u32, workload: &str, allocator: &str) -> Option<&Run> {
        self.index.get(&(round, workload.to_string(), allocator.to_string())).map(|at| &self.runs[*at])
    }

    /// A figure of one run that went well.
    fn figure(&self, round: u32, workload: &str, allocator: &str, of: &dyn Fn(&Run) -> Option<f64>) -> Option<f64> {
        self.run(round, workload, allocator).filter(|run| run.is_ok()).and_then(of)
    }

    /// Did any run of the row fail on the allocator?
    pub fn has_failed(&self, workload: &str, allocator: &str) -> bool {
        (1..=self.rounds).filter_map(|round| self.run(round, workload, allocator)).any(|run| !run.is_ok())
    }

    /// The median of a figure.
    pub fn median_of(&self, workload: &str, allocator: &str, of: impl Fn(&Run) -> Option<f64>) -> Option<f64> {
        median((1..=self.rounds).filter_map(|round| self.figure(round, workload, allocator, &of)).collect())
    }

    /// The ratios of two allocators on a row, one for each round in which both went well.
    pub fn ratios(&self, workload: &str, over: &str, under: &str, metric: Metric) -> Vec<f64> {
        let get = |round, allocator| self.figure(round, workload, allocator, &|run| run.get(metric));
        (1..=self.rounds).filter_map(|round| Some(get(round, over)? / get(round, under)?)).collect()
    }

    /// The median of these ratios; none if any run failed.
    pub fn ratio(&self, workload: &str, over: &str, under: &str, metric: Metric) -> Option<f64> {
        if self.has_failed(workload, over) || self.has_failed(workload, under) {
            return None;
        }
        median(self.ratios(workload, over, under, metric))
    }

    /// The geometric mean over the rows compared that have a ratio, and how many those are.
    pub fn mean(&self, over: &str, under: &str, metric: Metric) -> Option<(f64, usize)> {
        let ratios: Vec<_> = self.compared().filter_map(|row| self.ratio(row, over, under, metric)).collect();
        geometric_mean(&ratios).map(|mean| (mean, ratios.len()))
    }

    /// The peer with the lowest ratio to the system's on a row.
    pub fn best_peer(&self, workload: &str, metric: Metric) -> Option<(&'static str, f64)> {
        let peers = self.allocators.iter().map(|allocator| allocator.name).filter(|name| roster::is_peer(name));
        let ratios = peers.filter_map(|name| Some((name, self.ratio(workload, name, roster::SYSTEM, metric)?)));
        ratios.min_by(|(_, a), (_, b)| a.total_cmp(b))
    }

    /// The median over rounds of the ratio of two rows' operations a second, on one allocator.
    pub fn scaling(&self, allocator: &str, over: &str, under: &str) -> Option<f64> {
        let speed = |round, row| self.figure(round, row, allocator, &throughput);
        let ratios = (1..=self.rounds).filter_map(|round| Some(speed(round, over)? / speed(round, under)?));
        (!self.has_failed(over, allocator) && !self.has_failed(under, allocator)).then(|| median(ratios.collect()))?
    }
}

/// Operations a second.
pub fn throughput(run: &Run) -> Option<f64> {
    Some(run.get(Metric::Ops)? / run.get(Metric::Wall)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(round: u32, workload: &str, allocator: &str, cpu: f64) -> Run {
        let line = format!(
            "name={workload} allocator={allocator} wall_s={cpu} user_s={cpu} sys_s=0 peak_kib=1 idle_kib=1 \
             allowed_kib=1 ops=10 checksum=0"
        );
        Run::of_line(round, workload, allocator, &line)
    }

    #[test]
    fn medians_and_means() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(geometric_mean(&[]), None);
        assert!((geometric_mean(&[0.5, 2.0, 8.0]).unwrap() - 2.0).abs() < 1e-12);
    }

    /// The second round ran on a machine ten times slower: the median of ratios does not see it, a ratio of medians
    /// would.
    #[test]
    fn ratios_are_taken_within_a_round() {
        let (system, ours) = ([1.0, 10.0, 1.0], [0.5, 5.0, 5.0]);
        let rounds = (0..3).flat_map(|i| {
            [run(i as u32 + 1, "json", "system", system[i]), run(i as u32 + 1, "json", "stratalloc", ours[i])]
        });
        let results = Results::new(rounds.collect());
        assert_eq!(results.ratio("json", "stratalloc", "system", Metric::Cpu), Some(0.5));
    }

    #[test]
    fn a_failed_run_takes_its_cell_out_of_the_mean() {
        let mut runs = Vec::new();
        for (row, cpu) in [("json", 2.0), ("ast", 8.0), ("churn-2", 100.0)] {
            runs.extend([run(1, row, "system", 1.0), run(1, row, "jemalloc", cpu)]);
        }
        assert_eq!(Results::new(runs.clone()).mean("jemalloc", "system", Metric::Cpu), Some((4.0, 2)));
        runs[1] = Run::failed(1, "json", "jemalloc", "signal 11");
        let results = Results::new(runs);
        assert!(results.has_failed("json", "jemalloc"));
        let (mean, rows) = results.mean("jemalloc", "system", Metric::Cpu).unwrap();
        assert!((mean - 8.0).abs() < 1e-9 && rows == 1);
    }

    #[test]
    fn the_best_peer_is_neither_ours_nor_the_systems() {
        let cpus = [("system", 1.0), ("stratalloc", 0.1), ("jemalloc", 0.9), ("mimalloc2", 0.8)];
        let results = Results::new(cpus.map(|(name, cpu)| run(1, "json", name, cpu)).to_vec());
        assert_eq!(results.best_peer("json", Metric::Cpu), Some(("mimalloc2", 0.8)));
    }
}
