//! Row S11: the command-line tool, beside processes at work, alone with a heap, after deaths, and with files that are no heaps or
//! damaged ones. The tool is a process of its own each time, and never ends by a signal.

#![expect(clippy::disallowed_macros, reason = "processes of a test tell each other where they are")]

#[path = "cli/damage.rs"]
mod damage;
#[path = "cli/deaths.rs"]
mod deaths;
#[path = "common/opened.rs"]
mod opened;
#[path = "common/own_process.rs"]
mod own_process;
#[path = "common/shm_folder.rs"]
mod shm_folder;

use allocator_api2::alloc::Allocator;
use opened::opened;
use own_process::in_own_process_with;
use own_process::in_time::output_in_time;
use serde_json::Value;
use shm_folder::Folder;
use std::alloc::Layout;
use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::ptr::NonNull;
use std::time::{Duration, Instant};
use stratalloc::view::View;
use stratalloc::{SharedConfig, SharedHeap, Stats};

const TOOL: &str = env!("CARGO_BIN_EXE_stratalloc");

/// What the tool said, and its status.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

fn tool_with(arguments: &[&OsStr]) -> Said {
    let begun = Instant::now();
    let output = output_in_time(Command::new(TOOL).args(arguments).stdin(Stdio::null()));
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let code = output.status.code();
    assert!(matches!(code, Some(0..=2)), "{:?} of {arguments:?}\n{out}{err}", output.status);
    assert!(begun.elapsed() < Duration::from_secs(60), "{arguments:?} took {:?}", begun.elapsed());
    let said = Said { code: code.unwrap_or(-1), out, err };
    assert_eq!(said.code == 2, !said.err.is_empty(), "{said:?}");
    assert!(!said.err.contains("panicked"), "{said:?}");
    said
}

/// Runs the tool with words, the last of which is a file.
fn tool(words: &[&str], file: &Path) -> Said {
    let words = words.iter().map(OsStr::new).chain([file.as_os_str()]);
    tool_with(&words.collect::<Vec<_>>())
}

#[track_caller]
fn well(said: Said) -> String {
    assert_eq!(said.code, 0, "{said:?}");
    said.out
}

const SMALL: SharedConfig = SharedConfig::new().max_size(64 << 20);

fn open(path: &Path) -> SharedHeap {
    opened(path, SMALL, |_| {})
}

/// Another process: this program again, in the calling test.
struct Other(Child, BufReader<ChildStdout>);

impl Other {
    /// Starts it, and waits until it is ready.
    fn start(name: &str, file: &Path, role: &str) -> Self {
        let mut command = Command::new(env::current_exe().expect("the program's name"));
        command.args(["--exact", name, "--nocapture", "--test-threads=1"]);
        command.env("CLI_FILE", file).env("CLI_ROLE", role).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a process");
        let mut out = BufReader::new(child.stdout.take().expect("its output"));
        let is_ready = (&mut out).lines().map_while(Result::ok).any(|line| line.ends_with("ready"));
        assert!(is_ready, "it says that it is ready");
        Self(child, out)
    }

    /// Lets it leave the heap.
    fn leave(mut self) {
        drop(self.0.stdin.take());
        let _ = self.1.read_to_end(&mut Vec::new());
        assert!(self.0.wait().expect("a status").success());
    }

