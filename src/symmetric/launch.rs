//! Starting a job: so many processes of a program on this machine, each a PE.

use super::error::SymmetricError;
use super::job::{GRACE, JOB, Job, PE, PES, Place};
use crate::os;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::string::String;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use std::vec::Vec;
use std::{format, io, thread};

/// How often it is looked whether a PE asked for the end, or misses another.
const TICK: Duration = Duration::from_millis(50);

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The status for whoever started it: 0 if all PEs ended with 0; else that of the first that did not, 128 and the number of the signal
    /// if one killed it, 1 if it ended without `finalize`, or what `global_exit` was told.
    pub status: i32,
    /// What went wrong, with the PE that it began with; `None` if all is well, or a PE ended the job itself.
    pub why: Option<String>,
}

/// Starts `pes` processes, and waits for them: `command` makes the command of each PE, by its number. They end when this process does. When
/// one ends in another way than with status 0 and after `finalize`, the others are ended, too.
///
/// # Errors
/// [`SymmetricError`] if there can be no such job, or a process cannot be started: those that were are ended.
pub fn launch(pes: usize, command: impl Fn(usize) -> Command) -> Result<Outcome, SymmetricError> {
    if !(1..=PES).contains(&pes) {
        return Err(SymmetricError::Pes { pes });
    }
    let (file, job) = Job::make(pes)?;
    let this = std::process::id();
    let path = format!("/proc/{this}/fd/{}", file.number().word());
    let mut children: Vec<Child> = Vec::with_capacity(pes);
    let (tell, told) = channel();
    for pe in 0..pes {
        let mut command = command(pe);
        command.env(JOB, &path).env(PE, format!("{pe}"));
        let end_with_this = move || {
            os::end_with(this);
            Ok(())
        };
        // SAFETY: what runs in the child are calls of the system's.
        unsafe { command.pre_exec(end_with_this) };
        let started = command.spawn().and_then(|child| {
            let watched = watch(pe, child.id(), tell.clone());
            children.push(child);
            watched
        });
        if let Err(error) = started {
            job.end(1);
            children.iter_mut().for_each(|child| drop(child.kill()));
            children.iter_mut().for_each(|child| drop(child.wait()));
            let errno = error.raw_os_error().unwrap_or(0);
            let name = command.get_program().to_string_lossy().into_owned();
            return Err(SymmetricError::Program { name, errno });
        }
    }
    Ok(wait_for_all(&job, &mut children, &told))
}

/// A PE that has ended.
#[derive(Clone, Copy, Debug)]
struct Ended {
    pe: usize,
    process: u32,
    status: ExitStatus,
}

/// Waits until all PEs have ended, and ends the others once one has gone wrong.
fn wait_for_all(job: &Job, children: &mut [Child], told: &Receiver<usize>) -> Outcome {
    let mut left = children.len();
    let (mut absent, mut over): (Option<Ended>, Option<(Outcome, Instant)>) = (None, None);
    // What is wrong with a PE that ended while another one, which began it, has not yet said why.
    let (mut held, mut gone): (Option<(Outcome, Instant)>, Vec<usize>) = (None, Vec::new());
    while left > 0 {
        let told = told.recv_timeout(TICK).ok();
        left -= usize::from(told.is_some());
        let ended = told.and_then(|pe| {
            let child = children.get_mut(pe)?;
            Some(Ended { pe, process: child.id(), status: child.wait().ok()? })
        });
        if let Some((_, since)) = &over {
            if since.elapsed() >= GRACE {
                // Those that are left had their time.
                children.iter_mut().for_each(|child| drop(child.kill()));
            }
            continue;
        }
        absent = absent.or(ended.filter(|ended| ended.status.success() && job.state_of(ended.pe) == 0));
        let asked = job.ended().map(|status| Outcome { status, why: None });
        gone.extend(told);
        let culprit = job.failed().filter(|pe| !gone.contains(pe));
        if let Some((ended, outcome)) = ended.and_then(|ended| Some((ended, verdict(job, ended)?)))
            && (held.is_none() || job.state_of(ended.pe) == Place::FAILED)
        {
            held = Some((outcome, Instant::now()));
        }
        let due = held.as_ref().filter(|(_, since)| culprit.is_none() || since.elapsed() >= GRACE);
        let due = due.map(|(outcome, _)| outcome.clone());
        if let Some(outcome) = asked.or(due).or_else(|| missed(job, absent)) {
            job.end(outcome.status);
            children.iter_mut().for_each(ask_to_end);
            over = Some((outcome, Instant::now()));
        }
    }
    over.map_or(Outcome { status: 0, why: None }, |(outcome, _)| outcome)
}

/// Asks a child to end, unless it has.
fn ask_to_end(child: &mut Child) {
    if let Ok(None) = child.try_wait() {
        os::ask_to_end(child.id());
    }
}

/// Tells once the child has ended. It is still there then, to be waited for: so its number is nobody else's.
fn watch(pe: usize, process: u32, tell: Sender<usize>) -> io::Result<()> {
    let wait = move || {
        os::wait_until_ended(process);
        let _ = tell.send(pe);
    };
    thread::Builder::new().spawn(wait).map(|_| ())
}

/// What is wrong with how a PE ended.
fn verdict(job: &Job, ended: Ended) -> Option<Outcome> {
    if let Some(signal) = ended.status.signal() {
        return wrong(job, ended, 128 + signal, &format!("was killed by signal {signal}"));
    }
    match (ended.status.code().unwrap_or(1), job.state_of(ended.pe)) {
        (0, Place::HERE) => wrong(job, ended, 1, "ended without finalize"),
        (0, _) => None,
        (code, _) => wrong(job, ended, code, &format!("ended with status {code}")),
    }
}

/// One that never was a PE is missed only by those who wait for it.
fn missed(job: &Job, absent: Option<Ended>) -> Option<Outcome> {
    let somebody_waits = || (0..job.pes()).any(|pe| job.state_of(pe) == Place::HERE);
    let missed = absent.filter(|_| somebody_waits())?;
    wrong(job, missed, 1, "ended without init, and others wait for it")
}

fn wrong(job: &Job, Ended { pe, process, .. }: Ended, status: i32, what: &str) -> Option<Outcome> {
    Some(Outcome { status, why: Some(format!("PE {pe} of {} (process {process}) {what}", job.pes())) })
}
