//! Leaks: live blocks to which no pointer is left, by where they were allocated.
//!
//! What can be reached is found as a collector would find it, conservatively: any word of the program's writable memory that
//! lies outside of the heap, and any word of a block that can be reached itself, may be a pointer to the begin of a block or
//! into it. (Pointers that are only in another thread's registers are not seen, nor such as are kept in another form.)

use super::begins::{Begins, State};
use super::hunter::Hunter;
use super::record::Facts;
use super::trail::Trail;
use super::voice::{Voice, say};
use crate::os::{self, Span};
use core::fmt::Write;
use core::ptr::NonNull;

/// Places for sites; beyond so many they are counted together.
const SITES: usize = 1 << 16;
/// Sites that are told one by one.
const TOLD: usize = 20;
/// The largest distance from a block's begin at which a word is taken for a pointer into it.
const REACH: usize = 1 << 30;

/// What was lost, allocated from one place.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Site {
    stack: u32,
    blocks: u32,
    bytes: u64,
}

/// What stands for the block that begins at `begin` among begins, which are multiples of 16: a block that begins elsewhere has
/// a page of its own.
fn key(begin: usize) -> usize {
    begin & !15
}

/// Whether a block is of a heap that processes share: what has no pointer here may have one elsewhere, or be found by the heap's
/// root.
fn is_shared(facts: &Facts) -> bool {
    cfg!(feature = "shared") && facts.heap >= 128
}

/// What a look for leaks needs.
struct Search<'a> {
    hunter: &'a Hunter,
    /// Blocks that can be reached, as live ones.
    reached: Begins,
    /// Those of them whose words were not looked at yet.
    waiting: Span,
    count: usize,
    /// Whether an address is of the heap's own pages.
    owns: fn(usize) -> bool,
}

impl Search<'_> {
    /// Takes every word of `span` for a pointer.
    fn scan(&mut self, span: Span) {
        let words = (span.at.next_multiple_of(8)..span.at + span.bytes)
            .step_by(8)
            .take_while(|at| at + 8 <= span.at + span.bytes);
        for at in words {
            // SAFETY: the memory is readable, as the caller has seen to. Others may write there.
            self.reach(unsafe { (at as *const usize).read_volatile() });
        }
    }

    /// Notes the block that `word` may point into.
    fn reach(&mut self, word: usize) {
        let Some((begin, State::Live)) = self.hunter.last_before(word, REACH) else { return };
        let facts = NonNull::new(begin as *mut u8).and_then(|at| self.hunter.record(at).read());
        let is_inside = facts.is_some_and(|facts| word <= begin + facts.layout.size());
        let key = key(begin);
        if !is_inside || self.reached.state(key).is_some() || !self.reached.enter(key, key, key + 1) {
            return;
        }
        if (self.count + 1) * 8 <= self.waiting.bytes {
            // SAFETY: there is room.
            unsafe { (self.waiting.at as *mut usize).wrapping_add(self.count).write(begin) };
            self.count += 1;
        }
    }

    /// Looks at every block that can be reached.
    fn follow(&mut self) {
        while self.count > 0 {
            self.count -= 1;
            // SAFETY: written by `reach`.
            let begin = unsafe { (self.waiting.at as *const usize).wrapping_add(self.count).read() };
            let Some(at) = NonNull::new(begin as *mut u8) else { continue };
            let hunter = self.hunter;
            hunter.while_live(at, || {
                if let Some(facts) = hunter.record(at).read() {
                    self.scan(Span { at: begin, bytes: facts.layout.size() });
                }
            });
        }
    }

    /// Looks at the program's writable memory, but for the heap and the hunter's own.
    fn follow_roots(&mut self) {
        let own = self.hunter.lone.spans();
        os::each_writable_mapping(|mapping| {
            if own.iter().any(|own| own.contains(mapping)) {
                return;
            }
            let page = os::page_bytes();
            for at in (mapping.at..mapping.at + mapping.bytes).step_by(page) {
                if !(self.owns)(at) && os::is_resident(at) {
                    self.scan(Span { at, bytes: page });
                    self.follow();
                }
            }
        });
    }
}

/// What is left over.
#[derive(Debug)]
struct Loss {
    /// Without memory for them blocks are counted together.
    sites: Option<Span>,
    blocks: u64,
    bytes: u64,
}

impl Loss {
    fn new() -> Self {
        Self { sites: os::map_sparse(SITES * size_of::<Site>()), blocks: 0, bytes: 0 }
    }

    fn site(sites: Span, index: usize) -> *mut Site {
        (sites.at as *mut Site).wrapping_add(index)
    }

