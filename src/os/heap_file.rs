//! Files whose pages processes share: at fixed addresses, or anywhere.

#![allow(clippy::disallowed_methods, reason = "this folder is where the system is called")]

use super::Span;
use super::errors::{Errno, checked};
use super::unix::errno;
#[cfg(feature = "symmetric")]
use core::{ffi::CStr, mem::MaybeUninit};

/// An open file. It is closed when this is dropped; what is mapped stays.
#[derive(Debug)]
pub(crate) struct HeapFile {
    pub(super) number: libc::c_int,
}

/// The number of a file that is open as long as this is used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileNumber(pub(super) libc::c_int);

impl FileNumber {
    /// The number itself, for a word.
    pub(crate) fn word(self) -> i32 {
        self.0
    }
}

impl HeapFile {
    /// A new file in memory, without a name but for `name` in lists. It goes when nobody has it open or mapped.
    #[cfg(feature = "symmetric")]
    pub(crate) fn nameless(name: &CStr) -> Result<Self, Errno> {
        // SAFETY: the name ends with a zero.
        let number = checked(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) })?;
        Ok(Self { number })
    }

    /// Opens the file that there is at `path`, through links, too.
    #[cfg(feature = "symmetric")]
    pub(crate) fn there(path: &CStr) -> Result<Self, Errno> {
        // SAFETY: the path ends with a zero.
        let number = checked(unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) })?;
        Ok(Self { number })
    }

    /// Makes it so long. What is new reads zero, and takes no room.
    pub(crate) fn set_bytes(&self, bytes: u64) -> Result<(), Errno> {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the place is ours.
        let is_known = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) } == 0;
        if is_known && limit.rlim_cur != libc::RLIM_INFINITY && bytes > limit.rlim_cur {
            // The system would end the process by a signal.
            return Err(libc::EFBIG);
        }
        let bytes = libc::off_t::try_from(bytes).map_err(|_| libc::EFBIG)?;
        // SAFETY: no preconditions.
        checked(unsafe { libc::ftruncate(self.number, bytes) }).map(|_| ())
    }

    /// Its number.
    pub(crate) fn number(&self) -> FileNumber {
        FileNumber(self.number)
    }

    /// How long it is, in bytes.
    #[cfg(feature = "symmetric")]
    pub(crate) fn bytes(&self) -> Result<u64, Errno> {
        let mut found = MaybeUninit::<libc::stat>::zeroed();
        // SAFETY: the place is as large as what is written.
        checked(unsafe { libc::fstat(self.number, found.as_mut_ptr()) })?;
        // SAFETY: zero bits are one, and so is what the system wrote.
        Ok(unsafe { found.assume_init() }.st_size as u64)
    }

    /// Maps its first bytes anywhere; where that is.
    #[cfg(feature = "symmetric")]
    pub(crate) fn map_anywhere(&self, bytes: usize) -> Result<Span, Errno> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: it replaces nothing.
        let at = unsafe { libc::mmap(core::ptr::null_mut(), bytes, access, libc::MAP_SHARED, self.number, 0) };
        if at == libc::MAP_FAILED { Err(errno()) } else { Ok(Span { at: at as usize, bytes }) }
    }

    /// Maps its first bytes at just these addresses, if nothing is mapped there.
    pub(crate) fn map(&self, span: Span) -> Result<(), Errno> {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE);
        // SAFETY: it replaces nothing.
        let at = unsafe { libc::mmap(span.at as *mut libc::c_void, span.bytes, access, flags, self.number, 0) };
        if at == libc::MAP_FAILED {
            return Err(errno());
        }
        if at as usize != span.at {
            // A kernel before 4.17 takes the address for a hint.
            super::unmap(Span { at: at as usize, bytes: span.bytes });
            return Err(libc::EEXIST);
        }
        Ok(())
    }
}

impl Drop for HeapFile {
    fn drop(&mut self) {
        // SAFETY: the number is ours, and nobody uses it any more.
        let _ = unsafe { libc::close(self.number) };
    }
}
