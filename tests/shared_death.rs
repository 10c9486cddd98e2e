//! Row S10: processes that die in a shared heap, at every step and at any moment.

#![expect(clippy::disallowed_macros, reason = "what was measured is said")]
#![expect(clippy::disallowed_methods, clippy::multiple_unsafe_ops_per_block, reason = "a test asks the system itself")]

#[path = "common/diary.rs"]
mod diary;
#[path = "common/place.rs"]
mod place;
#[path = "common/random.rs"]
mod random;

use diary::{CHILD, Common, Diary, Entry, GIVEN, GOING, SIZES, SMALL};
use diary::{
    begin, begin_to_wander, count, forked, go_on, go_with_parent, in_doubt, is_painted, stride, wait_for, wander,
};
use place::Place;
use random::seed;
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};
use stratalloc::{Scheme, SharedError, SharedHeap, fault};

/// A child dies at each of its steps, one after the other.
fn die_at_each_step(name: &str, scheme: Scheme, stride: u64) {
    let place = Place::new(name);
    let heap = SharedHeap::open(&place.0, SMALL.scheme(scheme), |_| {}).expect("a heap");
    let (own, child) = (Common::<Diary>::new().0, Common::<Diary>::new().0);
    // Blocks of ours that nobody may touch.
    let kept: Vec<&Entry> =
        SIZES.into_iter().flat_map(|size| [size; 5]).filter_map(|size| own.alloc(&heap, size)).collect();
    assert_eq!(kept.len(), 5 * SIZES.len());
    fault::at_each_step(count);
    let run = |last: u64| wait_for(begin_to_wander(&heap, child, 0, last));
    assert_eq!(run(0), 0);
    let steps = child.steps.load(SeqCst);
    child.inherit(&heap);
    go_on(&heap, own);
    let (mut base, mut lost, mut deaths) = (heap.stats().allocated, 0, 0u64);
    let begun = Instant::now();
    let stride = diary::stride(stride);
    // In a campaign, each run has another begin.
    let first = 1 + seed() % stride;
    for last in (first..=steps).step_by(stride as usize) {
        let status = run(last);
        // The ways through a heap that has been used are not all equally long.
        let died = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL;
        assert!(died || status == 0, "{status:x} at {last}");
        deaths += u64::from(died);
        go_on(&heap, own);
        assert!(child.is_whole() && own.is_whole(), "blocks are as they were, at {last}");
        let doubt = child.inherit(&heap);
        let now = heap.stats().allocated;
        // What it was asking for may be lost, or come back: a block of a class may be twice as large.
        let most = in_doubt(doubt);
        assert!(
            now <= base + most && now + most >= base,
            "{base} bytes have become {now} at {last}, {}, {doubt} in doubt",
            child.last_place()
        );
        lost += now.saturating_sub(base);
        base = now;
    }
    println!(
        "{name}: {deaths} deaths at {steps} steps, {lost} bytes went with blocks in flight, {} us each",
        begun.elapsed().as_micros() / u128::from(deaths.max(1))
    );
    assert!(deaths * stride > steps / 2);
    kept.into_iter().for_each(|entry| own.free(&heap, entry));
    heap.check().expect("a sound heap");
}

#[test]
fn s10_a_process_dies_at_each_step_with_robust_mutexes() {
    die_at_each_step("s10-robust", Scheme::RobustMutex, 3);
}

#[test]
fn s10_a_process_dies_at_each_step_with_spin_locks() {
    die_at_each_step("s10-spin", Scheme::Spin, 23);
}

#[test]
fn s10_a_process_dies_at_each_step_with_file_locks() {
    die_at_each_step("s10-file", Scheme::FileLocks, 29);
}

#[test]
fn s10_a_process_dies_at_each_step_with_semaphores() {
    die_at_each_step("s10-semaphores", Scheme::Semaphores, 31);
}

/// What becomes of a process that was stopped at a step.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Dies,
    GoesOn,
}

