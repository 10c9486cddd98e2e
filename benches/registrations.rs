//! What registrations of memory cost: `cargo bench --bench registrations --features hooks`. For each component, beside so many ranges that are
//! registered already: to register one more and take it back, by one thread and by two; to look a registration up in a cache of so many; and
//! to give back a page that is registered, and have it told, over the same of a page that is not. Medians of nine.

#![allow(clippy::disallowed_macros, clippy::disallowed_methods, reason = "a bench prints, and maps memory")]

#[path = "common/cost.rs"]
#[allow(dead_code, reason = "times alone")]
mod cost;

use cost::median;
use std::time::Instant;
use stratalloc::Stratalloc;
use stratalloc::hooks::{self, Choice, Limits, RegistrationCache, Settings};

#[global_allocator]
static A: Stratalloc = Stratalloc::new();

const PAGE: usize = 4096;
const TIMES: usize = 2000;
/// Twice as many mappings, when the kernel watches them, of the 65,530 that a process may have.
const RANGES: [usize; 3] = [10, 1000, 20_000];

/// Nanoseconds of one of `count` calls.
fn nanoseconds(count: usize, mut call: impl FnMut(usize)) -> f64 {
    let one = |_| {
        let begun = Instant::now();
        (0..count).for_each(&mut call);
        begun.elapsed().as_nanos() as f64 / count as f64
    };
    median((0..9).map(one).collect())
}

/// Fresh pages, every second of which is to be registered.
fn map(pages: usize) -> *mut u8 {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: it replaces nothing.
    let at = unsafe {
        libc::mmap(std::ptr::null_mut(), pages * PAGE, access, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    };
    assert_ne!(at, libc::MAP_FAILED);
    at.cast()
}

fn register(at: *const u8) {
    hooks::register(at, PAGE, 1).expect("registered");
}

fn deregister(at: *const u8) {
    hooks::deregister(at, PAGE, 1).expect("registered before");
}

/// Gives a page back, with something in it.
fn give_back(at: *mut u8) {
    // SAFETY: a page of the bench's own.
    unsafe { at.write(1) };
    // SAFETY: as above.
    assert_eq!(unsafe { libc::madvise(at.cast(), PAGE, libc::MADV_DONTNEED) }, 0);
}

fn measure(count: usize) -> [f64; 4] {
    let memory = map(2 * count + 4 * TIMES);
    let page = |number: usize| memory.wrapping_add(2 * number * PAGE);
    (0..count).for_each(|number| register(page(number)));
    let more = |number: usize| {
        let at = page(count + number % TIMES);
        register(at);
        deregister(at);
    };
    let alone = nanoseconds(TIMES, more);
    let both = nanoseconds(1, |_| {
        let (first, second) = (memory as usize + 2 * count * PAGE, TIMES / 2);
        std::thread::scope(|scope| {
            for thread in 0..2 {
                scope.spawn(move || {
                    for number in thread * second..(thread + 1) * second {
                        let at = (first + 2 * number * PAGE) as *const u8;
                        register(at);
                        deregister(at);
                    }
                });
            }
        });
    }) / TIMES as f64;
    (0..count).for_each(|number| deregister(page(number)));
    let cache = RegistrationCache::new(Limits { entries: count, bytes: usize::MAX }).expect("a component");
    let get = |number: usize| {
        let pinned = cache.get(page(number), PAGE, |at, _| Ok::<_, ()>(at as usize));
        std::hint::black_box(*pinned.expect("registered"));
    };
    (0..count).for_each(get);
    let hit = nanoseconds(TIMES, |number| get(number * 7919 % count));
    drop(cache);
    let unwatched = nanoseconds(TIMES, |number| give_back(page(number % TIMES)));
    (0..TIMES).for_each(|number| register(page(number)));
    let watched = nanoseconds(TIMES, |number| {
        give_back(page(number % TIMES));
        if hooks::changed() {
            hooks::process().expect("processed");
        }
    });
    (0..TIMES).for_each(|number| deregister(page(number)));
    // SAFETY: mapped above.
    assert_eq!(unsafe { libc::munmap(memory.cast(), (2 * count + 4 * TIMES) * PAGE) }, 0);
    [alone, both, hit, watched - unwatched]
}

fn main() {
    println!(
        "{:14}{:>9}{:>24}{:>16}{:>12}{:>24}",
        "ns", "ranges", "register, deregister", "by two threads", "cache hit", "a page goes, is told"
    );
    for name in ["allocator", "userfaultfd"] {
        if let Err(error) = hooks::init(&Settings::new().choice(Choice::new().only(name))) {
            println!("SKIPPED: {error}");
            continue;
        }
        for count in RANGES {
            let [alone, both, hit, told] = measure(count);
            println!("{name:14}{count:9}{alone:24.0}{both:16.0}{hit:12.0}{told:24.0}");
        }
        hooks::close().expect("nothing is registered");
    }
}
