//! Files of tests' own.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// A path of a test's own, for a file that goes when this is dropped.
pub(crate) struct Place(pub(crate) PathBuf);

impl Place {
    pub(crate) fn new(name: &str) -> Self {
        let folder = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { env::temp_dir() };
        let this = Self(folder.join(format!("stratalloc-{name}-{}", std::process::id())));
        this.remove();
        this
    }

    pub(crate) fn remove(&self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.remove();
    }
}
