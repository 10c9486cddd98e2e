//! Rows S: heaps that processes share. Each process is this program again, told by the environment what to do.

#[path = "shared/damage.rs"]
mod damage;
#[path = "common/damaged.rs"]
mod damaged;
#[path = "shared/disk.rs"]
mod disk;
#[path = "common/opened.rs"]
mod opened;
#[path = "common/own_process.rs"]
mod own_process;
#[path = "common/place.rs"]
mod place;
#[path = "common/random.rs"]
mod random;
#[path = "common/skipped.rs"]
mod skipped;

use allocator_api2::alloc::Allocator;
use allocator_api2::vec::Vec as VecIn;
use damage::in_orderly_child;
use opened::opened;
use own_process::in_own_process;
use place::Place;
use skipped::skipped;
use std::alloc::Layout;
use std::env;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;
use stratalloc::{Scheme, SharedConfig, SharedError, SharedHeap};

/// The name of the test that calls.
fn this_test() -> String {
    std::thread::current().name().expect("the harness names a test's thread after it").to_owned()
}

/// This program again, which is to run the calling test as a child, with the heap at `place`.
fn again(place: &Path) -> Command {
    let mut command = Command::new(env::current_exe().expect("the program's name"));
    command.args(["--exact", &this_test(), "--nocapture"]).env("SHARED_CHILD", place);
    command
}

/// Starts this program again, for it to run the calling test as a child, with the heap at `place`.
fn child(place: &Place) -> Child {
    let mut command = again(&place.0);
    // What its harness counts is no test of its own; what is wrong is said on the standard error.
    command.stdout(Stdio::null());
    command.spawn().expect("a child")
}

/// The path that a child is to use; `None` in the first process.
fn as_child() -> Option<PathBuf> {
    env::var_os("SHARED_CHILD").map(PathBuf::from)
}

fn end(mut child: Child) {
    assert!(child.wait().expect("a status").success());
}

const SMALL: SharedConfig = SharedConfig::new().max_size(64 << 20);

/// A small heap, with the locking scheme that the environment asks for: so the whole suite runs with each.
fn small() -> SharedConfig {
    match env::var("SHARED_SCHEME").as_deref() {
        Ok("semaphores") => SMALL.scheme(Scheme::Semaphores),
        Ok("file-locks") => SMALL.scheme(Scheme::FileLocks),
        Ok("spin") => SMALL.scheme(Scheme::Spin),
        Ok(other) => panic!("SHARED_SCHEME is {other}; it may be semaphores, file-locks or spin"),
        Err(_) => SMALL,
    }
}

fn open(path: &Path) -> SharedHeap {
    // One that is there has its own.
    let config = if path.exists() { SMALL } else { small() };
    opened(path, config, |_| {})
}

#[test]
fn s1_one_of_many_processes_makes_the_heap_and_all_have_it_at_one_address() {
    #[repr(C)]
    struct Root {
        inits: AtomicU64,
        opened: AtomicU64,
        at: AtomicU64,
    }
    let join = |path: &Path| {
        let heap = opened(path, small(), |heap| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            let root = heap.allocate_zeroed(Layout::new::<Root>()).expect("memory").cast::<Root>();
            // SAFETY: zeroed, and large enough.
            unsafe { root.as_ref() }.inits.fetch_add(1, SeqCst);
            heap.set_global(root.as_ptr());
        });
        // SAFETY: whoever made the heap set it.
        let root = unsafe { heap.global_ptr::<Root>().as_ref() }.expect("a root");
        root.opened.fetch_add(1, SeqCst);
        let at = heap.span().at as u64;
        let first = root.at.compare_exchange(0, at, SeqCst, SeqCst).unwrap_or_else(|first| first);
        assert!(first == 0 || first == at);
        (root.inits.load(SeqCst), root.opened.load(SeqCst))
    };
    if let Some(path) = as_child() {
        assert_eq!(join(&path).0, 1);
        return;
    }
    let place = Place::new("s1");
    let children: Vec<Child> = (0..16).map(|_| child(&place)).collect();
    children.into_iter().for_each(end);
    assert_eq!(join(&place.0), (1, 17));
}

