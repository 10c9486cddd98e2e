//! The machine: what it is, in one line (processor, cores, kernel, C library, compiler, date), and how its memory is made
//! ready for a run.

#![allow(clippy::disallowed_methods, reason = "it maps memory only to touch it")]

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

/// Bytes that are touched before each run: as much as the rows use, or a quarter of what there is.
const WARM_BYTES: usize = 1 << 30;

/// Touches free memory and gives it back, so that the pages which the next process gets are there. On a virtual machine the
/// host takes pages away that were free for a while: whoever comes first then pays for finding them again, which takes ten
/// times as long as to clear them, and would be counted as the allocator's.
pub fn warm_memory() {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let bytes = WARM_BYTES.min(available_bytes().unwrap_or(0) / 4);
    if bytes == 0 {
        return;
    }
    // SAFETY: a fresh mapping touches nothing that exists.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return;
    }
    // SAFETY: the mapping is ours. Without huge pages it only takes longer.
    unsafe { libc::madvise(at, bytes, libc::MADV_HUGEPAGE) };
    for offset in (0..bytes).step_by(4096) {
        // SAFETY: inside the mapping.
        unsafe { at.cast::<u8>().wrapping_add(offset).write_volatile(1) };
    }
    // SAFETY: mapped above, and nobody uses it.
    unsafe { libc::munmap(at, bytes) };
}

/// Memory that processes can have, as the kernel reckons.
fn available_bytes() -> Option<usize> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<usize>().ok()? << 10)
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
