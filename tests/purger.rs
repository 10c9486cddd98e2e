//! The purger: a thread that comes when more is retained than the idle bound allows, and goes when the bound is kept.
//! Each test in a process of its own, whose threads can be counted. No heap here is this binary's global allocator, so
//! nothing happens in it but what a test does.

#[path = "common/example.rs"]
mod example;
#[path = "common/own_process.rs"]
mod own_process;
#[path = "common/random.rs"]
mod random;
#[path = "common/resident.rs"]
mod resident;

use own_process::in_own_process;
use random::Random;
use resident::resident_bytes;
use std::alloc::{GlobalAlloc, Layout};
use std::ffi::CString;
use std::time::{Duration, Instant};
use stratalloc::{Config, HugePages, Purge, Stratalloc};

static SOON: Stratalloc = Stratalloc::new();
static AT_FREE: Stratalloc = Stratalloc::with_config(Config::new().purge(Purge::AtFree));
/// Without huge pages, whose blocks are resident as a whole.
static AT_FREE_SMALL_PAGES: Stratalloc =
    Stratalloc::with_config(Config::new().purge(Purge::AtFree).huge_pages(HugePages::Never));

const MIB: usize = 1 << 20;
const BOUND: usize = 8 * MIB;
const LARGE: Layout = Layout::new::<[u8; 15 * MIB]>();
/// Together with what a cache holds it stays below seven eighths of the bound.
const BELOW: Layout = Layout::new::<[u8; 5 * MIB]>();
const SMALL: Layout = Layout::new::<[u64; 6]>();

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

/// Uses `layout.size()` bytes for a moment.
fn swing(heap: &Stratalloc, layout: Layout) {
    free(heap, allocate(heap, layout), layout);
}

/// The threads of this process, by their numbers.
fn threads() -> Vec<u32> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("the kernel says which threads there are");
    tasks.map(|task| task.expect("a thread").file_name().to_string_lossy().parse().expect("a number")).collect()
}

/// Waits until `is_so`; a test that waits for this long fails.
#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(30), "in 30 s, not {what}: {}", Stratalloc::stats());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until no more threads run than `before`, and asserts that the bound is kept then.
#[track_caller]
fn wait_until_kept(before: usize) {
    wait_until("alone", || threads().len() <= before);
    let stats = Stratalloc::stats();
    assert!(stats.retained <= BOUND, "{stats}");
}

#[test]
fn g14_no_purger_below_the_bound_and_none_once_idle() {
    in_own_process(|| {
        let before = threads().len();
        (0..100).for_each(|_| swing(&SOON, BELOW));
        assert_eq!(threads().len(), before, "nothing was beyond the bound");
        swing(&SOON, LARGE);
        assert_eq!(threads().len(), before + 1);
        assert_eq!(Stratalloc::stats().threads, 1, "the purger has no cache");
        wait_until_kept(before);
    })
    .well();
}

/// The signals that thread `thread` does not take, as bits.
fn blocked_signals(thread: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/status")).expect("the thread is there");
    let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).expect("a line with its signals");
    u64::from_str_radix(line.trim(), 16).expect("a hexadecimal number")
}

#[test]
fn g14_the_purger_takes_no_signal() {
    in_own_process(|| {
        let before = threads();
        // SAFETY: no preconditions.
        let this = unsafe { libc::gettid() } as u32;
        let own = blocked_signals(this);
        swing(&SOON, LARGE);
        let purger: Vec<u32> = threads().into_iter().filter(|thread| !before.contains(thread)).collect();
        assert_eq!(purger.len(), 1, "{purger:?}");
        let blocked = blocked_signals(purger[0]);
        // Two cannot be blocked, and the C library keeps some for itself, from 32 on.
        let others = (1..=64).filter(|signal| ![9, 19, 32, 33, 34].contains(signal));
        let taken: Vec<u32> = others.filter(|signal| blocked >> (signal - 1) & 1 == 0).collect();
        assert!(taken.is_empty(), "{taken:?} are not blocked");
        assert_eq!(blocked_signals(this), own, "and the one who summoned it takes what it took");
        wait_until_kept(before.len());
    })
    .well();
}

#[test]
fn g14_purgers_come_and_go_and_leave_nothing() {
    in_own_process(|| {
        let before = threads().len();
        let mut addresses = 0;
        for cycle in 0..10 {
            swing(&SOON, LARGE);
            assert_eq!(threads().len(), before + 1, "cycle {cycle}");
            // With nothing retained it goes after its first look.
            Stratalloc::collect();
            wait_until_kept(before);
            if cycle == 1 {
                addresses = address_space();
            }
        }
        assert!(address_space() <= addresses, "stacks stay behind");
    })
    .well();
}

