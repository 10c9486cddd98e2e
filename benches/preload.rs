//! Whole programs on the library for `LD_PRELOAD`, beside the C library's allocator and others that are installed:
//! `cargo bench --bench preload [-- ROUNDS [PROGRAM …]]`. Rounds are interleaved; the table has the median over the rounds of
//! CPU time (user and system) and of peak resident memory, each over that of the C library's in the same round.

#![allow(clippy::disallowed_macros, clippy::disallowed_methods, reason = "a bench prints, and waits for processes")]

#[path = "common/cost.rs"]
mod cost;

use cost::{Cost, median, wait};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Where Debian's packages put the libraries of others.
const OTHERS: [(&str, &str); 2] = [
    ("jemalloc", "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2"),
    ("mimalloc", "/usr/lib/x86_64-linux-gnu/libmimalloc.so.2"),
];

/// How the library with the hunter hunts; the others do not hear it.
const SAMPLE: &str = "sample=5000";

/// A program: its name, and a run of it in a folder, with a library.
type Program = (&'static str, fn(&Path, &str) -> Option<Cost>);

const PROGRAMS: [Program; 8] = [
    ("bash", |work, library| run(work, library, &["bash", "words.sh"])),
    ("python3, 8 threads", |work, library| run(work, library, &[&python()?, "threads.py"])),
    ("perl", |work, library| run(work, library, &["perl", "words.pl"])),
    ("git log -p", |work, library| run(work, library, &["git", "-C", "repository", "log", "-p", "--stat"])),
    ("gcc -O2", |work, library| run(work, library, &["gcc", "-O2", "-c", "large.c", "-o", "large.o"])),
    ("g++ -O2", |work, library| run(work, library, &["g++", "-O2", "-c", "large.cpp", "-o", "large.o"])),
    ("sqlite3 :memory:", |work, library| run(work, library, &["sqlite3", "-init", "rows.sql", ":memory:", ".quit"])),
    ("redis-server", serve),
];

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let rounds: usize = arguments.next().and_then(|rounds| rounds.parse().ok()).unwrap_or(7);
    let wanted: Vec<String> = arguments.collect();
    let work = prepare();
    let mut libraries = vec![("glibc", String::new())];
    libraries.push(("stratalloc", build(&work, "")));
    libraries.push(("fine-classes", build(&work, "fine-classes")));
    libraries.push(("hunt 1/5000", build(&work, "malloc-debug")));
    libraries.extend(OTHERS.map(|(name, path)| (name, path.to_string())));
    libraries.retain(|(name, path)| {
        let there = path.is_empty() || Path::new(path).exists();
        if !there {
            println!("SKIPPED: {name} is not installed: {path}");
        }
        there
    });
    let names: String = libraries[1..].iter().map(|(name, _)| format!("{name:>13}")).collect();
    println!("{:20}{:>9}{names}  {:>10}{names}", "", "CPU, s", "peak, MiB");
    for (name, run) in
        PROGRAMS.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|part| name.contains(part)))
    {
        match measure(*run, &work, &libraries, rounds) {
            Some(costs) => {
                println!("{name:20}{}  {}", columns(&costs, 9, |cost| cost.cpu), columns(&costs, 10, |cost| cost.peak))
            }
            None => println!("SKIPPED: {name} does not run here"),
        }
    }
}

/// The costs of each round with each library; `None` if the program does not run.
fn measure(
    run: fn(&Path, &str) -> Option<Cost>,
    work: &Path,
    libraries: &[(&str, String)],
    rounds: usize,
) -> Option<Vec<Vec<Cost>>> {
    let mut costs = vec![Vec::new(); libraries.len()];
    for _ in 0..rounds {
        for ((_, library), costs) in libraries.iter().zip(&mut costs) {
            costs.push(run(work, library)?);
        }
    }
    Some(costs)
}

