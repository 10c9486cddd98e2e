//! The C names of shared heaps (row C2), in programs that know nothing of Rust, and the examples of shared heaps in both languages.

#[path = "common/c_programs.rs"]
mod c_programs;
#[path = "common/example.rs"]
mod example;
#[path = "common/place.rs"]
mod place;

use c_programs::in_time::{output_in_time, status_in_time};
use c_programs::skipped::skipped;
use c_programs::{CRATE, Folder, build, is_installed, said};
use place::Place;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use stratalloc::{SharedConfig, SharedHeap};

/// The library, for the linker.
fn library() -> &'static str {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| build("c-shared", "staticlib", "libstratalloc.a", &[]));
    library.to_str().expect("a path in UTF-8")
}

/// A program of `tests/c`, or one whose path is as seen from there, linked with the library; `None` without a compiler.
fn compile(folder: &Folder, source: &str) -> Option<PathBuf> {
    folder.compile(source, &["-O2", "-I../../include", library(), "-lm"])
}

impl Place {
    /// Looks at the heap, which C has made, from Rust: it is sound, nobody has a seat in it, and so many bytes are allocated.
    #[track_caller]
    fn holds(&self, bytes: impl Fn(usize) -> bool) {
        self.holds_beside(0, bytes);
    }

    /// The same, beside so many threads of others.
    #[track_caller]
    fn holds_beside(&self, threads: usize, bytes: impl Fn(usize) -> bool) {
        // One heap at a time: this process may have something where C made one.
        static ALONE: Mutex<()> = Mutex::new(());
        let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let heap = SharedHeap::open(&self.0, SharedConfig::new(), |_| unreachable!("it is there")).expect("a heap");
        heap.check().expect("a sound heap");
        let stats = heap.stats();
        assert_eq!(stats.threads, threads);
        assert!(bytes(stats.allocated), "{} bytes", stats.allocated);
    }
}

#[test]
fn c2_rules_of_each_name() {
    let (folder, place) = (Folder::create(), Place::new("c2-rules"));
    if let Some(program) = compile(&folder, "shm_rules.c") {
        assert_eq!(said(Command::new(&program).arg(&place.0)), "");
        assert!(!place.0.exists());
    }
}

/// What `shm_opens.c` says of a path.
fn opens(program: &Path, path: &Path, what: &str) -> String {
    said(Command::new(program).arg(path).arg(what)).trim().to_string()
}

#[test]
fn c2_what_cannot_be_opened_says_why() {
    let (folder, place) = (Folder::create(), Place::new("c2-errors"));
    let Some(program) = compile(&folder, "shm_opens.c") else {
        return;
    };
    let opens = |path: &Path| opens(&program, path, "").parse::<i32>().expect("a number");
    assert_eq!(opens(Path::new("/nowhere/at/all")), libc::ENOENT);
    assert_eq!(opens(Path::new("/tmp")), libc::EISDIR);
    assert_eq!(opens(Path::new("/dev/null")), libc::ENODEV);
    assert_eq!(opens(&folder.file("text", "something else")), libc::EINVAL);
    std::os::unix::fs::symlink("elsewhere", folder.0.join("link")).expect("a link");
    assert_eq!(opens(&folder.0.join("link")), libc::ELOOP);

    assert_eq!(opens(&place.0), 0);
    let file = fs::OpenOptions::new().read(true).write(true).open(&place.0).expect("the file");
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0).expect("a header");
    // After the magic number stand what must be the same in all programs, the addresses, and a check of them.
    for (at, error) in [(0, libc::EINVAL), (8, libc::ENOTSUP), (16, libc::ENOTSUP), (50, libc::EUCLEAN)] {
        let mut changed = header;
        changed[at] ^= 1;
        file.write_all_at(&changed, 0).expect("written");
        assert_eq!(opens(&place.0), error, "byte {at}");
    }
    file.write_all_at(&header, 0).expect("written");
    for bytes in [4096, (64 << 30) - 4096, (64 << 30) + 4096] {
        file.set_len(bytes).expect("cut");
        assert_eq!(opens(&place.0), libc::EUCLEAN, "{bytes} bytes");
        file.set_len(64 << 30).expect("as it was");
    }
    place.remove();
    assert_eq!(opens(&place.0), 0);
    place.holds(|bytes| bytes == 0);
}

#[test]
fn c2_addresses_that_are_taken_say_so() {
    let (folder, place) = (Folder::create(), Place::new("c2-taken"));
    let Some(program) = compile(&folder, "shm_opens.c") else {
        return;
    };
    let heap = SharedHeap::open(&place.0, SharedConfig::new(), |_| {}).expect("a heap");
    let span = heap.span();
    drop(heap);
    for page in [span.at, span.at + span.bytes / 2, span.at + span.bytes - 4096] {
        assert_eq!(opens(&program, &place.0, &page.to_string()), libc::EADDRINUSE.to_string());
    }
    for page in [span.at - 4096, span.at + span.bytes] {
        assert_eq!(opens(&program, &place.0, &page.to_string()), "0");
    }
}

