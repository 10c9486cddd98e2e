//! Reports: what is wrong with a block, in a first line that is the same for each kind of error, and all that is known of it.
//!
//! Whoever reports takes no lock (others wait for the end of the report), allocates nothing and uses no stdio; it may be
//! inside a handler of a fault. Memory that a damaged record could point to is not looked at.

use super::begins::State;
use super::frames::{Context, Frame, Stack, Symbols, walk};
use super::guard::{self, Pattern};
use super::hunter::{Hunter, now};
use super::record::{Event, Facts};
use super::stacks::{NEAR, Stacks};
use super::voice::{Voice, say};
use crate::config::FRAMES_MAX;
use crate::os;
use crate::sync::{Acquire, AtomicU32, Relaxed, Release};
use core::alloc::Layout;
use core::fmt::Write;
use core::ptr::NonNull;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crime {
    Overflow,
    Underflow,
    WrittenAfterFree,
    TouchedBehind,
    TouchedBefore,
    TouchedAfterFree,
    DoubleFree,
    Interior,
    InteriorFreed,
    Foreign,
    Layout,
    Heap,
    Record,
}

impl Crime {
    /// The first line of its report.
    const fn line(self) -> &'static str {
        match self {
            Self::Overflow => "overflow: bytes behind a block were written",
            Self::Underflow => "underflow: bytes before a block were written",
            Self::WrittenAfterFree => "use after free: a block was written after it was freed",
            Self::TouchedBehind => "overflow: a byte behind a block was touched",
            Self::TouchedBefore => "underflow: a byte before a block was touched",
            Self::TouchedAfterFree => "use after free: a block was touched after it was freed",
            Self::DoubleFree => "double free: a block was freed that had been freed before",
            Self::Interior => "invalid free: the pointer is not to the begin of a block, but into it",
            Self::InteriorFreed => "invalid free: the pointer is into a block that had been freed before",
            Self::Foreign => "invalid free: no block begins at the pointer",
            Self::Layout => "wrong layout: a block was freed or resized with another layout than it was allocated with",
            Self::Heap => "wrong heap: a block of another heap was freed or resized",
            Self::Record => "damaged record: what lies before a block was written over",
        }
    }

    /// What does not hold, for a finding.
    pub(super) const fn rule(self) -> &'static str {
        match self {
            Self::Overflow => "bytes behind a block are as they were written",
            Self::Underflow => "bytes before a block are as they were written",
            Self::WrittenAfterFree => "a freed block is as it was filled",
            _ => "a block's record is as it was written",
        }
    }
}

/// What the caller asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Free,
    Realloc,
}

/// What a caller passed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passed {
    pub(super) call: Call,
    pub(super) at: usize,
    pub(super) layout: Option<Layout>,
    /// The number of the heap that was called.
    pub(super) heap: u8,
}

/// What is to be reported.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) crime: Crime,
    /// The block that it is about.
    pub(super) at: NonNull<u8>,
    /// What is known of the block.
    pub(super) facts: Option<Facts>,
    /// The address of the first bad byte; 0: none.
    pub(super) bad: usize,
    /// Bytes that should have been left alone, and from where on.
    pub(super) guard: (NonNull<u8>, usize),
    pub(super) passed: Option<Passed>,
}

impl Case {
    pub(super) fn of(crime: Crime, at: NonNull<u8>, facts: Option<Facts>) -> Self {
        Self { crime, at, facts, bad: 0, guard: (at, 0), passed: None }
    }

    /// The pattern that the guard has.
    fn pattern(&self) -> Pattern {
        if self.crime == Crime::WrittenAfterFree { Pattern::Poison } else { Pattern::Guard }
    }

    fn is_changed(&self, index: usize) -> bool {
        let (at, bytes) = self.guard;
        // SAFETY: the guard was read to find the bad byte.
        index < bytes && unsafe { guard::is_changed(at, index, bytes, self.pattern()) }
    }
}

/// How long it is waited for that a thread which frees a block notes that, in milliseconds.
const NOTE_PATIENCE: u32 = 20;
/// How long another thread's report is waited for, in milliseconds.
const PATIENCE: u32 = 30_000;

