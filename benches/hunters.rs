//! What hunters of errors find, and what they cost: `cargo bench --bench hunters [-- ROUNDS]`. Each runs the C program
//! `tests/c/errors.c` with one error after another, and then `benches/c/words.c`, which is correct; rounds are interleaved, and
//! the table has the median of CPU time and of peak resident memory, each over that of the C library's allocator.
//!
//! Found means: the program did not end as it does without the error, or something was said about it.

#![allow(clippy::disallowed_macros, clippy::disallowed_methods, reason = "a bench prints, and waits for processes")]

#[path = "common/cost.rs"]
mod cost;

use cost::{Cost, median, wait};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";

/// Seconds of CPU time that a program may take.
const LIMIT: u32 = 60;

/// The errors, by their names in `errors.c`, and what they are.
const ERRORS: [(&str, &str); 14] = [
    ("overflow", "one byte written behind a block"),
    ("overflow 32", "… of a size that fills its class"),
    ("underflow", "one byte written before a block"),
    ("far", "one byte written 4 KiB behind"),
    ("read-behind", "one byte read behind a block"),
    ("written", "written after free"),
    ("written-late", "… and 10,000 others come and go"),
    ("read-freed", "read after free"),
    ("double", "freed twice"),
    ("double-late", "… 10,000 others between"),
    ("moved", "written after realloc moved it"),
    ("interior", "free of a pointer into a block"),
    ("stack", "free of a pointer to the stack"),
    ("static", "free of a pointer to a static"),
];

/// A hunter: how a program is built and run with it.
struct Hunter {
    name: &'static str,
    /// What the compiler is told.
    flags: &'static [&'static str],
    /// What stands before the program.
    wrapper: &'static [&'static str],
    /// The library before all others; empty: none.
    library: String,
    settings: &'static [(&'static str, &'static str)],
}

fn hunters(ours: &str) -> Vec<Hunter> {
    let plain =
        |name, library: &str, settings| Hunter { name, flags: &[], wrapper: &[], library: library.into(), settings };
    let package = |name: &str| format!("{LIBRARIES}/{name}");
    vec![
        plain("glibc", "", &[]),
        plain("stratalloc", ours, &[]),
        plain("… page", ours, &[("STRATALLOC_DEBUG", "page")]),
        plain("… sample=5000", ours, &[("STRATALLOC_DEBUG", "sample=5000")]),
        plain("glibc's checks", &package("libc_malloc_debug.so.0"), &[("MALLOC_CHECK_", "3")]),
        plain("tcmalloc debug", &package("libtcmalloc_minimal_debug.so.4"), &[]),
        plain("dmalloc", &package("libdmalloc.so.5"), &[("DMALLOC_OPTIONS", "debug=0x4e48500,log=/dev/stderr")]),
        plain("efence", "/usr/lib/libefence.so.0", &[("EF_DISABLE_BANNER", "1"), ("EF_PROTECT_FREE", "1")]),
        Hunter {
            name: "ASan",
            flags: &["-fsanitize=address"],
            wrapper: &[],
            library: String::new(),
            settings: &[("ASAN_OPTIONS", "detect_leaks=0")],
        },
        Hunter {
            name: "memcheck",
            flags: &[],
            wrapper: &["valgrind", "-q", "--error-exitcode=99"],
            library: String::new(),
            settings: &[],
        },
    ]
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let rounds: usize = arguments.next().and_then(|rounds| rounds.parse().ok()).unwrap_or(5);
    let work = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/hunters");
    std::fs::create_dir_all(&work).expect("a folder");
    let ours = library();
    let mut hunters = hunters(ours.to_str().expect("text"));
    hunters.retain(|hunter| {
        let there = is_there(hunter, &work);
        if !there {
            println!("SKIPPED: {} is not installed", hunter.name);
        }
        there
    });
    let names = |from: usize| hunters[from..].iter().map(|hunter| format!("{:>16}", hunter.name)).collect::<String>();
    println!("{:36}{}", "found", names(0));
    for (error, what) in ERRORS {
        let found = hunters.iter().map(|hunter| if finds(hunter, &work, error) { "yes" } else { "-" });
        println!("{what:36}{}", found.map(|found| format!("{found:>16}")).collect::<String>());
    }
    let mut costs: Vec<Vec<Option<Cost>>> = Vec::new();
    for _ in 0..rounds {
        // Who takes too long is not asked again.
        let may_end = |at: usize| costs.first().is_none_or(|first| first[at].is_some());
        let round =
            hunters.iter().enumerate().map(|(at, hunter)| may_end(at).then(|| cost_of(hunter, &work)).flatten());
        costs.push(round.collect());
    }
    let first = |of: fn(&Cost) -> f64| median(costs.iter().filter_map(|round| round[0].as_ref().map(of)).collect());
    let ratios = |of: fn(&Cost) -> f64| -> String {
        let ratio = |at: usize| {
            let ratios = costs.iter().map(|round| Some(of(round[at].as_ref()?) / of(round[0].as_ref()?)));
            ratios.collect::<Option<Vec<f64>>>().map_or("-".to_string(), |ratios| format!("{:.2}", median(ratios)))
        };
        (0..hunters.len()).map(|at| format!("{:>16}", ratio(at))).collect()
    };
    println!(
        "{:36}{}",
        format!("CPU, of {:.2} s (-: over {LIMIT} s)", first(|cost| cost.cpu)),
        ratios(|cost| cost.cpu)
    );
    println!("{:36}{}", format!("peak memory, of {:.1} MiB", first(|cost| cost.peak)), ratios(|cost| cost.peak));
}

