//! `PROGRAM agent`: the far end that a driver starts, the same for all front ends.

use super::exit_code;
use crate::agent::{join, pour, serve, Service};
use crate::error::{Error, Result};
use crate::remote::agent_id;
use crate::stop::Stop;
use crate::wire::VERSION;
use rustix::fd::{BorrowedFd, OwnedFd};
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// What comes after `PROGRAM agent`.
///
/// * nothing: serves a driver on standard input and output
/// * `--lanes TOKEN`: the same, and lets others join
/// * `--join TOKEN NUMBER`: joins the agent with that token as its lane of that number
/// * `--pour SOCKET`: standard input goes to that unix socket, and what comes from it to standard output
/// * `--id`: prints who this is
pub fn run_agent(program: &str, args: &[OsString], service: &mut dyn Service) -> ExitCode {
    let words: Vec<&str> = args.iter().map(|a| a.to_str().unwrap_or("")).collect();
    let served = match words.as_slice() {
        ["--id"] => {
            println!("{}", agent_id(program, VERSION.into()));
            return ExitCode::SUCCESS;
        }
        [] => serve_driver(program, None, service),
        ["--lanes", token] => serve_driver(program, Some(token), service),
        ["--join", token, number] => match number.parse() {
            Ok(number) => join(
                token,
                number,
                rustix::stdio::stdin(),
                rustix::stdio::stdout(),
            ),
            Err(_) => return usage(program),
        },
        ["--pour", path] => pour(
            Path::new(path),
            rustix::stdio::stdin(),
            rustix::stdio::stdout(),
        ),
        _ => return usage(program),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(exit_code(&error, &Stop::new()))
        }
    }
}

fn usage(program: &str) -> ExitCode {
    eprintln!("{program}: agent takes --id, --lanes TOKEN, --join TOKEN NUMBER, --pour SOCKET, or nothing");
    ExitCode::from(2)
}

fn serve_driver(program: &str, token: Option<&str>, service: &mut dyn Service) -> Result<()> {
    let own = |fd: BorrowedFd| {
        rustix::io::fcntl_dupfd_cloexec(fd, 3)
            .map_err(|e| Error::io("cannot use standard input and output", e.into()))
    };
    let (input, output): (OwnedFd, OwnedFd) =
        (own(rustix::stdio::stdin())?, own(rustix::stdio::stdout())?);
    serve(program, input, output, token, Stop::new(), service)
}