#[test]
fn c2_the_process_that_is_one_too_many_is_told() {
    let (folder, place) = (Folder::create(), Place::new("c2-crowd"));
    if let Some(program) = compile(&folder, "shm_opens.c") {
        let says = format!("511 beside this one, {}", libc::EUSERS);
        assert_eq!(opens(&program, &place.0, "crowd"), says);
        place.holds(|bytes| bytes == 0);
        // All end without a word, and the next one finds room.
        assert_eq!((opens(&program, &place.0, "lost-crowd"), opens(&program, &place.0, "")), (says, "0".to_string()));
        place.holds(|bytes| bytes == 0);
    }
}

#[test]
fn c2_a_full_disk_is_an_error_of_the_call() {
    let folder = Folder::create();
    let Some(program) = compile(&folder, "shm_opens.c") else {
        return;
    };
    let full = format!("a heap full of blocks, {}\n", libc::ENOMEM);
    for (kibibytes, says) in [(16, format!("{}\n", libc::ENOSPC)), (16 << 10, full)] {
        let script = format!("mount -t tmpfs -o size={kibibytes}k none /mnt || exit 77; exec \"$0\" /mnt/heap exhaust");
        let output = output_in_time(Command::new("unshare").args(["-m", "sh", "-c", &script]).arg(&program));
        if output.status.success() {
            assert_eq!(String::from_utf8_lossy(&output.stdout), says);
        } else {
            assert!(matches!(output.status.code(), Some(1 | 77)), "{output:?}");
            skipped("a full disk: a folder of its own takes the right to mount one");
        }
    }
}

#[test]
fn c2_children_go_on_in_the_heap() {
    let (folder, place) = (Folder::create(), Place::new("c2-fork"));
    if let Some(program) = compile(&folder, "shm_fork.c") {
        assert_eq!(said(Command::new(&program).arg(&place.0)), "");
        // Fifteen children are killed, each of which may have a block just then.
        place.holds(|bytes| bytes <= 15 * 256);
    }
}

#[test]
fn c2_threads_come_and_go() {
    let (folder, place) = (Folder::create(), Place::new("c2-threads"));
    if let Some(program) = compile(&folder, "shm_threads.c") {
        assert_eq!(said(Command::new(&program).arg(&place.0)), "");
        place.holds(|bytes| bytes == 0);
    }
}

