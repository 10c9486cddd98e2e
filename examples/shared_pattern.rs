//! Blocks of many sizes go from process to process: each writes a pattern into those that it makes, and checks and frees what it
//! gets from others. In the end all is freed, and the heap is as empty as it was.
//!
//! ```sh
//! cargo run --release --features shared --example shared_pattern
//! ```
//!
//! The program starts itself again, with the heap's path and a number, for each of the other processes.
//! (`examples/c/shared_pattern.c` is the same in C, with `fork`.)

#[path = "work/report.rs"]
#[allow(dead_code, reason = "how much is resident is not asked here")]
mod report;

use report::{complain, say};
use std::env;
use std::error::Error;
use std::path::Path;
use std::process::{Child, Command, ExitCode};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::*};
use stratalloc::{SharedConfig, SharedHeap};

const PROCESSES: u64 = 4;
const TURNS: u64 = 5_000;
const SLOTS: usize = 256;

/// The root of the heap: where blocks change hands. Zero bytes are an empty one.
#[repr(C)]
struct Table {
    slots: [AtomicPtr<Block>; SLOTS],
    /// Blocks that were checked by another process than the one that made them.
    passed_on: AtomicU64,
    damaged: AtomicU64,
}

/// What a block begins with; behind it are `bytes` bytes that follow from `seed`.
#[repr(C)]
struct Block {
    maker: u64,
    seed: u64,
    bytes: usize,
}

/// A sequence that looks random, and is the same in every run.
struct Sequence(u64);

impl Sequence {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// From 0 to 128 KiB: as often between 16 and 32 bytes as between 64 and 128 KiB.
    fn size(&mut self) -> usize {
        let most = 32 << (self.next() % 13);
        self.next() as usize % (most + 1)
    }
}

/// The byte at `index` of a block's pattern.
fn byte(seed: u64, index: usize) -> u8 {
    (seed as usize).wrapping_add(index.wrapping_mul(151)) as u8
}

/// Where a block's bytes begin.
fn content(block: NonNull<Block>) -> *mut u8 {
    block.as_ptr().wrapping_add(1).cast()
}

/// A block with its pattern; `None` if there is no memory.
fn make(heap: &SharedHeap, maker: u64, seed: u64, bytes: usize) -> Option<NonNull<Block>> {
    let block = NonNull::new(heap.malloc(size_of::<Block>() + bytes).cast::<Block>())?;
    // SAFETY: it is ours, and large enough.
    unsafe { block.write(Block { maker, seed, bytes }) };
    // SAFETY: there is room for so many bytes behind it.
    let content = unsafe { std::slice::from_raw_parts_mut(content(block), bytes) };
    content.iter_mut().enumerate().for_each(|(index, place)| *place = byte(seed, index));
    Some(block)
}

/// Checks a block, whoever made it, and frees it.
fn take(heap: &SharedHeap, table: &Table, me: u64, block: NonNull<Block>) {
    // SAFETY: it was whole when it came into a slot, and nobody else has it any more.
    let Block { maker, seed, bytes } = unsafe { block.read() };
    // SAFETY: as above, with so many bytes.
    let content = unsafe { std::slice::from_raw_parts(content(block), bytes) };
    if !content.iter().enumerate().all(|(index, found)| *found == byte(seed, index)) {
        table.damaged.fetch_add(1, Relaxed);
    }
    table.passed_on.fetch_add(u64::from(maker != me), Relaxed);
    // SAFETY: as above.
    unsafe { heap.free(block.as_ptr().cast()) };
}

/// What each process does.
fn work(heap: &SharedHeap, table: &Table, me: u64) -> Result<(), &'static str> {
    let mut random = Sequence(me);
    for _ in 0..TURNS {
        let (seed, size) = (random.next(), random.size());
        let fresh = make(heap, me, seed, size).ok_or("there is no room for the heap")?;
        let slot = &table.slots[random.next() as usize % SLOTS];
        // Release and acquire: whoever gets a block sees what its maker wrote.
        if let Some(old) = NonNull::new(slot.swap(fresh.as_ptr(), AcqRel)) {
            take(heap, table, me, old);
        }
    }
    Ok(())
}

/// This program again, for process `number`.
fn start(path: &Path, number: u64) -> std::io::Result<Child> {
    Command::new(env::current_exe()?).arg(path).arg(number.to_string()).spawn()
}

/// The first process: starts the others, works beside them, and looks at what is left.
fn lead(path: &Path) -> Result<(), Box<dyn Error>> {
    let heap = SharedHeap::open(path, SharedConfig::new(), |_| {})?;
    let before = heap.stats().allocated;
    // SAFETY: zero bytes are a table, and a block is aligned for it.
    let table = unsafe { heap.calloc(1, size_of::<Table>()).cast::<Table>().as_ref() };
    let table = table.ok_or("there is no room for the heap")?;
    heap.set_global(table);

    let others = (1..PROCESSES).map(|number| start(path, number)).collect::<Result<Vec<Child>, _>>()?;
    work(&heap, table, 0)?;
    for mut other in others {
        if !other.wait()?.success() {
            return Err("a process has failed".into());
        }
    }

    let left = table.slots.iter().filter_map(|slot| NonNull::new(slot.load(Acquire)));
    left.for_each(|block| take(&heap, table, 0, block));
    let (passed_on, damaged) = (table.passed_on.load(Relaxed), table.damaged.load(Relaxed));
    say(format_args!("{PROCESSES} processes: {} blocks made and checked", PROCESSES * TURNS));
    say(format_args!("{passed_on} of them by another than had made them, {damaged} damaged"));

    heap.set_global::<Table>(std::ptr::null());
    // SAFETY: allocated above, and used no more.
    unsafe { heap.free(std::ptr::from_ref(table).cast_mut().cast()) };
    heap.check()?;
    let allocated = heap.stats().allocated;
    say(format_args!("the heap is sound; {before} bytes were allocated before, {allocated} are now"));
    heap.destroy()?;
    if damaged > 0 || allocated != before { Err("that is not as it should be".into()) } else { Ok(()) }
}

/// One of the other processes.
fn follow(path: &Path, number: u64) -> Result<(), Box<dyn Error>> {
    let heap = SharedHeap::open(path, SharedConfig::new(), |_| {})?;
    // SAFETY: the first process has set it, and all change it only by atomics.
    let table = unsafe { heap.global() }.ok_or("the heap has no table")?;
    Ok(work(&heap, table, number)?)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let result = match &arguments[..] {
        [path, number] => number.parse().map_err(Box::from).and_then(|number| follow(path.as_ref(), number)),
        [path] => lead(path.as_ref()),
        _ => lead(&env::temp_dir().join(format!("shared-pattern-{}", std::process::id()))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}
