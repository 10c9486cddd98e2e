//! How corruption is hunted (feature `malloc-debug`): settings in code, and the words of `STRATALLOC_DEBUG` over them.

/// Where a block stands that has pages of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Side {
    /// Its end before the guard page: an overflow faults at once (but for the bytes that its alignment leaves there).
    Right,
    /// Its begin behind the guard page: an underflow faults at once.
    Left,
    /// The one and the other in turn.
    Both,
}

/// What the corruption hunter does, for [`Config::hunt`](crate::Config::hunt). The environment variable `STRATALLOC_DEBUG`
/// goes over it, word by word: `page,sample=5000,leaks`.
///
/// | method | word | default |
/// |---|---|---|
/// | [`Hunt::off`] | `off` | |
/// | [`Hunt::canary`] | `canary` | yes |
/// | [`Hunt::page`] | `page`, `sample=N` | no |
/// | [`Hunt::side`] | `side=right`, `left`, `both` | `right` |
/// | [`Hunt::sweep`] | `sweep=N` | 0, never |
/// | [`Hunt::leaks`] | `leaks` | no |
/// | [`Hunt::go_on`] | `continue` | no |
/// | [`Hunt::quarantine`] | `quarantine=BYTES`, `blocks=N` | 1 MiB, 16384 |
/// | [`Hunt::poison`] | `poison=BYTES` | 64 KiB |
/// | [`Hunt::frames`] | `frames=N` | 16 |
/// | [`Hunt::sizes`] | `min=BYTES`, `max=BYTES` | all |
///
/// Bytes may end in `k`, `m` or `g`. An unknown word, or a value out of range, is warned of on file descriptor 2 and otherwise
/// ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hunt {
    pub(crate) off: bool,
    pub(crate) canary: bool,
    /// One block in so many gets pages of its own; 0: none.
    pub(crate) page: u32,
    pub(crate) side: Side,
    pub(crate) sweep: u32,
    pub(crate) leaks: bool,
    pub(crate) go_on: bool,
    pub(crate) quarantine_bytes: usize,
    pub(crate) quarantine_blocks: usize,
    pub(crate) poison: usize,
    pub(crate) frames: usize,
    pub(crate) min: usize,
    pub(crate) max: usize,
}

/// The largest number of frames in a backtrace.
pub(crate) const FRAMES_MAX: usize = 32;
/// The largest number of blocks in quarantine, of one thread.
pub(crate) const BLOCKS_MAX: usize = 1 << 20;
/// The largest quarantine.
const BYTES_MAX: usize = 1 << 40;

