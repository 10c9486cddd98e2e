//! Files that may be shared heaps: the header and every record of one, with words of the fuzzer's written over them. Whatever comes of
//! it is an error, or a heap that can be used.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;
use stratalloc::SharedConfig;

#[path = "../../tests/common/damaged.rs"]
mod damaged;
use damaged::{BYTES, Sound};

const CONFIG: SharedConfig = SharedConfig::new().wait(Duration::ZERO);

/// How a word is changed.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Change {
    Set(u64),
    Flip(u8),
    Add(i16),
    /// What another word of the heap is.
    Copy(u32),
}

#[derive(Arbitrary, Debug)]
struct Damage {
    /// Which of the words that are not zero, and how it is changed.
    words: Vec<(u32, Change)>,
    /// How long the file is, if it is not as long as it was.
    cut: Option<u32>,
}

static SOUND: LazyLock<Sound> = LazyLock::new(|| {
    let folder = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
    let path = folder.join(format!("stratalloc-fuzz-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    Sound::make(&path, CONFIG)
});

fuzz_target!(|damage: Damage| {
    let sound = &*SOUND;
    let word = |index: u32| sound.word(u64::from(index) % sound.words());
    sound.restore();
    for (index, change) in damage.words.iter().take(16) {
        let (at, old) = word(*index);
        let new = match change {
            Change::Set(new) => *new,
            Change::Flip(bit) => old ^ 1 << (bit % 64),
            Change::Add(by) => old.wrapping_add_signed(i64::from(*by)),
            Change::Copy(other) => word(*other).1,
        };
        sound.set(at, new);
    }
    if let Some(bytes) = damage.cut {
        sound.cut(u64::from(bytes) % (2 * BYTES as u64));
    }
    sound.use_it(CONFIG);
});
