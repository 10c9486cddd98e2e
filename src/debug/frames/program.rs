//! The programs of unwind tables (DWARF 5, 6.4.2): they write a table's rows one after another, for rising instructions.

use super::reader::{Input, Reader};
use super::registers::COUNT;
use super::row::{Cfa, Place, Row, Text};
use super::tables::Entry;

/// Rows that a program may have laid aside at once.
const KEPT: usize = 4;

mod op {
    pub(super) const ADVANCE: u8 = 1;
    pub(super) const OFFSET: u8 = 2;
    pub(super) const RESTORE: u8 = 3;

    pub(super) const NOP: u8 = 0x00;
    pub(super) const SET_LOC: u8 = 0x01;
    pub(super) const ADVANCE1: u8 = 0x02;
    pub(super) const ADVANCE2: u8 = 0x03;
    pub(super) const ADVANCE4: u8 = 0x04;
    pub(super) const OFFSET_EXTENDED: u8 = 0x05;
    pub(super) const RESTORE_EXTENDED: u8 = 0x06;
    pub(super) const UNDEFINED: u8 = 0x07;
    pub(super) const SAME_VALUE: u8 = 0x08;
    pub(super) const REGISTER: u8 = 0x09;
    pub(super) const REMEMBER: u8 = 0x0a;
    pub(super) const RESTORE_STATE: u8 = 0x0b;
    pub(super) const DEF_CFA: u8 = 0x0c;
    pub(super) const DEF_CFA_REGISTER: u8 = 0x0d;
    pub(super) const DEF_CFA_OFFSET: u8 = 0x0e;
    pub(super) const DEF_CFA_EXPRESSION: u8 = 0x0f;
    pub(super) const EXPRESSION: u8 = 0x10;
    pub(super) const OFFSET_SIGNED: u8 = 0x11;
    pub(super) const DEF_CFA_SIGNED: u8 = 0x12;
    pub(super) const DEF_CFA_OFFSET_SIGNED: u8 = 0x13;
    pub(super) const VAL_OFFSET: u8 = 0x14;
    pub(super) const VAL_OFFSET_SIGNED: u8 = 0x15;
    pub(super) const VAL_EXPRESSION: u8 = 0x16;
    pub(super) const GNU_ARGS_SIZE: u8 = 0x2e;
    pub(super) const GNU_NEGATIVE_OFFSET: u8 = 0x2f;
}

/// A program that runs.
struct Program<'p> {
    entry: &'p Entry,
    code: Reader<'static>,
    row: Row,
    /// The row as the common part left it, to which registers are restored.
    initial: Row,
    kept: [Row; KEPT],
    depth: usize,
    /// The instruction that the row begins at.
    location: usize,
}

/// The row of an entry that covers `instruction`.
pub(super) fn row_at(entry: &Entry, instruction: usize) -> Option<Row> {
    let none = Row::new();
    let mut program = Program {
        entry,
        code: entry.common,
        row: none,
        initial: none,
        kept: [none; KEPT],
        depth: 0,
        location: entry.start,
    };
    program.run(instruction)?;
    program.initial = program.row;
    program.code = entry.code;
    program.run(instruction)?;
    Some(program.row)
}

