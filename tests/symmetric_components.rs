//! Rows Y2 to Y5: the framework of components, and each component over a range of plain memory.

#[path = "common/checked_memheap.rs"]
mod checked_memheap;

use checked_memheap::{Checked, Range, layout, names, random_calls};
use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use stratalloc::os::Span;
use stratalloc::symmetric::memheap::{
    Choice, ChoiceError, Component, Declined, Framework, INTERFACE, Interface, Module,
};
use stratalloc::symmetric::transport::{AtomicOp, Transport, WORDS, Width};
use stratalloc::symmetric::{self, Settings, SymSlice, SymmetricError};

#[test]
fn y5_each_component_serves_any_calls_and_the_same_ones_give_the_same_addresses() {
    for name in names() {
        let first = random_calls(&mut Checked::new(&Range::new(64 << 20), name), 20_000, 1 << 20, 0x1234_5678);
        let again = random_calls(&mut Checked::new(&Range::new(64 << 20), name), 20_000, 1 << 20, 0x1234_5678);
        assert_eq!(first, again, "{name}");
    }
}

#[test]
fn y5_what_was_freed_is_whole_again() {
    for name in names() {
        let range = Range::new(16 << 20);
        let mut heap = Checked::new(&range, name);
        let largest = |heap: &mut Checked| {
            let fits = |heap: &mut Checked, bytes| heap.alloc(layout(bytes, 16), 1).map(|at| heap.free(at)).is_some();
            (1..=256).rev().map(|part| part << 16).find(|bytes| fits(heap, *bytes)).expect("some room")
        };
        random_calls(&mut heap, 3000, 1 << 16, 77);
        heap.free_all();
        heap.memheap.module().collect();
        // Half of the heap at the least: a buddy has no larger block, and records may lie in the middle.
        assert!(largest(&mut heap) >= 8 << 20, "{name}");
    }
}

#[test]
fn y5_a_full_heap_is_none_and_goes_on() {
    for name in names() {
        let range = Range::new(8 << 20);
        let mut heap = Checked::new(&range, name);
        for bytes in [40, 3000, 100_000, 1 << 20] {
            let mut count = 0;
            while heap.alloc(layout(bytes, 16), 9).is_some() {
                count += 1;
            }
            // At least half of it can be had, in blocks of whatever size.
            assert!(count * bytes >= 4 << 20 || bytes == 40 && count * 64 >= 4 << 20, "{name}: {count} of {bytes}");
            // What does not fit leaves a block as it was.
            let victim = *heap.live.keys().next().expect("a block");
            assert_eq!(heap.realloc(victim, layout(16 << 20, 16)), None);
            heap.free_all();
        }
        assert_eq!(heap.alloc(layout(16 << 20, 16), 1), None, "{name}: more than there is");
        assert_eq!(heap.alloc(layout(isize::MAX as usize - 4096, 16), 1), None, "{name}: more than there could be");
    }
}

/// A heap of so many GiB, with blocks all over it, of which little is written.
fn spread(name: &str, gib: usize) {
    let range = Range::new(gib << 30);
    let mut heap = Checked::new(&range, name);
    let mut far = 0;
    let mut count = 0;
    for bytes in [512 << 20, 100 << 20, 3 << 20, 100_000, 100] {
        let room = gib << 30;
        let wanted = if bytes > 1 << 20 { room / 5 / bytes } else { 1000 };
        for number in 0..wanted {
            let Some(at) = heap.alloc(layout(bytes, 16), number as u8) else { break };
            far = far.max(at - range.0.at);
            count += 1;
        }
    }
    assert!(far > (gib << 30) / 2 && count > 2000, "{name}: {count} blocks, the last at {far:#x}");
    // Every second goes; others come in their places, and those that stay are as they were.
    let every_second: Vec<usize> = heap.live.keys().copied().step_by(2).collect();
    every_second.into_iter().for_each(|at| heap.free(at));
    random_calls(&mut heap, 500, 64 << 20, 5);
    heap.free_all();
}

#[test]
fn y3_y4_y5_a_heap_of_8_gib_has_each_address_once() {
    names().for_each(|name| spread(name, 8));
}

#[test]
fn y3_y4_y5_a_heap_of_64_gib_has_each_address_once() {
    names().for_each(|name| spread(name, 64));
}

