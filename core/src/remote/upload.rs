//! Bringing our own program to a host that lacks it, and taking it away again.
//!
//! A constant shell script on the other host, the keeper (`upload.sh`), makes a private directory, receives
//! the program, and holds the directory for as long as its stdin is open. So the directory goes when the
//! connection is closed, when it is cut and when we are killed, and any number of agents can share it.
//! The program is executable only after the digest of what arrived there equals that of what was sent.

use super::process::{self, Ended, Process, Watch};
use super::run::{RunLimits, RunOutput};
use super::{words, AgentSpec, Remote};
use crate::error::{Error, Kind, Result};
use crate::stop::Stop;
use sha2::{Digest, Sha256};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;

const SCRIPT: &str = include_str!("upload.sh");

/// No step of an upload, be it one piece of the program, may take longer.
const STEP_TIME: Duration = Duration::from_secs(60);
/// How long the other host may take to remove the directory.
const REMOVE_TIME: Duration = Duration::from_secs(10);
/// Far above any build of ours, also one with debug information.
const MAX_PROGRAM: u64 = 1 << 30;
/// A path and a keyword; more is not what the script writes.
const MAX_LINE: u64 = 8 << 10;
const STDERR_KEPT: usize = 4 << 10;

/// Whether a program lies where `upload.sh` puts those that are gone after the run.
pub fn is_brought(program: &Path) -> bool {
    let dir = program.parent().and_then(Path::file_name);
    let name = dir.unwrap_or_default().to_string_lossy();
    ["agent.", "rblocksync-agent."]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// A program on the other host which is removed there when this is closed or dropped.
#[derive(Debug)]
pub(super) struct Upload {
    /// Where it lies there.
    pub(super) program: PathBuf,
    keeper: OwnedFd,
    watch: Watch,
}

impl Upload {
    /// Has the program removed, and waits for that.
    pub(super) fn close(self) -> Result<()> {
        drop(self.keeper);
        match self.watch.ended_within(REMOVE_TIME) {
            Ended::Exited(status) if status.success() => Ok(()),
            ended => {
                let dir = self.program.parent().unwrap_or(Path::new("/"));
                Err(Error::new(
                    Kind::Remote,
                    format!("cannot tell whether {} was removed there", dir.display()),
                )
                .because(explain(&ended, &self.watch)))
            }
        }
    }
}

/// Uploads the program of `spec` and makes sure that it starts there and is what it should be.
pub(super) fn upload(remote: &Remote, spec: &AgentSpec) -> Result<Upload> {
    let host = remote.host();
    let failed = |e: Error| e.context(format!("cannot bring {} to {host}", spec.program));
    same_platform(remote, spec)?;
    let file = open_program(&spec.local_binary).map_err(failed)?;
    let args = [
        "-c",
        SCRIPT,
        "upload",
        &file.size.to_string(),
        &spec.program,
    ]
    .map(OsString::from);
    let Process {
        stdin,
        stdout,
        watch,
    } = process::launch(host, &remote.master, OsStr::new("sh"), &args, STDERR_KEPT)?;
    let sent = process::runtime()?.block_on(send(file, stdin, stdout, &remote.options.stop));
    let (dir, keeper) = sent.map_err(|e| {
        // An early end of the script explains more than the broken pipe it led to.
        let said = match e.kind() {
            Kind::Digest => String::new(),
            _ => explain(&watch.ended_within(Duration::from_secs(1)), &watch),
        };
        failed(if said.is_empty() { e } else { e.because(said) })
    })?;
    let upload = Upload {
        program: dir.join(&spec.program),
        keeper,
        watch,
    };
    let answer = remote.run_os(
        upload.program.as_os_str(),
        &["agent".into(), "--id".into()],
        None,
        RunLimits::default(),
    )?;
    if answer.status.success() && answer.stdout == format!("{}\n", spec.id).as_bytes() {
        return Ok(upload);
    }
    let error = failed(wrong_answer(spec, &answer));
    // The reason for the error is known; whether the removal succeeds adds nothing.
    let _ = upload.close();
    Err(error)
}

/// Our program can only run on the same system and processor.
fn same_platform(remote: &Remote, spec: &AgentSpec) -> Result<()> {
    let answer = remote.run("uname", &["-sm"], None)?;
    // The last line: what a talkative login shell may say before comes to light in the next step.
    let there = answer.stdout.trim_ascii_end().rsplit(|&b| b == b'\n');
    let there = words::one_line(there.into_iter().next().unwrap_or_default());
    let here = format!("Linux {}", std::env::consts::ARCH);
    if answer.status.success() && there == here {
        return Ok(());
    }
    let program = &spec.program;
    let host = remote.host();
    let why = match (there.is_empty(), answer.stderr_line()) {
        (true, said) if said.is_empty() => "it does not say what system it is".to_owned(),
        (true, said) => said,
        (false, _) => format!("it is \"{there}\", and this host is \"{here}\""),
    };
    Err(Error::new(
        Kind::NotFound,
        format!("{host} has no {program} of this version, and ours cannot be sent there: {why}"),
    )
    .advise(format!(
        "install this version of the package {program} on {host}"
    )))
}

struct Program {
    file: File,
    size: u64,
}

fn open_program(path: &Path) -> Result<Program> {
    let failed = |e| Error::io(format!("cannot read the program {}", path.display()), e);
    let file = File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() || meta.len() == 0 || meta.len() > MAX_PROGRAM {
        return Err(Error::new(
            Kind::Usage,
            format!("{} is not a program to send", path.display()),
        ));
    }
    Ok(Program {
        file,
        size: meta.len(),
    })
}

/// The driver's half of the script's protocol. Gives the directory there and the keeper's stdin.
async fn send(
    program: Program,
    stdin: OwnedFd,
    stdout: OwnedFd,
    stop: &Stop,
) -> Result<(PathBuf, OwnedFd)> {
    let broken = |e| Error::io("the upload broke off", e);
    let mut stdin = pipe::Sender::from_owned_fd(stdin).map_err(broken)?;
    let mut stdout = BufReader::new(pipe::Receiver::from_owned_fd(stdout).map_err(broken)?);

    let dir = PathBuf::from(OsStr::from_bytes(
        &answer(&mut stdout, b"dir ", stop).await?,
    ));
    if !dir.is_absolute() {
        return Err(unexpected(dir.as_os_str().as_bytes()));
    }
    // Digest and bytes come from one reading: a file that changes meanwhile cannot part them.
    let digest = send_file(program, &mut stdin, stop).await?;
    let theirs = answer(&mut stdout, b"sum ", stop).await?;
    if theirs != digest.as_bytes() {
        return Err(Error::new(
            Kind::Digest,
            "what arrived there is not what was sent, so it was not run",
        )
        .because(format!(
            "SHA-256 here {digest}, there {}",
            words::one_line(&theirs)
        )));
    }
    in_time(stop, stdin.write_all(b"run\n")).await?;
    answer(&mut stdout, b"ready", stop).await?;
    let stdin = stdin.into_blocking_fd().map_err(broken)?;
    Ok((dir, stdin))
}

async fn send_file(mut program: Program, stdin: &mut pipe::Sender, stop: &Stop) -> Result<String> {
    let mut hash = Sha256::new();
    let mut left = program.size;
    let mut chunk = vec![0; 64 << 10];
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        let n = program
            .file
            .read(&mut chunk[..want])
            .map_err(|e| Error::io("cannot read our own program", e))?;
        if n == 0 {
            return Err(Error::new(
                Kind::Io,
                "our own program became shorter while it was sent",
            ));
        }
        hash.update(&chunk[..n]);
        in_time(stop, stdin.write_all(&chunk[..n])).await?;
        left -= n as u64;
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

/// One line of the script's, which must start with `word`; the rest of it.
async fn answer(
    stdout: &mut BufReader<pipe::Receiver>,
    word: &[u8],
    stop: &Stop,
) -> Result<Vec<u8>> {
    let mut line = Vec::new();
    in_time(stop, stdout.take(MAX_LINE).read_until(b'\n', &mut line)).await?;
    match line
        .strip_suffix(b"\n")
        .and_then(|line| line.strip_prefix(word))
    {
        Some(rest) => Ok(rest.to_vec()),
        None if line.is_empty() => Err(Error::new(Kind::Remote, "the upload broke off")),
        None => Err(unexpected(&line)),
    }
}

fn unexpected(line: &[u8]) -> Error {
    Error::new(
        Kind::Protocol,
        format!(
            "there came \"{}\" where a reply was due",
            words::one_line(line)
        ),
    )
    .advise("the login shell's start-up files on that host must not print anything")
}

async fn in_time<T>(
    stop: &Stop,
    step: impl std::future::Future<Output = std::io::Result<T>>,
) -> Result<T> {
    match process::within(STEP_TIME, stop, step).await? {
        Some(Ok(done)) => Ok(done),
        Some(Err(e)) => Err(Error::io("the upload broke off", e)),
        None => Err(Error::new(Kind::Timeout, "the upload does not move")),
    }
}

fn explain(ended: &Ended, watch: &Watch) -> String {
    let said = words::one_line(&watch.stderr());
    match ended {
        Ended::Running if said.is_empty() => String::new(),
        Ended::Exited(_) | Ended::Running if !said.is_empty() => said,
        ended if said.is_empty() => ended.to_string(),
        ended => format!("{ended}; {said}"),
    }
}

/// Why the uploaded program's `agent --id` is not what was expected.
fn wrong_answer(spec: &AgentSpec, answer: &RunOutput) -> Error {
    let program = &spec.program;
    let said = answer.stderr_line();
    let got = words::one_line(&answer.stdout);
    let lines = answer.stdout.split(|&b| b == b'\n');
    if lines.into_iter().any(|line| line == spec.id.as_bytes()) {
        return Error::new(
            Kind::Protocol,
            "its login shell prints text of its own, which would end up in the data",
        )
        .because(got)
        .advise("the login shell's start-up files on that host must not print anything");
    }
    if !answer.status.success() {
        return Error::new(Kind::Remote, "our program does not start there")
            .because(if said.is_empty() { answer.status.to_string() } else { said })
            .advise(format!(
                "install this version of the package {program} there, or use a statically linked build of it here"
            ));
    }
    Error::new(
        Kind::Protocol,
        format!(
            "{} calls itself \"{got}\", not \"{}\"",
            spec.local_binary.display(),
            spec.id
        ),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_script_is_sound_for_a_posix_shell() {
        let checked = Command::new("sh")
            .args(["-n", "-c", SCRIPT])
            .output()
            .unwrap();
        assert!(checked.status.success(), "{checked:?}");
        // It travels as one argument of a command line, which Linux limits to 128 KiB.
        assert!(SCRIPT.len() < 16 << 10 && SCRIPT.is_ascii());
    }
}
