//! A program that runs on another host what it was told here: finds itself there over SSH, and relays output, signals and
//! the exit code.
//!
//! What stands before the verb is for this machine, the verb and all after it for that host: it goes there as data, word by
//! word. The program there is ours of this version, or is brought there for as long as it runs, as for every agent.
//!
//! There it runs as `PROGRAM relayed WORDS`. Its standard input is a line to us: a byte is the number of a signal that came
//! here, and its end means that we are gone. Either stops it, just as the signal would.

use crate::cli::config::ConfigFile;
use crate::cli::{OutputOptions, ProgressMode, SshArgs};
use crate::error::{Error, Kind, Result};
use crate::remote::{agent_id, AgentPipe, AgentSpec, Ended, HostSpec, Remote, SshOptions};
use crate::stop::{on_signals, Stop};
use crate::wire::VERSION;
use rustix::process::Signal;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::time::Duration;

/// The verb, known to nobody but us, under which the program runs there.
pub const RELAYED: &str = "relayed";
/// How often the stop flag is looked at.
const STOP_LOOK: Duration = Duration::from_millis(100);
/// From the end of its output to the end of the program.
const END_TIME: Duration = Duration::from_secs(30);

/// Parted at the verb: what is before it, with the program's own options `A`, and all words from there on.
#[derive(clap::Parser)]
#[command(disable_help_flag = true)]
struct Parted<A: clap::Args> {
    #[command(flatten)]
    own: A,
    #[command(flatten)]
    output: OutputOptions,
    #[command(flatten)]
    _ssh: SshArgs,
    #[command(flatten)]
    _file: ConfigFile,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// The words of a command line (with the program's name in front) that are for the other host: the verb and all that
/// follows, and options about output that stand before it. And the program's own options that stand before it.
pub fn parted<A: clap::Args>(
    line: impl IntoIterator<Item = OsString>,
) -> Result<(Vec<OsString>, A)> {
    let parted = <Parted<A> as clap::Parser>::try_parse_from(line)
        .map_err(|e| Error::new(Kind::Usage, "cannot tell the verb").because(e.to_string()))?;
    let mut words: Vec<OsString> = Vec::new();
    let output = parted.output;
    words.extend(output.quiet.then(|| "--quiet".into()));
    words.extend(output.json.then(|| "--json".into()));
    words.extend(match output.progress {
        ProgressMode::Auto => None,
        ProgressMode::Always => Some(OsString::from("--progress=always")),
        ProgressMode::Never => Some(OsString::from("--progress=never")),
    });
    words.extend(parted.words);
    Ok((words, parted.own))
}

/// Where the output there goes to.
pub struct Output {
    /// Its standard output.
    pub stdout: File,
    /// Its standard error.
    pub stderr: File,
}

impl Output {
    /// Ours.
    pub fn inherited() -> Result<Output> {
        let own = |fd: rustix::fd::BorrowedFd| {
            rustix::io::fcntl_dupfd_cloexec(fd, 3)
                .map(File::from)
                .map_err(|e| Error::io("cannot use standard output", e.into()))
        };
        Ok(Output {
            stdout: own(rustix::stdio::stdout())?,
            stderr: own(rustix::stdio::stderr())?,
        })
    }
}

/// Runs the words on a host. Gives the exit code of that run.
///
/// Fails if the host cannot be reached or trusted, and if the run there ends by something else than itself.
pub fn run(
    program: &'static str,
    host: &HostSpec,
    words: &[OsString],
    ssh: &SshOptions,
    output: Output,
    stop: &Stop,
) -> Result<u8> {
    let ssh = SshOptions {
        // Those serve only an agent.
        keys: None,
        ..ssh.clone()
    };
    Remote::during(host, &ssh, |remote| {
        run_there(remote, program, words, output, stop)
    })
}

fn run_there(
    remote: &Remote,
    program: &'static str,
    words: &[OsString],
    output: Output,
    stop: &Stop,
) -> Result<u8> {
    let host = remote.host();
    let mut spec = AgentSpec::new(program, agent_id(program, VERSION.into()));
    spec.args = [OsStr::new(RELAYED)]
        .into_iter()
        .chain(words.iter().map(OsString::as_os_str))
        .map(OsStr::to_owned)
        .collect();
    let AgentPipe {
        stdin,
        stdout,
        handle,
    } = remote.start_echoing(&spec, output.stderr)?;
    let mut line = File::from(stdin);
    let (done, ended) = channel::<()>();
    let mut ours = output.stdout;
    let copier = std::thread::Builder::new()
        .name("output".into())
        .spawn(move || {
            let _done = done;
            copy(&mut File::from(stdout), &mut ours);
        })
        .map_err(|e| Error::io("cannot start a thread", e))?;
    let mut told = false;
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(STOP_LOOK) {
        if stop.is_stopped() && !told {
            told = true;
            let signal = stop.signal().unwrap_or(Signal::TERM.as_raw());
            let byte = u8::try_from(signal).unwrap_or(Signal::TERM.as_raw() as u8);
            // If it is gone already, its end tells more.
            let _ = line.write_all(&[byte]);
        }
    }
    let _ = copier.join();
    let end = handle.finish(END_TIME);
    let code = match &end.how {
        Ended::Exited(status) => status.code().and_then(|code| u8::try_from(code).ok()),
        _ => None,
    };
    drop(line);
    code.ok_or_else(|| {
        let kind = match end.how {
            Ended::Running => Kind::Timeout,
            _ => Kind::Remote,
        };
        Error::new(kind, format!("{program} on {host} did not end by itself"))
            .because(end.how.to_string())
            .advise(format!(
                "without us it stops; `{program} status` there tells how it ended"
            ))
    })
}

/// Copies until the end. If nobody takes it any more it is dropped: the run there must not hang on it.
fn copy(from: &mut impl Read, to: &mut impl Write) {
    let mut chunk = vec![0; 64 << 10];
    let mut taken = true;
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return,
            Ok(n) => taken = taken && to.write_all(&chunk[..n]).is_ok(),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// What stops this process: its signals, and those that come over the line if it was `relayed` here.
pub fn stop_of(relayed: bool) -> Result<Stop> {
    let stop = on_signals()?;
    if relayed {
        obey_stdin(&stop)?;
    }
    Ok(stop)
}

/// There: lets what comes on standard input stop the run, like the signal that it stands for.
fn obey_stdin(stop: &Stop) -> Result<()> {
    let stop = stop.clone();
    std::thread::Builder::new()
        .name("line".into())
        .spawn(move || {
            if let Some(signal) = obey(&mut std::io::stdin(), &stop) {
                std::process::exit(128 + i32::from(signal));
            }
        })
        .map(drop)
        .map_err(|e| Error::io("cannot start a thread", e))
}

/// Until the line ends, or a second signal comes, which is returned: that one ends the process at once.
fn obey(line: &mut impl Read, stop: &Stop) -> Option<u8> {
    loop {
        let mut byte = [0];
        match line.read(&mut byte) {
            Ok(0) => break,
            Ok(_) if stop.is_stopped() => return Some(byte[0] & 0x7f),
            Ok(_) => stop.stop_by_signal(i32::from(byte[0] & 0x7f)),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    // Whoever started this is gone, as when a terminal is closed.
    if !stop.is_stopped() {
        stop.stop_by_signal(Signal::HUP.as_raw());
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_a_signal_and_the_end_a_hangup() {
        let stop = Stop::new();
        assert_eq!(obey(&mut &[2u8][..], &stop), None);
        assert_eq!(stop.signal(), Some(2));
        let stop = Stop::new();
        assert_eq!(obey(&mut &[][..], &stop), None);
        assert_eq!(stop.signal(), Some(1));
        let stop = Stop::new();
        assert_eq!(obey(&mut &[15u8, 2][..], &stop), Some(2));
        assert_eq!(stop.signal(), Some(15));
    }

    #[test]
    fn output_that_nobody_takes_is_dropped() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let data = vec![7; 200_000];
        let mut from = &data[..];
        copy(&mut from, &mut Closed);
        assert!(from.is_empty());
    }
}
