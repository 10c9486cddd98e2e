//! What all else stands on: where the parts of a heap lie, its locks, its guests, their seats and caches.

use super::{Auditor, Fault, Verdict, holds};
use crate::heap::CLASSES;
use crate::heap::Hand;
use crate::heap::view::{Part, TARGET_MAX};
use crate::image::{Image, Words, field};
use crate::os::Span;
use crate::shared::body::{Body, SUM_OF_NOTHING, add_to_sum};
use crate::shared::guests::GuestNumber;
use crate::shared::lock::SharedLock;
use crate::shared::pages::FilePages;
use crate::shared::seats::{SEATS, Seat};
use crate::shared::view::Engine;
use core::mem::offset_of;
use std::collections::{HashMap, HashSet};
use std::format;
use std::string::String;
use std::vec::Vec;

const HEADER: &str = "state";
const MAP: &str = "page map";
const GUESTS: &str = "processes";

/// That a word is another than it must be.
fn other(layer: &'static str, rule: &'static str, at: usize, (name, said, right): (&str, u64, u64)) -> Fault {
    Fault::new(layer, rule, at, format!("the {name} is {said:#x}, and {right:#x} would be right"))
}

impl Auditor<'_> {
    /// Audits all of it; false if nothing else can be followed then.
    pub(super) fn audit_ground(&self) -> bool {
        self.judge_still(&mut || self.look_at_pages());
        self.judge_still(&mut || self.look_at_engine());
        self.judge_still(&mut || self.look_at_root());
        let can_be_followed = !self.has_faults();
        Engine::parts().zip(0..).for_each(|(part, number)| self.judge_still(&mut || self.look_at_lock(part, number)));
        self.judge_still(&mut || self.look_at_guests());
        self.judge(&[Part::Registry], &mut || self.look_at_caches());
        can_be_followed
    }

    fn has_faults(&self) -> bool {
        !self.found.borrow().faults.is_empty()
    }

    /// Where pages come from.
    fn look_at_pages(&self) -> Verdict {
        let (view, at) = (self.view, self.engine().source_at());
        let span = |field: crate::image::Field<Span>| field.inside(offset_of!(FilePages, span));
        let words = [
            ("first address", span(field!(Span, at)), view.facts.span.at),
            ("length", span(field!(Span, bytes)), view.facts.span.bytes),
            ("size of a page", field!(FilePages, page), view.pages.page),
            ("begin of the page map", field!(FilePages, head), view.pages.head),
            ("length of the page map's root", field!(FilePages, root), view.pages.root),
            ("place for what is noted of blocks", field!(FilePages, begins), view.pages.begins),
            ("first page", field!(FilePages, first), view.pages.first),
        ];
        let rule = "pages lie where those of such a heap do";
        let image = Image::<FilePages>::take(&view.words, at);
        let said =
            words.map(|(name, field, right)| (name, image.as_ref().map_or(0, |image| image.get(field)), right as u64));
        said.into_iter().try_for_each(|said| holds(said.1 == said.2, || other(HEADER, rule, at, said)))?;
        let used = view.used_word();
        let is_inside =
            (view.pages.first..=view.facts.span.bytes).contains(&used) && used.is_multiple_of(view.pages.page);
        holds(is_inside, || {
            let (first, all) = (view.pages.first, view.facts.span.bytes);
            let detail = format!("they end at {used:#x}, and {first:#x} to {all:#x} would be right");
            Fault::new(HEADER, "the pages in use end in the file", at, detail)
        })
    }

    /// The engine's own words.
    fn look_at_engine(&self) -> Verdict {
        let (view, engine) = (self.view, self.engine());
        holds(engine.is_open(), || Fault::new(HEADER, "the heap was opened", 0, String::new()))?;
        let window = view.pages.window_pages();
        let broken = view.map().words_break(engine.map_at(), window);
        holds(broken.is_none(), || {
            other(
                MAP,
                "the page map lies where that of such a heap does",
                engine.map_at(),
                broken.unwrap_or(("", 0, 0)),
            )
        })?;
        for class in 0..CLASSES {
            let target = engine.target(class);
            holds((1..=TARGET_MAX as u32).contains(&target), || {
                let detail = format!("{target} blocks in a list of class {class}");
                Fault::new(HEADER, "a list has 1 to 64 blocks", 0, detail)
            })?;
        }
        let furnished = view.words.word(view.at() + offset_of!(Body, furnished));
        holds(furnished <= SEATS as u64, || {
            Fault::new(HEADER, "there are no more than 1024 seats", 0, format!("{furnished} have room"))
        })?;
        let mut sum = SUM_OF_NOTHING;
        view.pages.each_fixed_word(&mut |word| sum = add_to_sum(sum, word));
        engine.each_fixed_word(&mut |word| sum = add_to_sum(sum, word));
        let said = view.words.word(view.at() + offset_of!(Body, frame));
        holds(said == sum, || {
            Fault::new(
                HEADER,
                "fixed words are what their sum says",
                0,
                format!("{said:#x}, and {sum:#x} would be right"),
            )
        })
    }

    /// The root of the page map.
    fn look_at_root(&self) -> Verdict {
        let (view, map) = (self.view, self.view.map());
        let (first, end) = view.page_range();
        let mapped = self.engine().runs().map_or(0, |runs| runs.mapped_pages());
        let in_use = first as usize / crate::heap::LEAF_SPAN
            ..(first as usize + (mapped as usize).min((end - first) as usize)).div_ceil(crate::heap::LEAF_SPAN);
        let slots = view.pages.window_pages().div_ceil(crate::heap::LEAF_SPAN);
        for leaf in 0..slots {
            let (pointer, made) = map.slot(leaf);
            let is_leaf = pointer == 0 || pointer == made && leaf < map.leaves;
            holds(is_leaf, || {
                let detail = format!("{pointer:#x}, and 0 or {made:#x} would be right");
                Fault::new(MAP, "a leaf lies at its place", map.root, detail)
            })?;
            holds(pointer != 0 || mapped == 0 || !in_use.contains(&leaf), || {
                Fault::new(MAP, "pages in use have a leaf", map.root, format!("leaf {leaf} is missing"))
            })?;
        }
        Ok(())
    }

    /// What a lock is one of.
    fn look_at_lock(&self, part: Part, number: u32) -> Verdict {
        let (view, at) = (self.view, self.engine().lock_at(part));
        let said =
            [offset_of!(SharedLock, scheme), offset_of!(SharedLock, number)].map(|field| view.word32(at + field));
        holds(said == [view.facts.scheme.code(), number], || {
            let detail = format!("scheme {} and number {}", said[0], said[1]);
            Fault::new("locks", "a lock has the heap's scheme and its own number", at, detail).mendable()
        })?;
        let owner = view.word32(at + offset_of!(SharedLock, owner));
        holds(owner as usize <= crate::shared::guests::GUESTS, || {
            let detail = format!("number {owner} has it");
            Fault::new("locks", "whoever has a lock is in the heap", at, detail).mendable()
        })?;
        let wounded = view.word32(view.at() + offset_of!(Body, wounded));
        holds(owner == 0 && wounded == 0 || view.has_life(), || {
            let detail = format!("{} died with it", if owner == 0 { "somebody" } else { "its holder" });
            Fault::new("locks", "nobody has a lock in a heap that nobody lives in", at, detail).mendable()
        })
    }

    /// Who is in the heap, and who sits where.
    fn look_at_guests(&self) -> Verdict {
        let view = self.view;
        // Who has a seat before and after the look at the guests was one meanwhile: threads leave first, and processes after them.
        let seats: Vec<(usize, GuestNumber)> = view.seats_taken().collect();
        crate::sync::fence_loads();
        let known: HashSet<u32> = view.guests().map(|(guest, _)| guest.0).collect();
        crate::sync::fence_loads();
        for (seat, guest) in seats.into_iter().filter(|(seat, guest)| view.sitter(*seat) == *guest) {
            let at = view.seat_at(seat);
            holds(known.contains(&guest.0), || {
                Fault::new(GUESTS, "whoever has a seat is in the heap", at, format!("number {} has it", guest.0))
            })?;
            let state = view.cache(seat).map(|cache| cache.is_live());
            holds(matches!(state, Some(Some(_))), || {
                Fault::new(GUESTS, "a cache is fresh, live or dead", at, String::new())
            })?;
            let keeper =
                Image::<Hand>::take(&view.words, at + offset_of!(Seat, hand)).map_or(0, |hand| hand.get(Hand::KEEPER));
            // Whoever takes a seat for the first time gives its hand the number then.
            let is_right = keeper == seat as u64 + 1 || keeper == 0 && state != Some(Some(true));
            holds(is_right, || {
                let detail = format!("{keeper}, and {} would be right", seat + 1);
                Fault::new(GUESTS, "a seat's hand has its number", at, detail)
            })?;
        }
        Ok(())
    }

    /// The list of caches.
    fn look_at_caches(&self) -> Verdict {
        let view = self.view;
        let seats: HashMap<usize, usize> =
            view.seats_taken().map(|(seat, _)| (view.seat_at(seat) + offset_of!(Seat, cache), seat)).collect();
        let (newest, count) = self.engine().caches().unwrap_or((0, 0));
        let (mut at, mut before, mut met) = (newest, 0, 0);
        while at != 0 {
            let fault = |rule| Fault::new(GUESTS, rule, at, String::new()).mendable();
            let cache = seats.get(&at).and_then(|seat| view.cache(*seat));
            let Some(cache) = cache.filter(|cache| cache.is_live() == Some(true)) else {
                return Err(fault("the list of caches leads to live caches"));
            };
            let (older, newer) = cache.neighbours();
            holds(newer == before, || fault("neighbours in the list of caches know each other"))?;
            met += 1;
            holds(met <= seats.len() as u64, || fault("the list of caches has an end"))?;
            (before, at) = (at, older);
        }
        holds(met == count, || {
            let detail = format!("{met}, and {count} are counted");
            Fault::new(GUESTS, "caches are as many as are counted", 0, detail).mendable()
        })
    }
}
