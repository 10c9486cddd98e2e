//! The bins of free runs in a heap's file, for who reads it from outside.

use super::{BINS, Bins};
use crate::image::{Field, field};

pub(crate) use super::{bin_of, key, top_bit};

pub(in crate::heap) const ROOTS: Field<Bins> = field!(Bins, roots);
pub(in crate::heap) const FILLED: Field<Bins> = field!(Bins, filled);

impl Bins {
    /// How many there are.
    pub(in crate::heap) const COUNT: usize = BINS;
}
