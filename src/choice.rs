//! Which of several components serves that can do the same: whom the user names, or the one of highest priority that does not decline.

use core::fmt;
use std::borrow::Cow;
use std::env;
use std::string::String;
use std::vec::Vec;

/// Why a component does not serve: it declines, and another one does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declined(pub Cow<'static, str>);

impl fmt::Display for Declined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a user wants of components.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    only: Option<String>,
    priorities: Vec<(String, i32)>,
}

impl Choice {
    /// Whichever has the highest priority.
    #[must_use]
    pub const fn new() -> Self {
        Self { only: None, priorities: Vec::new() }
    }

    /// The component of that name and no other.
    #[must_use]
    pub fn only(mut self, name: &str) -> Self {
        self.only = Some(name.into());
        self
    }

    /// Gives the component of that name another priority. The one that was given last counts.
    #[must_use]
    pub fn priority(mut self, name: &str, priority: i32) -> Self {
        self.priorities.push((name.into(), priority));
        self
    }

    /// What `text` asks for: `NAME`, to have that component alone, or `NAME=PRIORITY,…`, to give priorities. Empty text asks for
    /// nothing.
    ///
    /// # Errors
    /// [`ChoiceError::Text`] if it is something else.
    pub fn parse(text: &str) -> Result<Self, ChoiceError> {
        let wrong = || ChoiceError::Text { text: text.into() };
        let is_name =
            |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
        let text_of = text.trim();
        if text_of.is_empty() {
            return Ok(Self::new());
        }
        if is_name(text_of) {
            return Ok(Self::new().only(text_of));
        }
        text_of.split(',').try_fold(Self::new(), |choice, part| {
            let (name, priority) = part.split_once('=').ok_or_else(wrong)?;
            let priority = priority.trim().parse().map_err(|_| wrong())?;
            if is_name(name.trim()) { Ok(choice.priority(name.trim(), priority)) } else { Err(wrong()) }
        })
    }

    /// What the environment variable asks for; nothing if it is not there.
    pub(crate) fn from_environment(name: &str) -> Result<Self, ChoiceError> {
        let text = env::var_os(name).map(|text| text.to_string_lossy().into_owned());
        Self::parse(text.as_deref().unwrap_or_default())
    }

    /// Whether the component of that name may serve.
    pub(crate) fn asks(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == name)
    }

    /// The priority of a component, whose own is `own`.
    pub(crate) fn priority_of(&self, name: &str, own: i32) -> i32 {
        let ours = self.priorities.iter().rev().find(|(other, _)| other == name);
        ours.map_or(own, |(_, priority)| *priority)
    }

    /// Whether what is asked for can be, of components of these names.
    pub(crate) fn verify(&self, names: &[&'static str]) -> Result<(), ChoiceError> {
        if let Some((_, name)) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            return Err(ChoiceError::Twice { name });
        }
        let wanted = self.only.iter().chain(self.priorities.iter().map(|(name, _)| name));
        match wanted.into_iter().find(|name| !names.contains(&name.as_str())) {
            Some(name) => Err(ChoiceError::Unknown { name: name.clone(), known: names.into() }),
            None => Ok(()),
        }
    }
}

/// Why no component was selected.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChoiceError {
    /// What was asked for cannot be read.
    Text {
        /// As it was.
        text: String,
    },
    /// There is no component of that name.
    Unknown {
        /// The name.
        name: String,
        /// Those that there are.
        known: Vec<&'static str>,
    },
    /// Two components have one name.
    Twice {
        /// The name.
        name: &'static str,
    },
    /// Nobody would serve; each with the reason.
    Nobody {
        /// Who, and why not.
        refusals: Vec<(&'static str, Declined)>,
    },
}

impl fmt::Display for ChoiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text { text } => {
                write!(
                    f,
                    "`{text}` chooses no component; it may be a name, or NAME=PRIORITY, with commas between several"
                )
            }
            Self::Unknown { name, known } => {
                write!(f, "there is no component `{name}`; there are {}", known.join(", "))
            }
            Self::Twice { name } => write!(f, "two components have the name `{name}`; each needs one of its own"),
            Self::Nobody { refusals } => {
                f.write_str("no component serves:")?;
                refusals.iter().try_for_each(|(name, why)| write!(f, " {name}: {why};"))?;
                f.write_str(" allow another component, or mend what each of these names")
            }
        }
    }
}

impl core::error::Error for ChoiceError {}
