//! What is mapped where: `/proc/self/maps`, read as text.

use super::reader::Input;
use super::window::{Part, Stream, Window};
use crate::os::File;

/// A line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Where in its file it begins.
    pub(super) offset: u64,
    /// The number of the file; 0 for none.
    file: u64,
    /// Bytes of its name.
    pub(super) name: usize,
}

impl Mapping {
    pub(super) const fn contains(&self, address: usize) -> bool {
        address >= self.start && address < self.end
    }

    /// Where in the file the byte at an address is.
    pub(super) const fn offset_of(&self, address: usize) -> u64 {
        self.offset.wrapping_add(address.wrapping_sub(self.start) as u64)
    }
}

/// The mapping that an address lies in, whose name is written to `name`, as much as there is room for.
pub(super) fn find(address: usize, buffer: &mut [u8], name: &mut [u8]) -> Option<Mapping> {
    let file = File::open(c"/proc/self/maps")?;
    let mut window = Window::new(&file, buffer);
    find_in(&mut window.stream(Part { at: 0, end: u64::MAX }), address, name)
}

fn find_in(input: &mut Stream<'_, '_>, address: usize, name: &mut [u8]) -> Option<Mapping> {
    loop {
        let line = line(input, name)?;
        if line.contains(address) {
            return Some(line);
        }
    }
}

/// The module that an address lies in, for a loader that cannot be asked.
#[cfg(target_arch = "x86_64")]
#[cold]
pub(super) fn module_of(address: usize) -> Option<crate::os::Module> {
    let mut buffer = [0; 1024];
    crate::os::keep_errno(|| {
        let file = File::open(c"/proc/self/maps")?;
        let mut window = Window::new(&file, &mut buffer);
        module_in(&mut window.stream(Part { at: 0, end: u64::MAX }), address)
    })
}

/// The mappings of one file, from that of its beginning on, one of which an address lies in.
#[cfg(target_arch = "x86_64")]
fn module_in(input: &mut Stream<'_, '_>, address: usize) -> Option<crate::os::Module> {
    let (mut found, mut file, mut is_met) = (crate::os::Module { start: 0, end: 0, tables: 0 }, 0, false);
    while let Some(line) = line(input, &mut []) {
        if line.offset == 0 && !is_met {
            (found.start, file) = (line.start, line.file);
        }
        if line.file == file && file != 0 {
            is_met |= line.contains(address);
            found.end = line.end;
        } else if is_met {
            break;
        }
    }
    is_met.then_some(found)
}

/// Reads `start-end access offset major:minor file   name`.
fn line(input: &mut Stream<'_, '_>, name: &mut [u8]) -> Option<Mapping> {
    let mut line = Mapping { start: digits(input, 16)?.0 as usize, ..Mapping::default() };
    line.end = digits(input, 16)?.0 as usize;
    while input.u8()? != b' ' {}
    line.offset = digits(input, 16)?.0;
    let _device = (digits(input, 16)?, digits(input, 16)?);
    let (file, end) = digits(input, 10)?;
    line.file = file;
    if end != b'\n' {
        line.name = rest(input, name)?;
    }
    Some(line)
}

/// The name, behind spaces, up to the end of the line; how many bytes of it were kept.
fn rest(input: &mut Stream<'_, '_>, name: &mut [u8]) -> Option<usize> {
    let mut len = 0;
    loop {
        let byte = input.u8()?;
        if byte == b'\n' {
            return Some(len);
        }
        if byte == b' ' && len == 0 {
            continue;
        }
        if let Some(place) = name.get_mut(len) {
            *place = byte;
            len += 1;
        }
    }
}

/// A number, and the byte behind it.
fn digits(input: &mut Stream<'_, '_>, base: u32) -> Option<(u64, u8)> {
    let mut value = 0_u64;
    loop {
        let byte = input.u8()?;
        match char::from(byte).to_digit(base) {
            Some(digit) => value = value.wrapping_mul(u64::from(base)).wrapping_add(u64::from(digit)),
            None => return Some((value, byte)),
        }
    }
}
