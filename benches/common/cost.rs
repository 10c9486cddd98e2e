//! What a process takes.

use std::mem::MaybeUninit;
use std::process::Child;

/// What one run took: seconds of CPU time, and MiB resident at the most.
#[derive(Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) cpu: f64,
    pub(crate) peak: f64,
}

/// Waits for the end of a program; what it and those it waited for took, if it ended well.
pub(crate) fn wait(child: Child) -> Option<Cost> {
    let (mut status, mut usage) = (0, MaybeUninit::<libc::rusage>::zeroed());
    let process = libc::pid_t::try_from(child.id()).expect("a process id");
    // SAFETY: the places are ours; the process is our child, and nobody else waits for it.
    let waited = unsafe { libc::wait4(process, &raw mut status, 0, usage.as_mut_ptr()) };
    // SAFETY: zero bits are one, and the call wrote it.
    let usage = unsafe { usage.assume_init() };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let cost = Cost { cpu: seconds(usage.ru_utime) + seconds(usage.ru_stime), peak: usage.ru_maxrss as f64 / 1024.0 };
    (waited == process && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0).then_some(cost)
}

/// The middle one of them.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
