//! DWARF expressions of unwind tables: a stack machine without jumps, so it ends where its text does.

use super::reader::{Input, Reader};
use super::registers::Registers;
use super::stop::Stop;
use super::words::Words;

/// Values that an expression may hold at once.
const DEPTH: usize = 16;

/// The operations (DWARF 5, 7.7.1) that unwind tables use.
mod op {
    pub(super) const ADDR: u8 = 0x03;
    pub(super) const DEREF: u8 = 0x06;
    pub(super) const CONST1U: u8 = 0x08;
    pub(super) const CONST8S: u8 = 0x0f;
    pub(super) const CONSTU: u8 = 0x10;
    pub(super) const CONSTS: u8 = 0x11;
    pub(super) const DUP: u8 = 0x12;
    pub(super) const DROP: u8 = 0x13;
    pub(super) const OVER: u8 = 0x14;
    pub(super) const SWAP: u8 = 0x16;
    pub(super) const AND: u8 = 0x1a;
    pub(super) const MINUS: u8 = 0x1c;
    pub(super) const MUL: u8 = 0x1e;
    pub(super) const NEG: u8 = 0x1f;
    pub(super) const NOT: u8 = 0x20;
    pub(super) const OR: u8 = 0x21;
    pub(super) const PLUS: u8 = 0x22;
    pub(super) const PLUS_UCONST: u8 = 0x23;
    pub(super) const SHL: u8 = 0x24;
    pub(super) const SHR: u8 = 0x25;
    pub(super) const SHRA: u8 = 0x26;
    pub(super) const XOR: u8 = 0x27;
    pub(super) const EQ: u8 = 0x29;
    pub(super) const NE: u8 = 0x2e;
    pub(super) const LIT0: u8 = 0x30;
    pub(super) const LIT31: u8 = 0x4f;
    pub(super) const BREG0: u8 = 0x70;
    pub(super) const BREG31: u8 = 0x8f;
    pub(super) const BREGX: u8 = 0x92;
    pub(super) const NOP: u8 = 0x96;
}

struct Machine<'m, W> {
    code: Reader<'m>,
    registers: &'m Registers,
    words: &'m mut W,
    stack: [usize; DEPTH],
    depth: usize,
}

/// What `code` comes to, begun with `first` on the stack.
pub(super) fn evaluate(
    code: Reader<'_>,
    first: Option<usize>,
    registers: &Registers,
    words: &mut impl Words,
) -> Result<usize, Stop> {
    let mut machine = Machine { code, registers, words, stack: [0; DEPTH], depth: 0 };
    if let Some(first) = first {
        machine.push(first)?;
    }
    while !machine.code.is_done() {
        machine.step()?;
    }
    machine.pop()
}

impl<W: Words> Machine<'_, W> {
    fn push(&mut self, value: usize) -> Result<(), Stop> {
        *self.stack.get_mut(self.depth).ok_or(Stop::End)? = value;
        self.depth += 1;
        Ok(())
    }

    fn pop(&mut self) -> Result<usize, Stop> {
        self.depth = self.depth.checked_sub(1).ok_or(Stop::End)?;
        Ok(self.stack[self.depth % DEPTH])
    }

    fn step(&mut self) -> Result<(), Stop> {
        let operation = self.code.u8().ok_or(Stop::End)?;
        match operation {
            op::NOP => Ok(()),
            op::DEREF => {
                let at = self.pop()?;
                let word = self.words.word(at).ok_or(Stop::Unreadable)?;
                self.push(word)
            }
            op::BREG0..=op::BREG31 => self.push_register(usize::from(operation - op::BREG0)),
            op::BREGX => {
                let register = self.code.uleb().ok_or(Stop::End)?;
                self.push_register(register as usize)
            }
            op::DUP..=op::SWAP => self.shuffle(operation),
            op::NEG | op::NOT | op::PLUS_UCONST => self.change(operation),
            op::AND..=op::NE => self.combine(operation),
            _ => {
                let value = self.constant(operation).ok_or(Stop::End)?;
                self.push(value)
            }
        }
    }

    fn push_register(&mut self, register: usize) -> Result<(), Stop> {
        let offset = self.code.sleb().ok_or(Stop::End)?;
        let value = self.registers.get(register).ok_or(Stop::Unknown)?;
        self.push(value.wrapping_add_signed(offset as isize))
    }

    fn constant(&mut self, operation: u8) -> Option<usize> {
        let value = match operation {
            op::ADDR => self.code.u64()?,
            op::CONST1U..=op::CONST8S => return self.sized_constant(operation - op::CONST1U),
            op::CONSTU => self.code.uleb()?,
            op::CONSTS => self.code.sleb()? as u64,
            op::LIT0..=op::LIT31 => u64::from(operation - op::LIT0),
            _ => return None,
        };
        Some(value as usize)
    }

    /// One, two, four and eight bytes, each without and with a sign.
    fn sized_constant(&mut self, kind: u8) -> Option<usize> {
        let bytes = 1 << (kind / 2);
        let value = self.code.number(bytes)?;
        let unused = 64 - 8 * bytes;
        let is_signed = kind % 2 == 1;
        Some(if is_signed { ((value << unused) as i64 >> unused) as usize } else { value as usize })
    }

    fn shuffle(&mut self, operation: u8) -> Result<(), Stop> {
        let top = self.pop()?;
        match operation {
            op::DROP => return Ok(()),
            op::DUP => self.push(top)?,
            op::OVER | op::SWAP => {
                let below = self.pop()?;
                if operation == op::OVER {
                    self.push(below)?;
                    self.push(top)?;
                    return self.push(below);
                }
                self.push(top)?;
                return self.push(below);
            }
            _ => return Err(Stop::End),
        }
        self.push(top)
    }

    fn change(&mut self, operation: u8) -> Result<(), Stop> {
        let value = self.pop()?;
        let changed = match operation {
            op::NEG => value.wrapping_neg(),
            op::NOT => !value,
            _ => value.wrapping_add(self.code.uleb().ok_or(Stop::End)? as usize),
        };
        self.push(changed)
    }

    fn combine(&mut self, operation: u8) -> Result<(), Stop> {
        let right = self.pop()?;
        let left = self.pop()?;
        let shift = u32::try_from(right).unwrap_or(u32::MAX);
        self.push(match operation {
            op::AND => left & right,
            op::MINUS => left.wrapping_sub(right),
            op::MUL => left.wrapping_mul(right),
            op::OR => left | right,
            op::PLUS => left.wrapping_add(right),
            op::SHL => left.checked_shl(shift).unwrap_or(0),
            op::SHR => left.checked_shr(shift).unwrap_or(0),
            op::SHRA => (left as isize >> shift.min(63)) as usize,
            op::XOR => left ^ right,
            op::EQ..=op::NE => usize::from(holds(operation, left as isize, right as isize)),
            _ => return Err(Stop::End),
        })
    }
}

/// The comparisons, in the order of their numbers.
fn holds(operation: u8, left: isize, right: isize) -> bool {
    match operation - op::EQ {
        0 => left == right,
        1 => left >= right,
        2 => left > right,
        3 => left <= right,
        4 => left < right,
        _ => left != right,
    }
}

#[cfg(test)]
#[path = "expression_tests.rs"]
mod tests;