    fn kill(&mut self) {
        self.0.kill().expect("it can be killed");
        self.0.wait().expect("a status");
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What this process is to do, and the file of its heap, if it is not a test's first.
fn as_other() -> Option<(PathBuf, String)> {
    Some((env::var_os("CLI_FILE")?.into(), env::var("CLI_ROLE").ok()?))
}

/// Does what `role` says.
fn play(path: &Path, role: &str) {
    let heap = SharedHeap::open(path, SMALL, |_| {}).expect("a heap");
    match role {
        "hold" => {
            let kept = fill(&heap);
            // What the cache has is told to others.
            let _ = heap.stats();
            println!("ready");
            let _ = std::io::stdin().read(&mut [0]);
            free(&heap, kept);
        }
        // Ends with its process.
        _ => std::thread::scope(|scope| {
            println!("ready");
            (0..2).for_each(|thread| {
                _ = scope.spawn({
                    let heap = &heap;
                    move || work(heap, thread)
                })
            });
        }),
    }
}

type Block = (NonNull<u8>, Layout);

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a layout")
}

/// Blocks of a few sizes that a heap has afterwards, and as many that are free again.
fn fill(heap: &SharedHeap) -> Vec<Block> {
    let mut blocks = Vec::new();
    for (size, count) in FILLED {
        let both: Vec<Block> =
            (0..2 * count).map(|_| (heap.allocate(layout(size)).expect("memory").cast(), layout(size))).collect();
        let (kept, freed) = both.split_at(count);
        free(heap, freed.to_vec());
        blocks.extend_from_slice(kept);
    }
    blocks
}

/// What `fill` leaves: sizes, and how many blocks of each.
const FILLED: [(usize, usize); 5] = [(64, 1000), (200, 300), (2000, 40), (5000, 20), (100_000, 3)];

/// Bytes of these, as granted: of all, and of those that are no longer than 16 pages.
fn granted(stats: &Stats) -> (usize, usize) {
    let of = |size| stats.class_of(layout(size)).map_or(usize::next_multiple_of(size, 4096), |class| class.size);
    let sum = |most| FILLED.iter().filter(|(size, _)| *size <= most).map(|(size, count)| of(*size) * count).sum();
    (sum(usize::MAX), sum(16 * 4096))
}

fn free(heap: &SharedHeap, blocks: Vec<Block>) {
    // SAFETY: allocated for the layout, and nobody else's.
    blocks.into_iter().for_each(|(block, layout)| unsafe { heap.deallocate(block, layout) });
}

/// Goes every way through a heap, for ever.
fn work(heap: &SharedHeap, thread: u64) {
    let mut seed = thread * 7919 + u64::from(std::process::id());
    let mut next = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    let mut mine: Vec<Block> = Vec::new();
    loop {
        let size = [8, 16, 64, 100, 256, 700, 2000, 4096, 9000, 70_000, 300_000][next(11)];
        for _ in 0..next(2000).min((1 << 20) / size) {
            mine.extend(heap.allocate(layout(size)).map(|block| (block.cast(), layout(size))));
        }
        for _ in 0..next(2500).min(mine.len()) {
            let block = mine.swap_remove(next(mine.len()));
            free(heap, vec![block]);
        }
        if next(200) == 0 {
            heap.collect();
        }
        if next(500) == 0 {
            free(heap, std::mem::take(&mut mine));
        }
    }
}

/// The file's contents and its room on the disk.
fn state_of(path: &Path) -> (u64, u64) {
    let bytes = fs::read(path).expect("the file");
    let words = bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().expect("eight bytes")));
    let sum = words.fold(0_u64, |sum, word| (sum.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (sum, fs::metadata(path).expect("the file").blocks())
}

fn json_of(path: &Path) -> Value {
    serde_json::from_str(&well(tool(&["info", "--json"], path))).expect("JSON")
}

fn number(value: &Value, names: &[&str]) -> u64 {
    let found = names.iter().fold(value, |value, name| &value[name]);
    found.as_u64().unwrap_or_else(|| panic!("{names:?} is no number: {found}"))
}

/// Whether what the tool says of layers is what the heap says of itself.
fn agrees(json: &Value, stats: &Stats) {
    let layer = |name: &str| number(json, &["layers", name, "bytes"]);
    let live = layer("live_blocks") + layer("live_runs");
    assert_eq!(live, stats.allocated as u64);
    assert_eq!(number(json, &["stats", "allocated"]), stats.allocated as u64);
    assert_eq!(number(json, &["stats", "mapped"]), stats.mapped as u64);
    let cached: u64 = stats.classes.iter().map(|class| class.cached * class.size as u64).sum();
    let depot: u64 = stats.classes.iter().map(|class| class.in_depot * class.size as u64).sum();
    assert_eq!((layer("cached_blocks"), layer("depot_blocks")), (cached, depot));
    let slabs: u64 = stats.classes.iter().map(|class| class.slabs).sum();
    assert_eq!(number(json, &["layers", "slabs", "count"]), slabs);
    let pages = layer("slabs") + layer("runs") + layer("record_runs") + layer("runs_on_their_way") + layer("free_runs");
    assert_eq!(pages, stats.mapped as u64);
    assert_eq!(number(json, &["used"]), pages + layer("page_map") + layer("head"));
}

/// What `dump` lists: kinds with their pages, and blocks outside by class.
fn dumped(path: &Path) -> (BTreeMap<String, u64>, BTreeMap<u64, u64>) {
    let (mut pages, mut out) = (BTreeMap::new(), BTreeMap::new());
    let mut end = 0;
    for line in well(tool(&["dump"], path)).lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = u64::from_str_radix(words[0].trim_start_matches("0x"), 16).expect("an address");
        let count: u64 = words[1].parse().expect("pages");
        assert!(end == 0 || at == end, "{line}");
        end = at + count * 4096;
        *pages.entry(words[2].to_string()).or_default() += count;
        if words[2] == "slab" {
            *out.entry(words[3].parse().expect("a class")).or_default() += words[4].parse::<u64>().expect("blocks");
        }
    }
    (pages, out)
}

