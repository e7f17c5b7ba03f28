//! A process of ours that tells its parent, a line of JSON each, what it does: the watchdog, the keeper.

use crate::error::{Error, Result};
use serde::de::DeserializeOwned;
use serde::Serialize;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{channel, Receiver};

/// Starts `command`, which errors call `name`. Its standard input is a pipe of ours; what it reports, up to the first line
/// that makes no sense, can be received until its end.
pub(crate) fn start<R: DeserializeOwned + Send + 'static>(
    command: &mut Command,
    name: &str,
) -> Result<(Child, Option<ChildStdin>, Receiver<R>)> {
    let mut child = command
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| Error::io(format!("cannot start {name}"), e))?;
    let (sender, reports) = channel();
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(|l| l.ok()) {
                let Ok(report) = serde_json::from_str(&line) else {
                    break;
                };
                if sender.send(report).is_err() {
                    break;
                }
            }
        });
    }
    let stdin = child.stdin.take();
    Ok((child, stdin, reports))
}

/// Nobody may be listening any more; that must not keep us from the guest.
pub(crate) fn report(report: &impl Serialize) {
    if let Ok(line) = serde_json::to_string(report) {
        let mut stdout = io::stdout().lock();
        let _ = writeln!(stdout, "{line}");
        let _ = stdout.flush();
    }
}
