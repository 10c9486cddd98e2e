//! `stratalloc run`

use crate::Failure;
use clap::Args;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::Command;
use stratalloc::symmetric::launch;

/// A job, as it is asked for.
#[derive(Debug, Args)]
pub(crate) struct Job {
    /// How many processing elements: from 1 to 1024.
    #[arg(short = 'n', long = "np", visible_alias = "pes", value_name = "PES", default_value_t = 1)]
    pes: usize,
    /// How large the heap of each is, such as 512m or 1.5g: SHMEM_SYMMETRIC_SIZE for them.
    #[arg(long, value_name = "SIZE")]
    heap: Option<OsString>,
    /// The component that manages it, strata, buddy or ptmalloc, or priorities, such as buddy=50: STRATALLOC_MEMHEAP for them.
    #[arg(long, value_name = "NAME")]
    memheap: Option<OsString>,
    /// Lets them compare each collective call, and name the one that differs: SHMEM_DEBUG for them.
    #[arg(long)]
    debug: bool,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    program: Vec<OsString>,
}

/// Runs the job.
pub(crate) fn run(job: &Job) -> Result<(), Failure> {
    let [program, arguments @ ..] = job.program.as_slice() else { return Ok(()) };
    let settings = [
        ("SHMEM_SYMMETRIC_SIZE", job.heap.clone()),
        ("STRATALLOC_MEMHEAP", job.memheap.clone()),
        ("SHMEM_DEBUG", job.debug.then(|| "1".into())),
    ];
    let command = |_| {
        let mut command = Command::new(program);
        command.args(arguments);
        let given = settings.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        command.envs(given);
        command
    };
    let outcome = launch(job.pes, command).map_err(|error| Failure::Refused(error.to_string()))?;
    if let Some(why) = outcome.why {
        writeln!(io::stderr(), "stratalloc: {why}; the job has ended")?;
    }
    // A status has eight bits; one that has none of them set is none of the good ones.
    match outcome.status {
        0 => Ok(()),
        status => Err(Failure::Job((status & 255).max(1) as u8)),
    }
}