/// Bytes of addresses that this process has mapped.
fn address_space() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("the kernel says what is mapped");
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("a line with the sum");
    line.trim().trim_end_matches(" kB").trim().parse::<usize>().expect("a number of KiB") << 10
}

/// Forks; the status of the child, which ends with 0 if `body` returns.
fn status_of_child(body: impl FnOnce()) -> i32 {
    // SAFETY: the child runs `body`, which allocates and reads files, and then ends; a panic ends it, too.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork failed");
    if child == 0 {
        body();
        // SAFETY: no preconditions.
        unsafe { libc::_exit(0) }
    }
    let mut status = 0;
    // SAFETY: the child is ours, and `status` a place to write to.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    status
}

#[test]
fn g12_a_forked_child_summons_a_purger_of_its_own() {
    in_own_process(|| {
        let before = threads().len();
        swing(&SOON, LARGE);
        assert_eq!(threads().len(), before + 1);
        let retained = Stratalloc::stats().retained;
        let status = status_of_child(|| {
            assert_eq!(threads().len(), 1, "the parent's purger is not here");
            assert!(retained > BOUND && Stratalloc::stats().retained == retained, "nor anybody who purges");
            swing(&SOON, BELOW);
            assert_eq!(threads().len(), 2);
            wait_until_kept(1);
        });
        assert_eq!(status, 0);
        wait_until_kept(before);
    })
    .well();
}

/// Lets this process map nothing more, for as long as `section` lasts.
fn without_memory(section: impl FnOnce()) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the place is ours.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) }, 0);
    let none = libc::rlimit { rlim_cur: 1, ..limit };
    // SAFETY: the limit is there to be read.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const none) }, 0);
    section();
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
}

#[test]
fn g14_without_threads_memory_comes_back_at_the_free() {
    in_own_process(|| {
        let before = threads().len();
        let block = allocate(&SOON, LARGE);
        without_memory(|| free(&SOON, block, LARGE));
        let stats = Stratalloc::stats();
        assert_eq!(threads().len(), before, "there was no memory for a stack");
        assert!(stats.retained <= BOUND && stats.runs.purged_pages > 0, "{stats}");
        swing(&SOON, LARGE);
        let stats = Stratalloc::stats();
        assert!(threads().len() == before && stats.retained <= BOUND, "where it failed once it is not tried again");
    })
    .well();
}

/// As above, but what is free lies in lists in the depot, more than the bound.
#[test]
fn g14_without_threads_the_depot_is_emptied_at_the_free() {
    in_own_process(|| {
        let before = threads().len();
        let blocks: Vec<*mut u8> = (0..LARGE.size() / 64).map(|_| allocate(&SOON, SMALL)).collect();
        let base = resident_bytes() - blocks.len() * Stratalloc::usable_size(SMALL);
        without_memory(|| blocks.iter().for_each(|block| free(&SOON, *block, SMALL)));
        let stats = Stratalloc::stats();
        let depot: u64 = stats.classes.iter().map(|class| class.in_depot * class.size as u64).sum();
        assert_eq!(threads().len(), before, "there was no memory for a stack");
        assert!(stats.retained as u64 + depot <= (BOUND + 2 * MIB) as u64, "{depot} bytes in the depot\n{stats}");
        // A cache may pin a MiB, and the records are not for giving back.
        let allowed = base + BOUND + 3 * MIB + stats.records + stats.map;
        assert!(resident_bytes() <= allowed, "{} resident, {allowed} allowed\n{stats}", resident_bytes());
    })
    .well();
}

/// The sum of what `blocks` of `SMALL` take, as one swing.
fn swing_small(heap: &Stratalloc, blocks: &mut Vec<*mut u8>) {
    blocks.extend((0..blocks.capacity()).map(|_| allocate(heap, SMALL)));
    blocks.drain(..).for_each(|block| free(heap, block, SMALL));
}

/// Swings until the purger has looked five times, at least; how often, and how many pages were purged meanwhile.
fn swing_for_five_looks(heap: &Stratalloc, mut once: impl FnMut(&Stratalloc)) -> (u64, u64) {
    let (begun, mut cycles) = (Instant::now(), 0);
    once(heap);
    let before = Stratalloc::stats().runs.purged_pages;
    while begun.elapsed() < Duration::from_millis(1700) || cycles < 10 {
        once(heap);
        cycles += 1;
    }
    (cycles, Stratalloc::stats().runs.purged_pages - before)
}

