//! With the feature `valgrind`, memcheck finds what a program does wrong with our blocks, and says nothing of one that does
//! nothing wrong.

#[path = "common/example.rs"]
mod example;
#[path = "common/skipped.rs"]
mod skipped;

use skipped::skipped;
use std::process::Command;

/// The exit status of a run in which memcheck has found something.
const FOUND: i32 = 77;

/// Runs the program under memcheck: its exit status, and what was reported.
fn check(mistake: &str, size: usize) -> Option<(i32, String)> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", &format!("--error-exitcode={FOUND}")]).arg(example::path("memcheck"));
    let output = valgrind.args([mistake, &size.to_string()]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr);
    // Valgrind warns if the process ends while the purger sorts blocks, during which nothing is reported.
    let report = text.lines().filter(|line| !line.contains("WARNING: ")).collect::<Vec<_>>().join("\n");
    Some((output.status.code().unwrap_or(-1), report))
}

#[test]
fn memcheck_finds_mistakes_and_nothing_else() {
    for size in [40, 100_000] {
        let Some((status, report)) = check("correct", size) else {
            return skipped("memcheck: valgrind is not installed");
        };
        assert_eq!((status, report.as_str()), (0, ""), "a correct program, {size} bytes");
        let mistakes = [
            ("freed", "Invalid read"),
            ("beyond", "Invalid write"),
            ("unwritten", "uninitialised"),
            ("twice", "Invalid free"),
        ];
        for (mistake, line) in mistakes {
            let (status, report) = check(mistake, size).expect("it ran before");
            assert!(status == FOUND && report.contains(line), "{mistake}, {size} bytes: {status}\n{report}");
            assert!(report.contains("memcheck.rs"), "it says where: {report}");
        }
    }
}