/// How long a process stays stopped at the most: whoever needs a lock that it has waits.
const STOPPED: Duration = Duration::from_millis(60);

/// Waits until the child has ended, so long at the most; how it ended.
fn wait_so_long(process: i32, time: Duration) -> Option<i32> {
    let (begun, mut status) = (Instant::now(), 0);
    loop {
        // SAFETY: the child is ours.
        match unsafe { libc::waitpid(process, &raw mut status, libc::WNOHANG) } {
            0 if begun.elapsed() < time => std::thread::sleep(Duration::from_micros(200)),
            0 => return None,
            ended => {
                assert_eq!(ended, process);
                return Some(status);
            }
        }
    }
}

/// A process is stopped at a step. Meanwhile another one dies at one of its own, and a third mends what that left, and allocates and
/// frees; then the first dies, or goes on.
fn stop_at_steps(name: &str, scheme: Scheme, stride: u64) {
    let place = Place::new(name);
    let heap = SharedHeap::open(&place.0, SMALL.scheme(scheme), |_| {}).expect("a heap");
    let [own, stopped, victim, third] = std::array::from_fn(|_| Common::<Diary>::new().0);
    fault::at_each_step(count);
    assert_eq!(wait_for(begin_to_wander(&heap, stopped, 0, 0)), 0);
    let steps = stopped.steps.load(SeqCst);
    stopped.inherit(&heap);
    go_on(&heap, own);
    let (mut base, mut waited, mut turns) = (heap.stats().allocated, 0, 0u64);
    // Each takes as long as others wait: not all of them, however many are asked for.
    let stride = diary::stride(stride).max(13);
    for halt in (1 + seed() % stride..=steps).step_by(stride as usize) {
        for fate in [Fate::Dies, Fate::GoesOn] {
            turns += 1;
            let process = begin_to_wander(&heap, stopped, halt, 0);
            let mut status = 0;
            // SAFETY: the child is ours.
            assert_eq!(unsafe { libc::waitpid(process, &raw mut status, libc::WUNTRACED) }, process);
            if !libc::WIFSTOPPED(status) {
                // The ways through a heap that has been used are not all equally long.
                assert_eq!(status, 0);
                stopped.inherit(&heap);
                continue;
            }
            let others = begin(|| {
                wait_for(begin_to_wander(&heap, victim, 0, 1 + halt * 7919 % steps));
                heap.mend();
                wait_for(begin_to_wander(&heap, third, 0, 0));
            });
            let ended = wait_so_long(others, STOPPED);
            let signal = if fate == Fate::Dies { libc::SIGKILL } else { libc::SIGCONT };
            // SAFETY: a child of ours, which nobody has waited for.
            assert_eq!(unsafe { libc::kill(process, signal) }, 0);
            let status = wait_for(process);
            assert_eq!(status, if fate == Fate::Dies { libc::SIGKILL } else { 0 }, "{fate:?} at {halt}");
            waited += u64::from(ended.is_none());
            assert_eq!(ended.unwrap_or_else(|| wait_for(others)), 0, "{fate:?} at {halt}");
            go_on(&heap, own);
            let diaries = [stopped, victim, third];
            assert!(diaries.iter().all(|diary| diary.is_whole()), "blocks are as they were, {fate:?} at {halt}");
            let most: usize = diaries.iter().map(|diary| in_doubt(diary.inherit(&heap))).sum();
            let now = heap.stats().allocated;
            assert!(
                now <= base + most && now + most >= base,
                "{base} bytes have become {now}, with {most} in doubt: {fate:?} at {halt}, {}",
                stopped.last_place()
            );
            base = now;
        }
    }
    println!("{name}: {turns} turns at {steps} steps, in {waited} of which others waited for who was stopped");
    assert!(turns > 20);
}

#[test]
fn s10_a_process_is_stopped_at_a_step_while_others_die_and_mend_with_robust_mutexes() {
    stop_at_steps("s10-stop-robust", Scheme::RobustMutex, 211);
}

