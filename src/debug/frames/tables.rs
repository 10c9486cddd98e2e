//! The unwind tables of a module, `.eh_frame_hdr` and `.eh_frame` (Linux Standard Base, Core, 10.6), found by its ELF header.

use super::homes::{self, Home};
use super::maps;
use super::program;
use super::reader::{Input, Reader};
use super::registers::RIP;
use super::row::Found;
use crate::os::{self, Module, copy_from, module_at, program_start};

/// What of a module's first page holds the ELF header and those of its segments.
const HEADERS: usize = 1536;
const PAGE_MASK: usize = 4095;

const PT_LOAD: u32 = 1;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
const SEGMENT_BYTES: usize = 56;
const PF_R: u32 = 4;

/// A segment of a module, as its program header has it.
#[derive(Clone, Copy, Debug)]
struct Segment {
    kind: u32,
    flags: u32,
    address: u64,
    bytes: u64,
}

/// The segment of a module that its unwind tables are in.
#[derive(Clone, Copy, Debug)]
struct Tables {
    bytes: &'static [u8],
    /// The address of the first byte.
    base: usize,
    /// Where the header begins in `bytes`.
    header: usize,
}

/// What the tables say of a function.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    tables: Tables,
    pub(super) start: usize,
    end: usize,
    /// The program that all functions of a kind begin with, and the function's own.
    pub(super) common: Reader<'static>,
    pub(super) code: Reader<'static>,
    pub(super) code_align: usize,
    pub(super) data_align: i64,
    encoding: u8,
    is_signal: bool,
}

/// The common part of entries.
struct Common {
    code: Reader<'static>,
    code_align: usize,
    data_align: i64,
    /// How addresses are written.
    encoding: u8,
    is_signal: bool,
    /// Whether entries have additions of a length that they say.
    is_augmented: bool,
}

/// The row for an instruction; `None` if there is none.
pub(super) fn find(instruction: usize) -> Option<Found> {
    let tables = tables_of(module_of(instruction)?)?;
    let entry = tables.entry(instruction)?;
    let row = program::row_at(&entry, instruction)?;
    Some(Found { row, bytes: tables.bytes, is_signal: entry.is_signal })
}

/// The module that an address lies in: the loader knows, or else the kernel.
fn module_of(address: usize) -> Option<Module> {
    match module_at(address) {
        os::Found::In(module) => Some(module),
        os::Found::Nowhere => None,
        os::Found::Unknown => maps::module_of(address),
    }
}

/// The tables of a module, found once.
fn tables_of(module: Module) -> Option<Tables> {
    if let Some(home) = homes::known(&module) {
        return Some(Tables::at(home));
    }
    // What is linked statically does not know itself where it begins.
    let home = home_of(module).or_else(|| home_of(Module { start: program_start(), ..module }))?;
    homes::remember(&module, home);
    Some(Tables::at(home))
}

/// The segment that the tables of a module are in, by its ELF header.
fn home_of(module: Module) -> Option<Home> {
    let mut headers = [0; HEADERS];
    let len = copy_from(module.start, &mut headers);
    let headers = &headers[..len];
    let lowest = segments(headers)?.find(|segment| segment.kind == PT_LOAD)?;
    let bias = module.start.wrapping_sub(lowest.address as usize & !PAGE_MASK);
    let header = segments(headers)?.find(|segment| segment.kind == PT_GNU_EH_FRAME)?.address;
    let is_home = |segment: &Segment| segment.kind == PT_LOAD && segment.contains(header);
    let segment = segments(headers)?.find(is_home).filter(|segment| segment.flags & PF_R != 0)?;
    let base = bias.wrapping_add(segment.address as usize);
    let bytes = usize::try_from(segment.bytes).ok()?;
    let is_inside = base >= module.start && base <= module.end && bytes <= module.end - base;
    is_inside.then_some(Home { base, bytes, header: (header - segment.address) as usize })
}

