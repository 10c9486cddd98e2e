//! The C names of symmetric heaps (row C3), in programs that know nothing of Rust.

#[path = "common/c_programs.rs"]
mod c_programs;
#[path = "common/example.rs"]
#[allow(dead_code, reason = "not all of it is asked for here")]
mod example;

use c_programs::in_time::output_in_time;
use c_programs::skipped::skipped;
use c_programs::{CRATE, Folder, build, is_installed, said};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The library, for the linker.
fn library() -> &'static str {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| build("c-symmetric", "staticlib", "libstratalloc.a", &[]));
    library.to_str().expect("a path in UTF-8")
}

/// A program of `tests/c`, or one whose path is as seen from there, linked with the library; `None` without a compiler.
fn compile(folder: &Folder, source: &str) -> Option<PathBuf> {
    folder.compile(source, &["-O2", "-I../../include", library(), "-lm"])
}

/// The tool, to run a program as so many PEs, with these options before it.
fn run(pes: usize, options: &[&str], program: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stratalloc"));
    command.args(["run", "-n", &pes.to_string()]).args(options).arg("--").arg(program);
    command
}

#[test]
fn c3_rules_of_each_name() {
    let folder = Folder::create();
    let Some(program) = compile(&folder, "shmem_rules.c") else { return };
    for component in ["strata", "buddy", "ptmalloc"] {
        for pes in [1, 2, 4] {
            assert_eq!(
                said(&mut run(pes, &["--memheap", component, "--debug"], &program)),
                "",
                "{component}, {pes} PEs"
            );
        }
    }
    // Without a launcher it is a job of one.
    assert_eq!(said(&mut Command::new(&program)), "");
}

/// How a job of two PEs ends that does `what`, and what is said.
fn ends(program: &Path, what: &str) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = output_in_time(run(2, &["--debug"], program).arg(what));
    assert_eq!(String::from_utf8_lossy(&stdout), "");
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

#[test]
fn c3_what_cannot_be_done_says_why() {
    let folder = Folder::create();
    let Some(program) = compile(&folder, "shmem_errors.c") else { return };
    for (what, line) in [
        ("align", "PE 1: symmetric heap: an alignment of 24; it must be a power of two, and 8 or more"),
        ("hints", "PE 0: symmetric heap: hints 0x40; there are 0, 1 (atomics) and 2 (signals), and both, 3"),
        ("differs", "PE 0: symmetric heap: PE 1 called malloc(10) where this one called malloc(20)"),
        ("differs", "PE 1: symmetric heap: PE 0 called malloc(20) where this one called malloc(10)"),
    ] {
        // Nothing was done, and all went on.
        let (status, text) = ends(&program, what);
        assert!(status == Some(0) && text.contains(line), "{what}: {status:?} {text}");
    }
    for (what, line) in [
        ("put", "are not symmetric; pass what the heap's malloc gave"),
        ("pe", "there is no PE 2; they are 0 to 1"),
        ("negative", "there is no PE 18446744073709551615; they are 0 to 1"),
        ("misaligned", "it must lie at a multiple of its size"),
        ("set", "an active set that is not all PEs; call with 0, 0, shmem_n_pes()"),
    ] {
        // There is nothing to go on with.
        let (status, text) = ends(&program, what);
        assert!(status == Some(1) && text.contains(line), "{what}: {status:?} {text}");
    }
    assert_eq!(ends(&program, "exit"), (Some(33), String::new()));
    let output = output_in_time(Command::new(&program).env("SHMEM_SYMMETRIC_SIZE", "1x"));
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("SHMEM_SYMMETRIC_SIZE is `1x`; it may be a number above 0")
    );
}

#[test]
fn c3_a_program_for_any_openshmem_runs_unchanged() {
    let folder = Folder::create();
    let Some(program) = compile(&folder, "../../examples/c/symmetric_ring.c") else { return };
    let ours: Vec<String> = [1, 2, 4].map(|pes| said(&mut run(pes, &[], &program))).into();
    assert!(ours[2].starts_with("4 PEs, smallest "), "{}", ours[2]);
    if !is_installed("oshcc") {
        skipped("the same program with Open MPI, whose output it is compared with");
        return;
    }
    let theirs = folder.0.join("ring-of-open-mpi");
    let source = Path::new(CRATE).join("examples/c/symmetric_ring.c");
    said(Command::new("oshcc").arg(source).arg("-o").arg(&theirs));
    for (pes, ours) in [1, 2, 4].iter().zip(&ours) {
        let run_theirs = || {
            let mut command = Command::new("oshrun");
            command.args(["--allow-run-as-root", "--oversubscribe", "-mca", "btl", "^openib", "-n", &pes.to_string()]);
            output_in_time(command.arg(&theirs))
        };
        // It may itself lack room for a moment, or a port.
        let output = (0..3).map(|_| run_theirs()).find(|output| output.status.success()).unwrap_or_else(run_theirs);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stdout), *ours);
    }
}
