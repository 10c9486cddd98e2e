//! The registers of a frame, as far as they are known.

/// The numbers that DWARF has for them (System V ABI, x86_64).
pub(super) const RBX: usize = 3;
pub(super) const RBP: usize = 6;
pub(super) const RSP: usize = 7;
pub(super) const R12: usize = 12;
/// The return address, and the instruction that a frame is at.
pub(super) const RIP: usize = 16;
pub(super) const COUNT: usize = 17;

/// Values of registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registers {
    values: [usize; COUNT],
    /// A bit for each that is known; the value of another is 0.
    known: u32,
}

impl Registers {
    /// Nothing is known.
    pub(super) const fn none() -> Self {
        Self { values: [0; COUNT], known: 0 }
    }

    /// These alone are known.
    pub(super) fn only(known: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let mut registers = Self::none();
        known.into_iter().for_each(|(register, value)| registers.set(register, value));
        registers
    }

    pub(super) fn get(&self, register: usize) -> Option<usize> {
        self.values.get(register).copied().filter(|_| self.known & 1 << register != 0)
    }

    pub(super) fn set(&mut self, register: usize, value: usize) {
        if let Some(place) = self.values.get_mut(register) {
            *place = value;
            self.known |= 1 << register;
        }
    }
}
