//! Files that are obeyed by root: whoever may write them is root.

use crate::error::{Error, Kind, Result};
use rustix::fs::{Mode, OFlags};
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Most bytes such a file may have.
const FILE_BYTES_MAX: u64 = 256 << 10;

/// Reads a text file that nobody but root, or whoever runs us, can change.
///
/// Fails with `NotFound` if there is none, with `Refused` if others could have written it, or if it is a link or no file,
/// and with `Usage` if it is not UTF-8.
pub fn read_trusted(path: &Path) -> Result<String> {
    let cannot = |e: std::io::Error| {
        let what = format!("cannot read {}", path.display());
        match e.kind() {
            ErrorKind::NotFound => Error::new(Kind::NotFound, what).because(e),
            _ => Error::io(what, e),
        }
    };
    // What is looked at is what is read: the open file. A link could lead to where others may write, and a pipe would be
    // waited for.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::LOOP) => {
            return Err(
                Error::new(Kind::Refused, format!("{} is a link", path.display()))
                    .advise("put the file itself there"),
            )
        }
        Err(e) => return Err(cannot(e.into())),
    };
    let meta = file.metadata().map_err(cannot)?;
    if !meta.is_file() {
        let what = format!("{} is no file", path.display());
        return Err(Error::new(Kind::Refused, what));
    }
    check_trusted(path, &meta)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(cannot)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let what = format!("{} is larger than {FILE_BYTES_MAX} bytes", path.display());
        return Err(Error::new(Kind::Refused, what));
    }
    String::from_utf8(bytes).map_err(|e| {
        let line = line_of_bytes(e.as_bytes(), e.utf8_error().valid_up_to());
        let what = format!("{}:{line}: it is not UTF-8", path.display());
        Error::new(Kind::Usage, what)
    })
}

/// Refuses what others than root, or whoever runs us, could change.
pub fn check_trusted(path: &Path, meta: &Metadata) -> Result<()> {
    let own = rustix::process::geteuid().as_raw();
    let refused = |why: String| {
        Error::new(Kind::Refused, format!("{} is {why}", path.display())).advise(format!(
            "what is in it is done as root: chown root {0}; chmod go-w {0}",
            path.display()
        ))
    };
    if meta.uid() != 0 && meta.uid() != own {
        return Err(refused(format!(
            "owned by user {}, not by root",
            meta.uid()
        )));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(refused("writable by others than its owner".to_owned()));
    }
    Ok(())
}

/// The number of the line, from 1, that the byte at this offset is in.
pub fn line_of(text: &str, at: usize) -> usize {
    line_of_bytes(text.as_bytes(), at)
}

fn line_of_bytes(text: &[u8], at: usize) -> usize {
    let before = &text[..at.min(text.len())];
    1 + before.iter().filter(|b| **b == b'\n').count()
}