/// Enters the number of a thread that is to report in `turn`, where nobody's may stand; false if it stands there already. A
/// report that takes longer than `patience` milliseconds is stuck: its place is taken, by one of those who wait.
fn take_turn(turn: &AtomicU32, own: u32, patience: u32) -> bool {
    let (mut other, mut waited) = (0, 0);
    loop {
        // Acquire: pairs with `end_turn`: the report before has been told.
        match turn.compare_exchange(0, own, Acquire, Relaxed) {
            Ok(_) => return true,
            Err(now) if now == own => return false,
            // Relaxed: the one that is stuck hands nothing over.
            Err(now) if now == other && waited >= patience => {
                if turn.compare_exchange(now, own, Relaxed, Relaxed).is_ok() {
                    return true;
                }
            }
            Err(now) if now == other => {
                os::sleep(1);
                waited += 1;
            }
            Err(now) => (other, waited) = (now, 0),
        }
    }
}

/// Ends what `take_turn` began, if nobody has taken the place meanwhile.
fn end_turn(turn: &AtomicU32, own: u32) {
    // Release: pairs with `take_turn`. What fails is not this thread's to release.
    let _ = turn.compare_exchange(own, 0, Release, Relaxed);
}

impl Hunter {
    /// Reports, and ends the process, unless it is to go on.
    #[cold]
    #[inline(never)]
    pub(super) fn report(&self, case: &Case) {
        let here = Context::here();
        self.reporting(|voice| self.tell(voice, case, &here));
    }

    /// Runs `tell` as the only report of the process at this time (but for one that is stuck), and ends the process, unless it
    /// is to go on.
    pub(super) fn reporting(&self, tell: impl FnOnce(&mut Voice)) {
        let own = os::thread_id();
        if !take_turn(&self.reporting, own, PATIENCE) {
            // Something is wrong with what is reported on.
            return;
        }
        let mut voice = Voice::new();
        tell(&mut voice);
        drop(voice);
        if !self.hunt().go_on {
            os::abort();
        }
        end_turn(&self.reporting, own);
    }

    /// Whether the calling thread is reporting.
    pub(super) fn is_reporting(&self) -> bool {
        // Relaxed: what a thread wrote itself it sees.
        self.reporting.load(Relaxed) == os::thread_id()
    }

    pub(super) fn tell(&self, voice: &mut Voice, case: &Case, here: &Context) {
        say!(voice, "stratalloc: {}", case.crime.line());
        voice.flush();
        if let Some(passed) = case.passed {
            self.tell_passed(voice, passed);
        }
        self.tell_block(voice, case);
        if case.bad != 0 {
            tell_distance(voice, case);
            tell_bytes(voice, case);
        }
        if let Some(facts) = case.facts {
            self.tell_events(voice, case.at, &facts);
        }
        self.tell_here(voice, here);
    }

    /// Says what happened to a block.
    fn tell_events(&self, voice: &mut Voice, at: NonNull<u8>, facts: &Facts) {
        let at = at.as_ptr() as usize;
        self.tell_event(voice, "allocated", facts.allocated, (at, facts));
        if facts.freed != Event::default() {
            self.tell_event(voice, "freed", facts.freed, (at, facts));
        }
    }

    /// The same, of a block that was not named yet.
    #[cfg(feature = "hooks")]
    pub(super) fn tell_history(&self, voice: &mut Voice, at: NonNull<u8>, facts: &Facts) {
        say!(voice, "  in a block of {} bytes at {:#x}", facts.layout.size(), at.as_ptr() as usize);
        self.tell_events(voice, at, facts);
    }

    /// Says when something was done, by whom, and from where.
    #[cfg(feature = "hooks")]
    pub(super) fn tell_when(&self, voice: &mut Voice, event: Event) {
        self.tell_age(voice, event.time);
        self.tell_thread(voice, event.thread);
        self.tell_stack(voice, event.stack);
    }

    fn tell_passed(&self, voice: &mut Voice, passed: Passed) {
        let verb = match passed.call {
            Call::Free => "free",
            Call::Realloc => "realloc",
        };
        match passed.layout {
            Some(layout) => {
                say!(
                    voice,
                    "  {verb} was passed {:#x}, with size {} and alignment {}",
                    passed.at,
                    layout.size(),
                    layout.align()
                );
            }
            None => say!(voice, "  {verb} was passed {:#x}", passed.at),
        }
    }