impl Hunt {
    /// Guards around every block, backtraces of 16 frames, and a quarantine of 1 MiB or 16,384 blocks.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            off: false,
            canary: true,
            page: 0,
            side: Side::Right,
            sweep: 0,
            leaks: false,
            go_on: false,
            quarantine_bytes: 1 << 20,
            quarantine_blocks: 16 << 10,
            poison: 64 << 10,
            frames: 16,
            min: 0,
            max: usize::MAX,
        }
    }

    /// Hunts nothing: blocks are as without the feature.
    #[must_use]
    pub const fn off(mut self) -> Self {
        self.off = true;
        self
    }

    /// Guards, backtraces and quarantine for every block without pages of its own. On by default; off after
    /// [`Hunt::page`], so after that it says that both are wanted.
    #[must_use]
    pub const fn canary(mut self) -> Self {
        self.canary = true;
        self
    }

    /// Gives one block in `every` pages of its own beside a guard page, where what goes beyond it, and what comes after its
    /// free, faults at once; 1: each block. The others are as without the feature; those of `every`
    /// that cannot have pages of their own have guards.
    ///
    /// # Panics
    /// When `every` is 0 (at compile time, in a `const`).
    #[must_use]
    pub const fn page(mut self, every: u32) -> Self {
        assert!(every > 0, "Hunt::page: at least 1: one block in so many; 5000 is a good value");
        self.page = every;
        self.canary = false;
        self
    }

    /// Which end of such a block is at the guard page. The default is [`Side::Right`].
    #[must_use]
    pub const fn side(mut self, side: Side) -> Self {
        self.side = side;
        self
    }

    /// Audits all guards, the quarantine and every layer of the heap after each `every` calls of a thread; 0: never (the
    /// default).
    #[must_use]
    pub const fn sweep(mut self, every: u32) -> Self {
        self.sweep = every;
        self
    }

    /// Reports, when the process exits, the blocks that were never freed, by where they were allocated. The default is no.
    #[must_use]
    pub const fn leaks(mut self, wanted: bool) -> Self {
        self.leaks = wanted;
        self
    }

    /// Goes on after a report, in place of `abort`. The default is no.
    #[must_use]
    pub const fn go_on(mut self, wanted: bool) -> Self {
        self.go_on = wanted;
        self
    }

    /// How much freed memory is held back from reuse: `bytes` of all threads together, and `blocks` of each. The default is
    /// 8 MiB and 16,384.
    ///
    /// # Panics
    /// When `bytes` is above 1 TiB or `blocks` above 1,048,576 (at compile time, in a `const`).
    #[must_use]
    pub const fn quarantine(mut self, bytes: usize, blocks: usize) -> Self {
        assert!(bytes <= BYTES_MAX, "Hunt::quarantine: at most 1 TiB; 1 << 20 is a good value");
        assert!(blocks <= BLOCKS_MAX, "Hunt::quarantine: at most 1,048,576 blocks; 16 << 10 is a good value");
        self.quarantine_bytes = bytes;
        self.quarantine_blocks = blocks;
        self
    }

    /// How many bytes at the begin of a block are filled with a pattern, when it is allocated and when it is freed: the first
    /// 512 wholly, and of the others 64 in each 512. The default is 64 KiB.
    #[must_use]
    pub const fn poison(mut self, bytes: usize) -> Self {
        self.poison = bytes;
        self
    }

    /// How many frames a backtrace has, up to 32; 0: there are none. The default is 16.
    ///
    /// # Panics
    /// When `frames` is above 32 (at compile time, in a `const`).
    #[must_use]
    pub const fn frames(mut self, frames: usize) -> Self {
        assert!(frames <= FRAMES_MAX, "Hunt::frames: at most 32; 16 is a good value");
        self.frames = frames;
        self
    }

    /// Of which blocks backtraces are taken, and which are held back from reuse: those of `min` to `max` bytes. All others
    /// have guards alone. The default is all.
    ///
    /// # Panics
    /// When `min` is above `max` (at compile time, in a `const`).
    #[must_use]
    pub const fn sizes(mut self, min: usize, max: usize) -> Self {
        assert!(min <= max, "Hunt::sizes: the least size must not be above the greatest");
        self.min = min;
        self.max = max;
        self
    }

    /// These settings with `text` over them. `warn` is told of each word that says nothing.
    pub(crate) fn overridden(mut self, text: &[u8], mut warn: impl FnMut(&[u8])) -> Self {
        let mut both = false;
        for word in text.split(|byte| matches!(byte, b',' | b' ' | b';' | b':')).filter(|word| !word.is_empty()) {
            match self.with_word(word) {
                Some(changed) => self = changed,
                None => warn(word),
            }
            both |= word == b"canary";
        }
        self.canary |= both;
        if self.min > self.max {
            warn(b"min above max");
            (self.min, self.max) = (0, usize::MAX);
        }
        self
    }

    /// These settings with one word over them; `None` if it says nothing.
    fn with_word(self, word: &[u8]) -> Option<Self> {
        let mut parts = word.splitn(2, |byte| *byte == b'=');
        let (key, value) = (parts.next()?, parts.next());
        let Some(value) = value else {
            return self.with_key(key);
        };
        let number = bytes(value);
        let count = || number.and_then(|number| u32::try_from(number).ok());
        match key {
            b"sample" => count().filter(|every| *every > 0).map(|every| self.page(every)),
            b"sweep" => count().map(|every| self.sweep(every)),
            b"quarantine" => {
                number.filter(|bytes| *bytes <= BYTES_MAX).map(|bytes| Self { quarantine_bytes: bytes, ..self })
            }
            b"blocks" => {
                number.filter(|blocks| *blocks <= BLOCKS_MAX).map(|blocks| Self { quarantine_blocks: blocks, ..self })
            }
            b"poison" => number.map(|bytes| self.poison(bytes)),
            b"frames" => number.filter(|frames| *frames <= FRAMES_MAX).map(|frames| self.frames(frames)),
            b"min" => number.map(|min| Self { min, ..self }),
            b"max" => number.map(|max| Self { max, ..self }),
            b"side" => side(value).map(|side| self.side(side)),
            _ => None,
        }
    }

    fn with_key(self, key: &[u8]) -> Option<Self> {
        match key {
            b"off" => Some(self.off()),
            b"canary" => Some(self.canary()),
            b"page" => Some(self.page(self.page.max(1))),
            b"leaks" => Some(self.leaks(true)),
            b"continue" => Some(self.go_on(true)),
            _ => None,
        }
    }

    /// Whether blocks of `size` bytes have backtraces, and are held back.
    #[inline]
    pub(crate) const fn is_watched(&self, size: usize) -> bool {
        self.min <= size && size <= self.max
    }
}

