//! Processes that die in a heap, or stand still there: what they leave is told, is never taken for damage, and is mended.

use super::shm_folder::Folder;
use super::{Other, SMALL, as_other, is_picture, open, play, tool, well};
use std::time::Duration;
use stratalloc::{Scheme, SharedHeap};

/// Beside processes at work a check finds nothing, in whatever scheme; once they are killed it says so, and repair puts it right.
fn killed_at_work(name: &str, scheme: Scheme) {
    if let Some((path, role)) = as_other() {
        return play(&path, &role);
    }
    let folder = Folder::new(name);
    let path = folder.file("heap");
    drop(SharedHeap::open(&path, SMALL.scheme(scheme), |_| {}).expect("a heap"));
    for round in 0..3_u64 {
        let mut others = [0; 2].map(|_| Other::start(name, &path, "work"));
        for look in 0..2 {
            std::thread::sleep(Duration::from_millis(17 * (round + look)));
            well(tool(&["check"], &path));
        }
        is_picture(&well(tool(&["map", "-o", "-"], &path)));
        let text = well(tool(&["top", "-n1", "-i0.2"], &path));
        assert!(text.contains("2 processes"), "{text}");
        others.iter_mut().for_each(Other::kill);

        // The one that was killed last may have buried the other.
        let text = well(tool(&["info"], &path));
        let dead = text.matches(" dead ").count();
        assert!((1..=2).contains(&dead) && !text.contains(" alive "), "{text}");
        let found = tool(&["check"], &path);
        assert!(found.code == 1 && found.out.matches("has died, and").count() == dead, "{found:?}");
        let text = well(tool(&["repair"], &path));
        assert!(text.contains("mended, and sound") && text.matches(", which had died").count() == dead, "{text}");
        assert!(text.contains(&format!("process {}, which had died", others[1].0.id())), "{text}");
        let text = well(tool(&["info"], &path));
        assert!(text.contains("processes: none") && !text.contains("on their way"), "{text}");
        well(tool(&["check"], &path));
        open(&path).check().expect("a sound heap");
    }
}

#[test]
fn s11_killed_at_work_with_robust_mutexes() {
    killed_at_work("deaths::s11_killed_at_work_with_robust_mutexes", Scheme::RobustMutex);
}

#[test]
fn s11_killed_at_work_with_semaphores() {
    killed_at_work("deaths::s11_killed_at_work_with_semaphores", Scheme::Semaphores);
}

#[test]
fn s11_killed_at_work_with_file_locks() {
    killed_at_work("deaths::s11_killed_at_work_with_file_locks", Scheme::FileLocks);
}

#[test]
fn s11_killed_at_work_with_spin_locks() {
    killed_at_work("deaths::s11_killed_at_work_with_spin_locks", Scheme::Spin);
}

#[cfg(feature = "fault-points")]
mod at_steps {
    use super::super::{fill, free, shm_folder::Folder};
    use super::{open, tool};
    use std::fs;
    use std::panic::Location;
    use std::path::Path;
    use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};
    use stratalloc::fault;
    use stratalloc::view::{Audit, View};

    static STEPS: AtomicU64 = AtomicU64::new(0);
    static LAST: AtomicU64 = AtomicU64::new(0);
    static SIGNAL: AtomicI32 = AtomicI32::new(0);

    fn count(_: &'static Location<'static>) {
        if LAST.load(Relaxed) != 0 && STEPS.fetch_add(1, Relaxed) + 1 == LAST.load(Relaxed) {
            // SAFETY: no preconditions.
            unsafe { libc::raise(SIGNAL.load(Relaxed)) };
        }
    }

    /// Goes through the heap at `path` in a child that gets `signal` at step `last`; the child, and its state then.
    fn goes_through(path: &Path, last: u64, signal: i32) -> (i32, i32) {
        // SAFETY: the child calls nothing but the heap and the system.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            let work = || {
                SIGNAL.store(signal, Relaxed);
                LAST.store(last, Relaxed);
                let heap = open(path);
                let kept = fill(&heap);
                free(&heap, kept.into_iter().step_by(2).collect());
                heap.collect();
            };
            let result = std::panic::catch_unwind(work);
            // SAFETY: no preconditions.
            unsafe { libc::_exit(if result.is_ok() { 0 } else { 3 }) };
        }
        let state = state_of(child);
        assert!(!libc::WIFEXITED(state) || libc::WEXITSTATUS(state) == 0, "it goes through: {state:x}");
        (child, state)
    }

    /// The state of a child that ends, or is stopped.
    fn state_of(child: i32) -> i32 {
        let mut state = 0;
        // SAFETY: the child is ours.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut state, libc::WUNTRACED) }, child);
        state
    }

    fn audit(path: &Path) -> Audit {
        View::open(path).expect("a heap").audit()
    }

    /// Calls `look` for some steps of a way through a new heap each time, until it says that the way was not so long; how often.
    /// The larger `apart` is, the fewer steps.
    fn at_some_steps(name: &str, apart: u64, look: impl Fn(&Path, u64) -> bool) -> usize {
        let folder = Folder::new(name);
        let path = folder.file("heap");
        drop(open(&path));
        fault::at_each_step(count);
        let (mut last, mut looks, mut stride) = (1, 0, 1);
        while look(&path, last) {
            // Steps of one kind follow each other: prime numbers of them do not.
            stride = if looks % 8 == 0 { apart * [7, 31, 101, 211][looks / 8 % 4] } else { stride };
            (last, looks) = (last + stride, looks + 1);
            fs::remove_file(&path).expect("removed");
            drop(open(&path));
        }
        println!("{looks} looks in {last} steps");
        looks
    }

    /// A process dies at some of its steps, alone with a heap: what it leaves half done is never taken for damage, and is mended.
    #[test]
    fn s11_what_a_death_leaves_is_not_taken_for_damage() {
        let deaths = at_some_steps("s11-steps", 1, |path, last| {
            if goes_through(path, last, libc::SIGKILL).1 == 0 {
                return false;
            }
            let audit = audit(path);
            let broken: Vec<_> = audit.faults.iter().filter(|fault| !fault.is_mendable).collect();
            assert!(broken.is_empty(), "{last}: {broken:?}");
            let said = tool(&["repair"], path);
            assert_eq!(said.code, 0, "{last}: {said:?}");
            assert!(audit.dead.is_empty() || said.out.contains("mended, and sound"), "{last}: {said:?}");
            true
        });
        assert!(deaths > 100);
    }

    /// A process stands still at some of its steps: what it is about to do is never taken for damage.
    #[test]
    fn s11_whoever_stands_still_is_not_taken_for_damage() {
        let stops = at_some_steps("s11-stops", 13, |path, last| {
            let (child, state) = goes_through(path, last, libc::SIGSTOP);
            if !libc::WIFSTOPPED(state) {
                return false;
            }
            let audit = audit(path);
            // SAFETY: the child is ours.
            assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0);
            state_of(child);
            assert!(audit.is_sound(), "{last}: {audit:?}");
            true
        });
        assert!(stops > 15);
    }
}
