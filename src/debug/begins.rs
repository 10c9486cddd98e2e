//! Where blocks begin, out of reach of whoever writes beyond one: a byte for each 64 bytes of addresses, which says whether a
//! block begins there, where, and what became of it. Pages of it are resident only where blocks are.
//!
//! No two blocks begin within 64 bytes: each has its record before it and guards on both sides (`guard.rs`).

use crate::os::{self, Span};
use crate::sync::{AcqRel, Acquire, AtomicPtr, AtomicU8, AtomicUsize, Relaxed, Release};
use core::ptr::null_mut;

/// Bytes that share a byte here.
const UNIT: usize = 64;
/// Bytes that share a leaf, and addresses that there are for a program.
const LEAF_SPAN: usize = 64 << 20;
const ADDRESSES: usize = 1 << 47;
const LEAVES: usize = ADDRESSES / LEAF_SPAN;
const LEAF: usize = LEAF_SPAN / UNIT;

/// What became of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    /// The program has it.
    Live = 1,
    /// It was freed, and is held back.
    Held = 2,
    /// It was freed, and went back to the heap: its memory may be used again.
    Freed = 3,
}

impl State {
    pub(super) fn of(byte: u8) -> Option<Self> {
        match byte & 3 {
            1 => Some(Self::Live),
            2 => Some(Self::Held),
            3 => Some(Self::Freed),
            _ => None,
        }
    }
}

/// Where the leaf for `address` lies, if that is one of a heap that processes share.
#[cfg(feature = "shared")]
fn shared_leaf(address: usize) -> Option<*mut AtomicU8> {
    crate::shared::begins_around(address).map(core::ptr::with_exposed_provenance_mut)
}

#[cfg(not(feature = "shared"))]
fn shared_leaf(_: usize) -> Option<*mut AtomicU8> {
    None
}

/// Addresses that share a leaf, and its bytes.
#[cfg(feature = "shared")]
pub(crate) const SHARED_SPAN: usize = LEAF_SPAN;
#[cfg(feature = "shared")]
pub(crate) const SHARED_BYTES: usize = LEAF;

/// Begins of blocks, everywhere.
#[derive(Debug)]
pub(super) struct Begins {
    /// `LEAVES` pointers to leaves; null before the first block.
    root: AtomicPtr<AtomicPtr<AtomicU8>>,
    /// Whether leaves of heaps that processes share are theirs, which lie in their files.
    shares: bool,
    /// No leaf is below or above these.
    lowest: AtomicUsize,
    highest: AtomicUsize,
}

/// The byte of a block that begins at `address` and is in `state`.
fn byte(address: usize, state: State) -> u8 {
    (address % UNIT / 16 * 4) as u8 | state as u8
}

/// The address that a byte of the unit around `address` is about.
fn begin(address: usize, byte: u8) -> usize {
    address / UNIT * UNIT + usize::from(byte / 4) * 16
}

/// Nothing begins in `base` to `end` any more, which share `leaf`.
#[inline]
fn forget(leaf: *const AtomicU8, base: usize, end: usize) {
    let (mut unit, last) = (base / UNIT, (end - 1) / UNIT);
    // Most of it is zero, and looked at eight units at a step.
    while unit + 8 <= last {
        let eight = leaf.wrapping_add(unit % LEAF).cast::<[u8; 8]>();
        // SAFETY: a leaf has a byte for each of its units, for good. In the first of these a neighbour may begin, or end,
        // meanwhile: whatever is read of it, each unit is looked at by itself before anything is written.
        if unsafe { eight.read_volatile() } != [0; 8] {
            (unit..unit + 8).for_each(|unit| forget_unit(leaf, unit, base, end));
        }
        unit += 8;
    }
    (unit..=last).for_each(|unit| forget_unit(leaf, unit, base, end));
}

/// Nothing begins in a unit any more that lies from `base` to `end`.
#[inline(always)]
fn forget_unit(leaf: *const AtomicU8, unit: usize, base: usize, end: usize) {
    // SAFETY: a leaf has a byte for each of its units, for good.
    let cell = unsafe { &*leaf.wrapping_add(unit % LEAF) };
    let byte = cell.load(Relaxed);
    if byte != 0 && (base..end).contains(&begin(unit * UNIT, byte)) {
        cell.store(0, Relaxed);
    }
}

impl Begins {
    pub(super) const fn new() -> Self {
        Self {
            root: AtomicPtr::new(null_mut()),
            shares: true,
            lowest: AtomicUsize::new(LEAVES),
            highest: AtomicUsize::new(0),
        }
    }

    /// Begins that no other process knows.
    pub(super) const fn apart() -> Self {
        Self { shares: false, ..Self::new() }
    }

