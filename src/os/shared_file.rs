//! What shared heaps need of their file beyond its pages: what it is, room in it, and locks of its bytes.

#![allow(clippy::disallowed_methods, reason = "this folder is where the system is called")]

use super::errors::{Errno, checked};
use super::heap_file::{FileNumber, HeapFile};
use super::unix::errno;
use core::ffi::CStr;
use core::mem::MaybeUninit;

impl FileNumber {
    /// That of a word.
    pub(crate) fn of(word: i32) -> Self {
        Self(word)
    }

    /// A lock of `kind` on the byte at `at`, which may lie behind the end, as the system wants it.
    fn lock_of(kind: libc::c_int, at: u64) -> libc::flock {
        // SAFETY: zero bits are one.
        let mut lock: libc::flock = unsafe { MaybeUninit::zeroed().assume_init() };
        (lock.l_type, lock.l_whence) = (kind as libc::c_short, libc::SEEK_SET as libc::c_short);
        (lock.l_start, lock.l_len) = (at as libc::off_t, 1);
        lock
    }

    /// Locks the byte at `at`, unless another opening of the file has; the lock goes with this opening, whatever ends it.
    pub(crate) fn try_lock(self, at: u64) -> Result<bool, Errno> {
        let lock = Self::lock_of(libc::F_WRLCK, at);
        // SAFETY: the lock is there to be read.
        match checked(unsafe { libc::fcntl(self.0, libc::F_OFD_SETLK, &raw const lock) }) {
            Ok(_) => Ok(true),
            Err(libc::EAGAIN | libc::EACCES) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Locks the byte at `at`, once no other opening has.
    pub(crate) fn lock(self, at: u64) -> Result<(), Errno> {
        let lock = Self::lock_of(libc::F_WRLCK, at);
        loop {
            // SAFETY: the lock is there to be read.
            match checked(unsafe { libc::fcntl(self.0, libc::F_OFD_SETLKW, &raw const lock) }) {
                Err(libc::EINTR) => {}
                result => return result.map(|_| ()),
            }
        }
    }

    /// Gives the lock of the byte at `at` back.
    pub(crate) fn unlock(self, at: u64) {
        let lock = Self::lock_of(libc::F_UNLCK, at);
        // SAFETY: the lock is there to be read. A file that is open can always be unlocked.
        let _ = unsafe { libc::fcntl(self.0, libc::F_OFD_SETLK, &raw const lock) };
    }

    /// Whether another opening has the byte at `at` locked. In doubt it has.
    pub(crate) fn is_locked(self, at: u64) -> bool {
        let mut lock = Self::lock_of(libc::F_WRLCK, at);
        // SAFETY: the lock is there to be read and written.
        let result = unsafe { libc::fcntl(self.0, libc::F_OFD_GETLK, &raw mut lock) };
        result == -1 || libc::c_int::from(lock.l_type) != libc::F_UNLCK
    }

    /// Whether the file has a name.
    pub(crate) fn is_named(self) -> bool {
        let file = core::mem::ManuallyDrop::new(HeapFile { number: self.0 });
        file.identity().is_ok_and(|identity| identity.is_named)
    }

    /// Whether `path` names this file. (A symbolic link is a file of its own.)
    pub(crate) fn is_at(self, path: &CStr) -> bool {
        let ours = found(self.0, c"", libc::AT_EMPTY_PATH);
        let theirs = found(libc::AT_FDCWD, path, libc::AT_SYMLINK_NOFOLLOW);
        let key = |found: libc::statx| (found.stx_dev_major, found.stx_dev_minor, found.stx_ino);
        ours.is_ok_and(|ours| theirs.is_ok_and(|theirs| key(ours) == key(theirs)))
    }

    /// Takes the memory behind whole pages away: they read zero, and have no room on the disk. False if it cannot be done.
    pub(crate) fn punch(self, from: u64, bytes: u64) -> bool {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: no preconditions.
        unsafe { libc::fallocate(self.0, mode, from as libc::off_t, bytes as libc::off_t) == 0 }
    }

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
    /// Whether it has a name.
    pub(crate) is_named: bool,
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

/// What the system knows of the file at `path`, as seen from the folder or file `from`.
fn found(from: libc::c_int, path: &CStr, flags: libc::c_int) -> Result<libc::statx, Errno> {
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    let mask = libc::STATX_BASIC_STATS | libc::STATX_BTIME;
    // SAFETY: the path ends with a zero, and the place is as large as what is written.
    checked(unsafe { libc::statx(from, path.as_ptr(), flags, mask, found.as_mut_ptr()) })?;
    // SAFETY: zero bits are one, and so is what the system wrote.
    Ok(unsafe { found.assume_init() })
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
        let found = found(self.number, c"", libc::AT_EMPTY_PATH)?;
        let born = (found.stx_btime.tv_sec as u64).wrapping_mul(1_000_000_000) + u64::from(found.stx_btime.tv_nsec);
        Ok(Identity {
            is_regular: u32::from(found.stx_mode) & libc::S_IFMT == libc::S_IFREG,
            bytes: found.stx_size,
            inode: found.stx_ino,
            born,
            is_named: found.stx_nlink > 0,
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

    /// The file of that number, which nobody else closes.
    pub(crate) fn of(number: FileNumber) -> Self {
        Self { number: number.0 }
    }

    /// Gives the number up, to be closed by another.
    pub(crate) fn into_number(self) -> FileNumber {
        FileNumber(core::mem::ManuallyDrop::new(self).number)
    }

    /// Another opening of the same file, whatever has become of its name: with locks of its own. (By the folder of the process's
    /// open files, at its number there.)
    pub(crate) fn open_again(number: FileNumber) -> Result<Self, Errno> {
        let (mut path, mut at) = (*b"/proc/self/fd/\0\0\0\0\0\0\0\0\0\0\0\0", 13);
        let (mut digits, mut rest) = ([0u8; 10], u32::try_from(number.0).map_err(|_| libc::EBADF)?);
        let mut count = 0;
        while count == 0 || rest > 0 {
            digits[count % 10] = b'0' + (rest % 10) as u8;
            (rest, count) = (rest / 10, count + 1);
        }
        while count > 0 {
            (at, count) = (at + 1, count - 1);
            path[at] = digits[count % 10];
        }
        // SAFETY: the path ends with a zero.
        let number = checked(unsafe { libc::open(path.as_ptr().cast(), libc::O_RDWR | libc::O_CLOEXEC) })?;
        Ok(Self { number })
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
}

/// Removes the name `path` of a file.
pub(crate) fn remove_file(path: &CStr) -> Result<(), Errno> {
    // SAFETY: the path ends with a zero.
    checked(unsafe { libc::unlink(path.as_ptr()) }).map(|_| ())
}
