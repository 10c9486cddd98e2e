//! What the feature `hooks` costs a program that uses none of it: `cargo bench --bench hooks [-- ROUNDS [ROW …]]`. The patterns of real programs
//! of `benches/peers`, each in a process of its own, on the build with the feature and on the one without, which is run twice: what that
//! differs from itself by is the machine's. Rounds are interleaved; the table has medians of CPU time and of peak
//! resident memory, over the first build's in the same round, and, by callgrind, instructions of a tenth of the row. (Those of rows with
//! several threads, or with hash maps, whose seeds are random, are not the same in any two runs.)

#![allow(clippy::disallowed_macros, clippy::disallowed_methods, reason = "a bench prints, and waits for processes")]

#[path = "common/callgrind.rs"]
mod callgrind;
#[path = "common/cost.rs"]
mod cost;
#[path = "common/workloads.rs"]
mod workloads;

use cost::{Cost, median};
use std::path::Path;
use workloads::{SCALE_COUNTED, build, rows, run};

type Figure = fn(&Cost) -> f64;

/// Instructions of a part of a row.
fn instructions(row: &str, program: &Path) -> f64 {
    callgrind::instructions(program, &["run", row, "--no-idle", "--scale", SCALE_COUNTED]) as f64
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let rounds: usize = arguments.next().and_then(|rounds| rounds.parse().ok()).unwrap_or(5);
    let wanted: Vec<String> = arguments.collect();
    let (plain, hooks) = (build("stratalloc"), build("stratalloc-hooks"));
    let is_wanted = |row: &String| wanted.is_empty() || wanted.iter().any(|part| row.contains(part));
    let rows: Vec<String> = rows(&plain).into_iter().filter(is_wanted).collect();
    let head = format!("{:>12}{:>12}", "with hooks", "the same");
    let counts = callgrind::is_installed();
    if !counts {
        println!("SKIPPED: no instruction was counted, since valgrind is not installed");
    }
    println!("{:16}{:>9}{head}  {:>10}{head}  {:>12}{head}", "", "CPU, s", "peak, MiB", "instructions");
    let mut sums = [0.0; 6];
    for row in &rows {
        let costs: Vec<[Cost; 3]> = (0..rounds)
            .map(|round| {
                // Who is before whom is not always the same.
                let before = (round % 2 == 1).then(|| run(row, &plain, ""));
                let (first, with) = (run(row, &plain, ""), run(row, &hooks, ""));
                [first, with, before.unwrap_or_else(|| run(row, &plain, ""))]
            })
            .collect();
        let median_of = |of: &dyn Fn(&[Cost; 3]) -> f64| median(costs.iter().map(of).collect());
        let over = |at: usize, of: Figure| median_of(&|round| of(&round[at]) / of(&round[0]));
        let [cpu, peak]: [Figure; 2] = [|cost| cost.cpu, |cost| cost.peak];
        let counted =
            [&plain, &hooks, &plain].map(|program| if counts { instructions(row, program) } else { f64::NAN });
        let [with, again] = [1, 2].map(|at| counted[at] / counted[0]);
        let ratios = [over(1, cpu), over(2, cpu), over(1, peak), over(2, peak), with, again];
        sums.iter_mut().zip(ratios).for_each(|(sum, ratio)| *sum += ratio.ln());
        let first = [cpu, peak].map(|of| median_of(&|round| of(&round[0])));
        println!(
            "{row:16}{:9.2}{:12.3}{:12.3}  {:10.1}{:12.3}{:12.3}  {:12}{with:12.5}{again:12.5}",
            first[0], ratios[0], ratios[1], first[1], ratios[2], ratios[3], counted[0]
        );
    }
    let [cpu, same_cpu, peak, same_peak, with, again] = sums.map(|sum| (sum / rows.len() as f64).exp());
    println!(
        "{:16}{:9}{cpu:12.3}{same_cpu:12.3}  {:10}{peak:12.3}{same_peak:12.3}  {:12}{with:12.5}{again:12.5}",
        "geometric mean", "", "", ""
    );
}
