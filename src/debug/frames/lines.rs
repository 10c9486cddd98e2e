//! Which line of which file an instruction is from: `.debug_line` (DWARF 4 and 5, section 6.2), read a piece at a time.
//!
//! The section is a unit for each object file: texts, and a program that writes rows of address, file and line. A
//! sequence of rows is of one stretch of code. As nothing says which sequence an address is in, all of them are written
//! down when the first address of a file is asked for.

use super::elf::Sections;
use super::files;
use super::reader::Input;
use super::window::{Part, Stream, Window};
use crate::os::Room;

/// Standard operations that a unit may have.
const OPERATIONS: usize = 32;

mod op {
    pub(super) const EXTENDED: u8 = 0;
    pub(super) const COPY: u8 = 1;
    pub(super) const ADVANCE_PC: u8 = 2;
    pub(super) const ADVANCE_LINE: u8 = 3;
    pub(super) const SET_FILE: u8 = 4;
    pub(super) const CONST_ADD_PC: u8 = 8;
    pub(super) const FIXED_ADVANCE_PC: u8 = 9;

    pub(super) const END_SEQUENCE: u8 = 1;
    pub(super) const SET_ADDRESS: u8 = 2;
}

/// The header of a unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    pub(super) version: u16,
    /// Bytes of an offset into other sections.
    pub(super) offset_bytes: u32,
    /// The directories and files.
    pub(super) names: Part,
    program: Part,
    step: u64,
    line_base: i8,
    line_range: u8,
    first_special: u8,
    /// How many numbers follow each standard operation.
    operands: [u8; OPERATIONS],
}

/// A row: the code from an address on, up to the next row's, is from a line of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) address: u64,
    pub(super) file: u64,
    pub(super) line: u64,
    /// It is not code any more: the sequence ends.
    is_end: bool,
}

impl Row {
    const FIRST: Self = Self { address: 0, file: 1, line: 1, is_end: false };
}

/// The length of a unit, and how many bytes an offset has in it.
fn length(input: &mut Stream<'_, '_>) -> Option<(u64, u32)> {
    match input.u32()? {
        u32::MAX => Some((input.u64()?, 8)),
        length => Some((length.into(), 4)),
    }
}

impl Unit {
    /// Reads the header of the unit at the beginning of `part`; `None` if it is of a kind that is not known.
    fn read(window: &mut Window<'_>, part: Part) -> Option<Self> {
        let mut input = window.stream(part);
        let (bytes, offset_bytes) = length(&mut input)?;
        input.limit(bytes)?;
        let version = input.u16().filter(|version| (2..=5).contains(version))?;
        if version == 5 {
            let _sizes = (input.u8().filter(|bytes| *bytes == 8)?, input.u8()?);
        }
        let header = input.number(offset_bytes)?;
        let mut program = input.rest();
        program.at = program.at.checked_add(header).filter(|at| *at <= program.end)?;
        let step = input.u8()?;
        let _operations = if version >= 4 { input.u8()? } else { 1 };
        let (_default, line_base, line_range, first_special) = (input.u8()?, input.u8()?, input.u8()?, input.u8()?);
        let mut operands = [0; OPERATIONS];
        for operation in 1..usize::from(first_special) {
            *operands.get_mut(operation)? = input.u8()?;
        }
        let names = Part { at: input.at(), end: program.at };
        let unit = Self {
            version,
            offset_bytes,
            names,
            program,
            step: step.into(),
            line_base: line_base as i8,
            line_range,
            first_special,
            operands,
        };
        (line_range != 0 && first_special != 0).then_some(unit)
    }

    /// How far operations count that are numbers themselves: the address and the line.
    fn special(&self, operation: u8) -> (u64, i64) {
        let number = operation.wrapping_sub(self.first_special);
        let line = i64::from(self.line_base) + i64::from(number % self.line_range);
        (u64::from(number / self.line_range).wrapping_mul(self.step), line)
    }
}

