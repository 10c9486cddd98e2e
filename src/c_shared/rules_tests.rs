//! Errors that a program meets only after a minute, or on another file system.

use super::number;
use crate::finding::Layer;
use crate::os::Span;
use crate::shared::{Scheme, SharedError};

#[test]
fn c2_each_error_has_its_number() {
    let scheme = Scheme::default();
    let numbers = [
        (SharedError::System { what: "", errno: libc::EXDEV }, libc::EXDEV),
        (SharedError::Path, libc::EINVAL),
        (SharedError::NotAFile, libc::ENODEV),
        (SharedError::Network, libc::EREMOTE),
        (SharedError::NotAHeap, libc::EINVAL),
        (SharedError::Other { what: "", theirs: 1, ours: 2 }, libc::ENOTSUP),
        (SharedError::OtherScheme { theirs: scheme, ours: scheme }, libc::ENOTSUP),
        (SharedError::Damaged { what: "" }, libc::EUCLEAN),
        (SharedError::Records { finding: Layer::Runs.breaks("", 0) }, libc::EUCLEAN),
        (SharedError::Length { bytes: 1, made: 2 }, libc::EUCLEAN),
        (SharedError::Taken { span: Span { at: 1, bytes: 2 } }, libc::EADDRINUSE),
        (SharedError::Setting { rule: "" }, libc::EMFILE),
        (SharedError::Full, libc::EUSERS),
        (SharedError::Unborn, libc::ETIMEDOUT),
    ];
    numbers.into_iter().for_each(|(error, wanted)| assert_eq!(number(error), wanted, "{error}"));
}