#[test]
fn s10_a_process_is_stopped_at_a_step_while_others_die_and_mend_with_spin_locks() {
    stop_at_steps("s10-stop-spin", Scheme::Spin, 401);
}

#[test]
fn s10_a_process_is_stopped_at_a_step_while_others_die_and_mend_with_file_locks() {
    stop_at_steps("s10-stop-file", Scheme::FileLocks, 409);
}

#[test]
fn s10_a_process_is_stopped_at_a_step_while_others_die_and_mend_with_semaphores() {
    stop_at_steps("s10-stop-semaphores", Scheme::Semaphores, 419);
}

/// Busy processes.
const WORKERS: usize = 4;

/// What the processes of a test share.
struct Town {
    diaries: [Diary; WORKERS],
    /// Calls that each has done.
    calls: [AtomicU64; WORKERS],
    ends: AtomicUsize,
}

fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Allocates, changes and frees, its own blocks and those of others, until it is told to end.
fn bustle(heap: &SharedHeap, town: &Town, me: usize, seed: u64) {
    let (own, mut state) = (&town.diaries[me], seed | 1);
    // It comes in, and takes its seat, before it has anything to free.
    own.asking.store(8, SeqCst);
    // SAFETY: ours.
    unsafe { heap.free(heap.malloc(8)) };
    own.asking.store(0, SeqCst);
    while town.ends.load(Relaxed) == 0 {
        let dice = next(&mut state);
        let size = SIZES[dice as usize % SIZES.len()];
        let entry = &own.entries[(dice >> 8) as usize % 256];
        let at = entry.at.load(SeqCst);
        match (at, dice >> 20 & 7) {
            (0, _) => drop(own.alloc_in(heap, size, entry)),
            (_, 0..=4) if at & GOING == 0 => {
                assert!(is_painted(at as *mut u8, entry.size.load(SeqCst), entry.seed.load(SeqCst)));
                own.free(heap, entry);
            }
            _ => {
                // A block that another one has made.
                let theirs = &town.diaries[(dice >> 24) as usize % WORKERS].given[(dice >> 32) as usize % GIVEN];
                let block = theirs.swap(0, SeqCst);
                if block != 0 {
                    own.asking.store(64, SeqCst);
                    // SAFETY: live, and ours now.
                    unsafe { heap.free(block as *mut u8) };
                    own.asking.store(0, SeqCst);
                }
                let ours = &own.given[(dice >> 40) as usize % GIVEN];
                if ours.load(SeqCst) == 0 {
                    own.asking.store(64, SeqCst);
                    let block = heap.malloc(64);
                    ours.store(block as usize, SeqCst);
                    own.asking.store(0, SeqCst);
                }
            }
        }
        town.calls[me].store(town.calls[me].load(Relaxed) + 1, Relaxed);
    }
}

/// Starts a worker.
fn start(heap: &SharedHeap, town: &'static Town, me: usize, seed: u64) -> i32 {
    begin(|| {
        CHILD.store(std::ptr::from_ref(&town.diaries[me]) as usize, SeqCst);
        // SAFETY: the child has its own copy of the heap, and nobody else in it uses that.
        let heap = unsafe { std::ptr::read(heap) };
        bustle(&heap, town, me, seed);
        drop(heap);
    })
}

/// Says behind which steps processes were killed.
fn say_where(histogram: BTreeMap<(&str, u32), u32>) {
    let mut places: Vec<_> = histogram.into_iter().collect();
    places.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for ((file, line), count) in places {
        println!("{count:6} behind {file}:{line}");
    }
}

