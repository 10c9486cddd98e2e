//! How the hunter speaks: to file descriptor 2, a piece at a time, through a buffer on the stack. No stdio, no lock, no heap.

use crate::os;
use core::fmt::{self, Write};

/// Text on its way to file descriptor 2.
pub(super) struct Voice {
    text: [u8; 512],
    used: usize,
}

impl Voice {
    pub(super) const fn new() -> Self {
        Self { text: [0; 512], used: 0 }
    }

    pub(super) fn flush(&mut self) {
        os::say(&self.text[..self.used]);
        self.used = 0;
    }

    /// Says bytes that may be no text: what cannot be shown becomes a question mark.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let shown = if matches!(byte, b' '..=b'~') { *byte } else { b'?' };
            let _ = self.write_char(char::from(shown));
        }
    }
}

impl Write for Voice {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.used == self.text.len() {
                self.flush();
            }
            self.text[self.used] = byte;
            self.used += 1;
        }
        Ok(())
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Says a line, formatted.
macro_rules! say {
    ($voice:expr, $($text:tt)*) => {{
        // A voice takes everything.
        let _ = core::fmt::Write::write_fmt($voice, format_args!($($text)*));
        let _ = core::fmt::Write::write_char($voice, '\n');
    }};
}
pub(super) use say;

/// Says that a word of the environment variable says nothing.
pub(super) fn warn_of_word(word: &[u8]) {
    let mut voice = Voice::new();
    let _ = voice.write_str("stratalloc: STRATALLOC_DEBUG: ignored: \"");
    voice.bytes(word);
    say!(
        &mut voice,
        "\"; the words are off, canary, page, sample=N, side=right|left|both, sweep=N, leaks, continue, \
         quarantine=BYTES, blocks=N (to 1048576), poison=BYTES, frames=N (to 32), min=BYTES, max=BYTES"
    );
}