#[test]
fn s5_what_is_in_a_heap_stays_when_all_have_left() {
    let extend = |path: &Path, turn: u64| {
        let heap = open(path);
        let mut list = VecIn::new_in(&heap);
        list.extend((0..1000).map(|n| n * turn));
        let before = heap.global_ptr::<u64>();
        list.push(before as u64);
        heap.set_global(list.leak().as_ptr());
    };
    if let Some(path) = as_child() {
        extend(&path, 2);
        return;
    }
    let place = Place::new("s5");
    extend(&place.0, 1);
    end(child(&place));
    extend(&place.0, 3);
    let heap = open(&place.0);
    let mut at = heap.global_ptr::<u64>();
    for turn in [3, 2, 1] {
        // SAFETY: written above, by whatever process.
        let list = unsafe { std::slice::from_raw_parts(at, 1001) };
        assert!((0..1000).all(|n| list[n as usize] == n * turn));
        at = list[1000] as *mut u64;
    }
    assert!(at.is_null());
    heap.check().expect("a sound heap");
}

#[test]
fn s13_a_hunting_and_a_plain_process_refuse_each_other() {
    let place = Place::new("s13-kind");
    drop(open(&place.0));
    let file = fs::OpenOptions::new().read(true).write(true).open(&place.0).expect("the file");
    // Behind the magic: version, sizes of a word and a page, classes; then whether blocks are guarded.
    let mut hunts = [0; 4];
    file.read_exact_at(&mut hunts, 24).expect("a header");
    assert_eq!(hunts, u32::from(cfg!(feature = "malloc-debug")).to_ne_bytes());
    file.write_all_at(&(1 - u32::from_ne_bytes(hunts)).to_ne_bytes(), 24).expect("written");
    let error = SharedHeap::open(&place.0, SMALL, |_| {}).expect_err("it is of the other kind");
    assert!(error.to_string().contains("hunter (feature malloc-debug, 1 for yes)"), "{error}");
}

/// Runs the calling test as two children, one after the other; what the second says, which must end by a report.
#[cfg(feature = "malloc-debug")]
fn report_of_second(place: &Place) -> String {
    let run = |role: &str| again(&place.0).env("SHARED_ROLE", role).output().expect("a child");
    let first = run("first");
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let second = run("second");
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && text.starts_with("stratalloc: "), "{text}");
    text
}

#[cfg(feature = "malloc-debug")]
#[test]
fn s13_what_one_process_did_to_a_block_is_told_by_the_one_that_frees_it() {
    let Some(path) = as_child() else {
        let place = Place::new("s13-overrun");
        let text = report_of_second(&place);
        assert!(text.lines().next().expect("a line").contains("overflow"), "{text}");
        assert!(text.contains("was allocated with size 100 ") && text.contains("by another process"), "{text}");
        return;
    };
    let heap = open(&path);
    if env::var("SHARED_ROLE").as_deref() == Ok("first") {
        let block = heap.malloc(100);
        // SAFETY: none: that is the error.
        unsafe { block.wrapping_add(100).write(1) };
        heap.set_global(block);
        let found = heap.check().is_err();
        // Past the look at all blocks with which a process ends.
        // SAFETY: no preconditions.
        unsafe { libc::_exit(i32::from(!found)) };
    }
    // SAFETY: the other process's block.
    unsafe { heap.free(heap.global_ptr::<u8>()) };
}

#[cfg(feature = "malloc-debug")]
#[test]
fn s13_a_block_is_freed_once_by_whatever_process() {
    let Some(path) = as_child() else {
        let text = report_of_second(&Place::new("s13-twice"));
        assert!(text.lines().next().expect("a line").contains("double free"), "{text}");
        return;
    };
    let heap = open(&path);
    if env::var("SHARED_ROLE").as_deref() == Ok("first") {
        let block = heap.malloc(100);
        heap.set_global(block);
        // SAFETY: ours.
        unsafe { heap.free(block) };
        return;
    }
    // SAFETY: none: that is the error.
    unsafe { heap.free(heap.global_ptr::<u8>()) };
}

