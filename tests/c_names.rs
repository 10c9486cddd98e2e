//! The C names, in programs that know nothing of Rust: with the library preloaded, loaded by `dlopen`, and linked statically.
//! The programs of `tests/c` are compiled here; the others are whatever is installed, and run with the library and without it.

#![allow(clippy::disallowed_macros, reason = "a test says what it skips")]

#[path = "common/c_programs.rs"]
mod c_programs;

use c_programs::in_time::{output_in_time, status_in_time};
use c_programs::{CRATE, Folder, build, is_installed, said};
use std::fmt::Write;
use std::fs::{File, read, read_to_string, write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The library that has the bare names, for `LD_PRELOAD`.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    let options = ["-C", "link-arg=-Wl,-z,nodelete,-z,initfirst"];
    LIBRARY.get_or_init(|| build("c-override", "cdylib", "libstratalloc.so", &options))
}

/// The library that has only the prefixed names, for the linker.
fn static_library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| build("c-abi", "staticlib", "libstratalloc.a", &[]))
}

/// `command`, and all that it runs, with the library in the C library's place.
fn preloaded(command: &mut Command) -> &mut Command {
    command.env("LD_PRELOAD", library())
}

/// Checks that what was said with the library is what was said without it, and that this is something.
#[track_caller]
fn assert_same(with: &str, without: &str) {
    assert!(!without.is_empty());
    let differ = with.lines().zip(without.lines()).find(|(with, without)| with != without);
    assert!(
        with == without,
        "{} and {} bytes; first lines with and without that differ: {differ:?}",
        with.len(),
        without.len()
    );
}

/// Checks that `command` says the same with the library as without it.
#[track_caller]
fn says_the_same(command: impl Fn() -> Command) {
    let without = said(&mut command());
    assert_same(&said(preloaded(&mut command())), &without);
}

#[test]
fn c1_rules_of_c23_posix_and_glibc() {
    let folder = Folder::create();
    let options = ["-O0", "-Wno-alloc-size-larger-than", "-Wno-use-after-free"];
    let Some(program) = folder.compile("rules.c", &options) else {
        return;
    };
    if cfg!(target_env = "gnu") {
        assert_eq!(said(&mut Command::new(&program)), "the system's rules\n");
    }
    assert_eq!(said(preloaded(&mut Command::new(&program))), "the library's rules\n");
}

mod foreign {
    use super::*;

    const FUNCTIONS: [&str; 5] = ["free", "realloc", "realloc-0", "reallocarray", "malloc_usable_size"];
    const LINE: &str = "stratalloc: free, realloc or malloc_usable_size of a pointer at which no live block of this heap \
                        begins; pass what malloc returned, once\n";

    /// Hands the pointer to each of the functions, in a process of its own, which dies of it.
    fn dies_of(program: &Path, place: &str) {
        for function in FUNCTIONS {
            let output = output_in_time(preloaded(Command::new(program).args([function, place])));
            let stdout = String::from_utf8_lossy(&output.stdout);
            assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{function}, {place}: {}, {stdout}", output.status);
            assert_eq!(String::from_utf8_lossy(&output.stderr), LINE, "{function}, {place}");
            assert_eq!(stdout, "", "{function}, {place}");
        }
    }

    fn all_die(places: impl IntoIterator<Item = impl AsRef<str>>) {
        let folder = Folder::create();
        if let Some(program) = folder.compile("foreign.c", &["-O0"]) {
            places.into_iter().for_each(|place| dies_of(&program, place.as_ref()));
        }
    }

    #[test]
    fn c1_foreign_memory_ends_the_process() {
        all_die(["stack", "static", "code", "low", "never-mapped", "beyond-all-addresses", "own-mapping"]);
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn c1_foreign_heaps_end_the_process() {
        all_die(["other-heap", "other-heap-mapping"]);
    }

    #[test]
    fn c1_foreign_places_inside_runs_end_the_process() {
        all_die(["run+16", "run+8192", "run+36864", "long-run+4096"]);
    }

    #[test]
    fn c1_foreign_pages_of_runs_that_were_slabs_end_the_process() {
        all_die((1..25).step_by(3).map(|page| format!("over-slabs+{page}")));
    }
}

#[test]
fn c1_threads_of_every_kind() {
    let folder = Folder::create();
    let Some(program) = folder.compile("threads.cpp", &["-O2"]) else {
        return;
    };
    assert_eq!(said(preloaded(&mut Command::new(&program))), "");
    assert_eq!(said(preloaded(Command::new(&program).arg("main-ends"))), "");
}

#[test]
fn c1_dlopened_in_a_program_with_threads() {
    let folder = Folder::create();
    if let Some(program) = folder.compile("dlopened.c", &["-O2"]) {
        assert_eq!(said(Command::new(program).arg(library())), "");
    }
}

/// What a program may do while the C library holds a lock of its own, or this one's.
mod beside_locks {
    use super::*;

