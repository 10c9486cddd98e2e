//! Memory that went while it was registered with the hooks: where it was registered, and where it went.

use super::frames::Context;
use super::hunter::{Hunter, OFF};
use super::record::Event;
use super::stacks::Door;
use super::voice::say;
use crate::config::Hunt;
use crate::os::Span;
use core::fmt::Write;

/// Where, when and by whom a range was registered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site(Event);

impl Hunter {
    /// The caller's, of `bytes` bytes.
    #[inline(never)]
    pub(crate) fn site(&self, hunt: &Hunt, bytes: usize) -> Site {
        let is_hunting = self.phase(hunt) > OFF;
        Site(if is_hunting { self.event(Door::Alloc, self.trail(), bytes) } else { Event::default() })
    }

    /// Reports that the memory of `gone` went while `range` was registered with this cookie, at `site`.
    #[cold]
    #[inline(never)]
    pub(crate) fn report_registered(&self, hunt: &Hunt, gone: Span, (range, cookie): (Span, u64), site: Site) {
        if self.phase(hunt) <= OFF {
            return;
        }
        let here = Context::here();
        self.reporting(|voice| {
            say!(voice, "stratalloc: released while registered: memory went that is still registered with the hooks");
            voice.flush();
            say!(voice, "  {} bytes at {:#x} went", gone.bytes, gone.at);
            let _ =
                write!(voice, "  {} bytes at {:#x} were registered with cookie {cookie:#x},", range.bytes, range.at);
            self.tell_when(voice, site.0);
            let first = range.at.max(gone.at);
            if let Some((block, _, facts)) = self.block_around(first) {
                self.tell_history(voice, block, &facts);
            }
            self.tell_here(voice, &here);
        });
    }
}
