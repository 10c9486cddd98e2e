//! A sound heap's file, for tests and fuzz targets that damage it: its image, and where something is in it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use stratalloc::{SharedConfig, SharedHeap};

const PAGE: usize = 4096;
/// Long enough for a heap of every ladder of classes.
pub(crate) const BYTES: usize = 32 << 20;
/// Sizes that go every way there is.
const SIZES: [usize; 6] = [8, 64, 200, 2000, 9000, 100_000];
/// Sizes that it has no records for yet.
const NEW_SIZES: [usize; 4] = [24, 100, 500, 1000];

/// A heap that is damaged, and restored.
pub(crate) struct Sound {
    path: PathBuf,
    file: File,
    image: Vec<u8>,
    /// Pages that are not zero, and words that are not, by their numbers.
    pages: Vec<usize>,
    words: Vec<usize>,
}

impl Sound {
    /// Makes a heap in which there is every kind of record: slabs of some classes, lists in depots, runs, spare records.
    pub(crate) fn make(path: &Path, config: SharedConfig) -> Self {
        let heap = SharedHeap::open(path, config.max_size(BYTES), |_| {}).expect("a heap");
        let blocks: Vec<*mut u8> = (0..600).map(|at| heap.malloc(SIZES[at % 6] + at % 7)).collect();
        for block in blocks.iter().step_by(3).chain(blocks.iter().skip(1).step_by(3)) {
            // SAFETY: live, or null.
            unsafe { heap.free(*block) };
        }
        drop(heap);
        let file = OpenOptions::new().read(true).write(true).open(path).expect("the file");
        let mut image = vec![0; BYTES];
        file.read_exact_at(&mut image, 0).expect("a heap");
        let is_used = |page: &usize| image[page * PAGE..(page + 1) * PAGE].iter().any(|byte| *byte != 0);
        let pages = (0..BYTES / PAGE).filter(is_used).collect();
        let words: Vec<usize> = (0..BYTES / 8).filter(|at| image[at * 8..at * 8 + 8] != [0; 8]).collect();
        assert!(words.len() > 1000, "there is something to damage");
        Self { path: path.to_path_buf(), file, image, pages, words }
    }

    /// One of the words that are not zero: its number, and what it is.
    pub(crate) fn word(&self, index: u64) -> (usize, u64) {
        let at = self.words[index as usize];
        (at, u64::from_ne_bytes(self.image[at * 8..at * 8 + 8].try_into().expect("eight bytes")))
    }

    /// How many of its words are not zero.
    pub(crate) fn words(&self) -> u64 {
        self.words.len() as u64
    }

    /// Writes over the word of that number.
    pub(crate) fn set(&self, word: usize, to: u64) {
        self.file.write_all_at(&to.to_ne_bytes(), word as u64 * 8).expect("written");
    }

    /// Makes the file so long.
    pub(crate) fn cut(&self, bytes: u64) {
        self.file.set_len(bytes).expect("cut");
    }

    /// Makes it as it was, the places that were free included.
    pub(crate) fn restore(&self) {
        self.cut(0);
        self.cut(BYTES as u64);
        for page in &self.pages {
            let bytes = &self.image[page * PAGE..(page + 1) * PAGE];
            self.file.write_all_at(bytes, (page * PAGE) as u64).expect("written");
        }
    }

    /// Opens it, and uses it if it is a heap; it may be refused, but only by an error.
    pub(crate) fn use_it(&self, config: SharedConfig) {
        let Ok(heap) = SharedHeap::open(&self.path, config, |_| {}) else { return };
        let mut blocks = [std::ptr::null_mut(); 600];
        for (at, block) in blocks.iter_mut().enumerate() {
            let size = if at % 8 < 4 { NEW_SIZES[at % 4] } else { SIZES[at / 8 % 6] };
            *block = heap.malloc(size);
            if !block.is_null() {
                // SAFETY: ours, and so large.
                unsafe { block.write_bytes(at as u8, size) };
            }
        }
        for block in blocks {
            // SAFETY: live, or null.
            unsafe { heap.free(block) };
        }
        let _ = (heap.check(), heap.stats());
        heap.collect();
    }
}