impl Default for Hunt {
    fn default() -> Self {
        Self::new()
    }
}

fn side(value: &[u8]) -> Option<Side> {
    match value {
        b"right" => Some(Side::Right),
        b"left" => Some(Side::Left),
        b"both" => Some(Side::Both),
        _ => None,
    }
}

/// A number, which may end in `k`, `m` or `g`; `None` if it is none, or too large.
fn bytes(text: &[u8]) -> Option<usize> {
    let (digits, shift) = match text.split_last()? {
        (b'k' | b'K', digits) => (digits, 10),
        (b'm' | b'M', digits) => (digits, 20),
        (b'g' | b'G', digits) => (digits, 30),
        _ => (text, 0),
    };
    let number = core::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?.parse::<usize>().ok()?;
    number.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::{Hunt, Side};

    fn heard(text: &str) -> (Hunt, usize) {
        let mut warnings = 0;
        let hunt = Hunt::new().overridden(text.as_bytes(), |_| warnings += 1);
        (hunt, warnings)
    }

    #[test]
    fn words_set_what_methods_set() {
        assert_eq!(heard(""), (Hunt::new(), 0));
        assert_eq!(heard("canary"), (Hunt::new(), 0));
        assert_eq!(heard("page"), (Hunt::new().page(1), 0));
        assert_eq!(heard("sample=5000,page,,side=both"), (Hunt::new().page(5000).side(Side::Both), 0));
        assert_eq!(heard("canary,sample=9"), (Hunt::new().page(9).canary(), 0));
        assert_eq!(heard("page,canary"), (Hunt::new().page(1).canary(), 0));
        assert_eq!(heard("leaks continue sweep=9"), (Hunt::new().leaks(true).go_on(true).sweep(9), 0));
        assert_eq!(heard("quarantine=3m:blocks=7;frames=0"), (Hunt::new().quarantine(3 << 20, 7).frames(0), 0));
        assert_eq!(heard("min=2k,max=1G,poison=0"), (Hunt::new().sizes(2048, 1 << 30).poison(0), 0));
        assert_eq!(heard("off"), (Hunt::new().off(), 0));
    }

    #[test]
    fn what_says_nothing_is_warned_of_and_ignored() {
        for word in [
            "on",
            "page=2",
            "leaks=1",
            "sample",
            "sample=-1",
            "sample=0",
            "sample=4294967296",
            "frames=33",
            "side=top",
            "=",
            "min=k",
            "sweep=1t",
            "blocks=1048577",
            "quarantine=2000g",
            "max=+5",
            "quarantine=99999999999999999999",
        ] {
            assert_eq!(heard(word), (Hunt::new(), 1), "{word}");
        }
        assert_eq!(heard("min=9,max=8"), (Hunt::new(), 1));
    }
}