/// Open MPI 4.1.4 keeps offsets of its buddy in 32 bits: from 4 GiB on, blocks had the addresses of others.
#[test]
fn y3_offsets_of_the_buddy_have_64_bits() {
    let range = Range::new(8 << 30);
    let mut heap = Checked::new(&range, "buddy");
    let blocks: Vec<usize> = (0..8).filter_map(|seed| heap.alloc(layout(1 << 30, 16), seed)).collect();
    assert_eq!(
        blocks.iter().map(|at| at - range.0.at).collect::<Vec<_>>(),
        (0..8).map(|at| at << 30).collect::<Vec<_>>()
    );
    assert_eq!(heap.alloc(layout(64, 16), 1), None);
    heap.free(blocks[5]);
    // The halves of a block merge again, and are found by their own orders.
    let halves: Vec<usize> = (0..2).filter_map(|seed| heap.alloc(layout(512 << 20, 16), seed)).collect();
    assert_eq!(halves, [blocks[5], blocks[5] + (512 << 20)]);
    halves.into_iter().for_each(|at| heap.free(at));
    assert_eq!(heap.alloc(layout(1 << 30, 16), 3), Some(blocks[5]));
}

#[test]
fn y3_the_buddy_takes_the_lowest_and_grows_and_shrinks_in_place() {
    let range = Range::new(3 << 20);
    let mut heap = Checked::new(&range, "buddy");
    let base = range.0.at;
    // 3 MiB are a block of two and one of one.
    assert_eq!(heap.alloc(layout(1 << 20, 16), 1), Some(base + (2 << 20)));
    assert_eq!(heap.alloc(layout(65, 16), 2), Some(base));
    assert_eq!(heap.alloc(layout(64, 16), 3), Some(base + 128));
    // The upper half is free: the block grows there, until another one is in the way.
    assert_eq!(heap.realloc(base + 128, layout(128, 16)), Some(base + 128));
    assert_eq!(heap.realloc(base, layout(200, 16)), Some(base + 256));
    assert_eq!(heap.realloc(base + 256, layout(20, 16)), Some(base + 256));
    assert_eq!(heap.alloc(layout(2 << 20, 16), 4), None);
    heap.free_all();
    assert_eq!(heap.alloc(layout(2 << 20, 1 << 20), 5), Some(base));
    assert_eq!(heap.alloc(layout(1 << 20, 1 << 20), 6), Some(base + (2 << 20)));
}

#[test]
fn y5_strata_resizes_in_place_where_it_can() {
    let range = Range::new(8 << 20);
    let mut heap = Checked::new(&range, "strata");
    // Of one class.
    let block = heap.alloc(layout(200, 16), 1).expect("room");
    assert_eq!(heap.realloc(block, layout(205, 16)), Some(block));
    // A run, which gives up its last pages.
    let run = heap.alloc(layout(100_000, 16), 2).expect("room");
    assert_eq!(heap.realloc(run, layout(50_000, 16)), Some(run));
    // Small ones stay aligned.
    let small = heap.alloc(layout(300, 16), 3).expect("room");
    for bytes in [16, 17, 48, 80, 100, 1000, 16] {
        heap.live.keys().for_each(|at| assert!(at.is_multiple_of(16)));
        let at = *heap.live.iter().find(|(_, (_, seed))| *seed == 3).expect("it is live").0;
        heap.realloc(at, layout(bytes, 16)).expect("room");
    }
    assert!(small.is_multiple_of(16));
}

#[test]
fn y4_ptmalloc_knows_live_blocks_from_others() {
    let range = Range::new(4 << 20);
    for name in ["ptmalloc", "buddy"] {
        let mut heap = Checked::new(&range, name);
        let at = heap.alloc(layout(100, 16), 1).expect("a block");
        let pointer = |at: usize| NonNull::new(at as *mut u8).expect("an address");
        assert_eq!(heap.memheap.bytes_of(pointer(at + 16)), None, "inside of one");
        assert_eq!(heap.memheap.bytes_of(pointer(at + 8)), None);
        assert_eq!(heap.memheap.bytes_of(pointer(0x1000)), None, "outside of the heap");
        heap.free(at);
        assert_eq!(heap.memheap.bytes_of(pointer(at)), None, "freed");
    }
}

