//! `setup HOST`: a key of its own for the runs to another host, which serves there only what a policy names.
//!
//! It is installed over whatever access there is already. Then it is tried, and from then on used, by whoever names the host
//! in the same way.

mod sudo;

use super::Place;
use crate::cli::units::parse_rate;
use crate::error::{Error, Kind, Result};
use crate::hypervisor::HostDescription;
use crate::job::{ask, HostRequest};
use crate::remote::{agent_id, key_path, make_key, remove_key, HostSpec, Remote, SshOptions};
use crate::replica;
use crate::wire::VERSION;
use serde_json::json;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const THERE: &str = include_str!("there.sh");
const KEYS: &str = include_str!("keys.sh");

/// What the key is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SetupAccess {
    /// Generations are added, and none is overwritten or removed
    Append,
    /// Replicas are kept, and pruned
    Write,
}

/// Which host, and what is to be allowed there.
#[derive(Debug, clap::Args)]
pub struct SetupArgs {
    /// The other host, as it will be named with --to
    host: String,
    /// Log in as this user, and run the agent with sudo
    ///
    /// Later runs name the host NAME@HOST. The user must be there already. The commands that tell sudo of it are printed: run
    /// them there, as root, and setup again.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// What the key is good for
    #[arg(long, value_enum, value_name = "ACCESS", default_value = "write")]
    access: SetupAccess,
    /// Let VMs be taken over and moved there, too; only with --access write
    #[arg(long)]
    roles: bool,
    /// Ids that replicas may have there, with * and ?; may be given more than once [default: all]
    #[arg(long, value_name = "PATTERN")]
    allow_vm: Vec<String>,
    /// Storages, pools or directories that replicas may be on there; may be given more than once [default: all]
    #[arg(long, value_name = "PATTERN")]
    allow_storage: Vec<String>,
    /// Most bytes a second that a connection may bring (K, M, G), at least 1M
    #[arg(long, value_name = "RATE", value_parser = |s: &str| parse_rate(s).map(|_| s.to_owned()))]
    bandwidth: Option<String>,
    /// Take the key and the policy away again, here and there
    #[arg(long, conflicts_with_all = ["access", "roles", "allow_vm", "allow_storage", "bandwidth"])]
    remove: bool,
}

/// Sets a key up, or takes it away.
pub fn setup(args: &SetupArgs, place: &Place) -> Result<()> {
    let host = HostSpec::parse(&args.host)?;
    if let Some(user) = &args.user {
        sudo::check_user(user)?;
    }
    let id = replica::host_id(place.layout, true)?;
    let there = There {
        place,
        marker: format!("{}-{id}", place.program),
        user: args
            .user
            .clone()
            .or_else(|| host.user().map(str::to_owned))
            .unwrap_or_else(|| "root".into()),
        // Whoever the key is for: the host is set up by those who may do more.
        admin: SshOptions {
            keys: None,
            ..place.ssh.options(place.stop)
        },
        keyed: match &args.user {
            Some(user) => HostSpec::new(Some(user), host.host(), host.port())?,
            None => host.clone(),
        },
        host,
    };
    match args.remove {
        true => there.remove(),
        false => there.add(&args.policy(&id.to_string())?),
    }
}

impl SetupArgs {
    /// The policy's text.
    fn policy(&self, peer: &str) -> Result<String> {
        let access = match self.access {
            SetupAccess::Append => "append",
            SetupAccess::Write => "write",
        };
        let list = |patterns: &[String]| match patterns {
            [] => toml::Value::from(vec!["*"]),
            patterns => toml::Value::from(patterns.to_vec()),
        };
        let mut text =
            String::from("# Written by setup, which overwrites it when it is run again.\n");
        let mut line = |key: &str, value: toml::Value| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{key} = {value}");
        };
        line("access", access.into());
        line("roles", self.roles.into());
        line("peer", peer.into());
        line("vms", list(&self.allow_vm));
        line("storages", list(&self.allow_storage));
        if let Some(bandwidth) = &self.bandwidth {
            line("bandwidth", bandwidth.as_str().into());
        }
        crate::agent::restrict::Policy::parse(&text)
            .map_err(|e| e.context("this cannot be a policy"))?;
        Ok(text)
    }
}

