//! What a debugger of this heap asks of the system about the process and its threads. Nothing here allocates or locks.

use super::files::File;

/// The name of the calling thread, as the system has it: up to 15 bytes, and zeros behind them.
pub(crate) fn thread_name() -> [u8; 16] {
    let mut name = [0; 16];
    // SAFETY: the place has the 16 bytes that are written.
    let _ = unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name
}

/// Milliseconds since some moment before the process began.
pub(crate) fn milliseconds() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place is ours.
    let _ = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    (time.tv_sec as u64).wrapping_mul(1000).wrapping_add(time.tv_nsec as u64 / 1_000_000)
}

/// A counter that goes on by itself, and is cheap to read: its rate is the processor's affair.
#[inline(always)]
pub(crate) fn ticks() -> u64 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: every processor of this kind has it.
    return unsafe { core::arch::x86_64::_rdtsc() };
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    (milliseconds() << 20)
}

/// Has `last` called when the process exits in an orderly way.
pub(crate) fn at_exit(last: extern "C" fn()) -> bool {
    // SAFETY: the function stays as long as the process.
    unsafe { libc::atexit(last) == 0 }
}

/// The value of an environment variable, as the process began with it, in `buffer`; `None` if there is none, or if it is longer.
/// (By the system's own copy: the C library may not be ready when the first block is asked for.)
pub(crate) fn environment<'b>(name: &[u8], buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let file = File::open(c"/proc/self/environ")?;
    let (mut at, mut piece) = (0, [0; 512]);
    // Of the entry that is being read: how much of the name it has matched, and whether it may still be the one.
    let (mut matched, mut may_be, mut length) = (0, true, 0);
    loop {
        let count = file.read_at(at, &mut piece);
        if count == 0 {
            return None;
        }
        at += count as u64;
        for byte in &piece[..count] {
            match (*byte, may_be) {
                (0, true) if matched > name.len() => return Some(&buffer[..length]),
                (0, _) => (matched, may_be, length) = (0, true, 0),
                (byte, true) if matched < name.len() => (matched, may_be) = (matched + 1, byte == name[matched]),
                (byte, true) if matched == name.len() => (matched, may_be) = (matched + 1, byte == b'='),
                (byte, true) => match buffer.get_mut(length) {
                    Some(place) => (*place, length) = (byte, length + 1),
                    None => may_be = false,
                },
                (_, false) => {}
            }
        }
    }
}
