//! How a shared heap is made and opened.

use super::lock::Scheme;
use std::time::Duration;

/// How a shared heap is made and opened.
#[derive(Clone, Copy, Debug)]
pub struct SharedConfig {
    pub(super) bytes: usize,
    pub(super) at: Option<usize>,
    pub(super) scheme: Option<Scheme>,
    pub(super) network: bool,
    pub(super) wait: Duration,
}

impl SharedConfig {
    /// A heap of up to 64 GiB at an address that follows from the file, with robust mutexes.
    #[must_use]
    pub const fn new() -> Self {
        let (bytes, wait) = (64 << 30, Duration::from_secs(60));
        Self { bytes, at: None, scheme: None, network: false, wait }
    }

    /// How large the heap may become, in bytes, when it is made: from 16 MiB to 16 TiB. Its file is so long from the first, and
    /// takes room on the disk only for what was used.
    #[must_use]
    pub const fn max_size(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    /// Where the heap lies when it is made, in place of an address that follows from the file: a multiple of 1 GiB from
    /// 0x2000_0000_0000 on and below 0x4000_0000_0000.
    #[must_use]
    pub const fn address(mut self, at: usize) -> Self {
        self.at = Some(at);
        self
    }

    /// How the heap's processes exclude each other: chosen when it is made. A heap that was made with another one is refused
    /// then; if nothing is said it is opened with its own.
    #[must_use]
    pub const fn scheme(mut self, scheme: Scheme) -> Self {
        self.scheme = Some(scheme);
        self
    }

    /// Lets the file be on a network file system. All processes must be on one machine then.
    #[must_use]
    pub const fn network(mut self) -> Self {
        self.network = true;
        self
    }

    /// How long to wait for another process that is making or opening the heap: a minute, if nothing is said.
    #[must_use]
    pub const fn wait(mut self, time: Duration) -> Self {
        self.wait = time;
        self
    }
}

impl Default for SharedConfig {
    fn default() -> Self {
        Self::new()
    }
}