#[test]
fn s11_commands_beside_two_processes_tell_what_they_have() {
    if let Some((path, role)) = as_other() {
        return play(&path, &role);
    }
    let folder = Folder::new("s11-two");
    let path = folder.file("heap");
    let heap = open(&path);
    let kept = fill(&heap);
    let other = Other::start("s11_commands_beside_two_processes_tell_what_they_have", &path, "hold");
    let stats = heap.stats();
    // With guards around them blocks are longer.
    let (is_bare, (all, short)) = (!cfg!(feature = "malloc-debug"), granted(&stats));
    assert!((stats.allocated == 2 * all || !is_bare) && stats.threads == 2, "{stats:?}");
    assert_eq!(View::open(&path).expect("a heap").stats(), stats);
    let before = state_of(&path);

    let json = json_of(&path);
    agrees(&json, &stats);
    assert_eq!(number(&json, &["address"]), heap.span().at as u64);
    let pids: Vec<u64> = vec![u64::from(std::process::id()), u64::from(other.0.id())];
    let processes = json["processes"].as_array().expect("processes");
    assert_eq!(processes.iter().map(|process| number(process, &["pid"])).collect::<Vec<_>>(), pids);
    let net = |process: &Value| number(process, &["allocated_bytes"]) - number(process, &["freed_bytes"]);
    // Runs of more than 16 pages are nobody's.
    let is_short = |process: &Value| net(process) == short as u64 || !is_bare;
    assert!(processes.iter().all(|process| is_short(process) && process["is_alive"] == true));

    let text = well(tool(&["info", "--classes"], &path));
    let words = [&format!("{:#x}", heap.span().at), "robust mutexes", "alive", "layers", "root       none"];
    words.into_iter().for_each(|word| assert!(text.contains(word), "{text}"));
    assert!(text.contains(&format!("\n{stats}\n")), "{text}");

    let (pages, out) = dumped(&path);
    assert_eq!(pages.values().sum::<u64>() * 4096, stats.mapped as u64);
    let class = stats.class_of(layout(64)).expect("a class");
    assert_eq!(out.get(&64).copied().unwrap_or(0), class.allocs - class.frees + class.cached + class.in_depot);

    let text = well(tool(&["check"], &path));
    assert!(text.contains("sound") && !text.contains("not judged"), "{text}");
    let text = well(tool(&["top", "-n", "2", "--interval", "0.05"], &path));
    assert!(!text.contains('\x1b') && text.matches("2 processes, 2 threads").count() == 2, "{text}");
    assert!(pids.iter().all(|pid| text.contains(&pid.to_string())), "{text}");
    is_picture(&well(tool(&["map", "--output", "-"], &path)));

    let refused = tool(&["repair"], &path);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(pids.iter().all(|pid| refused.err.contains(&pid.to_string())), "{refused:?}");
    assert_eq!(state_of(&path), before, "nothing was written, and no page taken");
    other.leave();
    free(&heap, kept);
    assert_eq!(View::open(&path).expect("a heap").stats().allocated, 0);
}