    #[test]
    fn c1_threads_end_while_blocks_are_freed() {
        let folder = Folder::create();
        if let Some(program) = folder.compile("stacks.c", &["-O2"]) {
            (0..32).for_each(|phase| assert_eq!(said(preloaded(Command::new(&program).arg(phase.to_string()))), ""));
        }
    }

    #[test]
    fn c1_threads_that_a_library_waits_for_while_it_is_loaded() {
        let folder = Folder::create();
        let library = folder.compile("waiting_library.c", &["-O2", "-shared", "-fPIC"]);
        if let (Some(program), Some(library)) = (folder.compile("loads.c", &["-O2"]), library) {
            assert_eq!(said(Command::new(&program).arg(&library)), "");
            assert_eq!(said(preloaded(Command::new(&program).arg(&library))), "");
        }
    }

    #[test]
    fn c1_threads_fork_with_handlers_that_allocate() {
        let folder = Folder::create();
        if let Some(program) = folder.compile("handlers.c", &["-O2"]) {
            assert_eq!(said(&mut Command::new(&program)), "");
            assert_eq!(said(preloaded(&mut Command::new(&program))), "");
        }
    }
}

mod linked {
    use super::*;

    #[test]
    fn c4_linked_statically() {
        let folder = Folder::create();
        let library = static_library().to_str().expect("a path in UTF-8");
        let options = ["-O2", "-I../../include", library, "-lpthread", "-ldl", "-lm"];
        if let Some(program) = folder.compile("linked.c", &options) {
            assert_eq!(said(&mut Command::new(program)), "");
        }
    }

    #[test]
    fn c4_header_is_for_c_and_cpp() {
        for (compiler, language, standard) in [("gcc", "c", "-std=c99"), ("g++", "c++", "-std=c++11")] {
            if is_installed(compiler) {
                let mut command = Command::new(compiler);
                command.args([standard, "-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-Iinclude"]);
                command.args(["-include", "stratalloc.h", "-x", language, "/dev/null"]).current_dir(CRATE);
                assert_eq!(said(&mut command), "");
            }
        }
    }
}

/// The same library with the corruption hunter in it: `cargo test --features c-abi,malloc-debug --test c_names hunted::`.
#[cfg(all(feature = "malloc-debug", target_arch = "x86_64"))]
mod hunted {
    use super::*;
    use std::process::Output;

    fn hunt(command: &mut Command, words: &str) -> Output {
        output_in_time(preloaded(command).env("STRATALLOC_DEBUG", words))
    }

    #[test]
    fn d9_errors_of_c_programs_are_reported() {
        let folder = Folder::create();
        let Some(program) = folder.compile("errors.c", &["-O1", "-g", "-Wno-use-after-free"]) else {
            return;
        };
        for words in ["", "page"] {
            let (touched, written) = (words == "page", "use after free: a block was ");
            for (error, first) in [
                ("overflow", if touched { "overflow: " } else { "overflow: bytes behind a block were written" }),
                ("double", "double free: a block was freed that had been freed before"),
                ("written", written),
                ("interior", "invalid free: the pointer is not to the begin of a block, but into it"),
            ] {
                let output = hunt(Command::new(&program).arg(error), words);
                let report = String::from_utf8_lossy(&output.stderr);
                assert!(report.starts_with(&format!("stratalloc: {first}")), "{error}: {report}");
                assert!(report.contains("make_the_block+") && report.contains("errors.c:"), "{error}: {report}");
                assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{error}: {report}");
            }
            for right in ["nothing", "usable"] {
                let output = hunt(Command::new(&program).arg(right), words);
                assert!(output.status.success() && output.stderr.is_empty(), "{right}: {output:?}");
            }
        }
    }

