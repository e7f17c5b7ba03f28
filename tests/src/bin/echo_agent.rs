//! A minimal agent for the SSH tests: names itself, echoes, and shows its arguments.

use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let words: Vec<&str> = args.iter().filter_map(|arg| arg.to_str()).collect();
    let done = match words.as_slice() {
        ["agent", "--id"] => writeln!(io::stdout(), "{}", tests::sshd::ECHO_ID),
        ["agent"] => echo(),
        ["agent", "--fail", message] => {
            eprintln!("{message}");
            return ExitCode::from(3);
        }
        _ => args.iter().skip(1).try_for_each(|arg| {
            let mut out = io::stdout();
            out.write_all(arg.as_bytes())?;
            out.write_all(b"\0")
        }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn echo() -> io::Result<()> {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let mut chunk = vec![0; 64 << 10];
    loop {
        match input.read(&mut chunk)? {
            0 => return Ok(()),
            n => {
                output.write_all(&chunk[..n])?;
                output.flush()?;
            }
        }
    }
}
