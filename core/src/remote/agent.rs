//! Agents on the other host: finding or bringing the program, starting it, and learning why it ended.

use super::process::{self, Ended, Process, Tail, Watch};
use super::run::RunLimits;
use super::upload::{self, Upload};
use super::{words, HostSpec, Remote};
use crate::error::{Error, Kind, Result};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Duration;

/// How much of an agent's stderr is kept, from its end.
const STDERR_KEPT: usize = 8 << 10;

/// Our own program, also when the file was replaced by an upgrade since it was started.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Programs whose agents keep VMs, each on its own kind of hypervisor, and understand each other.
const RELATED: [&str; 2] = ["pvesync", "virt-blocksync"];

/// The line by which an agent names itself, `PROGRAM agent --id`; both ends must give the same.
/// `protocol` is the version of the wire protocol.
pub fn agent_id(program: &str, protocol: u32) -> String {
    format!(
        "{program} {} protocol {protocol}",
        env!("CARGO_PKG_VERSION")
    )
}

/// The second line of an agent that serves only what a policy names: no other program can be brought there.
pub const RESTRICTED: &str = "restricted";

/// Which agent is wanted on the other host.
#[derive(Debug, Clone)]
pub struct AgentSpec {
    /// Name of the program, looked for on the other host's PATH.
    pub program: String,
    /// What `PROGRAM agent --id` must print there, see [`agent_id`].
    pub id: String,
    /// The file to upload where the program is missing or of another version.
    pub local_binary: PathBuf,
    /// Arguments of the agent.
    pub args: Vec<OsString>,
}

impl AgentSpec {
    /// The agent of the running program: started as `PROGRAM agent`, uploaded from our own executable.
    pub fn new(program: impl Into<String>, id: impl Into<String>) -> AgentSpec {
        AgentSpec {
            program: program.into(),
            id: id.into(),
            local_binary: PathBuf::from(OWN_PROGRAM),
            args: vec!["agent".into()],
        }
    }

    /// The agents of the other kinds of hypervisors, which will do as well. What they do not have in common with ours they
    /// refuse by themselves. They are not uploaded: we do not have them.
    fn others(&self) -> impl Iterator<Item = AgentSpec> + '_ {
        let others = RELATED.iter().filter(|name| **name != self.program);
        let is_related = RELATED.contains(&self.program.as_str());
        others.filter(move |_| is_related).filter_map(|name| {
            Some(AgentSpec {
                program: (*name).into(),
                id: format!("{name}{}", self.id.strip_prefix(&self.program)?),
                ..self.clone()
            })
        })
    }

    fn check(&self) -> Result<()> {
        let byte_ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if self
            .program
            .starts_with(|c: char| c.is_ascii_alphanumeric())
            && self.program.bytes().all(byte_ok)
        {
            return Ok(());
        }
        let shown = self.program.escape_default();
        Err(Error::new(
            Kind::Usage,
            format!("\"{shown}\" is not the name of an agent program"),
        ))
    }
}

/// A program known to be on the other host in the right version.
#[derive(Debug)]
pub(super) struct Known {
    /// The one that was asked for.
    wanted: String,
    id: String,
    /// The one that is there.
    program: String,
    upload: Option<Upload>,
}

impl Known {
    fn command(&self) -> OsString {
        match &self.upload {
            Some(upload) => upload.program.clone().into(),
            None => OsString::from(&self.program),
        }
    }

    /// Has what was uploaded removed, if anything was.
    pub(super) fn close(self) -> Result<()> {
        self.upload.map_or(Ok(()), Upload::close)
    }
}

/// A running agent: the two ends of its byte stream, for whichever threads use them, and a handle.
///
/// Closing `stdin` asks the agent to end. Both descriptors are blocking pipes to the ssh master; when
/// the connection is lost, reading gives end of file and writing a broken pipe, and
/// [`AgentHandle::finish`] tells why.
#[derive(Debug)]
pub struct AgentPipe {
    /// To the agent.
    pub stdin: OwnedFd,
    /// From the agent.
    pub stdout: OwnedFd,
    /// For the end.
    pub handle: AgentHandle,
}

/// Follows a running agent. May be dropped at any time; that does not end the agent.
#[derive(Debug)]
pub struct AgentHandle {
    host: HostSpec,
    program: String,
    uploaded: Option<PathBuf>,
    watch: Watch,
}

/// How an agent ended, with its last words. `Display` is the explanation for people.
#[derive(Debug, Clone)]
pub struct AgentEnd {
    host: HostSpec,
    program: String,
    /// How it ended.
    pub how: Ended,
    /// The end of its stderr on one line, without control characters; often empty.
    pub stderr: String,
}

impl AgentHandle {
    /// Waits up to `limit` for the agent to end, after its `stdin` was closed or its stream broke off.
    /// Read `stdout` to its end before, or drop it: an agent whose output waits for us has not ended.
    pub fn finish(self, limit: Duration) -> AgentEnd {
        let how = self.watch.ended_within(limit);
        AgentEnd {
            stderr: self.stderr(),
            host: self.host,
            program: self.program,
            how,
        }
    }

    /// The end (at most 8 KiB) of what the agent has written to stderr so far, on one line.
    pub fn stderr(&self) -> String {
        words::one_line(&self.watch.stderr())
    }