struct There<'a> {
    place: &'a Place<'a>,
    /// As it was named.
    host: HostSpec,
    /// As later runs name it.
    keyed: HostSpec,
    user: String,
    /// Tells our line and our policy there from others.
    marker: String,
    admin: SshOptions,
}

impl There<'_> {
    fn key(&self) -> PathBuf {
        key_path(&self.place.layout.keys(), &self.keyed)
    }

    fn add(&self, policy: &str) -> Result<()> {
        let key = self.key();
        let (public, is_new) = make_key(&key)?;
        let installed = self.install(&public, policy);
        if installed.is_err() && is_new {
            // It is good for nothing there, and no run should try it. Why there was nothing to install it for is the error.
            let _ = remove_key(&key);
        }
        let Found {
            program,
            policy: file,
            sudo,
        } = installed?;
        let how = match is_new {
            true => "made",
            false => "is there already",
        };
        self.say(format!("key {}: {how}", key.display()));
        self.say(format!(
            "{}: the key of this host is good for {program} alone, as {file} says",
            self.keyed
        ));
        if sudo.is_some() {
            let rule = sudo::Rule {
                user: &self.user,
                program: &program,
                policy: &file,
                marker: &self.marker,
            };
            let host = self.host.host();
            let commands = rule.commands();
            self.place.reporter.say(
                format!("{host}: root has to run this there, once:\n\n{commands}\n"),
                json!({"event": "setup", "host": host, "commands": commands}),
            );
        }
        let described = self
            .check(sudo.is_some())
            .map_err(|e| e.context("the key is installed, but does not work"))?;
        self.place.reporter.say(
            format!("{}: {} answers the key", self.keyed, described.name),
            json!({"event": "setup", "host": self.keyed.to_string(), "key": key, "policy": file}),
        );
        Ok(())
    }

    /// Puts the key's line and the policy there.
    fn install(&self, public: &str, policy: &str) -> Result<Found> {
        Remote::during(&self.host, &self.admin, |session| {
            let found = self.look(session)?;
            let sudo = found.sudo.iter().map(|sudo| format!("{sudo} -n "));
            let line = format!(
                "restrict,command=\"{}{} agent --restrict {}\" {public} {}\n",
                sudo.collect::<String>(),
                found.program,
                found.policy,
                self.marker
            );
            self.run(session, "add", Some(&format!("{line}{policy}")))?;
            Ok(found)
        })
    }

    fn remove(&self) -> Result<()> {
        Remote::during(&self.host, &self.admin, |session| {
            self.run(session, "remove", None).map(drop)
        })?;
        self.say(format!(
            "{}: the key is good for nothing any more",
            self.keyed
        ));
        let key = self.key();
        if remove_key(&key)? {
            self.say(format!("key {}: removed", key.display()));
        }
        Ok(())
    }

    /// What is there. The program must be of our version.
    fn look(&self, session: &Remote) -> Result<Found> {
        let answer = self.run(session, "look", None)?;
        let lines: Vec<&str> = answer.lines().collect();
        let (program, policy, sudo) = match lines.as_slice() {
            [program, policy] => (*program, *policy, None),
            [program, policy, sudo] => (*program, *policy, Some(*sudo)),
            _ => return Err(self.odd("it does not say where the program is")),
        };
        for path in [program, policy].into_iter().chain(sudo) {
            // They go into authorized_keys and sudoers as they are.
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-".contains(&b);
            if !Path::new(path).is_absolute() || !path.bytes().all(plain) {
                let shown = path.escape_default();
                return Err(self.odd(&format!("\"{shown}\" cannot be in a forced command")));
            }
        }
        let id = session.run(program, &["agent", "--id"], None)?;
        let wanted = agent_id(self.place.program, VERSION.into());
        if !id.status.success() || id.stdout.trim_ascii_end() != wanted.as_bytes() {
            let what = format!(
                "{} has another version of {}",
                self.host, self.place.program
            );
            return Err(Error::new(Kind::Refused, what).advise(
                "install the same version on both hosts: with a key of this kind none is brought there",
            ));
        }
        Ok(Found {
            program: program.to_owned(),
            policy: policy.to_owned(),
            sudo: sudo.map(str::to_owned),
        })
    }

    fn odd(&self, why: &str) -> Error {
        let what = format!("cannot set {} up: {why}", self.host);
        Error::new(Kind::Remote, what)
    }

    /// Runs our script there; what it says.
    fn run(&self, session: &Remote, action: &str, input: Option<&str>) -> Result<String> {
        let args = [
            "-c",
            THERE,
            "setup",
            action,
            &self.marker,
            &self.user,
            self.place.program,
            KEYS,
        ];
        let done = session.run("sh", &args, input.map(str::as_bytes))?;
        match done.status.success() {
            true => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
            false => {
                let what = format!("cannot set {} up", self.host);
                Err(Error::new(Kind::Remote, what).because(done.stderr_line()))
            }
        }
    }

    /// Asks the host with the key that later runs use.
    fn check(&self, by_sudo: bool) -> Result<HostDescription> {
        let options = SshOptions {
            keys: Some(self.place.layout.keys()),
            ..self.admin.clone()
        };
        let (program, stop) = (self.place.program, self.place.stop);
        Remote::during(&self.keyed, &options, |session| {
            let id = session.run(program, &["agent", "--id"], None)?;
            if !id.status.success() {
                let what = format!("{} runs no agent with the new key", self.keyed);
                let error = Error::new(Kind::Permission, what).because(id.stderr_line());
                return Err(match by_sudo {
                    true => error.advise(format!(
                        "run the commands above on {} as root, then setup again",
                        self.host.host()
                    )),
                    false => error,
                });
            }
            if !session.is_restricted(program)? {
                let what = format!("{} serves more than an agent to the new key", self.keyed);
                return Err(Error::new(Kind::Refused, what).advise(
                    "another key was taken: see the IdentityFile that ssh is configured with",
                ));
            }
            ask(
                session,
                program,
                &HostRequest::Describe { keep: true },
                stop,
            )
        })
    }

    fn say(&self, text: String) {
        let event = json!({"event": "setup", "text": text});
        self.place.reporter.say(text, event);
    }
}

