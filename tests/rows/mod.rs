//! The promises, row by row (docs/rows.md), each with its broken twin where the row has one.
//!
//! These are compiled into the library's own test binary, on which `Stratalloc` is the global allocator, because twins
//! exist only there. Every promise is shown in a process of its own, once as shipped, which must pass, and once with the
//! promise broken on purpose, which must fail: a test whose twin passes is no test.

#![allow(clippy::disallowed_macros, reason = "tests may print")]

mod blocks;
mod pages;
mod process;
#[path = "../common/random.rs"]
pub(crate) mod random;
mod residency;
mod support;

use std::io::{BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Tells a child which promise it shows: its row's number if it is to be broken, else 0.
const TWIN: &str = "STRATALLOC_TWIN";

/// Shows a promise. `name` is the path of the test that calls; `row` is the row's number if it has a twin.
fn promise(name: &str, row: Option<u8>, scenario: fn()) {
    if let Ok(twin) = std::env::var(TWIN) {
        crate::twin::set(twin.parse().expect("the twin is a number"));
        return scenario();
    }
    let (passed, text) = run(name, 0, Duration::from_secs(600));
    println!("{text}");
    assert!(passed, "{name} failed as shipped");
    if let Some(row) = row {
        let (passed, _) = run(name, row, Duration::from_secs(20));
        assert!(!passed, "{name} passed with the promise of its row broken");
    }
}

/// Runs the test `name` in a process of its own with the promise of `row` broken: whether it passes within the limit, and
/// what it prints.
fn run(name: &str, row: u8, limit: Duration) -> (bool, String) {
    let mut command = Command::new(std::env::current_exe().expect("this test has a path"));
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(TWIN, row.to_string());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("this test can be started again");
    wait(child, limit)
}

/// Reads all of a child's output, in a thread of its own.
fn listen(output: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = BufReader::new(output).read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Whether the child ends well within the limit, past which it is killed, and what it prints.
fn wait(mut child: Child, limit: Duration) -> (bool, String) {
    let start = Instant::now();
    let (out, err) = (child.stdout.take().map(listen), child.stderr.take().map(listen));
    let status = loop {
        match child.try_wait().expect("the child can be waited for") {
            Some(status) => break Some(status),
            None if start.elapsed() > limit => break None,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    if status.is_none() {
        child.kill().expect("the child is ours");
        child.wait().expect("the child was killed");
        return (false, format!("killed after {limit:?}"));
    }
    let texts = [out, err].into_iter().flatten().map(|text| text.join().unwrap_or_default());
    (status.is_some_and(|status| status.success()), texts.collect())
}