/// Runs the program that `input` has until the next row is written.
fn next_row(unit: &Unit, input: &mut Stream<'_, '_>, row: &mut Row) -> Option<()> {
    if row.is_end {
        *row = Row::FIRST;
    }
    loop {
        let operation = input.u8()?;
        if operation >= unit.first_special {
            let (address, line) = unit.special(operation);
            row.address = row.address.wrapping_add(address);
            row.line = row.line.wrapping_add_signed(line);
            return Some(());
        }
        match operation {
            op::COPY => return Some(()),
            op::EXTENDED => extended(input, row)?,
            _ => standard(unit, operation, input, row)?,
        }
        if row.is_end {
            return Some(());
        }
    }
}

fn standard(unit: &Unit, operation: u8, input: &mut Stream<'_, '_>, row: &mut Row) -> Option<()> {
    match operation {
        op::ADVANCE_PC => row.address = row.address.wrapping_add(input.uleb()?.wrapping_mul(unit.step)),
        op::ADVANCE_LINE => row.line = row.line.wrapping_add_signed(input.sleb()?),
        op::SET_FILE => row.file = input.uleb()?,
        op::CONST_ADD_PC => row.address = row.address.wrapping_add(unit.special(u8::MAX).0),
        op::FIXED_ADVANCE_PC => row.address = row.address.wrapping_add(input.u16()?.into()),
        _ => {
            for _ in 0..unit.operands.get(usize::from(operation)).copied()? {
                input.uleb()?;
            }
        }
    }
    Some(())
}

fn extended(input: &mut Stream<'_, '_>, row: &mut Row) -> Option<()> {
    let bytes = input.uleb()?;
    let end = input.at().checked_add(bytes)?;
    if bytes > 0 {
        match input.u8()? {
            op::END_SEQUENCE => row.is_end = true,
            op::SET_ADDRESS => row.address = input.u64()?,
            _ => {}
        }
    }
    input.skip(end.checked_sub(input.at())?)
}

/// A stretch of code, and where its rows are made: offsets into the section, of the unit and of the sequence's program.
#[derive(Clone, Copy, Debug)]
struct Sequence {
    start: u64,
    end: u64,
    unit: u32,
    program: u32,
}

const SEQUENCE_BYTES: usize = 24;
/// A sequence takes so many bytes of the section at the least: it sets its address, writes a row and its end.
const SEQUENCE_LEAST: u64 = 15;

