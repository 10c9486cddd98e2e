//! A child process that is waited for, but not for ever.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// The longest that a child may run.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Runs a command to its end and returns what it printed, its errors passed through or, with `quiet`, appended.
///
/// # Errors
///
/// A line: it did not start, ended badly, or hung and was killed.
pub fn output(command: &mut Command, limit: Duration, quiet: bool) -> Result<String, String> {
    let errors = if quiet { Stdio::piped() } else { Stdio::inherit() };
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors).spawn();
    let mut child = child.map_err(|error| format!("it does not start: {error}"))?;
    let deadline = Instant::now() + limit;
    let (out, errors) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let mut text = String::new();
    for part in [out, errors] {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(bytes) = part.recv_timeout(left) else { break };
        text += &String::from_utf8_lossy(&bytes);
    }
    let status = wait(&mut child, deadline)?;
    if status.success() { Ok(text) } else { Err(format!("{status} {}", last_line(&text))) }
}

/// Reads a pipe to its end in a thread of its own, so that the wait for it can end earlier.
fn collect(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    });
    receiver
}

/// The pipes are closed or time is up: waits for the end, or kills this one child.
fn wait(child: &mut Child, deadline: Instant) -> Result<ExitStatus, String> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(1)),
            Ok(None) => {
                let _ = child.kill().and_then(|()| child.wait());
                return Err("it hung and was killed".into());
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

fn last_line(text: &str) -> &str {
    text.lines().next_back().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Result<String, String> {
        output(Command::new("sh").args(["-c", script]), limit, true)
    }

    #[test]
    fn output_crash_and_hang() {
        assert_eq!(shell("echo out; echo err >&2", LIMIT), Ok("out\nerr\n".into()));
        assert!(shell("kill -SEGV $$", LIMIT).unwrap_err().contains("signal: 11"));
        assert!(shell("exec sleep 60", Duration::from_millis(50)).unwrap_err().contains("hung"));
        assert!(output(&mut Command::new("/nonexistent"), LIMIT, true).unwrap_err().contains("start"));
    }
}