    #[test]
    fn d12_whole_programs_are_silent() {
        let folder = Folder::create();
        let source = folder.file("hello.c", "#include <stdio.h>\nint main(void) { return puts(\"hello\") < 0; }\n");
        let lines = "import json, threading\nt = [threading.Thread(target=lambda: json.loads(json.dumps(list(range(9999))))) \
                     for _ in range(8)]\n[x.start() for x in t]\n[x.join() for x in t]\nprint('done')";
        let commands: [&[&str]; 6] = [
            &["bash", "-c", "x=(); for i in {1..3000}; do x+=(\"$i-$((i * 7))\"); done; echo ${#x[@]} ${x[@]:5:9}"],
            &["python3", "-c", lines],
            &[
                "perl",
                "-e",
                "my %h; $h{$_ % 997} .= $_ for 1 .. 100000; print join(',', map { length $h{$_} } sort keys %h)",
            ],
            &["git", "-C", CRATE, "log", "--stat", "-n", "30"],
            &["gcc", "-O2", "-c", source.to_str().expect("text"), "-o", "/dev/null"],
            &["sqlite3", ":memory:", "create table t(a, b); insert into t values (1, 'x'), (2, 'y'); select * from t;"],
        ];
        for words in ["", "page", "sample=100", "sweep=20011,frames=32,blocks=1000"] {
            for command in commands.iter().filter(|command| is_installed(command[0])) {
                let output = hunt(Command::new(command[0]).args(&command[1..]), words);
                let report = String::from_utf8_lossy(&output.stderr);
                assert!(
                    output.status.success() && report.is_empty(),
                    "{words}: {command:?}: {}\n{report}",
                    output.status
                );
            }
        }
    }
}

#[test]
fn c1_memory_comes_back_with_no_call() {
    let folder = Folder::create();
    let Some(program) = folder.compile("idle.c", &["-O2"]) else {
        return;
    };
    print!("{}", said(preloaded(&mut Command::new(&program))));
    print!("waiting threads: {}", said(preloaded(Command::new(&program).arg("threads"))));
}

#[test]
fn c1_memory_comes_back_by_a_thread_that_goes() {
    let folder = Folder::create();
    if let Some(program) = folder.compile("purger.c", &["-O2"]) {
        assert_eq!(said(preloaded(&mut Command::new(program))), "");
    }
}

#[test]
fn c1_threads_that_are_cancelled_leave_no_lock() {
    let folder = Folder::create();
    if let Some(program) = folder.compile("cancelled.c", &["-O2"]) {
        assert_eq!(said(preloaded(&mut Command::new(program))), "");
    }
}

#[test]
fn c1_preload_environment_with_few_addresses() {
    let folder = Folder::create();
    let Some(program) = folder.compile("limit.c", &["-O2", "-Wno-use-after-free"]) else {
        return;
    };
    for limit in [100_000, 300_000] {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -v {limit}; exec \"$0\"")]).arg(&program);
        said(preloaded(&mut shell));
    }
}

/// Programs that are there already, and what they say.
mod programs {
    use super::*;

    /// `program` on a script.
    fn script(program: &str, text: &str) {
        if is_installed(program) {
            let folder = Folder::create();
            let file = folder.file("script", text);
            says_the_same(|| {
                let mut command = Command::new(program);
                command.arg(&file).env("PYTHONHASHSEED", "0").env("PYTHONMALLOC", "malloc");
                command
            });
        }
    }

    #[test]
    fn c1_programs_bash() {
        script("bash", BASH);
    }

    const BASH: &str = r#"
        declare -a numbers
        declare -A names
        for ((i = 0; i < 20000; i++)); do
            numbers[i]=$((i * i % 7919))
            names[name$((i % 500))]+=$i,
        done
        sum=0
        for number in "${numbers[@]}"; do ((sum += number)); done
        echo "$sum ${#numbers[@]} ${#names[@]}"
        text=
        for name in "${!names[@]}"; do text+="$name=${#names[$name]} "; done
        tr ' ' '\n' <<<"$text" | sort | head -n 20
        for i in {1..20}; do echo "$(printf '%s' "${numbers[@]:i:5}" | sed 's/1/one/g')"; done
        (for i in {1..50}; do echo $((i * 3)); done) | while read -r line; do [[ $line == *5* ]] && echo "$line"; done
        unset numbers names
        echo done
    "#;

