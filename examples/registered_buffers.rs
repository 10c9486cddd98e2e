//! A program that keeps its buffers locked in memory while it sends them, as one does that hands them to a device: `mlock` is dear, so what is
//! locked stays locked, in a cache, until its memory goes. The hooks see to it that nothing stays locked that is no buffer any more.
//!
//! `cargo run --release --features hooks --example registered_buffers`

use std::io::{Error, Write};
use std::time::Instant;
use stratalloc::Stratalloc;
use stratalloc::hooks::{self, GetError, Limits, RegistrationCache};

#[global_allocator]
static A: Stratalloc = Stratalloc::new();

/// Pages that are locked in memory, as long as this lives.
struct LockedPages {
    base: usize,
    bytes: usize,
}

impl LockedPages {
    fn new(base: *const u8, bytes: usize) -> Result<Self, Error> {
        // SAFETY: locking changes nothing of the memory.
        match unsafe { libc::mlock(base.cast(), bytes) } {
            0 => Ok(Self { base: base as usize, bytes }),
            _ => Err(Error::last_os_error()),
        }
    }
}

impl Drop for LockedPages {
    fn drop(&mut self) {
        // SAFETY: as above. It neither allocates nor frees, so it may be done while the memory goes.
        unsafe { libc::munlock(self.base as *const libc::c_void, self.bytes) };
    }
}

/// KiB of this process that are locked.
fn locked() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap_or("unknown");
    line.trim().to_owned()
}

/// A page. Locks of memory do not nest: two buffers with a page in common would unlock each other's.
#[derive(Clone)]
#[repr(align(4096))]
struct Page([u8; 4096]);

/// 64 KiB, in pages of its own.
type Buffer = Vec<Page>;

const BUFFER: usize = 64 << 10;
const BUFFERS: usize = 16;
const ROUNDS: usize = 2000;

/// The sum of a byte of each page.
fn read(buffer: &Buffer) -> u64 {
    buffer.iter().map(|page| u64::from(page.0[0])).sum()
}

/// "Sends" a buffer: its memory is locked meanwhile.
fn send(cache: &RegistrationCache<LockedPages>, buffer: &Buffer) -> Result<u64, GetError<Error>> {
    // Only where too much is locked is it of use to unlock others.
    let is_full = |error: &Error| matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::EAGAIN));
    let _locked = cache.get_with_room(buffer.as_ptr().cast(), BUFFER, LockedPages::new, is_full)?;
    Ok(read(buffer))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cache = RegistrationCache::dropping_at_once(Limits { entries: 64, bytes: 6 << 20 })?;
    let mut out = std::io::stdout();
    if let Some(chosen) = hooks::chosen() {
        writeln!(out, "component {chosen}")?;
    }
    let buffers: Vec<Buffer> = (0..BUFFERS).map(|at| vec![Page([at as u8; 4096]); BUFFER / 4096]).collect();
    let begun = Instant::now();
    let mut sum = 0;
    for round in 0..ROUNDS {
        sum += send(&cache, &buffers[round % BUFFERS])?;
    }
    let cached = begun.elapsed().as_nanos() / ROUNDS as u128;
    let begun = Instant::now();
    for round in 0..ROUNDS {
        let buffer = &buffers[round % BUFFERS];
        // What is locked twice is unlocked by the first call: so the cache must have nothing of it.
        cache.clear();
        drop(LockedPages::new(buffer.as_ptr().cast(), BUFFER)?);
        sum += read(buffer);
    }
    let anew = begun.elapsed().as_nanos() / ROUNDS as u128;
    for buffer in &buffers {
        sum += send(&cache, buffer)?;
    }
    writeln!(
        out,
        "{ROUNDS} buffers of {BUFFER} bytes sent: {cached} ns each with the cache, {anew} ns where each is locked anew"
    )?;
    writeln!(out, "checksum {sum}")?;
    writeln!(out, "locked with {BUFFERS} buffers: {}", locked())?;
    // Freed: the memory is the heap's, to be used again; the same pages are there, and stay locked.
    drop(buffers);
    writeln!(out, "locked when they are freed: {}", locked())?;
    // The heap gives the pages back: the hooks tell, and the cache lets go.
    Stratalloc::collect();
    writeln!(out, "locked when the memory has gone: {}", locked())?;
    writeln!(out, "{:?}", cache.stats())?;
    Ok(())
}
