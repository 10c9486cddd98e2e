//! Row S8: room in the file and on the disk, and what happens where there is none.

use super::damage::in_orderly_child;
use super::own_process::in_own_process;
use super::place::Place;
use super::skipped::skipped;
use super::{SMALL, again, as_child, child, end, open, this_test};
use allocator_api2::alloc::Allocator;
use allocator_api2::vec::Vec as VecIn;
use std::alloc::Layout;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use stratalloc::{SharedConfig, SharedHeap};

/// Where there is so much room on a disk: a folder.
fn roomy_folder(bytes: u64) -> Option<PathBuf> {
    [PathBuf::from(env!("CARGO_TARGET_TMPDIR")), env::temp_dir()].into_iter().find(|folder| {
        let path = std::ffi::CString::new(folder.to_string_lossy().as_bytes()).expect("a path");
        let mut found = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
        // SAFETY: the path ends with a zero, and the place is as large as what is written.
        let result = unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) };
        // SAFETY: zero bits are one, and so is what was written.
        let found = unsafe { found.assume_init() };
        result == 0 && found.f_bavail.saturating_mul(found.f_frsize) >= bytes
    })
}

/// Runs the calling test as a child in a folder of so many KiB that only it sees.
fn in_small_folder(kibibytes: usize) {
    let script = format!("mount -t tmpfs -o size={kibibytes}k none /mnt || exit 77; exec \"$0\" \"$@\"");
    let test = again(Path::new("/mnt/heap"));
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script]).arg(test.get_program()).args(test.get_args()).stdout(Stdio::null());
    command.envs(test.get_envs().filter_map(|(name, value)| Some((name, value?))));
    match command.status().map(|status| status.code()) {
        Ok(Some(0)) => {}
        Ok(Some(1 | 77)) | Err(_) => {
            skipped(&format!("{}: a folder of its own takes the right to mount one", this_test()));
        }
        other => panic!("{other:?}"),
    }
}

/// In a process of its own: a heap so large may lie where another test's heap is to be opened anew.
#[test]
fn s8_blocks_lie_across_a_heap_of_64_gib_of_which_little_takes_room() {
    let ended = in_own_process(blocks_across_64_gib);
    ended.hand_on("SKIPPED");
    ended.well();
}

fn blocks_across_64_gib() {
    const STEP: usize = 4 << 30;
    let Some(folder) = roomy_folder(6 << 30) else {
        skipped("a heap of 64 GiB: no disk has 6 GiB of room");
        return;
    };
    let place = Place(folder.join(format!("stratalloc-64gib-{}", std::process::id())));
    let heap = SharedHeap::open(&place.0, SharedConfig::new().max_size(64 << 30), |_| {}).expect("a heap");
    let layout = |turn: usize| Layout::from_size_align(STEP + (turn << 21), 4096).expect("a layout");
    let pin = Layout::from_size_align(100_000, 8).expect("a layout");
    let mut pins = Vec::new();
    for turn in 0..14 {
        // Longer than the hole before it, so it lies behind that, and a block behind it keeps them apart.
        let long = heap.allocate(layout(turn)).expect("memory").cast::<u8>();
        let pinned = heap.allocate(pin).expect("memory").cast::<u8>();
        // SAFETY: ours, and so large.
        unsafe { pinned.write_bytes(turn as u8, pin.size()) };
        pins.push(pinned);
        // SAFETY: allocated for the layout.
        unsafe { heap.deallocate(long, layout(turn)) };
        heap.collect();
        let room = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&place.0).expect("the file")) * 512;
        assert!(room < 6 << 30, "holes take no room: {room} after {turn}");
    }
    let last = pins.iter().map(|pin| pin.as_ptr() as usize).max().expect("some");
    assert!(last - heap.span().at > 50 << 30, "blocks lie across it");
    heap.check().expect("a sound heap");
    drop(heap);
    let heap = open(&place.0);
    for (turn, pinned) in pins.iter().enumerate() {
        // SAFETY: written above.
        let bytes = unsafe { std::slice::from_raw_parts(pinned.as_ptr(), pin.size()) };
        assert!(bytes.iter().all(|byte| *byte == turn as u8));
        // SAFETY: allocated for the layout.
        unsafe { heap.deallocate(*pinned, pin) };
    }
    // All of it is one run again.
    let whole = Layout::from_size_align(40 << 30, 8).expect("a layout");
    let (allocated, is_room) = (heap.stats().allocated, roomy_folder(50 << 30).is_some());
    assert!(allocated < 1 << 20, "{allocated}");
    assert!(heap.allocate(whole).is_ok() || !is_room);
    heap.check().expect("a sound heap");
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
    end(child(&place));
    // SAFETY: the child wrote so many.
    let large = unsafe { std::slice::from_raw_parts(heap.global_ptr::<u64>(), 6_000_000) };
    assert!(large.iter().all(|word| *word == 7));
    // There is no more, and that is null.
    assert!(heap.allocate(Layout::new::<[u64; 6_000_000]>()).is_err());
    heap.check().expect("a sound heap");
}

#[test]
fn s8_a_full_disk_is_null_and_the_heap_is_as_it_was() {
    let Some(path) = as_child() else {
        in_small_folder(16 << 10);
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
fn s8_zeroed_blocks_have_room_on_the_disk() {
    let Some(path) = as_child() else {
        in_small_folder(16 << 10);
        return;
    };
    let heap = open(&path);
    let size = 3 << 20;
    let block = heap.malloc(size);
    // SAFETY: ours, and so large.
    unsafe { block.write_bytes(7, size) };
    // SAFETY: live.
    unsafe { heap.free(block) };
    let zeroed = heap.calloc(1, size);
    assert!(!zeroed.is_null());
    // Others take what room there is left.
    let mut other = fs::File::create(path.with_extension("other")).expect("a file");
    while std::io::Write::write(&mut other, &[1; 65536]).is_ok_and(|bytes| bytes > 0) {}
    // SAFETY: ours, and so large.
    assert!(unsafe { std::slice::from_raw_parts(zeroed, size) }.iter().all(|byte| *byte == 0));
    // SAFETY: as above.
    unsafe { zeroed.write_bytes(7, size) };
    heap.check().expect("a sound heap");
}

#[test]
fn s8_a_limit_on_the_length_of_files_is_an_error() {
    let place = Place::new("s8-limit");
    in_orderly_child(&"a limit", || {
        let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: the limit is there to be read.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) }, 0);
        let error = SharedHeap::open(&place.0, SMALL, |_| {}).expect_err("files may not be so long");
        assert!(
            error.to_string().contains("larger than the file system or the limit of the process allows"),
            "{error}"
        );
    });
}

#[test]
fn s8_a_disk_without_room_for_pages_is_null() {
    let Some(path) = as_child() else {
        in_small_folder(1 << 10);
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
    let Some(path) = as_child() else {
        in_small_folder(16);
        return;
    };
    for _ in 0..2 {
        let error = SharedHeap::open(&path, SMALL, |_| unreachable!("there is no heap")).expect_err("there is no room");
        assert!(error.to_string().contains("no room left on the disk"), "{error}");
    }
}
