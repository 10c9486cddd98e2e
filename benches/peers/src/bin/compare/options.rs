//! The command line: what is run, how often, and where the results go.
//!
//! A bad option ends the program with status 2 and a line that names what is wrong and what is right.

use crate::roster::{self, ALLOCATORS, SYSTEM};
use lexopt::prelude::*;
use std::path::{Path, PathBuf};

pub const HELP: &str = "\
stratalloc beside the system allocator and its peers, on real programs' patterns.

cargo run --release --manifest-path benches/peers/Cargo.toml -- [options]

  --rounds N          rounds; each runs every row once on every allocator (5)
  --scale F           length of the rows, 1 = full (1)
  --only A,B          these rows (all; `workload list` names them)
  --allocators A,B    these allocators, and the system's (all)
  --no-idle           do not wait for memory to come back after a row
  --quick             the same as --rounds 1 --scale 0.1 --no-idle
  --out DIR           where results.csv, summary.md and the plots go (benches/peers/results)
  --csv-in FILE       runs nothing: tables and plots of an earlier results.csv
  --binaries DIR      builds nothing: takes DIR/workload-ALLOCATOR
  --micro             instructions of single calls, counted by valgrind, in place of the rows
  --help              this text";

#[derive(Debug, PartialEq)]
pub struct Options {
    pub rounds: u32,
    pub scale: f64,
    /// The rows asked for; all if empty.
    pub only: Vec<String>,
    /// The allocators, in the order of the roster.
    pub allocators: Vec<&'static str>,
    pub no_idle: bool,
    pub out: PathBuf,
    pub csv_in: Option<PathBuf>,
    pub binaries: Option<PathBuf>,
    pub micro: bool,
    pub help: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rounds: 5,
            scale: 1.0,
            only: Vec::new(),
            allocators: ALLOCATORS.iter().map(|allocator| allocator.name).collect(),
            no_idle: false,
            out: Path::new(env!("CARGO_MANIFEST_DIR")).join("results"),
            csv_in: None,
            binaries: None,
            micro: false,
            help: false,
        }
    }
}

/// The options of a command line without the program's name.
///
/// # Errors
///
/// A line for the user.
pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Options, String> {
    let mut options = Options::default();
    let mut parser = lexopt::Parser::from_args(words);
    while let Some(word) = parser.next().map_err(wrong)? {
        match word {
            Long("rounds") => options.rounds = rounds(&text(&mut parser)?)?,
            Long("scale") => options.scale = scale(&text(&mut parser)?)?,
            Long("only") => options.only = list(&text(&mut parser)?),
            Long("allocators") => options.allocators = allocators(&text(&mut parser)?)?,
            Long("out") => options.out = text(&mut parser)?.into(),
            Long("csv-in") => options.csv_in = Some(text(&mut parser)?.into()),
            Long("binaries") => options.binaries = Some(text(&mut parser)?.into()),
            Long("no-idle") => options.no_idle = true,
            Long("micro") => options.micro = true,
            Long("quick") => (options.rounds, options.scale, options.no_idle) = (1, 0.1, true),
            Short('h') | Long("help") => options.help = true,
            other => return Err(wrong(other.unexpected())),
        }
    }
    Ok(options)
}

fn wrong(error: lexopt::Error) -> String {
    format!("{error}; --help lists the options")
}

fn text(parser: &mut lexopt::Parser) -> Result<String, String> {
    parser.value().map_err(wrong)?.into_string().map_err(|word| format!("{} is not Unicode", word.display()))
}

fn rounds(word: &str) -> Result<u32, String> {
    let rounds = word.parse().ok().filter(|rounds| (1..=1000).contains(rounds));
    rounds.ok_or_else(|| format!("--rounds {word}: it takes a number from 1 to 1000, as in --rounds 5"))
}

fn scale(word: &str) -> Result<f64, String> {
    let scale = word.parse().ok().filter(|scale: &f64| *scale > 0.0 && *scale <= 100.0);
    scale.ok_or_else(|| format!("--scale {word}: it takes a number above 0 and up to 100, as in --scale 0.1"))
}

fn list(words: &str) -> Vec<String> {
    words.split(',').map(str::trim).filter(|word| !word.is_empty()).map(String::from).collect()
}

fn allocators(words: &str) -> Result<Vec<&'static str>, String> {
    let asked = list(words);
    if let Some(unknown) = asked.iter().find(|word| roster::find(word).is_none()) {
        let known: Vec<_> = ALLOCATORS.iter().map(|allocator| allocator.name).collect();
        return Err(format!("--allocators {unknown}: there is no such allocator; there are {}", known.join(", ")));
    }
    let wanted = |name: &&str| *name == SYSTEM || asked.iter().any(|word| word == name);
    Ok(ALLOCATORS.iter().map(|allocator| allocator.name).filter(wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Options, String> {
        parse(line.split_whitespace().map(String::from))
    }

    #[test]
    fn nothing_said_is_the_default() {
        assert_eq!(of(""), Ok(Options::default()));
    }

    #[test]
    fn the_system_is_always_there_and_the_order_is_the_rosters() {
        let options = of("--allocators mimalloc2,stratalloc --only json,ast").unwrap();
        assert_eq!(options.allocators, ["system", "stratalloc", "mimalloc2"]);
        assert_eq!(options.only, ["json", "ast"]);
    }

    #[test]
    fn an_error_names_what_is_wrong_and_what_is_right() {
        for (line, wrong, right) in [
            ("--rounds 0", "--rounds 0", "1 to 1000"),
            ("--scale -1", "--scale -1", "above 0"),
            ("--allocators jemaloc", "jemaloc", "stoolap-jemalloc"),
            ("--rouns 3", "--rouns", "--help"),
            ("stray", "stray", "--help"),
        ] {
            let error = of(line).unwrap_err();
            assert!(error.contains(wrong) && error.contains(right), "{error}");
        }
    }
}