/// Whether a hunter can be had here, for which the programs are built.
fn is_there(hunter: &Hunter, work: &Path) -> bool {
    let wrapper = hunter.wrapper.first().is_none_or(|name| Path::new("/usr/bin").join(name).exists());
    (hunter.library.is_empty() || Path::new(&hunter.library).exists())
        && wrapper
        && [("tests/c/errors.c", "errors"), ("benches/c/words.c", "words")].into_iter().all(|(source, name)| {
            let mut compiler = Command::new("cc");
            compiler.args(["-O1", "-g", "-w"]).args(hunter.flags).arg(source).arg("-o").arg(built(hunter, work, name));
            compiler.current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::null());
            compiler.status().is_ok_and(|status| status.success())
        })
}

fn built(hunter: &Hunter, work: &Path, name: &str) -> PathBuf {
    work.join(format!("{name}{}", hunter.flags.concat().replace('=', "-")))
}

fn command(hunter: &Hunter, work: &Path, name: &str) -> Command {
    let program = built(hunter, work, name);
    let mut command = match hunter.wrapper {
        [] => Command::new(&program),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(&program);
            command
        }
    };
    command.envs(hunter.settings.iter().copied());
    if !hunter.library.is_empty() {
        command.env("LD_PRELOAD", &hunter.library);
    }
    command
}

fn finds(hunter: &Hunter, work: &Path, error: &str) -> bool {
    let run = |error: &str| {
        let output = command(hunter, work, "errors").args(error.split(' ')).output().expect("the program runs");
        (output.status, output.stderr)
    };
    let size = error.split(' ').nth(1).unwrap_or("24");
    // Some say something in every program: how much is what tells.
    let (right, wrong) = (run(&format!("nothing {size}")), run(error));
    right.0 != wrong.0 || right.1.split(|byte| *byte == b'\n').count() != wrong.1.split(|byte| *byte == b'\n').count()
}

/// What the correct program costs; `None` if it takes too long.
fn cost_of(hunter: &Hunter, work: &Path) -> Option<Cost> {
    let mut limited = Command::new("sh");
    let program = command(hunter, work, "words");
    limited.arg("-c").arg(format!("ulimit -t {LIMIT}; exec \"$0\" \"$@\"")).arg("env");
    for (name, value) in program.get_envs() {
        let value = value.expect("only set").to_str().expect("text");
        limited.arg(format!("{}={value}", name.to_str().expect("text")));
    }
    limited.arg(program.get_program()).args(program.get_args());
    wait(limited.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program runs"))
}

/// Builds the library for `LD_PRELOAD` with the hunter in it.
fn library() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["rustc", "--quiet", "--profile", "preload", "--lib", "--crate-type", "cdylib", "--features"]);
    cargo.args(["c-override,malloc-debug", "--", "-C", "link-arg=-Wl,-z,nodelete,-z,initfirst"]).current_dir(root);
    assert!(cargo.status().expect("cargo runs").success(), "the library does not build");
    let to = root.join("target/hunters/libstratalloc.so");
    std::fs::copy(root.join("target/preload/libstratalloc.so"), &to).expect("the library is there");
    to
}
