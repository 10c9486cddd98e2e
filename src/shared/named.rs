//! What a heap that goes by names has to know: whether a path still names its file, and forks before it was opened.

use super::{SharedHeap, opened};
use core::ffi::CStr;

impl SharedHeap {
    /// Whether `path` names the file of this heap, and not another one, or none.
    pub(crate) fn is_at(&self, path: &CStr) -> bool {
        self.place.file().is_at(path)
    }

    /// Has forks survived from now on, and not only once a heap is open. More than once is as once.
    #[allow(dead_code, reason = "only the C names come before a heap")]
    pub(crate) fn survive_forks() {
        opened::survive_forks();
    }
}
