//! A small grep on stratalloc, over the library crates of ripgrep: it walks directories with several threads, as their
//! ignore files say, and prints each line that matches.
//!
//! ```text
//! cargo run --release --example search -- 'fn \w+' src
//! ```

use grep_matcher::Matcher;
use grep_regex::RegexMatcher;
use grep_searcher::{Searcher, sinks::UTF8};
use ignore::{DirEntry, WalkBuilder, WalkParallel, WalkState};
use std::error::Error;
use std::fmt::Write as _;
use std::io::{Write as _, stderr, stdout};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Sender, channel};
use stratalloc::Stratalloc;

#[global_allocator]
static A: Stratalloc = Stratalloc::new();

/// The matching lines of the file at `path`, each as `path:line:column:text`; a file that is no text has none.
fn search(matcher: &RegexMatcher, path: &Path) -> std::io::Result<String> {
    let mut found = String::new();
    let sink = UTF8(|number, line| {
        let column = matcher.find(line.as_bytes())?.map_or(0, |found| found.start() + 1);
        let text = line.trim_end_matches('\n');
        writeln!(found, "{}:{number}:{column}:{text}", path.display()).map_err(std::io::Error::other)?;
        Ok(true)
    });
    Searcher::new().search_path(matcher, path, sink)?;
    Ok(found)
}

type Visitor<'a> = Box<dyn FnMut(Result<DirEntry, ignore::Error>) -> WalkState + Send + 'a>;

/// What each thread of a walk does with a file: it searches it and sends what it finds.
fn visitor(matcher: &RegexMatcher, found: Sender<String>) -> Visitor<'_> {
    Box::new(move |entry| {
        let lines = match entry {
            Ok(entry) if entry.file_type().is_some_and(|kind| kind.is_file()) => search(matcher, entry.path()),
            Ok(_) => return WalkState::Continue,
            Err(error) => Err(std::io::Error::other(error)),
        };
        let sent = match lines {
            Ok(lines) => found.send(lines).is_ok(),
            Err(error) => writeln!(stderr(), "search: {error}").is_ok(),
        };
        if sent { WalkState::Continue } else { WalkState::Quit }
    })
}

/// A walk over all of `paths`.
fn walk(mut paths: impl Iterator<Item = String>) -> WalkParallel {
    let mut builder = WalkBuilder::new(paths.next().unwrap_or_else(|| ".".to_owned()));
    paths.for_each(|path| {
        builder.add(path);
    });
    builder.threads(4).build_parallel()
}

fn run(pattern: &str, paths: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let matcher = &RegexMatcher::new_line_matcher(pattern)?;
    let walk = walk(paths);
    let (give, take) = channel();
    std::thread::scope(|scope| {
        scope.spawn(move || walk.run(|| visitor(matcher, give.clone())));
        let mut out = stdout().lock();
        take.into_iter().try_for_each(|lines| out.write_all(lines.as_bytes()))
    })?;
    Ok(())
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(pattern) = arguments.next() else {
        let _ = writeln!(stderr(), "usage: search PATTERN [PATH]...");
        return ExitCode::from(2);
    };
    match run(&pattern, arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(stderr(), "search: {error}");
            ExitCode::from(2)
        }
    }
}
