//! Numbers read in order from bytes that may say anything: each look is bounded, and nothing overflows.

/// Bytes in order, and what they are composed to: little-endian numbers, and those of DWARF with seven bits a byte.
pub(super) trait Input {
    /// The next byte, if there is one.
    fn u8(&mut self) -> Option<u8>;

    /// A number of so many bytes, up to eight.
    fn number(&mut self, bytes: u32) -> Option<u64> {
        let mut value = 0;
        for shift in 0..bytes.min(8) {
            value |= u64::from(self.u8()?) << (8 * shift);
        }
        Some(value)
    }

    fn u16(&mut self) -> Option<u16> {
        self.number(2).map(|value| value as u16)
    }

    fn u32(&mut self) -> Option<u32> {
        self.number(4).map(|value| value as u32)
    }

    fn u64(&mut self) -> Option<u64> {
        self.number(8)
    }

    /// The bits of an LEB128 number that fit, and how many were given.
    fn leb(&mut self) -> Option<(u64, u32, bool)> {
        let (mut value, mut shift) = (0_u64, 0_u32);
        loop {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            shift = shift.saturating_add(7);
            if byte & 0x80 == 0 {
                return Some((value, shift, byte & 0x40 != 0));
            }
        }
    }

    /// An unsigned LEB128 number.
    fn uleb(&mut self) -> Option<u64> {
        self.leb().map(|(value, ..)| value)
    }

    /// A signed LEB128 number.
    fn sleb(&mut self) -> Option<i64> {
        self.leb().map(|(value, bits, is_negative)| {
            let ones = if is_negative { u64::MAX.checked_shl(bits).unwrap_or(0) } else { 0 };
            (value | ones) as i64
        })
    }
}

/// A look into bytes in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// From `at` on; nothing if that is behind the end.
    pub(super) const fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// Where it stands.
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    pub(super) const fn is_done(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// The next `len` bytes, behind which it stands then.
    pub(super) fn cut(&mut self, len: usize) -> Option<Self> {
        let end = self.at.checked_add(len)?;
        let part = Self { bytes: self.bytes.get(..end)?, at: self.at };
        self.at = end;
        Some(part)
    }
}

impl Input for Reader<'_> {
    fn u8(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }
}
