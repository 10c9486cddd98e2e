//! Where something was registered: nothing, but with the corruption hunter.

use super::Registered;
use super::ranges::Ranges;
use crate::lock::{Locked, Spin};
use crate::os::Span;

/// Where a range was registered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site {
    #[cfg(feature = "malloc-debug")]
    site: crate::debug::Site,
    /// It was reported that its memory went.
    #[cfg(feature = "malloc-debug")]
    is_reported: bool,
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
        Self { site: crate::global::hunter::site(bytes), is_reported: false }
    }
}

/// Reports ranges that are still registered though all callbacks were told that `gone` goes.
#[cfg(not(feature = "malloc-debug"))]
pub(super) const fn report_left(_: &Locked<Ranges<Registered>, Spin>, _: Span) {}

/// Reports ranges that are still registered though all callbacks were told that `gone` goes.
#[cfg(feature = "malloc-debug")]
pub(super) fn report_left(registered: &Locked<Ranges<Registered>, Spin>, gone: Span) {
    let next = || {
        registered.with(|registered| {
            let id = registered.overlapping(gone, &mut |_, range| !range.site.is_reported)?;
            registered.value_mut(id).site.is_reported = true;
            Some((registered.key(id), registered.value(id).site.site))
        })
    };
    while let Some((key, site)) = next() {
        crate::global::hunter::report_registered(gone, (key.span(), key.tag), site);
    }
}
