//! Every configuration that a program can be compiled with, on pages of every size, under a short script.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use std::alloc::Layout;
use std::ptr::NonNull;
use stratalloc::lock::{RawLock, Spin};
use stratalloc::os::{Fixed, Source};
use stratalloc::{Config, HugePages, Purge};
use stratalloc_fuzz::oracle::{Pool, assert_empty, open, with_player};
use stratalloc_fuzz::script::{Step, burst};
use stratalloc_fuzz::tracked::Tracked;

#[derive(Arbitrary, Debug)]
enum Huge {
    Never,
    Kernel,
    Above(u32),
}

#[derive(Arbitrary, Debug)]
struct Script {
    idle_bytes: u64,
    idle_share: u64,
    list_bytes: u32,
    huge: Huge,
    at_free: bool,
    /// Pages of a buffer, by its bytes; none: mapped memory.
    page_log: Option<u8>,
    steps: Vec<(u8, Step)>,
}

impl Script {
    /// The configuration; what the builder refuses is brought into the bounds that its documentation gives.
    fn config(&self) -> Config {
        let huge = match self.huge {
            Huge::Never => HugePages::Never,
            Huge::Kernel => HugePages::Kernel,
            Huge::Above(bytes) => HugePages::Above(bytes as usize),
        };
        Config::new()
            .idle_bytes((self.idle_bytes % ((1 << 40) + 1)) as usize)
            .idle_share(self.idle_share.max(1) as usize)
            .list_bytes(64 + self.list_bytes as usize % ((1 << 20) - 63))
            .huge_pages(huge)
            .purge(if self.at_free { Purge::AtFree } else { Purge::Soon })
    }

    fn play<S: Source, L: RawLock>(&self, engine: &stratalloc::heap::Engine<S, L>) {
        with_player(engine, &Pool::default(), 1, |player| {
            for (times, step) in self.steps.iter().take(60) {
                player.play_burst(burst(*times, *step));
            }
            player.audit();
            player.finish();
        });
        assert_empty(engine);
    }
}

fuzz_target!(|script: Script| {
    let config = script.config();
    let Some(page_log) = script.page_log else {
        let mapped = open::<_, Spin>(Tracked::default(), &config);
        return mapped.into_iter().for_each(|engine| script.play(&engine));
    };
    let page = 1 << (12 + page_log % 5);
    let layout = Layout::from_size_align(200 * page, 64).expect("a small size");
    // SAFETY: the size is not 0.
    let buffer = unsafe { std::alloc::alloc_zeroed(layout) };
    if let Some(at) = NonNull::new(buffer) {
        // SAFETY: the buffer is zeroed and ours, and the engine ends before it.
        let source = unsafe { Fixed::new(at, layout.size(), page) };
        open::<_, Spin>(source, &config).into_iter().for_each(|engine| script.play(&engine));
        // SAFETY: allocated above for the layout.
        unsafe { std::alloc::dealloc(buffer, layout) };
    }
});
