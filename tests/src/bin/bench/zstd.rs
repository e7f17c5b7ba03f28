//! What `zstd -1` makes of a file's data, holes left out: the yardstick for compression on the way.

use crate::ends::installed;
use crate::Outcome;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Bytes of the compressed data; none without `zstd`.
pub fn compressed(path: &Path) -> Outcome<Option<u64>> {
    if installed("zstd").is_none() {
        return Ok(None);
    }
    let mut child = Command::new("zstd")
        .args(["-1", "-q", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().ok_or("piped")?;
    let mut output = child.stdout.take().ok_or("piped")?;
    let counter = std::thread::spawn(move || {
        let (mut total, mut bytes) = (0, vec![0; 64 << 10]);
        while let Ok(n @ 1..) = output.read(&mut bytes) {
            total += n as u64;
        }
        total
    });
    feed(path, &mut input)?;
    drop(input);
    let total = counter.join().map_err(|_| "the counting thread died")?;
    match child.wait()?.success() {
        true => Ok(Some(total)),
        false => Err("zstd failed".into()),
    }
}

fn feed(path: &Path, to: &mut impl Write) -> Outcome<()> {
    use rustix::fs::{seek, SeekFrom};
    let file = File::open(path)?;
    let mut bytes = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        at = match seek(&file, SeekFrom::Data(at)) {
            Ok(at) => at,
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        let end = seek(&file, SeekFrom::Hole(at))?;
        while at < end {
            let len = (bytes.len() as u64).min(end - at) as usize;
            file.read_exact_at(&mut bytes[..len], at)?;
            to.write_all(&bytes[..len])?;
            at += len as u64;
        }
    }
}