impl Sequence {
    fn to_bytes(self) -> [u8; SEQUENCE_BYTES] {
        let mut bytes = [0; SEQUENCE_BYTES];
        bytes[..8].copy_from_slice(&self.start.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.end.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.unit.to_le_bytes());
        bytes[20..].copy_from_slice(&self.program.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; SEQUENCE_BYTES]) -> Self {
        let long = |at: usize| bytes[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let short = |at: usize| bytes[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        Self { start: long(0), end: long(8), unit: short(16), program: short(20) }
    }
}

/// All sequences of a file.
#[derive(Debug)]
pub(super) struct Index {
    room: Room,
    count: usize,
}

impl Index {
    /// Runs all programs once.
    pub(super) fn new(window: &mut Window<'_>, section: Part) -> Option<Self> {
        // Offsets into the section are to fit 32 bits.
        let bytes = u32::try_from(section.len()).ok().filter(|bytes| *bytes > 0)?;
        let most = usize::try_from(u64::from(bytes) / SEQUENCE_LEAST).ok()? + 1;
        let mut index = Self { room: Room::new(most.checked_mul(SEQUENCE_BYTES)?)?, count: 0 };
        let mut rest = section;
        while !rest.is_empty() {
            let mut input = window.stream(rest);
            let Some(next) = length(&mut input).and_then(|(bytes, _)| input.skip(bytes)).map(|()| input.rest()) else {
                break;
            };
            let unit = Part { at: rest.at, end: next.at };
            // What stands behind a mistake in a unit is left out.
            let _ = index.add_unit(window, section.at, unit);
            rest = next;
        }
        Some(index)
    }

    fn add_unit(&mut self, window: &mut Window<'_>, section: u64, part: Part) -> Option<()> {
        let unit = Unit::read(window, part)?;
        let mut input = window.stream(unit.program);
        let mut row = Row::FIRST;
        loop {
            let program = (input.at() - section) as u32;
            next_row(&unit, &mut input, &mut row)?;
            let start = row.address;
            while !row.is_end {
                next_row(&unit, &mut input, &mut row)?;
            }
            self.add(Sequence { start, end: row.address, unit: (part.at - section) as u32, program });
        }
    }

    /// Adds a sequence of code that is there: a linker sets what it has left out to address 0.
    fn add(&mut self, sequence: Sequence) {
        let (places, _) = self.room.bytes().as_chunks_mut();
        let place = places.get_mut(self.count).filter(|_| sequence.start != 0 && sequence.start < sequence.end);
        if let Some(place) = place {
            *place = sequence.to_bytes();
            self.count += 1;
        }
    }

    fn find(&mut self, address: u64) -> Option<Sequence> {
        let (places, _) = self.room.bytes().as_chunks();
        let mut sequences = places.get(..self.count)?.iter().map(Sequence::from_bytes);
        sequences.find(|sequence| sequence.start <= address && address < sequence.end)
    }

    /// The place in the sources that an instruction is from.
    pub(super) fn place(&mut self, window: &mut Window<'_>, sections: &Sections, address: u64) -> Option<Place> {
        let sequence = self.find(address)?;
        let unit = Unit::read(window, sections.lines.tail(sequence.unit.into()))?;
        let program = Part { at: sections.lines.tail(sequence.program.into()).at, end: unit.program.end };
        let mut input = window.stream(program);
        let (mut row, mut recent) = (Row::FIRST, Recent::none());
        next_row(&unit, &mut input, &mut row)?;
        while !(recent.covers(address) && address < row.address) {
            if row.is_end {
                return None;
            }
            recent.add(row);
            next_row(&unit, &mut input, &mut row)?;
        }
        recent.place(window, sections, &unit)
    }
}

/// A line of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) name: files::Name,
    pub(super) line: u64,
}

/// A place in the sources.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) line: Line,
    /// If that is of the standard library: the last line before, in the same code, that is not. It is where something of
    /// the library was inlined, or near to it.
    pub(super) near: Option<Line>,
}

/// Files whose last rows are kept.
const RECENT: usize = 8;

/// The last rows of a sequence, each of another file, the last one first.
struct Recent {
    rows: [Row; RECENT],
    len: usize,
}

impl Recent {
    const fn none() -> Self {
        Self { rows: [Row::FIRST; RECENT], len: 0 }
    }

    /// Whether the last row begins at or before an address.
    fn covers(&self, address: u64) -> bool {
        self.rows.first().is_some_and(|row| self.len > 0 && row.address <= address)
    }

    /// Adds a row; line 0 is no line, but what the compiler made up: it counts to the one before.
    fn add(&mut self, row: Row) {
        if row.line == 0 {
            return;
        }
        let known = self.rows[..self.len].iter().position(|other| other.file == row.file);
        let place = known.unwrap_or(self.len).min(RECENT - 1);
        self.len = self.len.max(place + 1);
        self.rows[..=place].rotate_right(1);
        self.rows[0] = row;
    }

    fn place(&self, window: &mut Window<'_>, sections: &Sections, unit: &Unit) -> Option<Place> {
        let mut lines = self.rows[..self.len].iter().map_while(|row| {
            let name = files::name(window, sections, unit, row.file)?;
            Some((name.is_of_library(window), Line { name, line: row.line }))
        });
        let (is_of_library, line) = lines.next()?;
        let mut others = lines.filter(|(is_of_library, _)| !is_of_library);
        let near = if is_of_library { others.next().map(|(_, line)| line) } else { None };
        Some(Place { line, near })
    }
}

#[cfg(test)]
impl Index {
    /// Where the sequences start.
    pub(super) fn starts(mut self) -> std::vec::Vec<u64> {
        let count = self.count;
        let (places, _) = self.room.bytes().as_chunks();
        places[..count].iter().map(|bytes| Sequence::from_bytes(bytes).start).collect()
    }
}
