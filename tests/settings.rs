//! Settings of the process heap, each in a process of its own, since a process has one heap. None of them is this
//! binary's global allocator: they are called as objects.

#[path = "common/own_process.rs"]
mod own_process;
#[path = "common/resident.rs"]
mod resident;

use own_process::in_own_process;
use resident::resident_bytes;
use std::alloc::{GlobalAlloc, Layout};
use std::os::unix::process::ExitStatusExt;
use stratalloc::{Config, HugePages, Stats, Stratalloc};

static DEFAULT: Stratalloc = Stratalloc::new();
static DEFAULT_TOO: Stratalloc = Stratalloc::with_config(Config::new().list_bytes(8 << 10));
static NOTHING_IDLE: Stratalloc = Stratalloc::with_config(Config::new().idle_bytes(0));
static SHORT_LISTS: Stratalloc = Stratalloc::with_config(Config::new().list_bytes(64));
static LONG_LISTS: Stratalloc = Stratalloc::with_config(Config::new().list_bytes(1 << 20));
static HUGE_PAGES: Stratalloc = Stratalloc::with_config(Config::new().huge_pages(HugePages::Above(0)));
static KERNELS_PAGES: Stratalloc = Stratalloc::with_config(Config::new().huge_pages(HugePages::Kernel));

const MIB: usize = 1 << 20;
const SMALL: Layout = Layout::new::<[u64; 6]>();
const LARGE: Layout = Layout::new::<[u8; 32 * MIB]>();

/// A block of `heap` with every byte written.
fn allocate(heap: &Stratalloc, layout: Layout) -> *mut u8 {
    // SAFETY: the layouts of this file have a size.
    let block = unsafe { heap.alloc(layout) };
    assert!(!block.is_null());
    // SAFETY: the block has the size.
    unsafe { block.write_bytes(0xa5, layout.size()) };
    block
}

fn free(heap: &Stratalloc, block: *mut u8, layout: Layout) {
    // SAFETY: this file frees what `allocate` gave it, once, with the same layout.
    unsafe { heap.dealloc(block, layout) }
}

#[test]
fn not_active_where_another_allocator_is() {
    in_own_process(|| {
        assert!(!Stratalloc::is_active(), "before the heap is opened");
        let stats = Stratalloc::stats();
        assert_eq!((stats.allocated, stats.mapped, stats.threads), (0, 0, 0));
        Stratalloc::collect();
        Stratalloc::thread_park();
        let block = allocate(&DEFAULT, SMALL);
        assert!(!Stratalloc::is_active(), "though the heap is in use");
        assert_eq!(Stratalloc::stats().allocated, Stratalloc::usable_size(SMALL));
        free(&DEFAULT, block, SMALL);
        assert_eq!(Stratalloc::stats().allocated, 0);
    })
    .well();
}

#[test]
fn equal_settings_share_the_heap() {
    in_own_process(|| {
        free(&DEFAULT_TOO, allocate(&DEFAULT, SMALL), SMALL);
        free(&DEFAULT, allocate(&DEFAULT_TOO, LARGE), LARGE);
        assert_eq!(Stratalloc::stats().allocated, 0);
    })
    .well();
}

const OTHER_CONFIG: &str = "stratalloc: two Stratalloc values with different Config in one process; they share one \
                            heap, so give both the same Config\n";

/// Runs `body` in a process that must end by SIGABRT after the one line.
#[track_caller]
fn dies_of_other_config(body: fn()) {
    let ended = in_own_process(body);
    assert_eq!(ended.status.signal(), Some(libc::SIGABRT), "{ended:?}");
    assert_eq!(ended.stderr, OTHER_CONFIG);
}

#[test]
fn other_settings_end_the_process_by_a_block() {
    dies_of_other_config(|| {
        allocate(&DEFAULT, SMALL);
        // One of another class, which this thread has none of: the list of the first one's would serve both.
        allocate(&NOTHING_IDLE, Layout::new::<[u64; 100]>());
    });
}

#[test]
fn other_settings_end_the_process_by_pages() {
    dies_of_other_config(|| {
        allocate(&DEFAULT, SMALL);
        allocate(&NOTHING_IDLE, LARGE);
    });
}

