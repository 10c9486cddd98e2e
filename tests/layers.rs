//! The shape of the tree, held by a search of its text: imports point down, and each door has one keeper.

use std::fs;
use std::path::{Path, PathBuf};

/// The layers of `src`, the lowest first: a file may name files of its own layer's level or below.
const LEVELS: &[&[&str]] = &[
    &["sync.rs", "config", "finding.rs"],
    &["os/", "fatal.rs"],
    &["lock.rs"],
    &["heap/list.rs", "heap/class.rs", "heap/side.rs", "heap/kept.rs", "twin.rs"],
    &[
        "heap/slab.rs",
        "heap/roster.rs",
        "heap/batch.rs",
        "heap/map.rs",
        "heap/depot.rs",
        "heap/hot.rs",
        "heap/cache.rs",
    ],
    &["heap/bins.rs", "heap/granule.rs", "heap/run.rs"],
    &["heap/", "stats.rs"],
    &["watch.rs"],
    &["global.rs", "thread", "object/", "debug/", "shared/"],
    &["c_abi/"],
    &["lib.rs", "models.rs"],
];

/// Doors and their keepers: only files that begin with one of the names may contain the text.
const DOORS: &[(&str, &[&str])] = &[
    ("sync::atomic", &["sync.rs", "twin.rs", "models.rs"]),
    ("libc::", &["os/"]),
    ("os::say(", &["fatal.rs", "lock.rs", "debug/voice.rs"]),
    ("abort(", &["os/", "fatal.rs", "lock.rs", "debug/report.rs"]),
    ("spin::", &["lock.rs"]),
    ("thread_local!", &["thread/", "lock.rs", "object/", "shared/", "twin.rs"]),
    (
        "static ",
        &["global.rs", "thread", "object/", "os/", "twin.rs", "lock.rs", "lib.rs", "c_abi/", "debug/", "shared/"],
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
            "debug/mod.rs",
            "debug/guarded.rs",
            "debug/hunter.rs",
            "shared/header.rs",
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
    for row in rows {
        assert!(text.contains(&format!("fn {row}_")), "no test is named {row}_…");
        assert!(table.contains(&format!("| {} |", row.to_uppercase())), "docs/rows.md has no row for {row}");
    }
}

/// The words of a text that begin with `stratalloc_`, each once.
fn c_names(text: &str) -> std::collections::BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("stratalloc_")).collect()
}

#[test]
fn the_header_declares_every_c_name() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let [source, header] = ["src/c_abi/mod.rs", "include/stratalloc.h"].map(|name| fs::read_to_string(root.join(name)));
    let (source, header) = (source.expect("the names"), header.expect("the header"));
    assert_eq!(c_names(&code(&source).join("\n")), c_names(&header), "make the header anew: cbindgen.toml says how");
}
