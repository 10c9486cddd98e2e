//! What is done with a heap: by one thread, and by two threads or processes at once.

use super::memory::{Memory, shared};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::time::Instant;

/// How long a heap is at it at a time.
const NANOSECONDS: u64 = 60_000_000;
/// Blocks that live at once where blocks are replaced.
const LIVE: usize = 4096;
/// Blocks that may be under way from one side to the other.
const UNDER_WAY: usize = 1024;
/// Seconds after which a process that does not come to its end is ended.
const PATIENCE: u32 = 20;
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// What one turn took, in nanoseconds.
#[derive(Clone, Copy)]
pub(crate) struct Took {
    /// As time passes.
    pub(crate) wall: f64,
    /// Of a thread's CPU time.
    pub(crate) cpu: f64,
}

fn now(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place is ours.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The calling thread, from some moment on.
struct Watch {
    wall: u64,
    cpu: u64,
}

impl Watch {
    fn start() -> Self {
        Self { wall: now(libc::CLOCK_MONOTONIC), cpu: now(libc::CLOCK_THREAD_CPUTIME_ID) }
    }

    /// Runs laps of so many turns each for a while; how many turns that were.
    fn laps(&self, turns: u64, mut lap: impl FnMut()) -> u64 {
        let mut all = 0;
        while now(libc::CLOCK_MONOTONIC) < self.wall + NANOSECONDS {
            lap();
            all += turns;
        }
        all
    }

    fn took(&self, turns: u64) -> Took {
        let one = |from: u64, clock| (now(clock) - from) as f64 / turns as f64;
        Took { wall: one(self.wall, libc::CLOCK_MONOTONIC), cpu: one(self.cpu, libc::CLOCK_THREAD_CPUTIME_ID) }
    }
}

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A size from 16 on, below 16 doubled so often; each doubling is as likely as any other.
    fn size(&mut self, doublings: u64) -> usize {
        let bits = self.next();
        let least = 16 << (bits % doublings);
        least + ((bits >> 32) as usize & (least - 1))
    }
}

/// A block, freed at once.
#[inline(never)]
pub(crate) fn pair<M: Memory>(memory: &M) -> Took {
    let watch = Watch::start();
    let turns = watch.laps(1000, || {
        for _ in 0..1000 {
            let block = memory.alloc(64);
            // SAFETY: from there.
            unsafe { memory.free(block, 64) };
        }
    });
    watch.took(turns)
}

/// A hundred blocks, then all of them freed.
#[inline(never)]
fn batch<M: Memory>(memory: &M, mut size: impl FnMut(&mut Random) -> usize) -> Took {
    let (mut blocks, mut random) = ([(null_mut(), 0); 100], Random(SEED));
    let watch = Watch::start();
    let turns = watch.laps(1000, || {
        for _ in 0..10 {
            for block in &mut blocks {
                let bytes = size(&mut random);
                *block = (memory.alloc(bytes), bytes);
            }
            for (block, bytes) in blocks {
                // SAFETY: from there.
                unsafe { memory.free(block, bytes) };
            }
        }
    });
    watch.took(turns)
}

/// … of 64 bytes each.
pub(crate) fn batch_of_one_size<M: Memory>(memory: &M) -> Took {
    batch(memory, |_| 64)
}

/// … of sizes below 1 KiB.
pub(crate) fn batch_of_sizes<M: Memory>(memory: &M) -> Took {
    batch(memory, |random| random.size(6))
}

/// Blocks of many sizes that live at once.
struct Live<'a, M: Memory> {
    memory: &'a M,
    blocks: Vec<(*mut u8, usize)>,
    random: Random,
}

impl<'a, M: Memory> Live<'a, M> {
    fn new(memory: &'a M, seed: u64) -> Self {
        let mut live = Self { memory, blocks: Vec::with_capacity(LIVE), random: Random(seed) };
        for _ in 0..LIVE {
            let block = live.block();
            live.blocks.push(block);
        }
        live
    }

    #[inline]
    fn block(&mut self) -> (*mut u8, usize) {
        let bytes = self.random.size(7);
        let block = self.memory.alloc(bytes);
        // SAFETY: ours, and so large.
        unsafe { block.write(1) };
        // SAFETY: as above.
        let last = unsafe { block.add(bytes - 1) };
        // SAFETY: as above.
        unsafe { last.write(1) };
        (block, bytes)
    }

    /// Frees one and has another in its place, so often.
    #[inline(never)]
    fn replace(&mut self, turns: u64) {
        for _ in 0..turns {
            let at = self.random.next() as usize % LIVE;
            let (block, bytes) = self.blocks[at];
            // SAFETY: from there.
            unsafe { self.memory.free(block, bytes) };
            self.blocks[at] = self.block();
        }
    }
}

