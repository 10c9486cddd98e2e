//! What the corruption hunter asks about heaps that processes share.

use super::opened;
use crate::sync::Relaxed;

/// Another process, as a report names it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guest {
    number: u32,
    process: u32,
    since: u64,
}

impl core::fmt::Display for Guest {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.process {
            0 => write!(f, "which was guest {} of the heap", self.number),
            process => {
                write!(f, "now {process} if it lives, guest {} of the heap since {} ms", self.number, self.since)
            }
        }
    }
}

/// `Ok` if this process is that guest of the heap around an address; else who is.
pub(crate) fn is_this(address: usize, guest: u32) -> Result<(), Guest> {
    let place = opened::around(address);
    match place.filter(|place| place.guest().0 == guest) {
        Some(_) => Ok(()),
        None => {
            let known = place.and_then(|place| place.body().guests.each().find(|(number, _)| number.0 == guest));
            let (process, since) =
                known.map_or((0, 0), |(_, guest)| (guest.process.load(Relaxed), guest.since.load(Relaxed)));
            Err(Guest { number: guest, process, since })
        }
    }
}

/// Where it is noted which blocks begin around an address, if that is one of a heap that is open.
pub(crate) fn begins_around(address: usize) -> Option<usize> {
    opened::around(address)?.body().engine.source().begins_around(address)
}