    /// Where the program was uploaded to, if it was.
    pub fn uploaded(&self) -> Option<&std::path::Path> {
        self.uploaded.as_deref()
    }
}

impl AgentEnd {
    /// Whether it ended by itself without an error.
    pub fn is_success(&self) -> bool {
        matches!(self.how, Ended::Exited(status) if status.success())
    }

    /// Success, or the explanation as an error.
    pub fn into_result(self) -> Result<()> {
        if self.is_success() {
            return Ok(());
        }
        let kind = match self.how {
            Ended::Running => Kind::Timeout,
            _ => Kind::Remote,
        };
        Err(Error::new(kind, self.to_string()))
    }
}

impl fmt::Display for AgentEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the {} agent on {}: {}",
            self.program, self.host, self.how
        )?;
        match self.stderr.as_str() {
            "" => Ok(()),
            said => write!(f, "; its last words: {said}"),
        }
    }
}

impl Remote {
    /// Starts an agent: the program of that name if its version there is ours, or the one of another kind of hypervisor;
    /// else our own, uploaded for as long as this connection lives. May be called several times.
    pub fn start_agent(&self, spec: &AgentSpec) -> Result<AgentPipe> {
        spec.check()?;
        self.launch_agent(self.agent_command(spec)?, spec, None)
    }

    /// The same, and what it writes to stderr goes into `echo` as it comes.
    pub fn start_echoing(&self, spec: &AgentSpec, echo: File) -> Result<AgentPipe> {
        spec.check()?;
        self.launch_agent(self.agent_command(spec)?, spec, Some(echo))
    }

    /// The same over a connection of its own to the same host, which must stay as long as the agent is needed.
    pub fn start_beside(&self, spec: &AgentSpec) -> Result<(Remote, AgentPipe)> {
        spec.check()?;
        // What was uploaded over this connection serves the other as well.
        let command = self.agent_command(spec)?;
        let other = Remote::connect(self.host(), &self.options)?;
        let pipe = other.launch_agent(command, spec, None)?;
        Ok((other, pipe))
    }

    fn launch_agent(
        &self,
        command: OsString,
        spec: &AgentSpec,
        echo: Option<File>,
    ) -> Result<AgentPipe> {
        let tail = match echo {
            Some(echo) => Tail::echoing(STDERR_KEPT, echo),
            None => Tail::new(STDERR_KEPT),
        };
        let Process {
            stdin,
            stdout,
            watch,
        } = process::launch_with(self.host(), &self.master, &command, &spec.args, tail)?;
        let command = PathBuf::from(command);
        let handle = AgentHandle {
            host: self.host().clone(),
            program: spec.program.clone(),
            uploaded: command.is_absolute().then_some(command),
            watch,
        };
        Ok(AgentPipe {
            stdin,
            stdout,
            handle,
        })
    }

    fn agent_command(&self, spec: &AgentSpec) -> Result<OsString> {
        // Held all the while, so that two agents started at once share one upload.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known
            .iter()
            .find(|k| k.wanted == spec.program && k.id == spec.id)
        {
            return Ok(known.command());
        }
        let mut found = None;
        let mut restricted = None;
        for wanted in std::iter::once(spec.clone()).chain(spec.others()) {
            match self.identify(&wanted.program)? {
                Some((id, _)) if id == wanted.id => found = Some(wanted.program),
                Some((id, true)) => restricted = Some(words::one_line(id.as_bytes())),
                _ => {}
            }
            if found.is_some() {
                break;
            }
        }
        let upload = match (&found, restricted) {
            (Some(_), _) => None,
            (None, Some(id)) => return Err(self.no_other(spec, &id)),
            (None, None) => Some(upload::upload(self, spec)?),
        };
        let new = Known {
            wanted: spec.program.clone(),
            id: spec.id.clone(),
            program: found.unwrap_or_else(|| spec.program.clone()),
            upload,
        };
        let command = new.command();
        known.push(new);
        Ok(command)
    }

    /// Whether the key that we have logged in with serves only an agent.
    pub fn is_restricted(&self, program: &str) -> Result<bool> {
        let answer = self.identify(program)?;
        Ok(answer.is_some_and(|(_, is_restricted)| is_restricted))
    }

    /// How the agent of the program on the other host's PATH names itself, and whether it serves only what a policy names.
    /// `None`: there is none that answers as one does.
    fn identify(&self, program: &str) -> Result<Option<(String, bool)>> {
        let limits = RunLimits {
            stdout: 64 << 10,
            ..RunLimits::default()
        };
        let args = ["agent", "--id"].map(OsString::from);
        let answer = self.run_os(OsStr::new(program), &args, None, limits)?;
        if !answer.status.success() {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&answer.stdout);
        let lines: Vec<&str> = text.split('\n').collect();
        Ok(match lines.as_slice() {
            [id, ""] => Some(((*id).to_owned(), false)),
            [id, RESTRICTED, ""] => Some(((*id).to_owned(), true)),
            _ => None,
        })
    }

    /// The key that we have logged in with serves another agent than the wanted one.
    fn no_other(&self, spec: &AgentSpec, id: &str) -> Error {
        let what = format!(
            "{} serves only \"{id}\" to this key, and \"{}\" is needed",
            self.host(),
            spec.id
        );
        Error::new(Kind::Refused, what).advise(format!(
            "install the same version on both hosts, or use a key for {}: with this one no program can be brought there",
            spec.program
        ))
    }
}
