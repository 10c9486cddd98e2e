//! The promises, row by row (docs/rows.md), each with its broken twin where the row has one.
//!
//! These are compiled into the library's own test binary, on which `Stratalloc` is the global allocator, because twins
//! exist only there. Every promise is shown in a process of its own, once as shipped, which must pass, and once with the
//! promise broken on purpose, which must fail: a test whose twin passes is no test.

#![allow(clippy::disallowed_macros, reason = "tests may print")]

mod blocks;
mod pages;
mod process;
mod support;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Tells a child which promise it shows: its row's number if it is to be broken, else 0.
const TWIN: &str = "STRATALLOC_TWIN";

/// Shows a promise. `name` is the path of the test that calls; `row` is the row's number if it has a twin.
fn promise(name: &str, row: Option<u8>, scenario: fn()) {
    if let Ok(twin) = std::env::var(TWIN) {
        crate::twin::set(twin.parse().expect("the twin is a number"));
        return scenario();
    }
    assert!(passes(name, 0, Duration::from_secs(120)), "{name} failed as shipped");
    if let Some(row) = row {
        assert!(!passes(name, row, Duration::from_secs(20)), "{name} passed with the promise of its row broken");
    }
}

/// Whether the test `name` passes in a process of its own, within the limit, with the promise of `row` broken.
fn passes(name: &str, row: u8, limit: Duration) -> bool {
    let mut command = Command::new(std::env::current_exe().expect("this test has a path"));
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(TWIN, row.to_string());
    if row != 0 {
        command.stdout(Stdio::null()).stderr(Stdio::null());
    }
    let child = command.spawn().expect("this test can be started again");
    wait(child, limit)
}

/// Whether the child ends well within the limit; past that it is killed.
fn wait(mut child: Child, limit: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Some(status) = child.try_wait().expect("the child can be waited for") {
            return status.success();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().expect("the child is ours");
    child.wait().expect("the child was killed");
    false
}
