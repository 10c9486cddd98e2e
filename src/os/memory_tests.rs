#![expect(clippy::disallowed_methods, reason = "memory of a test's own")]

use super::{PAGE, can_read, copy_from, copy_probed};

/// Three pages of ones, of which the last cannot be read.
pub(in crate::os) fn with_pages(test: impl FnOnce(usize)) {
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a fresh mapping.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), 3 * PAGE, access, flags, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    // SAFETY: it is ours.
    unsafe { at.cast::<u8>().write_bytes(1, 3 * PAGE) };
    // SAFETY: the last page of it.
    assert_eq!(unsafe { libc::mprotect(at.wrapping_byte_add(2 * PAGE), PAGE, libc::PROT_NONE) }, 0);
    test(at as usize);
    // SAFETY: mapped above, and used no more.
    unsafe { libc::munmap(at, 3 * PAGE) };
}

#[test]
fn what_can_be_read_is_copied() {
    with_pages(|start| {
        let end = start + 2 * PAGE;
        for (at, readable) in [(start + 8, 64), (start + PAGE - 8, 64), (end - 24, 24), (end - 1, 1), (end, 0), (8, 0)]
        {
            for copy in [copy_from, copy_probed] {
                let mut bytes = [0; 64];
                assert_eq!(copy(at, &mut bytes), readable, "at {at:#x}");
                assert!(bytes.iter().enumerate().all(|(place, byte)| *byte == u8::from(place < readable)));
            }
        }
        assert!(can_read(start) && can_read(end - PAGE) && !can_read(end) && !can_read(0));
        assert_eq!(copy_from(usize::MAX - 7, &mut [0; 64]), 0);
        assert_eq!(copy_from(1 << 47, &mut [0; 64]), 0);
        assert_eq!(copy_from(start, &mut []), 0);
    });
}