    #[test]
    fn c1_programs_python_with_threads() {
        script("python3", PYTHON);
    }

    const PYTHON: &str = r#"
import gc, json, re, threading, zlib

sums = [0] * 8

def work(number):
    table = {f"key {one}": [one, str(one) * 3, {"half": one / 2}] for one in range(8000)}
    text = json.dumps(table, sort_keys=True)
    assert json.loads(text) == table
    words = re.findall(r"[a-z]+|\d{3,}", text)
    text = re.sub(r"(\d)(\d)", lambda match: match[2] + match[1], text)
    large = [word * (1 + index % 9) for index, word in enumerate(words)] * 3
    large.sort(key=lambda word: (len(word), word))
    del large[::2]
    parts = [bytes([number]) * size for size in range(0, 60000, 500)]
    sums[number] = zlib.crc32("".join(large).encode() + b"".join(parts) + text.encode())

threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
gc.collect()
print(sums)
"#;

    #[test]
    fn c1_programs_perl() {
        script("perl", PERL);
    }

    const PERL: &str = r#"
        use strict; use warnings;
        my (%words, @list);
        for my $number (1 .. 100000) {
            my $word = "word" . ($number * 7919 % 10007);
            $words{$word} .= "$number ";
            push @list, $word x (1 + $number % 5) if $number % 3;
        }
        my @sorted = sort { length($a) <=> length($b) || $a cmp $b } @list;
        my $text = join ' ', @sorted[0 .. 30000];
        my $count = () = $text =~ /word(\d)\d*\1/g;
        $text =~ s/(\d+)/<$1>/g;
        print scalar(@list), " ", scalar(keys %words), " $count ", length($text), "\n";
        print "$_: ", length($words{$_}), "\n" for (sort keys %words)[0 .. 20];
        print substr($text, 1000, 500), "\n";
    "#;

    #[test]
    fn c1_programs_sqlite() {
        if is_installed("sqlite3") {
            let folder = Folder::create();
            let file = folder.file("script.sql", SQL);
            says_the_same(|| {
                let mut command = Command::new("sqlite3");
                command.arg(":memory:").stdin(File::open(&file).expect("the script"));
                command
            });
        }
    }

