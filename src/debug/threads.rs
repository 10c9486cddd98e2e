//! The threads that there ever were, for reports: a number stands for one in a record.

use crate::os;
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Relaxed, Release};
use core::ptr::null_mut;

/// How many there can be; the rest is number 0.
const MAX: u32 = 1 << 18;

/// What is known of a thread.
#[derive(Debug)]
#[repr(C)]
struct Entry {
    /// The system's number; 0 before it is known.
    id: AtomicU32,
    has_ended: AtomicU32,
    /// Its name when it was asked for last, in bytes.
    name: [AtomicU64; 2],
}

#[derive(Debug)]
pub(super) struct Threads {
    table: AtomicPtr<Entry>,
    count: AtomicU32,
}

/// A thread, as a report names it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named {
    pub(super) id: u32,
    pub(super) has_ended: bool,
    pub(super) name: [u8; 16],
}

impl Threads {
    pub(super) const fn new() -> Self {
        Self { table: AtomicPtr::new(null_mut()), count: AtomicU32::new(0) }
    }

    pub(super) fn open(&self) -> bool {
        if self.table.load(Relaxed).is_null() {
            let Some(table) = os::map_sparse(MAX as usize * size_of::<Entry>()) else {
                return false;
            };
            // Release: publishes zeroed memory.
            self.table.store(table.at as *mut Entry, Release);
        }
        true
    }

    fn entry(&self, number: u32) -> Option<&Entry> {
        let table = self.table.load(Relaxed);
        if table.is_null() || number == 0 || number >= MAX {
            return None;
        }
        // SAFETY: there are that many entries, for good.
        let entry = unsafe { table.add(number as usize) };
        // SAFETY: as above.
        Some(unsafe { &*entry })
    }

    /// A number for the calling thread.
    pub(super) fn enter(&self) -> u32 {
        let number = self.count.fetch_add(1, Relaxed).saturating_add(1);
        if number >= MAX {
            self.count.store(MAX, Relaxed);
            return 0;
        }
        self.refresh(number);
        number
    }

    /// Notes what the calling thread, `number`, is called by now.
    pub(super) fn refresh(&self, number: u32) {
        let Some(entry) = self.entry(number) else { return };
        let name = os::thread_name();
        for (half, bytes) in entry.name.iter().zip(name.as_chunks::<8>().0) {
            half.store(u64::from_ne_bytes(*bytes), Relaxed);
        }
        entry.id.store(os::thread_id(), Relaxed);
    }

    /// The calling thread, `number`, ends.
    pub(super) fn leave(&self, number: u32) {
        self.refresh(number);
        if let Some(entry) = self.entry(number) {
            entry.has_ended.store(1, Relaxed);
        }
    }

    /// What is known of thread `number`.
    pub(super) fn named(&self, number: u32) -> Option<Named> {
        let entry = self.entry(number).filter(|entry| entry.id.load(Relaxed) != 0)?;
        let mut name = [0; 16];
        for (bytes, half) in name.as_chunks_mut::<8>().0.iter_mut().zip(&entry.name) {
            *bytes = half.load(Relaxed).to_ne_bytes();
        }
        Some(Named { id: entry.id.load(Relaxed), has_ended: entry.has_ended.load(Relaxed) != 0, name })
    }
}