/// A running `shm_guest.c`.
struct Guest {
    process: Child,
    steps: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Guest {
    fn start(program: &Path, place: &Place) -> Self {
        let mut command = Command::new(program);
        command.arg(&place.0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("a process");
        let steps = process.stdin.take().expect("a pipe");
        let answers = BufReader::new(process.stdout.take().expect("a pipe"));
        Self { process, steps, answers }
    }

    /// Does a step; the number of the error, or 0.
    #[track_caller]
    fn does(&mut self, step: &str) -> i32 {
        writeln!(self.steps, "{step}").expect("it listens");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("it answers");
        answer.trim().parse().unwrap_or_else(|_| panic!("{step}: {answer}"))
    }

    #[track_caller]
    fn all(&mut self, steps: &[&str]) {
        steps.iter().for_each(|step| assert_eq!(self.does(step), 0, "{step}"));
    }

    fn end(mut self) {
        drop(self.steps);
        assert!(status_in_time(&mut self.process).success());
    }

    /// Does a step of which the process dies, and says why.
    fn dies_of(mut self, step: &str) -> String {
        writeln!(self.steps, "{step}").expect("it listens");
        drop(self.steps);
        let status = status_in_time(&mut self.process);
        assert_eq!(status.signal(), Some(libc::SIGABRT), "{step}: {status}");
        let stderr = self.process.stderr.take().expect("a pipe");
        BufReader::new(stderr).lines().map(|line| line.expect("text")).collect()
    }
}

#[test]
fn c2_a_destroyed_heap_is_there_for_those_who_have_it_open() {
    let (folder, place) = (Folder::create(), Place::new("c2-destroy"));
    let Some(program) = compile(&folder, "shm_guest.c") else {
        return;
    };
    let guest = || Guest::start(&program, &place);
    let (mut one, mut other, mut third) = (guest(), guest(), guest());
    one.all(&["init", "put", "work"]);
    other.all(&["init", "get", "work"]);
    assert_eq!(other.does("destroy"), 0);
    assert!(!place.0.exists());
    one.all(&["get", "work", "drop", "put", "get"]);
    // Another heap has the name now: it is not that of the one that was destroyed, and stays.
    assert_eq!(one.does("init"), libc::EBUSY);
    third.all(&["init", "work"]);
    assert_eq!(third.does("get"), 0, "a heap of its own has no root, which is no error");
    assert_eq!((one.does("destroy"), one.does("destroy")), (libc::ENOENT, libc::EINVAL));
    other.all(&["init", "put", "fini"]);
    third.all(&["get", "work", "drop", "fini"]);
    place.holds(|bytes| bytes == 0);
    one.all(&["init", "work", "destroy"]);
    assert!(!place.0.exists());
    [one, other, third].into_iter().for_each(Guest::end);
}

#[test]
fn c2_guests_that_are_killed_leave_the_heap_to_the_others() {
    let (folder, place) = (Folder::create(), Place::new("c2-killed"));
    let Some(program) = compile(&folder, "../../examples/c/shared_pattern.c") else {
        return;
    };
    for milliseconds in [1, 3, 10, 30, 60, 100] {
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", &format!("{}", f64::from(milliseconds) / 1e3)]).arg(&program).arg(&place.0);
        // The children that it leaves end by themselves.
        let _ = output_in_time(&mut command);
    }
    assert!(said(Command::new(&program).arg(&place.0)).contains(" 0 damaged"));
    place.holds(|_| true);
}

#[test]
fn c2_a_killed_process_is_dead_though_its_children_live() {
    let (folder, place) = (Folder::create(), Place::new("c2-orphan"));
    let Some(program) = compile(&folder, "shm_guest.c") else {
        return;
    };
    let mut guest = Guest::start(&program, &place);
    guest.all(&["init", "go-on-as-child", "work"]);
    place.holds_beside(1, |_| true);
    guest.all(&["work", "put"]);
    assert_eq!(status_in_time(&mut guest.process).signal(), Some(libc::SIGKILL));
    guest.all(&["get", "drop", "fini"]);
    place.holds(|bytes| bytes == 0);
}

#[test]
fn c2_what_is_no_block_ends_the_process() {
    let (folder, place) = (Folder::create(), Place::new("c2-foreign"));
    let Some(program) = compile(&folder, "shm_guest.c") else {
        return;
    };
    let line = "stratalloc: free, realloc or malloc_usable_size of a pointer at which no live block of this heap begins; \
                pass what malloc returned, once";
    for step in ["free-static", "realloc-inside"] {
        let mut guest = Guest::start(&program, &place);
        guest.all(&["init", "put"]);
        let says = guest.dies_of(step);
        // Who hunts says more.
        let hunted = cfg!(feature = "malloc-debug") && says.starts_with("stratalloc: invalid ");
        assert!(says == line || hunted && says.contains(" main+0x"), "{step}: {says}");
    }
    assert_eq!(Guest::start(&program, &place).dies_of("free-static"), line, "no heap is open");
    place.holds(|bytes| (200..600).contains(&bytes));
}

#[test]
fn c2_the_readmes_program_runs() {
    let (folder, place) = (Folder::create(), Place::new("c2-readme"));
    let readme = fs::read_to_string(Path::new(CRATE).join("README.md")).expect("the README");
    let program = readme.split("```c\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a program in C");
    assert!(program.contains("\"/dev/shm/visits\""));
    let here = folder.file("visits.c", &program.replace("/dev/shm/visits", &place.0.to_string_lossy()));
    if let Some(program) = compile(&folder, &here.to_string_lossy()) {
        for visit in 1..4 {
            assert_eq!(said(&mut Command::new(&program)), format!("visit {visit}\n"));
        }
        place.holds(|bytes| bytes > 0);
    }
}

/// The words of a text that begin with `shm_`, each once.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("shm_")).collect()
}

#[test]
fn c2_the_header_declares_what_the_library_has() {
    let header = fs::read_to_string(Path::new(CRATE).join("include/stratalloc_shm.h")).expect("the header");
    let declared: Vec<&str> = header.lines().filter(|line| line.ends_with(';') && line.contains("shm_")).collect();
    let declared = declared.join("\n");
    let wanted = "shm_malloc shm_calloc shm_realloc shm_free shm_memalign shm_init shm_fini shm_destroy shm_child shm_global \
                  shm_set_global";
    assert_eq!(names(&declared), names(wanted));
    assert!(names(&header).is_subset(&names(wanted)));
    if is_installed("nm") {
        let output = output_in_time(Command::new("nm").args(["-g", "--defined-only", library()]));
        assert_eq!(names(&String::from_utf8_lossy(&output.stdout)), names(wanted));
    }
}

#[test]
fn c2_the_header_is_for_c_and_cpp() {
    let folder = Folder::create();
    let calls = "#include \"stratalloc_shm.h\"\nstatic void begin(void) {}\nint each(void);\nint each(void) {\n\
                 return shm_init(\"a\") + shm_init(\"b\", begin) + (shm_init)(\"c\", NULL) + (shm_init(\"d\", NULL) == 0\n\
                 ? shm_fini() : shm_destroy());\n}\n";
    let warnings = ["-pedantic-errors", "-Wall", "-Wextra", "-Werror", "-Wundef", "-Wshadow", "-Wconversion"];
    let c = ["c89", "gnu89", "iso9899:199409", "c99", "c11", "gnu17", "c2x"];
    let cpp = ["c++98", "c++11", "c++17", "c++20", "gnu++20"];
    for (compiler, file, standards, more) in [
        ("gcc", "calls.c", &c[..], ["-Wstrict-prototypes", "-Wmissing-prototypes"]),
        ("g++", "calls.cpp", &cpp[..], ["-Wzero-as-null-pointer-constant", "-Wold-style-cast"]),
    ] {
        let file = folder.file(file, calls);
        for standard in standards.iter().filter(|_| is_installed(compiler)) {
            let mut command = Command::new(compiler);
            command.arg(format!("-std={standard}")).args(warnings).args(more).arg("-Iinclude").current_dir(CRATE);
            assert_eq!(said(command.arg("-fsyntax-only").arg(&file)), "", "{standard}");
        }
    }
    // A compiler that has nothing but the standard of 1989 knows no macro with any number of arguments.
    if is_installed("gcc") {
        let file = folder.file("plain.c", &calls.replace("shm_init(\"a\")", "shm_init(\"a\", NULL)"));
        let mut command = Command::new("gcc");
        command.args(["-std=c89", "-U__GNUC__", "-Iinclude", "-fsyntax-only"]).current_dir(CRATE);
        assert_eq!(said(command.arg(file)), "");
    }
}

/// The examples, in both languages, which say the same.
mod examples {
    use super::*;

