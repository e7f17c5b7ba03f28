//! `PROGRAM agent`: the far end that a driver starts, the same for all front ends.

use super::exit_code;
use crate::agent::{serve, Service};
use crate::error::{Error, Result};
use crate::remote::agent_id;
use crate::stop::Stop;
use crate::wire::VERSION;
use rustix::fd::{BorrowedFd, OwnedFd};
use std::ffi::OsString;
use std::process::ExitCode;

/// Serves a driver on standard input and output, or with `--id` prints who this is.
pub fn run_agent(program: &str, option: Option<OsString>, service: &mut dyn Service) -> ExitCode {
    match option.as_deref().and_then(|o| o.to_str()) {
        Some("--id") => {
            println!("{}", agent_id(program, VERSION.into()));
            return ExitCode::SUCCESS;
        }
        None if option.is_none() => {}
        _ => {
            eprintln!("{program}: agent takes no options but --id");
            return ExitCode::from(2);
        }
    }
    let served = own_streams()
        .and_then(|(input, output)| serve(program, input, output, Stop::new(), service));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(exit_code(&error, &Stop::new()))
        }
    }
}

fn own_streams() -> Result<(OwnedFd, OwnedFd)> {
    let own = |fd: BorrowedFd| {
        rustix::io::fcntl_dupfd_cloexec(fd, 3)
            .map_err(|e| Error::io("cannot use standard input and output", e.into()))
    };
    Ok((own(rustix::stdio::stdin())?, own(rustix::stdio::stdout())?))
}
