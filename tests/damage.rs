//! Records that something has written over: an audit names them, or the program does not need them.

#![expect(clippy::disallowed_macros, reason = "the output says how much was in use")]

#[path = "oracle/mod.rs"]
mod oracle;

use oracle::{Op, Player, Pool, open, with_player};
use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use stratalloc::heap::{Blocks, Engine};
use stratalloc::lock::Spin;
use stratalloc::os::{Fixed, Span};
use stratalloc::{Config, Layer};

const PAGE: usize = 4096;
const PAGES: usize = 256;

/// Runs `test` with a heap over a buffer.
fn with_heap(test: impl FnOnce(&Engine<Fixed, Spin>)) {
    let layout = Layout::from_size_align(PAGE * PAGES, PAGE).expect("a small size");
    // SAFETY: the size is not 0.
    let buffer = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).expect("memory");
    // SAFETY: zeroed, ours, and there until the heap has gone.
    let source = unsafe { Fixed::new(buffer, layout.size(), PAGE) };
    test(&open(source, &Config::new()).expect("a heap"));
    // SAFETY: allocated above for the layout.
    unsafe { std::alloc::dealloc(buffer.as_ptr(), layout) };
}

fn size(step: usize) -> usize {
    [8, 24, 100, 700, 1500, 5000, 20_000, 70_000][step % 8]
}

/// Leaves blocks and runs of all kinds live, and others free, in caches, depots, slabs and runs.
fn fill(player: &mut Player<'_, Fixed, Spin>, steps: usize) {
    for step in 0..steps {
        let layout = Layout::from_size_align(size(step), 8).expect("a small size");
        player.play(if step % 5 == 0 { Op::AllocZeroed(layout) } else { Op::Alloc(layout) });
        if step % 3 == 0 {
            player.play(Op::Free(step * 7));
        }
        if step % 7 == 0 {
            player.play(Op::Realloc(step * 5, size(step / 7)));
        }
        if step % 101 == 100 {
            player.play(Op::Collect);
        }
    }
}

/// Every byte of `record`.
fn bytes(record: Span) -> impl Iterator<Item = *mut u8> {
    (record.at..record.at + record.bytes).map(std::ptr::with_exposed_provenance_mut)
}

/// Turns bits of the byte at `at` around.
fn flip(at: *mut u8, bits: u8) {
    // SAFETY: a record's byte, which nobody else reaches meanwhile.
    unsafe { AtomicU8::from_ptr(at) }.fetch_xor(bits, Relaxed);
}

fn records(engine: &Engine<Fixed, Spin>) -> Vec<Span> {
    let mut records = Vec::new();
    // SAFETY: this thread is alone.
    unsafe { engine.each_record(&mut |record| records.push(record)) };
    records
}

/// Turns bits of every byte of every record around, one byte after the other, and audits, alone or as if others were at it.
/// Returns the layers that were named, and the bytes for which none was.
fn named(
    player: &Player<'_, Fixed, Spin>,
    engine: &Engine<Fixed, Spin>,
    bits: u8,
    alone: bool,
) -> (Vec<Layer>, Vec<*mut u8>) {
    let (mut layers, mut silent) = (Vec::new(), Vec::new());
    for byte in records(engine).into_iter().flat_map(bytes) {
        flip(byte, bits);
        match if alone { player.check() } else { player.heap().check() } {
            Ok(()) => silent.push(byte),
            Err(finding) if layers.contains(&finding.layer()) => {}
            Err(finding) => layers.push(finding.layer()),
        }
        flip(byte, bits);
    }
    (layers, silent)
}

#[test]
fn d7_a_changed_byte_of_any_record_is_named_or_harmless() {
    for (steps, bits, alone) in [(400, 1, false), (1500, 0x80, true), (900, 0xff, true), (900, 0x10, false)] {
        with_heap(|engine| {
            with_player(engine, &Pool::default(), 1, |player| {
                fill(player, steps);
                player.check().expect("a sound heap");
                let total: usize = records(engine).iter().map(|record| record.bytes).sum();
                let (layers, silent) = named(player, engine, bits, alone);
                for layer in [Layer::Map, Layer::Slabs, Layer::Runs] {
                    assert!(layers.contains(&layer), "{layer:?} was never named, but {layers:?}");
                }
                println!("{} of {total} bytes of records are not in use", silent.len());
                // What is not named is not in use: all of it may change, and the program goes on.
                silent.into_iter().for_each(|byte| flip(byte, bits));
                fill(player, 2000);
                player.check().expect("a heap that has used none of it");
                player.audit();
                player.finish();
            });
        });
    }
}

#[test]
fn d11_a_finding_says_what_and_where() {
    with_heap(|engine| {
        with_player(engine, &Pool::default(), 1, |player| {
            fill(player, 100);
            let slab = records(engine).pop().expect("a record");
            flip(std::ptr::with_exposed_provenance_mut(slab.at + slab.bytes / 2), 4);
            let finding = player.check().expect_err("a damaged heap");
            let text = finding.to_string();
            flip(std::ptr::with_exposed_provenance_mut(slab.at + slab.bytes / 2), 4);
            assert_ne!(finding.address(), 0);
            assert!(text.contains("the heap is damaged") && text.contains(finding.rule()), "{text}");
        });
    });
}

/// A link of a free block that points elsewhere.
#[test]
fn d7_an_overwritten_link_of_a_free_block_is_named() {
    with_heap(|engine| {
        with_player(engine, &Pool::default(), 1, |player| {
            let layout = Layout::new::<[u64; 4]>();
            let heap = player.heap();
            // SAFETY: any layout may be asked for.
            let blocks = [(); 3].map(|()| unsafe { heap.alloc(layout) });
            // SAFETY: both came from there for the layout.
            blocks[..2].iter().for_each(|block| unsafe { heap.dealloc(*block, layout) });
            // What a live block holds is no link.
            // SAFETY: live, ours, and of that size.
            unsafe { blocks[2].write_bytes(0x5a, layout.size()) };
            for byte in 0..8 {
                // SAFETY: the first word of a free block, whose link we may damage and repair.
                let at = unsafe { blocks[1].add(byte) };
                for bit in 0..8 {
                    flip(at, 1 << bit);
                    let finding = player.check().expect_err("a damaged link");
                    assert_eq!(finding.layer(), Layer::Cache, "{finding}");
                    flip(at, 1 << bit);
                }
            }
            player.check().expect("a repaired heap");
            // SAFETY: as above.
            unsafe { heap.dealloc(blocks[2], layout) };
        });
    });
}
