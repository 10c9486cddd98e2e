//! What is in an ELF file, as it lies on disk.

use super::reader::Input;
use super::window::{Part, Window};

const SECTION_BYTES: u64 = 64;
const SEGMENT_BYTES: u64 = 56;
const SYMBOL_BYTES: usize = 24;
const PT_LOAD: u32 = 1;
const SHT_NOBITS: u32 = 8;
const SHF_COMPRESSED: u64 = 0x800;
const STT_FUNC: u8 = 2;
const STT_GNU_IFUNC: u8 = 10;

/// The sections that names and lines are in; empty if there is no such section, or it is compressed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sections {
    symbols: Part,
    strings: Part,
    exported: Part,
    exported_strings: Part,
    pub(super) lines: Part,
    pub(super) line_texts: Part,
    pub(super) texts: Part,
}

/// A section header.
#[derive(Clone, Copy, Debug, Default)]
struct Section {
    name: u64,
    kind: u32,
    flags: u64,
    address: u64,
    part: Part,
    link: u64,
}

/// A function.
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol {
    pub(super) address: u64,
    bytes: u64,
    name: u32,
    section: u16,
}

/// Where the tables of a file are.
struct Header {
    segments: u64,
    segment_count: u64,
    sections: u64,
    section_count: u64,
    names: u64,
}

impl Header {
    fn read(window: &mut Window<'_>) -> Option<Self> {
        if window.bytes(0, 6) != b"\x7fELF\x02\x01" {
            return None;
        }
        let mut input = window.stream(Part { at: 32, end: 64 });
        let (segments, sections) = (input.u64()?, input.u64()?);
        let (_flags, _own, segment_bytes) = (input.u32()?, input.u16()?, input.u16()?);
        let (segment_count, section_bytes) = (input.u16()?, input.u16()?);
        let (section_count, names) = (input.u16()?, input.u16()?);
        let is_known = u64::from(segment_bytes) == SEGMENT_BYTES
            && (section_count == 0 || u64::from(section_bytes) == SECTION_BYTES);
        is_known.then_some(Self {
            segments,
            segment_count: segment_count.into(),
            sections,
            section_count: section_count.into(),
            names: names.into(),
        })
    }

    fn section(&self, window: &mut Window<'_>, index: u64) -> Option<Section> {
        let at = self.sections.checked_add(index.checked_mul(SECTION_BYTES)?)?;
        let mut input = window.stream(Part { at, end: at.checked_add(SECTION_BYTES)? });
        let (name, kind, flags, address) = (input.u32()?, input.u32()?, input.u64()?, input.u64()?);
        let (at, bytes, link) = (input.u64()?, input.u64()?, input.u32()?);
        let part = Part { at, end: at.checked_add(bytes)? };
        Some(Section { name: name.into(), kind, flags, address, part, link: link.into() })
    }

    /// The names of sections.
    fn section_names(&self, window: &mut Window<'_>) -> Option<Part> {
        const ELSEWHERE: u64 = 0xffff;
        let index = if self.names == ELSEWHERE { self.section(window, 0)?.link } else { self.names };
        Some(self.section(window, index)?.part)
    }

    /// How many there are.
    fn sections(&self, window: &mut Window<'_>) -> u64 {
        match self.section_count {
            0 => self.section(window, 0).map_or(0, |first| first.part.len()),
            count => count,
        }
    }
}

impl Section {
    /// Where its bytes are in a file of so many.
    fn plain(&self, bytes: u64) -> Part {
        let is_plain = self.kind != SHT_NOBITS && self.flags & SHF_COMPRESSED == 0 && self.part.end <= bytes;
        if is_plain { self.part } else { Part::default() }
    }
}

impl Sections {
    /// Those of the file, which is `bytes` long.
    pub(super) fn read(window: &mut Window<'_>, bytes: u64) -> Option<Self> {
        let header = Header::read(window)?;
        let names = header.section_names(window)?;
        let mut sections = Self::default();
        for index in 0..header.sections(window) {
            let Some(section) = header.section(window, index) else { break };
            if let Some(place) = sections.named(window.text(names.tail(section.name), 32)) {
                *place = section.plain(bytes);
            }
        }
        Some(sections)
    }

