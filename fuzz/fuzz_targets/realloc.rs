//! Blocks that change their size, at every alignment, in mapped memory: within a class, from class to class and to pages,
//! into the free run behind, by the page tables.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use stratalloc::Config;
use stratalloc::lock::Spin;
use stratalloc_fuzz::oracle::{Op, Pool, assert_empty, layout_of_code, open, with_player};
use stratalloc_fuzz::script::Size;
use stratalloc_fuzz::tracked::Tracked;

/// Bytes of a block, at the most: enough to be moved by page tables.
const LARGEST: usize = 12 << 20;

#[derive(Arbitrary, Debug)]
enum Step {
    /// A new block.
    New {
        size: Size,
        align_log: u8,
        zeroed: bool,
    },
    /// The block at an index gets another size.
    Change {
        index: u8,
        size: Size,
    },
    /// It gets some bytes more or less.
    Nudge {
        index: u8,
        by: i8,
    },
    /// It gets several times its size.
    Multiply {
        index: u8,
        by: u8,
    },
    Free(u8),
    Collect,
}

#[derive(Arbitrary, Debug)]
struct Script {
    purging: bool,
    steps: Vec<Step>,
}

fuzz_target!(|script: Script| {
    let config = Config::new().idle_bytes(if script.purging { 0 } else { 8 << 20 });
    let Some(engine) = open::<_, Spin>(Tracked::default(), &config) else { return };
    with_player(&engine, &Pool::default(), 1, |player| {
        for step in script.steps.iter().take(200) {
            let size_at = |index: &u8| player.oracle.size(usize::from(*index)).unwrap_or(0);
            let op = match step {
                Step::New { size, align_log, zeroed: false } => Op::Alloc(layout_of_code(size.decode(), *align_log)),
                Step::New { size, align_log, zeroed: true } => {
                    Op::AllocZeroed(layout_of_code(size.decode(), *align_log))
                }
                Step::Change { index, size } => Op::Realloc((*index).into(), size.decode()),
                Step::Nudge { index, by } => {
                    Op::Realloc((*index).into(), size_at(index).saturating_add_signed(isize::from(*by)).min(LARGEST))
                }
                Step::Multiply { index, by } => {
                    Op::Realloc((*index).into(), (size_at(index) * usize::from(by % 6)).min(LARGEST))
                }
                Step::Free(index) => Op::Free((*index).into()),
                Step::Collect => Op::Collect,
            };
            player.play(op);
        }
        player.audit();
        player.finish();
    });
    assert_empty(&engine);
});
