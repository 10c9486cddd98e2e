//! Rows of the process heap: threads, fork, memory that comes back.

use super::promise;
use super::random::Random;
use super::support::{layout, resident_pages, system_memory};
use std::alloc::{Layout, alloc, dealloc};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use stratalloc::Stratalloc;

#[test]
fn g11_a_threads_end_gives_its_cache_back() {
    promise("rows::process::g11_a_threads_end_gives_its_cache_back", Some(11), || {
        let churn = || {
            let held: Vec<Vec<u8>> = (1..3000).map(|size| vec![1; size]).collect();
            held.len()
        };
        assert_eq!(std::thread::spawn(churn).join().ok(), Some(2999));
        let before = Stratalloc::stats();
        let cached = |stats: &stratalloc::Stats| stats.classes.iter().map(|class| class.cached).sum::<u64>();
        for _ in 0..50 {
            std::thread::spawn(churn).join().expect("the thread ends well");
        }
        let after = Stratalloc::stats();
        assert_eq!(after.threads, before.threads, "threads that have ended still have caches");
        assert!(cached(&after) <= cached(&before) + 64, "blocks stayed behind with threads that have ended");
    });
}

/// Allocates and frees so that locks are held as often as can be, until told to stop.
fn churn(stop: &AtomicBool, seed: u64) {
    let mut random = Random::new(seed);
    let mut held: Vec<Vec<u8>> = Vec::new();
    while !stop.load(Relaxed) {
        (0..400).for_each(|_| held.push(vec![1; 1 + random.below(40_000) / (1 + random.below(60))]));
        while held.len() > 100 {
            held.swap_remove(random.below(held.len()));
        }
    }
}

/// Forks; the child allocates, frees, and forks again if `depth` allows. True if the child ends well within 10 s.
fn fork_and_wait(depth: u32) -> bool {
    // SAFETY: the child calls the allocator and `_exit` alone.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork failed");
    if child == 0 {
        // So many at a time that every layer is asked, and so every lock that the parent's threads may have held.
        let blocks: Vec<Vec<u8>> = (1..200).flat_map(|size| [size * 37; 3]).map(|size| vec![1u8; size]).collect();
        let sum = blocks.iter().map(Vec::len).sum::<usize>() / 3;
        drop(blocks);
        let good = sum == 37 * 199 * 100 && (depth == 0 || fork_and_wait(depth - 1));
        // SAFETY: ends the child.
        unsafe { libc::_exit(i32::from(!good)) };
    }
    let start = Instant::now();
    let mut status = 0;
    // SAFETY: the child is ours, and the status is a place to write to.
    while unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } == 0 {
        if start.elapsed() > Duration::from_secs(10) {
            // SAFETY: the child is ours and has not been waited for.
            unsafe { libc::kill(child, libc::SIGKILL) };
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    status == 0
}

#[test]
fn g12_fork_with_busy_threads() {
    promise("rows::process::g12_fork_with_busy_threads", Some(12), || {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let stop = &stop;
            (0..8).for_each(|seed| drop(scope.spawn(move || churn(stop, seed))));
            let good = (0..200).all(|_| fork_and_wait(1));
            stop.store(true, Relaxed);
            assert!(good, "a child hung or failed");
        });
    });
}

/// Live blocks, in memory that the heap does not know of.
struct Live {
    blocks: &'static mut [(usize, u32)],
    len: usize,
    pages: &'static mut [usize],
}

const BLOCKS: usize = 1 << 20;

impl Live {
    fn new() -> Self {
        let blocks = system_memory(BLOCKS * size_of::<(usize, u32)>()).cast();
        let pages = system_memory(4 * BLOCKS * size_of::<usize>()).cast();
        // SAFETY: the mapping is that large, zeroed, and ours.
        let blocks = unsafe { std::slice::from_raw_parts_mut(blocks.as_ptr(), BLOCKS) };
        // SAFETY: as above.
        let pages = unsafe { std::slice::from_raw_parts_mut(pages.as_ptr(), 4 * BLOCKS) };
        // Both are resident from now on, whatever is stored in them.
        pages.fill(1);
        blocks.fill((1, 1));
        Self { blocks, len: 0, pages }
    }

    /// Allocates blocks of 16 B to 4 KiB until their sizes add up to `bytes`.
    fn build(&mut self, bytes: usize, random: &mut Random) {
        let mut sum = 0;
        while sum < bytes {
            let power = 4 + random.below(9);
            let size = 16 + random.below(1 << power);
            // SAFETY: the size is not 0.
            let at = unsafe { alloc(layout(size, 8)) };
            assert!(!at.is_null());
            // SAFETY: inside the block.
            unsafe { at.write_bytes(7, size) };
            self.blocks[self.len] = (at as usize, size as u32);
            self.len += 1;
            sum += size;
        }
    }

    fn free(&mut self, index: usize) {
        let (at, size) = self.blocks[index];
        // SAFETY: allocated in `build`, and freed once.
        unsafe { dealloc(at as *mut u8, layout(size as usize, 8)) };
    }

    fn free_random(&mut self, percent: usize, random: &mut Random) {
        for _ in 0..self.len * percent / 100 {
            let index = random.below(self.len);
            self.free(index);
            self.len -= 1;
            self.blocks.swap(index, self.len);
        }
    }

