//! `boot-check`: before this host starts its VMs, the other hosts are asked whether they have taken one over.

use super::Place;
use crate::agent::Client;
use crate::cli::units::{human_time, parse_time};
use crate::driver::{RemoteAgent, Streams};
use crate::error::{Kind, Result};
use crate::hypervisor::RoleHypervisor;
use crate::job::{Answer, BootCheck, BootOptions, HostRequest, Position, Question, Unreachable};
use crate::remote::{HostSpec, Remote, SshOptions};
use crate::stop::Stop;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Hosts that are asked at the same time.
const HOSTS_AT_ONCE: usize = 32;
/// Pause before a host is tried again that could not be asked, twice as long each time: it may be booting as well.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// How often a pause looks whether it is to end early.
const LOOK: Duration = Duration::from_millis(100);

/// What to check before VMs are started.
#[derive(Debug, clap::Args)]
pub struct BootCheckArgs {
    /// Only these VMs
    #[arg(value_name = "VM")]
    vms: Vec<String>,
    /// How long to try to ask the other hosts, in all
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    wait: Duration,
    /// What is done about a VM if one of the hosts that keep its replica cannot be asked: it may start, or it is kept off
    #[arg(long, value_name = "WHAT", value_enum, default_value = "start")]
    unreachable: Unreachable,
    /// How a host is reached, if not as it was when it was synced to: its name and [USER@]HOST or
    /// ssh://[USER@]HOST[:PORT]; may be given more than once
    #[arg(long, value_name = "NAME=HOST", value_parser = parse_reach)]
    reach: Vec<(String, HostSpec)>,
    /// You are certain that this VM, named by its id, runs on no other host: it may start unless another host is primary in
    /// a newer epoch; may be given more than once
    #[arg(long, value_name = "VM")]
    i_am_sure: Vec<String>,
    /// Tell what is known and what would be done; change nothing
    #[arg(long)]
    dry_run: bool,
}

fn parse_reach(text: &str) -> std::result::Result<(String, HostSpec), String> {
    match text.split_once('=') {
        Some((name, host)) if !name.is_empty() => match HostSpec::parse(host) {
            Ok(host) => Ok((name.to_owned(), host)),
            Err(e) => Err(e.message()),
        },
        _ => Err("write NAME=HOST".into()),
    }
}

/// Checks the VMs of this host. `identity_of` reads from a configuration what tells a VM from another one that gets its id
/// later.
pub fn boot_check(
    args: &BootCheckArgs,
    place: &Place,
    hypervisor: &dyn RoleHypervisor,
    identity_of: &dyn Fn(&str) -> Option<String>,
) -> Result<()> {
    let options = BootOptions {
        vms: args.vms.clone(),
        unreachable: args.unreachable,
        sure: args.i_am_sure.iter().cloned().collect(),
        dry_run: args.dry_run,
    };
    let stop = place.stop.child();
    let ask = |questions: &[Question]| {
        stop.stop_within(args.wait);
        let asking = Asking {
            program: place.program,
            ssh: SshOptions {
                connect_timeout: args.wait.min(Duration::from_secs(10)),
                ..place.ssh.options(&stop)
            },
            stop: stop.clone(),
            wait: args.wait,
            reach: &args.reach,
        };
        asking.all(questions)
    };
    let check = BootCheck {
        program: place.program,
        layout: place.layout,
        hypervisor,
        reporter: place.reporter,
        identity_of,
        ask: &ask,
    };
    let done = check.run(&options);
    // Stopped from outside it has not asked long enough to say anything.
    place.stop.check()?;
    done.map(drop)
}

/// How other hosts are asked.
struct Asking<'a> {
    program: &'static str,
    ssh: SshOptions,
    stop: Stop,
    wait: Duration,
    reach: &'a [(String, HostSpec)],
}

impl Asking<'_> {
    /// Asks all hosts at the same time, each over one connection.
    fn all(&self, questions: &[Question]) -> Vec<Answer> {
        let mut by_host: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, question) in questions.iter().enumerate() {
            let named = self.reach.iter().find(|(name, _)| *name == question.host);
            let address = named.map_or_else(|| question.address.clone(), |(_, h)| h.to_string());
            by_host.entry(address).or_default().push(at);
        }
        let threads = by_host.len().min(HOSTS_AT_ONCE);
        let todo = Mutex::new(by_host.into_iter());
        let answers = Mutex::new(vec![None; questions.len()]);
        let work = || loop {
            let next = todo.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((address, asked)) = next else {
                return;
            };
            let pairs: Vec<&Question> = asked.iter().map(|at| &questions[*at]).collect();
            let given = self.host(&address, &pairs);
            let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
            for (at, answer) in asked.into_iter().zip(given) {
                answers[at] = Some(answer);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(work);
            }
        });
        let answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
        let none = || Answer::Unasked("it was not asked".into());
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(none))
            .collect()
    }

    /// Asks one host, again and again as long as there is time.
    fn host(&self, address: &str, questions: &[&Question]) -> Vec<Answer> {
        let nothing = |why: String| {
            questions
                .iter()
                .map(|_| Answer::Unasked(why.clone()))
                .collect()
        };
        let host = match HostSpec::parse(address) {
            Ok(host) => host,
            Err(e) => return nothing(e.message()),
        };
        let began = Instant::now();
        let (mut pause, mut last) = (PAUSE, None);
        while !self.stop.is_stopped() {
            match self.try_host(&host, questions) {
                Ok(answers) => return answers,
                // That it was stopped tells nothing new of the host.
                Err(e) if e.kind() == Kind::Cancelled && last.is_some() => {}
                Err(e) => last = Some(e),
            }
            let until = Instant::now() + pause;
            while Instant::now() < until && !self.stop.is_stopped() {
                std::thread::sleep(LOOK);
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
        nothing(match last {
            Some(e) if e.kind() != Kind::Cancelled => e.message(),
            _ => format!(
                "no answer within {}",
                human_time(self.wait.min(began.elapsed()))
            ),
        })
    }

    fn try_host(&self, host: &HostSpec, questions: &[&Question]) -> Result<Vec<Answer>> {
        Remote::during(host, &self.ssh, |session| {
            let agent = RemoteAgent::start(session, self.program, Streams::Fixed(1), &self.stop)?;
            agent.during(|agent| {
                let client = agent.client();
                questions.iter().map(|q| position(client, q)).collect()
            })
        })
    }
}

/// A host that knows nothing of the pair has answered, but not the question.
fn position(client: &mut Client, question: &Question) -> Result<Answer> {
    let request = HostRequest::Position {
        pair: question.pair,
    };
    match client.host::<_, Position>(&request) {
        Ok(position) => Ok(Answer::Says(position)),
        Err(e) if e.kind() == Kind::NotFound => Ok(Answer::Unasked(e.message())),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_named_with_the_way_to_it() {
        let (name, host) = parse_reach("host2=ssh://root@10.0.0.2:2222").unwrap();
        assert_eq!((name.as_str(), host.port()), ("host2", Some(2222)));
        for bad in ["host2", "=10.0.0.2", "host2=", "host2=a b"] {
            assert!(parse_reach(bad).is_err(), "{bad}");
        }
    }
}
