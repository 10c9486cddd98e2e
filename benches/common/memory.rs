//! Heaps beside each other: ours, and those of libraries that are loaded while the program runs, so that each serves only
//! who asks it.

use allocator_api2::alloc::Allocator;
use std::alloc::Layout;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::ptr::NonNull;
use stratalloc::{SharedConfig, SharedHeap};

/// Bytes of a heap.
const BYTES: usize = 256 << 20;

/// Names of libraries more, with colons between them.
const MORE: &str = "STRATALLOC_SHARED_PEERS";

/// Where blocks come from. A block is as a C program has it from `malloc`: aligned to 16 bytes.
pub(crate) trait Memory: Sync {
    fn alloc(&self, bytes: usize) -> *mut u8;

    /// # Safety
    /// The block is from `alloc`, of so many bytes, and is not used any more.
    unsafe fn free(&self, block: *mut u8, bytes: usize);

    /// A forked child begins with the heap.
    fn join(&self) {}

    /// A forked child leaves the heap.
    ///
    /// # Safety
    /// It does not use it any more.
    unsafe fn leave(&self) {}
}

impl Memory for SharedHeap {
    #[inline]
    fn alloc(&self, bytes: usize) -> *mut u8 {
        self.allocate(layout(bytes)).expect("memory").cast().as_ptr()
    }

    #[inline]
    unsafe fn free(&self, block: *mut u8, bytes: usize) {
        // SAFETY: no block is at null.
        let block = unsafe { NonNull::new_unchecked(block) };
        // SAFETY: handed on.
        unsafe { self.deallocate(block, layout(bytes)) };
    }

    unsafe fn leave(&self) {
        // SAFETY: the child's copy of the value, which nobody looks at any more.
        drop(unsafe { std::ptr::read(self) });
    }
}

#[inline]
fn layout(bytes: usize) -> Layout {
    // SAFETY: a power of two, and sizes are small.
    unsafe { Layout::from_size_align_unchecked(bytes, 16) }
}

/// A place, zeroed, that forked children share. It stays.
pub(crate) fn shared<T>() -> NonNull<T> {
    let (rights, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: fresh memory.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<T>(), rights, kind, -1, 0) };
    assert!(at != libc::MAP_FAILED, "memory");
    NonNull::new(at.cast()).expect("no place at null")
}

/// No heap: the same blocks again and again.
pub(crate) struct Nothing(NonNull<u8>);

/// Bytes from the first block of `Nothing` to the last, from each to the next, and of the longest.
const ALL: usize = 1 << 17;
const EACH: usize = 64;
const LONGEST: usize = 4096;

thread_local! {
    static NEXT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

// SAFETY: only one thread allocates at a time, and nobody looks at blocks of others.
unsafe impl Sync for Nothing {}

impl Memory for Nothing {
    #[inline]
    fn alloc(&self, _: usize) -> *mut u8 {
        let at = NEXT.replace((NEXT.get() + EACH) % ALL);
        // SAFETY: below the end.
        unsafe { self.0.as_ptr().add(at) }
    }

    #[inline]
    unsafe fn free(&self, block: *mut u8, _: usize) {
        // Or the compiler finds that nobody needs the block.
        std::hint::black_box(block);
    }
}

/// The heap of a loaded library. It is never unloaded.
pub(crate) struct Loaded {
    malloc: unsafe extern "C" fn(usize) -> *mut u8,
    free: unsafe extern "C" fn(*mut u8),
    join: Option<unsafe extern "C" fn()>,
    leave: Option<unsafe extern "C" fn()>,
}

impl Memory for Loaded {
    #[inline]
    fn alloc(&self, bytes: usize) -> *mut u8 {
        // SAFETY: as `malloc` is called.
        let block = unsafe { (self.malloc)(bytes) };
        assert!(!block.is_null(), "memory");
        block
    }

    #[inline]
    unsafe fn free(&self, block: *mut u8, _: usize) {
        // SAFETY: handed on.
        unsafe { (self.free)(block) };
    }

    fn join(&self) {
        // SAFETY: once, in a forked child.
        self.join.into_iter().for_each(|join| unsafe { join() });
    }

    unsafe fn leave(&self) {
        // SAFETY: handed on.
        self.leave.into_iter().for_each(|leave| unsafe { leave() });
    }
}

impl Loaded {
    /// A library, by its path or name, with functions of these names; an error is why there is none.
    fn load(library: &str, malloc: &CStr, free: &CStr) -> Result<(Self, NonNull<c_void>), String> {
        let name = CString::new(library).map_err(|error| error.to_string())?;
        // SAFETY: what the library does when it is loaded is its own affair.
        let handle = NonNull::new(unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) });
        let handle = handle.ok_or_else(|| {
            // SAFETY: just failed.
            let text = unsafe { libc::dlerror() };
            // SAFETY: a text, until the next call.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
        })?;
        let needed = |name: &CStr| find(handle, name).ok_or_else(|| format!("{library} has no {name:?}"));
        let (malloc, free) = (needed(malloc)?, needed(free)?);
        // SAFETY: the names say what they are.
        let malloc = unsafe { std::mem::transmute::<NonNull<c_void>, unsafe extern "C" fn(usize) -> *mut u8>(malloc) };
        // SAFETY: as above.
        let free = unsafe { std::mem::transmute::<NonNull<c_void>, unsafe extern "C" fn(*mut u8)>(free) };
        Ok((Self { malloc, free, join: None, leave: None }, handle))
    }

    /// A peer's library, with a heap opened at `path`.
    fn open(library: &str, path: &Path) -> Result<Self, String> {
        let (mut loaded, handle) = Self::load(library, c"peer_malloc", c"peer_free")?;
        let open = find(handle, c"peer_open").ok_or_else(|| format!("{library} has no peer_open"))?;
        // SAFETY: the name says what it is.
        let open = unsafe {
            std::mem::transmute::<NonNull<c_void>, unsafe extern "C" fn(*const c_char, usize) -> c_int>(open)
        };
        let path = CString::new(path.to_str().expect("text")).expect("no zero byte");
        // SAFETY: a path, and how large the heap may become.
        if unsafe { open(path.as_ptr(), BYTES) } != 0 {
            return Err(format!("{library} cannot open a heap at {path:?}"));
        }
        let optional = |name| {
            // SAFETY: the names say what they are.
            find(handle, name)
                .map(|found| unsafe { std::mem::transmute::<NonNull<c_void>, unsafe extern "C" fn()>(found) })
        };
        (loaded.join, loaded.leave) = (optional(c"peer_join"), optional(c"peer_leave"));
        Ok(loaded)
    }
}

