//! The framework of components: who may manage a symmetric heap, and who does.
//!
//! Three stages, as Open MPI's `memheap` has them: [`Framework::open`] takes all components that there are, [`Framework::select`]
//! lets each make its module over the heap's range, keeps the one of highest priority and finalises the others, and dropping the
//! [`Memheap`] that comes of it closes the framework.
//!
//! A component is a [`Component`], a constant, and one implementation of [`Module`]; both fit in one file. `buddy.rs` is an example in
//! this crate, `examples/symmetric_component.rs` one outside.

use super::buddy::BUDDY;
use super::ptmalloc::PTMALLOC;
use super::strata::STRATA;
pub use crate::choice::{Choice, ChoiceError, Declined};
use crate::os::Span;
use core::alloc::Layout;
use core::any::Any;
use core::fmt;
use core::ptr::NonNull;
use std::boxed::Box;
use std::vec::Vec;

/// A version of the interface between the framework and its components.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Components of another major version are refused.
    pub major: u16,
    /// Components of a higher minor version are refused: they may ask for what the framework does not have.
    pub minor: u16,
}

/// The interface that this version of the crate has.
pub const INTERFACE: Interface = Interface { major: 1, minor: 0 };

impl Interface {
    /// Whether a component made for `self` works with this framework. O(1).
    #[must_use]
    pub const fn is_served(self) -> bool {
        self.major == INTERFACE.major && self.minor < INTERFACE.minor + 1
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What comes of asking a component for a module.
pub type Made = Result<Box<dyn Module>, Declined>;

/// Somebody who can manage a symmetric heap.
pub struct Component {
    /// Its name, by which users choose it.
    pub name: &'static str,
    /// The interface that it was made for.
    pub interface: Interface,
    /// Its priority, unless the user gives it another: the highest one serves.
    pub priority: i32,
    /// What it has of its own, for `init`.
    pub data: &'static (dyn Any + Send + Sync),
    /// Makes a module for a range, which reads zero and is nobody else's. Until the first [`Module::alloc`] it must not write there:
    /// another component may be selected.
    pub init: fn(&'static Component, Span) -> Made,
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, interface, priority, data: _, init: _ } = self;
        write!(f, "Component({name}, interface {interface}, priority {priority})")
    }
}

/// What a component makes of a range: it hands out blocks in it.
///
/// What it does must follow from its calls alone: on every PE the same calls give the same addresses. So it may not look at a clock, at
/// the process, or at what it gets of memory elsewhere.
///
/// # Safety
/// - Every block lies in the range, is as large and aligned as its layout, and is disjoint from all live ones.
pub unsafe trait Module: Send + fmt::Debug {
    /// The component that made it.
    fn component(&self) -> &'static Component;

    /// A block for `layout`, whose size is not 0; its contents are anything. `None` if there is no room.
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>>;

    /// As `alloc`, and the block reads zero.
    fn alloc_zeroed(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        let block = self.alloc(layout)?;
        // SAFETY: the block is the caller's, and so large.
        unsafe { block.write_bytes(0, layout.size()) };
        Some(block)
    }

    /// Bytes that the live block at `block` has, at least those that were asked for; `None` if no live block begins there, as far as can
    /// be told.
    fn bytes_of(&self, block: NonNull<u8>) -> Option<usize>;

    /// Frees the block at `block`.
    ///
    /// # Safety
    /// - A live block of this module begins there, and nobody uses it.
    unsafe fn free(&mut self, block: NonNull<u8>);

    /// Makes the block at `block` one for `layout`, and returns where it is: what was in it is kept, up to the smaller size. `None`,
    /// and the block as it was, if there is no room.
    ///
    /// # Safety
    /// - A live block of this module begins there, and nobody uses it.
    unsafe fn realloc(&mut self, block: NonNull<u8>, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: handed on.
        unsafe { self.move_block(block, layout) }
    }