    fn tell_block(&self, voice: &mut Voice, case: &Case) {
        match case.facts {
            Some(facts) => say!(
                voice,
                "  the block at {:#x} was allocated with size {} and alignment {}",
                case.at.as_ptr() as usize,
                facts.layout.size(),
                facts.layout.align()
            ),
            None if case.crime == Crime::Record => {
                say!(voice, "  the block at {:#x}, of which nothing else is known", case.at.as_ptr() as usize);
                self.tell_neighbour(voice, case.at.as_ptr() as usize);
            }
            None => tell_place(voice, case.at.as_ptr() as usize),
        }
    }

    /// Says what lies before a block whose record is damaged: somebody may have gone beyond it.
    fn tell_neighbour(&self, voice: &mut Voice, at: usize) {
        const REACH: usize = 1 << 20;
        let Some((before, _)) = self.last_before(at - 1, REACH) else { return };
        let facts = NonNull::new(before as *mut u8).and_then(|before| self.record(before).read());
        if let Some(facts) = facts {
            let end = before + facts.layout.size();
            say!(
                voice,
                "  the block before it ends {} bytes earlier: at {before:#x}, allocated with size {} and alignment {}",
                at.saturating_sub(end),
                facts.layout.size(),
                facts.layout.align()
            );
            self.tell_event(voice, "allocated", facts.allocated, (before, &facts));
        }
    }

    /// Says what happened to the block at an address, of which these facts are known.
    fn tell_event(&self, voice: &mut Voice, verb: &str, event: Event, block: (usize, &Facts)) {
        let _ = write!(voice, "  {verb}");
        self.tell_age(voice, event.time);
        let event = match process_of(event, block) {
            Ok(event) => event,
            Err(process) => return say!(voice, " by another process, {process}"),
        };
        self.tell_thread(voice, event.thread);
        self.tell_stack(voice, event.stack);
    }

    /// Says the backtrace of a number.
    pub(super) fn tell_stack(&self, voice: &mut Voice, number: u32) {
        let stack = self.stacks.get(number);
        match stack {
            [] => say!(voice, ""),
            _ => say!(voice, ", in"),
        }
        tell_frames(voice, stack.iter().map(|address| *address as usize), self.hunt().frames);
        if Stacks::is_like(number) && stack.len() > NEAR {
            say!(voice, "        (beyond the first {} as in another call from there, at the same depth)", NEAR);
        }
    }

    /// Says how long ago something was, from the clock's rate since the hunter began.
    fn tell_age(&self, voice: &mut Voice, time: u32) {
        let (began, ticks) = self.beginning();
        let elapsed = os::milliseconds().saturating_sub(began);
        let total = u64::from(now().wrapping_sub(ticks)).max(1);
        let age = u64::from(now().wrapping_sub(time)).min(total) * elapsed / total;
        let _ = write!(voice, " {}.{:03} s ago", age / 1000, age % 1000);
    }

    pub(super) fn tell_thread(&self, voice: &mut Voice, number: u32) {
        let Some(thread) = self.threads.named(number) else {
            let _ = write!(voice, " by a thread of which nothing is known");
            return;
        };
        let _ = write!(voice, " by thread {} \"", thread.id);
        voice.bytes(thread.name.split(|byte| *byte == 0).next().unwrap_or_default());
        let _ = write!(voice, "\"{}", if thread.has_ended { ", which has ended" } else { "" });
    }

    /// Says who reports, and from where.
    pub(super) fn tell_here(&self, voice: &mut Voice, here: &Context) {
        let _ = write!(voice, "  noticed by thread {} \"", os::thread_id());
        voice.bytes(os::thread_name().split(|byte| *byte == 0).next().unwrap_or_default());
        say!(voice, "\", in");
        let mut callers = [Frame::NONE; FRAMES_MAX];
        let count = walk(here, &mut Stack::unknown(), &mut callers);
        // The place itself comes first: as an address behind it, like those of callers.
        let place = core::iter::once(here.ip() + 1);
        tell_frames(voice, place.chain(callers.iter().take(count).map(|frame| frame.address)), usize::MAX);
    }

