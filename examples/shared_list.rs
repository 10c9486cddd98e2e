//! A list that outlives the programs that extend it: each run adds the words of its command line, and prints what all runs have
//! left. Several may run at once.
//!
//! ```sh
//! cargo run --features shared --example shared_list -- /dev/shm/list milk bread
//! cargo run --features shared --example shared_list -- /dev/shm/list eggs
//! rm /dev/shm/list
//! ```
//!
//! The file is a heap. A pointer into it means the same in every run, so the list is made of plain pointers.
//! (`examples/c/shared_list.c` is the same in C.)

#[path = "work/report.rs"]
#[allow(dead_code, reason = "how much is resident is not asked here")]
mod report;

use allocator_api2::alloc::AllocError;
use allocator_api2::boxed::Box as BoxIn;
use allocator_api2::vec::Vec as VecIn;
use report::{complain, say};
use std::env;
use std::error::Error;
use std::iter::successors;
use std::process::ExitCode;
use std::ptr::null;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::*};
use stratalloc::{SharedConfig, SharedHeap};

/// The root of the heap: what a run finds first, and all else by that. (`repr(C)`: programs that share it agree on what lies where.)
#[repr(C)]
#[derive(Default)]
struct List {
    newest: AtomicPtr<Word>,
    runs: AtomicU64,
}

/// A word of the list. Once it is in there it is never changed.
#[repr(C)]
struct Word {
    older: *const Word,
    run: u64,
    text: *const u8,
    bytes: usize,
}

impl Word {
    /// A word that stays in the heap: what is leaked there is found again by the next run.
    fn new<'heap>(heap: &'heap SharedHeap, run: u64, text: &str) -> Result<&'heap mut Self, AllocError> {
        let mut copy = VecIn::new_in(heap);
        copy.try_reserve_exact(text.len()).map_err(|_| AllocError)?;
        copy.extend_from_slice(text.as_bytes());
        let word = Self { older: null(), run, text: copy.leak().as_ptr(), bytes: text.len() };
        Ok(BoxIn::leak(BoxIn::try_new_in(word, heap)?))
    }

    fn text(&self) -> std::borrow::Cow<'_, str> {
        // SAFETY: `new` left so many bytes there.
        String::from_utf8_lossy(unsafe { std::slice::from_raw_parts(self.text, self.bytes) })
    }
}

impl List {
    /// Puts a word before all others. Without a lock: if this process died in the midst of it, the list would be as it was.
    fn push(&self, word: &mut Word) {
        let mut newest = self.newest.load(Acquire);
        loop {
            word.older = newest;
            match self.newest.compare_exchange_weak(newest, word, Release, Acquire) {
                Ok(_) => return,
                Err(other) => newest = other,
            }
        }
    }

    /// All words, the newest first.
    fn words(&self) -> impl Iterator<Item = &Word> {
        // SAFETY: a word is whole before it is in the list, and stays there.
        let at = |word: *const Word| unsafe { word.as_ref() };
        successors(at(self.newest.load(Acquire)), move |word| at(word.older))
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let path = arguments.next().ok_or("give the path of a file, and words")?;
    let heap = SharedHeap::open(path, SharedConfig::new(), |heap| {
        // Only the run that makes the heap comes here, before any other gets it.
        if let Ok(list) = BoxIn::try_new_in(List::default(), heap) {
            heap.set_global(BoxIn::leak(list));
        }
    })?;
    // SAFETY: this program sets no other root, and changes it only by atomics.
    let list: &List = unsafe { heap.global() }.ok_or("the heap has no list")?;

    let run = 1 + list.runs.fetch_add(1, Relaxed);
    for text in arguments {
        list.push(Word::new(&heap, run, &text)?);
    }
    let mut words: Vec<&Word> = list.words().collect();
    words.reverse();
    say(format_args!("run {run}: {} words", words.len()));
    words.iter().for_each(|word| say(format_args!("  {} (run {})", word.text(), word.run)));
    Ok(())
}
