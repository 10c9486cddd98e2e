//! Instructions of a call, counted by valgrind's callgrind: exact, whatever else the machine does.
//!
//! `cargo bench --bench instructions` builds a small program twice, as a default release build and with fat LTO, once on
//! this crate and once on the system allocator, and counts each loop at two lengths; the difference, less that of the empty
//! loop, is the cost of one turn. Without valgrind it says so loudly and counts nothing.

#![allow(clippy::disallowed_macros, reason = "a bench prints its table")]

use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// The program under test. `LIB` is a crate of its own, so that in a default release build its calls go through the
/// shims, as those of every library do.
const MANIFEST: &str = r#"
[workspace]
members = ["lib"]
[package]
name = "counted"
version = "0.0.0"
edition = "2024"
[features]
ours = ["dep:stratalloc"]
fine = ["stratalloc?/fine-classes"]
[dependencies]
stratalloc = { path = "PATH", optional = true }
lib = { path = "lib" }
[profile.lto]
inherits = "release"
lto = "fat"
codegen-units = 1
"#;

const MAIN: &str = r#"
#[cfg(feature = "ours")]
#[global_allocator]
static A: stratalloc::Stratalloc = stratalloc::Stratalloc::new();
fn main() {
    let words: Vec<String> = std::env::args().collect();
    lib::run(&words[1], words[2].parse().unwrap(), words[3].parse().unwrap());
}
"#;

const LIB_MANIFEST: &str = "[package]\nname = \"lib\"\nversion = \"0.0.0\"\nedition = \"2024\"\n";

const LIB: &str = r#"
use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
/// The pointer, of which the compiler knows nothing; no instruction.
#[inline(always)]
fn opaque(mut p: *mut u8) -> *mut u8 {
    unsafe { std::arch::asm!("/* {0} */", inout(reg) p, options(nostack, preserves_flags)) };
    p
}
const SMALL: Layout = Layout::new::<[u64; 8]>();
fn of(size: usize) -> Layout { Layout::from_size_align(size, 8).unwrap() }
#[inline(never)]
fn straight() { unsafe { let p = opaque(alloc(SMALL)); dealloc(p, SMALL) } }
#[inline(never)]
fn straight_empty(p: *mut u8) -> *mut u8 { opaque(p) }
pub fn run(what: &str, size: usize, turns: usize) {
    let l = of(size);
    let mut held = Vec::with_capacity(1000);
    unsafe { match what {
        "empty" => { let mut p = std::ptr::dangling_mut::<u8>(); for _ in 0..turns { p = opaque(p) } },
        "pair64" => for _ in 0..turns { let p = opaque(alloc(SMALL)); dealloc(p, SMALL) },
        "straight-empty" => { let mut p = std::ptr::dangling_mut::<u8>(); for _ in 0..turns { p = straight_empty(p) } },
        "straight64" => for _ in 0..turns { straight() },
        "pair" => for _ in 0..turns { let p = opaque(alloc(l)); dealloc(p, l) },
        "zeroed" => for _ in 0..turns { let p = opaque(alloc_zeroed(l)); dealloc(p, l) },
        "aligned" => { let l = l.align_to(256).unwrap(); for _ in 0..turns { let p = opaque(alloc(l)); dealloc(p, l) } },
        "doubling" => for _ in 0..turns {
            let (mut n, mut p) = (8, alloc(of(8)));
            while n < size { p = realloc(p, of(n), 2 * n); n *= 2 }
            dealloc(p, of(n))
        },
        "batch-fifo" => for _ in 0..turns / 1000 {
            held.extend((0..1000).map(|_| alloc(l)));
            held.drain(..).for_each(|p| dealloc(p, l));
        },
        "batch-random" => for _ in 0..turns / 1000 {
            held.extend((0..1000).map(|_| alloc(l)));
            (0..1000).for_each(|i| dealloc(held[i * 389 % 1000], l));
            held.clear();
        },
        _ => panic!("no such loop"),
    } }
}
"#;

/// The rows: what to run, at which size, and the loop to subtract.
const ROWS: &[(&str, usize, &str)] = &[
    ("pair64", 64, "empty"),
    ("straight64", 64, "straight-empty"),
    ("pair", 16, "empty"),
    ("pair", 64, "empty"),
    ("pair", 256, "empty"),
    ("pair", 1024, "empty"),
    ("pair", 4096, "empty"),
    ("pair", 32 << 10, "empty"),
    ("pair", 1 << 20, "empty"),
    ("zeroed", 64, "empty"),
    ("aligned", 100, "empty"),
    ("doubling", 1024, "empty"),
    ("batch-fifo", 64, "empty"),
    ("batch-random", 64, "empty"),
];

fn write_program(folder: &Path) {
    let manifest = MANIFEST.replace("PATH", env!("CARGO_MANIFEST_DIR"));
    let files = [
        ("Cargo.toml", manifest.as_str()),
        ("src/main.rs", MAIN),
        ("lib/Cargo.toml", LIB_MANIFEST),
        ("lib/src/lib.rs", LIB),
    ];
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().expect("it has a folder")).expect("the target folder can be written");
        std::fs::write(path, text).expect("the target folder can be written");
    }
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
    std::fs::copy(lock, folder.join("Cargo.lock")).expect("the lock file can be copied");
}

/// Builds the program and returns the binary.
fn build(folder: &Path, profile: &str, features: &str) -> PathBuf {
    let target = folder.join(format!("target-{}", features.replace(',', "-")));
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(folder).args([
        "build",
        "--quiet",
        "--profile",
        profile,
        "--features",
        features,
        "--target-dir",
    ]);
    assert!(command.arg(&target).status().expect("cargo runs").success(), "the counted program does not build");
    target.join(profile).join("counted")
}

/// Instructions of the whole process.
fn count(binary: &Path, what: &str, size: usize, turns: usize) -> i64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(binary)
        .args([what, &size.to_string(), &turns.to_string()])
        .output()
        .expect("valgrind runs");
    let text = String::from_utf8_lossy(&output.stderr);
    let number = text.lines().find_map(|line| line.split("Collected : ").nth(1)).expect("callgrind counts");
    number.trim().parse().expect("a number")
}

/// Instructions of one turn, times ten.
fn per_turn(binary: &Path, what: &str, size: usize) -> i64 {
    let (short, long) = (2000, 12_000);
    (count(binary, what, size, long) - count(binary, what, size, short)) * 10 / (long - short) as i64
}

fn main() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("SKIPPED: no instruction was counted, since valgrind is not installed");
        exit(0);
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("instructions");
    write_program(&folder);
    let builds = [
        ("release", "ours"),
        ("lto", "ours"),
        ("release", "ours,fine"),
        ("lto", "ours,fine"),
        ("release", ""),
        ("lto", ""),
    ];
    let binaries: Vec<_> = builds.map(|(profile, features)| build(&folder, profile, features)).into();
    println!(
        "{:<14}{:>9}  {:>10}{:>8}{:>12}{:>12}{:>10}{:>12}",
        "instructions", "bytes", "release", "LTO", "fine", "fine, LTO", "system", "system, LTO"
    );
    for (what, size, empty) in ROWS {
        let turns = binaries.iter().map(|binary| per_turn(binary, what, *size) - per_turn(binary, empty, *size));
        let cells: Vec<String> = turns.map(|tenths| format!("{}.{}", tenths / 10, tenths % 10)).collect();
        println!(
            "{what:<14}{size:>9}  {:>10}{:>8}{:>12}{:>12}{:>10}{:>12}",
            cells[0], cells[1], cells[2], cells[3], cells[4], cells[5]
        );
    }
}
