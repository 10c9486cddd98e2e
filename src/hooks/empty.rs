//! Component `empty`: nothing is watched. For who wants to be told nothing.

use super::component::{Component, Declined, Support};

#[derive(Debug)]
pub(super) struct Empty;

impl Component for Empty {
    fn name(&self) -> &'static str {
        "empty"
    }

    fn priority(&self) -> i32 {
        0
    }

    fn support(&self) -> Support {
        Support::NONE
    }

    fn open(&self) -> Result<(), Declined> {
        Ok(())
    }

    fn close(&self) {}
}