fn is_picture(text: &str) {
    assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n") && text.len() < 2 << 20, "{} bytes", text.len());
    ["slabs, empty to full", "runs in use", "a cell is "].into_iter().for_each(|word| assert!(text.contains(word)));
    assert_eq!(text.matches("<rect").count(), text.matches("</rect>").count() + 1);
}

#[test]
fn s11_a_heap_that_nobody_is_in() {
    let folder = Folder::new("s11-idle");
    let path = folder.file("heap");
    let heap = open(&path);
    let root = fill(&heap)[0].0.as_ptr();
    heap.set_global(root);
    let stats = heap.stats();
    drop(heap);
    let before = state_of(&path);
    let json = json_of(&path);
    assert_eq!(number(&json, &["stats", "allocated"]), stats.allocated as u64);
    assert_eq!(number(&json, &["layers", "cached_blocks", "count"]), 0);
    assert_eq!((json["processes"].as_array().map(Vec::len), number(&json, &["root"])), (Some(0), root as u64));
    assert!(well(tool(&["info"], &path)).contains("processes: none"));
    assert!(well(tool(&["check"], &path)).contains("sound"));
    assert!(well(tool(&["repair"], &path)).contains("nothing is to be mended"));
    assert!(well(tool(&["top", "-n1", "-i0.01"], &path)).contains("0 processes, 0 threads"));
    assert_eq!(state_of(&path), before, "nothing was written");

    // The folder, with what is no heap in it.
    fs::write(folder.file("text"), "something else").expect("a file");
    fs::write(folder.file("short"), &fs::read(&path).expect("the file")[..4096]).expect("a file");
    fs::write(folder.file("unborn"), [&b"strataSb"[..], &[0; 4096]].concat()).expect("a file");
    let text = well(tool(&["list"], &folder.0));
    let line = text.lines().find(|line| line.contains("/heap ")).expect("the heap");
    assert!(line.contains("64.0 MiB") && line.contains("robust mutexes") && line.ends_with("0     0"), "{text}");
    assert!(text.contains("/short: the file has 4096 bytes, and was made with 67108864"), "{text}");
    assert!(text.contains("/unborn: the file is to be a heap") && !text.contains("/text"), "{text}");
}

/// In a process of its own: so large a heap may lie where another test's is to be opened anew. (So may the one below.)
#[test]
fn s11_a_huge_heap_that_is_hardly_used() {
    in_own_process_with(&[], huge_heap).well();
}

fn huge_heap() {
    let folder = Folder::new("s11-huge");
    let path = folder.file("heap");
    let heap = SharedHeap::open(&path, SharedConfig::new(), |_| {}).expect("a heap");
    // One run of 40 GiB of which nothing is touched, and some blocks behind it. Without room on the disk for that: only blocks.
    let run = heap.memalign(8, 8 << 20);
    let kept = fill(&heap);
    let begun = Instant::now();
    agrees(&json_of(&path), &heap.stats());
    let picture = well(tool(&["map", "-o", "-"], &path));
    is_picture(&picture);
    assert!(picture.contains("64.0 GiB"));
    well(tool(&["check"], &path));
    assert!(begun.elapsed() < Duration::from_secs(100));
    free(&heap, kept);
    // SAFETY: allocated above.
    unsafe { heap.free(run) };
}

/// Commands that only read.
const READERS: [&[&str]; 6] =
    [&["check"], &["info"], &["dump"], &["map", "-o", "-"], &["top", "-n", "1", "-i", "0.01"], &["info", "--json"]];

