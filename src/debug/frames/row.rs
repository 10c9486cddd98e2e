//! A row of an unwind table: where a frame's caller finds its registers again.

use super::expression::evaluate;
use super::reader::Reader;
use super::registers::{COUNT, RBP, RIP, RSP, Registers};
use super::rules::Rule;
use super::stop::Stop;
use super::words::Words;

/// The text of an expression: a part of the bytes that the tables are in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text {
    pub(super) at: u32,
    pub(super) len: u32,
}

/// The canonical frame address: the stack pointer as it was before the call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cfa {
    /// So far from a register.
    Register(usize, i64),
    Expression(Text),
}

/// Where the caller's value of a register is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// Unchanged.
    Same,
    /// Lost; for the return address: there is no caller.
    Undefined,
    /// In memory, so far from the frame address.
    Saved(i64),
    /// It is the address so far from the frame address.
    Address(i64),
    Register(usize),
    /// In memory, at what the expression comes to.
    SavedAt(Text),
    /// What the expression comes to.
    Value(Text),
}

/// A row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) cfa: Cfa,
    pub(super) places: [Place; COUNT],
}

/// What a row is of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) row: Row,
    /// The bytes that expressions are in.
    pub(super) bytes: &'static [u8],
    /// Whether the frame is what the kernel left for a signal handler: the caller was not at a call.
    pub(super) is_signal: bool,
}

/// The caller's registers, and the word that its return address is in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    pub(super) registers: Registers,
    pub(super) slot: usize,
}

impl Row {
    pub(super) const fn new() -> Self {
        Self { cfa: Cfa::Register(RSP, 0), places: [Place::Same; COUNT] }
    }

    /// The row in one word, if it is of the common kind: the frame address lies so far from the stack or base pointer, the
    /// return address right below it, and the base pointer is unchanged or somewhat further below.
    pub(super) fn packed(&self) -> Option<Rule> {
        if matches!(self.places[RIP], Place::Undefined) {
            return Some(Rule::END);
        }
        let Place::Saved(-8) = self.places[RIP] else { return None };
        let (Place::Same, Cfa::Register(register @ (RSP | RBP), offset)) = (self.places[RSP], self.cfa) else {
            return None;
        };
        let saved = match self.places[RBP] {
            Place::Same => 0,
            Place::Saved(offset) => usize::try_from(offset.checked_neg()?).ok().filter(|below| *below > 0)?,
            _ => return None,
        };
        Rule::new(register == RBP, usize::try_from(offset).ok()?, saved)
    }
}

impl Found {
    fn evaluate(
        &self,
        text: Text,
        first: Option<usize>,
        registers: &Registers,
        words: &mut impl Words,
    ) -> Result<usize, Stop> {
        let code = Reader::new(self.bytes, text.at as usize).cut(text.len as usize).ok_or(Stop::End)?;
        evaluate(code, first, registers, words)
    }

    fn frame_address(&self, registers: &Registers, words: &mut impl Words) -> Result<usize, Stop> {
        match self.row.cfa {
            Cfa::Register(register, offset) => {
                let base = registers.get(register).ok_or(Stop::Unknown)?;
                Ok(base.wrapping_add_signed(offset as isize))
            }
            Cfa::Expression(text) => self.evaluate(text, None, registers, words),
        }
    }

    /// The word in memory that a register is in; `None` if it is in none.
    fn slot(
        &self,
        place: Place,
        cfa: usize,
        registers: &Registers,
        words: &mut impl Words,
    ) -> Result<Option<usize>, Stop> {
        Ok(match place {
            Place::Saved(offset) => Some(cfa.wrapping_add_signed(offset as isize)),
            Place::SavedAt(text) => Some(self.evaluate(text, Some(cfa), registers, words)?),
            _ => None,
        })
    }

    /// The caller's value of a register that is not in memory; `None` if it is lost.
    fn value(
        &self,
        register: usize,
        cfa: usize,
        registers: &Registers,
        words: &mut impl Words,
    ) -> Result<Option<usize>, Stop> {
        Ok(match self.row.places[register] {
            Place::Same if register == RSP => Some(cfa),
            Place::Same => registers.get(register),
            Place::Address(offset) => Some(cfa.wrapping_add_signed(offset as isize)),
            Place::Register(other) => registers.get(other),
            Place::Value(text) => Some(self.evaluate(text, Some(cfa), registers, words)?),
            Place::Undefined | Place::Saved(_) | Place::SavedAt(_) => None,
        })
    }

    /// The caller's registers.
    pub(super) fn caller(&self, registers: &Registers, words: &mut impl Words) -> Result<Caller, Stop> {
        let cfa = self.frame_address(registers, words)?;
        let mut found = Registers::none();
        let mut return_slot = None;
        for register in 0..COUNT {
            let slot = self.slot(self.row.places[register], cfa, registers, words)?;
            let value = match slot {
                Some(at) => Some(words.word(at).ok_or(Stop::Unreadable)?),
                None => self.value(register, cfa, registers, words)?,
            };
            if let Some(value) = value {
                found.set(register, value);
            }
            return_slot = slot;
        }
        // The last register is the return address. One that is in no memory ends the walk.
        Ok(Caller { registers: found, slot: return_slot.ok_or(Stop::End)? })
    }
}
