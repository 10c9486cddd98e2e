//! Errors of the system's, by their numbers.

use super::unix::errno;

/// The number of an error of the system's.
pub(crate) type Errno = libc::c_int;

/// `Err` where the system says -1.
pub(super) fn checked(result: libc::c_int) -> Result<libc::c_int, Errno> {
    if result == -1 { Err(errno()) } else { Ok(result) }
}

/// What the system says of an error.
pub(crate) fn describe(error: Errno) -> &'static str {
    match error {
        libc::EACCES | libc::EPERM => "permission denied",
        libc::ENOENT => "no such file or folder",
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
