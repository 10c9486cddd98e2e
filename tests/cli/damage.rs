//! Files that are damaged, cut off, or no heaps at all.

use super::shm_folder::Folder;
use super::{READERS, TOOL, fill, free, json_of, layout, number, tool, well};
use allocator_api2::alloc::Allocator;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use stratalloc::{SharedConfig, SharedHeap};

/// A small heap that nobody is in, and its file as it was.
pub(super) struct Victim {
    pub(super) path: PathBuf,
    bytes: Vec<u8>,
    file: File,
    at: u64,
    _folder: Folder,
}

impl Victim {
    pub(super) fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        let path = folder.file("heap");
        let heap = SharedHeap::open(&path, SharedConfig::new().max_size(32 << 20), |_| {}).expect("a heap");
        let mut kept = fill(&heap);
        // So that there are slabs of each kind, and free runs.
        for size in [8, 16, 32, 64, 128, 256, 512, 1024, 2048, 20_000] {
            let blocks = (0..(200 << 10) / size).map(|_| heap.allocate(layout(size)).expect("memory").cast());
            kept.extend(blocks.map(|block| (block, layout(size))));
        }
        free(&heap, kept.iter().skip(1).step_by(3).copied().collect());
        heap.set_global(kept[0].0.as_ptr());
        let at = heap.span().at as u64;
        drop(heap);
        let file = File::options().read(true).write(true).open(&path).expect("the file");
        Self { bytes: fs::read(&path).expect("the file"), path, file, at, _folder: folder }
    }

    fn word(&self, offset: usize) -> u64 {
        u64::from_ne_bytes(self.bytes[offset..offset + 8].try_into().expect("eight bytes"))
    }

    /// Does something while a word of the file is another.
    fn with<R>(&self, offset: usize, word: u64, look: impl FnOnce() -> R) -> R {
        self.file.write_all_at(&word.to_ne_bytes(), offset as u64).expect("written");
        let result = look();
        self.file.write_all_at(&self.bytes[offset..offset + 8], offset as u64).expect("written");
        result
    }

    /// A copy of the file, with some words changed.
    fn copy(&self, name: &str, words: &[(usize, u64)]) -> PathBuf {
        let path = self.path.with_file_name(name);
        let file = File::create(&path).expect("a file");
        file.set_len(self.bytes.len() as u64).expect("its length");
        for (number, page) in self.bytes.chunks(4096).enumerate().filter(|(_, page)| page.iter().any(|byte| *byte != 0))
        {
            file.write_all_at(page, 4096 * number as u64).expect("written");
        }
        for (offset, word) in words {
            file.write_all_at(&word.to_ne_bytes(), *offset as u64).expect("written");
        }
        path
    }

    /// The offsets of the words of slabs' records, as far as a reader can tell: the whole runs that records are cut from.
    fn records(&self) -> Vec<usize> {
        let text = well(tool(&["dump"], &self.path));
        let begin = |line: &str| u64::from_str_radix(line.split_whitespace().next()?.trim_start_matches("0x"), 16).ok();
        let runs = text.lines().filter(|line| line.ends_with("records")).filter_map(begin);
        runs.flat_map(|at| (0..8192).map(move |word| (at - self.at) as usize + 8 * word)).collect()
    }

    /// The offsets of the page map's entries of slabs, runs and free runs.
    fn entries(&self) -> Vec<usize> {
        let records = self.records();
        let is_record = |word: u64| {
            let offset = ((word & 0x0000_ffff_ffff_fff8).wrapping_sub(self.at)) as usize;
            word & 7 == 4 && offset.is_multiple_of(64) && records.binary_search(&offset).is_ok()
        };
        let all = (0..self.bytes.len()).step_by(8);
        let slabs: Vec<usize> = all.filter(|offset| is_record(self.word(*offset))).collect();
        let (first, last) = (slabs[0], slabs[slabs.len() - 1]);
        (first.saturating_sub(512)..last + 4096).step_by(8).filter(|offset| self.word(*offset) != 0).collect()
    }
}

/// Runs `work` for each item, on two threads.
fn each_on_two_threads<T: Sync>(items: &[T], work: impl Fn(usize, &T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (next, work) = (&next, &work);
            scope.spawn(move || {
                while let Some(item) = items.get(next.fetch_add(1, Relaxed)) {
                    work(thread, item);
                }
            });
        }
    });
}

