//! A global allocator in four layers, after McKenney and Slingwine (USENIX Winter 1993): memory comes back when a program
//! goes idle, no C compiler is needed, and every promise has a number.
//!
//! ```
//! use stratalloc::Stratalloc;
//!
//! #[global_allocator]
//! static A: Stratalloc = Stratalloc::new();
//! # fn main() {}
//! ```
//!
//! [`Stratalloc`] is the process heap, [`Config`] its settings, [`Stats`] its figures.
#![cfg_attr(feature = "allocator-api2", doc = "[`Heap`] is a heap as an object, gone at once when it is dropped.")]
//! [`heap::Engine`] is what they all are made of, for heaps over memory of your own.
//!
//! # The theory
//!
//! **Words.** A *page* is the operating system's. A *run* is contiguous pages. A *slab* is a run split into equal
//! *blocks* (the paper calls it a page). A block's size is its *size class*. A *list* is blocks linked through themselves;
//! *target* is how many. A thread's *cache* has a `main` list per class and full lists (`aux`) beside it. The *depot* is
//! the paper's global layer, a list of lists. To *coalesce* is to sort blocks back into their slabs. A *source* is where
//! runs come from. Blocks have no *owner*: whoever frees a block has it. To *purge* pages is to give the memory behind them
//! back; free pages that may hold memory are *dirty*, or *retained*. A *granule* is an aligned stretch of pages that the
//! system can back by one huge page. The *purger* is a thread that comes when too much is retained, and goes.
//!
//! ```text
//!            GlobalAlloc (global.rs)             Heap (object/)
//!                        \                        /
//!    front seam           heap::Blocks
//!                        |
//!    heap/mod.rs   up to 2 or 7 KiB                     more
//!                  |                                     |
//!    1 cache.rs    main [o-o-o]  aux [o-o-o]   per thread, no lock
//!                  |  one list of `target` at a time     |   and run lists of 1..16 pages
//!    2 depot.rs    [ooo][ooo][ooo]             per class | [rr][rr] of 1..4 pages, by listed.rs
//!                  |  lists, when too many or none       |
//!    3 slab.rs     blocks sorted into their slabs        |
//!                  |  whole slabs                        |   hot.rs, reserve.rs: long runs freed a moment ago
//!    4 run.rs      best-fit runs of pages  <-------------+   by bins.rs, over map.rs, with granule.rs
//!                  |                                         reclaim.rs, purger.rs: purge 4, then 3; sort 2
//!    under seam    os::Source
//!                  |
//!                  Mmap (os/unix.rs) | Fixed (a caller's buffer)
//!    beside it     os/release.rs: before memory goes, `hooks` is told
//!
//!    beside every lock: seam lock::RawLock = Spin
//! ```
//!
//! `traffic.rs` moves blocks between layers 1, 2, 3 and 4, `listed.rs` short runs between 1, 2 and 4, `long.rs` long ones
//! between a thread, what is kept for it, and 4; `pages.rs` serves whole pages, `reclaim.rs` gives memory back.
//!
//! **One allocation, walked.** `alloc(40 bytes)`: the class is 64. The thread's `main` list of class 64 has a block: unlink
//! it, count it, done — some ten instructions and no lock. Once in 64 times at most `main` is empty; then `aux` becomes
//! `main`. If there is none either, the depot hands over a list of 64, whole, by one store under its lock. If it has none,
//! the slabs of the class fill a list, from the slab with the fewest free blocks, the lowest addresses first, by their
//! bitmaps; only after the lock is released are the blocks' own bytes touched. If no slab has a free block, the best fit
//! among the free runs becomes a slab; and if no run fits, the source maps a span.
//!
//! **One free, walked.** The block goes on the thread's `main` list. Once in 64 times at most `main` is full; then it
//! becomes `aux`, and the former `aux` leaves. A list that seems to lie in few pages, judged by its first blocks, goes to
//! the depot whole, and so does one of large blocks, whose order hardly matters. Another one is
//! sorted: each block's slab is looked up in the page map, and its bit set. A slab all of whose blocks are back returns
//! to the runs, where it merges with its neighbours. Last, if more free pages are resident than the idle bound allows, the
//! purger is summoned, if it is not there; where none can be had, those freed longest ago are given back at once.
//!
//! **Why that is fast.** After a trip to the depot a cache has at least `target` blocks and room for as many, so at least
//! `target` calls pass before the next trip, whatever the pattern. A trip costs a lock for a few instructions. Sorting
//! restores address order, so locality survives churn.
//!
//! **Why memory comes back.** Lists in caches are bounded, each block counted as if it lay alone in its page or pages, and
//! their full ones lie in slots that the purger may empty. Everything else lies in slabs and runs, where free pages are seen and counted as they become
//! free. The idle bound (see [`Config::idle_bytes`]) is looked at by each free that reaches the slabs or runs. If it is
//! passed, a purger begins ([`Purge::Soon`]): a detached thread without a cache, all signals blocked. Every 0.15 seconds
//! it looks how much was retained all the time since its last look, by the least that each gauge has shown, and purges
//! that, as far as it is beyond the bound; lists that lay all the time in the depot, or as full ones in a cache, are
//! sorted first, and long runs that lay in a reserve go to the runs. So what a program takes again within a look stays,
//! and two looks after the last call the bound holds; then the purger ends. While there is a purger to be had, the
//! depot takes in every list that is compact or of large blocks; where there is none ([`Purge::AtFree`], heaps as objects, other sources), the
//! depot is bounded and the one who frees purges, before free returns. No more memory is mapped while the depots pin a
//! large part of what there is: they are sorted first, and idle pages of slabs are purged, which serve one class alone.
//!
//! **Why huge pages keep the bound.** A huge page comes resident as a whole. So a granule becomes huge only if it is wholly
//! free and untouched when a part of it is handed out to be filled, in a heap with enough live bytes ([`HugePages::Above`]);
//! from then on all of it counts as dirty. Whole granules are purged before anything else; before a part of one is purged,
//! it stops being huge, lest the system fills it up again. So a huge granule is untouched, or every free page of it is
//! dirty, and the books never say less than what is resident.
//!
//! # Locks
//!
//! Each layer has its own, one per class where there are classes; a lock is taken only while those held have lower ranks:
//! shard of a `Heap` < registry of caches < depot < slabs < reserves < runs < records. Never two of one rank, but by fork, which takes
//! all of them in order. No system call is made with a lock held, but for the lock of a `Heap`'s shard, and one that a shared heap is closed with. Builds with debug assertions check the order.
//! A thread holds one lock of a shared heap at a time, or all of them, when it mends the heap after a death or audits it.
//!
//! # Features
//!
//! - `std` (default): [`Stratalloc`]. Without it the crate is `no_std`, and [`heap::Engine`] is what there is.
//! - `fine-classes`: four size classes per doubling in place of one, and up to 7,168 bytes in place of 2,048: less memory,
//!   somewhat more lists.
//! - `allocator-api2`: heaps as objects.
//! - `shared`: heaps in files, that many processes have open, and that outlive the death of any of them ([`SharedHeap`]).
//! - `c-abi`: C names with a prefix, `c-override`: the bare ones, too; see `c_abi`.
//! - `hooks`: whoever registered memory learns when it goes; see `hooks`.
//! - `cli`: the command-line tool `stratalloc`, which looks into shared heaps.
//! - `c-shared`: C names of shared heaps; see `c_shared`.
//! - `malloc-debug`: the corruption hunter before every heap (`Hunt`), and each word of a record has a copy or a check; see
//!   [`heap::Attached::check`].
//! - `valgrind`: valgrind's memcheck knows the blocks.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(
    any(loom, not(feature = "std")),
    allow(
        dead_code,
        unused_imports,
        reason = "models drive a part of the crate; without std there is no process heap"
    )
)]

