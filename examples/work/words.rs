//! An index of the words in the Rust sources that cargo has unpacked on this machine, made by several threads.

use super::mib;
use super::report::say;
use ignore::WalkBuilder;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::{available_parallelism, scope};
use std::time::Instant;
use std::{env, panic};

/// Bytes of sources to index, at the most.
const SOURCE_BYTES: usize = 48 << 20;
/// Lines of progress.
const PROGRESS_LINES: usize = 4;

/// How often each word occurs.
type Index = HashMap<String, u64>;

/// Indexes the sources and returns the index.
pub(super) fn work() -> Index {
    let start = Instant::now();
    let (sources, bytes) = sources();
    let threads = available_parallelism().map_or(2, usize::from).clamp(2, 8);
    say(format_args!("words   {} source files, {:.1} MiB, {threads} threads", sources.len(), mib(bytes)));
    let index = index_all(&sources, threads);
    say(format_args!("words   indexed in {:.2} s", start.elapsed().as_secs_f64()));
    let words: u64 = index.values().sum();
    say(format_args!("words   {words} words, {} different ones, most often {}", index.len(), commonest(&index)));
    index
}

/// The source files to index, and their bytes: those of cargo's registry, and of this package.
fn sources() -> (Vec<PathBuf>, usize) {
    let mut walk = WalkBuilder::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    if let Some(registry) = registry() {
        walk.add(registry);
    }
    let mut bytes = 0;
    let walk = walk.standard_filters(false).sort_by_file_path(Path::cmp).build();
    let files = walk.flatten().filter(|entry| entry.path().extension().is_some_and(|extension| extension == "rs"));
    let files = files.take_while(|entry| {
        bytes += entry.metadata().map_or(0, |metadata| metadata.len() as usize);
        bytes <= SOURCE_BYTES
    });
    (files.map(ignore::DirEntry::into_path).collect(), bytes.min(SOURCE_BYTES))
}

/// Where cargo unpacks what it downloads.
fn registry() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let registry = home.or_else(|| Some(env::home_dir()?.join(".cargo")))?.join("registry/src");
    registry.is_dir().then_some(registry)
}

fn index_all(sources: &[PathBuf], threads: usize) -> Index {
    let next = AtomicUsize::new(0);
    scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| index_some(sources, &next))).collect();
        let indexes = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|it| panic::resume_unwind(it)));
        indexes.reduce(merge).unwrap_or_default()
    })
}

/// One thread's part: the files that no other thread has taken before it.
fn index_some(sources: &[PathBuf], next: &AtomicUsize) -> Index {
    let mut index = Index::new();
    let line = sources.len().div_ceil(PROGRESS_LINES);
    loop {
        let at = next.fetch_add(1, Relaxed);
        let Some(source) = sources.get(at) else {
            return index;
        };
        if at > 0 && at.is_multiple_of(line) {
            say(format_args!("words   file {at} of {}", sources.len()));
        }
        // A file that is not there any more, or no UTF-8, has no words.
        count(&fs::read_to_string(source).unwrap_or_default(), &mut index);
    }
}

fn count(text: &str, index: &mut Index) {
    let words = text.split(|letter: char| !letter.is_alphanumeric() && letter != '_').filter(|word| !word.is_empty());
    for word in words {
        *index.entry(word.to_lowercase()).or_default() += 1;
    }
}

fn merge(mut whole: Index, part: Index) -> Index {
    for (word, times) in part {
        *whole.entry(word).or_default() += times;
    }
    whole
}

/// The words that occur most often, as text.
pub(super) fn commonest(index: &Index) -> String {
    let mut words: Vec<_> = index.iter().collect();
    words.sort_by(|(a, often), (b, oftener)| oftener.cmp(often).then(a.cmp(b)));
    let first: Vec<_> = words.iter().take(4).map(|(word, times)| format!("{word} ({times})")).collect();
    if first.is_empty() { String::from("none") } else { first.join(", ") }
}
