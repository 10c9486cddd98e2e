//! A test in a process of its own: this test binary once more, with that test alone. There it may measure the whole
//! process, or let it die.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const ROLE: &str = "STRATALLOC_TEST_ROLE";
/// The exit status of a process whose test has run to its end.
const DONE: i32 = 42;
/// A process that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(120);

/// How such a process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
}

/// In the first process: runs the calling test again in a second one, and says how that ended. There: runs `body`.
pub(crate) fn in_own_process(body: fn()) -> Ended {
    let thread = std::thread::current();
    let name = thread.name().expect("the harness names a test's thread after it");
    if std::env::var(ROLE).is_ok_and(|role| role == name) {
        body();
        std::process::exit(DONE);
    }
    let binary = std::env::current_exe().expect("the path of this binary");
    let mut command = Command::new(binary);
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(ROLE, name);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("a second process");
    wait(child)
}

fn wait(mut child: Child) -> Ended {
    let pipe = child.stderr.take().expect("a pipe from the child");
    let reader = std::thread::spawn(move || std::io::read_to_string(pipe).expect("text"));
    let status = status_within_deadline(&mut child);
    Ended { status, stderr: reader.join().expect("the reader ends") }
}

fn status_within_deadline(child: &mut Child) -> ExitStatus {
    let begun = Instant::now();
    while begun.elapsed() < DEADLINE {
        if let Some(status) = child.try_wait().expect("the child's state") {
            return status;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().expect("the child can be ended");
    child.wait().expect("the child's state")
}

impl Ended {
    /// Fails the test, with what the process said, unless it ran to its end.
    #[track_caller]
    pub(crate) fn well(&self) {
        assert_eq!(self.status.code(), Some(DONE), "{}\n{}", self.status, self.stderr);
    }
}
