//! Runs an external program to its end: bounded in time, its output captured, its stderr in the error.

use super::error::{Context, Error, Result};
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long a program of the build (mke2fs, xz, ldd ...) may take.
pub(crate) const BUILD_TIMEOUT: Duration = Duration::from_secs(300);

/// What a finished program left.
#[derive(Debug)]
pub(crate) struct Finished {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// Runs `command` with `input` on its stdin. A program that outlives `timeout` is killed: an error.
pub(crate) fn capture(
    command: &mut Command,
    input: Option<Vec<u8>>,
    timeout: Duration,
) -> Result<Finished> {
    let name = || command_name(command);
    let name = name();
    let mut child = command
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context(|| format!("cannot start {name}"))?;
    if let (Some(mut stdin), Some(bytes)) = (child.stdin.take(), input) {
        // Its own thread, as a program may talk before it has read all. A closed pipe shows in the exit status.
        std::thread::spawn(move || stdin.write_all(&bytes).ok());
    }
    finish(&mut child, timeout).map_err(|e| Error::new(format!("{name}: {e}")))
}

/// Waits for `child`, whose stdout and stderr are pipes.
fn finish(child: &mut Child, timeout: Duration) -> Result<Finished> {
    let deadline = Instant::now() + timeout;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let mut outputs = [Vec::new(), Vec::new()];
    for (output, pipe) in outputs.iter_mut().zip([stdout, stderr]) {
        let left = deadline.saturating_duration_since(Instant::now());
        match pipe.recv_timeout(left) {
            Ok(bytes) => *output = bytes,
            Err(_) => {
                // It may just have ended by itself; there is nobody else to tell.
                child.kill().ok();
                child.wait().ok();
                return Err(Error::new(format!("no end after {timeout:?}, killed")));
            }
        }
    }
    let status = child.wait().context(|| "cannot wait for it")?;
    let [stdout, stderr] = outputs;
    Ok(Finished {
        status,
        stdout,
        stderr,
    })
}

/// Reads `pipe` to its end in a thread of its own, which sends what it read.
pub(crate) fn drain(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // A broken pipe ends the output like its end does.
            pipe.read_to_end(&mut bytes).ok();
        }
        sender.send(bytes).ok();
    });
    receiver
}

/// Runs a program that must succeed and returns its stdout.
pub(crate) fn run(command: &mut Command) -> Result<Vec<u8>> {
    let done = capture(command, None, BUILD_TIMEOUT)?;
    if done.status.success() {
        return Ok(done.stdout);
    }
    Err(Error::new(format!(
        "{} failed ({}): {}",
        command_name(command),
        done.status,
        String::from_utf8_lossy(&done.stderr).trim()
    )))
}

fn command_name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}