impl<M: Memory> Drop for Live<'_, M> {
    fn drop(&mut self) {
        for (block, bytes) in self.blocks.drain(..) {
            // SAFETY: from there.
            unsafe { self.memory.free(block, bytes) };
        }
    }
}

/// Blocks replaced by others.
pub(crate) fn mixed<M: Memory>(memory: &M) -> Took {
    let mut live = Live::new(memory, SEED);
    let watch = Watch::start();
    let turns = watch.laps(200, || live.replace(200));
    watch.took(turns)
}

/// What two sides share that work at once.
#[repr(C)]
pub(crate) struct Meeting {
    /// Who may begin.
    ready: AtomicU32,
    expected: AtomicU32,
    /// What each did: turns, and nanoseconds.
    turns: [AtomicU64; 2],
    wall: [AtomicU64; 2],
    cpu: [AtomicU64; 2],
    ring: Ring,
}

/// A line of its own, and the one that the processor fetches with it.
#[repr(C, align(128))]
struct Apart(AtomicUsize);

/// Blocks on their way from one side to the other.
#[repr(C)]
struct Ring {
    put: Apart,
    taken: Apart,
    places: [AtomicPtr<u8>; UNDER_WAY],
}

/// Waits until there is something.
#[inline]
fn wait<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..200 {
        if let Some(found) = look() {
            return found;
        }
        std::hint::spin_loop();
    }
    let begun = Instant::now();
    loop {
        std::thread::yield_now();
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed().as_secs() < u64::from(PATIENCE), "the other side is stuck");
    }
}

/// What a side does.
#[derive(Clone, Copy)]
enum Task {
    Produce,
    Consume,
    Replace,
}

