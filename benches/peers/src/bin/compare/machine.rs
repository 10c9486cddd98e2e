//! The machine, in one line: processor, cores, kernel, C library, compiler, date.

use std::fs;
use std::process::Command;
use std::thread::available_parallelism;

/// The first line that a command prints, or nothing.
fn said(program: &str, words: &[&str]) -> Option<String> {
    let output = Command::new(program).args(words).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()?.lines().next().map(|line| line.trim().to_string())
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

pub fn describe() -> String {
    let cores = available_parallelism().map_or(1, usize::from);
    let compiler = said("rustc", &["--version"]).map(|line| line.split(" (").next().unwrap_or_default().to_string());
    let parts = [
        processor().or_else(|| said("uname", &["-m"])),
        Some(format!("{cores} cores")),
        said("uname", &["-sr"]).map(|line| line.split('-').next().unwrap_or_default().to_string()),
        said("getconf", &["GNU_LIBC_VERSION"]),
        compiler,
        said("date", &["+%F"]),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" · ")
}