    fn add(&mut self, facts: &Facts) {
        let (stack, bytes) = (facts.allocated.stack, facts.layout.size() as u64);
        self.blocks += 1;
        self.bytes += bytes;
        let Some(sites) = self.sites else { return };
        let first = (stack as usize).wrapping_mul(0x9e37_79b1) >> 8;
        for probe in 0..SITES {
            let at = Self::site(sites, (first + probe) % SITES);
            // SAFETY: one of the sites, which are this search's alone.
            let mut site = unsafe { at.read() };
            if site.blocks == 0 || site.stack == stack {
                site = Site { stack, blocks: site.blocks + 1, bytes: site.bytes + bytes };
                // SAFETY: as above.
                unsafe { at.write(site) };
                return;
            }
        }
    }

    /// Takes the site out that lost most.
    fn take_largest(&mut self) -> Option<Site> {
        let sites = self.sites?;
        // SAFETY: as in `add`.
        let site = |index: usize| unsafe { Self::site(sites, index).read() };
        let largest = (0..SITES).max_by_key(|index| site(*index).bytes)?;
        let taken = site(largest);
        // SAFETY: as above.
        unsafe { Self::site(sites, largest).write(Site { stack: 0, blocks: 0, bytes: 0 }) };
        (taken.blocks > 0).then_some(taken)
    }
}

impl Drop for Loss {
    fn drop(&mut self) {
        self.sites.into_iter().for_each(os::unmap);
    }
}

impl Hunter {
    /// What is lost; `None` without memory to look for it.
    fn search(&self, owns: fn(usize) -> bool) -> Option<Loss> {
        let mut live = 0;
        self.each_block(|_, state| {
            live += usize::from(state == State::Live);
            true
        });
        let reached = Begins::apart();
        if !reached.open() {
            return None;
        }
        let Some(waiting) = os::map_sparse((live + 1024) * 16) else {
            reached.close();
            return None;
        };
        let mut search = Search { hunter: self, reached, waiting, count: 0, owns };
        search.follow_roots();
        let loss = self.gather(|begin, facts| !is_shared(facts) && search.reached.state(key(begin)).is_none());
        search.reached.close();
        os::unmap(waiting);
        Some(loss)
    }

    /// The live blocks that `is_lost` is true of.
    fn gather(&self, is_lost: impl Fn(usize, &Facts) -> bool) -> Loss {
        let mut loss = Loss::new();
        self.each_block(|begin, state| {
            if state == State::Live
                && let Some(facts) = NonNull::new(begin as *mut u8).and_then(|at| self.record(at).read())
                && is_lost(begin, &facts)
            {
                loss.add(&facts);
            }
            true
        });
        loss
    }

    /// Tells what is lost; how many blocks.
    pub(crate) fn tell_leaks(&self, owns: fn(usize) -> bool) -> u64 {
        let loss = self.is_begun().then(|| self.search(owns)).flatten();
        loss.map_or(0, |loss| {
            self.tell_loss(loss, "blocks were lost: no pointer to them is left, and they were not freed")
        })
    }

    /// Tells what is lost, if anything is, in a report that begins with `what`; how many blocks.
    fn tell_loss(&self, mut loss: Loss, what: &str) -> u64 {
        let (mut blocks, mut bytes) = (loss.blocks, loss.bytes);
        if blocks == 0 {
            return 0;
        }
        let mut voice = Voice::new();
        say!(&mut voice, "stratalloc: leak: {what}");
        say!(&mut voice, "  {} blocks, {} bytes", loss.blocks, loss.bytes);
        for site in core::iter::from_fn(|| loss.take_largest()).take(TOLD) {
            let _ = write!(voice, "  {} blocks, {} bytes, allocated", site.blocks, site.bytes);
            self.tell_stack(&mut voice, site.stack);
            blocks -= u64::from(site.blocks);
            bytes -= site.bytes;
        }
        if blocks > 0 {
            say!(&mut voice, "  and {blocks} blocks, {bytes} bytes, allocated elsewhere");
        }
        loss.blocks
    }

    /// Begins to count the blocks of the calling thread anew; what was counted before.
    pub(crate) fn begin_epoch(&self) -> u32 {
        let epoch = self.next_epoch();
        self.trail().map_or(0, |trail| trail.epoch.replace(epoch))
    }

    /// Ends what `begin_epoch` began, and goes on with what was before. Tells which blocks are left of it; how many.
    pub(crate) fn end_epoch(&self, before: u32) -> u64 {
        let Some(epoch) = self.trail().map(|trail: &Trail| trail.epoch.replace(before)) else { return 0 };
        let loss = self.gather(|_, facts| facts.epoch == epoch);
        self.tell_loss(loss, "blocks were allocated in a piece of work and not freed")
    }
}
