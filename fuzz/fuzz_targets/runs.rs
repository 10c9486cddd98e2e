//! The page runs alone, against a model that knows the state of every page.

#![no_main]

use libfuzzer_sys::fuzz_target;

/// Pages of a granule.
const GRAINS: [u32; 4] = [0, 8, 64, 512];
/// Steps of a script: each is followed by a look at all that there is.
const STEPS: usize = 120;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let (steps, _) = rest.as_chunks::<4>();
    stratalloc::heap::play_on_runs(GRAINS[usize::from(*first) % 4], steps.iter().take(STEPS).copied());
});
