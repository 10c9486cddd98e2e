//! What the environment says: how large the heap is, and which component serves.

use super::error::SymmetricError;
use super::memheap::Choice;
use std::env;
use std::string::{String, ToString};

/// The size of the heap, if nothing is said: 256 MiB.
pub const DEFAULT_BYTES: usize = 256 << 20;
/// The smallest heap, and the largest: 256 KiB and 16 TiB.
pub const BYTES: core::ops::RangeInclusive<usize> = 256 << 10..=16 << 40;

const SIZE: &str = "SHMEM_SYMMETRIC_SIZE";
const RULE: &str = "a number above 0 with a suffix k, m, g or t, or none, such as 512m or 1.5g, up to 16t";

/// Bytes that `text` says: a number, with a fraction or without, and a suffix k, m, g or t (or K, M, G, T), for 2¹⁰, 2²⁰, 2³⁰ and
/// 2⁴⁰, or none; rounded up, and to the smallest heap at least. (OpenSHMEM 1.5, section 8: a size at least as large.)
///
/// # Errors
/// [`SymmetricError::Setting`] if it says anything else, 0, or more than heaps may have.
pub fn parse_size(text: &str) -> Result<usize, SymmetricError> {
    let wrong = || SymmetricError::Setting { name: SIZE, text: text.to_string(), rule: RULE };
    let (number, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
        Some(b't' | b'T') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    let bytes = scaled(number, shift).filter(|bytes| *bytes > 0).ok_or_else(wrong)?.max(*BYTES.start());
    if BYTES.contains(&bytes) { Ok(bytes) } else { Err(wrong()) }
}

/// A decimal number times a power of two, rounded up, exactly; `None` if it is none, or too large.
fn scaled(number: &str, shift: u32) -> Option<usize> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if !(is_number(whole) && is_number(fraction)) || (whole.is_empty() && fraction.is_empty()) || fraction.len() > 18 {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0u128) } else { text.parse().ok() };
    let unit = 10u128.pow(fraction.len() as u32);
    let value = digits(whole)?.checked_mul(unit)?.checked_add(digits(fraction)?)?.checked_mul(1 << shift)?;
    usize::try_from(value.div_ceil(unit)).ok()
}

/// What a process wants of its symmetric heap.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(super) bytes: usize,
    pub(super) choice: Choice,
    pub(super) checks: bool,
    /// Whether the program's variables are symmetric, too.
    pub(super) variables: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self::new()
    }
}

impl Settings {
    /// A heap of 256 MiB, by the component of highest priority; collective calls are compared in builds with debug assertions.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: DEFAULT_BYTES, choice: Choice::new(), checks: cfg!(debug_assertions), variables: false }
    }

    /// What the environment says: `SHMEM_SYMMETRIC_SIZE` (see [`parse_size`]; or `SMA_SYMMETRIC_SIZE`, the older name),
    /// `STRATALLOC_MEMHEAP` (see [`Choice::parse`]), and `SHMEM_DEBUG` (or `SMA_DEBUG`), which lets collective calls be compared.
    ///
    /// # Errors
    /// [`SymmetricError`] if one of them cannot be read.
    pub fn from_environment() -> Result<Self, SymmetricError> {
        let mut settings = Self::new();
        if let Some(text) = text_of("SHMEM_SYMMETRIC_SIZE").or_else(|| text_of("SMA_SYMMETRIC_SIZE")) {
            settings.bytes = parse_size(text.trim())?;
        }
        settings.choice = Choice::from_environment("STRATALLOC_MEMHEAP")?;
        settings.checks |= text_of("SHMEM_DEBUG").or_else(|| text_of("SMA_DEBUG")).is_some();
        Ok(settings)
    }

    /// How large the heap is, in bytes, from 256 KiB to 16 TiB: rounded up to whole pages. Memory comes where it is used.
    #[must_use]
    pub const fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    /// Which component serves.
    #[must_use]
    pub fn memheap(mut self, choice: Choice) -> Self {
        self.choice = choice;
        self
    }

    /// Makes the global and static variables of the program symmetric objects, too, where they can be. For C.
    #[cfg(feature = "c-symmetric")]
    pub(crate) const fn with_variables(mut self) -> Self {
        self.variables = true;
        self
    }

    /// Whether PEs compare each collective call before it does anything, and the addresses that come of it.
    #[must_use]
    pub const fn checks(mut self, checks: bool) -> Self {
        self.checks = checks;
        self
    }
}

/// A variable, whatever bytes it has.
fn text_of(name: &str) -> Option<String> {
    env::var_os(name).map(|text| text.to_string_lossy().into_owned())
}
