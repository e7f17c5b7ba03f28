//! Exit codes, the same for all front ends.

use super::Reporter;
use crate::error::{Error, Kind, Result};
use crate::stop::Stop;
use std::process::ExitCode;

/// The exit codes, as `--help` shows them.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    done: the destination is equal to the source (or a dry run ended)
  1    failed: something is missing or not permitted, connection, I/O, space; running again is safe
  2    wrong usage: bad options, SRC equal to DST, or neither a file nor a block device
  3    refused: sizes differ, something is in use, a host key is not the known one; nothing was changed
  4    content is not what its digest says: do not use the copy
  5    of several VMs some failed, and the others are done
  129, 130, 143   stopped by SIGHUP, SIGINT (Ctrl-C), SIGTERM";

/// How a program ends: with the code of what was done, or with that of an error, which is told first.
pub fn ended(result: Result<u8>, program: &str, reporter: &Reporter, stop: &Stop) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let error = match stop.is_stopped() && error.kind() != Kind::Cancelled {
                true => stop.error().because(error),
                false => error,
            };
            reporter.fail(program, &error);
            ExitCode::from(exit_code(&error, stop))
        }
    }
}

/// The exit code for an error.
pub fn exit_code(error: &Error, stop: &Stop) -> u8 {
    if let Some(signal) = stop.signal() {
        return 128 + (signal & 0x7f) as u8;
    }
    match error.kind() {
        Kind::Usage => 2,
        Kind::Refused | Kind::Busy => 3,
        Kind::Digest => 4,
        _ => 1,
    }
}

/// The exit code of a run over several VMs of which some failed, and others did not.
pub const EXIT_SOME_FAILED: u8 = 5;