    /// Reports a pointer at which no live block begins.
    #[cold]
    #[inline(never)]
    pub(super) fn report_bad_pointer(&self, passed: Passed, state: Option<State>) -> Option<Facts> {
        let at = NonNull::new(passed.at as *mut u8)?;
        let case = match state {
            Some(State::Held | State::Freed) => Case::of(Crime::DoubleFree, at, self.facts_of_freed(at)),
            _ => self.case_of_nothing(at),
        };
        self.report(&Case { passed: Some(passed), ..case });
        None
    }

    /// What is recorded of a freed block. Who has freed it may be about to note that: then it is waited for, a little.
    fn facts_of_freed(&self, at: NonNull<u8>) -> Option<Facts> {
        let is_noted = |facts: &Facts| facts.freed != Event::default();
        for _ in 0..NOTE_PATIENCE {
            let noted = self.record(at).read().filter(is_noted);
            if noted.is_some() {
                return noted;
            }
            os::sleep(1);
        }
        self.record(at).read()
    }

    /// What a pointer is to, at which nothing begins.
    fn case_of_nothing(&self, at: NonNull<u8>) -> Case {
        match self.block_around(at.as_ptr() as usize) {
            Some((block, State::Live, facts)) => {
                Case { bad: at.as_ptr() as usize, ..Case::of(Crime::Interior, block, Some(facts)) }
            }
            Some((block, _, facts)) => {
                Case { bad: at.as_ptr() as usize, ..Case::of(Crime::InteriorFreed, block, Some(facts)) }
            }
            None => Case::of(Crime::Foreign, at, None),
        }
    }

    /// The block that has `address`, in its bytes or its guards.
    pub(super) fn block_around(&self, address: usize) -> Option<(NonNull<u8>, State, Facts)> {
        const REACH: usize = 1 << 32;
        let before = self.last_before(address, REACH);
        let behind = self.begins.first_after(address, guard::BEFORE + 1);
        [before, behind].into_iter().flatten().find_map(|(begin, state)| {
            let at = NonNull::new(begin as *mut u8)?;
            let facts = self.record(at).read()?;
            let room = begin - guard::BEFORE..begin + facts.layout.size() + guard::BACK;
            room.contains(&address).then_some((at, state, facts))
        })
    }
}

/// Says where the bad byte lies.
/// The event as one of this process's; or, in a heap that processes share, who else's it is.
#[cfg(feature = "shared")]
fn process_of(event: Event, (at, facts): (usize, &Facts)) -> Result<Event, crate::shared::Guest> {
    if facts.heap < super::SHARED {
        return Ok(event);
    }
    let (guest, event) = event.to_guest();
    crate::shared::is_this(at, guest).map(|()| event)
}

#[cfg(not(feature = "shared"))]
fn process_of(event: Event, _: (usize, &Facts)) -> Result<Event, core::convert::Infallible> {
    Ok(event)
}

fn tell_distance(voice: &mut Voice, case: &Case) {
    let (begin, size) = (case.at.as_ptr() as usize, case.facts.map_or(0, |facts| facts.layout.size()));
    let bad = case.bad;
    let what =
        if matches!(case.crime, Crime::Interior | Crime::InteriorFreed) { "the pointer" } else { "the first bad byte" };
    match bad {
        _ if bad >= begin + size => say!(voice, "  {what} is {bad:#x}: {} bytes behind the end", bad - begin - size),
        _ if bad < begin => say!(voice, "  {what} is {bad:#x}: {} bytes before the begin", begin - bad),
        _ => say!(voice, "  {what} is {bad:#x}: {} bytes behind the begin", bad - begin),
    }
}

