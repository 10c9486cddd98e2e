//! What stands around a block, and in it while nobody has it. Every byte is checked.
//!
//! ```text
//!   base                   block                       block + size
//!    | room for alignment | record 40 | guard 8 | the program's bytes | guard 16 | rest of the heap's block
//! ```
//!
//! No two addresses have the same pattern, so that memory which is copied over a guard shows; no byte of a guard is 0, so that
//! the end of a C string shows.

use core::alloc::Layout;
use core::ptr::NonNull;

/// Bytes before a block: its record, and a guard.
pub(super) const BEFORE: usize = RECORD + FRONT;
/// The record.
pub(super) const RECORD: usize = 40;
/// The guard between it and the block.
pub(super) const FRONT: usize = 8;
/// The guard behind a block.
pub(super) const BACK: usize = 16;

/// Bytes from the begin of the heap's block to the program's, which is aligned to `align`.
#[inline(always)]
pub(super) const fn lead(align: usize) -> usize {
    let align = if align < 16 { 16 } else { align };
    (BEFORE + align - 1) & !(align - 1)
}

/// What the heap is asked for, for a block of `layout`; `None` if it is beyond every heap.
#[inline(always)]
pub(super) fn padded(layout: Layout) -> Option<Layout> {
    let align = layout.align().max(16);
    Layout::from_size_align(lead(align).checked_add(layout.size().max(1) + BACK)?, align).ok()
}

/// What a pattern is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Pattern {
    Guard = 0x1f83_d9ab_fb41_bd6b,
    /// What is nobody's: freed, or not written yet.
    Poison = 0x5be0_cd19_137e_2179,
}

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
/// The system's pages are multiples of so many bytes.
const PAGE_MIN: usize = 4096;
/// Bytes that are looked at in one step.
const WIDE: usize = 64;
/// A block is poisoned whole up to here, and beyond in the first `WIDE` bytes of each `SPARSE`: to fill long blocks and check
/// them costs more than all else.
const WHOLE: usize = 512;
const SPARSE: usize = 512;
/// A bit of every byte.
const ODD: u64 = 0x0101_0101_0101_0101;

/// The word that the pattern at `address` repeats.
#[inline(always)]
fn word(address: usize, pattern: Pattern) -> u64 {
    let mixed = (address as u64 ^ pattern as u64).wrapping_mul(STEP);
    mixed ^ mixed >> 29 | ODD
}

/// The word of the pattern from byte `index` on.
#[inline(always)]
fn word_from(word: u64, index: usize) -> u64 {
    word.rotate_right(index as u32 % 8 * 8)
}

/// The byte `offset` bytes behind the begin of a block.
#[inline(always)]
pub(super) fn at(block: NonNull<u8>, offset: isize) -> NonNull<u8> {
    // SAFETY: what lies around a block is not at address 0.
    unsafe { NonNull::new_unchecked(block.as_ptr().wrapping_offset(offset)) }
}

/// Writes the guards of a block of `size` bytes.
///
/// # Safety
/// - There is room for them before and behind it.
#[inline(always)]
pub(super) unsafe fn surround(at: NonNull<u8>, size: usize) {
    let (before, behind) = (at.as_ptr().wrapping_sub(FRONT), at.as_ptr().wrapping_add(size));
    let word_behind = word(behind as usize, Pattern::Guard);
    // SAFETY: as the caller states.
    unsafe { before.cast::<u64>().write_unaligned(word(before as usize, Pattern::Guard)) };
    // SAFETY: as above.
    unsafe { behind.cast::<[u64; 2]>().write_unaligned([word_behind; 2]) };
}

/// Whether the guards of a block of `size` bytes are as they were written.
///
/// # Safety
/// - As for `surround`.
#[inline(always)]
pub(super) unsafe fn is_surrounded(at: NonNull<u8>, size: usize) -> bool {
    let (before, behind) = (at.as_ptr().wrapping_sub(FRONT), at.as_ptr().wrapping_add(size));
    let word_behind = word(behind as usize, Pattern::Guard);
    // SAFETY: as the caller states.
    let front = unsafe { before.cast::<u64>().read_unaligned() } ^ word(before as usize, Pattern::Guard);
    // SAFETY: as above.
    let back = unsafe { behind.cast::<[u64; 2]>().read_unaligned() };
    front | (back[0] ^ word_behind) | (back[1] ^ word_behind) == 0
}