/// Kills busy processes at random moments, so many times.
fn kill_at_random(name: &str, scheme: Scheme, kills: u32) {
    let place = Place::new(name);
    let heap = SharedHeap::open(&place.0, SMALL.scheme(scheme), |_| {}).expect("a heap");
    let town = Common::<Town>::new().0;
    fault::at_each_step(count);
    let mut seed = 0x9e37_79b9_7f4a_7c15;
    let base = heap.stats().allocated;
    let mut workers: Vec<i32> = (0..WORKERS).map(|me| start(&heap, town, me, next(&mut seed))).collect();
    let mut longest = Duration::ZERO;
    let (mut inside, mut doubts, mut histogram) = (0u32, 0usize, BTreeMap::<(&str, u32), u32>::new());
    for kill in 0..kills {
        std::thread::sleep(Duration::from_micros(next(&mut seed) % 2000));
        let victim = next(&mut seed) as usize % WORKERS;
        // SAFETY: a child of ours, which nobody has waited for.
        assert_eq!(unsafe { libc::kill(workers[victim], libc::SIGKILL) }, 0);
        let status = wait_for(workers[victim]);
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL, "{status:x} at {kill}");
        let diary = &town.diaries[victim];
        let doubt = diary.asking.swap(0, SeqCst);
        if doubt != 0 {
            inside += 1;
            doubts += in_doubt(doubt);
            let place = diary.last_place();
            *histogram.entry((place.file(), place.line())).or_default() += 1;
        }
        diary.settle(&heap);
        assert!(diary.is_whole(), "its blocks are as they were, at {kill}");
        let before: Vec<u64> = town.calls.iter().map(|calls| calls.load(SeqCst)).collect();
        workers[victim] = start(&heap, town, victim, next(&mut seed));
        if kill % 64 == 0 {
            let begun = Instant::now();
            while (0..WORKERS).any(|at| town.calls[at].load(SeqCst) == before[at]) {
                // On a machine that is busy with other things, too; what it took is said below.
                assert!(begun.elapsed() < Duration::from_secs(30), "all go on, at {kill}");
                std::thread::yield_now();
            }
            longest = longest.max(begun.elapsed());
            heap.check().expect("a sound heap");
        }
    }
    town.ends.store(1, SeqCst);
    workers.into_iter().for_each(|worker| assert_eq!(wait_for(worker), 0));
    heap.mend();
    heap.check().expect("a sound heap");
    for diary in &town.diaries {
        assert!(diary.is_whole());
        diary.inherit(&heap);
        for block in &diary.given {
            // SAFETY: live, and nobody's any more.
            unsafe { heap.free(block.swap(0, SeqCst) as *mut u8) };
        }
    }
    let lost = heap.stats().allocated - base;
    println!(
        "{name}: {kills} kills, {inside} of them inside the heap, {lost} bytes went with blocks in flight, \
         all went on within {longest:?}"
    );
    say_where(histogram);
    assert!(inside * 10 >= kills * 3, "{inside} of {kills} kills fell inside the heap");
    assert!(lost <= doubts, "no more is lost than what was in flight: {lost} of {doubts}");
}

/// All processes die at once, and the file is copied: so it is as after a loss of power, with locks that nobody will ever give
/// back. Whoever opens the copy goes on.
fn all_die_at_once(name: &str, scheme: Scheme) {
    let (place, copy) = (Place::new(name), Place::new(&format!("{name}-copy")));
    let town = Common::<Town>::new().0;
    fault::at_each_step(count);
    let mut seed = 0x1234_5678_9abc_def1;
    for turn in 0..8 {
        let heap = SharedHeap::open(&place.0, SMALL.scheme(scheme), |_| {}).expect("a heap");
        let workers: Vec<i32> = (0..WORKERS).map(|me| start(&heap, town, me, next(&mut seed))).collect();
        std::thread::sleep(Duration::from_millis(2 + turn));
        for worker in &workers {
            // SAFETY: a child of ours, which nobody has waited for.
            assert_eq!(unsafe { libc::kill(*worker, libc::SIGKILL) }, 0);
        }
        workers.into_iter().for_each(|worker| assert_ne!(wait_for(worker), 0));
        // This process has nothing to give back, and leaves as if it had been killed, too.
        let span = heap.span();
        fs::copy(&place.0, &copy.0).expect("a copy");
        drop(heap);
        let heap = SharedHeap::open(&copy.0, SMALL, |_| {}).expect("a heap");
        assert_eq!((heap.span(), heap.scheme()), (span, scheme));
        heap.check().expect("a sound heap");
        for diary in &town.diaries {
            diary.asking.store(0, SeqCst);
            diary.settle(&heap);
            assert!(diary.is_whole(), "blocks are as they were");
        }
        drop(heap);
        fs::rename(&copy.0, &place.0).expect("the copy is the heap");
    }
    let heap = SharedHeap::open(&place.0, SMALL, |_| {}).expect("a heap");
    go_on(&heap, Common::<Diary>::new().0);
}

