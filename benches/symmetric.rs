//! Symmetric heaps beside Open MPI's: `cargo bench --bench symmetric --features c-symmetric,cli [-- ROUNDS]`. One program in C
//! (`benches/c/symmetric.c`) is compiled for both, and run as two PEs, each in turn within a round; the tables have the medians of all
//! rounds. Ratios of puts and gets are to `memcpy` of the same bytes in the same run. Where `oshcc` is not installed its columns are missing.

#![allow(clippy::disallowed_macros, clippy::disallowed_methods, reason = "a bench prints, and maps ranges itself")]

#[path = "../tests/common/c_programs.rs"]
mod c_programs;

use c_programs::{CRATE, Folder, build, is_installed};
use std::alloc::Layout;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use stratalloc::os::Span;
use stratalloc::symmetric::memheap::{Choice, Framework};

const COMPONENTS: [&str; 3] = ["strata", "buddy", "ptmalloc"];

/// Nanoseconds of each row, in all rounds, of one of those who are compared.
type Rows = BTreeMap<String, Vec<f64>>;

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Runs `command` and enters its rows.
fn enter(mut command: Command, rows: &mut Rows) {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if let Some((row, value)) = line.split_once(' ') {
            rows.entry(row.into()).or_default().push(value.parse().expect("a number"));
        }
    }
}

/// The program for us and, where it is there, for Open MPI.
fn compile(folder: &Folder) -> (PathBuf, Option<PathBuf>) {
    let library = build("c-symmetric", "staticlib", "libstratalloc.a", &[]);
    let options = ["-O2", "-I../../include", library.to_str().expect("a path in UTF-8"), "-lm"];
    let ours = folder.compile("../../benches/c/symmetric.c", &options).expect("a compiler");
    let theirs = folder.0.join("of-open-mpi");
    let is_there = is_installed("oshcc") && {
        let source = Path::new(CRATE).join("benches/c/symmetric.c");
        Command::new("oshcc").args(["-O2", "-o"]).arg(&theirs).arg(source).status().is_ok_and(|status| status.success())
    };
    (ours, is_there.then_some(theirs))
}

fn of_ours(program: &Path, component: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stratalloc"));
    command.args(["run", "-n", "2", "--memheap", component, "--"]).arg(program).arg("20000");
    command
}

fn of_open_mpi(program: &Path) -> Command {
    let mut command = Command::new("oshrun");
    command.args(["--allow-run-as-root", "--oversubscribe", "-mca", "btl", "^openib", "-n", "2"]);
    command.arg(program).arg("2000");
    command
}

/// Nanoseconds of a malloc and a free of a component alone, without any PE: of 64 bytes, and of one of 1,000 blocks that is replaced.
fn alone(component: &str) -> [f64; 2] {
    const TURNS: u32 = 1_000_000;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let (bytes, access) = (256 << 20, libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: a fresh mapping.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, flags, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    let range = Span { at: at as usize, bytes };
    // SAFETY: the range is new, and nobody else's.
    let memheap = unsafe { Framework::open(&[]).select(&Choice::new().only(component), range) };
    let mut memheap = memheap.expect("a component");
    let layout = |bytes| Layout::from_size_align(bytes, 16).expect("a layout");
    let begun = Instant::now();
    for _ in 0..TURNS {
        let block = memheap.module().alloc(layout(64)).expect("room");
        // SAFETY: live.
        unsafe { memheap.module().free(block) };
    }
    let pair = begun.elapsed().as_nanos() as f64 / f64::from(TURNS);
    let mut state = 88_172_645_463_325_252_u64;
    let mut size = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        16 + state as usize % (1 << (5 + state / 7919 % 12))
    };
    let mut blocks: Vec<_> = (0..1000).map(|_| memheap.module().alloc(layout(size())).expect("room")).collect();
    let begun = Instant::now();
    for _ in 0..TURNS {
        let at = size() % blocks.len();
        // SAFETY: live.
        unsafe { memheap.module().free(blocks[at]) };
        blocks[at] = memheap.module().alloc(layout(size())).expect("room");
    }
    let mixed = begun.elapsed().as_nanos() as f64 / f64::from(TURNS);
    drop(memheap);
    // SAFETY: mapped above.
    assert_eq!(unsafe { libc::munmap(at, bytes) }, 0);
    [pair, mixed]
}

fn main() {
    let rounds = std::env::args().skip(1).find_map(|text| text.parse().ok()).unwrap_or(7);
    std::thread::Builder::new()
        .name("symmetric-bench".into())
        .spawn(move || compare(rounds))
        .expect("a thread")
        .join()
        .expect("done");
}

fn compare(rounds: usize) {
    let folder = Folder::create();
    let (ours, theirs) = compile(&folder);
    let mut rows: BTreeMap<&str, Rows> = BTreeMap::new();
    let mut single: BTreeMap<&str, [Vec<f64>; 2]> = BTreeMap::new();
    for _ in 0..rounds {
        for component in COMPONENTS {
            enter(of_ours(&ours, component), rows.entry(component).or_default());
            let times = alone(component);
            single.entry(component).or_default().iter_mut().zip(times).for_each(|(all, time)| all.push(time));
        }
        if let Some(theirs) = &theirs {
            enter(of_open_mpi(theirs), rows.entry("Open MPI").or_default());
        }
    }
    let value = |who: &str, row: &str| rows.get(who).and_then(|rows| rows.get(row)).map_or(f64::NAN, |all| median(all));
    println!("Nanoseconds, two PEs, medians of {rounds} rounds:\n");
    println!("| | strata | buddy | ptmalloc | Open MPI |\n|---|--:|--:|--:|--:|");
    for (row, words) in [
        ("pair", "`shmem_malloc(64)` and `shmem_free`"),
        ("mixed", "one of 1,000 blocks of 16 bytes to 64 KiB replaced"),
        ("barrier", "`shmem_barrier_all`"),
        ("quiet", "`shmem_quiet`, with nothing to wait for"),
        ("fetch-add", "`shmem_long_atomic_fetch_add`"),
    ] {
        let [strata, buddy, ptmalloc] = COMPONENTS.map(|component| value(component, row));
        println!("| {words} | {strata:.0} | {buddy:.0} | {ptmalloc:.0} | {:.0} |", value("Open MPI", row));
    }
    println!("\n| without PEs | strata | buddy | ptmalloc |\n|---|--:|--:|--:|");
    for (at, words) in ["64 bytes, allocated and freed", "one of 1,000 replaced"].into_iter().enumerate() {
        let [strata, buddy, ptmalloc] = COMPONENTS.map(|component| median(&single[component][at]));
        println!("| {words} | {strata:.1} | {buddy:.1} | {ptmalloc:.1} |");
    }
    println!(
        "\n| bytes | put | over `memcpy` | get | over `memcpy` | put of Open MPI | get of Open MPI |\n|--:|--:|--:|--:|--:|--:|--:|"
    );
    for bytes in [8, 4096, 65_536, 1 << 20] {
        let of = |what: &str| value("strata", &format!("{what}-{bytes}"));
        let theirs = |what: &str| value("Open MPI", &format!("{what}-{bytes}"));
        println!(
            "| {bytes} | {:.0} | {:.3} | {:.0} | {:.3} | {:.0} | {:.0} |",
            of("put"),
            of("put") / of("copy-to"),
            of("get"),
            of("get") / of("copy-from"),
            theirs("put"),
            theirs("get")
        );
    }
}