    const SQL: &str = "
        CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, town INTEGER, note TEXT);
        CREATE TABLE towns (id INTEGER PRIMARY KEY, name TEXT);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
            INSERT INTO towns SELECT i, 'town ' || (i * 7919 % 1000) FROM n;
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
            INSERT INTO people SELECT i, 'name ' || (i * 31 % 5003), i * 17 % 300, hex(zeroblob(i % 90)) FROM n;
        CREATE INDEX by_name ON people (name);
        SELECT p.name, t.name, length(note) FROM people p JOIN towns t ON t.id = p.town
            ORDER BY t.name, p.name DESC, p.id LIMIT 50 OFFSET 20000;
        SELECT t.name, count(*), sum(length(p.note)), group_concat(p.id % 10, '')
            FROM people p LEFT JOIN towns t ON t.id = p.town GROUP BY t.name ORDER BY 3 DESC, 1 LIMIT 20;
        DELETE FROM people WHERE id % 3 = 0;
        UPDATE people SET note = note || name WHERE id % 5 = 0;
        VACUUM;
        SELECT count(*), count(DISTINCT name), max(length(note)), total(town) FROM people;
    ";

    /// `git` in `folder`, with nobody's settings.
    fn git(folder: &Path) -> Command {
        let mut command = Command::new("git");
        command.arg("-C").arg(folder).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_PAGER", "cat");
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "A. Tester").env(format!("GIT_{who}_EMAIL"), "tester@example.com");
            command.env(format!("GIT_{who}_DATE"), "2026-01-01T12:00:00Z");
        }
        command
    }

    /// A repository of 50 commits.
    fn repository(folder: &Path) {
        said(git(folder).args(["init", "--quiet"]));
        for commit in 0..50 {
            for file in 0..4 {
                let lines = (0..300).map(|line| format!("line {}\n", line * (1 + (commit + file) * line % 7)));
                write(folder.join(format!("file {file}")), lines.collect::<String>()).expect("a file");
            }
            said(git(folder).args(["add", "--all"]));
            said(git(folder).args(["commit", "--quiet", "--allow-empty", "-m", &format!("commit {commit}")]));
        }
    }

    #[test]
    fn c1_programs_git() {
        if !is_installed("git") {
            return;
        }
        let folder = Folder::create();
        let own = output_in_time(git(Path::new(CRATE)).args(["rev-list", "--count", "HEAD"]));
        let is_own = own.status.success() && String::from_utf8_lossy(&own.stdout).trim().len() > 1;
        let history = if is_own { Path::new(CRATE) } else { &folder.0 };
        if !is_own {
            repository(history);
        }
        for options in [&["--stat", "-M"][..], &["-p", "-n", "60"], &["--format=%H %an %s", "--name-status"]] {
            says_the_same(|| {
                let mut command = git(history);
                command.arg("log").args(options);
                command
            });
        }
        // It writes, with threads.
        let clone = folder.0.join("clone");
        said(preloaded(git(&folder.0).args(["clone", "--quiet", "--no-local"]).arg(history).arg(&clone)));
        said(preloaded(git(&clone).args(["repack", "-a", "-d", "-f", "--quiet", "--threads=4"])));
        said(git(&clone).args(["fsck", "--strict", "--no-dangling", "--no-progress"]));
    }

    /// So many functions in C.
    fn c_source(functions: usize) -> String {
        let mut text = String::from("struct list { struct list *next; int value[4]; };\n");
        for number in 0..functions {
            let (a, b) = (number % 13 + 2, number % 7 + 3);
            let before = number.saturating_sub(1);
            writeln!(
                text,
                "int f{before}(struct list *, int);\n\
                 int f{number}(struct list *list, int n) {{\n\
                 int sum = {number}, table[{a}] = {{ {b} }};\n\
                 for (; list; list = list->next)\n\
                   for (int i = 0; i < n; i++) {{\n\
                     table[(i + n) % {a}] += list->value[i & 3] * {b};\n\
                     switch (list->value[i & 1]) {{ case 1: sum ^= table[i % {a}]; break; case {b}: sum -= i; break;\n\
                       case 17: return sum; default: sum += n ? f{before}(list, n - 1) : {a}; }}\n\
                   }}\n\
                 return sum + \"text of {number}\"[n % 9];\n}}"
            )
            .expect("text");
        }
        text
    }

    /// So many classes and their templates in C++.
    fn cpp_source(classes: usize) -> String {
        let mut text = String::from(
            "#include <algorithm>\n#include <map>\n#include <memory>\n#include <string>\n#include <vector>\n\
             template <int N> struct Deep { static int sum(int x) { return x * N + Deep<N - 1>::sum(x ^ N); } };\n\
             template <> struct Deep<0> { static int sum(int x) { return x; } };\n",
        );
        for number in 0..classes {
            writeln!(
                text,
                "struct C{number} {{ std::map<std::string, std::vector<std::unique_ptr<int>>> map; int n = {number};\n\
                 auto key() {{ return [this](const std::string &a, auto b) {{ return a.size() + n < b.size() * {number}; }}; }} }};\n\
                 int g{number}(C{number} &c, std::vector<std::string> v) {{\n\
                 std::sort(v.begin(), v.end(), c.key());\n\
                 for (auto &s : v) c.map[s].push_back(std::make_unique<int>(Deep<{number} + 20>::sum(c.n)));\n\
                 return (int)c.map.size(); }}"
            )
            .expect("text");
        }
        text
    }

    /// The object file that is made of `source` with the library is the same as without it.
    fn compiles_the_same(compiler: &str, name: &str, source: &str) {
        if !is_installed(compiler) {
            return;
        }
        let folder = Folder::create();
        folder.file(name, source);
        let object = |out: &str| {
            let mut command = Command::new(compiler);
            command.args(["-O2", "-c", name, "-o", out]).current_dir(&folder.0);
            command
        };
        said(&mut object("without.o"));
        said(preloaded(&mut object("with.o")));
        let [with, without] = ["with.o", "without.o"].map(|file| read(folder.0.join(file)).expect("the object file"));
        assert!(with.len() > 10_000 && with == without, "{compiler}: {} bytes, {}", with.len(), without.len());
    }

    #[test]
    fn c1_programs_gcc() {
        compiles_the_same("gcc", "large.c", &c_source(150));
    }

    #[test]
    fn c1_programs_gpp() {
        compiles_the_same("g++", "large.cpp", &cpp_source(20));
    }
}