/// Where the bytes go on, behind the `WIDE` ones at `index`, that have the pattern.
#[inline(always)]
const fn next(index: usize, pattern: Pattern) -> usize {
    index + if matches!(pattern, Pattern::Poison) && index >= WHOLE { SPARSE } else { WIDE }
}

/// Whether byte `index` of `bytes` has the pattern.
const fn has_pattern(index: usize, bytes: usize, pattern: Pattern) -> bool {
    matches!(pattern, Pattern::Guard) || index < WHOLE || (index - WHOLE) % SPARSE < WIDE || index + 8 >= bytes
}

/// Writes the pattern of `at` to `bytes` bytes there.
///
/// # Safety
/// - They may be written.
#[inline]
pub(super) unsafe fn fill(at: NonNull<u8>, bytes: usize, pattern: Pattern) {
    let word = word(at.as_ptr() as usize, pattern);
    if bytes < 8 {
        // SAFETY: inside, as the caller states.
        return unsafe { at.as_ptr().copy_from_nonoverlapping(word.to_ne_bytes().as_ptr(), bytes) };
    }
    let mut index = 0;
    while index + WIDE <= bytes {
        // SAFETY: inside, as the caller states.
        unsafe { at.as_ptr().wrapping_add(index).cast::<[u64; WIDE / 8]>().write_unaligned([word; WIDE / 8]) };
        index = next(index, pattern);
    }
    while index + 8 <= bytes {
        // SAFETY: as above.
        unsafe { at.as_ptr().wrapping_add(index).cast::<u64>().write_unaligned(word) };
        index += 8;
    }
    // SAFETY: as above; it overlaps what was written, and has the same bytes there.
    unsafe { at.as_ptr().wrapping_add(bytes - 8).cast::<u64>().write_unaligned(word_from(word, bytes)) };
}

/// Poisons `bytes` bytes of a fresh block at `at`, unless they have been since a block was freed here: no page goes in part,
/// and who had the memory meanwhile wrote other words.
///
/// # Safety
/// - They may be read and written.
#[inline]
pub(super) unsafe fn poison_fresh(at: NonNull<u8>, bytes: usize) {
    let (first, address) = (at.as_ptr(), at.as_ptr() as usize);
    let word = word(address, Pattern::Poison);
    if bytes >= 8 && (address ^ (address + bytes)) < PAGE_MIN {
        // SAFETY: inside, as the caller states.
        let begin = unsafe { first.cast::<u64>().read_unaligned() };
        // SAFETY: as above.
        let end = unsafe { first.wrapping_add(bytes - 8).cast::<u64>().read_unaligned() };
        if begin == word && end == word_from(word, bytes) {
            return;
        }
    }
    // SAFETY: handed on.
    unsafe { fill(at, bytes, Pattern::Poison) };
}

/// Whether `bytes` bytes at `at` are what `fill` wrote.
///
/// # Safety
/// - They may be read.
#[inline]
pub(super) unsafe fn is_filled(at: NonNull<u8>, bytes: usize, pattern: Pattern) -> bool {
    let word = word(at.as_ptr() as usize, pattern);
    if bytes < 8 {
        // SAFETY: inside, as the caller states.
        return unsafe { core::slice::from_raw_parts(at.as_ptr(), bytes) } == &word.to_ne_bytes()[..bytes];
    }
    // SAFETY: as above.
    let mut changed =
        unsafe { at.as_ptr().wrapping_add(bytes - 8).cast::<u64>().read_unaligned() } ^ word_from(word, bytes);
    let mut index = 0;
    while index + WIDE <= bytes {
        // SAFETY: as above.
        let words = unsafe { at.as_ptr().wrapping_add(index).cast::<[u64; WIDE / 8]>().read_unaligned() };
        changed |= words.iter().fold(0, |sum, one| sum | (one ^ word));
        index = next(index, pattern);
    }
    while index + 8 <= bytes {
        // SAFETY: as above.
        changed |= unsafe { at.as_ptr().wrapping_add(index).cast::<u64>().read_unaligned() } ^ word;
        index += 8;
    }
    changed == 0
}

/// Whether byte `index` of `bytes` is another than `fill` wrote.
///
/// # Safety
/// - It may be read.
pub(super) unsafe fn is_changed(at: NonNull<u8>, index: usize, bytes: usize, pattern: Pattern) -> bool {
    let expected = word(at.as_ptr() as usize, pattern).to_ne_bytes()[index % 8];
    // SAFETY: as the caller states.
    has_pattern(index, bytes, pattern) && unsafe { at.as_ptr().wrapping_add(index).read() } != expected
}

