//! Files that are only read, by bare system calls: no lock of the C library's, no point of cancellation, no allocation.

use super::Span;
use super::unix::{map, unmap};
use core::ffi::CStr;
use core::ptr::with_exposed_provenance_mut;

/// An open file.
#[derive(Debug)]
pub(crate) struct File {
    descriptor: i64,
}

impl File {
    /// Opens it for reading.
    pub(crate) fn open(path: &CStr) -> Option<Self> {
        let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: the path ends with a zero.
        let descriptor = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0) };
        (descriptor >= 0).then_some(Self { descriptor })
    }

    /// Bytes in it; 0 if that is not known.
    pub(crate) fn len(&self) -> u64 {
        // SAFETY: the descriptor is ours; nobody depends on where it stands.
        let end = unsafe { libc::syscall(libc::SYS_lseek, self.descriptor, 0_i64, libc::SEEK_END) };
        u64::try_from(end).unwrap_or(0)
    }

    /// Reads from `at` on into `to`; how many bytes there were, 0 behind the end and if it cannot be read.
    pub(crate) fn read_at(&self, at: u64, to: &mut [u8]) -> usize {
        // SAFETY: the buffer is the caller's, and has that many bytes.
        let bytes = unsafe { libc::syscall(libc::SYS_pread64, self.descriptor, to.as_mut_ptr(), to.len(), at) };
        usize::try_from(bytes).unwrap_or(0).min(to.len())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: the descriptor is ours, and used no more.
        let _ = unsafe { libc::syscall(libc::SYS_close, self.descriptor) };
    }
}

/// Where the symbolic link at `path` leads, as much as there is room for in `to`.
pub(crate) fn link_target<'a>(path: &CStr, to: &'a mut [u8]) -> &'a [u8] {
    // SAFETY: the path ends with a zero; the buffer is the caller's, and has that many bytes.
    let bytes =
        unsafe { libc::syscall(libc::SYS_readlinkat, libc::AT_FDCWD, path.as_ptr(), to.as_mut_ptr(), to.len()) };
    to.get(..usize::try_from(bytes).unwrap_or(0)).unwrap_or_default()
}

/// Memory of its own, zero at first, that goes when it is dropped.
#[derive(Debug)]
pub(crate) struct Room(Span);

impl Room {
    /// So many bytes.
    pub(crate) fn new(bytes: usize) -> Option<Self> {
        map(bytes).map(Self)
    }

    /// All of it.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        let at = with_exposed_provenance_mut(self.0.at);
        // SAFETY: a mapping of our own, readable, writable and initialised by the kernel, as long as `self`.
        unsafe { core::slice::from_raw_parts_mut(at, self.0.bytes) }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        unmap(self.0);
    }
}