#[cfg(feature = "malloc-debug")]
#[test]
fn s13_a_layout_that_is_not_the_blocks_is_told() {
    let Some(path) = as_child() else {
        let text = report_of_second(&Place::new("s13-layout"));
        assert!(text.contains("size 90 ") && text.contains("size 100 "), "{text}");
        return;
    };
    let heap = open(&path);
    if env::var("SHARED_ROLE").as_deref() == Ok("first") {
        let block = heap.allocate(Layout::new::<[u8; 100]>()).expect("memory");
        heap.set_global(block.cast::<u8>().as_ptr());
        return;
    }
    let block = std::ptr::NonNull::new(heap.global_ptr::<u8>()).expect("a block");
    // SAFETY: none: that is the error.
    unsafe { heap.deallocate(block, Layout::new::<[u8; 90]>()) };
}

#[test]
fn s12_a_file_of_a_network_is_refused_unless_the_caller_insists() {
    if let Some(path) = as_child() {
        let error = SharedHeap::open(&path, SMALL, |_| {}).expect_err("other machines may have it open");
        assert_eq!(error, SharedError::Network);
        assert!(error.to_string().contains("SharedConfig::network"), "{error}");
        assert!(SharedHeap::open(&path, SMALL.network(), |_| {}).is_ok());
        return;
    }
    // A library that tells the program of another file system, for each kind that there is.
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (source, library) = (folder.join("statfs.c"), folder.join("libstatfs.so"));
    let text = "#include <stdlib.h>\n#include <string.h>\n#include <sys/vfs.h>\n\
                static int tell(struct statfs *found) {\n\
                memset(found, 0, sizeof *found); found->f_type = strtol(getenv(\"FILE_SYSTEM\"), 0, 16); return 0; }\n\
                int fstatfs(int file, struct statfs *found) { (void)file; return tell(found); }\n\
                int fstatfs64(int file, struct statfs64 *found) { (void)file; return tell((struct statfs *)found); }\n";
    fs::write(&source, text).expect("written");
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-D_GNU_SOURCE", "-o"]).arg(&library).arg(&source).status();
    if !built.is_ok_and(|status| status.success()) {
        skipped("a file of a network: there is no C compiler");
        return;
    }
    for kind in
        ["6969", "517b", "fe534d42", "ff534d42", "5346414f", "73757245", "c36400", "1021997", "bd00bd0", "1161970"]
    {
        let place = Place::new(&format!("s12-{kind}"));
        let mut command = again(&place.0);
        command.env("LD_PRELOAD", &library).env("FILE_SYSTEM", kind).stdout(Stdio::null());
        assert!(command.status().expect("a status").success(), "{kind}");
    }
}

/// The names of a program's mappings, as the system tells them.
fn maps() -> String {
    fs::read_to_string("/proc/self/maps").expect("the system tells mappings")
}

#[test]
fn s1_a_maker_that_dies_is_replaced() {
    if let Some(path) = as_child() {
        let dies = |heap: &SharedHeap| {
            let block = heap.allocate(Layout::new::<[u64; 100]>()).expect("memory");
            heap.set_global(block.as_ptr().cast::<u8>());
            std::process::abort();
        };
        let _ = SharedHeap::open(&path, SMALL, dies);
        unreachable!("it ends in the middle");
    }
    let place = Place::new("s1-dies");
    let status = child(&place).wait().expect("a status");
    assert!(!status.success());
    let mut ran = false;
    let heap = SharedHeap::open(&place.0, SMALL, |heap| ran = heap.global_ptr::<u8>().is_null()).expect("a heap");
    assert!(ran && heap.global_ptr::<u8>().is_null());
    heap.check().expect("a sound heap");
}

/// Blocks that processes exchange.
const SLOTS: usize = 64;

fn bartered(seed: u64) -> Layout {
    Layout::from_size_align([8, 24, 100, 700, 3000, 9000, 70_000][seed as usize % 7], 8).expect("a layout")
}

