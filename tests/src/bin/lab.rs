//! `lab`: the lab at the command line. `lab up` leaves two hypervisor guests running in the background until `lab down`;
//! `lab ssh a CMD...` runs a command in one of them.
//!
//! The background process holds the [`Lab`]; it listens on a socket in the lab's run directory. The file `up` in the
//! cache directory names that run directory.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use tests::lab::{Error, Guest, Lab, Options, Result};

const USAGE: &str = "usage: lab COMMAND
  build              make what guests boot from, unless the cache has it
  up [BINARIES]      boot both guests in the background, with the programs of directory BINARIES (or $LAB_BINARIES)
  down               end them; fine if there are none
  ssh a|b [CMD...]   run a command in guest hva or hvb, or a shell
  config             print the path of the ssh configuration that reaches hva and hvb
  cut a|b            cut the power of a guest
  again a|b          boot it again on the disks it has
  link cut|mend      the network between the guests
  link DELAY LOSS    milliseconds each way, and percent";

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<&str> = args.iter().filter_map(|arg| arg.to_str()).collect();
    if words.len() != args.len() {
        eprintln!("lab: arguments must be UTF-8");
        return ExitCode::from(2);
    }
    let done = match words[..] {
        ["build"] => tests::lab::prepare(),
        ["up"] => up(None),
        ["up", binaries] => up(Some(binaries)),
        ["serve", ref binaries @ ..] => serve(binaries.first().copied()),
        ["down"] => down(),
        ["ssh", guest @ ("a" | "b"), ref command @ ..] => Err(ssh(guest, command)),
        ["config"] => run_dir().map(|dir| println!("{}", dir.join("ssh_config").display())),
        ["cut", "a" | "b"] | ["again", "a" | "b"] | ["link", "cut" | "mend"] | ["link", _, _] => {
            ask(&words.join(" "))
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("lab: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Starts the background process and waits until its guests are up.
fn up(binaries: Option<&str>) -> Result<()> {
    if ask("ping").is_ok() {
        return Err(Error::new("a lab is up already; lab down ends it"));
    }
    // In this process, so that its messages are seen.
    tests::lab::prepare()?;
    let log = tests::lab::cache()?.join("up.log");
    let file = std::fs::File::create(&log).map_err(|e| failed("make", &log.display(), e))?;
    let program = std::env::current_exe().map_err(|e| failed("find", &"this program", e))?;
    let mut child = Command::new("setsid")
        .arg(program)
        .arg("serve")
        .args(binaries)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(file)
        .spawn()
        .map_err(|e| failed("start", &"setsid", e))?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        // An end without a line means failure, told below.
        BufReader::new(stdout).read_line(&mut line).ok();
    }
    if line.trim() == "up" {
        return Ok(());
    }
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    Err(Error::new(text.trim().trim_start_matches("lab: ")))
}

/// The background process: holds the lab until told to end it.
fn serve(binaries: Option<&str>) -> Result<()> {
    let mut options = Options::default();
    if let Some(binaries) = binaries {
        options.binaries = Some(PathBuf::from(binaries));
    }
    let lab = Lab::up(options)?;
    let state = state_file()?;
    let socket = lab.a().run_dir().join("control");
    let listener =
        UnixListener::bind(&socket).map_err(|e| failed("listen on", &socket.display(), e))?;
    std::fs::write(&state, lab.a().run_dir().as_os_str().as_encoded_bytes())
        .map_err(|e| failed("write", &state.display(), e))?;
    println!("up");
    for client in listener.incoming().flatten() {
        let mut line = String::new();
        let mut reader = BufReader::new(client);
        if reader.read_line(&mut line).is_err() {
            continue;
        }
        let mut client = reader.into_inner();
        let words: Vec<&str> = line.split_whitespace().collect();
        if words[..] == ["down"] {
            drop(lab);
            std::fs::remove_file(&state).map_err(|e| failed("remove", &state.display(), e))?;
            // The asker may have left.
            client.write_all(b"ok\n").ok();
            return Ok(());
        }
        let answer = match obey(&lab, &words) {
            Ok(()) => "ok\n".to_owned(),
            Err(e) => format!("{e}\n"),
        };
        client.write_all(answer.as_bytes()).ok();
    }
    Ok(())
}

fn obey(lab: &Lab, words: &[&str]) -> Result<()> {
    let guest = |name: &str| -> &Guest {
        match name {
            "a" => lab.a(),
            _ => lab.b(),
        }
    };
    match *words {
        ["ping"] => Ok(()),
        ["cut", name] => {
            guest(name).power_cut();
            Ok(())
        }
        ["again", name] => guest(name).boot_again(),
        ["link", "cut"] => lab.cut_link(),
        ["link", "mend"] => lab.mend_link(),
        ["link", delay, loss] => match (delay.parse(), loss.parse()) {
            (Ok(delay), Ok(loss)) => lab.set_link(delay, loss),
            _ => Err(Error::new("link takes milliseconds and percent")),
        },
        _ => Err(Error::new(format!("no such command: {words:?}"))),
    }
}

fn down() -> Result<()> {
    if ask("ping").is_err() {
        // None is up, or its process was killed and took the guests along. The next one clears its directory.
        std::fs::remove_file(state_file()?).ok();
        return Ok(());
    }
    ask("down")
}

/// Becomes ssh; returns only if that fails.
fn ssh(guest: &str, command: &[&str]) -> Error {
    let dir = match run_dir() {
        Ok(dir) => dir,
        Err(e) => return e,
    };
    let error = Command::new("ssh")
        .arg("-F")
        .arg(dir.join("ssh_config"))
        .args(["--", &format!("hv{guest}")])
        .args(command)
        .exec();
    failed("start", &"ssh", error)
}

/// Sends one command to the background process and waits for its answer.
fn ask(command: &str) -> Result<()> {
    let socket = run_dir()?.join("control");
    let mut stream = UnixStream::connect(&socket)
        .map_err(|e| failed("reach the lab at", &socket.display(), e))?;
    writeln!(stream, "{command}").map_err(|e| failed("reach the lab at", &socket.display(), e))?;
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer)
        .map_err(|e| failed("hear from the lab at", &socket.display(), e))?;
    match answer.trim() {
        "ok" => Ok(()),
        "" => Err(Error::new("the lab ended without an answer")),
        error => Err(Error::new(error)),
    }
}

/// The run directory of the lab that is up.
fn run_dir() -> Result<PathBuf> {
    let state = state_file()?;
    std::fs::read_to_string(&state)
        .map(PathBuf::from)
        .map_err(|_| Error::new("no lab is up; lab up starts one"))
}

fn state_file() -> Result<PathBuf> {
    Ok(tests::lab::cache()?.join("up"))
}

fn failed(verb: &str, what: &dyn std::fmt::Display, why: std::io::Error) -> Error {
    Error::new(format!("cannot {verb} {what}: {why}"))
}
