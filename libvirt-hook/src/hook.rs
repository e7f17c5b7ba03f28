//! `virt-blocksync hook`: what libvirt asks before a domain starts or arrives here, and tells when it has ended.
//!
//! libvirtd waits for a hook, mostly with a lock held that every other client wants. So the hook asks libvirt nothing,
//! starts no program but for what its configuration tells it to make, and decides from small files of this host. It
//! writes to standard output only a definition that libvirt is to use instead of its own, and to standard error only why
//! it refuses. A domain of which nothing is known here may do everything.
//!
//! When libvirtd comes back and finds a guest running it asks the hook, and ends the guest if that fails. So that answer
//! is yes, whatever happens.

mod arrival;
mod call;
mod config;
pub mod events;
pub mod note;
mod state;

pub use config::Config;
pub use state::{away, forget_away, Away};
pub(crate) use state::{guard_of, note_away};

use call::{read_document, Call};
use rblocksync::error::{Error, Kind, Result};
use rblocksync::hostlog::{self, Priority};
use rblocksync::replica::{state_dir, Layout};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;

/// What libvirt is answered.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    /// What to use instead of the definition that was given.
    document: Option<String>,
    /// What the journal is told.
    told: String,
}

impl Answer {
    fn of(told: impl Into<String>) -> Answer {
        Answer {
            document: None,
            told: told.into(),
        }
    }
}

/// The whole hook: `args` are libvirt's, after the word `hook`. Returns the exit code: 0, or 1 for a refusal.
pub fn main(args: impl Iterator<Item = OsString>, stdin: impl Read + AsFd) -> u8 {
    let call = Call::new(args);
    let layout = Layout::new(state_dir());
    // Nothing may be said of a panic where libvirt, or a user, would take it for an answer.
    std::panic::set_hook(Box::new(|_| {}));
    let decided = catch_unwind(AssertUnwindSafe(|| {
        let document = read_document(stdin);
        decide(&layout, &config::path(), &call, document)
    }));
    let decided = decided.unwrap_or_else(|_| failed(&layout, &call));
    let code = match &decided {
        Ok(answer) => match &answer.document {
            Some(document) => print(document),
            None => 0,
        },
        Err(_) if call.must_succeed() => 0,
        Err(error) => {
            // Whoever does not hear it sees the exit code.
            let said = writeln!(std::io::stderr(), "virt-blocksync: {error}");
            drop(said);
            1
        }
    };
    let noted = catch_unwind(AssertUnwindSafe(|| match &decided {
        Ok(answer) => journal(Priority::Info, &call, code, &answer.told),
        Err(error) => journal(Priority::Warning, &call, code, &error.to_string()),
    }));
    drop(noted);
    code
}

/// Notes a call and what came of it.
fn journal(priority: Priority, call: &Call, code: u8, message: &str) {
    let (name, operation) = (call.name(), call.operation());
    let message = format!("{name} {operation} {}: {message}", call.stage());
    let code = code.to_string();
    let more = [
        ("DOMAIN", name),
        ("OPERATION", operation),
        ("EXIT_CODE", &code),
    ];
    hostlog::note(priority, "virt-blocksync-hook", &message, &more);
}

fn print(document: &str) -> u8 {
    let mut stdout = std::io::stdout().lock();
    let printed = stdout
        .write_all(document.as_bytes())
        .and_then(|()| stdout.flush());
    // Half a definition is one that libvirt cannot read: it refuses by itself.
    u8::from(printed.is_err())
}

/// After a panic: a domain that is guarded here does not start.
fn failed(layout: &Layout, call: &Call) -> Result<Answer> {
    let guarded = call.domain().is_some_and(|vm| layout.guard(vm).exists());
    if call.may_refuse() && guarded {
        return Err(
            Error::new(Kind::Io, "the hook has failed in a way that nobody foresaw")
                .advise("report it; the journal of this host has the call"),
        );
    }
    Ok(Answer::of(
        "the hook has failed in a way that nobody foresaw",
    ))
}

fn decide(
    layout: &Layout,
    config: &Path,
    call: &Call,
    document: Result<Vec<u8>>,
) -> Result<Answer> {
    let Some(vm) = call.domain() else {
        return Ok(Answer::of("not a domain that could be known here"));
    };
    match (call.operation(), call.stage()) {
        ("migrate", "begin") => arrival::arrives(layout, config, vm, document),
        ("prepare" | "start", "begin") => state::may_start(layout, vm, document),
        ("started", "begin") => {
            let arrived = state::has_arrived(layout, vm);
            if arrived {
                events::queue(layout, vm, call.operation(), call.extra())?;
            }
            Ok(Answer::of("it has started"))
        }
        ("stopped" | "release", "end") => {
            state::has_arrived(layout, vm);
            if !is_known(layout, config, vm) {
                return Ok(Answer::of("it has ended; nothing is known of it"));
            }
            events::queue(layout, vm, call.operation(), call.extra())?;
            Ok(Answer::of("it has ended; the worker is to look why"))
        }
        _ => Ok(Answer::of("nothing to do")),
    }
}

/// Whether the worker has anything to look at when the domain has ended.
fn is_known(layout: &Layout, config: &Path, vm: &str) -> bool {
    layout.guard(vm).exists()
        || layout.source_pairs(vm).exists()
        || Config::read(config).is_ok_and(|config| config.domain(vm).is_some())
}
