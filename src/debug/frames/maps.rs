//! Which file is mapped where, by the kernel's list.

use crate::os::each_mapping;
#[cfg(target_arch = "x86_64")]
use crate::os::{Module, keep_errno};

/// Addresses of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mapping {
    start: usize,
    end: usize,
    /// Where in the file they begin.
    offset: u64,
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
    let mut found = None;
    each_mapping(buffer, |line| {
        if line.has(address) {
            let kept = name.iter_mut().zip(line.name).map(|(place, byte)| *place = *byte).count();
            let (start, end) = (line.span.at, line.span.at + line.span.bytes);
            found = Some(Mapping { start, end, offset: line.offset, name: kept });
        }
        found.is_none()
    });
    found
}

/// The module that an address lies in, for a loader that cannot be asked: the mappings of one file, from that of its
/// beginning on.
#[cfg(target_arch = "x86_64")]
#[cold]
pub(super) fn module_of(address: usize) -> Option<Module> {
    let (mut found, mut file, mut is_met) = (Module { start: 0, end: 0, tables: 0 }, 0, false);
    keep_errno(|| {
        each_mapping(&mut [0; 1024], |line| {
            if line.offset == 0 && !is_met {
                (found.start, file) = (line.span.at, line.file);
            }
            let is_same = line.file == file && file != 0;
            if is_same {
                is_met |= line.has(address);
                found.end = line.span.at + line.span.bytes;
            }
            is_same || !is_met
        });
    });
    is_met.then_some(found)
}