/// Pages that one swing frees beyond the bound.
const BEYOND: u64 = ((LARGE.size() - BOUND) / 4096) as u64;

#[test]
fn g14_a_swing_costs_no_pages() {
    in_own_process(|| {
        let (cycles, purged) = swing_for_five_looks(&SOON, |heap| swing(heap, LARGE));
        // A process that gets no processor for as long as two looks take looks idle.
        assert!(purged <= BEYOND * cycles / 10, "{purged} pages in {cycles} swings");
    })
    .well();
}

#[test]
fn g14_a_swing_of_small_blocks_costs_no_pages() {
    in_own_process(|| {
        let mut blocks = Vec::with_capacity(LARGE.size() / 64);
        let (cycles, purged) = swing_for_five_looks(&SOON, |heap| swing_small(heap, &mut blocks));
        assert!(purged <= BEYOND * cycles / 10, "{purged} pages in {cycles} swings");
    })
    .well();
}

#[test]
fn g14_a_swing_costs_its_pages_if_they_go_at_the_free() {
    in_own_process(|| {
        let before = threads().len();
        let (cycles, purged) = swing_for_five_looks(&AT_FREE, |heap| swing(heap, LARGE));
        assert!(purged >= BEYOND * cycles, "{purged} pages in {cycles} swings");
        assert_eq!(threads().len(), before);
    })
    .well();
}

/// Blocks of `layout` that take 64 MiB in all.
fn sixty_four_mib(layout: Layout) -> Vec<*mut u8> {
    (0..64 * MIB / Stratalloc::usable_size(layout)).map(|_| allocate(&SOON, layout)).collect()
}

/// Allocates and frees by `swing` until that took so short that the purger, which looks after 150 ms and again after another 150, has sorted
/// nothing meanwhile.
fn free_soon(swing: &mut dyn FnMut()) {
    for _ in 0..20 {
        let begun = Instant::now();
        swing();
        if begun.elapsed() < Duration::from_millis(200) {
            return;
        }
    }
}

/// Bytes of blocks in the depot.
fn in_depot() -> usize {
    Stratalloc::stats().classes.iter().map(|class| class.in_depot as usize * class.size).sum()
}

#[test]
fn g3_lists_in_the_depot_are_used_before_the_heap_grows() {
    in_own_process(|| {
        let other = Layout::new::<[u64; 60]>();
        free_soon(&mut || sixty_four_mib(SMALL).into_iter().for_each(|block| free(&SOON, block, SMALL)));
        let before = Stratalloc::stats();
        assert!(in_depot() > 48 * MIB, "freed in order, lists are compact\n{before}");
        let blocks = sixty_four_mib(other);
        let after = Stratalloc::stats();
        assert!(after.mapped - before.mapped <= before.mapped / 8, "{before}\n{after}");
        blocks.into_iter().for_each(|block| free(&SOON, block, other));
    })
    .well();
}

#[test]
fn g3_collect_empties_the_depot() {
    in_own_process(|| {
        let mut blocks = Vec::with_capacity(64 * MIB / 64);
        swing_small(&SOON, &mut blocks);
        Stratalloc::collect();
        let base = resident_bytes();
        free_soon(&mut || swing_small(&SOON, &mut blocks));
        let freed = blocks.capacity() * Stratalloc::usable_size(SMALL);
        assert!(in_depot() > freed / 4 * 3 && resident_bytes() > base + freed / 4 * 3, "{}", Stratalloc::stats());
        // The purger may just have a list or a run in hand, which comes back by itself.
        wait_until("empty", || {
            Stratalloc::collect();
            let stats = Stratalloc::stats();
            (in_depot(), stats.retained, stats.active) == (0, 0, 0)
        });
        let stats = Stratalloc::stats();
        assert!(resident_bytes() <= base + MIB, "{} resident, {base} before\n{stats}", resident_bytes());
    })
    .well();
}

const PAGE: Layout = Layout::new::<[u8; 4096]>();

#[test]
fn g1_short_runs_come_back_from_their_depot() {
    in_own_process(|| {
        let before = threads().len();
        sixty_four_mib(PAGE).into_iter().for_each(|run| free(&SOON, run, PAGE));
        let freed = Stratalloc::stats();
        let runs = sixty_four_mib(PAGE);
        let again = Stratalloc::stats();
        assert_eq!(again.mapped, freed.mapped, "{freed}\n{again}");
        let taken = again.runs.allocs - freed.runs.allocs;
        assert!(taken < runs.len() as u64 / 16, "{taken} of {} came from the runs", runs.len());
        assert!(freed.runs.frees < runs.len() as u64 / 16, "{freed}");
        let base = resident_bytes();
        runs.into_iter().for_each(|run| free(&SOON, run, PAGE));
        wait_until_kept(before);
        assert!(resident_bytes() + 48 * MIB < base, "{} resident, {base} before", resident_bytes());
    })
    .well();
}

