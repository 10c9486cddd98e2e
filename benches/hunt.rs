//! What the corruption hunter costs: `cargo bench --bench hunt [-- ROUNDS [ROW …]]`. The patterns of real programs of
//! `benches/peers`, each in a process of its own, on the build without the feature, with guards for every block, and with
//! pages for one block in 5,000. Rounds are interleaved; the table has the median over the rounds of CPU time and of peak
//! resident memory, each over that of the build without the feature in the same round.

#![allow(clippy::disallowed_macros, clippy::disallowed_methods, reason = "a bench prints, and waits for processes")]

#[path = "common/cost.rs"]
mod cost;
#[path = "common/workloads.rs"]
mod workloads;

use cost::{Cost, median};
use std::path::Path;
use workloads::{build, rows, run};

/// How the hunter is set: what the table calls it, and the words of the environment variable.
const SETTINGS: [(&str, &str); 3] = [("canary", ""), ("frames=0", "frames=0"), ("1/5000", "sample=5000")];
fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let rounds: usize = arguments.next().and_then(|rounds| rounds.parse().ok()).unwrap_or(5);
    let wanted: Vec<String> = arguments.collect();
    let (plain, hunt) = (build("stratalloc"), build("stratalloc-hunt"));
    let names: String = SETTINGS.map(|(name, _)| format!("{name:>10}")).concat();
    println!("{:16}{:>9}{names}  {:>10}{names}", "", "CPU, s", "peak, MiB");
    let mut all: Vec<(f64, f64)> = vec![(0.0, 0.0); SETTINGS.len()];
    let rows: Vec<String> = rows(&plain)
        .into_iter()
        .filter(|row| wanted.is_empty() || wanted.iter().any(|part| row.contains(part)))
        .collect();
    for row in &rows {
        let costs: Vec<[Cost; 4]> = (0..rounds).map(|_| round(row, &plain, &hunt)).collect();
        let ratios = |of: fn(&Cost) -> f64| -> Vec<f64> {
            (1..4).map(|at| median(costs.iter().map(|round| of(&round[at]) / of(&round[0])).collect())).collect()
        };
        let (cpu, peak) = (ratios(|cost| cost.cpu), ratios(|cost| cost.peak));
        all.iter_mut().zip(cpu.iter().zip(&peak)).for_each(|(sum, (cpu, peak))| {
            *sum = (sum.0 + cpu.ln(), sum.1 + peak.ln());
        });
        let first = |of: fn(&Cost) -> f64| median(costs.iter().map(|round| of(&round[0])).collect());
        let show = |ratios: &[f64]| ratios.iter().map(|ratio| format!("{ratio:10.3}")).collect::<String>();
        println!(
            "{row:16}{:9.2}{}  {:10.1}{}",
            first(|cost| cost.cpu),
            show(&cpu),
            first(|cost| cost.peak),
            show(&peak)
        );
    }
    let mean = |of: fn(&(f64, f64)) -> f64| {
        all.iter().map(|sum| format!("{:10.3}", (of(sum) / rows.len() as f64).exp())).collect::<String>()
    };
    println!("{:16}{:9}{}  {:10}{}", "geometric mean", "", mean(|sum| sum.0), "", mean(|sum| sum.1));
}

/// One run of a row on each.
fn round(row: &str, plain: &Path, hunt: &Path) -> [Cost; 4] {
    let hunted = SETTINGS.map(|(_, words)| run(row, hunt, words));
    [run(row, plain, ""), hunted[0], hunted[1], hunted[2]]
}