#[test]
fn s10_all_processes_die_at_once_with_robust_mutexes() {
    all_die_at_once("s10-all-robust", Scheme::RobustMutex);
}

#[test]
fn s10_all_processes_die_at_once_with_spin_locks() {
    all_die_at_once("s10-all-spin", Scheme::Spin);
}

#[test]
fn s10_all_processes_die_at_once_with_file_locks() {
    all_die_at_once("s10-all-file", Scheme::FileLocks);
}

#[test]
fn s10_all_processes_die_at_once_with_semaphores() {
    all_die_at_once("s10-all-semaphores", Scheme::Semaphores);
}

/// A process forks, and dies inside of the heap while its child lives on, idle: the others go on all the same.
fn a_child_outlives_its_parent(name: &str, scheme: Scheme) {
    let place = Place::new(name);
    let heap = SharedHeap::open(&place.0, SMALL.scheme(scheme), |_| {}).expect("a heap");
    let (diary, idle) = (Common::<Diary>::new().0, Common::<AtomicU64>::new().0);
    fault::at_each_step(count);
    for turn in 0..20 {
        let status = forked(|| {
            // A heap of its own, so that what it has open is no other's.
            // SAFETY: the child has its own copy of the heap, and nobody else in it uses that.
            let heap = unsafe { std::ptr::read(&raw const heap) };
            let block = heap.malloc(8);
            // SAFETY: no preconditions.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: no preconditions. It ends by itself, should nobody end it.
                unsafe { libc::alarm(20) };
                loop {
                    // SAFETY: as above.
                    unsafe { libc::pause() };
                }
            }
            idle.store(child as u64, SeqCst);
            // SAFETY: ours.
            unsafe { heap.free(block) };
            diary.steps.store(0, SeqCst);
            diary.last.store(40 + 97 * turn, SeqCst);
            CHILD.store(std::ptr::from_ref(diary) as usize, SeqCst);
            wander(&heap, diary);
        });
        assert!(libc::WIFSIGNALED(status), "{status:x}");
        go_on(&heap, Common::<Diary>::new().0);
        // The idle child may not have run yet, and so not let go of what it had from its parent.
        let begun = Instant::now();
        while heap.stats().threads > 1 {
            assert!(begun.elapsed() < Duration::from_secs(10), "the dead one's cache comes back, at {turn}");
            std::thread::sleep(Duration::from_millis(1));
            heap.mend();
        }
        // SAFETY: started above, and alive.
        unsafe { libc::kill(idle.load(SeqCst) as i32, libc::SIGKILL) };
        diary.inherit(&heap);
    }
}

#[test]
fn s10_a_forked_child_does_not_keep_its_dead_parents_locks() {
    for scheme in [Scheme::RobustMutex, Scheme::Spin, Scheme::FileLocks, Scheme::Semaphores] {
        a_child_outlives_its_parent("s10-orphan", scheme);
    }
}