    /// Makes room for the pointers; false without memory.
    pub(super) fn open(&self) -> bool {
        if self.root.load(Relaxed).is_null() {
            let Some(root) = os::map_sparse(LEAVES * size_of::<AtomicPtr<AtomicU8>>()) else {
                return false;
            };
            // Release: publishes zeroed memory. Whoever opens does it once.
            self.root.store(root.at as *mut _, Release);
        }
        true
    }

    /// Gives all memory back, of begins that nobody else knows.
    pub(super) fn close(self) {
        let leaves = self.indices().filter_map(|leaf| Some(self.place(leaf * LEAF_SPAN)?.load(Acquire)));
        leaves.filter(|leaf| !leaf.is_null()).for_each(|leaf| os::unmap(Span { at: leaf as usize, bytes: LEAF }));
        os::unmap(Span { at: self.root.load(Acquire) as usize, bytes: LEAVES * size_of::<AtomicPtr<AtomicU8>>() });
    }

    /// The leaf's place for `address`; `None` where no program has addresses, and before the first block.
    fn place(&self, address: usize) -> Option<&AtomicPtr<AtomicU8>> {
        let root = self.root.load(Relaxed);
        if root.is_null() || address >= ADDRESSES {
            return None;
        }
        // SAFETY: there are that many places.
        let place = unsafe { root.add(address / LEAF_SPAN) };
        // SAFETY: as above; they stay as long as the process.
        Some(unsafe { &*place })
    }

    /// The byte for `address`, if there is a leaf.
    fn cell(&self, address: usize) -> Option<&AtomicU8> {
        // Acquire: pairs with `make_leaf`: the leaf is mapped.
        let place = self.place(address)?;
        let mut leaf = place.load(Acquire);
        if leaf.is_null() {
            leaf = self.adopt(place, address)?;
        }
        // SAFETY: a leaf has that many bytes.
        let cell = unsafe { leaf.add(address % LEAF_SPAN / UNIT) };
        // SAFETY: as above; it stays as long as the process.
        Some(unsafe { &*cell })
    }

    /// The leaf of a heap that processes share, which lies in its file, if `address` is one of such a heap.
    #[cold]
    #[inline(never)]
    fn adopt(&self, place: &AtomicPtr<AtomicU8>, address: usize) -> Option<*mut AtomicU8> {
        let leaf = shared_leaf(address).filter(|_| self.shares)?;
        self.lowest.fetch_min(address / LEAF_SPAN, Relaxed);
        self.highest.fetch_max(address / LEAF_SPAN, Relaxed);
        // Release: as in `make_leaf`. Whoever does it at once does the same.
        place.store(leaf, Release);
        Some(leaf)
    }

    /// The heap at `span`, which processes share, is no more here.
    #[cfg(feature = "shared")]
    pub(super) fn disown(&self, span: Span) {
        let leaves = span.at / LEAF_SPAN..=(span.at + span.bytes - 1) / LEAF_SPAN;
        leaves.filter_map(|leaf| self.place(leaf * LEAF_SPAN)).for_each(|place| place.store(null_mut(), Relaxed));
    }

    /// The byte for `address`, whose leaf is made if need be; `None` without memory.
    fn cell_to_write(&self, address: usize) -> Option<&AtomicU8> {
        match self.cell(address) {
            Some(cell) => Some(cell),
            None => self.make_leaf(address),
        }
    }

    #[cold]
    fn make_leaf(&self, address: usize) -> Option<&AtomicU8> {
        let (place, fresh) = (self.place(address)?, os::map_sparse(LEAF)?);
        // Before the leaf is there: whoever looks at all of them finds it once a block is noted in it.
        self.lowest.fetch_min(address / LEAF_SPAN, Relaxed);
        self.highest.fetch_max(address / LEAF_SPAN, Relaxed);
        // Release: publishes the mapping; pairs with `cell`.
        if place.compare_exchange(null_mut(), fresh.at as *mut AtomicU8, AcqRel, Acquire).is_err() {
            os::unmap(fresh);
        }
        self.cell(address)
    }

    /// Makes room for all blocks that may begin in `span`; false without memory.
    pub(super) fn cover(&self, span: Span) -> bool {
        (span.at / LEAF_SPAN..=(span.at + span.bytes - 1) / LEAF_SPAN)
            .all(|leaf| self.cell_to_write(leaf * LEAF_SPAN).is_some())
    }

    /// A block begins at `address`, in memory of `base` to `end`, where nothing else begins any more. False without memory.
    #[inline]
    pub(super) fn enter(&self, address: usize, base: usize, end: usize) -> bool {
        let Some(cell) = self.cell_to_write(address) else {
            return false;
        };
        if base / LEAF_SPAN == end / LEAF_SPAN {
            let leaf = core::ptr::from_ref(cell).wrapping_sub(address % LEAF_SPAN / UNIT);
            forget(leaf, base, end);
        } else {
            self.forget_in_leaves(base, end);
        }
        // Release: the block's record and guards are there; pairs with `state`.
        cell.store(byte(address, State::Live), Release);
        true
    }

