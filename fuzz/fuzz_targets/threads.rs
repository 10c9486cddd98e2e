//! Several threads on one heap, and a schedule that the script dictates: at every lock that is taken or given back, it says
//! who goes on.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use stratalloc::Config;
use stratalloc::heap::Engine;
use stratalloc::lock::RawLock;
use stratalloc_fuzz::oracle::{Pool, assert_empty, with_player};
use stratalloc_fuzz::script::{Step, burst};
use stratalloc_fuzz::tracked::Tracked;

/// Threads at the most.
const THREADS: usize = 4;
/// Steps of a thread at the most.
const STEPS: usize = 40;

#[derive(Arbitrary, Debug)]
struct Script {
    threads: [Vec<(u8, Step)>; THREADS],
    /// Who goes on, at each point.
    schedule: Vec<u8>,
}

/// Whose turn it is.
struct Turns {
    schedule: Vec<u8>,
    at: usize,
    /// The threads that have not ended, by number.
    running: Vec<usize>,
    current: usize,
}

static TURNS: Mutex<Turns> = Mutex::new(Turns { schedule: Vec::new(), at: 0, running: Vec::new(), current: 0 });
static CHANGED: Condvar = Condvar::new();

thread_local! {
    /// This thread's number, if it takes turns.
    static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
}

fn turns() -> MutexGuard<'static, Turns> {
    TURNS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Turns {
    /// Picks who goes on: as the script says, and in turn when it has ended.
    fn advance(&mut self) {
        let pick = self.schedule.get(self.at).map_or(self.at, |byte| usize::from(*byte));
        self.at += 1;
        if let Some(place) = pick.checked_rem(self.running.len()) {
            self.current = self.running[place];
        }
        CHANGED.notify_all();
    }
}

/// Waits until it is this thread's turn.
fn wait(number: usize) {
    let mut turns = turns();
    while turns.current != number {
        turns = CHANGED.wait(turns).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Where another thread may go on.
fn point() {
    if let Some(number) = NUMBER.get() {
        turns().advance();
        wait(number);
    }
}

/// A spin lock at which the script decides who goes on.
struct Scripted(AtomicBool);

// SAFETY: excludes; Acquire and Release order what it guards.
unsafe impl RawLock for Scripted {
    const NEW: Self = Self(AtomicBool::new(false));

    fn acquire(&self) {
        point();
        while self.0.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            point();
        }
    }

    unsafe fn release(&self) {
        self.0.store(false, Ordering::Release);
        point();
    }
}

/// Ends this thread's turns, also if it panics.
struct Turn;

impl Drop for Turn {
    fn drop(&mut self) {
        let number = NUMBER.take();
        let mut turns = turns();
        turns.running.retain(|running| Some(*running) != number);
        turns.advance();
    }
}

fuzz_target!(|script: Script| {
    let engine = Engine::<_, Scripted>::new(Tracked::default());
    if !engine.open(&Config::new().idle_bytes(256 << 10)) {
        return;
    }
    let pool = Pool::default();
    *turns() = Turns { schedule: script.schedule, at: 0, running: (0..THREADS).collect(), current: 0 };
    std::thread::scope(|scope| {
        for (number, steps) in script.threads.iter().enumerate() {
            let (engine, pool) = (&engine, &pool);
            scope.spawn(move || {
                NUMBER.set(Some(number));
                let _turn = Turn;
                wait(number);
                with_player(engine, pool, number as u64 + 1, |player| {
                    for (times, step) in steps.iter().take(STEPS) {
                        player.play_burst(burst(*times / 2 + 80, *step));
                    }
                });
            });
        }
    });
    with_player(&engine, &pool, 0, |player| player.finish());
    assert_empty(&engine);
});
