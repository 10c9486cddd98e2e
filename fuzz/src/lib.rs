//! What the targets share: scripts of steps, and the shadow oracle of the tests.

#[path = "../../tests/oracle/mod.rs"]
pub mod oracle;

pub mod script;
pub mod tracked;