mod redis {
    use super::*;

    /// A running server; it ends with this value at the latest.
    struct Server {
        process: Child,
        port: String,
        folder: Folder,
    }

    impl Server {
        /// Starts a server that writes no file but its log, on a port that is free.
        fn start(is_preloaded: bool) -> Self {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let port = listener.local_addr().expect("its address").port();
            drop(listener);
            let folder = Folder::create();
            let mut command = Command::new("redis-server");
            command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
            command.args(["--io-threads", "2", "--logfile", "log", "--dir"]).arg(&folder.0);
            if is_preloaded {
                preloaded(&mut command);
            }
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut this = Self { process: command.spawn().expect("the server"), port: port.to_string(), folder };
            this.wait_until_it_listens(port);
            this
        }

        fn wait_until_it_listens(&mut self, port: u16) {
            let begun = Instant::now();
            while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
                let has_ended = self.process.try_wait().expect("its state").is_some();
                assert!(!has_ended && begun.elapsed() < Duration::from_secs(60), "it does not listen\n{}", self.log());
                std::thread::sleep(Duration::from_millis(20));
            }
        }

        fn log(&self) -> String {
            read_to_string(self.folder.0.join("log")).unwrap_or_default()
        }

        /// A program of redis's that talks to this server.
        fn client(&self, program: &str) -> Command {
            let mut command = Command::new(program);
            command.args(["-h", "127.0.0.1", "-p", &self.port]);
            command
        }

        /// What it answers to the commands of a file.
        fn answers(&self, commands: &Path) -> String {
            said(self.client("redis-cli").stdin(File::open(commands).expect("the commands")))
        }

        /// Ends it by its own command.
        fn shut_down(mut self) {
            said(self.client("redis-cli").args(["shutdown", "nosave"]));
            let status = status_in_time(&mut self.process);
            assert!(status.success(), "{status}\n{}", self.log());
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            // It fails if the server has ended by itself, as it should have.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }

    /// Commands whose answers say what is in the server.
    fn commands() -> String {
        let mut text = String::new();
        for number in 0..3000 {
            let (key, value) = (number % 700, "v".repeat(1 + number * 7 % 1500));
            writeln!(text, "SET key{number} {value}\nAPPEND key{key} more{number}\nLPUSH list{} {number}", key % 9)
                .and_then(|()| writeln!(text, "HSET hash{} field{number} {value}\nZADD set {key} m{number}", key % 20))
                .expect("text");
        }
        text += "STRLEN key699\nLRANGE list3 0 -1\nHLEN hash7\nHMGET hash7 field7 field27 field2827\n";
        text += "ZRANGE set 0 200 WITHSCORES\nDEL list3 hash7\nSORT list4 DESC LIMIT 0 50\nEVAL \"local t={} for i=1,9999 do t[i]=i..'x' end return #table.concat(t)\" 0\n";
        text + "DBSIZE\nFLUSHALL\nDBSIZE\n"
    }

    #[test]
    fn c1_programs_redis() {
        if !["redis-server", "redis-cli", "redis-benchmark"].map(is_installed).into_iter().all(|installed| installed) {
            return;
        }
        let [without, with] = [false, true].map(|is_preloaded| {
            let server = Server::start(is_preloaded);
            let commands = server.folder.file("commands", &commands());
            let answers = server.answers(&commands);
            if is_preloaded {
                let mut benchmark = server.client("redis-benchmark");
                benchmark.args(["-n", "3000", "-c", "20", "-d", "300", "--threads", "2", "--csv"]);
                let figures = said(preloaded(benchmark.args(["-t", "set,get,lpush,lrange_100,hset,zadd"])));
                assert!(figures.lines().count() > 6, "{figures}");
            }
            server.shut_down();
            answers
        });
        assert_same(&with, &without);
        assert!(with.ends_with("OK\n0\n") && !with.contains("ERR"), "{with}");
    }
}
