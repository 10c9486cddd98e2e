//! A hash table that lies in the symmetric heaps of all PEs, a part in each; every PE counts words in it, by atomic operations on whichever PE a
//! word's slot lies on. However many PEs there are, the table comes out the same:
//!
//! ```text
//! stratalloc run -n 4 -- target/release/examples/symmetric_table
//! ```

#![expect(clippy::disallowed_macros, reason = "an example says what it finds")]

use stratalloc::symmetric::{self, SymBox, SymSlice, SymmetricError};

/// Words that all PEs together count, how many different ones there may be, and slots for them.
const WORDS: u64 = 400_000;
const DIFFERENT: u64 = 50_000;
const SLOTS: usize = 1 << 17;

/// Mixes a number into one that looks like any other, and is not 0.
fn mixed(number: u64) -> u64 {
    let mixed = (number ^ number >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9).max(1)
}

/// The table. Slot `s` lies on PE `s / per_pe`.
struct Table {
    /// The word of each slot of this PE; 0 while there is none.
    words: SymSlice<u64>,
    /// How often it came.
    counts: SymSlice<u64>,
    per_pe: usize,
}

impl Table {
    fn new() -> Result<Self, SymmetricError> {
        let per_pe = SLOTS.div_ceil(symmetric::n_pes());
        Ok(Self { words: SymSlice::new(per_pe)?, counts: SymSlice::new(per_pe)?, per_pe })
    }

    /// Counts `word`, wherever its slot is: the first free one from its place on becomes its own.
    fn count(&self, word: u64) -> Result<(), SymmetricError> {
        let mut slot = mixed(word) as usize % SLOTS;
        loop {
            let (pe, number) = (slot / self.per_pe, slot % self.per_pe);
            let found = self.words.compare_swap(pe, number, 0, word)?;
            if found == 0 || found == word {
                return self.counts.fetch_add(pe, number, 1).map(|_| ());
            }
            slot = (slot + 1) % SLOTS;
        }
    }
}

fn main() -> Result<(), SymmetricError> {
    symmetric::init()?;
    let (me, pes) = (symmetric::my_pe() as u64, symmetric::n_pes() as u64);
    let table = Table::new()?;
    for item in (0..WORDS).filter(|item| item % pes == me) {
        table.count(mixed(mixed(item) % DIFFERENT))?;
    }
    symmetric::barrier_all();
    // Each PE sums up its own part; then all sums are added.
    let (words, counts) = (table.words.to_vec(), table.counts.to_vec());
    let used = words.iter().zip(&counts).filter(|(word, _)| **word != 0);
    let sums = used.fold([0u64; 3], |[different, all, sum], (word, count)| {
        [different + 1, all + count, sum.wrapping_add(word.wrapping_mul(*count))]
    });
    let (own, total) = (SymBox::new(sums)?, SymSlice::<u64>::new(3)?);
    for pe in 0..symmetric::n_pes() {
        for (number, value) in own.get(pe)?.into_iter().enumerate() {
            if me == 0 {
                total.fetch_add(0, number, value)?;
            }
        }
    }
    if me == 0 {
        let sums = total.to_vec();
        println!("{} words, {} of them different, checksum {:016x}; PEs: {pes}", sums[1], sums[0], sums[2]);
    }
    drop((total, own, table));
    symmetric::finalize()
}
