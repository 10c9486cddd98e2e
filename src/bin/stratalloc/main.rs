//! `stratalloc`, the tool for shared heaps: it lists them, looks into them while others use them, audits and draws them, and mends
//! those that processes died in. All but `repair` only read.
//!
//! Ends with 0, with 1 if something was found wrong, and with 2 if it could not do what it was asked for.

mod check;
mod dump;
mod info;
mod list;
mod map;
mod repair;
#[cfg(feature = "symmetric")]
mod run;
mod text;
mod top;

use clap::{Parser, Subcommand};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use stratalloc::view::{View, ViewError, end_where_cut_off};

/// Looks at shared heaps of stratalloc's, and mends them.
///
/// A heap is looked at by its file alone, while whoever uses it goes on: nothing but `repair` writes to it, or waits for
/// anybody. Ends with status 0, with 1 if something was found wrong, and with 2 if it could not do what it was asked for.
#[derive(Debug, Parser)]
#[command(name = "stratalloc", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists the heaps in a folder.
    List {
        /// The folder.
        #[arg(default_value = "/dev/shm")]
        folder: PathBuf,
    },
    /// Says what a heap is, where its bytes are, and who is in it.
    Info {
        /// The heap's file.
        file: PathBuf,
        /// As JSON, with numbers of bytes.
        #[arg(long)]
        json: bool,
        /// With a table of the size classes, and the counters of all layers.
        #[arg(long, conflicts_with = "json")]
        classes: bool,
    },
    /// Shows who is in a heap and what becomes of its bytes, again and again.
    Top {
        /// The heap's file.
        file: PathBuf,
        /// Seconds between two looks: from 0.01 on.
        #[arg(short, long, default_value = "1", value_parser = top::seconds)]
        interval: std::time::Duration,
        /// Ends after so many looks.
        #[arg(short = 'n', long)]
        count: Option<u64>,
    },
    /// Audits a heap, whether or not somebody uses it: says what is wrong, and ends with status 1 then.
    Check {
        /// The heap's file.
        file: PathBuf,
    },
    /// Lists every run and slab of a heap, one in a line.
    Dump {
        /// The heap's file.
        file: PathBuf,
    },
    /// Draws the runs and slabs of a heap.
    Map {
        /// The heap's file.
        file: PathBuf,
        /// The picture, in SVG; `-` for the standard output.
        #[arg(short, long)]
        output: PathBuf,
    },
    /// Mends a heap that nobody lives in, and audits it.
    Repair {
        /// The heap's file.
        file: PathBuf,
        /// Lets the file be on a network file system: no process of another machine may use the heap.
        #[arg(long)]
        network: bool,
    },
    /// Starts a program as the processing elements of a job, each with a symmetric heap, and waits for all.
    ///
    /// Ends with the status of the first that does not end well, and ends the others then; with 128 and the number of the signal that killed
    /// it, or with what `shmem_global_exit` was told.
    #[cfg(feature = "symmetric")]
    Run(run::Job),
    /// What `repair` lets a process of its own do.
    #[command(hide = true)]
    MendAlone {
        /// The heap's file.
        file: PathBuf,
        /// As that of `repair`.
        #[arg(long)]
        network: bool,
    },
}

/// How a command ends that does not end well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something is wrong, and was said.
    Found,
    /// It could not be done, and why.
    Refused(String),
    /// The output could not be written.
    Output(io::Error),
    /// A job ended with this status, and it was said why.
    #[cfg(feature = "symmetric")]
    Job(u8),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// That the file at `path` cannot be looked at.
pub(crate) fn refused(path: &Path, error: &ViewError) -> Failure {
    let text = error.to_string();
    Failure::Refused(format!("{}: {}", text::path(path), text.strip_prefix("shared heap: ").unwrap_or(&text)))
}

/// Opens the heap at `path` to look at it.
pub(crate) fn open(path: &Path) -> Result<View, Failure> {
    View::open(path).map_err(|error| refused(path, &error))
}

fn run(command: Command, out: &mut dyn Write) -> Result<(), Failure> {
    match command {
        Command::List { folder } => list::run(&folder, out),
        Command::Info { file, json, classes } => info::run(&file, json, classes, out),
        Command::Top { file, interval, count } => top::run(&file, interval, count, out),
        Command::Check { file } => check::run(&file, out),
        Command::Dump { file } => dump::run(&file, out),
        Command::Map { file, output } => map::run(&file, &output, out),
        #[cfg(feature = "symmetric")]
        Command::Run(job) => run::run(&job),
        Command::Repair { file, network } => repair::run(&file, network, out),
        Command::MendAlone { file, network } => repair::mend_alone(&file, network),
    }
}

/// Says what is wrong with what was asked for, or what there is to ask for. (An argument may have anything in it.)
fn explain(error: &clap::Error) -> ExitCode {
    let text: String = error.to_string().lines().map(|line| text::plain(line) + "\n").collect();
    let mut out: Box<dyn Write> = if error.use_stderr() { Box::new(io::stderr()) } else { Box::new(io::stdout()) };
    let _ = out.write_all(text.as_bytes());
    ExitCode::from(if error.use_stderr() { 2 } else { 0 })
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return explain(&error),
    };
    end_where_cut_off();
    let mut out = BufWriter::new(io::stdout().lock());
    let result = run(arguments.command, &mut out);
    let written = out.flush();
    match result.and_then(|()| written.map_err(Failure::Output)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Found) => ExitCode::from(1),
        #[cfg(feature = "symmetric")]
        Err(Failure::Job(status)) => ExitCode::from(status),
        // Whoever reads has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            let why = match failure {
                Failure::Output(error) => format!("cannot write the output: {error}"),
                Failure::Refused(why) => why,
                _ => String::new(),
            };
            let _ = writeln!(io::stderr(), "stratalloc: {why}");
            ExitCode::from(2)
        }
    }
}
