//! Files in which processes share a heap: what they are, the room in them, and their pages at fixed addresses.

#![allow(clippy::disallowed_methods, reason = "this folder is where the system is called")]

use super::Span;
use super::unix::errno;
use core::ffi::CStr;
use core::mem::MaybeUninit;

/// The number of an error of the system's.
pub(crate) type Errno = libc::c_int;

/// An open file. It is closed when this is dropped; what is mapped stays.
#[derive(Debug)]
pub(crate) struct HeapFile {
    number: libc::c_int,
}

/// The number of a file that is open as long as this is used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileNumber(libc::c_int);

impl FileNumber {
    /// Takes room for `bytes` bytes from `from` on: they can be written from now on, whatever becomes of the disk.
    pub(crate) fn fill(self, from: u64, bytes: u64) -> Result<(), Errno> {
        loop {
            // SAFETY: no preconditions.
            let result = unsafe { libc::fallocate(self.0, 0, from as libc::off_t, bytes as libc::off_t) };
            match checked(result) {
                Err(libc::EINTR) => {}
                result => return result.map(|_| ()),
            }
        }
    }
}

/// What the system knows of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) is_regular: bool,
    pub(crate) bytes: u64,
    pub(crate) inode: u64,
    /// When it was made, in nanoseconds, where the file system keeps that.
    pub(crate) born: u64,
}

/// What file systems say of themselves whose files other machines may change unseen: NFS, SMB (1, 2 and as CIFS), AFS, Coda,
/// Ceph, 9P, Lustre, GFS2, OCFS2.
const NETWORK: [u64; 11] = [
    0x6969,
    0x517b,
    0xfe53_4d42,
    0xff53_4d42,
    0x5346_414f,
    0x7375_7245,
    0x00c3_6400,
    0x0102_1997,
    0x0bd0_0bd0,
    0x0116_1970,
    0x7461_636f,
];

/// `Err` where the system says -1.
fn checked(result: libc::c_int) -> Result<libc::c_int, Errno> {
    if result == -1 { Err(errno()) } else { Ok(result) }
}

impl HeapFile {
    /// Opens the file at `path`, which is made if there is none, for its owner alone.
    pub(crate) fn open(path: &CStr) -> Result<Self, Errno> {
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        // SAFETY: the path ends with a zero.
        let number = checked(unsafe { libc::open(path.as_ptr(), flags, 0o600) })?;
        Ok(Self { number })
    }

    /// What it is.
    pub(crate) fn identity(&self) -> Result<Identity, Errno> {
        let mut found = MaybeUninit::<libc::statx>::zeroed();
        let mask = libc::STATX_BASIC_STATS | libc::STATX_BTIME;
        // SAFETY: the path is empty, and the place is as large as what is written.
        checked(unsafe { libc::statx(self.number, c"".as_ptr(), libc::AT_EMPTY_PATH, mask, found.as_mut_ptr()) })?;
        // SAFETY: zero bits are one, and so is what the system wrote.
        let found = unsafe { found.assume_init() };
        let born = (found.stx_btime.tv_sec as u64).wrapping_mul(1_000_000_000) + u64::from(found.stx_btime.tv_nsec);
        Ok(Identity {
            is_regular: u32::from(found.stx_mode) & libc::S_IFMT == libc::S_IFREG,
            bytes: found.stx_size,
            inode: found.stx_ino,
            born,
        })
    }

    /// Whether other machines may have it open.
    pub(crate) fn is_on_network(&self) -> Result<bool, Errno> {
        let mut found = MaybeUninit::<libc::statfs>::zeroed();
        // SAFETY: the place is as large as what is written.
        checked(unsafe { libc::fstatfs(self.number, found.as_mut_ptr()) })?;
        // SAFETY: zero bits are one, and so is what the system wrote.
        let kind = unsafe { found.assume_init() }.f_type as u64 & 0xffff_ffff;
        Ok(NETWORK.contains(&kind))
    }

    /// Locks its first byte, unless another opening of it has; the lock goes with this opening, whatever ends it.
    pub(crate) fn try_lock(&self) -> Result<bool, Errno> {
        match self.set_lock(libc::F_WRLCK) {
            Ok(()) => Ok(true),
            Err(libc::EAGAIN | libc::EACCES) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives the lock back.
    pub(crate) fn unlock(&self) {
        // A file that is open can always be unlocked.
        let _ = self.set_lock(libc::F_UNLCK);
    }

    fn set_lock(&self, kind: libc::c_int) -> Result<(), Errno> {
        // SAFETY: zero bits are one.
        let mut lock: libc::flock = unsafe { MaybeUninit::zeroed().assume_init() };
        (lock.l_type, lock.l_whence, lock.l_len) = (kind as libc::c_short, libc::SEEK_SET as libc::c_short, 1);
        // SAFETY: the lock is there to be read.
        checked(unsafe { libc::fcntl(self.number, libc::F_OFD_SETLK, &raw const lock) }).map(|_| ())
    }

    /// Makes it so long. What is new reads zero, and takes no room.
    pub(crate) fn set_bytes(&self, bytes: u64) -> Result<(), Errno> {
        let bytes = libc::off_t::try_from(bytes).map_err(|_| libc::EFBIG)?;
        // SAFETY: no preconditions.
        checked(unsafe { libc::ftruncate(self.number, bytes) }).map(|_| ())
    }

    /// Its number.
    pub(crate) fn number(&self) -> FileNumber {
        FileNumber(self.number)
    }

    /// Reads up to `bytes.len()` bytes from its begin; how many there were.
    pub(crate) fn read(&self, bytes: &mut [u8]) -> Result<usize, Errno> {
        // SAFETY: the bytes are ours.
        let count = unsafe { libc::pread(self.number, bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        usize::try_from(count).map_err(|_| errno())
    }

    /// Writes all of `bytes` at its begin.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<(), Errno> {
        // SAFETY: the bytes are there to be read.
        let count = unsafe { libc::pwrite(self.number, bytes.as_ptr().cast(), bytes.len(), 0) };
        match usize::try_from(count) {
            Ok(count) if count == bytes.len() => Ok(()),
            Ok(_) => Err(libc::ENOSPC),
            Err(_) => Err(errno()),
        }
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

/// Removes the name `path` of a file.
pub(crate) fn remove_file(path: &CStr) -> Result<(), Errno> {
    // SAFETY: the path ends with a zero.
    checked(unsafe { libc::unlink(path.as_ptr()) }).map(|_| ())
}

/// What the system says of an error.
pub(crate) fn describe(error: Errno) -> &'static str {
    match error {
        libc::EACCES | libc::EPERM => "permission denied",
        libc::ENOENT => "no such folder",
        libc::ENOSPC => "no room left on the disk",
        libc::EDQUOT => "no room left in the quota",
        libc::EFBIG => "larger than the file system or the limit of the process allows",
        libc::ELOOP => "it is a symbolic link",
        libc::EISDIR => "it is a folder",
        libc::EMFILE | libc::ENFILE => "too many open files",
        libc::ENOMEM => "no memory",
        libc::EEXIST => "something is mapped there",
        libc::EROFS => "the file system can only be read",
        libc::EOPNOTSUPP => "the file system cannot do that",
        libc::ENXIO | libc::ENODEV => "it is no regular file",
        _ => "refused by the system",
    }
}