#[test]
fn s11_a_changed_header_is_refused_and_says_why() {
    let victim = Victim::new("s11-header");
    for word in 0..8 {
        for bit in 0..64 {
            let said = victim.with(8 * word, victim.word(8 * word) ^ 1 << bit, || {
                let command = READERS[(word + bit) % READERS.len()];
                tool(if bit % 8 == 7 { &["repair"] } else { command }, &victim.path)
            });
            assert!(said.code == 2 && said.err.contains("heap"), "{word} {bit}: {said:?}");
        }
    }
    assert_eq!(fs::read(&victim.path).expect("the file"), victim.bytes);
}

#[test]
fn s11_files_of_another_length_are_refused() {
    let victim = Victim::new("s11-length");
    let all = victim.bytes.len() as u64;
    let lengths = [0, 1, 7, 8, 9, 63, 64, 65, 71, 72, 73, 100, 4095, 4096, 4097, 1 << 16, 1 << 20, all / 2];
    for length in lengths.into_iter().chain([all - 4096, all - 1, all + 1, all + 4096, 2 * all, 1 << 40]) {
        victim.file.set_len(length).expect("cut");
        for command in READERS.iter().chain(&[&["repair"][..]]) {
            let said = tool(command, &victim.path);
            let is_told = said.err.contains("was made with") || said.err.contains("is no heap");
            assert!(said.code == 2 && is_told, "{length}: {said:?}");
        }
        victim.file.set_len(all).expect("as it was");
        victim.file.write_all_at(&victim.bytes, 0).expect("written");
    }
    well(tool(&["check"], &victim.path));
}

#[test]
fn s11_a_file_that_is_cut_off_while_it_is_looked_at_is_an_error() {
    let victim = Victim::new("s11-cut");
    let path = victim.copy("cut", &[]);
    let mut command = Command::new(TOOL);
    command.args(["top", "-i", "0.02"]).arg(&path).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the tool");
    let mut out = BufReader::new(child.stdout.take().expect("its output")).lines();
    assert!(out.any(|line| line.expect("a line").contains("CLASS")));
    File::options().write(true).open(&path).expect("the file").set_len(8192).expect("cut");
    out.for_each(drop);
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("was made with 33554432"), "{:?} {said}", output.status);
    // At whatever moment.
    for round in 0..40 {
        let path = victim.copy("cut", &[]);
        let command = READERS[round % 4];
        std::thread::scope(|scope| {
            let tool = scope.spawn(|| tool(command, &path));
            std::thread::sleep(Duration::from_micros(200 * round as u64));
            File::options().write(true).open(&path).expect("the file").set_len(4096).expect("cut");
            tool.join().expect("it ends well");
        });
    }
}

/// Values that a word may come to have: by turns.
fn wrong_values(old: u64, at: u64, turn: u64) -> u64 {
    let random = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ old.rotate_left(17);
    match turn % 9 {
        0 => u64::MAX,
        1 => old ^ 1 << (random % 64),
        2 => 0,
        3 => at + random % (32 << 20),
        4 => (at + random % (32 << 20)) & !63,
        5 => random,
        6 => old.wrapping_add(1),
        7 => 1 << (random % 64),
        _ => ((random & 0xffff) << 3) | (1 + random % 6),
    }
}

/// Lets the tool look at files in which one word is another; what it says must be something, and not take long.
fn with_each_word(victim: &Victim, offsets: &[usize]) -> usize {
    let found = AtomicUsize::new(0);
    let items: Vec<(u64, usize)> = (0..).zip(offsets.iter().copied()).collect();
    let copies = [victim.copy("one", &[]), victim.copy("two", &[])];
    let files = copies.each_ref().map(|path| File::options().write(true).open(path).expect("the file"));
    each_on_two_threads(&items, |thread, (turn, offset)| {
        let value = wrong_values(victim.word(*offset), victim.at, *turn);
        files[thread].write_all_at(&value.to_ne_bytes(), *offset as u64).expect("written");
        let command: &[&str] = if turn % 3 == 0 { READERS[*turn as usize / 3 % READERS.len()] } else { &["check"] };
        let said = tool(command, &copies[thread]);
        found.fetch_add(usize::from(said.code != 0), Relaxed);
        files[thread].write_all_at(&victim.bytes[*offset..*offset + 8], *offset as u64).expect("written");
    });
    found.into_inner()
}