/// The first of `bytes` bytes at `at` that is not what `fill` wrote.
///
/// # Safety
/// - They may be read.
pub(super) unsafe fn first_changed(at: NonNull<u8>, bytes: usize, pattern: Pattern) -> Option<usize> {
    // SAFETY: handed on.
    if unsafe { is_filled(at, bytes, pattern) } {
        return None;
    }
    // SAFETY: as above.
    (0..bytes).find(|index| unsafe { is_changed(at, *index, bytes, pattern) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    const PATTERNS: [Pattern; 2] = [Pattern::Guard, Pattern::Poison];

    #[test]
    fn every_changed_byte_is_found_in_every_length() {
        let mut memory = [0_u8; 128];
        for (offset, bytes) in (0..9).flat_map(|offset| (0..70).map(move |bytes| (offset, bytes))) {
            let at = NonNull::from(&mut memory[offset]);
            for pattern in PATTERNS {
                // SAFETY: inside the memory.
                unsafe { fill(at, bytes, pattern) };
                for index in 0..bytes {
                    // SAFETY: as above.
                    let byte = unsafe { &mut *at.as_ptr().wrapping_add(index) };
                    assert!(*byte != 0);
                    for wrong in [0, *byte ^ 1, *byte ^ 0x80] {
                        let right = core::mem::replace(byte, wrong);
                        // SAFETY: as above.
                        assert_eq!(unsafe { first_changed(at, bytes, pattern) }, Some(index));
                        *byte = right;
                    }
                }
                // SAFETY: as above.
                assert_eq!(unsafe { first_changed(at, bytes, pattern) }, None);
            }
        }
    }

    #[test]
    fn long_blocks_are_poisoned_here_and_there() {
        let mut memory = std::vec![0_u8; 5000];
        for bytes in (500..700).chain([1000, 1024, 4095, 4999]) {
            memory.fill(0);
            let at = NonNull::from(&mut memory[1]);
            // SAFETY: inside the memory.
            unsafe { fill(at, bytes, Pattern::Poison) };
            for index in 0..bytes {
                memory[1 + index] ^= 1;
                let at = NonNull::from(&mut memory[1]);
                let is_seen = has_pattern(index, bytes, Pattern::Poison);
                // SAFETY: as above.
                assert_eq!(unsafe { first_changed(at, bytes, Pattern::Poison) }, is_seen.then_some(index), "{bytes}");
                memory[1 + index] ^= 1;
            }
            assert!(memory[1 + bytes..].iter().all(|byte| *byte == 0));
            let seen = (0..bytes).filter(|index| has_pattern(*index, bytes, Pattern::Poison)).count();
            assert!(seen >= bytes.min(WHOLE + WIDE) && seen <= WHOLE + bytes / 8 + WIDE + 8, "{seen} of {bytes}");
        }
    }

    #[test]
    fn guards_are_seen_through_their_patterns() {
        let mut memory = [0_u8; 256];
        for (offset, size) in (64..80).flat_map(|offset| (0..40).map(move |size| (offset, size))) {
            let at = NonNull::from(&mut memory[offset]);
            // SAFETY: there is room on both sides.
            unsafe { surround(at, size) };
            for index in (offset - FRONT..offset).chain(offset + size..offset + size + BACK) {
                memory[index] ^= 4;
                // SAFETY: as above.
                assert!(!unsafe { is_surrounded(at, size) });
                memory[index] ^= 4;
            }
            // SAFETY: as above.
            assert!(unsafe { is_surrounded(at, size) });
            let (before, behind) = (super::at(at, -(FRONT as isize)), super::at(at, size as isize));
            // SAFETY: as above.
            assert_eq!(unsafe { first_changed(before, FRONT, Pattern::Guard) }, None);
            // SAFETY: as above.
            assert_eq!(unsafe { first_changed(behind, BACK, Pattern::Guard) }, None);
        }
    }

    #[test]
    fn addresses_and_uses_have_patterns_of_their_own() {
        let words = (0..1000_usize).flat_map(|address| PATTERNS.map(|pattern| word(address * 8, pattern)));
        let mut words: vec::Vec<u64> = words.collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), 2000);
    }
}