#[test]
fn other_settings_end_the_process_by_another_thread() {
    dies_of_other_config(|| {
        allocate(&DEFAULT, SMALL);
        let other = std::thread::spawn(|| allocate(&HUGE_PAGES, SMALL) as usize);
        assert!(other.join().is_err(), "there is no way back");
    });
}

#[test]
fn idle_bytes_of_zero_keep_nothing() {
    in_own_process(|| {
        let small = allocate(&NOTHING_IDLE, SMALL);
        let before = resident_bytes();
        let large = allocate(&NOTHING_IDLE, LARGE);
        assert!(resident_bytes() >= before + LARGE.size());
        free(&NOTHING_IDLE, large, LARGE);
        assert_eq!(Stratalloc::stats().retained, 0);
        assert!(resident_bytes() <= before + MIB / 2);
        free(&NOTHING_IDLE, small, SMALL);
    })
    .well();
}

#[test]
fn idle_bytes_keep_what_they_say() {
    in_own_process(|| {
        let before = resident_bytes();
        free(&DEFAULT, allocate(&DEFAULT, LARGE), LARGE);
        let retained = Stratalloc::stats().retained;
        assert!((6 * MIB..=8 * MIB).contains(&retained), "{retained}");
        assert!(resident_bytes() <= before + retained + MIB / 2);
    })
    .well();
}

/// Checks that the lists of every class have about `bytes` bytes, from 4 to 64 blocks; half of both with fine classes.
fn check_targets(heap: &Stratalloc, bytes: usize) {
    free(heap, allocate(heap, SMALL), SMALL);
    let stats: Stats = Stratalloc::stats();
    let (bytes, most) = if cfg!(feature = "fine-classes") { (bytes / 2, 32) } else { (bytes, 64) };
    for class in &stats.classes {
        assert_eq!(class.target as usize, (bytes / class.size).clamp(4, most), "blocks of {}", class.size);
    }
    let taken: u64 = stats.classes.iter().map(|class| class.cached).sum();
    assert_eq!(taken, u64::from(stats.class_of(SMALL).expect("a class").target), "one list");
}

#[test]
fn list_bytes_set_the_target() {
    in_own_process(|| check_targets(&SHORT_LISTS, 64)).well();
}

#[test]
fn list_bytes_set_the_target_up_to_a_bound() {
    in_own_process(|| check_targets(&LONG_LISTS, 1 << 20)).well();
}

/// The flags of the mapping that `address` lies in, as the kernel abbreviates them.
fn flags_of(address: usize) -> String {
    let maps = std::fs::read_to_string("/proc/self/smaps").expect("the kernel says what is mapped");
    let range = |line: &str| -> Option<std::ops::Range<usize>> {
        let (first, end) = line.split_once(' ')?.0.split_once('-')?;
        Some(usize::from_str_radix(first, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
    };
    let mut lines = maps.lines().skip_while(|line| !range(line).is_some_and(|range| range.contains(&address)));
    let flags = lines.find_map(|line| line.strip_prefix("VmFlags:")).expect("a mapping has flags");
    format!("{flags} ")
}

/// Checks whether the kernel was asked for huge pages (`hg`) or against them (`nh`), where it knows of any.
fn check_advice(heap: &Stratalloc, [asked_for, declined]: [bool; 2]) {
    let block = allocate(heap, LARGE);
    if std::fs::exists("/sys/kernel/mm/transparent_hugepage").expect("the kernel's settings") {
        let flags = flags_of(block as usize);
        assert_eq!([flags.contains(" hg "), flags.contains(" nh ")], [asked_for, declined], "{flags}");
    }
    free(heap, block, LARGE);
    let stats = Stratalloc::stats();
    assert!(stats.retained <= 8 * MIB && stats.allocated == 0, "{stats}");
}

#[test]
fn huge_pages_are_declined_by_default() {
    in_own_process(|| check_advice(&DEFAULT, [false, true])).well();
}

#[test]
fn huge_pages_are_asked_for() {
    in_own_process(|| check_advice(&HUGE_PAGES, [true, false])).well();
}

#[test]
fn huge_pages_are_left_to_the_kernel() {
    in_own_process(|| check_advice(&KERNELS_PAGES, [false, false])).well();
}
