//! Rows S: heaps that processes share. Each process is this program again, told by the environment what to do.

use allocator_api2::alloc::Allocator;
use allocator_api2::vec::Vec as VecIn;
use std::alloc::Layout;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
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