    fn free_in_order(&mut self, percent: usize) {
        let gone = self.len * percent / 100;
        (0..gone).for_each(|index| self.free(index));
        self.blocks.copy_within(gone..self.len, 0);
        self.len -= gone;
    }

    fn bytes(&self) -> usize {
        self.blocks[..self.len].iter().map(|(_, size)| *size as usize).sum()
    }

    /// Pages that hold a byte of a live block.
    fn held_pages(&mut self) -> usize {
        let mut len = 0;
        for (at, size) in &self.blocks[..self.len] {
            for page in at >> 12..=(at + *size as usize - 1) >> 12 {
                self.pages[len] = page;
                len += 1;
            }
        }
        self.pages[..len].sort_unstable();
        self.pages[..len].chunk_by(|a, b| a == b).count()
    }

    /// Tells the parent what is live, and makes no call until the parent has looked.
    fn show(&mut self, phase: &str, base: usize) {
        let (pages, bytes) = (self.held_pages(), self.bytes());
        let stats = Stratalloc::stats();
        println!("@ {phase} {base} {pages} {bytes} {}", stats.records + stats.map);
        std::io::stdout().flush().expect("the parent listens");
        let _ = std::io::stdin().read(&mut [0; 1]);
    }
}

const IDLE: &str = "STRATALLOC_IDLE_CHILD";

/// The child of the idle test: builds 200 MB and frees it in several ways.
fn build_and_free() {
    let (mut live, mut random) = (Live::new(), Random::new(3));
    let base = resident_pages(std::process::id());
    live.build(200 << 20, &mut random);
    live.free_random(90, &mut random);
    live.show("random", base);
    live.free_random(100, &mut random);
    live.show("all", base);
    live.build(200 << 20, &mut random);
    live.free_in_order(90);
    live.show("in-order", base);
    live.free_random(100, &mut random);
    live.show("all-again", base);
}

/// How long threads of a process that live have waited for a processor, each since it began: what a busy machine has kept from them.
fn waited(process: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let waits = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').nth(1)?.parse::<u64>().ok()
    });
    Duration::from_nanos(waits.sum())
}

/// Resident pages of the process beyond `base` after so long. If they are more than `bound`, the time that the process had to wait for a
/// processor does not count: after that time more.
fn resident_after(time: Duration, process: u32, base: usize, bound: usize) -> usize {
    let (begun, before) = (Instant::now(), waited(process));
    let mut longest = Duration::ZERO;
    std::thread::sleep(time);
    loop {
        let resident = resident_pages(process) - base;
        // The purger's is gone when it is.
        longest = longest.max(waited(process).saturating_sub(before));
        if resident <= bound || begun.elapsed() > time + 2 * longest {
            return resident;
        }
        println!("a busy machine: {resident} pages after {:?}, of which {longest:?} were waits", begun.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Checks one line of the child's: resident pages now against what the bound allows.
fn within_bound(process: u32, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let number = |at: usize| words[at].parse::<usize>().expect("a number");
    let (base, pages, live, records) = (number(2), number(3), number(4), number(5));
    // Live bytes' pages, 2 MiB and 1 MiB a thread pinned by caches and depot, free pages retained, records.
    let bound = pages + (3 << 20 >> 12) + ((8 << 20).max(live / 8) >> 12) + (records >> 12);
    let resident = resident_after(Duration::from_secs(1), process, base, bound);
    println!(
        "{}: {} MiB live, {resident} pages resident, {bound} allowed ({pages} hold live bytes)",
        words[1],
        live >> 20
    );
    assert!(resident <= bound, "idle after {}: {resident} pages resident, {bound} allowed", words[1]);
}

#[test]
fn g14_memory_comes_back_with_no_call() {
    const NAME: &str = "rows::process::g14_memory_comes_back_with_no_call";
    if std::env::var(IDLE).is_ok() {
        crate::twin::set(std::env::var(super::TWIN).map_or(0, |twin| twin.parse().expect("a number")));
        return build_and_free();
    }
    promise(NAME, Some(14), || {
        let mut command = Command::new(std::env::current_exe().expect("this test has a path"));
        command.args(["--exact", NAME, "--nocapture"]).env(IDLE, "1");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it can be started");
        let (mut answer, lines) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut phases = 0;
        for line in BufReader::new(lines).lines().map_while(Result::ok).filter(|line| line.starts_with('@')) {
            within_bound(child.id(), &line);
            phases += 1;
            answer.write_all(b".").expect("the child listens");
        }
        assert_eq!(phases, 4);
        assert!(child.wait().expect("the child ends").success());
    });
}

#[test]
fn g10_layouts_of_the_global_allocator() {
    for (size, align) in [(1, 1), (1, 4096), (4097, 64), (10, 1 << 21), (1 << 20, 1 << 16)] {
        let of: Layout = layout(size, align);
        // SAFETY: the size is not 0.
        let at = unsafe { alloc(of) };
        assert!(!at.is_null() && (at as usize).is_multiple_of(align));
        assert!(Stratalloc::usable_size(of) >= size);
        // SAFETY: allocated above.
        unsafe { dealloc(at, of) };
    }
}
