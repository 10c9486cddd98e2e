//! This process's time and memory, read without a call of the allocator.

use std::ffi::CStr;

/// CPU time in seconds.
pub(super) struct Usage {
    pub(super) user: f64,
    pub(super) sys: f64,
}

impl Usage {
    /// What all threads have used so far.
    pub(super) fn now() -> Self {
        // SAFETY: zeroes are a value of this type.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: there is room for the answer.
        unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
        Self { user: seconds(usage.ru_utime), sys: seconds(usage.ru_stime) }
    }

    pub(super) fn since(&self, earlier: &Self) -> Self {
        Self { user: self.user - earlier.user, sys: self.sys - earlier.sys }
    }
}

/// Pages that are resident.
#[derive(Clone, Copy, Default)]
pub(super) struct Resident {
    all: u64,
    of_files: u64,
}

impl Resident {
    pub(super) fn all_kib(self) -> u64 {
        self.all * page_kib()
    }

    /// Those of the program's and its libraries' files.
    pub(super) fn file_kib(self) -> u64 {
        self.of_files * page_kib()
    }

    pub(super) fn private_kib(self) -> u64 {
        self.all.saturating_sub(self.of_files) * page_kib()
    }
}

fn page_kib() -> u64 {
    // SAFETY: a question about a constant.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u64 >> 10 }
}

/// The pages that are resident now.
pub(super) fn resident() -> Resident {
    let mut buffer = [0; 256];
    let mut numbers = read(c"/proc/self/statm", &mut buffer).split(|byte| *byte == b' ').skip(1).map(number);
    Resident { all: numbers.next().unwrap_or(0), of_files: numbers.next().unwrap_or(0) }
}

/// The pages that are resident after 1.2 seconds without any call of the allocator.
pub(super) fn resident_when_idle() -> Resident {
    let mut left = libc::timespec { tv_sec: 1, tv_nsec: 200_000_000 };
    // SAFETY: the time left is written to where it is read from.
    while unsafe { libc::nanosleep(&left, &mut left) } != 0 {}
    resident()
}

/// The most that was resident at any time.
pub(super) fn peak_kib() -> u64 {
    let mut buffer = [0; 4096];
    let status = read(c"/proc/self/status", &mut buffer);
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"VmHWM:"));
    line.map_or(0, number)
}

/// The first number in a text.
fn number(text: &[u8]) -> u64 {
    let digits = text.iter().skip_while(|byte| !byte.is_ascii_digit()).take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| 10 * number + u64::from(digit - b'0'))
}

/// What the file holds, as far as there is room; nothing if it cannot be read.
fn read<'a>(path: &CStr, buffer: &'a mut [u8]) -> &'a [u8] {
    // SAFETY: the path ends in a zero byte.
    let file = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if file < 0 {
        return &[];
    }
    // SAFETY: the buffer is that long.
    let read = unsafe { libc::read(file, buffer.as_mut_ptr().cast(), buffer.len()) };
    // SAFETY: opened above.
    unsafe { libc::close(file) };
    &buffer[..usize::try_from(read).unwrap_or(0)]
}