/// Shows the bytes around the first bad one, those that were changed in brackets.
fn tell_bytes(voice: &mut Voice, case: &Case) {
    let (at, bytes) = case.guard;
    if bytes == 0 {
        return;
    }
    let (guard, begin) = (at.as_ptr() as usize, case.at.as_ptr() as usize);
    let size = case.facts.map_or(0, |facts| facts.layout.size());
    let changed = (0..bytes).filter(|index| case.is_changed(*index)).count();
    say!(voice, "  {changed} of {bytes} bytes from {guard:#x} on were changed:");
    let first = (case.bad & !15).saturating_sub(16).max(guard.min(begin));
    let last = (case.bad + 48).min((guard + bytes).max(begin + size));
    for row in (first & !15..last).step_by(16) {
        let _ = write!(voice, "    {row:#x}:");
        for byte in row..row + 16 {
            if byte < first || byte >= last {
                let _ = voice.write_str("    ");
                continue;
            }
            // SAFETY: in the block or in one of its guards.
            let value = unsafe { (byte as *const u8).read() };
            let marked = byte.checked_sub(guard).is_some_and(|index| case.is_changed(index));
            let _ = if marked { write!(voice, " [{value:02x}]") } else { write!(voice, "  {value:02x} ") };
        }
        say!(voice, "");
    }
}

/// Says what the system knows of an address.
fn tell_place(voice: &mut Voice, address: usize) {
    let mut found = false;
    os::mapping_around(address, |line| {
        found = true;
        let _ = write!(voice, "  the pointer is into the mapping ");
        voice.bytes(line);
        say!(voice, "");
    });
    if !found {
        say!(voice, "  nothing is mapped at the pointer");
    }
}

/// What begins the names of this crate's functions, and of the shims before them.
const OWN: [&[u8]; 6] = [b"stratalloc::", b"<stratalloc::", b"_<stratalloc", b"__rust", b"alloc::alloc::", b"__rdl_"];

/// What begins the names of functions that call a thread's or the program's first one: nobody looks for an error in them.
const LAST: [&[u8]; 2] =
    [b"std::sys::backtrace::__rust_begin_short_backtrace", b"std::sys_common::backtrace::__rust_begin_short_backtrace"];

/// The first letters of a function's name.
struct Begin {
    text: [u8; 64],
    used: usize,
}

impl Begin {
    fn of(symbols: &mut Symbols, address: usize) -> Self {
        let mut begin = Self { text: [0; 64], used: 0 };
        // It takes what it can.
        let _ = symbols.write(address, &mut begin);
        begin
    }

    fn is_one_of(&self, names: &[&[u8]]) -> bool {
        names.iter().any(|name| self.text[..self.used].starts_with(name))
    }
}

impl Write for Begin {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for (place, byte) in self.text[self.used..].iter_mut().zip(text.bytes()) {
            *place = byte;
            self.used += 1;
        }
        Ok(())
    }
}

/// Says a backtrace, from the first frame on that is not this crate's or a shim before it, up to `most` frames.
fn tell_frames(voice: &mut Voice, addresses: impl Iterator<Item = usize>, most: usize) {
    let mut symbols = Symbols::new();
    let mut number = 0;
    for address in addresses {
        let begin = Begin::of(&mut symbols, address);
        if number == 0 && begin.is_one_of(&OWN) {
            continue;
        }
        if number == most || begin.is_one_of(&LAST) {
            break;
        }
        let _ = write!(voice, "    {number:2}: ");
        // A voice takes everything.
        let _ = symbols.write(address, voice);
        say!(voice, "");
        number += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn a_report_waits_for_the_one_before_and_not_for_its_own() {
        let turn = AtomicU32::new(0);
        assert!(take_turn(&turn, 1, PATIENCE) && !take_turn(&turn, 1, PATIENCE));
        thread::scope(|scope| {
            let other = scope.spawn(|| take_turn(&turn, 2, PATIENCE));
            thread::sleep(Duration::from_millis(20));
            assert_eq!(turn.load(Relaxed), 1);
            end_turn(&turn, 1);
            assert!(other.join().is_ok_and(|has_it| has_it) && turn.load(Relaxed) == 2);
        });
    }

    #[test]
    fn who_is_stuck_is_not_waited_for_and_releases_nothing_later() {
        let turn = AtomicU32::new(0);
        assert!(take_turn(&turn, 1, 3) && take_turn(&turn, 2, 3));
        end_turn(&turn, 1);
        assert_eq!(turn.load(Relaxed), 2);
        assert!(!take_turn(&turn, 2, 3));
        end_turn(&turn, 2);
        assert!(take_turn(&turn, 3, 3));
    }
}
