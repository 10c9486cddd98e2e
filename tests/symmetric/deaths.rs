//! Row Y9: PEs that die, that cannot begin, and what is no PE.

use super::{is_pe, run, run_with};
use std::env;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};
use stratalloc::symmetric::{self, Outcome, SymSlice, launch};

/// How a job ends whose PE 1 ends in some way, while the others wait.
fn ends(way: &str, expected: (i32, &str)) {
    let begun = Instant::now();
    let outcome = run_with("deaths::y9_a_pe_that_dies_ends_the_job", 3, &[("WAY", way)]);
    let why = outcome.why.unwrap_or_default();
    assert!(outcome.status == expected.0 && why.contains(expected.1), "{way}: {} {why}", outcome.status);
    assert!(why.is_empty() || why.starts_with("PE 1 of 3 (process "), "{why}");
    assert!(begun.elapsed() < Duration::from_secs(30), "{way}");
}

#[test]
fn y9_a_pe_that_dies_ends_the_job() {
    static WAITS: AtomicU64 = AtomicU64::new(0);
    if !is_pe() {
        ends("killed", (128 + 9, "was killed by signal 9"));
        ends("status", (7, "ended with status 7"));
        ends("leaves", (1, "ended without finalize"));
        ends("absent", (1, "ended without init, and others wait for it"));
        ends("panics", (101, "ended with status 101"));
        ends("exit", (42, ""));
        ends("early", (1, "ended without finalize"));
        return;
    }
    let way = env::var("WAY").expect("a way");
    if way == "absent" && env::var("STRATALLOC_PE").as_deref() == Ok("1") {
        std::process::exit(0);
    }
    symmetric::init().expect("a PE");
    let slice = SymSlice::<u64>::new(1000).expect("room");
    WAITS.fetch_add(1, SeqCst);
    if way == "early" {
        // The others make a barrier more: so they are not at their end when PE 1 is.
        drop(slice);
        if symmetric::my_pe() != 1 {
            symmetric::barrier_all();
        }
        let _ = symmetric::finalize();
        std::process::exit(0);
    }
    if symmetric::my_pe() == 1 {
        match way.as_str() {
            "killed" => {
                let me = std::process::id().to_string();
                let _ = Command::new("kill").args(["-9", &me]).status();
            }
            "status" => std::process::exit(7),
            "leaves" => std::process::exit(0),
            "panics" => panic!("as it is to"),
            _ => symmetric::global_exit(42),
        }
    }
    // They would wait for ever.
    symmetric::barrier_all();
    println!("a PE went on without another");
    std::process::exit(99);
}

#[test]
fn y9_what_is_no_job_is_refused() {
    let name = "deaths::y9_what_is_no_job_is_refused";
    if let Ok(expected) = env::var("EXPECTED") {
        let error = symmetric::init().expect_err("no job").to_string();
        assert!(
            error.contains(&expected) && error.contains("start the program by `stratalloc run`, or alone"),
            "{error}"
        );
        return;
    }
    let try_with = |job: &str, pe: &str, expected: &str| {
        let mut command = Command::new(env::current_exe().expect("this program"));
        command.args(["--exact", name]).env("STRATALLOC_JOB", job).env("STRATALLOC_PE", pe).env("EXPECTED", expected);
        assert!(command.output().expect("it runs").status.success(), "{job} {pe}");
    };
    try_with("/nowhere", "0", "the directory that STRATALLOC_JOB names is not there");
    try_with("/proc/self/exe", "0", "is not there");
    try_with("/nowhere", "x", "STRATALLOC_PE is no number of a PE");
    try_with("/nowhere", "1024", "STRATALLOC_PE is no number of a PE");
    let file = env::temp_dir().join(format!("stratalloc-no-job-{}", std::process::id()));
    for bytes in [0, 100, 4096, 8192] {
        std::fs::write(&file, vec![b's'; bytes]).expect("a file");
        try_with(file.to_str().expect("a path"), "0", "what STRATALLOC_JOB names is no");
    }
    std::fs::remove_file(&file).expect("removed");
    assert!(launch(0, |_| Command::new("true")).is_err() && launch(1025, |_| Command::new("true")).is_err());
    let error = launch(2, |_| Command::new("/no/such/program")).expect_err("no program").to_string();
    assert!(error.contains("cannot start `/no/such/program`: no such file or folder"), "{error}");
    // Programs that are no PEs are none.
    assert_eq!(launch(3, |_| Command::new("true")).expect("a job"), Outcome { status: 0, why: None });
    assert_eq!(launch(2, |_| Command::new("false")).expect("a job").status, 1);
}

/// PE 1 alone cannot begin, since its heap's address is taken, or there is no such component: it says so, and is named, whoever ends first.
#[test]
fn y9_a_pe_that_cannot_begin_is_named_and_says_why() {
    let name = "deaths::y9_a_pe_that_cannot_begin_is_named_and_says_why";
    if is_pe() {
        if env::var("STRATALLOC_PE").as_deref() == Ok("1") && env::var_os("TAKEN").is_some() {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
            // SAFETY: it replaces nothing.
            let at = unsafe { libc::mmap(0x4000_0000_0000 as *mut _, 4096, libc::PROT_NONE, flags, -1, 0) };
            assert_eq!(at as usize, 0x4000_0000_0000);
        }
        let error = symmetric::init().expect_err("one cannot").to_string();
        eprintln!("{error}");
        let is_own = error.contains("something is mapped there") || error.contains("no component `none`");
        if is_own {
            // The others end before it.
            std::thread::sleep(Duration::from_millis(50));
        }
        std::process::exit(if is_own { 5 } else { 6 });
    }
    for own in ["something is mapped there", "no component `none`"].repeat(3) {
        let file = env::temp_dir().join(format!("stratalloc-taken-{}", std::process::id()));
        let command = |pe: usize| {
            let output = std::fs::OpenOptions::new().create(true).append(true).open(&file).expect("a file");
            let mut command = Command::new(env::current_exe().expect("this program"));
            command.args(["--exact", name, "--nocapture"]).stdout(Stdio::null()).stderr(output);
            if own.starts_with("something") {
                command.env("TAKEN", "1");
            } else if pe == 1 {
                command.env("STRATALLOC_MEMHEAP", "none");
            }
            command
        };
        let outcome = launch(3, command).expect("a job");
        let said = std::fs::read_to_string(&file).expect("what they said");
        std::fs::remove_file(&file).expect("removed");
        let why = outcome.why.unwrap_or_default();
        assert!(outcome.status == 5 && why.starts_with("PE 1 of 3") && said.contains(own), "{why} {said}");
    }
}

/// A child that a PE forks is none: it comes to no barrier, and ends nothing.
#[test]
fn y9_a_forked_child_is_no_pe() {
    let name = "deaths::y9_a_forked_child_is_no_pe";
    if !is_pe() {
        return run(name, 2, &[]);
    }
    symmetric::init().expect("a PE");
    let slice = SymSlice::<u64>::new(4).expect("room");
    if symmetric::my_pe() == 0 {
        // SAFETY: the child only looks, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let is_none = !symmetric::is_initialized() && slice.put(0, 0, &[9]).is_err();
            // SAFETY: no preconditions.
            unsafe { libc::_exit(i32::from(!is_none)) };
        }
        let mut status = 0;
        // SAFETY: the child is ours.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0);
    }
    symmetric::barrier_all();
    assert_eq!(slice.to_vec(), [0; 4]);
    drop(slice);
    symmetric::finalize().expect("the end");
}
