//! Operations on a heap over a small buffer, against the shadow oracle of the tests.

#![no_main]

#[path = "../../tests/oracle/mod.rs"]
mod oracle;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use oracle::{Burst, Op, Pool, assert_empty, layout_of_code, open, size_of_code, with_player};
use std::alloc::Layout;
use std::ptr::NonNull;
use stratalloc::Config;
use stratalloc::heap::Engine;
use stratalloc::lock::Spin;
use stratalloc::os::Fixed;

/// A size in three bytes: see `size_of_code`.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Size(u8, u8, u8);

/// A size and an alignment; of 16 codes of an alignment 15 are at most 16 bytes.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Request(Size, u8);

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Step {
    Alloc(Request),
    AllocZeroed(Request),
    Free(u16),
    Realloc(u16, Size),
    Hand(u16),
    Take,
    Park,
    Collect,
}

#[derive(Arbitrary, Debug)]
struct Script {
    /// Picks the page size, the length of the buffer and the settings.
    setting: (u8, u8, bool, bool),
    steps: Vec<(u8, Step)>,
}

impl Size {
    fn decode(self) -> usize {
        size_of_code(self.0, self.1, self.2)
    }
}

impl Request {
    fn decode(self) -> Layout {
        let align_log = if self.1 < 240 { self.1 % 5 } else { self.1 };
        layout_of_code(self.0.decode(), align_log)
    }
}

impl Step {
    fn decode(self) -> Op {
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

impl Script {
    fn page(&self) -> usize {
        [4096, 16384, 65536][usize::from(self.setting.0 % 3)]
    }

    fn bytes(&self) -> usize {
        self.page() * (40 + usize::from(self.setting.1))
    }

    fn config(&self) -> Config {
        let (purging, short) = (self.setting.2, self.setting.3);
        let config = Config::new().idle_bytes(if purging { 0 } else { 256 << 10 }).idle_share(usize::MAX);
        config.list_bytes(if short { 64 } else { 8 << 10 })
    }

    /// Plays the script on `engine`; nothing may be left behind.
    fn play(&self, engine: &Engine<Fixed, Spin>) {
        with_player(engine, &Pool::default(), 1, |player| {
            for (times, step) in &self.steps {
                // Most steps once, some many times.
                player.play_burst(Burst::new(usize::from(times.saturating_sub(160)).max(1), step.decode()));
            }
            player.audit();
            player.finish();
        });
        assert_empty(engine);
    }
}

fuzz_target!(|script: Script| {
    let layout = Layout::from_size_align(script.bytes(), 64).expect("a small size");
    // SAFETY: the size is not 0.
    let buffer = unsafe { std::alloc::alloc_zeroed(layout) };
    if let Some(at) = NonNull::new(buffer) {
        // SAFETY: the buffer is zeroed and ours, and the engine ends before it.
        let source = unsafe { Fixed::new(at, layout.size(), script.page()) };
        open(source, &script.config()).into_iter().for_each(|engine| script.play(&engine));
        // SAFETY: allocated above for the layout.
        unsafe { std::alloc::dealloc(buffer, layout) };
    }
});
