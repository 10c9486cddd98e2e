//! An audit from outside: what the file of a heap says, against itself, as far as somebody can tell who takes no lock.
//!
//! What seems wrong is looked at again. Each part of a heap has a lock, with a word that says who has it, and counters that
//! change whenever the part does: where a look came to the same result three times, each time with the lock free and all words
//! of the part the same before and after it, what it found is so. A part that is never that still is not judged, and named.
//! Where nobody lives in the heap nothing moves; what a process that died held the lock of is left to whoever mends.
//!
//! What follows from other words is told apart from what nothing follows from: the former is made anew by the first who opens the
//! heap, as `stratalloc repair` does.

mod ground;
mod lists;
mod runs;
mod slabs;
mod tiles;

use super::{Engine, Process, View};
use crate::heap::CLASSES;
use crate::heap::Class;
use crate::heap::view::Part;
use crate::shared::lock::SharedLock;
use core::cell::{Cell, RefCell};
use core::fmt::{self, Display, Formatter};
use core::mem::offset_of;
use core::time::Duration;
use std::collections::BTreeSet;
use std::format;
use std::string::String;
use std::time::Instant;
use std::vec::Vec;

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// The part of the heap.
    pub layer: &'static str,
    /// What does not hold.
    pub rule: &'static str,
    /// The address that it is about; 0 if it is about a whole part.
    pub at: usize,
    /// What is there in place of what.
    pub detail: String,
    /// Whether it follows from other words, which mending makes anew.
    pub is_mendable: bool,
    /// What must hold still for it to be judged.
    part: Option<Part>,
}

impl Display for Fault {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: not so: {}", self.layer, self.rule)?;
        if self.at != 0 {
            write!(f, " (at {:#x})", self.at)?;
        }
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

impl Fault {
    /// Nothing follows what it is about from.
    fn new(layer: &'static str, rule: &'static str, at: usize, detail: String) -> Self {
        Self { layer, rule, at, detail, is_mendable: false, part: None }
    }

    /// What it is about follows from other words.
    fn mendable(self) -> Self {
        Self { is_mendable: true, ..self }
    }

    /// It can be judged while that part holds still.
    fn of(self, part: Part) -> Self {
        Self { part: Some(part), ..self }
    }
}

/// `Ok` where a rule holds.
type Verdict = Result<(), Fault>;

/// `Ok` if it `holds`; else `fault`.
fn holds(holds: bool, fault: impl FnOnce() -> Fault) -> Verdict {
    if holds { Ok(()) } else { Err(fault()) }
}

/// What an audit found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Audit {
    /// What is not as it must be, of the first things that are not.
    pub faults: Vec<Fault>,
    /// Processes that died in the heap, and whom nobody has mended it after.
    pub dead: Vec<Process>,
    /// Parts that never held still.
    pub moving: Vec<String>,
    /// Slabs that were looked at.
    pub slabs: u64,
    /// Runs in use.
    pub runs: u64,
    /// Free runs.
    pub free_runs: u64,
    /// Free blocks and runs in lists that were followed.
    pub listed: u64,
}

impl Audit {
    /// Whether nothing is wrong, and nobody died.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty() && self.dead.is_empty()
    }
}

/// How many faults are told of those that can be mended, and of the others.
const FAULTS: usize = 20;
/// How often something must be found, to be so.
const TIMES: usize = 3;
/// How often something is looked at, at the most.
const LOOKS: u32 = 100;
/// How long all looks beyond the first may take together.
const PATIENCE: Duration = Duration::from_secs(3);

impl View {
    /// Audits the heap. O(pages of the heap, and blocks in lists).
    ///
    /// A heap in use is audited beside its users: what they are doing just now is left out.
    #[must_use]
    pub fn audit(&self) -> Audit {
        self.words.forget();
        let auditor =
            Auditor { view: self, found: RefCell::default(), moving: RefCell::default(), until: Cell::new(None) };
        auditor.run();
        let mut audit = auditor.found.into_inner();
        audit.dead = self.processes().into_iter().filter(|process| !process.is_alive).collect();
        audit.moving = auditor.moving.into_inner().into_iter().collect();
        audit
    }
}

/// An audit that goes on.
struct Auditor<'a> {
    view: &'a View,
    found: RefCell<Audit>,
    moving: RefCell<BTreeSet<String>>,
    /// When patience ends, once something was looked at again.
    until: Cell<Option<Instant>>,
}

/// A look that came to a result, or to none.
enum Settled<T> {
    Fine(T),
    Wrong(Fault),
    Moving,
}

