//! Component `userfaultfd`: what the kernel tells of the whole process, and what heaps tell themselves.
//!
//! A thread waits for the kernel's messages. While there is one the memory has gone, and whoever took it away waits in the kernel until the
//! message was read. So the thread first says that something has changed, and then reads: nobody can have the addresses anew before
//! [`changed`](super::changed) is true. What it reads it keeps, for `process`, in pages of its own: it never touches a heap.

use super::allocator;
use super::component::{Component, Declined, Fork, Notice, Release, Support, Unwatched};
use crate::lock::{Locked, Rank, Spin};
use crate::os::{self, Helper, Message, Signal, Span, Userfault};
use crate::sync::{AtomicU32, AtomicUsize, Relaxed};
use core::ffi::c_void;
use core::ptr::{NonNull, null_mut, without_provenance_mut};
use std::format;

#[derive(Debug)]
pub(super) struct Userfaultfd;

/// Memory that has gone, and where its contents were moved, if they were.
type Gone = (Span, Option<Span>);

/// What was heard and not yet told. In pages of its own.
struct Heard {
    places: Option<NonNull<Gone>>,
    room: usize,
    count: usize,
    /// Some was lost for want of memory: anything may have gone.
    lost: bool,
}

// SAFETY: it owns its pages.
unsafe impl Send for Heard {}

impl Heard {
    const NONE: Self = Self { places: None, room: 0, count: 0, lost: false };

    fn add(&mut self, gone: Gone) {
        if self.count == self.room && !self.grow() {
            self.lost = true;
            return;
        }
        if let Some(places) = self.places {
            // SAFETY: there is room for one more.
            unsafe { places.as_ptr().wrapping_add(self.count).write(gone) };
            self.count += 1;
        }
    }

    fn grow(&mut self) -> bool {
        let room = (self.room * 2).max(os::page_bytes() / size_of::<Gone>());
        let Some(span) = os::map(room * size_of::<Gone>()) else { return false };
        let fresh = NonNull::new(core::ptr::with_exposed_provenance_mut::<Gone>(span.at));
        if let (Some(old), Some(new)) = (self.places, fresh) {
            // SAFETY: so many are there, and there is room for them.
            unsafe { new.copy_from_nonoverlapping(old, self.count) };
            os::unmap(Span { at: old.as_ptr() as usize, bytes: self.room * size_of::<Gone>() });
        }
        (self.places, self.room) = (fresh, room);
        fresh.is_some()
    }

    /// The last one that was heard.
    fn take(&mut self) -> Option<Gone> {
        let places = self.places?;
        self.count = self.count.checked_sub(1)?;
        // SAFETY: it is there.
        Some(unsafe { places.as_ptr().wrapping_add(self.count).read() })
    }

    /// Gives its pages back, and forgets all.
    fn clear(&mut self) {
        if let Some(places) = self.places {
            os::unmap(Span { at: places.as_ptr() as usize, bytes: self.room * size_of::<Gone>() });
        }
        *self = Self::NONE;
    }
}

static HEARD: Locked<Heard, Spin> = Locked::new(Rank::Heard, Heard::NONE);
/// The numbers of the two files, each with one added: 0 while there is none.
static FAULTS: AtomicU32 = AtomicU32::new(0);
static STOP: AtomicU32 = AtomicU32::new(0);
/// The thread that listens.
static HELPER: AtomicUsize = AtomicUsize::new(0);
/// How often it was opened: which of them a thread listens for.
static OPENINGS: AtomicUsize = AtomicUsize::new(0);

fn faults() -> Userfault {
    Userfault::of_number(FAULTS.load(Relaxed) as i32 - 1)
}

fn stop() -> Signal {
    Signal::of_number(STOP.load(Relaxed) as i32 - 1)
}

/// Reads what the kernel tells. It ends when it is told to.
extern "C" fn listen(opening: *mut c_void) -> *mut c_void {
    let (faults, stop) = (faults(), stop());
    loop {
        match faults.wait(stop) {
            // Whoever processes waits until what was read is kept.
            Some(true) => HEARD.with(|heard| {
                super::announce();
                let mut messages = [Message::NONE; 16];
                let count = faults.read(&mut messages);
                messages[..count].iter().filter_map(Message::gone).for_each(|gone| heard.add(gone));
            }),
            Some(false) => return null_mut(),
            // Somebody has closed the file: nothing is watched any more, and whatever was registered may have gone. The number may be
            // another file's by now.
            None => {
                HEARD.with(|heard| {
                    if OPENINGS.load(Relaxed) == opening.addr() {
                        FAULTS.store(0, Relaxed);
                        heard.lost = true;
                        super::announce();
                    }
                });
                return null_mut();
            }
        }
    }
}