#[test]
fn g5_short_runs_merge_before_the_heap_grows() {
    in_own_process(|| {
        let long = Layout::new::<[u8; MIB]>();
        sixty_four_mib(PAGE).into_iter().for_each(|run| free(&SOON, run, PAGE));
        let before = Stratalloc::stats();
        let blocks = sixty_four_mib(long);
        let after = Stratalloc::stats();
        assert!(after.mapped - before.mapped <= before.mapped / 8, "{before}\n{after}");
        blocks.into_iter().for_each(|block| free(&SOON, block, long));
    })
    .well();
}

#[test]
fn g14_idle_pages_of_slabs_go_before_the_heap_grows() {
    in_own_process(|| {
        let (held, other) = (Layout::new::<[u64; 64]>(), Layout::new::<[u64; 30]>());
        let base = resident_bytes();
        let (mut kept, mut freed) = (Vec::new(), Vec::new());
        // One block of each 16 KiB stays: its slab does, too, and three of four pages are idle.
        for (at, block) in sixty_four_mib(held).into_iter().enumerate() {
            if at % 32 == 0 { kept.push(block) } else { freed.push(block) }
        }
        freed.into_iter().for_each(|block| free(&SOON, block, held));
        let blocks = sixty_four_mib(other);
        let grown = resident_bytes() - base;
        assert!(grown < 110 * MIB, "{} MiB resident for 80 in use\n{}", grown / MIB, Stratalloc::stats());
        blocks.into_iter().for_each(|block| free(&SOON, block, other));
        kept.into_iter().for_each(|block| free(&SOON, block, held));
    })
    .well();
}

const BLOCKS: usize = 1 << 18;

/// Live blocks, in memory that is resident from the start.
struct Live {
    blocks: Vec<(usize, usize)>,
    pages: Vec<usize>,
    base: usize,
}

impl Live {
    fn new() -> Self {
        let (mut blocks, mut pages) = (vec![(1, 1); BLOCKS], vec![1; 4 * BLOCKS]);
        blocks.clear();
        pages.clear();
        Self { blocks, pages, base: resident_bytes() }
    }

    /// Allocates blocks of 16 B to 4 KiB until their sizes add up to `bytes`.
    fn build(&mut self, bytes: usize, random: &mut Random) {
        let mut sum = 0;
        while sum < bytes {
            let power = 4 + random.below(9);
            let size = 16 + random.below(1 << power);
            let block = allocate(&AT_FREE_SMALL_PAGES, Layout::from_size_align(size, 8).expect("a layout"));
            self.blocks.push((block as usize, size));
            sum += size;
        }
    }

    fn free_random(&mut self, percent: usize, random: &mut Random) {
        for _ in 0..self.blocks.len() * percent / 100 {
            let (at, size) = self.blocks.swap_remove(random.below(self.blocks.len()));
            free(&AT_FREE_SMALL_PAGES, at as *mut u8, Layout::from_size_align(size, 8).expect("a layout"));
        }
    }

    fn free_in_order(&mut self, percent: usize) {
        let gone = self.blocks.len() * percent / 100;
        for (at, size) in self.blocks.drain(..gone) {
            free(&AT_FREE_SMALL_PAGES, at as *mut u8, Layout::from_size_align(size, 8).expect("a layout"));
        }
    }

    /// Pages that hold a byte of a live block.
    fn held_pages(&mut self) -> usize {
        self.pages.clear();
        let all = self.blocks.iter().flat_map(|(at, size)| at >> 12..=(at + size - 1) >> 12);
        self.pages.extend(all);
        self.pages.sort_unstable();
        self.pages.chunk_by(|a, b| a == b).count()
    }

    /// Asserts that the bound is kept, at once.
    fn check(&mut self, phase: &str) {
        let resident = (resident_bytes() - self.base) >> 12;
        let (pages, live) = (self.held_pages(), self.blocks.iter().map(|(_, size)| size).sum::<usize>());
        let stats = Stratalloc::stats();
        // Live bytes' pages, 2 MiB and 1 MiB a thread pinned by caches and depot, free pages retained, records.
        let bound = pages + (3 << 20 >> 12) + (BOUND.max(live / 8) >> 12) + ((stats.records + stats.map) >> 12);
        assert!(resident <= bound, "{phase}: {resident} pages resident, {bound} allowed\n{stats}");
        assert_eq!(threads().len(), 2, "this and the harness's");
    }
}