impl Program<'_> {
    /// Runs until the text ends, or the next row begins behind `instruction`.
    fn run(&mut self, instruction: usize) -> Option<()> {
        while !self.code.is_done() {
            let code = self.code.u8()?;
            let operand = code & 0x3f;
            if let Some(location) = self.advanced(code)? {
                if location > instruction {
                    return Some(());
                }
                self.location = location;
                continue;
            }
            match code >> 6 {
                op::OFFSET => self.save(u64::from(operand))?,
                op::RESTORE => self.restore(u64::from(operand)),
                _ => self.extended(code)?,
            }
        }
        Some(())
    }

    /// Where the next row begins, if that is what the operation says.
    fn advanced(&mut self, code: u8) -> Option<Option<usize>> {
        let delta = match code {
            _ if code >> 6 == op::ADVANCE => u64::from(code & 0x3f),
            op::SET_LOC => return self.entry.pointer(&mut self.code).map(Some),
            op::ADVANCE1 => self.code.number(1)?,
            op::ADVANCE2 => self.code.number(2)?,
            op::ADVANCE4 => self.code.number(4)?,
            _ => return Some(None),
        };
        let bytes = (delta as usize).wrapping_mul(self.entry.code_align);
        Some(Some(self.location.checked_add(bytes)?))
    }

    fn extended(&mut self, code: u8) -> Option<()> {
        match code {
            op::NOP => {}
            op::GNU_ARGS_SIZE => {
                self.code.uleb()?;
            }
            op::REMEMBER => self.remember()?,
            op::RESTORE_STATE => self.recall()?,
            op::DEF_CFA..=op::DEF_CFA_EXPRESSION | op::DEF_CFA_SIGNED | op::DEF_CFA_OFFSET_SIGNED => {
                self.row.cfa = self.frame_address(code)?;
            }
            op::OFFSET_EXTENDED => {
                let register = self.code.uleb()?;
                self.save(register)?;
            }
            op::RESTORE_EXTENDED => {
                let register = self.code.uleb()?;
                self.restore(register);
            }
            _ => {
                let register = self.code.uleb()?;
                let place = self.place(code)?;
                self.put(register, place);
            }
        }
        Some(())
    }

    fn frame_address(&mut self, code: u8) -> Option<Cfa> {
        let (register, offset) = match self.row.cfa {
            Cfa::Register(register, offset) => (register, offset),
            Cfa::Expression(_) => (COUNT, 0),
        };
        Some(match code {
            op::DEF_CFA => Cfa::Register(self.register()?, self.code.uleb()? as i64),
            op::DEF_CFA_SIGNED => Cfa::Register(self.register()?, self.signed()?),
            op::DEF_CFA_REGISTER => Cfa::Register(self.register()?, offset),
            op::DEF_CFA_OFFSET => Cfa::Register(register, self.code.uleb()? as i64),
            op::DEF_CFA_OFFSET_SIGNED => Cfa::Register(register, self.signed()?),
            _ => Cfa::Expression(self.text()?),
        })
    }

    /// Where an operation that names a register says that it is.
    fn place(&mut self, code: u8) -> Option<Place> {
        Some(match code {
            op::UNDEFINED => Place::Undefined,
            op::SAME_VALUE => Place::Same,
            op::REGISTER => Place::Register(self.register()?),
            op::EXPRESSION => Place::SavedAt(self.text()?),
            op::VAL_EXPRESSION => Place::Value(self.text()?),
            op::OFFSET_SIGNED => Place::Saved(self.signed()?),
            op::VAL_OFFSET => Place::Address(self.unsigned()?),
            op::VAL_OFFSET_SIGNED => Place::Address(self.signed()?),
            op::GNU_NEGATIVE_OFFSET => Place::Saved(self.unsigned()?.wrapping_neg()),
            _ => return None,
        })
    }

    fn save(&mut self, register: u64) -> Option<()> {
        let place = Place::Saved(self.unsigned()?);
        self.put(register, place);
        Some(())
    }

    /// Registers that no walk needs are passed over.
    fn put(&mut self, register: u64, place: Place) {
        if let Some(at) = self.row.places.get_mut(register as usize) {
            *at = place;
        }
    }

    fn restore(&mut self, register: u64) {
        if let Some(place) = self.initial.places.get(register as usize) {
            self.put(register, *place);
        }
    }

    fn remember(&mut self) -> Option<()> {
        *self.kept.get_mut(self.depth)? = self.row;
        self.depth += 1;
        Some(())
    }

    fn recall(&mut self) -> Option<()> {
        self.depth = self.depth.checked_sub(1)?;
        self.row = *self.kept.get(self.depth)?;
        Some(())
    }

    fn register(&mut self) -> Option<usize> {
        self.code.uleb().map(|register| register as usize)
    }

    /// An offset in units of the data alignment.
    fn unsigned(&mut self) -> Option<i64> {
        Some((self.code.uleb()? as i64).wrapping_mul(self.entry.data_align))
    }

    fn signed(&mut self) -> Option<i64> {
        Some(self.code.sleb()?.wrapping_mul(self.entry.data_align))
    }

    fn text(&mut self) -> Option<Text> {
        let len = self.code.uleb()?;
        let at = self.code.at();
        self.code.cut(usize::try_from(len).ok()?)?;
        Some(Text { at: u32::try_from(at).ok()?, len: u32::try_from(len).ok()? })
    }
}
