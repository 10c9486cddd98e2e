//! Which component serves: what the user wants.

use super::component::{Component, Support};
use super::error::HooksError;
use crate::choice::{Choice, Declined};
use core::fmt;
use std::vec::Vec;

/// What is wanted of a component.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(super) choice: Choice,
    pub(super) needs: Support,
    pub(super) more: Vec<&'static dyn Component>,
}

impl Default for Settings {
    fn default() -> Self {
        Self::new()
    }
}

impl Settings {
    /// The component of highest priority that does not decline.
    #[must_use]
    pub const fn new() -> Self {
        Self { choice: Choice::new(), needs: Support::NONE, more: Vec::new() }
    }

    /// What the environment says: `STRATALLOC_HOOKS`, a name, or `NAME=PRIORITY` with commas between several (see [`Choice::parse`]).
    ///
    /// # Errors
    /// [`HooksError::Choice`] if it cannot be read.
    pub fn from_environment() -> Result<Self, HooksError> {
        Ok(Self::new().choice(Choice::from_environment("STRATALLOC_HOOKS")?))
    }

    /// Which one, or with which priorities.
    #[must_use]
    pub fn choice(mut self, choice: Choice) -> Self {
        self.choice = choice;
        self
    }

    /// Only one that is told of so much.
    #[must_use]
    pub const fn needs(mut self, needs: Support) -> Self {
        self.needs = needs;
        self
    }

    /// One of the program's own may serve, too.
    #[must_use]
    pub fn component(mut self, component: &'static dyn Component) -> Self {
        self.more.push(component);
        self
    }
}

/// The component that serves.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// Itself.
    pub component: &'static dyn Component,
    /// The priority that it was chosen by.
    pub priority: i32,
    /// Those of higher priority, and why they do not serve.
    pub declined: Vec<(&'static str, Declined)>,
}

/// Its name; and those that declined, with their reasons.
impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.component.name())?;
        self.declined.iter().try_for_each(|(name, why)| write!(f, "; {name} declined: {why}"))
    }
}