/// Takes what is in a slot, checks and frees it, and puts a block of its own there.
fn exchange(heap: &SharedHeap, slot: &AtomicU64, seed: u64) {
    let size = bartered(seed).size();
    let fresh = heap.allocate(bartered(seed)).expect("memory").cast::<u8>();
    // SAFETY: ours, and so large.
    let bytes = unsafe { std::slice::from_raw_parts_mut(fresh.as_ptr(), size) };
    bytes.fill(seed as u8);
    bytes[..8].copy_from_slice(&seed.to_ne_bytes());
    let Some(old) = std::ptr::NonNull::new(slot.swap(fresh.as_ptr() as u64, SeqCst) as *mut u8) else { return };
    // SAFETY: whoever put it there wrote its seed first.
    let seed = unsafe { old.cast::<u64>().read() };
    // SAFETY: the layout that it was allocated with.
    let bytes = unsafe { std::slice::from_raw_parts(old.as_ptr(), bartered(seed).size()) };
    assert!(bytes[8..].iter().all(|byte| *byte == seed as u8), "a block was written over");
    // SAFETY: nobody else has it any more.
    unsafe { heap.deallocate(old, bartered(seed)) };
}

/// Exchanges blocks with other processes, in two threads.
fn barter(path: &Path, rounds: u64) {
    let heap = opened(path, small(), |heap| {
        let slots = heap.allocate_zeroed(Layout::new::<[AtomicU64; SLOTS]>()).expect("memory");
        heap.set_global(slots.as_ptr().cast::<AtomicU64>());
    });
    // SAFETY: whoever made the heap set it.
    let slots = unsafe { heap.global::<[AtomicU64; SLOTS]>() }.expect("a root");
    std::thread::scope(|scope| {
        for thread in 0..2_u64 {
            let heap = &heap;
            scope.spawn(move || {
                let mut seed = u64::from(std::process::id()) * 7919 + thread;
                for _ in 0..rounds {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    exchange(heap, &slots[(seed >> 32) as usize % SLOTS], seed >> 16);
                }
            });
        }
    });
    heap.check().expect("a sound heap");
}

/// So many processes exchange blocks, so often; then all is put right.
fn barter_with(processes: usize, rounds: u64) {
    if let Some(path) = as_child() {
        return barter(&path, rounds);
    }
    let place = Place::new(&format!("s2-{processes}"));
    let children: Vec<Child> = (1..processes).map(|_| child(&place)).collect();
    barter(&place.0, rounds);
    children.into_iter().for_each(end);
    let heap = open(&place.0);
    heap.check().expect("a sound heap");
    assert_eq!(heap.stats().threads, 0, "all who have left gave their seats back");
}

#[test]
fn s2_blocks_are_freed_by_other_processes_than_those_that_made_them() {
    barter_with(4, 20_000);
}

#[test]
fn s2_sixty_four_processes_are_in_one_heap() {
    barter_with(64, 500);
}

#[test]
fn s2_blocks_have_no_layout_where_nobody_has_one() {
    let place = Place::new("s2-raw");
    let heap = open(&place.0);
    for size in [0, 1, 8, 24, 100, 2048, 2049, 5000, 70_000, 3_000_000] {
        let block = heap.malloc(size);
        assert!(!block.is_null() && (block as usize).is_multiple_of(if size < 16 { 8 } else { 16 }));
        // SAFETY: live.
        let usable = unsafe { heap.usable_size(block) };
        assert!(usable >= size);
        // SAFETY: ours, and so large.
        unsafe { block.write_bytes(7, usable) };
        // SAFETY: live.
        let grown = unsafe { heap.realloc(block, 2 * size + 100) };
        // SAFETY: ours, and so large.
        assert!(unsafe { std::slice::from_raw_parts(grown, size) }.iter().all(|byte| *byte == 7));
        // SAFETY: live; with no byte left it is freed.
        assert!(unsafe { heap.realloc(grown, 0) }.is_null());
        let zeroed = heap.calloc(size, 3);
        // SAFETY: ours, and so large.
        assert!(unsafe { std::slice::from_raw_parts(zeroed, 3 * size) }.iter().all(|byte| *byte == 0));
        // SAFETY: live.
        unsafe { heap.free(zeroed) };
    }
    for align in [8, 64, 4096, 1 << 16, 1 << 21] {
        let block = heap.memalign(align, 100);
        assert!(!block.is_null() && (block as usize).is_multiple_of(align));
        // SAFETY: live.
        unsafe { heap.free(block) };
    }
    assert!(
        heap.calloc(usize::MAX, 2).is_null() && heap.malloc(usize::MAX).is_null() && heap.memalign(48, 8).is_null()
    );
    // SAFETY: nothing is freed.
    unsafe { heap.free(std::ptr::null_mut()) };
    // SAFETY: as above.
    assert_eq!(unsafe { heap.usable_size(std::ptr::null()) }, 0);
    heap.check().expect("a sound heap");
}

