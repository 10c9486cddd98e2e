//! The agent by itself, with a body that does what it is told at once.

use super::{Agent, Body};
use core::ffi::c_void;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::format;
use std::thread::yield_now;
use std::time::{Duration, Instant};

/// What the threads of this file are called, for them to be counted among those of other tests.
const NAME: &core::ffi::CStr = c"an agent's test";

static AGENT: Agent = Agent::new();
static AGENT_OF_NOBODY: Agent = Agent::new();
static BEGUN: AtomicU32 = AtomicU32::new(0);
static MAY_GO: AtomicBool = AtomicBool::new(false);

extern "C" fn body(_: *mut c_void) -> *mut c_void {
    // SAFETY: the name is a text.
    let _ = unsafe { libc::prctl(libc::PR_SET_NAME, NAME.as_ptr()) };
    loop {
        BEGUN.fetch_add(1, SeqCst);
        while !MAY_GO.load(SeqCst) {
            yield_now();
        }
        AGENT.dismiss();
        // Who is summoned before it has left begins anew.
        if AGENT.leave() {
            return null_mut();
        }
    }
}

/// Threads of that name.
fn count() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("the kernel says which threads there are");
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim_end().as_bytes() == NAME.to_bytes()).count()
}

#[track_caller]
fn wait_until(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(30));
        yield_now();
    }
}

#[test]
fn a_hundred_agents_one_at_a_time_and_none_is_left() {
    assert!(!AGENT.summon() && !AGENT.is_enlisted(), "nobody to be summoned");
    AGENT.enlist(body as Body);
    assert!(AGENT.is_enlisted() && !AGENT.is_at_work());
    for cycle in 1..=100 {
        MAY_GO.store(false, SeqCst);
        assert!((0..3).all(|_| AGENT.summon()) && AGENT.is_at_work());
        wait_until(|| BEGUN.load(SeqCst) == cycle);
        assert!(AGENT.summon());
        // The kernel's list may lack one while others end.
        wait_until(|| count() >= 1);
        MAY_GO.store(true, SeqCst);
        wait_until(|| !AGENT.is_at_work());
    }
    assert_eq!(BEGUN.load(SeqCst), 100, "three summons, one thread");
    wait_until(|| count() == 0);
}

#[test]
fn who_is_dismissed_leaves_unless_somebody_calls() {
    AGENT_OF_NOBODY.enlist(body as Body);
    let agent = &AGENT_OF_NOBODY;
    agent.stay();
    assert!(agent.is_at_work() && !agent.leave(), "who works does not leave");
    agent.dismiss();
    assert!(!agent.is_at_work() && agent.summon() && agent.is_at_work(), "one that is still here stays");
    assert!(!agent.leave(), "somebody has called");
    agent.dismiss();
    assert!(agent.leave() && !agent.is_at_work() && agent.is_enlisted());
    for was in [Agent::stay, Agent::dismiss] {
        was(agent);
        agent.forget();
        assert!(!agent.is_at_work() && agent.is_enlisted(), "a child may summon its own");
        assert!(!agent.leave(), "{}", format!("{agent:?}"));
    }
}