/// The first library's median, and the medians of the others' ratios to it.
fn columns(costs: &[Vec<Cost>], width: usize, of: fn(&Cost) -> f64) -> String {
    let first = median(costs[0].iter().map(of).collect());
    let ratio = |costs_of_one: &Vec<Cost>| {
        median(costs_of_one.iter().zip(&costs[0]).map(|(one, first)| of(one) / of(first)).collect())
    };
    let ratios: String = costs[1..].iter().map(|one| format!("{:13.3}", ratio(one))).collect();
    format!("{first:width$.2}{ratios}")
}

/// Builds the library with more features, and copies it to the folder.
fn build(work: &Path, features: &str) -> String {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["rustc", "--quiet", "--profile", "preload", "--lib", "--crate-type", "cdylib", "--features"]);
    cargo.arg(format!("c-override,{features}")).args(["--", "-C", "link-arg=-Wl,-z,nodelete,-z,initfirst"]);
    assert!(cargo.status().expect("cargo runs").success(), "the library does not build");
    let to = work.join(format!("libstratalloc{features}.so"));
    let target = work.parent().expect("target/preload-bench");
    fs::copy(target.join("preload/libstratalloc.so"), &to).expect("the library is there");
    to.to_string_lossy().into_owned()
}

/// Runs a program to its end.
fn run(work: &Path, library: &str, words: &[&str]) -> Option<Cost> {
    let child = start(work, library, words)?;
    wait(child)
}

/// The interpreter itself: what is found under its name may be a script that looks for it.
fn python() -> Option<String> {
    let output = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().ok()?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_string())
}

fn start(work: &Path, library: &str, words: &[&str]) -> Option<Child> {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(work).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if !library.is_empty() {
        command.env("LD_PRELOAD", library).env("STRATALLOC_DEBUG", SAMPLE);
    }
    command.spawn().ok()
}

/// What a server took that another program asks for a while; that program has the C library's allocator.
fn serve(work: &Path, library: &str) -> Option<Cost> {
    let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port().to_string();
    let server = ["redis-server", "--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    let server = start(work, library, &server)?;
    let ping =
        || Command::new("redis-cli").args(["-p", &port, "ping"]).output().is_ok_and(|out| out.stdout == b"PONG\n");
    let up = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        ping()
    });
    let asked = up && {
        let mut benchmark = Command::new("redis-benchmark");
        benchmark.args(["-p", &port, "-q", "-n", "100000", "-r", "100000", "-d", "200", "-P", "16"]);
        benchmark.args(["-t", "set,get,lpush,lrange_100,hset,zadd,mset"]).stdout(Stdio::null()).stderr(Stdio::null());
        benchmark.status().is_ok_and(|status| status.success())
    };
    let _ = Command::new("redis-cli").args(["-p", &port, "shutdown", "nosave"]).output();
    wait(server).filter(|_| asked)
}

/// The folder with what the programs work on: `target/preload-bench`.
fn prepare() -> PathBuf {
    let binary = std::env::current_exe().expect("the path of this binary");
    let target = binary.ancestors().nth(3).expect("target/release/deps/BINARY");
    let work = target.join("preload-bench");
    fs::create_dir_all(&work).expect("a folder");
    let write = |name: &str, text: &str| fs::write(work.join(name), text).expect("a file");
    write("words.sh", BASH);
    write("threads.py", PYTHON);
    write("words.pl", PERL);
    write("rows.sql", SQL);
    write("large.c", &large_c());
    write("large.cpp", &large_cpp());
    if !work.join("repository/.git").exists() {
        make_repository(&work);
    }
    work
}

const BASH: &str = r#"declare -A seen
for i in $(seq 1 60000); do word="w$((i * 7919 % 5003))"; seen[$word]=$(( ${seen[$word]:-0} + 1 )); done
text=; for word in "${!seen[@]}"; do text+="$word=${seen[$word]} "; done
read -ra parts <<< "$text"; echo "${#parts[@]} ${text:0:40}"
for i in $(seq 1 200); do parts=("${parts[@]:1}" "$i"); done; echo "${parts[-1]}"
"#;