impl Segment {
    fn read(headers: &[u8], at: usize) -> Option<Self> {
        let mut reader = Reader::new(headers, at).cut(SEGMENT_BYTES)?;
        let (kind, flags) = (reader.u32()?, reader.u32()?);
        let (_offset, address, _physical, _in_file) = (reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?);
        Some(Self { kind, flags, address, bytes: reader.u64()? })
    }

    const fn contains(&self, address: u64) -> bool {
        address >= self.address && address - self.address < self.bytes
    }
}

/// The segments that an ELF header, and what follows it, tells of.
fn segments(headers: &[u8]) -> Option<impl Iterator<Item = Segment>> {
    let is_ours = headers.get(..6)? == b"\x7fELF\x02\x01";
    let first = Reader::new(headers, 32).u64()?;
    let mut sizes = Reader::new(headers, 54);
    let (each, count) = (usize::from(sizes.u16()?), usize::from(sizes.u16()?));
    let at = usize::try_from(first).ok().filter(|_| is_ours && each == SEGMENT_BYTES)?;
    Some((0..count).map_while(move |index| Segment::read(headers, at.checked_add(index * SEGMENT_BYTES)?)))
}

impl Tables {
    fn at(home: Home) -> Self {
        let start = core::ptr::with_exposed_provenance(home.base);
        // SAFETY: a segment of a module is mapped as long as code of it runs, and nobody writes tables.
        let bytes = unsafe { core::slice::from_raw_parts(start, home.bytes) };
        Self { bytes, base: home.base, header: home.header }
    }