#[cfg(all(feature = "std", not(test)))]
extern crate std;

// The tests of the promises (tests/rows) use the crate by its name.
#[cfg(test)]
extern crate self as stratalloc;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
compile_error!("stratalloc knows Linux and Android: it needs madvise(MADV_DONTNEED) that zeroes, and mremap");

#[cfg(all(feature = "c-abi", not(loom)))]
pub mod c_abi;
#[cfg(all(feature = "c-shared", not(loom)))]
pub mod c_shared;
#[cfg(all(feature = "c-symmetric", not(loom)))]
pub mod c_symmetric;
#[cfg(all(any(feature = "symmetric", feature = "hooks"), not(loom)))]
mod choice;
mod config;
#[cfg(all(feature = "malloc-debug", feature = "std", not(loom)))]
mod debug;
mod fatal;
mod finding;
#[cfg(all(feature = "std", not(loom)))]
mod global;
pub mod heap;
#[cfg(all(feature = "hooks", not(loom)))]
pub mod hooks;
#[cfg(all(feature = "hooks", test, loom))]
#[path = "hooks/loom_tests.rs"]
mod hooks_models;
#[cfg(all(feature = "cli", not(loom)))]
mod image;
pub mod lock;
#[cfg(all(feature = "allocator-api2", not(loom)))]
mod object;
pub mod os;
#[cfg(all(feature = "shared", not(loom)))]
mod shared;
mod stats;
#[cfg(all(feature = "symmetric", not(loom)))]
pub mod symmetric;
mod sync;
#[cfg(all(feature = "std", not(loom)))]
mod thread;
mod twin;
#[cfg(all(feature = "valgrind", not(loom)))]
mod watch;

pub use config::{Config, HugePages, Purge};
#[cfg(feature = "malloc-debug")]
pub use config::{Hunt, Side};
pub use finding::{Finding, Layer};
#[cfg(all(feature = "std", not(loom)))]
pub use global::Stratalloc;
#[cfg(all(feature = "allocator-api2", not(loom)))]
pub use object::Heap;
#[cfg(all(feature = "cli", not(loom)))]
#[doc(hidden)]
pub use shared::view;
#[cfg(all(feature = "shared", not(loom)))]
pub use shared::{Scheme, SharedConfig, SharedError, SharedHeap};
pub use stats::{ClassStats, RunStats, Stats};
#[cfg(feature = "fault-points")]
#[doc(hidden)]
pub use sync::fault;

#[cfg(all(test, feature = "std", not(loom)))]
#[path = "../tests/rows/mod.rs"]
mod rows;

#[cfg(all(test, loom))]
mod models;

#[cfg(all(test, feature = "std", not(loom)))]
#[global_allocator]
#[cfg(not(feature = "malloc-debug"))]
static A: Stratalloc = Stratalloc::new();

// These tests are about the heap itself; `tests/hunt.rs` is about what stands before it.
#[cfg(all(test, feature = "std", feature = "malloc-debug", not(loom)))]
#[global_allocator]
static A: Stratalloc = Stratalloc::with_config(Config::new().hunt(Hunt::new().off()));
