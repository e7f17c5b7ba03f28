//! The process that syncs one VM: started, listened to, told to stop.
//!
//! It is in a process group of its own, so that Ctrl-C reaches it once, by us. It gets SIGTERM when the thread that
//! runs it ends, and so when we are killed. Nothing that it prints, or does not print, makes us hang or grow.

use super::lines::Lines;
use super::outcome::{short, Heard, Outcome};
use super::Member;
use crate::cmd::{one_line, STDERR_MAX_BYTES};
use crate::stop::Stop;
use crate::sys::{apart, spawn_tied};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{kill_process_group, pidfd_open, pidfd_send_signal, Pid, PidfdFlags, Signal};
use serde_json::{json, Map, Value};
use std::io::{self, PipeReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often a wait looks at the stop flag.
const STOP_LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};
/// How long pipes are read after the process has ended: others may hold them open for ever.
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// How long a process that was killed may take to vanish. The kernel does not end one that waits for a dead disk.
const VANISH_TIME: Duration = Duration::from_secs(20);

/// How VMs are synced: by which program, and how long it may take to clean up when it is told to stop.
#[derive(Debug, Clone)]
pub struct Runner {
    /// The executable.
    pub program: PathBuf,
    /// From the signal that tells it to stop to SIGKILL.
    pub grace: Duration,
    /// Whether it only tells what would be done: then no generation is sealed.
    pub dry_run: bool,
}

impl Runner {
    /// This very executable, also if its file was replaced meanwhile.
    pub fn this_executable(dry_run: bool) -> Runner {
        Runner {
            program: "/proc/self/exe".into(),
            // What a sync does at its end: agents told to stop, the guest let go, snapshots removed by commands that
            // have a minute each.
            grace: Duration::from_secs(120),
            dry_run,
        }
    }

    /// Syncs one VM. `hear` gets each event of its process, tagged with the VM.
    pub fn run(&self, member: &Member, stop: &Stop, hear: &dyn Fn(Value)) -> Outcome {
        let began = Instant::now();
        let mut outcome = match self.start(member) {
            Ok(running) => running.follow(self, member, stop, hear),
            Err(e) => Outcome::failed(1, format!("cannot start {}: {e}", self.program.display())),
        };
        outcome.took = began.elapsed();
        outcome
    }

    fn start(&self, member: &Member) -> io::Result<Running> {
        let (stdout, stdout_end) = io::pipe()?;
        let (stderr, stderr_end) = io::pipe()?;
        let mut command = Command::new(&self.program);
        command
            .args(&member.args)
            .stdin(Stdio::null())
            .stdout(stdout_end)
            .stderr(stderr_end);
        let mut child = spawn_tied(apart(&mut command))?;
        // It holds our copies of the pipes' write ends: they must be gone for us to see the end.
        drop(command);
        match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Running {
                child,
                pidfd,
                stdout: Some(stdout),
                stderr: Some(stderr),
            }),
            Err(e) => {
                // Nobody could watch it. It has only just begun.
                child.kill()?;
                child.wait()?;
                Err(e.into())
            }
        }
    }
}

struct Running {
    child: Child,
    pidfd: OwnedFd,
    stdout: Option<PipeReader>,
    stderr: Option<PipeReader>,
}

/// How far telling it to stop has come.
enum Told {
    Nothing,
    /// To stop, and killed if it has not ended by then.
    Stop(Instant),
    /// Killed, and given up if it has not vanished by then.
    Killed(Instant),
}

impl Running {
    fn follow(
        mut self,
        runner: &Runner,
        member: &Member,
        stop: &Stop,
        hear: &dyn Fn(Value),
    ) -> Outcome {
        let mut listener = Listener::new(member, hear);
        let mut told = Told::Nothing;
        let mut ended: Option<(io::Result<ExitStatus>, Instant)> = None;
        loop {
            if ended.is_none() {
                told = match self.press(told, runner, stop) {
                    Ok(told) => told,
                    Err(why) => return listener.heard.failed(1, why, ""),
                };
            }
            let has_ended = match self.listen(&mut listener, ended.is_some()) {
                Ok(has_ended) => has_ended,
                Err(e) => {
                    self.kill();
                    let why = format!("cannot wait for its process: {e}");
                    return listener.heard.failed(1, why, "");
                }
            };
            if has_ended && ended.is_none() {
                ended = Some((self.child.wait(), Instant::now() + DRAIN_TIME));
            }
            let is_silent = self.stdout.is_none() && self.stderr.is_none();
            match ended {
                Some((status, until)) if is_silent || Instant::now() >= until => {
                    listener.finish();
                    return judge(status, &told, runner, listener);
                }
                other => ended = other,
            }
        }
    }

    /// Tells it to stop, or ends it, where it is time for that.
    fn press(&self, told: Told, runner: &Runner, stop: &Stop) -> Result<Told, String> {
        match told {
            Told::Nothing if stop.is_stopped() => {
                let signal = stop.signal().and_then(Signal::from_named_raw);
                // It fails only if it has ended already, which is seen next.
                let _ = pidfd_send_signal(&self.pidfd, signal.unwrap_or(Signal::TERM));
                Ok(Told::Stop(Instant::now() + runner.grace))
            }
            Told::Stop(until) if Instant::now() >= until => {
                self.kill();
                Ok(Told::Killed(Instant::now() + VANISH_TIME))
            }
            Told::Killed(until) if Instant::now() >= until => Err(format!(
                "its process {} does not end, even after SIGKILL",
                self.child.id()
            )),
            told => Ok(told),
        }
    }

