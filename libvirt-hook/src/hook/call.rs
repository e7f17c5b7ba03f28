//! How libvirt calls: `NAME OPERATION STAGE EXTRA`, and the domain's definition on standard input.

use crate::xml::DOCUMENT_BYTES_MAX;
use rblocksync::error::{Error, Kind, Result};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use std::ffi::OsString;
use std::io::Read;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How long libvirt may take to hand a definition over.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest name of a domain that can be known, in bytes: it is the name of a file.
const NAME_BYTES_MAX: usize = 200;

/// One call.
#[derive(Debug)]
pub(super) struct Call {
    words: Vec<String>,
    /// All of them were text.
    whole: bool,
}

impl Call {
    pub fn new(args: impl Iterator<Item = OsString>) -> Call {
        let mut whole = true;
        let words = args.take(8).map(|word| {
            word.into_string().unwrap_or_else(|word| {
                whole = false;
                word.to_string_lossy().into_owned()
            })
        });
        let words = words.collect();
        Call { words, whole }
    }

    fn word(&self, index: usize) -> &str {
        self.words.get(index).map_or("", String::as_str)
    }

    /// The name as it was given.
    pub fn name(&self) -> &str {
        self.word(0)
    }

    /// The domain's name, if anything can be known of a domain of that name: it is the name of files.
    pub fn domain(&self) -> Option<&str> {
        let name = self.name();
        let plain = self.whole
            && !name.is_empty()
            && name.len() <= NAME_BYTES_MAX
            && !name.starts_with('.')
            && !name.contains(|c: char| c == '/' || c.is_control());
        plain.then_some(name)
    }

    pub fn operation(&self) -> &str {
        self.word(1)
    }

    pub fn stage(&self) -> &str {
        self.word(2)
    }

    /// What newer releases of libvirt say in addition: why a domain has ended.
    pub fn extra(&self) -> &str {
        self.word(3)
    }

    /// A failure would end a guest that runs.
    pub fn must_succeed(&self) -> bool {
        !self.may_refuse()
    }

    /// A refusal keeps a domain from starting or from arriving, and does no other harm.
    pub fn may_refuse(&self) -> bool {
        matches!(
            (self.operation(), self.stage()),
            ("migrate" | "prepare" | "start", "begin")
        )
    }
}

/// Reads the definition to its end. Fails if it is too long, or does not end in time.
pub(super) fn read_document(mut stdin: impl Read + AsFd) -> Result<Vec<u8>> {
    let odd = |why: String| Error::new(Kind::Protocol, format!("the domain's definition {why}"));
    let until = Instant::now() + PATIENCE;
    let mut document = Vec::new();
    let mut part = vec![0; 64 << 10];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let limit = Timespec::try_from(left).map_err(|_| odd("does not come".into()))?;
        let ready = {
            let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
            poll(&mut fds, Some(&limit))
        };
        match ready {
            Ok(0) => return Err(odd(format!("does not end within {PATIENCE:?}"))),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(odd(format!("cannot be read: {e}"))),
        }
        let count = match stdin.read(&mut part) {
            Ok(0) => return Ok(document),
            Ok(count) => count,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(odd(format!("cannot be read: {e}"))),
        };
        if document.len() + count > DOCUMENT_BYTES_MAX {
            return Err(odd(format!("is longer than {DOCUMENT_BYTES_MAX} bytes")));
        }
        document.extend_from_slice(&part[..count]);
    }
}