#[test]
fn g14_at_free_memory_comes_back_at_once_and_without_a_thread() {
    in_own_process(|| {
        let (mut live, mut random) = (Live::new(), Random::new(3));
        live.build(64 << 20, &mut random);
        live.free_random(90, &mut random);
        live.check("random");
        live.free_random(100, &mut random);
        live.check("all");
        live.build(64 << 20, &mut random);
        live.free_in_order(90);
        live.check("in order");
        live.free_random(100, &mut random);
        live.check("all again");
    })
    .well();
}

/// Loads the library, calls `function` in it from a thread that ends, and unloads it, so that no thread of the program's
/// keeps it.
fn load_call_unload(path: &CString, function: &'static std::ffi::CStr) {
    let (library, call) = load(path, function);
    std::thread::spawn(move || call()).join().expect("the thread ends well");
    // SAFETY: loaded above, and nothing of it is used any more, but by its purger.
    assert_eq!(unsafe { libc::dlclose(library) }, 0);
}

/// Loads the library; what `dlclose` wants to have, and `function` in it.
fn load(path: &CString, function: &'static std::ffi::CStr) -> (*mut libc::c_void, extern "C" fn()) {
    // SAFETY: the library is ours, and its beginning does nothing of its own.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    assert!(!library.is_null());
    // SAFETY: the library is loaded, and the name a text.
    let symbol = unsafe { libc::dlsym(library, function.as_ptr()) };
    assert!(!symbol.is_null());
    // SAFETY: the functions of the libraries are of this type.
    (library, unsafe { std::mem::transmute::<*mut libc::c_void, extern "C" fn()>(symbol) })
}

/// A copy of a library, which the loader takes for another one.
fn unloadable(library: &str, copy: usize) -> CString {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let to = folder.join(format!("{}-{copy}-{library}", std::process::id()));
    std::fs::copy(example::path(library), &to).expect("a copy");
    CString::new(to.to_string_lossy().as_bytes()).expect("a path")
}

fn remove(path: &CString) {
    std::fs::remove_file(path.to_str().expect("text")).expect("it is there");
}

#[test]
fn g14_a_library_goes_while_its_purger_sleeps() {
    in_own_process(|| {
        let (path, before) = (unloadable("libunloaded.so", 0), threads().len());
        load_call_unload(&path, c"swing");
        // (The thread that called has been waited for, and may still be counted for a moment.)
        wait_until("but for its purger", || threads().len() == before + 1);
        wait_until("alone", || threads().len() <= before);
        remove(&path);
    })
    .well();
}

/// Here the purger is summoned by the last thing that the thread does in the library, and has hardly begun.
#[test]
fn g14_a_library_goes_while_its_purger_begins() {
    in_own_process(|| {
        let before = threads().len();
        for copy in 0..20 {
            let path = unloadable("libunloaded.so", copy);
            load_call_unload(&path, c"swing_at_the_threads_end");
            remove(&path);
        }
        wait_until("alone", || threads().len() <= before);
    })
    .well();
}

/// Threads have caches in a library that is unloaded, and end afterwards.
fn unload_below_threads(library: &str) {
    for copy in 0..20 {
        let path = unloadable(library, copy);
        let (handle, call) = load(&path, c"swing");
        let (used, wait) = (std::sync::Barrier::new(4), std::sync::Barrier::new(4));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    call();
                    used.wait();
                    wait.wait();
                });
            }
            used.wait();
            // SAFETY: loaded above; nothing of it is called any more, but what its threads' ends call.
            assert_eq!(unsafe { libc::dlclose(handle) }, 0);
            wait.wait();
        });
        remove(&path);
    }
}

#[test]
fn g11_a_library_goes_while_threads_that_used_it_live() {
    in_own_process(|| unload_below_threads("libunloaded.so")).well();
}

#[test]
fn g11_a_library_without_a_purger_goes_while_threads_that_used_it_live() {
    in_own_process(|| {
        unload_below_threads("libunloaded_at_free.so");
        // It has really gone.
        let path = unloadable("libunloaded_at_free.so", 20);
        load_call_unload(&path, c"swing");
        let maps = std::fs::read_to_string("/proc/self/maps").expect("the mappings");
        assert!(!maps.contains(path.to_str().expect("text")), "the library is still there");
        remove(&path);
    })
    .well();
}