/// What there is on the other host.
struct Found {
    program: String,
    policy: String,
    /// By what the agent runs, if the user is not the one who sets it up.
    sudo: Option<String>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::agent::restrict::{Access, Policy};
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        setup: SetupArgs,
    }

    fn policy(args: &str) -> Result<Policy> {
        let cli = Cli::parse_from(
            ["setup", "host2"]
                .into_iter()
                .chain(args.split_whitespace()),
        );
        let text = cli.setup.policy("6f9619ff-8b86-4d01-b42d-00cf4fc964ff")?;
        Policy::parse(&text)
    }

    #[test]
    fn a_policy_allows_what_was_asked_for_and_no_more() {
        let plain = policy("").unwrap();
        assert!(plain.access == Access::Write && !plain.roles && plain.peer.is_some());
        assert!(plain.allows_vm("101") && plain.allows_storage("/var/lib/images"));
        assert!(
            !plain.allows_path(Path::new("/etc/passwd")),
            "no plain files"
        );
        let narrow = policy(
            "--access append --allow-vm 10? --allow-vm web --allow-storage fast --bandwidth 5M",
        );
        let narrow = narrow.unwrap();
        assert!(narrow.access == Access::Append && narrow.bandwidth == Some(5 << 20));
        assert!(narrow.allows_vm("web") && !narrow.allows_vm("201"));
        assert!(narrow.allows_storage("fast") && !narrow.allows_storage("slow"));
        assert!(policy("--roles").unwrap().roles);
        for bad in [
            "--access append --roles",
            "--allow-vm ../x",
            "--bandwidth 1K",
        ] {
            assert!(policy(bad).is_err(), "{bad}");
        }
        // A quote is a part of a name, not the end of one.
        assert!(policy("--allow-vm a\"b").unwrap().allows_vm("a\"b"));
    }
}