#[test]
fn s6_a_heap_is_opened_with_its_own_scheme_alone() {
    let all = [Scheme::RobustMutex, Scheme::Semaphores, Scheme::FileLocks, Scheme::Spin];
    for made in all {
        let place = Place::new("s6");
        let heap = SharedHeap::open(&place.0, SMALL.scheme(made), |_| {}).expect("a heap");
        assert_eq!(heap.scheme(), made);
        let block = heap.allocate(Layout::new::<[u64; 100]>()).expect("memory");
        heap.set_global(block.as_ptr().cast::<u64>());
        drop(heap);
        for asked in all.into_iter().filter(|asked| *asked != made) {
            let error = SharedHeap::open(&place.0, SMALL.scheme(asked), |_| {}).expect_err("it has another scheme");
            let text = error.to_string();
            assert!(text.contains(made.name()) && text.contains(asked.name()), "{text}");
        }
        let heap = open(&place.0);
        assert_eq!(heap.scheme(), made, "whoever asks for none gets its own");
        heap.check().expect("a sound heap");
        heap.destroy().expect("the file goes");
    }
}

#[test]
fn s6_semaphores_go_with_their_heap() {
    let sets = || fs::read_to_string("/proc/sysvipc/sem").expect("the system tells them").lines().count();
    let place = Place::new("s6-semaphores");
    let config = SMALL.scheme(Scheme::Semaphores);
    let comes_back = || {
        let before = sets();
        for _ in 0..3 {
            let heap = opened(&place.0, config, |_| {});
            assert!(heap.allocate(Layout::new::<u64>()).is_ok());
            drop(heap);
        }
        opened(&place.0, config, |_| {}).destroy().expect("the file goes");
        sets() <= before
    };
    // All programs of the system are counted: others may make a set meanwhile, but not each time.
    let is_back = (0..50).any(|_| {
        comes_back() || {
            std::thread::sleep(Duration::from_millis(20));
            false
        }
    });
    assert!(is_back, "the set goes with the heap");
}

#[test]
fn s3_who_leaves_gives_back_and_unmaps_and_the_others_go_on() {
    let place = Place::new("s3");
    let name = place.0.to_string_lossy().into_owned();
    let heap = open(&place.0);
    assert!(heap.allocate(Layout::new::<[u8; 100]>()).is_ok());
    assert!(maps().contains(&name) && heap.stats().threads == 1);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| assert!(heap.allocate(Layout::new::<u64>()).is_ok() && heap.stats().threads == 2));
        // Its seat goes with the thread, not with what it runs.
        thread.join().expect("a thread");
    });
    assert_eq!(heap.stats().threads, 1, "a thread that ends leaves its seat");
    drop(heap);
    assert!(!maps().contains(&name));
    open(&place.0).destroy().expect("the file goes");
    assert!(!place.0.exists() && !maps().contains(&name));
}

#[test]
fn s3_a_forked_child_goes_on_with_seats_of_its_own() {
    let place = Place::new("s3-fork");
    let heap = open(&place.0);
    let layout = Layout::new::<[u64; 8]>();
    let blocks = || (0..2000).map(|_| heap.allocate(layout).expect("memory").cast::<u64>()).collect::<Vec<_>>();
    drop(blocks());
    // SAFETY: the child allocates, which is the promise under test, and ends.
    let process = unsafe { libc::fork() };
    let mine = blocks();
    let seed = u64::from(process == 0) + 1;
    // SAFETY: ours.
    mine.iter().for_each(|block| unsafe { block.write(seed) });
    std::thread::sleep(std::time::Duration::from_millis(50));
    // SAFETY: as above.
    let is_whole = mine.iter().all(|block| unsafe { block.read() } == seed);
    // SAFETY: allocated above for the layout.
    mine.into_iter().for_each(|block| unsafe { heap.deallocate(block.cast(), layout) });
    if process == 0 {
        drop(heap);
        // SAFETY: no preconditions.
        unsafe { libc::_exit(i32::from(!is_whole)) };
    }
    let mut status = 0;
    // SAFETY: the child is ours.
    assert_eq!(unsafe { libc::waitpid(process, &raw mut status, 0) }, process);
    assert!(is_whole && status == 0, "{status:x}");
    heap.check().expect("a sound heap");
}

