//! Rows S: heaps that processes share. Each process is this program again, told by the environment what to do.

#![expect(clippy::disallowed_macros, reason = "what is skipped is said")]

use allocator_api2::alloc::Allocator;
use allocator_api2::vec::Vec as VecIn;
use std::alloc::Layout;
use std::env;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;
use stratalloc::{SharedConfig, SharedError, SharedHeap};

/// A path of a test's own, for a file that goes when this is dropped.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let folder = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { env::temp_dir() };
        let path = folder.join(format!("stratalloc-{name}-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        Self(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Starts this program again, for it to run the test `name` as a child, with the heap at `place`.
fn child(name: &str, place: &Place) -> Child {
    let program = env::current_exe().expect("the program's name");
    let mut command = Command::new(program);
    command.args(["--exact", name, "--nocapture"]).env("SHARED_CHILD", &place.0);
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

fn open(path: &Path) -> SharedHeap {
    SharedHeap::open(path, SMALL, |_| {}).expect("a heap")
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
        let heap = SharedHeap::open(path, SMALL, |heap| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            let root = heap.allocate_zeroed(Layout::new::<Root>()).expect("memory").cast::<Root>();
            // SAFETY: zeroed, and large enough.
            unsafe { root.as_ref() }.inits.fetch_add(1, SeqCst);
            heap.set_global(root.as_ptr());
        })
        .expect("a heap");
        // SAFETY: whoever made the heap set it.
        let root = unsafe { heap.global::<Root>().as_ref() }.expect("a root");
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
    let name = "s1_one_of_many_processes_makes_the_heap_and_all_have_it_at_one_address";
    let children: Vec<Child> = (0..16).map(|_| child(name, &place)).collect();
    children.into_iter().for_each(end);
    assert_eq!(join(&place.0), (1, 17));
}

#[test]
fn s5_what_is_in_a_heap_stays_when_all_have_left() {
    let extend = |path: &Path, turn: u64| {
        let heap = open(path);
        let mut list = VecIn::new_in(&heap);
        list.extend((0..1000).map(|n| n * turn));
        let before = heap.global::<u64>();
        list.push(before as u64);
        heap.set_global(list.leak().as_ptr());
    };
    if let Some(path) = as_child() {
        extend(&path, 2);
        return;
    }
    let place = Place::new("s5");
    extend(&place.0, 1);
    end(child("s5_what_is_in_a_heap_stays_when_all_have_left", &place));
    extend(&place.0, 3);
    let heap = open(&place.0);
    let mut at = heap.global::<u64>();
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
fn s9_what_is_no_heap_is_refused_and_stays_as_it_is() {
    let place = Place::new("s9");
    fs::write(&place.0, b"something else").expect("a file");
    assert_eq!(SharedHeap::open(&place.0, SMALL, |_| {}).err(), Some(SharedError::NotAHeap));
    assert_eq!(fs::read(&place.0).expect("the file"), b"something else");
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
    let status = child("s1_a_maker_that_dies_is_replaced", &place).wait().expect("a status");
    assert!(!status.success());
    let mut ran = false;
    let heap = SharedHeap::open(&place.0, SMALL, |heap| ran = heap.global::<u8>().is_null()).expect("a heap");
    assert!(ran && heap.global::<u8>().is_null());
    heap.check().expect("a sound heap");
}

#[test]
fn s2_blocks_are_freed_by_other_processes_than_those_that_made_them() {
    const SLOTS: usize = 64;
    const ROUNDS: u64 = 20_000;
    let layout = |seed: u64| {
        Layout::from_size_align([8, 24, 100, 700, 3000, 9000, 70_000][seed as usize % 7], 8).expect("a layout")
    };
    /// Takes what is in a slot, checks and frees it, and puts a block of its own there.
    fn exchange(heap: &SharedHeap, slot: &AtomicU64, seed: u64, layout: impl Fn(u64) -> Layout) {
        let size = layout(seed).size();
        let fresh = heap.allocate(layout(seed)).expect("memory").cast::<u8>();
        // SAFETY: ours, and so large.
        let bytes = unsafe { std::slice::from_raw_parts_mut(fresh.as_ptr(), size) };
        bytes.fill(seed as u8);
        bytes[..8].copy_from_slice(&seed.to_ne_bytes());
        let Some(old) = std::ptr::NonNull::new(slot.swap(fresh.as_ptr() as u64, SeqCst) as *mut u8) else { return };
        // SAFETY: whoever put it there wrote its seed first.
        let seed = unsafe { old.cast::<u64>().read() };
        // SAFETY: the layout that it was allocated with.
        let bytes = unsafe { std::slice::from_raw_parts(old.as_ptr(), layout(seed).size()) };
        assert!(bytes[8..].iter().all(|byte| *byte == seed as u8), "a block was written over");
        // SAFETY: nobody else has it any more.
        unsafe { heap.deallocate(old, layout(seed)) };
    }
    let work = |path: &Path| {
        let heap = SharedHeap::open(path, SMALL, |heap| {
            let slots = heap.allocate_zeroed(Layout::new::<[AtomicU64; SLOTS]>()).expect("memory");
            heap.set_global(slots.as_ptr().cast::<AtomicU64>());
        })
        .expect("a heap");
        // SAFETY: whoever made the heap set it.
        let slots = unsafe { &*heap.global::<[AtomicU64; SLOTS]>() };
        std::thread::scope(|scope| {
            for thread in 0..2_u64 {
                let (heap, slots) = (&heap, &slots);
                scope.spawn(move || {
                    let mut seed = u64::from(std::process::id()) * 7919 + thread;
                    for _ in 0..ROUNDS {
                        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        exchange(heap, &slots[(seed >> 32) as usize % SLOTS], seed >> 16, layout);
                    }
                });
            }
        });
        heap.check().expect("a sound heap");
    };
    if let Some(path) = as_child() {
        return work(&path);
    }
    let place = Place::new("s2");
    let name = "s2_blocks_are_freed_by_other_processes_than_those_that_made_them";
    let children: Vec<Child> = (0..3).map(|_| child(name, &place)).collect();
    work(&place.0);
    children.into_iter().for_each(end);
    let heap = open(&place.0);
    heap.check().expect("a sound heap");
    assert_eq!(heap.stats().threads, 1, "all who have left gave their seats back");
}

#[test]
fn s3_who_leaves_gives_back_and_unmaps_and_the_others_go_on() {
    let place = Place::new("s3");
    let name = place.0.to_string_lossy().into_owned();
    let heap = open(&place.0);
    assert!(heap.allocate(Layout::new::<[u8; 100]>()).is_ok());
    assert!(maps().contains(&name) && heap.stats().threads == 2);
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(heap.allocate(Layout::new::<u64>()).is_ok() && heap.stats().threads == 3));
    });
    assert_eq!(heap.stats().threads, 2, "a thread that ends leaves its seat");
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
    assert!(heap.global::<u64>().is_null());
    let block = heap.allocate(Layout::new::<u64>()).expect("memory").cast::<u64>();
    heap.set_global(block.as_ptr());
    assert_eq!(heap.global::<u64>(), block.as_ptr());
    drop(heap);
    let heap = open(&place.0);
    assert_eq!(heap.global::<u64>(), block.as_ptr());
    heap.set_global(std::ptr::null::<u64>());
    assert!(heap.global::<u64>().is_null());
}

