//! Steps as a fuzzer makes them, and what they stand for.

use crate::oracle::{Burst, Op, layout_of_code, size_of_code};
use arbitrary::Arbitrary;
use std::alloc::Layout;

/// A size in three bytes: see `size_of_code`.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Size(u8, u8, u8);

/// A size and an alignment; of 16 codes of an alignment 15 are at most 16 bytes.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Request(Size, u8);

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Step {
    Alloc(Request),
    AllocZeroed(Request),
    Free(u16),
    Realloc(u16, Size),
    Hand(u16),
    Take,
    Park,
    Collect,
}

impl Size {
    /// In bytes.
    pub fn decode(self) -> usize {
        size_of_code(self.0, self.1, self.2)
    }
}

impl Request {
    pub fn decode(self) -> Layout {
        let align_log = if self.1 < 240 { self.1 % 5 } else { self.1 };
        layout_of_code(self.0.decode(), align_log)
    }
}

impl Step {
    pub fn decode(self) -> Op {
        match self {
            Self::Alloc(request) => Op::Alloc(request.decode()),
            Self::AllocZeroed(request) => Op::AllocZeroed(request.decode()),
            Self::Free(index) => Op::Free(index.into()),
            Self::Realloc(index, size) => Op::Realloc(index.into(), size.decode()),
            Self::Hand(index) => Op::Hand(index.into()),
            Self::Take => Op::Take,
            Self::Park => Op::Park,
            Self::Collect => Op::Collect,
        }
    }
}

/// A step, and how often: most once, some many times.
pub fn burst(times: u8, step: Step) -> Burst {
    Burst::new(usize::from(times.saturating_sub(160)).max(1), step.decode())
}