/// What a test's component did.
static CALLS: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());

#[derive(Debug)]
struct Bump(&'static Component, Span, usize);

// SAFETY: each block lies behind the last, in the range.
unsafe impl Module for Bump {
    fn component(&self) -> &'static Component {
        self.0
    }

    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        let at = (self.1.at + self.2).next_multiple_of(layout.align());
        self.2 = at + layout.size() - self.1.at;
        (self.2 <= self.1.bytes).then(|| NonNull::new(at as *mut u8))?
    }

    fn bytes_of(&self, block: NonNull<u8>) -> Option<usize> {
        (self.1.at + self.2).checked_sub(block.as_ptr() as usize)
    }

    unsafe fn free(&mut self, _: NonNull<u8>) {}

    fn finalize(&mut self) {
        CALLS.lock().expect("a lock").push(self.0.name);
    }
}

const fn bump(name: &'static str, priority: i32) -> Component {
    let init = |component: &'static Component, range: Span| {
        // What it has of its own says whether it will.
        match component.data.downcast_ref::<&str>() {
            Some(why) => Err(Declined((*why).into())),
            None => Ok(Box::new(Bump(component, range, 0)) as Box<dyn Module>),
        }
    };
    Component { name, interface: INTERFACE, priority, data: &(), init }
}

static BEST: Component = bump("best", 100);
static WORST: Component = bump("worst", -1);
static OTHER: Component =
    Component { interface: Interface { major: INTERFACE.major + 1, minor: 0 }, ..bump("other", 200) };
static LATER: Component =
    Component { interface: Interface { major: INTERFACE.major, minor: INTERFACE.minor + 1 }, ..bump("later", 200) };
static SHY: Component = Component { data: &"not today", ..bump("shy", 300) };
static TWIN: Component = bump("buddy", 1);

#[test]
fn y2_the_highest_priority_is_kept_and_all_others_are_finalised() {
    let range = Range::new(1 << 20);
    let framework = Framework::open(&[&WORST, &BEST, &OTHER, &LATER, &SHY]);
    assert_eq!(framework.components().count(), 8);
    // SAFETY: the range is mapped, zero, and nobody else's.
    let select = |choice: &Choice| unsafe { framework.select(choice, range.0) };
    let finalised = || std::mem::take(&mut *CALLS.lock().expect("a lock"));
    let memheap = select(&Choice::new()).expect("a component");
    assert_eq!((memheap.component().name, memheap.priority(), finalised()), ("best", 100, vec!["worst"]));
    drop(memheap);
    assert_eq!(finalised(), ["best"]);
    // The user's priorities count, and the name.
    let memheap = select(&Choice::parse("worst = 1000, best=5").expect("a choice")).expect("a component");
    assert_eq!((memheap.component().name, memheap.priority(), finalised()), ("worst", 1000, vec!["best"]));
    drop(memheap);
    let memheap = select(&Choice::parse("buddy").expect("a choice")).expect("a component");
    assert_eq!((memheap.component().name, finalised()), ("buddy", vec!["worst"]));
    drop(memheap);
    let memheap = select(&Choice::new().only("strata")).expect("a component");
    assert_eq!(memheap.component().name, "strata");
    drop(memheap);
    assert_eq!(finalised(), Vec::<&str>::new());
}

#[test]
fn y2_whoever_cannot_serve_says_why() {
    let range = Range::new(1 << 20);
    let select = |more: &[&'static Component], choice: &Choice| {
        // SAFETY: the range is mapped, zero, and nobody else's.
        unsafe { Framework::open(more).select(choice, range.0) }.expect_err("nobody").to_string()
    };
    assert_eq!(
        select(&[&OTHER], &Choice::new().only("other")),
        "no component serves: other: it was made for interface 2.0, and this is 1.0; allow another component, or mend what each of these names"
    );
    assert!(select(&[&LATER], &Choice::new().only("later")).contains("it was made for interface 1.1"));
    assert!(select(&[&SHY], &Choice::new().only("shy")).contains("shy: not today;"));
    assert_eq!(
        select(&[], &Choice::new().only("budy")),
        "there is no component `budy`; there are strata, buddy, ptmalloc"
    );
    assert!(select(&[], &Choice::new().priority("nobody", 3)).starts_with("there is no component `nobody`"));
    assert_eq!(select(&[&TWIN], &Choice::new()), "two components have the name `buddy`; each needs one of its own");
    for text in ["a b", "buddy=", "=3", "buddy=x", "buddy=1,", "buddy,strata", "buddy=1;strata=2"] {
        assert!(matches!(Choice::parse(text), Err(ChoiceError::Text { .. })), "{text}");
    }
    assert_eq!(Choice::parse("  ").expect("nothing"), Choice::new());
}

