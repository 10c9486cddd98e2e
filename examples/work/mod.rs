//! Work that real programs do, for an allocator to show itself on: a JSON document is parsed, queried and written again,
//! and several threads index the words of many files. `quickstart` does it on stratalloc, `baseline` on the system's
//! allocator.

mod json;
pub(crate) mod report;
mod words;

use report::{resident, say};
use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

/// How long the program stands still before its memory is looked at.
const IDLE: Duration = Duration::from_secs(1);

/// Does all of the work, with the JSON document that the command line names, and says what it did and what memory it
/// had meanwhile.
pub(crate) fn run() -> Result<(), String> {
    let start = resident();
    let document = json::document(file_argument()?)?;
    let queried = json::work(&document)?;
    let indexed = words::work();
    let results = resident();
    drop((document, queried, indexed));
    let dropped = resident();
    sleep(IDLE);
    say(format_args!("memory  resident at the start            {start}"));
    say(format_args!("memory  resident with all results held   {results}"));
    say(format_args!("memory  resident once they were dropped  {dropped}"));
    say(format_args!("memory  resident after a second of rest  {}", resident()));
    Ok(())
}

/// The file that the command line names, if it names one.
fn file_argument() -> Result<Option<PathBuf>, String> {
    let mut arguments = env::args_os().skip(1);
    let file = arguments.next().map(PathBuf::from);
    match arguments.next() {
        None => Ok(file),
        Some(second) => Err(format!("{second:?} is one argument too many; give one JSON file, or nothing")),
    }
}

/// What the program ends with; an error goes to standard error.
pub(crate) fn exit_code(outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::complain(format_args!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// `bytes` in MiB.
fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
