//! The slabs of a class under loom: refills beside each other, and beside a slab that becomes whole.

use super::{Batch, Returns, SlabRef, Slabs};
use crate::heap::class::Class;
use crate::lock::{Locked, Rank};
use crate::models::{Modelled, holds_and_twin_fails};
use core::ptr::NonNull;
use loom::sync::Arc;
use std::alloc::{Layout, alloc};

const PAGE_SHIFT: u32 = 12;
const BASE: usize = 1 << 30;

type Shared<const SOUND: bool> = Arc<Locked<Slabs, Modelled<SOUND>>>;

/// The slabs of a class that has one, all of whose blocks are here, and that one. (Its record is never freed: models run
/// briefly.)
fn one_slab<const SOUND: bool>() -> (Shared<SOUND>, SlabRef) {
    let class = Class::all().last().expect("there are classes");
    let layout = Layout::from_size_align(SlabRef::record_bytes(class, PAGE_SHIFT), 64).expect("a small size");
    // SAFETY: the size is not 0.
    let record = NonNull::new(unsafe { alloc(layout) }).expect("memory");
    // SAFETY: the memory is ours, and the pages are never touched.
    let slab = unsafe { SlabRef::create(record, class, PAGE_SHIFT, 1, BASE, 0) };
    let slabs = Locked::new(Rank::Slabs, Slabs::EMPTY);
    slabs.with(|slabs: &mut Slabs| slabs.add(slab));
    (Arc::new(slabs), slab)
}

/// The addresses of up to `want` blocks.
fn refill<const SOUND: bool>(slabs: &Locked<Slabs, Modelled<SOUND>>, want: usize) -> Vec<usize> {
    let mut batch = Batch::new();
    slabs.with(|slabs| slabs.fill(want, &mut batch));
    batch.addresses().collect()
}

fn two_refill<const SOUND: bool>() {
    let (slabs, _) = one_slab::<SOUND>();
    let other = loom::thread::spawn({
        let slabs = Arc::clone(&slabs);
        move || refill(&slabs, 2)
    });
    let mut blocks = refill(&slabs, 2);
    blocks.extend(other.join().expect("the other ends well"));
    blocks.sort_unstable();
    blocks.dedup();
    assert_eq!(blocks.len(), 4, "a block was handed out twice");
    assert_eq!(slabs.with(|slabs| slabs.blocks_out), 4);
}

/// One thread brings the last block of a slab back and uses the record anew if that makes it whole; the other refills.
fn one_becomes_whole<const SOUND: bool>() {
    let (slabs, slab) = one_slab::<SOUND>();
    refill(&slabs, 1);
    let other = loom::thread::spawn({
        let slabs = Arc::clone(&slabs);
        move || refill(&slabs, 1).len()
    });
    let mut returns = Returns::new();
    returns.push(slab, 0);
    let whole = slabs.with(|slabs| slabs.sort(&returns, 0));
    if let Some(slab) = whole {
        // SAFETY: the slab is whole, so its record is ours.
        unsafe { SlabRef::create(slab.0.cast(), slab.class(), PAGE_SHIFT, 1, 2 * BASE, 0) };
    }
    let filled = other.join().expect("the other ends well");
    assert!((whole.is_some(), filled) == (true, 0) || (whole.is_some(), filled) == (false, 1));
}

#[test]
fn slabs_two_threads_refill() {
    holds_and_twin_fails("slabs_two_threads_refill", two_refill::<true>, two_refill::<false>);
}

#[test]
fn slabs_one_becomes_whole_beside_a_refill() {
    let name = "slabs_one_becomes_whole_beside_a_refill";
    holds_and_twin_fails(name, one_becomes_whole::<true>, one_becomes_whole::<false>);
}