    #[cold]
    fn forget_in_leaves(&self, base: usize, end: usize) {
        let mut from = base;
        while from < end {
            let to = ((from / LEAF_SPAN + 1) * LEAF_SPAN).min(end);
            if let Some(cell) = self.cell(from) {
                forget(core::ptr::from_ref(cell).wrapping_sub(from % LEAF_SPAN / UNIT), from, to);
            }
            from = to;
        }
    }

    /// What begins at just this address.
    pub(super) fn state(&self, address: usize) -> Option<State> {
        // Acquire: pairs with `enter`.
        let byte = self.cell(address)?.load(Acquire);
        State::of(byte).filter(|_| begin(address, byte) == address)
    }

    /// The live block at `address` becomes a held one; if there is none, what there is.
    pub(super) fn hold(&self, address: usize) -> Result<(), Option<State>> {
        let (live, held) = (byte(address, State::Live), byte(address, State::Held));
        match self.cell(address) {
            Some(cell) if address.is_multiple_of(16) => match cell.compare_exchange(live, held, AcqRel, Relaxed) {
                Ok(_) => Ok(()),
                Err(_) => Err(self.state(address)),
            },
            _ => Err(None),
        }
    }

    /// The block at `address` is in `state` from now on.
    pub(super) fn set(&self, address: usize, state: State) {
        if let Some(cell) = self.cell(address) {
            cell.store(byte(address, state), Release);
        }
    }

    /// Nothing begins in `span` any more.
    pub(super) fn forget(&self, span: Span) {
        self.forget_in_leaves(span.at, span.at + span.bytes);
    }

    /// The last block that begins at or below `address`, no more than `reach` bytes away, and its state.
    pub(super) fn last_before(&self, address: usize, reach: usize) -> Option<(usize, State)> {
        let mut unit = address;
        while address - unit <= reach {
            match self.cell(unit).map(|cell| cell.load(Acquire)) {
                Some(byte) if byte != 0 && begin(unit, byte) <= address => {
                    return State::of(byte).map(|state| (begin(unit, byte), state));
                }
                Some(_) => unit = (unit / UNIT * UNIT).checked_sub(1)?,
                None => unit = (unit / LEAF_SPAN * LEAF_SPAN).checked_sub(1)?,
            }
        }
        None
    }

    /// The first block that begins above `address`, less than `reach` bytes away, and its state.
    pub(super) fn first_after(&self, address: usize, reach: usize) -> Option<(usize, State)> {
        let units = (address / UNIT..).map(|unit| unit * UNIT).take_while(|unit| *unit < address.saturating_add(reach));
        units.filter_map(|unit| Some((unit, self.cell(unit)?.load(Acquire)))).find_map(|(unit, byte)| {
            State::of(byte).filter(|_| begin(unit, byte) > address).map(|state| (begin(unit, byte), state))
        })
    }

    /// Where there may be leaves.
    fn indices(&self) -> core::ops::RangeInclusive<usize> {
        self.lowest.load(Relaxed)..=self.highest.load(Relaxed)
    }

    /// Runs `visit` for each block that is there now, until it says that this is enough. O(pages of leaves).
    pub(super) fn each(&self, mut visit: impl FnMut(usize, State) -> bool) {
        let root = self.root.load(Acquire);
        if root.is_null() {
            return;
        }
        for index in self.indices() {
            // SAFETY: there are that many places. Acquire: pairs with `make_leaf`.
            let leaf = unsafe { &*root.wrapping_add(index) }.load(Acquire);
            if !leaf.is_null() && !each_in(leaf, index * LEAF_SPAN, &mut visit) {
                return;
            }
        }
    }
}

/// Runs `visit` for each block of a leaf, which is about the addresses from `from` on; false if it has seen enough.
fn each_in(leaf: *const AtomicU8, from: usize, visit: &mut impl FnMut(usize, State) -> bool) -> bool {
    for word in (0..LEAF).step_by(8) {
        // SAFETY: inside the leaf, and aligned. Most of it is zero: then there is nothing to look at.
        if unsafe { leaf.wrapping_add(word).cast::<u64>().read_volatile() } == 0 {
            continue;
        }
        for unit in word..word + 8 {
            // SAFETY: as above. Acquire: pairs with `enter`.
            let byte = unsafe { &*leaf.wrapping_add(unit) }.load(Acquire);
            if let Some(state) = State::of(byte)
                && !visit(begin(from + unit * UNIT, byte), state)
            {
                return false;
            }
        }
    }
    true
}
