//! The shape of the tree, held by a search of its text: imports point down, and each door has one keeper.

use std::fs;
use std::path::{Path, PathBuf};

/// The layers of `src`, the lowest first: a file may name files of its own layer's level or below.
const LEVELS: &[&[&str]] = &[
    &["sync.rs", "choice.rs", "config", "finding.rs", "image.rs"],
    &["os/", "fatal.rs"],
    &["lock.rs"],
    &["heap/list.rs", "heap/note.rs", "heap/class.rs", "heap/side.rs", "heap/kept.rs", "twin.rs"],
    &[
        "heap/slab.rs",
        "heap/hand.rs",
        "heap/roster.rs",
        "heap/batch.rs",
        "heap/map.rs",
        "heap/depot.rs",
        "heap/hot.rs",
        "heap/cache.rs",
        "heap/cache_counts.rs",
    ],
    &["heap/bins.rs", "heap/granule.rs", "heap/run.rs"],
    &["heap/", "stats.rs"],
    &["watch.rs"],
    &["global.rs", "thread", "object/", "debug/", "shared/", "symmetric/", "hooks/"],
    &["c_abi/", "c_shared/", "c_symmetric/"],
    &["lib.rs", "models.rs"],
    &["bin/"],
];

/// Doors and their keepers: only files that begin with one of the names may contain the text.
const DOORS: &[(&str, &[&str])] = &[
    ("sync::atomic", &["sync.rs", "twin.rs", "models.rs"]),
    ("libc::", &["os/"]),
    ("os::say(", &["fatal.rs", "lock.rs", "debug/voice.rs"]),
    ("abort(", &["os/", "fatal.rs", "lock.rs", "debug/report.rs"]),
    ("spin::", &["lock.rs"]),
    ("thread_local!", &["thread/", "lock.rs", "object/", "shared/", "hooks/", "twin.rs"]),
    (
        "static ",
        &[
            "global.rs",
            "thread",
            "object/",
            "os/",
            "twin.rs",
            "lock.rs",
            "lib.rs",
            "c_abi/",
            "c_shared/",
            "c_symmetric/",
            "debug/",
            "shared/",
            "symmetric/",
            "hooks/",
            "sync.rs",
        ],
    ),
    (
        "feature = ",
        &[
            "lib.rs",
            "global.rs",
            "thread.rs",
            "c_abi/",
            "config.rs",
            "thread/",
            "object/mod.rs",
            "shared/",
            "debug/",
            "os/thread_end.rs",
            "heap/map.rs",
            "fatal.rs",
            "os/mod.rs",
            "os/unix.rs",
            "os/agent",
            "sync.rs",
            "lock.rs",
            "twin.rs",
            "heap/mod.rs",
            "heap/class.rs",
            "heap/account.rs",
            "heap/cache.rs",
            "heap/kept.rs",
            "heap/roster.rs",
            "heap/slab.rs",
            // What shared heaps alone have.
            "heap/note.rs",
            "heap/hand.rs",
            "heap/cache_counts.rs",
            "heap/traffic.rs",
            "heap/batch.rs",
            "heap/depot.rs",
            "heap/run.rs",
            // What the command-line tool asks for, which reads a heap's file from outside.
            "heap/list.rs",
            "heap/bins.rs",
            "shared/mod.rs",
            "shared/pages.rs",
            "symmetric/mod.rs",
            "symmetric/front.rs",
            "symmetric/settings.rs",
            "os/heap_file.rs",
            "os/program.rs",
            "os/release.rs",
            "hooks/",
            "bin/",
            // What tests that damage records ask for.
            "heap/audit.rs",
            "heap/map_audit.rs",
            "heap/slab_audit.rs",
            "heap/depot_audit.rs",
        ],
    ),
    ("panic!(", &[]),
    ("unwrap()", &[]),
    ("expect(", &["models.rs"]),
    (concat!("todo", "!("), &[]),
];

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src can be listed") {
        let path = entry.expect("src can be listed").path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// Every source file by its name under `src`, with its lines of code: no comments, no test modules.
fn sources() -> Vec<(String, Vec<String>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    files(&root, &mut found);
    let name = |path: &Path| path.strip_prefix(&root).expect("below src").to_string_lossy().into_owned();
    found.retain(|path| !name(path).contains("_tests"));
    found.iter().map(|path| (name(path), code(&fs::read_to_string(path).expect("a text")))).collect()
}

fn code(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default().replace("'static", ""));
    lines.filter(|line| !line.trim().is_empty()).collect()
}

fn level(name: &str) -> usize {
    LEVELS.iter().position(|files| files.iter().any(|file| name.starts_with(file))).expect("every file has its level")
}

/// The files that a line of imports names: `crate::a::b`, `super::b`.
fn imported(name: &str, line: &str) -> Vec<String> {
    let line = line.trim();
    let path = line.strip_prefix("use ").or_else(|| line.strip_prefix("pub use ")).unwrap_or_default();
    let folder = name.split_once('/').map_or("", |(folder, _)| folder);
    let inner = |rest: &str| rest.split([':', ';', ' ', '{', ',']).next().unwrap_or_default().to_string();
    if let Some(rest) = path.strip_prefix("crate::") {
        let first = inner(rest);
        return if ["heap", "os", "c_abi", "debug"].contains(&first.as_str()) {
            vec![format!("{first}/")]
        } else {
            vec![format!("{first}.rs")]
        };
    }
    match path.strip_prefix("super::") {
        Some(rest) if !rest.starts_with('{') && rest.contains("::") => vec![format!("{folder}/{}.rs", inner(rest))],
        _ => Vec::new(),
    }
}