    /// As `realloc`, for who cannot change the block where it is: always to a new one.
    ///
    /// # Safety
    /// - As those of `realloc`.
    unsafe fn move_block(&mut self, block: NonNull<u8>, layout: Layout) -> Option<NonNull<u8>> {
        let old = self.bytes_of(block)?;
        let new = self.alloc(layout)?;
        // SAFETY: both are live, and so large; they are disjoint.
        unsafe { new.copy_from_nonoverlapping(block, old.min(layout.size())) };
        // SAFETY: the caller's promise.
        unsafe { self.free(block) };
        Some(new)
    }

    /// Gives the memory of free pages back to the system; what there may be of it.
    fn collect(&mut self) {}

    /// Its last call: it gives back what it has outside of the range. What is in the range goes with that.
    fn finalize(&mut self);
}

/// The components that there are.
#[derive(Clone, Debug)]
pub struct Framework {
    components: Vec<&'static Component>,
}

/// The components of this crate: `strata`, `buddy` and `ptmalloc`.
pub static COMPONENTS: [&Component; 3] = [&STRATA, &BUDDY, &PTMALLOC];

impl Framework {
    /// Opens those of this crate, and `more`.
    #[must_use]
    pub fn open(more: &[&'static Component]) -> Self {
        Self { components: COMPONENTS.iter().chain(more).copied().collect() }
    }

    /// The components, in the order in which they are asked.
    pub fn components(&self) -> impl Iterator<Item = &'static Component> {
        self.components.iter().copied()
    }

    /// Lets each component, or the only one that `choice` wants, make a module over `range`; keeps the one of highest priority,
    /// the first of several, and finalises the others. O(components).
    ///
    /// # Safety
    /// - `range` is whole pages, readable and writable, reads zero, and is the heap's alone while that lives.
    ///
    /// # Errors
    /// [`ChoiceError`] says why nobody serves. Every module that was made is finalised then.
    pub unsafe fn select(&self, choice: &Choice, range: Span) -> Result<Memheap, ChoiceError> {
        let names: Vec<&'static str> = self.components().map(|component| component.name).collect();
        choice.verify(&names)?;
        let mut refusals = Vec::new();
        let mut best: Option<Memheap> = None;
        for component in self.components().filter(|component| choice.asks(component.name)) {
            if !component.interface.is_served() {
                let why = std::format!("it was made for interface {}, and this is {INTERFACE}", component.interface);
                refusals.push((component.name, Declined(why.into())));
                continue;
            }
            let priority = choice.priority_of(component.name, component.priority);
            match (component.init)(component, range) {
                Err(why) => refusals.push((component.name, why)),
                // Who is dropped is finalised.
                Ok(module) => {
                    let made = Memheap { module, priority, range };
                    if best.as_ref().is_none_or(|best| best.priority < priority) {
                        best = Some(made);
                    }
                }
            }
        }
        best.ok_or(ChoiceError::Nobody { refusals })
    }
}

/// The module that was selected, over its range. Dropping it finalises the module.
#[derive(Debug)]
pub struct Memheap {
    module: Box<dyn Module>,
    priority: i32,
    range: Span,
}

impl Memheap {
    /// Whose module it is.
    #[must_use]
    pub fn component(&self) -> &'static Component {
        self.module.component()
    }

    /// The priority that it was selected by.
    #[must_use]
    pub fn priority(&self) -> i32 {
        self.priority
    }

    /// Where the heap lies.
    #[must_use]
    pub fn range(&self) -> Span {
        self.range
    }

    /// The module itself.
    pub fn module(&mut self) -> &mut dyn Module {
        &mut *self.module
    }

    /// Bytes of the live block at `at`; `None` if none begins there, as far as can be told.
    #[must_use]
    pub fn bytes_of(&self, at: NonNull<u8>) -> Option<usize> {
        let is_inside = self.range.contains(Span { at: at.as_ptr() as usize, bytes: 1 });
        is_inside.then(|| self.module.bytes_of(at)).flatten()
    }
}

impl Drop for Memheap {
    fn drop(&mut self) {
        self.module.finalize();
    }
}
