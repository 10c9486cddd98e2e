//! Operations on a heap over a small buffer, against the shadow oracle of the tests.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use std::alloc::Layout;
use std::ptr::NonNull;
use stratalloc::Config;
use stratalloc::heap::Engine;
use stratalloc::lock::Spin;
use stratalloc::os::Fixed;
use stratalloc_fuzz::oracle::{Pool, assert_empty, open, with_player};
use stratalloc_fuzz::script::{Step, burst};

#[derive(Arbitrary, Debug)]
struct Script {
    /// Picks the page size, the length of the buffer and the settings.
    setting: (u8, u8, bool, bool),
    steps: Vec<(u8, Step)>,
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
                player.play_burst(burst(*times, *step));
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