fn find(library: NonNull<c_void>, name: &CStr) -> Option<NonNull<c_void>> {
    // SAFETY: a library that was loaded and stays so.
    NonNull::new(unsafe { libc::dlsym(library.as_ptr(), name.as_ptr()) })
}

/// Any of them.
pub(crate) enum Any {
    Ours(SharedHeap),
    Loaded(Loaded),
    Nothing(Nothing),
}

/// Who may use a heap at once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Its memory is private: a forked child has a copy.
    Private,
    /// Its memory is a file, which one process has open.
    One,
    /// Any number of processes.
    All,
    /// There is no heap: what is left is what the bench itself takes.
    Nothing,
}

/// A heap, with the file it is in.
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) reach: Reach,
    pub(crate) memory: Any,
    path: PathBuf,
    /// It got stuck: it is not asked again.
    pub(crate) stuck: bool,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// All that can be had here: first the one with private memory, and ours.
pub(crate) fn peers() -> Vec<Peer> {
    let folder = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
    let path = |name: &str| folder.join(format!("stratalloc-bench-{}-{name}", std::process::id()));
    let mut peers: Vec<Peer> = Vec::new();
    let mut enter = |name: &str, reach, memory: Result<Any, String>| match memory {
        Ok(memory) => peers.push(Peer { name: name.to_string(), reach, memory, path: path(name), stuck: false }),
        Err(why) => println!("SKIPPED: {name}: {why}"),
    };
    let ours = SharedHeap::open(path("stratalloc"), SharedConfig::new().max_size(BYTES), |_| {});
    enter("stratalloc", Reach::All, Ok(Any::Ours(ours.expect("a heap"))));
    let built = [
        ("Boost", Reach::All, "interprocess.cpp", "libboost-dev", ""),
        ("libpmemobj", Reach::One, "pmemobj.c", "libpmemobj-dev", "-lpmemobj"),
    ];
    for (name, reach, source, package, library) in built {
        let library = build(source, library)
            .ok_or_else(|| format!("does not build here (package {package}, and a compiler for C++)"));
        enter(name, reach, library.and_then(|library| Loaded::open(&library, &path(name)).map(Any::Loaded)));
    }
    match std::env::var(MORE) {
        Ok(more) => more.split(':').for_each(|library| {
            let name = Path::new(library).file_stem().map_or(library.into(), |name| name.to_string_lossy());
            enter(&name, Reach::All, Loaded::open(library, &path(&name)).map(Any::Loaded));
        }),
        Err(_) => println!("SKIPPED: others: no library is named by {MORE} (benches/README.md says what one has)"),
    }
    // Behind all libraries in C++, whose `new` it would be if it came with their common library.
    let jemalloc = Loaded::load("libjemalloc.so.2", c"malloc", c"free");
    let jemalloc = jemalloc.map_err(|why| format!("{why} (package libjemalloc2)"));
    enter("jemalloc", Reach::Private, jemalloc.map(|(loaded, _)| Any::Loaded(loaded)));
    enter("no heap", Reach::Nothing, Ok(Any::Nothing(Nothing(shared::<[u8; ALL + LONGEST]>().cast()))));
    peers.sort_by_key(|peer| peer.reach != Reach::Private);
    peers
}

/// Builds a peer's library from its source in `benches/c`.
fn build(source: &str, library: &str) -> Option<String> {
    let binary = std::env::current_exe().expect("the path of this binary");
    let work = binary.ancestors().nth(3).expect("target/release/deps/BINARY").join("shared-bench");
    std::fs::create_dir_all(&work).expect("a folder");
    let to = work.join(format!("{source}.so"));
    let mut compiler = Command::new(if source.ends_with(".c") { "cc" } else { "c++" });
    compiler.args(["-O3", "-DNDEBUG", "-shared", "-fPIC", "-w", "-o"]).arg(&to).arg(source);
    compiler.args(Some(library).filter(|library| !library.is_empty())).arg("-lpthread");
    compiler.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/c")).stderr(Stdio::null());
    compiler.status().is_ok_and(|status| status.success()).then(|| to.to_string_lossy().into_owned())
}
