//! Operations on a heap, one byte of whose records changes on the way: an audit names it, or nobody needs it.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use std::alloc::Layout;
use std::ptr::{NonNull, with_exposed_provenance_mut};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use stratalloc::Config;
use stratalloc::heap::Engine;
use stratalloc::lock::Spin;
use stratalloc::os::{Fixed, Span};
use stratalloc_fuzz::oracle::{Pool, assert_empty, open, with_player};
use stratalloc_fuzz::script::{Step, burst};

const PAGE: usize = 4096;
const PAGES: usize = 200;

#[derive(Arbitrary, Debug)]
struct Script {
    before: Vec<(u8, Step)>,
    /// Which byte changes, modulo all bytes of records, and which of its bits.
    place: u32,
    bits: u8,
    after: Vec<(u8, Step)>,
}

impl Script {
    /// The byte to change.
    fn byte(&self, engine: &Engine<Fixed, Spin>) -> *mut u8 {
        let mut records: Vec<Span> = Vec::new();
        // SAFETY: this thread is alone.
        unsafe { engine.each_record(&mut |record| records.push(record)) };
        let mut left = self.place as usize % records.iter().map(|record| record.bytes).sum::<usize>();
        for record in records {
            match left.checked_sub(record.bytes) {
                None => return with_exposed_provenance_mut(record.at + left),
                Some(more) => left = more,
            }
        }
        unreachable!("the place lies in one of the records")
    }

    fn play(&self, engine: &Engine<Fixed, Spin>) {
        with_player(engine, &Pool::default(), 1, |player| {
            self.before.iter().for_each(|(times, step)| player.play_burst(burst(*times, *step)));
            player.audit();
            let byte = self.byte(engine);
            let flip = || {
                // SAFETY: a byte of a record, which nobody else reaches meanwhile.
                unsafe { AtomicU8::from_ptr(byte) }.fetch_xor(self.bits, Relaxed);
            };
            flip();
            if player.check().is_err() {
                flip();
            }
            self.after.iter().for_each(|(times, step)| player.play_burst(burst(*times, *step)));
            player.audit();
            player.finish();
        });
        assert_empty(engine);
    }
}

fuzz_target!(|script: Script| {
    let layout = Layout::from_size_align(PAGE * PAGES, PAGE).expect("a small size");
    // SAFETY: the size is not 0.
    let buffer = unsafe { std::alloc::alloc_zeroed(layout) };
    if let Some(at) = NonNull::new(buffer) {
        // SAFETY: the buffer is zeroed and ours, and the engine ends before it.
        let source = unsafe { Fixed::new(at, layout.size(), PAGE) };
        open(source, &Config::new()).into_iter().for_each(|engine| script.play(&engine));
        // SAFETY: allocated above for the layout.
        unsafe { std::alloc::dealloc(buffer, layout) };
    }
});