    /// All with their names.
    #[cfg(test)]
    pub(super) fn named_parts(&self) -> [(&'static str, Part); 5] {
        [
            (".symtab", self.symbols),
            (".strtab", self.strings),
            (".debug_line", self.lines),
            (".debug_line_str", self.line_texts),
            (".debug_str", self.texts),
        ]
    }

    fn named(&mut self, name: &[u8]) -> Option<&mut Part> {
        Some(match name {
            b".symtab" => &mut self.symbols,
            b".strtab" => &mut self.strings,
            b".dynsym" => &mut self.exported,
            b".dynstr" => &mut self.exported_strings,
            b".debug_line" => &mut self.lines,
            b".debug_line_str" => &mut self.line_texts,
            b".debug_str" => &mut self.texts,
            _ => return None,
        })
    }

    /// The table of symbols and that of their names: all symbols, or, in a file without them, those that it exports.
    fn tables(&self) -> (Part, Part) {
        if self.symbols.is_empty() { (self.exported, self.exported_strings) } else { (self.symbols, self.strings) }
    }

    /// The function that an address lies in.
    pub(super) fn function(&self, window: &mut Window<'_>, address: u64) -> Option<Symbol> {
        let (mut table, _) = self.tables();
        let mut best = None;
        while table.len() >= SYMBOL_BYTES as u64 {
            let want = usize::try_from(table.len()).unwrap_or(usize::MAX).min(window.width());
            let bytes = window.bytes(table.at, want / SYMBOL_BYTES * SYMBOL_BYTES);
            let (symbols, _) = bytes.as_chunks();
            if symbols.is_empty() {
                break;
            }
            best = symbols.iter().fold(best, |best, symbol| nearer(best, Symbol::read(symbol), address));
            table = table.tail((symbols.len() * SYMBOL_BYTES) as u64);
        }
        best.filter(|symbol| symbol.has(window, address))
    }

    /// Its name, up to `most` bytes.
    pub(super) fn name<'w>(&self, window: &'w mut Window<'_>, symbol: Symbol, most: usize) -> &'w [u8] {
        let (_, names) = self.tables();
        window.text(names.tail(symbol.name.into()), most)
    }
}

impl Symbol {
    /// A function that is in the file.
    fn read(bytes: &[u8; SYMBOL_BYTES]) -> Option<Self> {
        let word = |at: usize| bytes[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let (name, kind, section) = (word(0) as u32, bytes[4] & 15, (word(0) >> 48) as u16);
        let symbol = Self { address: word(8), bytes: word(16), name, section };
        (matches!(kind, STT_FUNC | STT_GNU_IFUNC) && section != 0).then_some(symbol)
    }

    /// Whether an address behind its beginning is in it. One without a length, of an assembler's, ends where the next one
    /// begins, or its section ends.
    fn has(&self, window: &mut Window<'_>, address: u64) -> bool {
        if self.bytes != 0 {
            return address - self.address < self.bytes;
        }
        let section = Header::read(window).and_then(|header| header.section(window, self.section.into()));
        section.is_some_and(|section| address.wrapping_sub(section.address) < section.part.len())
    }
}

/// The one that begins last before an address.
fn nearer(best: Option<Symbol>, other: Option<Symbol>, address: u64) -> Option<Symbol> {
    let other = other.filter(|other| other.address <= address);
    match (best, other) {
        (Some(best), Some(other)) if (other.address, other.bytes) > (best.address, best.bytes) => Some(other),
        (None, other) => other,
        (best, _) => best,
    }
}

/// The address that the byte at `offset` of the file is to be loaded at.
pub(super) fn address_of(window: &mut Window<'_>, offset: u64) -> Option<u64> {
    let header = Header::read(window)?;
    let table = Part { at: header.segments, end: header.segments.checked_add(header.segment_count * SEGMENT_BYTES)? };
    let mut input = window.stream(table);
    loop {
        let (kind, _flags, from, address) = (input.u32()?, input.u32()?, input.u64()?, input.u64()?);
        let (_physical, in_file, _in_memory, _align) = (input.u64()?, input.u64()?, input.u64()?, input.u64()?);
        let inside = offset.checked_sub(from).filter(|inside| kind == PT_LOAD && *inside < in_file);
        if let Some(inside) = inside {
            return Some(address.wrapping_add(inside));
        }
    }
}
