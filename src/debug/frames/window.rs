//! A look into a file, a piece at a time.

use super::reader::Input;
use crate::os::File;

/// Bytes that are read at the least.
const PIECE: usize = 8192;

/// A part of a file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Part {
    pub(super) at: u64,
    pub(super) end: u64,
}

impl Part {
    /// What of it lies from its byte `at` on.
    pub(super) fn tail(self, at: u64) -> Self {
        Self { at: self.at.saturating_add(at).min(self.end), end: self.end }
    }

    pub(super) const fn len(self) -> u64 {
        self.end.saturating_sub(self.at)
    }

    pub(super) const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// A piece of a file, copied.
#[derive(Debug)]
pub(super) struct Window<'a> {
    file: &'a File,
    /// The first `len` bytes are a copy of those from `from` on.
    buffer: &'a mut [u8],
    from: u64,
    len: usize,
}

impl<'a> Window<'a> {
    pub(super) fn new(file: &'a File, buffer: &'a mut [u8]) -> Self {
        Self { file, buffer, from: 0, len: 0 }
    }

    /// How many bytes can be had at once.
    pub(super) fn width(&self) -> usize {
        self.buffer.len()
    }

    /// The `want` bytes from `at` on, or as many as there are, or fit.
    pub(super) fn bytes(&mut self, at: u64, want: usize) -> &[u8] {
        let has = self.offset(at).is_some_and(|offset| self.len - offset >= want);
        if !has {
            self.fill(at, want);
        }
        let offset = self.offset(at).unwrap_or(self.len);
        &self.buffer[offset..offset.saturating_add(want).min(self.len)]
    }

    /// The byte at `at`.
    #[inline(always)]
    fn byte(&mut self, at: u64) -> Option<u8> {
        match self.offset(at) {
            Some(offset) if offset < self.len => self.buffer.get(offset).copied(),
            _ => self.bytes(at, 1).first().copied(),
        }
    }

    /// Where in the buffer `at` is, if it is there or right behind.
    #[inline(always)]
    fn offset(&self, at: u64) -> Option<usize> {
        let offset = at.checked_sub(self.from)?;
        (offset <= self.len as u64).then_some(offset as usize)
    }

    #[cold]
    #[inline(never)]
    fn fill(&mut self, at: u64, want: usize) {
        (self.from, self.len) = (at, 0);
        let most = want.max(PIECE).min(self.buffer.len());
        while self.len < want {
            let from = at.saturating_add(self.len as u64);
            let more = self.file.read_at(from, &mut self.buffer[self.len..most]);
            self.len += more;
            if more == 0 {
                return;
            }
        }
    }

    /// The part as bytes in order.
    pub(super) fn stream(&mut self, part: Part) -> Stream<'_, 'a> {
        Stream { window: self, at: part.at, end: part.end }
    }

    /// The text at the beginning of a part, up to its zero; cut off if it is longer than `most` bytes.
    pub(super) fn text(&mut self, part: Part, most: usize) -> &[u8] {
        let most = usize::try_from(part.len()).unwrap_or(usize::MAX).min(most);
        let bytes = self.bytes(part.at, most);
        bytes.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

/// Bytes of a file in order.
#[derive(Debug)]
pub(super) struct Stream<'w, 'a> {
    window: &'w mut Window<'a>,
    at: u64,
    end: u64,
}

impl<'a> Stream<'_, 'a> {
    pub(super) const fn at(&self) -> u64 {
        self.at
    }

    /// What is left.
    pub(super) const fn rest(&self) -> Part {
        Part { at: self.at, end: self.end }
    }

    /// Another part of the same file.
    pub(super) fn again(&mut self, part: Part) -> Stream<'_, 'a> {
        self.window.stream(part)
    }

    /// Passes over so many bytes.
    pub(super) fn skip(&mut self, bytes: u64) -> Option<()> {
        self.at = self.at.checked_add(bytes).filter(|at| *at <= self.end)?;
        Some(())
    }

    /// Nothing is left behind the next `bytes` bytes.
    pub(super) fn limit(&mut self, bytes: u64) -> Option<()> {
        self.end = self.at.checked_add(bytes).filter(|end| *end <= self.end)?;
        Some(())
    }
}

impl Input for Stream<'_, '_> {
    #[inline(always)]
    fn u8(&mut self) -> Option<u8> {
        if self.at >= self.end {
            return None;
        }
        let byte = self.window.byte(self.at)?;
        self.at += 1;
        Some(byte)
    }
}
