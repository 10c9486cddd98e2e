//! Instructions of a call, counted by valgrind's callgrind: exact, whatever else the machine does.
//!
//! `cargo bench --bench instructions` builds a small program twice, as a default release build and with fat LTO, once on
//! this crate and once on the system allocator, and counts each loop at two lengths; the difference, less that of the empty
//! loop, is the cost of one turn. Without valgrind it says so loudly and counts nothing.
//!
//! `cargo bench --bench instructions -- --hooks` counts this crate without and with the feature `hooks`, of which the program uses nothing but,
//! in the last row, `hooks::changed`.

#![allow(clippy::disallowed_macros, reason = "a bench prints its table")]

#[path = "common/callgrind.rs"]
mod callgrind;

use callgrind::{instructions, is_installed};
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
hooks = ["stratalloc?/hooks"]
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
    #[cfg(feature = "hooks")]
    if words[1] == "changed" {
        let turns: usize = words[3].parse().unwrap();
        // Else a linker that sees all knows that it never changes.
        stratalloc::hooks::announce();
        stratalloc::hooks::settle();
        for _ in 0..turns {
            if stratalloc::hooks::changed() { std::process::abort() }
            lib::nothing();
        }
        return;
    }
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
#[inline(always)]
pub fn nothing() { opaque(std::ptr::null_mut()); }
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
        "nothing" => for _ in 0..turns { nothing() },
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

/// A column: its name, and the profile and features of its program.
type Column = (&'static str, &'static str, &'static str);

const COLUMNS: &[Column] = &[
    ("release", "release", "ours"),
    ("LTO", "lto", "ours"),
    ("fine", "release", "ours,fine"),
    ("fine, LTO", "lto", "ours,fine"),
    ("system", "release", ""),
    ("system, LTO", "lto", ""),
];

const HOOKS: &[Column] = &[
    ("release", "release", "ours"),
    ("with hooks", "release", "ours,hooks"),
    ("LTO", "lto", "ours"),
    ("with hooks", "lto", "ours,hooks"),
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

/// Instructions of one turn, times ten.
fn per_turn(binary: &Path, what: &str, size: usize) -> i64 {
    let (short, long) = (2000, 12_000);
    let count = |turns: i64| instructions(binary, &[what, &size.to_string(), &turns.to_string()]);
    (count(long) - count(short)) * 10 / (long - short)
}

fn main() {
    if !is_installed() {
        println!("SKIPPED: no instruction was counted, since valgrind is not installed");
        exit(0);
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("instructions");
    write_program(&folder);
    let with_hooks = std::env::args().any(|word| word == "--hooks");
    let columns = if with_hooks { HOOKS } else { COLUMNS };
    let binaries: Vec<_> = columns.iter().map(|(_, profile, features)| build(&folder, profile, features)).collect();
    let line = |cells: &mut dyn Iterator<Item = String>| cells.map(|cell| format!("{cell:>13}")).collect::<String>();
    println!("{:<14}{:>9}{}", "instructions", "bytes", line(&mut columns.iter().map(|(name, ..)| (*name).to_string())));
    let changed = with_hooks.then_some(&("changed", 0, "nothing"));
    for (what, size, empty) in ROWS.iter().chain(changed) {
        let mut turns = binaries.iter().zip(columns).map(|(binary, (_, _, features))| {
            if *what == "changed" && !features.contains("hooks") {
                return String::from("-");
            }
            let tenths = per_turn(binary, what, *size) - per_turn(binary, empty, *size);
            format!("{}.{}", tenths / 10, tenths % 10)
        });
        println!("{what:<14}{size:>9}{}", line(&mut turns));
    }
}
