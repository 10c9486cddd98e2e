//! Instructions, counted by valgrind's callgrind: exact, whatever else the machine does.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// Whether they can be counted here.
pub(crate) fn is_installed() -> bool {
    Command::new("valgrind").arg("--version").output().is_ok()
}

/// Instructions of a whole process.
pub(crate) fn instructions(program: &Path, arguments: &[impl AsRef<OsStr>]) -> i64 {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program).args(arguments);
    let output = command.output().expect("valgrind runs");
    let text = String::from_utf8_lossy(&output.stderr);
    let number = text.lines().find_map(|line| line.split("Collected : ").nth(1)).expect("callgrind counts");
    number.trim().parse().expect("a number")
}