#[test]
fn s4_there_is_one_root_null_at_first() {
    let place = Place::new("s4");
    let heap = open(&place.0);
    assert!(heap.global_ptr::<u64>().is_null());
    let block = heap.allocate(Layout::new::<u64>()).expect("memory").cast::<u64>();
    heap.set_global(block.as_ptr());
    assert_eq!(heap.global_ptr::<u64>(), block.as_ptr());
    drop(heap);
    let heap = open(&place.0);
    assert_eq!(heap.global_ptr::<u64>(), block.as_ptr());
    heap.set_global(std::ptr::null::<u64>());
    assert!(heap.global_ptr::<u64>().is_null());
}

/// In a process of its own: at the address it asks for, another test might have a heap.
#[test]
fn s7_several_heaps_at_once_and_never_over_something_mapped() {
    in_own_process(several_heaps).well();
}

fn several_heaps() {
    let places: Vec<Place> = (0..8).map(|number| Place::new(&format!("s7-{number}"))).collect();
    let heaps: Vec<SharedHeap> = places.iter().map(|place| open(&place.0)).collect();
    for (number, heap) in heaps.iter().enumerate() {
        let block = heap.allocate(Layout::new::<usize>()).expect("memory").cast::<usize>();
        // SAFETY: ours.
        unsafe { block.write(number) };
        heap.set_global(block.as_ptr());
    }
    for (number, heap) in heaps.iter().enumerate() {
        let (root, span) = (heap.global_ptr::<usize>(), heap.span());
        assert!((span.at..span.at + span.bytes).contains(&(root as usize)) && span.at >= 0x2000_0000_0000);
        // SAFETY: written above.
        assert_eq!(unsafe { root.read() }, number);
    }
    let again = SharedHeap::open(&places[0].0, SMALL, |_| {}).expect_err("it is mapped already");
    assert!(matches!(again, SharedError::Taken { span, .. } if span == heaps[0].span()));
    let place = Place::new("s7-given");
    // None of those above has it.
    let is_free = |at: &usize| heaps.iter().all(|heap| heap.span().at != *at);
    let at = (0x3000_0000_0000..).step_by(1 << 30).find(is_free).expect("an address");
    let given = SharedHeap::open(&place.0, SMALL.address(at), |_| {}).expect("a heap");
    assert_eq!(given.span().at, at);
    for wrong in [0, 0x1000, 0x1000_0000_0000, 0x2000_0000_1000, 0x4000_0000_0000] {
        let place = Place::new("s7-wrong");
        let error = SharedHeap::open(&place.0, SMALL.address(wrong), |_| {}).expect_err("no heap may lie there");
        assert!(error.to_string().contains("a multiple of 1 GiB"), "{error}");
    }
}

#[test]
fn s3_a_child_without_room_for_a_file_is_no_guest() {
    let place = Place::new("s3-files");
    let heap = open(&place.0);
    let ours = heap.malloc(100);
    // SAFETY: ours, and so large.
    unsafe { ours.write_bytes(7, 100) };
    let limit = |now: libc::rlim_t| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the limit is there to be written.
        unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
        let before = std::mem::replace(&mut limit.rlim_cur, now);
        // SAFETY: the limit is there to be read.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
        before
    };
    if as_child().is_none() {
        // In a process of its own: no other test can open a file meanwhile.
        end(child(&place));
    } else {
        let before = limit(0);
        in_orderly_child(&"no room for files", || {
            assert!(heap.malloc(100).is_null() && heap.register_child().is_err(), "its parent lives, and is no other");
        });
        limit(before);
    }
    assert_eq!(heap.stats().threads, 1);
    heap.check().expect("a sound heap");
    // SAFETY: live.
    unsafe { heap.free(ours) };
}
