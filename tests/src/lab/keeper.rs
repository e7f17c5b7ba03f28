//! Starts the lab's processes such that they end with it, however it ends.
//!
//! The kernel kills a child with PR_SET_PDEATHSIG when the *thread* that started it ends. So one thread starts them all
//! and lives as long as the lab: when the lab is dropped, when the test panics, when the process is killed.

use super::error::{Context, Error, Result};
use std::process::{Child, Command};
use std::sync::mpsc::{channel, Sender};
use std::thread::JoinHandle;

type Job = (Command, Sender<std::io::Result<Child>>);

/// The thread that starts processes. Dropping it kills them.
#[derive(Debug)]
pub(crate) struct Keeper {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub fn new() -> Result<Keeper> {
        let (jobs, queue) = channel::<Job>();
        let thread = std::thread::Builder::new()
            .name("lab-keeper".into())
            .spawn(move || {
                for (mut command, reply) in queue {
                    reply.send(command.spawn()).ok();
                }
            })
            .context(|| "cannot start a thread")?;
        Ok(Keeper {
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Starts `program`; `setup` adds its arguments, pipes and directory.
    pub fn spawn(&self, program: &str, setup: impl FnOnce(&mut Command)) -> Result<Child> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", program]);
        setup(&mut command);
        let (reply, answer) = channel();
        self.jobs
            .as_ref()
            .and_then(|jobs| jobs.send((command, reply)).ok())
            .ok_or_else(|| Error::new("the lab is going down"))?;
        answer
            .recv()
            .context(|| "the lab is going down")?
            .context(|| format!("cannot start {program}"))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::process::ExitStatusExt;
    use std::process::Stdio;

    #[test]
    fn children_die_with_the_keeper() {
        let keeper = Keeper::new().unwrap();
        let mut child = keeper
            .spawn("cat", |command| {
                command.stdin(Stdio::piped()).stdout(Stdio::piped());
            })
            .unwrap();
        // Its echo proves that setpriv has done its part and become cat, which waits for more for ever.
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"x").unwrap();
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        drop(keeper);
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }
}
