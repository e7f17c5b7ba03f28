//! `PROGRAM agent`: the far end that a driver starts, the same for all front ends.

use super::exit_code;
use crate::agent::restrict::{Asked, Warden};
use crate::agent::{join, pour, serve_under, Service};
use crate::error::{Error, Result};
use crate::remote::{agent_id, RESTRICTED};
use crate::stop::Stop;
use crate::wire::VERSION;
use rustix::fd::{BorrowedFd, OwnedFd};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

/// What comes after `PROGRAM agent`.
///
/// * nothing: serves a driver on standard input and output
/// * `--lanes TOKEN`: the same, and lets others join
/// * `--join TOKEN NUMBER`: joins the agent with that token as its lane of that number
/// * `--pour SOCKET`: standard input goes to that unix socket, and what comes from it to standard output
/// * `--id`: prints who this is
/// * `--restrict POLICY`: as sshd's forced command: one of the above, as the driver asked for it, and as far as the policy
///   in that file allows it
pub fn run_agent(program: &str, args: &[OsString], service: &mut dyn Service) -> ExitCode {
    let words: Vec<&str> = args.iter().map(|a| a.to_str().unwrap_or("")).collect();
    let done = match words.as_slice() {
        ["--id"] => {
            println!("{}", agent_id(program, VERSION.into()));
            Ok(())
        }
        [] => serve_driver(program, None, None, service),
        ["--lanes", token] => serve_driver(program, Some(token), None, service),
        ["--join", token, number] => match number.parse() {
            Ok(number) => join_here(token, number),
            Err(_) => return usage(program),
        },
        ["--pour", path] => pour_here(Path::new(path)),
        ["--restrict", policy] => restricted(program, Path::new(policy), service),
        _ => return usage(program),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(exit_code(&error, &Stop::new()))
        }
    }
}

fn usage(program: &str) -> ExitCode {
    eprintln!(
        "{program}: agent takes --id, --lanes TOKEN, --join TOKEN NUMBER, --pour SOCKET, --restrict POLICY, or nothing"
    );
    ExitCode::from(2)
}

/// Serves what the driver asked sshd for, as far as the policy allows it.
fn restricted(program: &str, policy: &Path, service: &mut dyn Service) -> Result<()> {
    let warden = Warden::new(program, policy)?;
    let command = std::env::var_os("SSH_ORIGINAL_COMMAND").unwrap_or_default();
    // What is no text is none of the commands that are served.
    let command = command.to_string_lossy();
    match warden.asked(&command)? {
        Asked::Id => {
            println!("{}\n{RESTRICTED}", agent_id(program, VERSION.into()));
            Ok(())
        }
        Asked::Serve => serve_driver(program, None, Some(warden), service),
        Asked::Lanes(token) => {
            let token = scoped(token, policy);
            serve_driver(program, Some(&token), Some(warden), service)
        }
        Asked::Join(token, number) => join_here(&scoped(token, policy), number),
        Asked::Pour(path) => {
            warden.may_pour(path, service)?;
            pour_here(path)
        }
    }
}

/// The token of an agent that serves this policy. Tokens can be read on the host by all of its users: one who may run an agent
/// under one policy must not join another's.
fn scoped(token: &str, policy: &Path) -> String {
    let policy = blake3::hash(policy.as_os_str().as_bytes()).to_hex();
    format!("{token}{}", &policy[..16])
}

fn join_here(token: &str, number: u8) -> Result<()> {
    let (input, output) = (rustix::stdio::stdin(), rustix::stdio::stdout());
    join(token, number, input, output)
}

fn pour_here(path: &Path) -> Result<()> {
    pour(path, rustix::stdio::stdin(), rustix::stdio::stdout())
}

fn serve_driver(
    program: &str,
    token: Option<&str>,
    warden: Option<Warden>,
    service: &mut dyn Service,
) -> Result<()> {
    let own = |fd: BorrowedFd| {
        rustix::io::fcntl_dupfd_cloexec(fd, 3)
            .map_err(|e| Error::io("cannot use standard input and output", e.into()))
    };
    let (input, output): (OwnedFd, OwnedFd) =
        (own(rustix::stdio::stdin())?, own(rustix::stdio::stdout())?);
    let streams = (input, output);
    serve_under(warden, program, streams, token, Stop::new(), service)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_under_a_policy_is_joined_under_the_same_only() {
        let [a, b] = ["/p/a.toml", "/p/b.toml"].map(|policy| scoped("0123", Path::new(policy)));
        assert_eq!(a, scoped("0123", Path::new("/p/a.toml")));
        assert_ne!(a, b);
        assert!(a.starts_with("0123") && a.len() == b.len() && a.len() > 4);
        assert!(a.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }
}
