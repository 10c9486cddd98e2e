//! What this allocator adds to a small program: a stripped hello is built with it and with the system's allocator, and
//! both are measured. Also reports the CPU time of building the crate alone.

#[path = "common/in_time.rs"]
mod in_time;

use in_time::output_in_time;
use std::fmt::{self, Display, Formatter};
use std::fs::{copy, create_dir_all, metadata, remove_dir_all, write};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use stratalloc::Stratalloc;

#[global_allocator]
static A: Stratalloc = Stratalloc::new();

const CRATE: &str = env!("CARGO_MANIFEST_DIR");
const KIB: usize = 1 << 10;

/// A hello that also says what it has in memory.
const HELLO: &str = r#"
fn main() {
    let name = String::from("world");
    println!("hello, {name}");
    println!("{}", std::fs::read_to_string("/proc/self/smaps_rollup").expect("what is resident"));
}
"#;

const MANIFEST: &str = r#"
[workspace]
members = ["with", "without"]
resolver = "3"

[profile.release]
strip = true
"#;

const WITH: &str = "
#[global_allocator]
static A: stratalloc::Stratalloc = stratalloc::Stratalloc::new();
";

/// A workspace of two packages in a folder of its own, which goes with this value.
struct Workspace(PathBuf);

impl Workspace {
    fn create() -> Self {
        let this = Self(std::env::temp_dir().join(format!("stratalloc-footprint-{}", std::process::id())));
        this.file("Cargo.toml", MANIFEST);
        let features = if cfg!(feature = "fine-classes") { "\"fine-classes\"" } else { "" };
        let dependency = format!("[dependencies]\nstratalloc = {{ path = {CRATE:?}, features = [{features}] }}\n");
        this.package("with", &dependency, WITH);
        this.package("without", "", "");
        copy(Path::new(CRATE).join("Cargo.lock"), this.0.join("Cargo.lock")).expect("the same versions");
        this
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        create_dir_all(path.parent().expect("a folder")).expect("a folder");
        write(path, text).expect("a file");
    }

    fn package(&self, name: &str, dependencies: &str, allocator: &str) {
        let manifest = format!("[package]\nname = {name:?}\nedition = \"2024\"\n\n{dependencies}");
        self.file(&format!("{name}/Cargo.toml"), &manifest);
        self.file(&format!("{name}/src/main.rs"), &format!("{allocator}{HELLO}"));
    }

    /// Builds `packages`; seconds of CPU that this took.
    fn build(&self, packages: &[&str]) -> f64 {
        let before = cpu_seconds();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--release", "--offline", "--target-dir", "target"]).current_dir(&self.0);
        packages.iter().for_each(|package| {
            cargo.args(["-p", package]);
        });
        // As cargo would build them for a user, whatever this test is built with.
        cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        let output = output_in_time(&mut cargo);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        cpu_seconds() - before
    }

    fn binary(&self, package: &str) -> PathBuf {
        self.0.join("target/release").join(package)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // What cannot be removed stays among the system's temporary files.
        let _ = remove_dir_all(&self.0);
    }
}

/// Seconds of CPU of all processes that this one has waited for.
fn cpu_seconds() -> f64 {
    // SAFETY: zero bits are a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is ours to write.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) }, 0);
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// How often a hello runs: what is resident of its files varies with the addresses it happens to get.
const RUNS: usize = 1000;

/// What a hello takes, in bytes; in memory on average.
struct Size {
    file: usize,
    resident: usize,
    anonymous: usize,
}

impl Size {
    fn of(binary: &Path) -> Self {
        let runs: Vec<[usize; 2]> = (0..RUNS).map(|_| run(binary)).collect();
        let [resident, anonymous] = [0, 1].map(|at| runs.iter().map(|run| run[at]).sum::<usize>() / RUNS);
        Self { file: metadata(binary).expect("the binary").len() as usize, resident, anonymous }
    }
}

impl Display for Size {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [file, resident, anonymous] = [self.file, self.resident, self.anonymous].map(|bytes| bytes / KIB);
        write!(f, "{file} KiB in its file, {resident} KiB resident ({anonymous} KiB of them no file's)")
    }
}

/// What one run says it has in memory: all, and what is no file's.
fn run(binary: &Path) -> [usize; 2] {
    let output = output_in_time(&mut Command::new(binary));
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success() && text.starts_with("hello, world\n"), "{text}");
    ["Rss:", "Anonymous:"].map(|name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a line with the figure");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number of KiB") * KIB
    })
}

#[test]
fn a_hello_stays_small() {
    let workspace = Workspace::create();
    workspace.build(&["libc", "spin", "static_assertions"]);
    let seconds = workspace.build(&["stratalloc"]);
    workspace.build(&["with", "without"]);
    let [with, without] = ["with", "without"].map(|package| Size::of(&workspace.binary(package)));
    let report =
        format!("hello with stratalloc: {with}; without: {without}; the crate builds in {seconds:.2} s of CPU");
    writeln!(std::io::stderr(), "{report}").expect("a report");
    assert!(with.file <= without.file + 100 * KIB, "{report}");
    // More classes mean more first lists.
    let resident = if cfg!(feature = "fine-classes") { 256 } else { 200 };
    assert!(with.resident <= without.resident + resident * KIB, "{report}");
}