#[test]
fn s11_what_is_no_heap_is_refused_with_a_reason() {
    let folder = Folder::new("s11-no-heap");
    let fifo = folder.file("fifo");
    let name = std::ffi::CString::new(fifo.as_os_str().as_encoded_bytes()).expect("a path");
    // SAFETY: the path ends with a zero.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let link = folder.file("link");
    std::os::unix::fs::symlink("/dev/zero", &link).expect("a link");
    let (empty, text) = (folder.file("empty"), folder.file("a\nname"));
    fs::write(&empty, "").expect("a file");
    fs::write(&text, "something else, of more than a few bytes").expect("a file");
    let nowhere = PathBuf::from("/nowhere/at/all");
    let paths =
        [fifo, link, empty, text, nowhere, PathBuf::from("/dev/null"), PathBuf::from("/proc/self/mem"), "/".into()];
    for path in &paths {
        for command in READERS.iter().chain(&[&["repair"][..]]) {
            let said = tool(command, path);
            assert!(
                said.code == 2 && said.err.starts_with("stratalloc: /") && said.err.lines().count() == 1,
                "{said:?}"
            );
        }
    }
    for wrong in
        [&[][..], &["info"], &["nothing", "/x"], &["top", "-i", "0", "/x"], &["top", "-n", "x", "/x"], &["map", "/x"]]
    {
        let words: Vec<&OsStr> = wrong.iter().map(OsStr::new).collect();
        assert_eq!(tool_with(&words).code, 2, "{wrong:?}");
    }
    assert_eq!(tool(&["list"], Path::new("/nowhere/at/all")).code, 2);
    assert!(well(tool(&["list"], &folder.0)).starts_with("no heap in "));
    for words in [&["--help"][..], &["--version"], &["top", "--help"]] {
        well(tool_with(&words.iter().map(OsStr::new).collect::<Vec<_>>()));
    }
}

#[test]
fn s11_whatever_a_file_is_called_it_is_a_name_and_nothing_else() {
    let folder = Folder::new("s11-names");
    // What turns text round, what moves a cursor in seven bits and in eight, and what no picture may have.
    let path = folder.file("a\u{202e}<b>&\"c\x1b[2J\u{9b}31m\u{fffe}\nd");
    drop(open(&path));
    let is_plain = |text: &str| {
        let odd =
            text.chars().find(|letter| letter.is_control() && *letter != '\n' || "\u{202e}\u{fffe}".contains(*letter));
        assert!(odd.is_none(), "{odd:?} in {text}");
    };
    let listed = well(tool(&["list"], &folder.0));
    is_plain(&listed);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    for command in READERS {
        is_plain(&well(tool(command, &path)));
    }
    let picture = well(tool(&["map", "-o", "-"], &path));
    assert!(picture.contains(r"&lt;b&gt;&amp;&quot;c\u{1b}[2J\u{9b}31m\u{fffe}\nd: "), "{}", &picture[..600]);
    assert_eq!(json_of(&path)["path"].as_str(), path.to_str());
    // Two files, and a picture in the place of the heap.
    let [info, map, output] = ["info", "map", "-o"].map(OsStr::new);
    for wrong in [&[info, path.as_os_str(), path.as_os_str()][..], &[map, path.as_os_str(), output, path.as_os_str()]] {
        let said = tool_with(wrong);
        assert_eq!(said.code, 2, "{said:?}");
        is_plain(&said.err);
    }
    well(tool(&["check"], &path));
}

#[test]
fn s11_the_largest_heap() {
    in_own_process_with(&[], largest_heap).well();
}

fn largest_heap() {
    let folder = Folder::new("s11-largest");
    let path = folder.file("heap");
    let heap = SharedHeap::open(&path, SharedConfig::new().max_size(16 << 40), |_| {}).expect("a heap");
    let kept = fill(&heap);
    agrees(&json_of(&path), &heap.stats());
    is_picture(&well(tool(&["map", "-o", "-"], &path)));
    well(tool(&["check"], &path));
    free(&heap, kept);
}

#[test]
fn s11_whoever_reads_may_have_enough() {
    let victim = damage::Victim::new("s11-pipe");
    for command in [&["top", "-i", "0.01"][..], &["dump"], &["info"], &["map", "-o", "-"]] {
        let mut child = Command::new(TOOL)
            .args(command)
            .arg(&victim.path)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the tool");
        let mut out = child.stdout.take().expect("its output");
        let _ = out.read(&mut [0; 16]);
        drop(out);
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.code() == Some(0) && output.stderr.is_empty(), "{output:?}");
    }
    let full = File::options().write(true).open("/dev/full").expect("a full disk");
    let output = Command::new(TOOL).arg("info").arg(&victim.path).stdout(full).output().expect("the tool");
    assert!(output.status.code() == Some(2) && !output.stderr.is_empty(), "{output:?}");
    let _ = std::io::stdout().flush();
}