#[test]
fn imports_point_down() {
    let sources = sources();
    let exists = |file: &str| sources.iter().any(|(name, _)| name == file);
    for (name, lines) in &sources {
        for import in lines.iter().flat_map(|line| imported(name, line)).filter(|file| exists(file)) {
            assert!(level(&import) <= level(name), "{name} imports {import}, which lies above it");
        }
    }
}

#[test]
fn each_door_has_its_keeper() {
    for (name, lines) in sources() {
        for (door, keepers) in DOORS {
            let may = keepers.iter().any(|keeper| name.starts_with(keeper));
            let user = lines.iter().find(|line| line.contains(door));
            assert!(
                may || user.is_none(),
                "{name} goes through the door `{door}`: {}",
                user.expect("there is one").trim()
            );
        }
    }
}

#[test]
fn only_lists_read_the_bytes_of_free_blocks() {
    for (name, lines) in sources().iter().filter(|(name, _)| name.starts_with("heap/") && name != "heap/list.rs") {
        let user = lines.iter().find(|line| line.contains("Link"));
        assert!(user.is_none(), "{name} knows how free blocks are linked");
    }
}

#[test]
fn every_row_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = Vec::new();
    files(&root.join("tests"), &mut tests);
    let text: String = tests.iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
    let table = fs::read_to_string(root.join("docs/rows.md")).expect("docs/rows.md is there");
    let rows = (1..=16).map(|row| format!("g{row}")).chain((1..=12).map(|row| format!("d{row}")));
    let rows = rows.chain((1..=13).map(|row| format!("s{row}"))).chain((1..=4).map(|row| format!("c{row}")));
    let rows = rows.chain((1..=9).map(|row| format!("y{row}"))).chain((1..=7).map(|row| format!("h{row}")));
    for row in rows {
        assert!(text.contains(&format!("fn {row}_")), "no test is named {row}_…");
        assert!(table.contains(&format!("| {} |", row.to_uppercase())), "docs/rows.md has no row for {row}");
    }
}

/// Calls of the system's that take memory away, and the functions that make them for memory that nobody was given or that tell elsewhere.
const TAKES_AWAY: &[&str] = &[
    "libc::munmap",
    "MADV_DONTNEED",
    "MADV_REMOVE",
    "MADV_GUARD_INSTALL)",
    "libc::mremap",
    "MAP_FIXED;",
    "PUNCH_HOLE",
];
const TELLS_ELSEWHERE: &[&str] = &["unmap", "have_own", "punch"];

#[test]
fn h4_whoever_takes_memory_away_says_so_first() {
    let mut told = 0;
    for (name, lines) in sources().iter().filter(|(name, _)| name.starts_with("os/")) {
        let mut function = (String::new(), false);
        for line in lines {
            if let Some((_, rest)) = line.split_once("fn ") {
                function = (rest.split(['(', '<']).next().unwrap_or_default().to_string(), false);
            }
            function.1 |= line.contains("going(");
            if TAKES_AWAY.iter().any(|call| line.contains(call)) {
                let is_exempt = TELLS_ELSEWHERE.contains(&function.0.as_str());
                assert!(is_exempt || function.1, "{name}: `{}` takes memory away without a word: {line}", function.0);
                told += usize::from(!is_exempt);
            }
        }
    }
    assert!(told >= 6, "the search finds what there is: {told}");
}

/// The words of a text that begin with `prefix`, each once.
fn c_names<'a>(text: &'a str, prefix: &str) -> std::collections::BTreeSet<&'a str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with(prefix)).collect()
}

#[test]
fn the_header_of_symmetric_heaps_declares_what_the_library_has() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = |name: &str| fs::read_to_string(root.join(name)).expect(name);
    let (source, header) = (code(&text("src/c_symmetric/mod.rs")).join("\n"), text("include/shmem.h"));
    for prefix in ["shmem_", "stratalloc_shmem_"] {
        let (ours, declared) = (c_names(&source, prefix), c_names(&header, prefix));
        assert!(!ours.is_empty() && ours.is_subset(&declared), "{:?} are not declared", &ours - &declared);
    }
}

#[test]
fn the_headers_declare_every_c_name() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = |name: &str| fs::read_to_string(root.join(name)).expect(name);
    for (source, header, prefix, remedy) in [
        ("src/c_abi/mod.rs", "include/stratalloc.h", "stratalloc_", "make the header anew: cbindgen.toml says how"),
        (
            "src/c_shared/mod.rs",
            "include/stratalloc_shm.h",
            "shm_",
            "declare it in the header, too, which is written by hand",
        ),
    ] {
        let (source, header) = (code(&text(source)).join("\n"), text(header).replace("stratalloc_shm", ""));
        assert_eq!(c_names(&source, prefix), c_names(&header, prefix), "{remedy}");
    }
}