    const fn reader(&self, at: usize) -> Reader<'static> {
        Reader::new(self.bytes, at)
    }

    /// An address in the tables' segment as a place in it.
    const fn place(&self, address: usize) -> usize {
        address.wrapping_sub(self.base)
    }

    /// A number that is written as `encoding` says (`DW_EH_PE_…`), without what it counts from.
    fn number(reader: &mut Reader<'static>, encoding: u8) -> Option<usize> {
        Some(match encoding & 0x0f {
            0x00 | 0x04 | 0x0c => reader.u64()? as usize,
            0x01 => reader.uleb()? as usize,
            0x02 => usize::from(reader.u16()?),
            0x03 => reader.u32()? as usize,
            0x09 => reader.sleb()? as usize,
            0x0a => reader.u16()? as i16 as usize,
            0x0b => reader.u32()? as i32 as usize,
            _ => return None,
        })
    }

    /// An address that is written as `encoding` says: as it is, or from here, or from the header on.
    fn pointer(&self, reader: &mut Reader<'static>, encoding: u8) -> Option<usize> {
        let here = self.base.wrapping_add(reader.at());
        let from = match encoding & 0xf0 {
            0x00 => 0,
            0x10 => here,
            0x30 => self.base.wrapping_add(self.header),
            _ => return None,
        };
        Some(from.wrapping_add(Self::number(reader, encoding)?))
    }

    /// The entry of the function that an instruction is in.
    fn entry(&self, instruction: usize) -> Option<Entry> {
        let entry = self.entry_at(self.search(instruction)?)?;
        (entry.start <= instruction && instruction < entry.end).then_some(entry)
    }

    /// Where the last entry begins that is not behind an instruction: by the sorted table of pairs, each half the distance
    /// from the header to a function and to its entry.
    fn search(&self, instruction: usize) -> Option<usize> {
        const SORTED_PAIRS: u8 = 0x3b;
        let mut header = self.reader(self.header);
        let (version, entries, count, pairs) = (header.u8()?, header.u8()?, header.u8()?, header.u8()?);
        if version != 1 || pairs != SORTED_PAIRS {
            return None;
        }
        self.pointer(&mut header, entries)?;
        let count = Self::number(&mut header, count)?;
        let (pairs, _) = self.bytes.get(header.at()..)?.as_chunks::<8>();
        let pairs = pairs.get(..count)?;
        let origin = self.base.wrapping_add(self.header);
        let distance = |half: &[u8]| half.first_chunk().map_or(0, |bytes| i32::from_le_bytes(*bytes)) as usize;
        let behind = pairs.partition_point(|pair| origin.wrapping_add(distance(&pair[..4])) <= instruction);
        let pair = pairs.get(behind.checked_sub(1)?)?;
        Some(self.place(origin.wrapping_add(distance(&pair[4..]))))
    }

    /// The length of an entry or a common part, which begins behind it.
    fn length(reader: &mut Reader<'static>) -> Option<usize> {
        const LONG: u32 = u32::MAX;
        match reader.u32()? {
            LONG => usize::try_from(reader.u64()?).ok(),
            length => Some(length as usize),
        }
    }

    fn entry_at(&self, at: usize) -> Option<Entry> {
        let mut reader = self.reader(at);
        let length = Self::length(&mut reader)?;
        let mut reader = reader.cut(length)?;
        let here = reader.at();
        let common = self.common_at(here.checked_sub(reader.u32()? as usize).filter(|at| *at != here)?)?;
        let start = self.pointer(&mut reader, common.encoding)?;
        let end = start.checked_add(Self::number(&mut reader, common.encoding)?)?;
        if common.is_augmented {
            let bytes = reader.uleb()?;
            reader.cut(usize::try_from(bytes).ok()?)?;
        }
        Some(Entry {
            tables: *self,
            start,
            end,
            common: common.code,
            code: reader,
            code_align: common.code_align,
            data_align: common.data_align,
            encoding: common.encoding,
            is_signal: common.is_signal,
        })
    }

    fn common_at(&self, at: usize) -> Option<Common> {
        let mut reader = self.reader(at);
        let length = Self::length(&mut reader)?;
        let mut reader = reader.cut(length)?;
        let is_common = reader.u32()? == 0;
        let version = reader.u8().filter(|version| is_common && matches!(version, 1 | 3))?;
        let augmentation = self.letters(&mut reader)?;
        let (code_align, data_align) = (reader.uleb()? as usize, reader.sleb()?);
        let column = if version == 1 { u64::from(reader.u8()?) } else { reader.uleb()? };
        let mut common = Common {
            code: reader,
            code_align,
            data_align,
            encoding: 0,
            is_signal: augmentation.contains(&b'S'),
            is_augmented: augmentation.first() == Some(&b'z'),
        };
        if common.is_augmented {
            let bytes = reader.uleb()?;
            let additions = reader.cut(usize::try_from(bytes).ok()?)?;
            common.encoding = self.address_encoding(augmentation, additions)?;
            common.code = reader;
        }
        let is_known = common.is_augmented || augmentation.is_empty();
        (is_known && column == RIP as u64).then_some(common)
    }

    /// The letters that say what additions there are.
    fn letters(&self, reader: &mut Reader<'static>) -> Option<&'static [u8]> {
        let at = reader.at();
        while reader.u8()? != 0 {}
        self.bytes.get(at..reader.at() - 1)
    }

    /// How the entries of a common part write addresses.
    fn address_encoding(&self, letters: &[u8], mut additions: Reader<'static>) -> Option<u8> {
        let mut encoding = 0;
        for letter in letters {
            match letter {
                b'R' => encoding = additions.u8()?,
                b'L' => {
                    additions.u8()?;
                }
                b'P' => {
                    let personality = additions.u8()?;
                    Self::number(&mut additions, personality)?;
                }
                _ => {}
            }
        }
        Some(encoding)
    }
}

impl Entry {
    /// An address in the entry's program.
    pub(super) fn pointer(&self, reader: &mut Reader<'static>) -> Option<usize> {
        self.tables.pointer(reader, self.encoding)
    }
}

#[cfg(test)]
#[path = "tables_tests.rs"]
mod tests;