/// All places for guests are taken, one by a process that does nothing, and all others die at once: there is room again, though
/// nobody has mended the heap before.
#[test]
fn s10_who_comes_last_frees_the_places_of_the_dead() {
    const MOST: usize = 512;
    let place = Place::new("s10-full");
    let heap = SharedHeap::open(&place.0, SMALL, |_| {}).expect("a heap");
    let here = Common::<AtomicUsize>::new().0;
    let come = || {
        begin(|| {
            heap.register_child().expect("a place");
            here.fetch_add(1, SeqCst);
            // SAFETY: no preconditions. It ends by itself, should nobody end it.
            unsafe { libc::alarm(300) };
            loop {
                // SAFETY: as above.
                unsafe { libc::pause() };
            }
        })
    };
    let refused = || {
        wait_for(begin(|| {
            let error = heap.register_child().expect_err("all places are taken");
            assert!(matches!(error, SharedError::Full), "{error}");
        }))
    };
    for _ in 0..2 {
        here.store(0, SeqCst);
        let guests: Vec<i32> = (1..MOST).map(|_| come()).collect();
        let begun = Instant::now();
        while here.load(SeqCst) < guests.len() {
            assert!(begun.elapsed() < Duration::from_secs(300), "{} of {} came", here.load(SeqCst), guests.len());
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(refused(), 0);
        for guest in &guests {
            // SAFETY: a child of ours, which nobody has waited for.
            assert_eq!(unsafe { libc::kill(*guest, libc::SIGKILL) }, 0);
        }
        guests.into_iter().for_each(|guest| assert_eq!(wait_for(guest), libc::SIGKILL));
    }
    go_on(&heap, Common::<Diary>::new().0);
}

/// Kills for each scheme; the environment may ask for more.
fn kills(usual: u32) -> u32 {
    env::var("SHARED_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[test]
fn s10_busy_processes_are_killed_at_random_moments_with_robust_mutexes() {
    kill_at_random("s10-random-robust", Scheme::RobustMutex, kills(10_000));
}

#[test]
fn s10_busy_processes_are_killed_at_random_moments_with_spin_locks() {
    kill_at_random("s10-random-spin", Scheme::Spin, kills(1000));
}

#[test]
fn s10_busy_processes_are_killed_at_random_moments_with_file_locks() {
    kill_at_random("s10-random-file", Scheme::FileLocks, kills(1000));
}

#[test]
fn s10_busy_processes_are_killed_at_random_moments_with_semaphores() {
    kill_at_random("s10-random-semaphores", Scheme::Semaphores, kills(1000));
}

/// Instructions of a traced child's, one after the other, until it stops itself; how many there were, at most `most`.
fn step_through(process: i32, most: u64) -> u64 {
    for step in 0..most {
        // SAFETY: a child of ours, which is stopped.
        let result = unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, process, 0, 0) };
        assert_eq!(result, 0);
        let mut status = 0;
        // SAFETY: as above.
        assert_eq!(unsafe { libc::waitpid(process, &raw mut status, 0) }, process);
        assert!(libc::WIFSTOPPED(status), "{status:x}");
        if libc::WSTOPSIG(status) != libc::SIGTRAP {
            return step;
        }
    }
    most
}

fn stop() {
    // SAFETY: no preconditions.
    unsafe { libc::raise(libc::SIGSTOP) };
}

/// A child is killed after each instruction of `call`, which `prepare` prepares.
fn die_at_each_instruction(
    name: &str,
    prepare: impl Fn(&SharedHeap, &Diary) -> usize,
    call: impl Fn(&SharedHeap, &Diary, usize),
) {
    let place = Place::new(name);
    let heap = SharedHeap::open(&place.0, SMALL.max_size(2 << 30), |_| {}).expect("a heap");
    let (own, child) = (Common::<Diary>::new().0, Common::<Diary>::new().0);
    for size in SIZES {
        own.alloc(&heap, size).expect("memory");
    }
    let begin = || {
        // SAFETY: the child calls nothing but the heap and the system.
        let process = unsafe { libc::fork() };
        assert!(process >= 0);
        if process == 0 {
            go_with_parent();
            let prepared = prepare(&heap, child);
            // SAFETY: no preconditions.
            assert_eq!(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) }, 0);
            stop();
            call(&heap, child, prepared);
            stop();
            // SAFETY: no preconditions.
            unsafe { libc::_exit(0) };
        }
        let mut status = 0;
        // SAFETY: the child is ours.
        assert_eq!(unsafe { libc::waitpid(process, &raw mut status, 0) }, process);
        assert!(libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGSTOP, "{status:x}");
        process
    };
    let kill = |process: i32| {
        // SAFETY: a child of ours, which nobody has waited for.
        assert_eq!(unsafe { libc::kill(process, libc::SIGKILL) }, 0);
        wait_for(process);
    };
    let (begun, mut deaths, mut lost) = (Instant::now(), 0u64, 0);
    let mut base = heap.stats().allocated;
    // In a campaign, each run has another begin.
    let stride = stride(8);
    let mut most_steps = seed() % stride;
    loop {
        let process = begin();
        let is_done = step_through(process, most_steps) < most_steps;
        kill(process);
        deaths += 1;
        most_steps += stride;
        heap.mend();
        assert!(child.is_whole() && own.is_whole(), "blocks are as they were, after {deaths} instructions");
        if deaths.is_multiple_of(16) || is_done {
            go_on(&heap, own);
        }
        let doubt = child.inherit(&heap);
        let now = heap.stats().allocated;
        let most = in_doubt(doubt);
        assert!(now <= base + most && now + most >= base, "{base} bytes have become {now} after {deaths} instructions");
        lost += now.saturating_sub(base);
        base = now;
        if is_done {
            break;
        }
    }
    let every = if stride == 1 { String::from("each") } else { format!("each {stride}-th") };
    println!(
        "{name}: {deaths} deaths, after {every} instruction, in {:?}, {lost} bytes were in flight",
        begun.elapsed()
    );
}

