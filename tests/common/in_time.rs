//! Other processes, none of which is waited for without end.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

/// A process that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(600);

/// How `child` ends; it is killed when it takes too long.
pub(crate) fn status_in_time(child: &mut Child) -> ExitStatus {
    let begun = Instant::now();
    while begun.elapsed() < DEADLINE {
        if let Some(status) = child.try_wait().expect("the child's state") {
            return status;
        }
        sleep(Duration::from_millis(2));
    }
    child.kill().expect("the child can be ended");
    child.wait().expect("the child's state")
}

/// Runs `command` to its end; it is killed when it takes too long.
pub(crate) fn output_in_time(command: &mut Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a process");
    let (stdout, stderr) = (read_aside(child.stdout.take()), read_aside(child.stderr.take()));
    let status = status_in_time(&mut child);
    Output { status, stdout: stdout.join().expect("the reader ends"), stderr: stderr.join().expect("the reader ends") }
}

fn read_aside(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    let mut pipe = pipe.expect("a pipe from the child");
    spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("the pipe can be read");
        bytes
    })
}
