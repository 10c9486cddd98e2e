//! The loops whose instructions `compare --micro` counts: one call or small pattern each, with constant layouts.
//!
//! A loop is run at two lengths, and so is the empty loop of its shape, which does everything except call the
//! allocator; the difference of the differences is the allocator's own cost. The pointers pass through an empty piece
//! of assembly, of which the compiler knows nothing, so that no call can be left out.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};

/// Blocks in a batch.
pub const BATCH: usize = 1000;

/// A loop.
pub struct Row {
    /// The name that `run` takes.
    pub name: &'static str,
    /// What the table calls it.
    pub what: &'static str,
    /// The empty loop to subtract.
    pub empty: &'static str,
    /// The two lengths at which it is run.
    pub turns: [usize; 2],
}

const PAIR: [usize; 2] = [2_000, 22_000];
const BATCHES: [usize; 2] = [20 * BATCH, 120 * BATCH];

const fn pair(name: &'static str, what: &'static str) -> Row {
    Row { name, what, empty: "empty", turns: PAIR }
}

const fn batch(name: &'static str, what: &'static str, empty: &'static str) -> Row {
    Row { name, what, empty, turns: BATCHES }
}

/// All loops, in the order of the table.
pub const ROWS: &[Row] = &[
    pair("pair-16", "alloc and free 16 B"),
    pair("pair-64", "alloc and free 64 B"),
    pair("pair-256", "alloc and free 256 B"),
    pair("pair-1024", "alloc and free 1 KiB"),
    pair("pair-4096", "alloc and free 4 KiB"),
    pair("pair-32k", "alloc and free 32 KiB"),
    pair("pair-1m", "alloc and free 1 MiB"),
    pair("aligned", "alloc and free 48 B at 64"),
    pair("aligned-page", "alloc and free 4 KiB at 4 KiB"),
    pair("zeroed", "alloc zeroed and free 64 B"),
    pair("doubling", "16 B grown to 1 KiB by doubling, freed"),
    batch("batch-fifo", "1,000 of 64 B, freed in order, per block", "fifo-empty"),
    batch("batch-random", "1,000 of 64 B, freed out of order, per block", "random-empty"),
    batch("batch-mixed", "1,000 of 16 to 512 B, freed out of order, per block", "mixed-empty"),
];

/// The sizes of the mixed batch, in turn.
const MIXED: [usize; 8] = [16, 48, 64, 128, 24, 256, 96, 512];

type Held = [*mut u8; BATCH];

const fn layout(size: usize, align: usize) -> Layout {
    match Layout::from_size_align(size, align) {
        Ok(layout) => layout,
        Err(_) => panic!("a valid layout"),
    }
}

/// The pointer, of which the compiler knows nothing; no instruction.
#[inline(always)]
fn opaque(mut at: *mut u8) -> *mut u8 {
    // SAFETY: it does nothing.
    unsafe { std::arch::asm!("/* {0} */", inout(reg) at, options(nostack, preserves_flags)) };
    at
}

#[inline(always)]
fn take(of: Layout) -> *mut u8 {
    // SAFETY: no size here is 0.
    opaque(unsafe { alloc(of) })
}

#[inline(always)]
fn give(at: *mut u8, of: Layout) {
    // SAFETY: taken for the layout, and given once.
    unsafe { dealloc(at, of) }
}

fn pairs<const SIZE: usize, const ALIGN: usize>(turns: usize) {
    const { assert!(SIZE > 0) };
    for _ in 0..turns {
        give(take(const { layout(SIZE, ALIGN) }), const { layout(SIZE, ALIGN) });
    }
}

fn zeroed(turns: usize) {
    const OF: Layout = layout(64, 8);
    for _ in 0..turns {
        // SAFETY: the size is not 0.
        give(opaque(unsafe { alloc_zeroed(OF) }), OF);
    }
}

fn doubling(turns: usize) {
    for _ in 0..turns {
        let (mut size, mut at) = (16, take(layout(16, 8)));
        while size < 1024 {
            // SAFETY: taken or grown with this layout; the new size is not 0.
            at = opaque(unsafe { realloc(at, layout(size, 8), 2 * size) });
            size *= 2;
        }
        give(at, layout(size, 8));
    }
}

/// Batches: `take` fills the places in order, `give` empties them in the order of `place`.
#[inline(always)]
fn batches(
    turns: usize,
    take: impl Fn(usize) -> *mut u8,
    place: impl Fn(usize) -> usize,
    give: impl Fn(usize, *mut u8),
) {
    let mut held: Held = [std::ptr::null_mut(); BATCH];
    for _ in 0..turns / BATCH {
        for (index, slot) in held.iter_mut().enumerate() {
            *slot = take(index);
        }
        for turn in 0..BATCH {
            let index = place(turn);
            give(index, held[index]);
        }
    }
}

fn in_order(turn: usize) -> usize {
    turn
}

/// A fixed order without a pattern that neighbours in memory could profit from: 389 and the batch have no common
/// divisor.
fn shuffled(turn: usize) -> usize {
    turn * 389 % BATCH
}

fn mixed(index: usize) -> Layout {
    layout(MIXED[index % MIXED.len()], 8)
}

fn empty(turns: usize) {
    let mut at = std::ptr::dangling_mut();
    for _ in 0..turns {
        at = opaque(at);
    }
}

/// Runs the loop `name` for `turns` turns.
///
/// # Panics
///
/// If there is no such loop.
pub fn run(name: &str, turns: usize) {
    const SMALL: Layout = layout(64, 8);
    let nothing = |_| opaque(std::ptr::dangling_mut());
    let drop = |_, at| _ = opaque(at);
    match name {
        "empty" => empty(turns),
        "fifo-empty" => batches(turns, nothing, in_order, drop),
        "random-empty" => batches(turns, nothing, shuffled, drop),
        "mixed-empty" => {
            let nothing = |index| opaque(std::ptr::without_provenance_mut(mixed(index).size()));
            let drop = |index, _| _ = opaque(std::ptr::without_provenance_mut(mixed(index).size()));
            batches(turns, nothing, shuffled, drop);
        }
        "pair-16" => pairs::<16, 8>(turns),
        "pair-64" => pairs::<64, 8>(turns),
        "pair-256" => pairs::<256, 8>(turns),
        "pair-1024" => pairs::<1024, 8>(turns),
        "pair-4096" => pairs::<4096, 8>(turns),
        "pair-32k" => pairs::<{ 32 << 10 }, 8>(turns),
        "pair-1m" => pairs::<{ 1 << 20 }, 8>(turns),
        "aligned" => pairs::<48, 64>(turns),
        "aligned-page" => pairs::<4096, 4096>(turns),
        "zeroed" => zeroed(turns),
        "doubling" => doubling(turns),
        "batch-fifo" => batches(turns, |_| take(SMALL), in_order, |_, at| give(at, SMALL)),
        "batch-random" => batches(turns, |_| take(SMALL), shuffled, |_, at| give(at, SMALL)),
        "batch-mixed" => {
            batches(turns, |index| take(mixed(index)), shuffled, |index, at| give(at, mixed(index)));
        }
        _ => panic!("no such loop: {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_and_its_empty_loop_run() {
        for row in ROWS {
            run(row.name, 2 * BATCH);
            run(row.empty, 2 * BATCH);
        }
    }

    #[test]
    fn the_shuffled_order_visits_every_place_once() {
        let mut seen = [false; BATCH];
        (0..BATCH).for_each(|turn| assert!(!std::mem::replace(&mut seen[shuffled(turn)], true)));
    }
}