impl Meeting {
    /// A place for two to meet.
    pub(crate) fn new() -> &'static Self {
        // SAFETY: zeros are one, and it stays.
        unsafe { shared::<Self>().as_ref() }
    }

    /// Nobody is there any more, and the next meeting is of so many.
    fn expect(&self, count: u32) {
        self.ready.store(0, Relaxed);
        self.ring.put.0.store(0, Relaxed);
        self.ring.taken.0.store(0, Relaxed);
        self.expected.store(count, Release);
    }

    /// Waits for the other side.
    fn begin(&self) -> Watch {
        self.ready.fetch_add(1, Release);
        wait(|| (self.ready.load(Acquire) == self.expected.load(Relaxed)).then_some(()));
        Watch::start()
    }

    fn report(&self, side: usize, turns: u64, took: Took) {
        self.turns[side].store(turns, Relaxed);
        self.wall[side].store((took.wall * turns as f64) as u64, Relaxed);
        self.cpu[side].store((took.cpu * turns as f64) as u64, Release);
    }

    fn of(&self, values: &[AtomicU64; 2], side: usize) -> f64 {
        values[side].load(Acquire) as f64
    }

    /// What a turn of both sides took; its CPU time is that of whoever is last.
    fn passed(&self) -> Took {
        let each = |values| self.of(values, 1) / self.of(&self.turns, 1);
        Took { wall: each(&self.wall), cpu: each(&self.cpu) }
    }

    /// What a turn took of those that both did, side by side.
    fn beside(&self) -> Took {
        let rate = |values, side| self.of(&self.turns, side) / self.of(values, side);
        let each = |values| 1.0 / (rate(values, 0) + rate(values, 1));
        Took { wall: each(&self.wall), cpu: each(&self.cpu) }
    }

    fn work<M: Memory>(&self, memory: &M, side: usize, task: Task) {
        stay_on(side);
        let (turns, took) = match task {
            Task::Produce => self.produce(memory),
            Task::Consume => self.consume(memory),
            Task::Replace => {
                let mut live = Live::new(memory, SEED + side as u64);
                let watch = self.begin();
                let turns = watch.laps(200, || live.replace(200));
                (turns, watch.took(turns))
            }
        };
        self.report(side, turns, took);
    }

    fn produce<M: Memory>(&self, memory: &M) -> (u64, Took) {
        let block = memory.alloc(64);
        // SAFETY: from there.
        unsafe { memory.free(block, 64) };
        let (mut put, mut taken) = (0, 0);
        let mut pass = |block| {
            if put - taken == UNDER_WAY {
                taken = wait(|| Some(self.ring.taken.0.load(Acquire)).filter(|taken| put - taken < UNDER_WAY));
            }
            self.ring.places[put % UNDER_WAY].store(block, Relaxed);
            put += 1;
            // Release: the block, and what is in it.
            self.ring.put.0.store(put, Release);
        };
        let watch = self.begin();
        let mut word = 0;
        let turns = watch.laps(200, || {
            for _ in 0..200 {
                let block = memory.alloc(64);
                // SAFETY: ours, and large enough.
                unsafe { block.cast::<u64>().write(word) };
                word += 1;
                pass(block);
            }
        });
        pass(null_mut());
        (turns, watch.took(turns))
    }

    fn consume<M: Memory>(&self, memory: &M) -> (u64, Took) {
        let block = memory.alloc(64);
        // SAFETY: from there.
        unsafe { memory.free(block, 64) };
        let (mut put, mut taken) = (0, 0);
        let watch = self.begin();
        loop {
            if put == taken {
                put = wait(|| Some(self.ring.put.0.load(Acquire)).filter(|put| *put != taken));
            }
            let block = self.ring.places[taken % UNDER_WAY].load(Relaxed);
            if block.is_null() {
                return (taken as u64, watch.took(taken as u64));
            }
            // SAFETY: the other side wrote it.
            let word = unsafe { block.cast::<u64>().read() };
            assert!(word == taken as u64, "the blocks come as they were put");
            // SAFETY: from there, and nobody else has it.
            unsafe { memory.free(block, 64) };
            taken += 1;
            // Release: the place may be used again.
            self.ring.taken.0.store(taken, Release);
        }
    }

    /// One thread allocates, another frees.
    pub(crate) fn between_threads<M: Memory>(&self, memory: &M) -> Took {
        self.expect(2);
        std::thread::scope(|scope| {
            scope.spawn(|| self.work(memory, 0, Task::Produce));
            scope.spawn(|| self.work(memory, 1, Task::Consume));
        });
        self.passed()
    }

    /// One process allocates, another frees; `None` if they got stuck.
    pub(crate) fn between_processes<M: Memory>(&self, memory: &M) -> Option<Took> {
        self.processes(memory, &[(0, Task::Produce), (1, Task::Consume)]).then(|| self.passed())
    }

    /// A process replaces blocks, on one processor and then another on the other; `None` if one got stuck.
    pub(crate) fn one_by_one<M: Memory>(&self, memory: &M) -> Option<Took> {
        let both = self.processes(memory, &[(0, Task::Replace)]) && self.processes(memory, &[(1, Task::Replace)]);
        both.then(|| {
            let Took { wall, cpu } = self.beside();
            Took { wall: 2.0 * wall, cpu: 2.0 * cpu }
        })
    }

    /// Two processes replace blocks, each its own, at once; `None` if they got stuck.
    pub(crate) fn side_by_side<M: Memory>(&self, memory: &M) -> Option<Took> {
        self.processes(memory, &[(0, Task::Replace), (1, Task::Replace)]).then(|| self.beside())
    }

    /// Runs a process for each side's task; false if one did not come to its end.
    fn processes<M: Memory>(&self, memory: &M, tasks: &[(usize, Task)]) -> bool {
        self.expect(tasks.len() as u32);
        let start = |(side, task): &(usize, Task)| {
            fork(|| {
                memory.join();
                self.work(memory, *side, *task);
                // SAFETY: the process ends.
                unsafe { memory.leave() };
            })
        };
        let processes: Vec<libc::pid_t> = tasks.iter().map(start).collect();
        processes.into_iter().fold(true, |all, process| {
            let mut status = 0;
            // SAFETY: our child, and nobody else waits for it.
            let ended = unsafe { libc::waitpid(process, &raw mut status, 0) };
            all && ended == process && status == 0
        })
    }
}

/// The calling thread stays on a processor: each side has its own, if there are two. (They need not be equally fast, and a
/// thread that is alone might get the faster one.)
fn stay_on(side: usize) {
    // SAFETY: zero bits are a set.
    let mut allowed = unsafe { MaybeUninit::<libc::cpu_set_t>::zeroed().assume_init() };
    let mut one = allowed;
    // SAFETY: a set, and how large it is.
    unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut allowed) };
    // SAFETY: a number within the set.
    let numbers = (0..libc::CPU_SETSIZE as usize).filter(|number| unsafe { libc::CPU_ISSET(*number, &allowed) });
    let numbers: Vec<usize> = numbers.take(2).collect();
    let Some(number) = numbers.get(side % numbers.len().max(1)) else { return };
    // SAFETY: as above.
    unsafe { libc::CPU_SET(*number, &mut one) };
    // SAFETY: as above. Where it may not, it runs where it did.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const one) };
}

/// Forks a process that does so and ends. No other thread is there.
fn fork(work: impl FnOnce()) -> libc::pid_t {
    // SAFETY: this thread is alone.
    let process = unsafe { libc::fork() };
    assert!(process >= 0, "a process");
    if process != 0 {
        return process;
    }
    // SAFETY: no preconditions.
    unsafe { libc::alarm(PATIENCE) };
    let well = catch_unwind(AssertUnwindSafe(work)).is_ok();
    // SAFETY: no preconditions.
    unsafe { libc::_exit(i32::from(!well)) }
}
