//! Row G11 for the main thread, whose destructors of thread-locals run when `main` has returned: they work on the heap
//! with its cache and past it. A test harness has no test on the main thread, so this file is without one: it starts
//! itself once more and reads what that process says.

#[path = "common/in_time.rs"]
mod in_time;

use in_time::output_in_time;
use std::cell::Cell;
use std::hint::black_box;
use std::io::{Write, stdout};
use std::process::Command;
use stratalloc::Stratalloc;

#[global_allocator]
static A: Stratalloc = Stratalloc::new();

const ROLE: &str = "STRATALLOC_TEST_MAIN_THREAD";

/// Works on the heap when it is dropped, and says so.
struct Probe(&'static str);

impl Drop for Probe {
    fn drop(&mut self) {
        let blocks: Vec<Vec<u8>> = (0..20).map(|shift| vec![shift; 1 << shift]).collect();
        let intact = black_box(&blocks).iter().zip(0..).all(|(block, shift)| block.iter().all(|byte| *byte == shift));
        let said = writeln!(stdout(), "{}: {intact}, {} caches", self.0, Stratalloc::stats().threads);
        said.expect("the other process reads");
    }
}

thread_local! {
    static PROBE: Cell<Option<Probe>> = const { Cell::new(None) };
}

/// Destructors of the C library's end, past those of thread-locals.
extern "C" fn at_exit() {
    drop(Probe("at exit"));
}

fn play_the_role() {
    assert!(Stratalloc::is_active());
    // SAFETY: the function stays as long as the program.
    assert_eq!(unsafe { libc::atexit(at_exit) }, 0);
    PROBE.set(Some(Probe("thread-local")));
}

fn main() {
    if std::env::var_os(ROLE).is_some() {
        return play_the_role();
    }
    let binary = std::env::current_exe().expect("the path of this binary");
    let output = output_in_time(Command::new(binary).env(ROLE, "1"));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(said, "thread-local: true, 1 caches\nat exit: true, 0 caches\n", "{output:?}");
}