#[test]
fn s10_a_process_is_killed_after_each_instruction_of_a_first_malloc_and_free() {
    let call = |heap: &SharedHeap, diary: &Diary, _: usize| {
        diary.asking.store(200, SeqCst);
        let block = heap.malloc(200);
        // SAFETY: ours.
        unsafe { heap.free(block) };
        diary.asking.store(0, SeqCst);
    };
    let prepare = |heap: &SharedHeap, _: &Diary| {
        // SAFETY: ours.
        unsafe { heap.free(heap.malloc(8)) };
        0
    };
    die_at_each_instruction("s10-instructions-first", prepare, call);
}

#[test]
fn s10_a_process_is_killed_after_each_instruction_of_a_free_that_spills() {
    let prepare = |heap: &SharedHeap, diary: &Diary| {
        let target = heap.stats().classes.iter().find(|class| class.size >= 2000).map_or(4, |class| class.target);
        let mut blocks = [std::ptr::null_mut(); 256];
        let count = (2 * target as usize + 1).min(256);
        blocks[..count].fill_with(|| heap.malloc(2000));
        for block in &blocks[1..count] {
            // SAFETY: ours.
            unsafe { heap.free(*block) };
        }
        diary.asking.store(2000, SeqCst);
        blocks[0] as usize
    };
    let call = |heap: &SharedHeap, diary: &Diary, block: usize| {
        // SAFETY: ours.
        unsafe { heap.free(block as *mut u8) };
        diary.asking.store(0, SeqCst);
    };
    die_at_each_instruction("s10-instructions-spill", prepare, call);
}

#[test]
fn s10_a_process_is_killed_after_each_instruction_of_a_malloc_and_free_of_pages() {
    let call = |heap: &SharedHeap, diary: &Diary, _: usize| {
        diary.asking.store(300_000, SeqCst);
        let block = heap.malloc(300_000);
        // SAFETY: ours.
        unsafe { heap.free(block) };
        diary.asking.store(0, SeqCst);
    };
    let prepare = |heap: &SharedHeap, _: &Diary| {
        // SAFETY: ours.
        unsafe { heap.free(heap.malloc(8)) };
        0
    };
    die_at_each_instruction("s10-instructions-pages", prepare, call);
}