    /// Kills it with all that is in its process group. Its watchdog and the commands that it runs are in groups of
    /// their own, and end by themselves.
    fn kill(&self) {
        // It is not reaped yet, so the id cannot be another group's.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
    }

    /// Waits a moment for output or the end. True if it has ended.
    fn listen(&mut self, listener: &mut Listener, ended: bool) -> io::Result<bool> {
        let mut fds = Vec::with_capacity(3);
        // Its end stays readable: after that only output is waited for.
        if !ended {
            fds.push(PollFd::new(&self.pidfd, PollFlags::IN));
        }
        let first = fds.len();
        let pipes = [&self.stdout, &self.stderr];
        fds.extend(
            pipes
                .iter()
                .filter_map(|p| p.as_ref())
                .map(|p| PollFd::new(p, PollFlags::IN)),
        );
        match poll(&mut fds, Some(&STOP_LOOK)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let is_ready = |fd: &PollFd| !fd.revents().is_empty();
        let has_ended = !ended && is_ready(&fds[0]);
        let mut ready = fds[first..].iter().map(is_ready).collect::<Vec<_>>();
        drop(fds);
        let mut buffer = [0; 65_536];
        if self.stdout.is_some() && ready.remove(0) {
            match read(&mut self.stdout, &mut buffer) {
                0 => {}
                n => listener.stdout(&buffer[..n]),
            }
        }
        if self.stderr.is_some() && ready.pop() == Some(true) {
            match read(&mut self.stderr, &mut buffer) {
                0 => {}
                n => listener.stderr(&buffer[..n]),
            }
        }
        Ok(has_ended)
    }
}

/// Reads what there is; at the end, or if that cannot be, the pipe is closed.
fn read(pipe: &mut Option<PipeReader>, buffer: &mut [u8]) -> usize {
    let got = match pipe.as_mut().map(|pipe| pipe.read(buffer)) {
        Some(Ok(got)) => got,
        Some(Err(e)) if e.kind() == io::ErrorKind::Interrupted => return 0,
        Some(Err(_)) | None => 0,
    };
    if got == 0 {
        *pipe = None;
    }
    got
}

fn judge(
    status: io::Result<ExitStatus>,
    told: &Told,
    runner: &Runner,
    mut listener: Listener,
) -> Outcome {
    if listener.lines.dropped > 0 {
        let note = format!("{} lines were too long to read", listener.lines.dropped);
        listener.heard.note(note);
    }
    let said = one_line(&listener.stderr);
    let heard = listener.heard;
    let status = match status {
        Ok(status) => status,
        Err(e) => return heard.failed(1, format!("cannot tell how its process ended: {e}"), &said),
    };
    match (status.code(), status.signal()) {
        (Some(0), _) => heard.done(runner.dry_run),
        (Some(code), _) => {
            let code8 = u8::try_from(code).unwrap_or(1);
            heard.failed(code8, format!("exit code {code}"), &said)
        }
        (None, signal) => {
            let how = match told {
                Told::Killed(_) => format!(
                    "told to stop, it did not end within {} s and was killed",
                    runner.grace.as_secs()
                ),
                _ => format!("its process was killed by signal {}", signal.unwrap_or(0)),
            };
            heard.failed(1, how, &said)
        }
    }
}

/// Makes events of what a process prints.
struct Listener<'a> {
    member: &'a Member,
    hear: &'a dyn Fn(Value),
    lines: Lines,
    heard: Heard,
    stderr: Vec<u8>,
}

impl<'a> Listener<'a> {
    fn new(member: &'a Member, hear: &'a dyn Fn(Value)) -> Self {
        Listener {
            member,
            hear,
            lines: Lines::default(),
            heard: Heard::default(),
            stderr: Vec::new(),
        }
    }

    fn stdout(&mut self, bytes: &[u8]) {
        let (member, hear, heard) = (self.member, self.hear, &mut self.heard);
        self.lines
            .take(bytes, |line| take_line(line, member, heard, hear));
    }

    fn finish(&mut self) {
        let (member, hear, heard) = (self.member, self.hear, &mut self.heard);
        self.lines
            .finish(|line| take_line(line, member, heard, hear));
    }

    /// Of its stderr the end is kept: that is where a panic tells what happened.
    fn stderr(&mut self, bytes: &[u8]) {
        self.stderr.extend_from_slice(bytes);
        let excess = self.stderr.len().saturating_sub(STDERR_MAX_BYTES);
        self.stderr.drain(..excess);
    }
}

fn take_line(line: &[u8], member: &Member, heard: &mut Heard, hear: &dyn Fn(Value)) {
    if line.is_empty() {
        return;
    }
    let mut event = match serde_json::from_slice::<Map<String, Value>>(line) {
        Ok(event) => event,
        // Not one of ours. Whoever reads the events may want to know.
        Err(_) => {
            let mut event = Map::new();
            event.insert("event".into(), json!("output"));
            let text = short(&String::from_utf8_lossy(line));
            event.insert("text".into(), json!(text));
            event
        }
    };
    heard.take(&event);
    event.insert("vm".into(), json!(member.vm));
    event.insert("to".into(), json!(member.host));
    hear(Value::Object(event));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "child/tests.rs"]
mod tests;
