//! The patterns of real programs of `benches/peers`, each run in a process of its own.

use crate::cost::{Cost, wait};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How much of a row is run.
const SCALE: &str = "0.2";

/// Runs a row, with these words for the corruption hunter, if there is one.
pub(crate) fn run(row: &str, program: &Path, words: &str) -> Cost {
    let mut command = Command::new(program);
    command.args(["run", row, "--no-idle", "--scale", SCALE]).env("STRATALLOC_DEBUG", words);
    let child = command.stdout(Stdio::null()).spawn().expect("the workloads run");
    wait(child).expect("the workload ends well, without a report")
}

/// How much of a row is run where its instructions are counted, which takes fifty times as long.
#[allow(dead_code, reason = "not all benches count")]
pub(crate) const SCALE_COUNTED: &str = "0.02";

/// The rows that are of real programs.
pub(crate) fn rows(program: &Path) -> Vec<String> {
    let output = Command::new(program).arg("list").output().expect("the workloads can be listed");
    let text = String::from_utf8(output.stdout).expect("text");
    let names = text.lines().filter_map(|line| line.split('\t').next());
    let apart = |name: &str| name == "oscillate" || name.starts_with("churn-") || name.starts_with("runs-");
    names.filter(|name| !apart(name)).map(String::from).collect()
}

/// Builds the workloads on an allocator, and keeps the program.
pub(crate) fn build(allocator: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/workloads");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--release", "--bin", "workload", "--manifest-path", "benches/peers/Cargo.toml"]);
    cargo.args(["--features", allocator]).arg("--target-dir").arg(&target).current_dir(env!("CARGO_MANIFEST_DIR"));
    assert!(cargo.status().expect("cargo runs").success(), "the workloads do not build on {allocator}");
    let to = target.join(allocator);
    std::fs::copy(target.join("release/workload"), &to).expect("the program is there");
    to
}