    fn list_is_found_again(program: &Path, place: &Place) {
        let run = |words: &[&str]| said(Command::new(program).arg(&place.0).args(words));
        let lines = |text: &str| text.lines().skip(1).map(str::to_string).collect::<Vec<_>>();
        assert_eq!(lines(&run(&["milk", "two eggs"])), ["  milk (run 1)", "  two eggs (run 1)"]);
        assert_eq!(lines(&run(&[])).len(), 2);
        assert_eq!(lines(&run(&["bread"]))[1..], ["  two eggs (run 1)", "  bread (run 3)"]);
        // Several at once, which are in the heap together.
        let many = || {
            let mut command = Command::new(program);
            command.arg(&place.0).args((0..300).map(|word| word.to_string())).stdout(Stdio::null());
            command.spawn().expect("a process")
        };
        let runs: Vec<Child> = (0..8).map(|_| many()).collect();
        runs.into_iter().for_each(|mut run| assert!(status_in_time(&mut run).success()));
        let all = lines(&run(&["last"]));
        assert_eq!((all.len(), all.last().map(String::as_str)), (3 + 8 * 300 + 1, Some("  last (run 12)")));
        for run in 4..12 {
            assert_eq!(all.iter().filter(|line| line.ends_with(&format!(" (run {run})"))).count(), 300);
        }
        let output = output_in_time(&mut Command::new(program));
        assert!(!output.status.success() && !output.stderr.is_empty(), "it says what it wants");
        place.holds(|bytes| bytes > 0);
    }

    #[test]
    fn s5_the_list_is_found_again() {
        list_is_found_again(&example::path_of_this_build("shared_list"), &Place::new("c2-list"));
    }

    #[test]
    fn c2_s5_the_list_in_c_is_found_again() {
        let folder = Folder::create();
        if let Some(program) = compile(&folder, "../../examples/c/shared_list.c") {
            list_is_found_again(&program, &Place::new("c2-list-c"));
        }
    }

    #[test]
    fn s2_blocks_of_a_pattern_go_from_process_to_process() {
        let program = example::path_of_this_build("shared_pattern");
        for name in ["pattern", "pattern-again"] {
            let place = Place::new(name);
            let says = said(Command::new(&program).arg(&place.0));
            assert!(says.contains(" 0 damaged") && says.contains("0 bytes were allocated before, 0 are now"), "{says}");
            assert!(!place.0.exists());
        }
    }

    #[test]
    fn c2_s2_blocks_of_a_pattern_in_c_go_from_process_to_process() {
        let (folder, place) = (Folder::create(), Place::new("c2-pattern-c"));
        let Some(program) = compile(&folder, "../../examples/c/shared_pattern.c") else {
            return;
        };
        for _ in 0..2 {
            assert!(said(Command::new(&program).arg(&place.0)).contains(" 0 damaged"));
            place.holds(|bytes| bytes == 0);
        }
        said(Command::new(&program).arg(&place.0).arg("destroy"));
        assert!(!place.0.exists());
    }
}
