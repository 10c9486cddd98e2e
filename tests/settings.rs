//! Settings of the process heap, each in a process of its own, since a process has one heap. None of them is this
//! binary's global allocator: they are called as objects.

#[path = "common/own_process.rs"]
mod own_process;
#[path = "common/resident.rs"]
mod resident;
#[path = "common/skipped.rs"]
mod skipped;

use own_process::in_own_process;
use resident::{huge_bytes, resident_bytes};
use skipped::skipped;
use std::alloc::{GlobalAlloc, Layout};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};
use stratalloc::{Config, HugePages, Purge, Stats, Stratalloc};

static DEFAULT: Stratalloc = Stratalloc::new();
static DEFAULT_TOO: Stratalloc = Stratalloc::with_config(Config::new().list_bytes(8 << 10).purge(Purge::Soon));
static AT_FREE: Stratalloc = Stratalloc::with_config(Config::new().purge(Purge::AtFree));
static NOTHING_IDLE: Stratalloc = Stratalloc::with_config(Config::new().idle_bytes(0).purge(Purge::AtFree));
static SHORT_LISTS: Stratalloc = Stratalloc::with_config(Config::new().list_bytes(64));
static LONG_LISTS: Stratalloc = Stratalloc::with_config(Config::new().list_bytes(1 << 20));
static NO_HUGE_PAGES: Stratalloc = Stratalloc::with_config(Config::new().huge_pages(HugePages::Never));
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
fn another_way_to_purge_is_another_setting() {
    dies_of_other_config(|| {
        allocate(&DEFAULT, SMALL);
        allocate(&AT_FREE, LARGE);
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
        free(&AT_FREE, allocate(&AT_FREE, LARGE), LARGE);
        let retained = Stratalloc::stats().retained;
        assert!((6 * MIB..=8 * MIB).contains(&retained), "{retained}");
        assert!(resident_bytes() <= before + retained + MIB / 2);
    })
    .well();
}

/// Waits, not without end, until the heap retains from `least` to `most` bytes. (A run that is being purged is with the
/// purger, and nobody's.)
fn wait_until_retained(least: usize, most: usize) {
    let begun = Instant::now();
    while !(least..=most).contains(&Stratalloc::stats().retained) {
        assert!(begun.elapsed() < Duration::from_secs(30), "{}", Stratalloc::stats());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn idle_bytes_are_kept_soon_by_default() {
    in_own_process(|| {
        let before = resident_bytes();
        // Longer runs do not wait for the purger.
        let layout = Layout::new::<[u8; 15 * MIB]>();
        free(&DEFAULT, allocate(&DEFAULT, layout), layout);
        let stats = Stratalloc::stats();
        // A run so long has its huge pages' ends.
        assert!(stats.retained >= layout.size() && stats.runs.purged_pages == 0, "nothing at the free itself: {stats}");
        wait_until_retained(4 * MIB, 8 * MIB);
        assert!(resident_bytes() <= before + 9 * MIB);
    })
    .well();
}

/// Checks that the lists of every class have about `bytes` bytes, from 4 to 64 blocks.
fn check_targets(heap: &Stratalloc, bytes: usize) {
    free(heap, allocate(heap, SMALL), SMALL);
    let stats: Stats = Stratalloc::stats();
    for class in &stats.classes {
        assert_eq!(class.target as usize, (bytes / class.size).clamp(4, 64), "blocks of {}", class.size);
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

/// Checks whether the kernel was asked for huge pages (`hg`) or against them (`nh`) in `block`, where it knows of any.
fn check_advice(block: *mut u8, [asked_for, declined]: [bool; 2]) {
    if std::fs::exists("/sys/kernel/mm/transparent_hugepage").expect("the kernel's settings") {
        let flags = flags_of(block as usize);
        assert_eq!([flags.contains(" hg "), flags.contains(" nh ")], [asked_for, declined], "{flags}");
    }
}

/// Whether the kernel gives this process huge pages where it is asked for them, as it is now.
#[allow(clippy::disallowed_methods, reason = "a mapping beside the heap under test")]
fn kernel_gives_huge_pages() -> bool {
    const BYTES: usize = 16 * MIB;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a fresh mapping touches nothing that exists.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), BYTES, access, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    let before = huge_bytes();
    // SAFETY: the mapping is ours; it may refuse, as a kernel without huge pages does.
    let _ = unsafe { libc::madvise(at, BYTES, libc::MADV_HUGEPAGE) };
    // SAFETY: as above.
    unsafe { at.cast::<u8>().write_bytes(1, BYTES) };
    let given = huge_bytes() > before;
    // SAFETY: mapped above, and used no more.
    assert_eq!(unsafe { libc::munmap(at, BYTES) }, 0);
    given
}

fn not_checked(what: &str) {
    skipped(&format!("{what}: this kernel gives this process no huge pages"));
}

#[test]
fn huge_pages_are_never_asked_for() {
    in_own_process(|| {
        let before = huge_bytes();
        let blocks = [LARGE; 2].map(|layout| allocate(&NO_HUGE_PAGES, layout));
        blocks.iter().for_each(|block| check_advice(*block, [false, true]));
        assert_eq!(huge_bytes(), before);
        blocks.into_iter().for_each(|block| free(&NO_HUGE_PAGES, block, LARGE));
    })
    .well();
}

/// The first 32 MiB find a heap in which nothing is live, the second ones a large one.
#[test]
fn huge_pages_come_with_a_large_heap() {
    let ended = in_own_process(|| {
        let (given, before) = (kernel_gives_huge_pages(), huge_bytes());
        let first = allocate(&DEFAULT, LARGE);
        check_advice(first, [false, true]);
        assert_eq!(huge_bytes(), before, "the heap is small");
        let second = allocate(&DEFAULT, LARGE);
        check_advice(second, [true, false]);
        if given {
            assert!(huge_bytes() > before, "{} MiB are live, none in huge pages", 2 * LARGE.size() / MIB);
        } else {
            not_checked("huge pages of a heap with 64 MiB live");
        }
        let zeroed = {
            // SAFETY: the layout has a size.
            let block = unsafe { DEFAULT.alloc_zeroed(LARGE) };
            assert!(!block.is_null());
            block
        };
        check_advice(zeroed, [false, true]);
        [first, second, zeroed].into_iter().for_each(|block| free(&DEFAULT, block, LARGE));
        wait_until_retained(1, 8 * MIB);
    });
    ended.well();
    ended.hand_on("SKIPPED");
}

#[test]
fn huge_pages_are_asked_for_from_the_start() {
    let ended = in_own_process(|| {
        let (given, before) = (kernel_gives_huge_pages(), huge_bytes());
        let block = allocate(&HUGE_PAGES, LARGE);
        check_advice(block, [true, false]);
        if given {
            assert!(huge_bytes() > before);
        } else {
            not_checked("huge pages of a heap that wants them from the start");
        }
        free(&HUGE_PAGES, block, LARGE);
        wait_until_retained(1, 8 * MIB);
    });
    ended.well();
    ended.hand_on("SKIPPED");
}

#[test]
fn huge_pages_are_left_to_the_kernel() {
    in_own_process(|| {
        let block = allocate(&KERNELS_PAGES, LARGE);
        check_advice(block, [false, false]);
        free(&KERNELS_PAGES, block, LARGE);
        wait_until_retained(1, 8 * MIB);
    })
    .well();
}