#[test]
fn s7_several_heaps_at_once_and_never_over_something_mapped() {
    let places: Vec<Place> = (0..8).map(|number| Place::new(&format!("s7-{number}"))).collect();
    let heaps: Vec<SharedHeap> = places.iter().map(|place| open(&place.0)).collect();
    for (number, heap) in heaps.iter().enumerate() {
        let block = heap.allocate(Layout::new::<usize>()).expect("memory").cast::<usize>();
        // SAFETY: ours.
        unsafe { block.write(number) };
        heap.set_global(block.as_ptr());
    }
    for (number, heap) in heaps.iter().enumerate() {
        let (root, span) = (heap.global::<usize>(), heap.span());
        assert!((span.at..span.at + span.bytes).contains(&(root as usize)) && span.at >= 0x2000_0000_0000);
        // SAFETY: written above.
        assert_eq!(unsafe { root.read() }, number);
    }
    let again = SharedHeap::open(&places[0].0, SMALL, |_| {}).expect_err("it is mapped already");
    assert!(matches!(again, SharedError::Taken { span, .. } if span == heaps[0].span()));
    let place = Place::new("s7-given");
    let given = SharedHeap::open(&place.0, SMALL.address(0x3000_0000_0000), |_| {}).expect("a heap");
    assert_eq!(given.span().at, 0x3000_0000_0000);
    for wrong in [0, 0x1000, 0x1000_0000_0000, 0x2000_0000_1000, 0x4000_0000_0000] {
        let place = Place::new("s7-wrong");
        let error = SharedHeap::open(&place.0, SMALL.address(wrong), |_| {}).expect_err("no heap may lie there");
        assert!(error.to_string().contains("a multiple of 16 GiB"), "{error}");
    }
}

#[test]
fn s8_growth_is_seen_by_all() {
    if let Some(path) = as_child() {
        let heap = open(&path);
        let mut large = VecIn::new_in(&heap);
        large.resize(6_000_000, 7_u64);
        heap.set_global(large.leak().as_ptr());
        return;
    }
    let place = Place::new("s8");
    let heap = open(&place.0);
    end(child("s8_growth_is_seen_by_all", &place));
    // SAFETY: the child wrote so many.
    let large = unsafe { std::slice::from_raw_parts(heap.global::<u64>(), 6_000_000) };
    assert!(large.iter().all(|word| *word == 7));
    // There is no more, and that is null.
    assert!(heap.allocate(Layout::new::<[u64; 6_000_000]>()).is_err());
    heap.check().expect("a sound heap");
}