#[test]
fn y2_a_component_writes_nothing_before_it_allocates() {
    for name in names() {
        let range = Range::new(2 << 20);
        let memheap = range.select(&Choice::new().only(name));
        // SAFETY: mapped, and nobody writes.
        let bytes = unsafe { std::slice::from_raw_parts(range.0.at as *const u8, range.0.bytes) };
        assert!(bytes.iter().all(|byte| *byte == 0), "{name}");
        drop(memheap);
    }
}

/// A transport of a test's own, for one PE: what is above asks it for all that leaves the process.
#[derive(Debug)]
struct Counting(Range, &'static AtomicUsize);

// SAFETY: the range is mapped; what is copied and changed is what was told.
unsafe impl Transport for Counting {
    fn my_pe(&self) -> usize {
        0
    }

    fn n_pes(&self) -> usize {
        1
    }

    fn heap(&self) -> Span {
        self.0.0
    }

    fn ptr(&self, _: usize, _: usize) -> Option<NonNull<u8>> {
        // Out of reach, as another machine's memory is.
        None
    }

    unsafe fn put(&self, to: usize, from: *const u8, bytes: usize, _: usize) {
        self.1.fetch_add(1, SeqCst);
        // SAFETY: the caller's promise.
        unsafe { (to as *mut u8).copy_from(from, bytes) };
    }

    unsafe fn get(&self, to: *mut u8, from: usize, bytes: usize, _: usize) {
        self.1.fetch_add(100, SeqCst);
        // SAFETY: the caller's promise.
        unsafe { to.copy_from(from as *const u8, bytes) };
    }

    unsafe fn atomic(&self, op: AtomicOp, at: usize, width: Width, _: usize) -> u64 {
        assert_eq!(width, Width::Eight);
        self.1.fetch_add(10_000, SeqCst);
        // SAFETY: the caller's promise.
        let word = unsafe { &mut *(at as *mut u64) };
        match op {
            AtomicOp::Add(more) => std::mem::replace(word, word.wrapping_add(more)),
            AtomicOp::Swap(new) => std::mem::replace(word, new),
            _ => *word,
        }
    }

    fn fence(&self) {}

    fn quiet(&self) {}

    fn barrier(&self) {}

    fn rest(&self, _: u32) {}

    fn gather(&self, mine: [u64; WORDS], each: &mut dyn FnMut(usize, [u64; WORDS])) {
        self.1.fetch_add(1_000_000, SeqCst);
        each(0, mine);
    }

    fn exit_all(&self, status: i32) -> ! {
        std::process::exit(status)
    }

    fn finalize(&self) -> Result<(), SymmetricError> {
        self.1.fetch_add(100_000_000, SeqCst);
        Ok(())
    }
}

#[test]
fn y8_nothing_above_knows_which_transport_it_is() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let transport = Box::new(Counting(Range::new(1 << 20), &CALLS));
    symmetric::init_over(transport, &Settings::new().checks(false), &[]).expect("a PE");
    let slice = SymSlice::<u64>::new(10).expect("room");
    slice.put(0, 3, &[5, 6]).expect("elements");
    assert_eq!(slice.get_one(0, 4), Ok(6));
    assert_eq!((slice.fetch_add(0, 3, 2), slice.swap(0, 3, 1)), (Ok(5), Ok(7)));
    assert!(symmetric::ptr(slice.as_ptr(), 0).is_none() && symmetric::addr_accessible(slice.as_ptr(), 0));
    symmetric::barrier_all();
    drop(slice);
    symmetric::finalize().expect("the end");
    // A put, a get, two atomics; calls that are compared: the library's begin, the new slice, `barrier_all`, the slice's end, the library's.
    assert_eq!(CALLS.load(SeqCst), 1 + 100 + 2 * 10_000 + 5 * 1_000_000 + 100_000_000);
}