impl Component for Userfaultfd {
    fn name(&self) -> &'static str {
        "userfaultfd"
    }

    fn priority(&self) -> i32 {
        60
    }

    fn support(&self) -> Support {
        Support { heaps: Notice::Before, process: Notice::Polled }
    }

    fn open(&self) -> Result<(), Declined> {
        let refused = |what, error| Declined(format!("{what}: {}", os::why_refused(error)).into());
        let faults =
            Userfault::open().map_err(|error| refused("the kernel has no userfaultfd for this process", error))?;
        let signal = Signal::new().map_err(|error| {
            faults.close();
            refused("there is no number for another file", error)
        })?;
        let opening = HEARD.with(|_| {
            FAULTS.store(faults.number() as u32 + 1, Relaxed);
            STOP.store(signal.number() as u32 + 1, Relaxed);
            1 + OPENINGS.fetch_add(1, Relaxed)
        });
        let Some(helper) = Helper::start(listen, without_provenance_mut(opening)) else {
            close_files();
            return Err(Declined("there is no thread for it".into()));
        };
        HELPER.store(helper.word(), Relaxed);
        allocator::listen();
        Ok(())
    }

    fn close(&self) {
        allocator::ignore();
        let helper = HELPER.swap(0, Relaxed);
        match helper {
            0 => {}
            // It has ended.
            _ if faults() == Userfault::NONE => Helper::of_word(helper).join(),
            _ if faults().is_one() => {
                stop().give();
                Helper::of_word(helper).join();
            }
            // Somebody has closed all files: the thread cannot be told, and ends when it next hears something.
            _ => Helper::of_word(helper).leave(),
        }
        close_files();
        HEARD.with(Heard::clear);
    }

    unsafe fn fork(&self, stage: Fork) {
        // Nothing is held over the fork: whoever takes memory away waits for the thread that listens, and may have a lock that somebody
        // else holds over forks.
        if stage == Fork::InChild {
            HELPER.store(0, Relaxed);
            close_files();
            // SAFETY: in the child nobody else is there. Its pages are lost, whatever state they are in.
            unsafe { HEARD.renew(Heard::NONE) };
        }
    }

    fn watch(&self, base: usize, bytes: usize) -> Result<(), Unwatched> {
        let span = Span { at: base, bytes };
        if !os::is_mapped(span) {
            // The kernel watches what there is of it, and would not watch what comes to the holes.
            return Err(Unwatched("not all of it is mapped"));
        }
        match faults().watch(span) {
            Ok(()) => Ok(()),
            // What it is not told of by the kernel a heap tells itself.
            Err(error) if os::is_of_another_kind(error) && super::is_of_heap(span) => Ok(()),
            Err(error) => Err(Unwatched(os::why_unwatched(error))),
        }
    }

    fn unwatch(&self, base: usize, bytes: usize) {
        faults().unwatch(Span { at: base, bytes });
    }

    fn is_in_flight(&self) -> bool {
        faults().is_in_flight()
    }

    fn process(&self, each: &mut dyn FnMut(Release)) {
        loop {
            let (gone, lost) = HEARD.with(|heard| {
                let next = (heard.take(), heard.lost);
                heard.lost = false;
                if next == (None, false) {
                    super::settle();
                }
                next
            });
            if lost {
                super::each_registered(&mut |span| {
                    each(Release { base: span.at, bytes: span.bytes, from_allocator: false })
                });
            }
            match gone {
                Some((Span { at, bytes }, moved)) => {
                    each(Release { base: at, bytes, from_allocator: false });
                    if let Some(moved) = moved {
                        super::unwatch_unregistered(moved);
                    }
                }
                None if lost => {}
                None => return,
            }
        }
    }
}

fn close_files() {
    let (faults, stop) = (faults(), stop());
    FAULTS.store(0, Relaxed);
    STOP.store(0, Relaxed);
    // Where somebody has closed all files the numbers are others' by now.
    if faults != Userfault::NONE && faults.is_one() {
        faults.close();
        stop.close();
    }
}