/// Runs the test `name` as a child in a folder of so many KiB that only it sees; false if the system does not let it.
fn in_small_folder(name: &str, kibibytes: usize) -> bool {
    let program = env::current_exe().expect("the program's name");
    let script =
        format!("mount -t tmpfs -o size={kibibytes}k none /mnt || exit 77; exec \"$0\" --exact {name} --nocapture");
    let status = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .arg(program)
        .env("SHARED_CHILD", "/mnt/heap")
        .status();
    match status.map(|status| status.code()) {
        Ok(Some(0)) => true,
        Ok(Some(1 | 77)) | Err(_) => {
            println!("SKIPPED: {name}: a folder of its own takes the right to mount one");
            false
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn s8_a_full_disk_is_null_and_the_heap_is_as_it_was() {
    let name = "s8_a_full_disk_is_null_and_the_heap_is_as_it_was";
    let Some(path) = as_child() else {
        in_small_folder(name, 16 << 10);
        return;
    };
    let heap = open(&path);
    for size in [100, 3000, 50_000, 1 << 20] {
        let layout = Layout::from_size_align(size, 8).expect("a layout");
        let mut blocks = Vec::new();
        while let Ok(block) = heap.allocate(layout) {
            // SAFETY: ours, and so large.
            unsafe { block.cast::<u8>().write_bytes(size as u8, size) };
            blocks.push(block.cast::<u8>());
        }
        assert!(blocks.len() * size > 1 << 20 && blocks.len() * size < 16 << 20, "{} of {size}", blocks.len());
        heap.check().expect("a sound heap");
        for block in blocks {
            // SAFETY: written above.
            let bytes = unsafe { std::slice::from_raw_parts(block.as_ptr(), size) };
            assert!(bytes.iter().all(|byte| *byte == size as u8));
            // SAFETY: allocated above for the layout.
            unsafe { heap.deallocate(block, layout) };
        }
    }
    heap.check().expect("a sound heap");
}

#[test]
fn s8_a_disk_without_room_for_pages_is_null() {
    let name = "s8_a_disk_without_room_for_pages_is_null";
    let Some(path) = as_child() else {
        in_small_folder(name, 1 << 10);
        return;
    };
    let heap = open(&path);
    for size in [8, 3000, 1 << 20, 100, 50_000] {
        assert!(heap.allocate(Layout::from_size_align(size, 8).expect("a layout")).is_err());
    }
    heap.check().expect("a sound heap");
}

#[test]
fn s8_a_disk_too_small_for_a_heap_is_an_error() {
    let name = "s8_a_disk_too_small_for_a_heap_is_an_error";
    let Some(path) = as_child() else {
        in_small_folder(name, 16);
        return;
    };
    for _ in 0..2 {
        let error = SharedHeap::open(&path, SMALL, |_| unreachable!("there is no heap")).expect_err("there is no room");
        assert!(error.to_string().contains("no room left on the disk"), "{error}");
    }
}

#[test]
fn s9_a_changed_header_is_refused_and_says_why() {
    let place = Place::new("s9-header");
    drop(open(&place.0));
    let file = fs::OpenOptions::new().read(true).write(true).open(&place.0).expect("the file");
    let mut first = [0; 64];
    file.read_exact_at(&mut first, 0).expect("a header");
    for at in 0..first.len() {
        for bit in 0..8 {
            let mut bytes = first;
            bytes[at] ^= 1 << bit;
            file.write_all_at(&bytes, 0).expect("written");
            let error = SharedHeap::open(&place.0, SMALL.wait(Duration::ZERO), |_| {}).expect_err("it is changed");
            assert!(error.to_string().starts_with("shared heap: "), "{error}");
        }
    }
    file.write_all_at(&first, 0).expect("written");
    for bytes in [4096, (64 << 20) - 4096, (64 << 20) + 4096] {
        file.set_len(bytes).expect("cut");
        let error = SharedHeap::open(&place.0, SMALL, |_| {}).expect_err("it has another length");
        assert!(error.to_string().contains("was made with 67108864"), "{error}");
        file.set_len(64 << 20).expect("as it was");
    }
    for path in ["/dev/null", "/tmp", "/nowhere/at/all", "/proc/self/mem"] {
        let error = SharedHeap::open(path, SMALL, |_| {}).expect_err("no regular file");
        assert!(!error.to_string().is_empty(), "{error}");
    }
    let place = Place::new("s9-link");
    std::os::unix::fs::symlink("/tmp/elsewhere", &place.0).expect("a link");
    SharedHeap::open(&place.0, SMALL, |_| {}).expect_err("a link is not followed");
}
