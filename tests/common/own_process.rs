//! A test in a process of its own: this test binary once more, with that test alone. There it may measure the whole
//! process, or let it die.

#[path = "in_time.rs"]
pub(crate) mod in_time;

use in_time::output_in_time;
use std::io::Write;
use std::process::{Command, ExitStatus};

const ROLE: &str = "STRATALLOC_TEST_ROLE";
/// The exit status of a process whose test has run to its end.
const DONE: i32 = 42;

/// How such a process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
}

/// In the first process: runs the calling test again in a second one, and says how that ended. There: runs `body`.
#[allow(dead_code, reason = "each user takes what it needs")]
pub(crate) fn in_own_process(body: fn()) -> Ended {
    // What these tests count is the heap's, without what a hunter puts around blocks and holds back.
    in_own_process_with(&[("STRATALLOC_DEBUG", "off")], body)
}

/// The same, with these variables there.
pub(crate) fn in_own_process_with(variables: &[(&str, &str)], body: fn()) -> Ended {
    let thread = std::thread::current();
    let name = thread.name().expect("the harness names a test's thread after it");
    if std::env::var(ROLE).is_ok_and(|role| role == name) {
        body();
        std::process::exit(DONE);
    }
    let mut command = Command::new(std::env::current_exe().expect("the path of this binary"));
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    command.env(ROLE, name).envs(variables.iter().copied());
    let output = output_in_time(&mut command);
    Ended { status: output.status, stderr: String::from_utf8_lossy(&output.stderr).into_owned() }
}

#[allow(dead_code, reason = "each user takes what it needs")]
impl Ended {
    /// Says on the standard error, past the harness, the lines of the process that contain `mark`.
    pub(crate) fn hand_on(&self, mark: &str) {
        let lines = self.stderr.lines().filter(|line| line.contains(mark));
        lines.for_each(|line| _ = writeln!(std::io::stderr(), "\n{line}"));
    }

    /// Fails the test, with what the process said, unless it ran to its end.
    #[track_caller]
    pub(crate) fn well(&self) {
        assert_eq!(self.status.code(), Some(DONE), "{}\n{}", self.status, self.stderr);
    }
}
