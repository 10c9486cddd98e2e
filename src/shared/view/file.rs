//! A heap's file, mapped to be read, wherever it happens to be: its words by the addresses that the heap's processes have them at.
//!
//! Others write to it meanwhile, and may cut it off. So there is no reference into the mapping: words are loaded one by one, and
//! only from pages that have room in the file. (On `/dev/shm` a page would take room by being read.)

use crate::image::Words;
use crate::os::{FileNumber, Span};
use crate::sync::Relaxed;
use crate::sync::mapped::AtomicU64;
use core::cell::RefCell;
use memmap2::{MmapOptions, MmapRaw};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Pages whose bits are in one word.
const CHUNK: usize = 64;

/// What is known of 64 pages: bits of those that were asked for, and of those that have room.
#[derive(Clone, Copy, Debug, Default)]
struct Chunk {
    asked: u64,
    there: u64,
}

/// The file.
#[derive(Debug)]
pub(super) struct FileWords {
    map: MmapRaw,
    number: FileNumber,
    span: Span,
    page: usize,
    known: RefCell<HashMap<usize, Chunk>>,
}

impl FileWords {
    /// Maps `file`, which is that of a heap at `span`, and stays open as long as this lives.
    pub(super) fn map(file: &File, span: Span, page: usize) -> io::Result<Self> {
        let map = MmapOptions::new().len(span.bytes).map_raw_read_only(file)?;
        let number = FileNumber::of(file.as_raw_fd());
        Ok(Self { map, number, span, page, known: RefCell::new(HashMap::new()) })
    }

    /// Forgets which pages have room: that changes.
    pub(super) fn forget(&self) {
        self.known.borrow_mut().clear();
    }

    /// Whether page `page` of the file has room there.
    fn is_there(&self, page: usize) -> bool {
        let (chunk, bit) = (page / CHUNK, 1 << (page % CHUNK));
        let mut known = self.known.borrow_mut();
        let known = known.entry(chunk).or_default();
        if known.asked & bit == 0 {
            let next =
                self.number.next_data((page * self.page) as u64).map_or(usize::MAX, |next| next as usize / self.page);
            // All up to the next one have none.
            let holes = next.saturating_sub(page).min(CHUNK - page % CHUNK);
            let last = if holes == 0 { 1 } else { holes };
            (0..last).for_each(|at| known.asked |= bit << at);
            known.there |= if holes == 0 { bit } else { 0 };
        }
        known.there & bit != 0
    }

    /// Where `words` words at `at` lie in the file; `None` if they do not.
    fn offset(&self, at: usize, words: usize) -> Option<usize> {
        let (offset, bytes) = (at.checked_sub(self.span.at)?, words.checked_mul(8)?);
        let is_inside = offset.checked_add(bytes)? <= self.span.bytes.min(self.map.len());
        (is_inside && offset.is_multiple_of(8)).then_some(offset)
    }
}

impl Words for FileWords {
    fn copy(&self, at: usize, into: &mut [u64]) -> bool {
        let Some(mut offset) = self.offset(at, into.len()) else {
            return false;
        };
        let mut rest = into;
        while !rest.is_empty() {
            let here = ((self.page - offset % self.page) / 8).min(rest.len());
            let (words, behind) = rest.split_at_mut(here);
            if self.is_there(offset / self.page) {
                let first = self.map.as_ptr().wrapping_add(offset).cast::<u64>().cast_mut();
                for (number, word) in words.iter_mut().enumerate() {
                    // SAFETY: aligned, and in the mapping; others write the words by whole ones, or what is read is any number.
                    // Where the file was cut off by now the system sends a signal: see `end_where_cut_off`.
                    *word = unsafe { AtomicU64::from_ptr(first.wrapping_add(number)) }.load(Relaxed);
                }
            } else {
                words.fill(0);
            }
            (rest, offset) = (behind, offset + here * 8);
        }
        true
    }

    fn next_there(&self, at: usize) -> usize {
        let end = self.span.at + self.span.bytes;
        let Some(offset) = at.checked_sub(self.span.at).filter(|offset| *offset < self.span.bytes) else {
            return end;
        };
        match self.number.next_data(offset as u64) {
            Some(next) => self.span.at.saturating_add(next as usize).min(end),
            None => end,
        }
    }
}
