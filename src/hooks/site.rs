//! Where something was registered: nothing, but with the corruption hunter.

use super::Registered;
use super::held::Held;
use super::ranges::Ranges;
use crate::os::Span;
#[cfg(feature = "malloc-debug")]
use crate::sync::Relaxed;

/// Where a range was registered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site {
    #[cfg(feature = "malloc-debug")]
    site: crate::debug::Site,
    /// It was reported that its memory went.
    #[cfg(feature = "malloc-debug")]
    is_reported: bool,
    /// When it was registered, in times that all was told, if something was to be told then: that may have been of its addresses before.
    #[cfg(feature = "malloc-debug")]
    doubt: Option<u32>,
}

#[cfg(not(feature = "malloc-debug"))]
impl Site {
    /// The caller's.
    pub(super) const fn here(_: usize) -> Self {
        Self {}
    }
}

#[cfg(feature = "malloc-debug")]
impl Site {
    /// The caller's.
    #[inline(always)]
    pub(super) fn here(bytes: usize) -> Self {
        // (In the child of a fork there is something to be told in any case.)
        let is_child = super::CENTER.forked.load(Relaxed) != 0;
        let is_doubtful = super::changed() && !is_child || super::is_in_flight();
        let doubt = is_doubtful.then(|| super::SETTLED.load(Relaxed));
        Self { site: crate::global::hunter::site(bytes), is_reported: false, doubt }
    }

    /// Whether it is to be reported that its memory went.
    fn is_to_be_told(&self) -> bool {
        let settled = super::SETTLED.load(Relaxed);
        // What was in flight may have been heard after all was told once.
        !self.is_reported && self.doubt.is_none_or(|before| settled.wrapping_sub(before) > 1)
    }
}

/// Reports ranges that are still registered though all callbacks were told that `gone` goes.
#[cfg(not(feature = "malloc-debug"))]
pub(super) const fn report_left(_: &Held<Ranges<Registered>>, _: Span) {}

/// Reports ranges that are still registered though all callbacks were told that `gone` goes.
#[cfg(feature = "malloc-debug")]
pub(super) fn report_left(registered: &Held<Ranges<Registered>>, gone: Span) {
    let next = || {
        registered.with(|registered| {
            let id =
                registered.overlapping(gone, &mut |_, range| range.is_of_this_life() && range.site.is_to_be_told())?;
            registered.value_mut(id).site.is_reported = true;
            Some((registered.key(id), registered.value(id).site.site))
        })
    };
    while let Some((key, site)) = next() {
        crate::global::hunter::report_registered(gone, (key.span(), key.tag), site);
    }
}
