//! What an audit finds.

use core::fmt::{self, Display, Formatter};

/// A layer of a heap, as the picture in the crate's documentation names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layer {
    /// A thread's free blocks and runs.
    Cache,
    /// Lists of blocks and of short runs on their way.
    Depot,
    /// Slabs, and blocks sorted into them.
    Slabs,
    /// Runs of pages.
    Runs,
    /// The page map.
    Map,
    /// Blocks themselves: their records and guards, and what was freed and is held back (feature `malloc-debug`).
    Blocks,
}

/// The first thing that an audit found wrong: something wrote into memory that was not its own, or a block was freed that
/// its owner had no right to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    layer: Layer,
    rule: &'static str,
    address: usize,
}

/// `Ok` where a rule holds.
pub(crate) type Verdict = Result<(), Finding>;

impl Finding {
    /// The layer whose records contradict each other, or the ones below.
    #[must_use]
    pub const fn layer(&self) -> Layer {
        self.layer
    }

    /// The rule that is broken.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        self.rule
    }

    /// The address of the page, slab or block that the rule is about; 0 if it is about a whole layer.
    #[must_use]
    pub const fn address(&self) -> usize {
        self.address
    }
}

impl Display for Finding {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { layer, rule, address } = self;
        write!(f, "stratalloc: the heap is damaged: {layer:?}: not so: {rule}")?;
        if *address == 0 { Ok(()) } else { write!(f, " (at {address:#x})") }
    }
}

impl core::error::Error for Finding {}

impl Layer {
    /// `Ok` if `rule` holds for what is at `address`.
    pub(crate) const fn holds(self, holds: bool, rule: &'static str, address: usize) -> Verdict {
        if holds { Ok(()) } else { Err(self.breaks(rule, address)) }
    }

    /// That what is at `address` breaks `rule`.
    pub(crate) const fn breaks(self, rule: &'static str, address: usize) -> Finding {
        Finding { layer: self, rule, address }
    }
}
