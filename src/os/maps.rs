//! What is mapped where: `/proc/self/maps`, a line at a time.

use super::Span;
use super::files::File;

/// A line: `begin-end access offset device file   name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping<'l> {
    pub(crate) span: Span,
    /// Where in its file it begins.
    pub(crate) offset: u64,
    /// The number of the file; 0 for none.
    pub(crate) file: u64,
    pub(crate) name: &'l [u8],
    access: &'l [u8],
    /// All of the line.
    line: &'l [u8],
}

impl<'l> Mapping<'l> {
    /// Reads a line; `None` if it is none.
    fn of(line: &'l [u8]) -> Option<Self> {
        let mut rest = line;
        let (at, end) = (number(next(&mut rest, b'-'), 16)? as usize, number(next(&mut rest, b' '), 16)? as usize);
        let access = next(&mut rest, b' ');
        let (offset, _device) = (number(next(&mut rest, b' '), 16)?, next(&mut rest, b' '));
        let file = number(next(&mut rest, b' '), 10)?;
        let span = Span { at, bytes: end.checked_sub(at)? };
        Some(Self { span, offset, file, name: rest.trim_ascii_start(), access, line })
    }

    /// Whether an address lies in it.
    pub(crate) const fn has(&self, address: usize) -> bool {
        self.span.contains(Span { at: address, bytes: 1 })
    }
}

/// What comes before the next `end`, or all that is left; behind it begins what is left then.
fn next<'l>(rest: &mut &'l [u8], end: u8) -> &'l [u8] {
    let mut parts = rest.splitn(2, |byte| *byte == end);
    let first = parts.next().unwrap_or_default();
    *rest = parts.next().unwrap_or_default();
    first
}

fn number(text: &[u8], base: u32) -> Option<u64> {
    u64::from_str_radix(core::str::from_utf8(text).ok()?, base).ok()
}

/// Shows each mapping to `show`, in the order of their addresses, while that wants more. Lines pass through `buffer`; of a
/// longer one what there is no room for is cut off.
pub(crate) fn each_mapping(buffer: &mut [u8], mut show: impl FnMut(&Mapping<'_>) -> bool) {
    let Some(file) = File::open(c"/proc/self/maps") else { return };
    // How much of the buffer is filled, and whether that goes on with a line which was shown already.
    let (mut at, mut used, mut is_shown) = (0, 0, false);
    let mut show = |line: &[u8]| Mapping::of(line).is_none_or(|mapping| show(&mapping));
    loop {
        let more = file.read_at(at, &mut buffer[used..]);
        if more == 0 {
            return;
        }
        at += more as u64;
        used += more;
        let mut begin = 0;
        while let Some(len) = buffer[begin..used].iter().position(|byte| *byte == b'\n') {
            if !core::mem::take(&mut is_shown) && !show(&buffer[begin..begin + len]) {
                return;
            }
            begin += len + 1;
        }
        if begin == 0 && used == buffer.len() {
            if !core::mem::replace(&mut is_shown, true) && !show(buffer) {
                return;
            }
            begin = used;
        }
        buffer.copy_within(begin..used, 0);
        used -= begin;
    }
}

/// Bytes of lines at a time, where only their begins matter.
const PIECE: usize = 1024;

/// Shows the line about the mapping that `address` is in.
pub(crate) fn mapping_around(address: usize, mut show: impl FnMut(&[u8])) {
    each_mapping(&mut [0; PIECE], |mapping| {
        let is_it = mapping.has(address);
        if is_it {
            show(mapping.line);
        }
        !is_it
    });
}

/// Shows each private mapping that the program may read and write.
pub(crate) fn each_writable_mapping(mut show: impl FnMut(Span)) {
    each_mapping(&mut [0; PIECE], |mapping| {
        if mapping.access.starts_with(b"rw") && mapping.access.ends_with(b"p") {
            show(mapping.span);
        }
        true
    });
}

#[cfg(test)]
#[path = "maps_tests.rs"]
mod tests;