const PYTHON: &str = r#"import json, re, threading
def work(seed):
    rows = [{"id": i, "name": "n%d" % (i * seed % 997), "tags": ["t%d" % (i % k) for k in (3, 5, 7)]} for i in range(6000)]
    for _ in range(3):
        rows = json.loads(json.dumps(rows))
        names = {}
        for row in rows:
            names.setdefault(row["name"], []).append(row["id"])
        text = " ".join(names)
        assert len(re.findall(r"n\d+", text)) == len(names)
    total[seed] = sum(len(v) for v in names.values())
total = {}
threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 9)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(sorted(total.items()))
"#;

const PERL: &str = r#"my (%seen, @all);
for my $i (1 .. 400000) { my $word = "w" . ($i * 7919 % 50021); $seen{$word}++; push @all, $word if $i % 3 == 0; }
my $text = join " ", map { "$_=$seen{$_}" } sort keys %seen;
my @parts = sort { length $a <=> length $b || $a cmp $b } split / /, $text;
my @copies = map { [split /=/] } @parts;
print scalar(@copies), " ", $parts[0], " ", scalar(@all), "\n";
"#;

const SQL: &str = r#"create table a(id integer primary key, name text, size integer);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 200000)
    insert into a select i, 'name' || (i * 7919 % 50021), i * 31 % 1009 from n;
create index names on a(name);
create table b as select name, count(*) as many, sum(size) as total from a group by name;
select count(*), sum(many), max(total) from b;
select a.name, b.total from a join b on a.name = b.name order by b.total desc, a.id limit 10;
update a set name = name || '-' || size where size % 3 = 0;
delete from a where size % 7 = 0;
select count(*), sum(length(name)) from a;
"#;

/// A file of many functions.
fn large_c() -> String {
    let function = |n: usize| {
        format!(
            "static int f{n}(int a, int b) {{ int s = {n}, t[{}]; for (int i = 0; i < {}; i++) t[i] = a * i ^ b; \
             for (int i = 0; i < {}; i++) {{ switch ((s ^ a) & 7) {{ case 0: s += b * i; break; case 1: s ^= t[i]; break; \
             case 2: s -= a << (i & 3); break; case 3: s = s * 31 + b; break; default: s += a - b; }} }} return s; }}\n",
            n % 13 + 3,
            n % 13 + 3,
            n % 13 + 3
        )
    };
    let functions: String = (0..900).map(function).collect();
    let calls: String = (0..900).map(|n| format!("s += f{n}(a, s);")).collect();
    format!("{functions}int all(int a) {{ int s = 0; {calls} return s; }}\n")
}

/// A file of many templates.
fn large_cpp() -> String {
    let item = |n: usize| {
        format!(
            "struct S{n} {{ std::string name; std::vector<int> sizes; std::map<std::string, std::vector<S{n}>> more; }};\n\
             int g{n}(std::vector<S{n}> all) {{ std::sort(all.begin(), all.end(), [](auto const &a, auto const &b) \
             {{ return a.name < b.name; }}); int s = 0; for (auto const &one : all) for (auto const &[key, value] : one.more) \
             s += key.size() + value.size(); return s; }}\n"
        )
    };
    let items: String = (0..25).map(item).collect();
    format!("#include <algorithm>\n#include <map>\n#include <regex>\n#include <string>\n#include <vector>\n{items}")
}

/// A repository of some hundred commits.
fn make_repository(work: &Path) {
    let folder = work.join("repository");
    fs::create_dir_all(&folder).expect("a folder");
    let git = |words: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "gc.auto=0"])
            .args(words)
            .current_dir(&folder);
        git.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    if !git(&["init", "-q"]) {
        return;
    }
    for commit in 0..300usize {
        for file in 0..4usize {
            let line = |n: usize| {
                format!(
                    "line {n} of file {file}, as of {}\n",
                    if (n + commit).is_multiple_of(17) { commit } else { n / 50 }
                )
            };
            fs::write(folder.join(format!("file{file}.txt")), (0..400).map(line).collect::<String>()).expect("a file");
        }
        git(&["add", "."]);
        git(&["commit", "-q", "-m", &format!("Change {commit}")]);
    }
}