impl Auditor<'_> {
    fn run(&self) {
        if !self.audit_ground() {
            // Nothing can be followed.
            return;
        }
        self.audit_pages();
        self.audit_lists();
    }

    fn engine(&self) -> Engine<'_> {
        self.view.engine()
    }

    /// Notes a fault.
    fn note(&self, fault: Fault) {
        let faults = &mut self.found.borrow_mut().faults;
        let like = faults.iter().filter(|other| other.is_mendable == fault.is_mendable).count();
        if like < FAULTS && !faults.contains(&fault) {
            faults.push(fault);
        }
    }

    /// Whether there are so many faults that nobody wants to know of more. Of those that can be mended there are never enough: one
    /// that cannot may come behind them.
    fn has_enough(&self) -> bool {
        self.found.borrow().faults.iter().filter(|fault| !fault.is_mendable).count() >= FAULTS
    }

    /// All words of some parts, if nobody has the lock of one; `None` if somebody has.
    fn version(&self, parts: &[Part]) -> Option<Vec<u64>> {
        let engine = self.engine();
        let is_free = || parts.iter().all(|part| self.owner(*part) == 0);
        let mut words = Vec::new();
        if !is_free() {
            return None;
        }
        crate::sync::fence_loads();
        parts.iter().for_each(|part| words.extend(engine.words_of(*part).unwrap_or_default()));
        crate::sync::fence_loads();
        // Who took a lock meanwhile has it yet, or was done before: then what follows sees all that he did.
        is_free().then_some(words)
    }

    /// The guest that has the lock of a part, or died with it.
    fn owner(&self, part: Part) -> u32 {
        self.view.word32(self.engine().lock_at(part) + offset_of!(SharedLock, owner))
    }

    /// What `look` finds, if that stays so while `parts` hold still.
    fn settle<T>(&self, parts: &[Part], look: &mut dyn FnMut() -> Result<T, Fault>) -> Settled<T> {
        let settled = self.settle_while(&|| self.version(parts), look);
        if matches!(settled, Settled::Moving) {
            parts.iter().for_each(|part| self.is_moving(describe(*part)));
        }
        settled
    }

    /// What `look` finds, if that stays so while `version` does.
    fn settle_while<T>(
        &self,
        version: &dyn Fn() -> Option<Vec<u64>>,
        look: &mut dyn FnMut() -> Result<T, Fault>,
    ) -> Settled<T> {
        if let Ok(fine) = look() {
            return Settled::Fine(fine);
        }
        let until = self.until.get().unwrap_or_else(|| Instant::now() + PATIENCE);
        self.until.set(Some(until));
        let (mut times, mut last) = (0, None);
        for round in 0..LOOKS {
            self.view.words.forget();
            let was_still = !self.view.has_life();
            let before = version();
            let result = look();
            crate::sync::fence_loads();
            let is_same = before.is_some() && before == version();
            match result {
                Ok(fine) => return Settled::Fine(fine),
                Err(fault) if was_still && !self.view.has_life() => {
                    // Whoever has the lock died with it: what it guards is to be mended.
                    return if is_same { Settled::Wrong(fault) } else { Settled::Moving };
                }
                Err(fault) if is_same => {
                    // What is another fault each time is somebody at work.
                    times = if last.as_ref() == Some(&fault) { times + 1 } else { 1 };
                    if times >= TIMES {
                        return Settled::Wrong(fault);
                    }
                    last = Some(fault);
                }
                Err(_) => {}
            }
            if Instant::now() > until {
                break;
            }
            std::thread::sleep(Duration::from_millis(u64::from(1 + round / 10)));
        }
        Settled::Moving
    }

    fn is_moving(&self, what: String) {
        self.moving.borrow_mut().insert(what);
    }

    /// Notes what `look` finds, if it finds something.
    fn judge(&self, parts: &[Part], look: &mut dyn FnMut() -> Verdict) {
        if !self.has_enough()
            && let Settled::Wrong(fault) = self.settle(parts, look)
        {
            self.note(fault);
        }
    }

    /// Notes what `look` finds of words that hardly ever change.
    fn judge_still(&self, look: &mut dyn FnMut() -> Verdict) {
        if self.has_enough() {
            return;
        }
        match self.settle_while(&|| Some(Vec::new()), look) {
            Settled::Fine(()) => {}
            Settled::Wrong(fault) => self.note(fault),
            Settled::Moving => self.is_moving(String::from("the heap's own words")),
        }
    }
}

/// A part as people know it.
fn describe(part: Part) -> String {
    let size = |class: usize| Class::all().nth(class.min(CLASSES - 1)).map_or(0, Class::size);
    match part {
        Part::Registry => String::from("the list of caches"),
        Part::Depot(class) => format!("the depot of blocks of {} bytes", size(class)),
        Part::RunDepot(number) => format!("the depot of runs of {} pages", number + 1),
        Part::Slabs(class) => format!("slabs of blocks of {} bytes", size(class)),
        Part::Reserve(number) => format!("reserve {number} of long runs"),
        Part::Runs => String::from("runs of pages"),
        Part::Records => String::from("memory for records"),
    }
}