#[test]
fn s11_random_words_in_the_first_pages_are_survived() {
    let victim = Victim::new("s11-first");
    // The header has a test of its own.
    let offsets: Vec<usize> = (72..4096).step_by(8).chain((4096..200_000).step_by(8 * 41)).collect();
    let found = with_each_word(&victim, &offsets);
    println!("{found} of {} were found", offsets.len());
}

#[test]
fn s11_random_words_in_records_and_entries_are_found() {
    let victim = Victim::new("s11-records");
    let entries = victim.entries();
    let records: Vec<usize> = victim.records().into_iter().filter(|offset| victim.word(*offset) != 0).collect();
    let found = with_each_word(&victim, &entries);
    assert!(found * 2 > entries.len(), "{found} of {}", entries.len());
    println!("{found} of {} entries, of {} words of records", entries.len(), records.len());
    let some: Vec<usize> = records.into_iter().step_by(3).collect();
    let found = with_each_word(&victim, &some);
    println!("{found} of {} words of records", some.len());
    assert!(found * 3 > some.len(), "{found} of {}", some.len());
}

#[test]
fn s11_damage_is_repaired_or_refused() {
    let victim = Victim::new("s11-repair");
    let allocated = number(&json_of(&victim.path), &["stats", "allocated"]);
    let (records, entries) = (victim.records(), victim.entries());
    let words = (72..110_000).step_by(8 * 101).chain(entries.iter().copied().step_by(11));
    let offsets: Vec<usize> = words.chain(records.into_iter().filter(|at| victim.word(*at) != 0).step_by(17)).collect();
    let items: Vec<(u64, usize)> = (0..).zip(offsets).collect();
    let [mended, refused] = [const { AtomicUsize::new(0) }; 2];
    each_on_two_threads(&items, |thread, (turn, offset)| {
        let value = wrong_values(victim.word(*offset), victim.at, *turn);
        let path = victim.copy(&format!("repaired-{thread}"), &[(*offset, value)]);
        let said = tool(&["repair"], &path);
        if said.code == 0 {
            mended.fetch_add(usize::from(said.out.contains("mended, and sound")), Relaxed);
            well(tool(&["check"], &path));
            let now = number(&json_of(&path), &["stats", "allocated"]);
            // A bit in a bitmap is a block more or less.
            assert!(now.abs_diff(allocated) <= 64 << 10 || said.out.contains("nothing"), "{offset:#x}: {said:?}");
        } else {
            refused.fetch_add(1, Relaxed);
        }
    });
    println!("{} of {} mended, {} refused", mended.into_inner(), items.len(), refused.into_inner());
}

#[test]
fn s11_random_files_are_refused() {
    let folder = Folder::new("s11-random");
    let path = folder.file("random");
    let mut seed = 7_u64;
    for round in 0..30 {
        let mut bytes = vec![0; 16 << 10];
        for word in bytes.chunks_exact_mut(8) {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            word.copy_from_slice(&(seed ^ seed >> 29).to_ne_bytes());
        }
        let begin: &[u8] = [b"strataSH", b"strataSb", b"\0\0\0\0\0\0\0\0"][round % 3];
        bytes[..8].copy_from_slice(begin);
        fs::write(&path, &bytes).expect("a file");
        for command in READERS.iter().chain(&[&["repair"][..]]) {
            assert_eq!(tool(command, &path).code, 2);
        }
        assert_eq!(fs::read(&path).expect("the file"), bytes);
    }
}

/// The bits of pages have copies there: one that is another than it was set is found, and mended.
#[cfg(feature = "malloc-debug")]
#[test]
fn s11_a_changed_bit_of_a_page_is_found() {
    let victim = Victim::new("s11-bits");
    let is_copied = |offset: &usize| {
        let (word, copy) = (victim.word(*offset), victim.word(offset + 8));
        word != 0 && copy == word.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    };
    let behind = victim.entries().last().copied().expect("entries").next_multiple_of(4096);
    let words: Vec<usize> = (behind..victim.bytes.len() - 8).step_by(16).filter(is_copied).collect();
    assert!(words.len() > 1);
    for (turn, offset) in words.into_iter().enumerate() {
        let path = victim.copy("bits", &[(offset, victim.word(offset) ^ 1 << (turn % 64))]);
        let said = tool(&["check"], &path);
        assert!(said.code == 1 && said.out.contains("the bits of pages are what was set"), "{offset:#x}: {said:?}");
        assert!(well(tool(&["repair"], &path)).contains("mended, and sound"));
    }
}
