//! Before memory goes: every call of this folder that takes away what somebody may have been given says so first, by [`going`], to
//! whoever listens. `tests/layers.rs` holds that. (What nobody was given goes by `unmap`, in silence.)

use super::Span;
#[cfg(all(feature = "hooks", not(loom)))]
use crate::sync::{Acquire, AtomicUsize, Release};

/// Who is told: it may not allocate.
#[cfg(all(feature = "hooks", not(loom)))]
pub(crate) type Listener = fn(Span);

/// The listener, as an address; 0: nobody listens.
#[cfg(all(feature = "hooks", not(loom)))]
static LISTENER: AtomicUsize = AtomicUsize::new(0);

/// Has `listener` told from now on, or nobody.
#[cfg(all(feature = "hooks", not(loom)))]
pub(crate) fn listen(listener: Option<Listener>) {
    // Release: what the listener uses is there; pairs with `going`.
    LISTENER.store(listener.map_or(0, |listener| listener as usize), Release);
}

/// Tells that the memory of whole pages is about to go: its addresses, or what is behind them. No lock is held.
#[inline]
pub(crate) fn going(span: Span) {
    #[cfg(all(feature = "hooks", not(loom)))]
    {
        let listener = LISTENER.load(Acquire);
        if listener != 0 && span.bytes > 0 {
            tell(listener, span);
        }
    }
    #[cfg(not(all(feature = "hooks", not(loom))))]
    let _ = span;
}

#[cfg(all(feature = "hooks", not(loom)))]
#[cold]
#[inline(never)]
fn tell(listener: usize, span: Span) {
    // SAFETY: `listen` made the address of just such a function.
    let listener = unsafe { core::mem::transmute::<usize, Listener>(listener) };
    listener(span);
}
