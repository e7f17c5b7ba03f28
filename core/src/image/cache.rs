//! Buffered I/O that leaves the page cache to others: what a read brought in is dropped again, what was
//! there before stays.

use rustix::fs::{fadvise, Advice};
use rustix::io::{preadv2, Errno, ReadWriteFlags};
use std::fs::File;
use std::io::{IoSliceMut, Result};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;

/// Makes each read fetch what it asks for and no more: what is read ahead would look, to [`read`], as if
/// others had it cached.
pub(super) fn expect_no_order(file: &File) {
    // Only advice: a file system that does not know it loses nothing.
    let _ = fadvise(file, 0, None, Advice::Random);
}

/// Drops all that needs no writing any more.
pub(super) fn drop_clean(file: &File) -> rustix::io::Result<()> {
    fadvise(file, 0, None, Advice::DontNeed)
}

/// Fills `buf` from `offset`, and drops from the cache what was not in it before.
pub(super) fn read(file: &File, buf: &mut [u8], offset: u64) -> Result<()> {
    let cached = match read_cached(file, buf, offset) {
        Ok(cached) => cached,
        // tmpfs among others cannot tell.
        Err(_) => return file.read_exact_at(buf, offset),
    };
    let rest = &mut buf[cached..];
    if let Some(len) = NonZeroU64::new(rest.len() as u64) {
        let at = offset + cached as u64;
        file.read_exact_at(rest, at)?;
        let _ = fadvise(file, at, Some(len), Advice::DontNeed);
    }
    Ok(())
}

/// Reads what is cached from `offset` on, and tells how much that is.
fn read_cached(file: &File, buf: &mut [u8], offset: u64) -> rustix::io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        let part = &mut [IoSliceMut::new(&mut buf[done..])];
        match preadv2(file, part, offset + done as u64, ReadWriteFlags::NOWAIT) {
            Ok(0) | Err(Errno::AGAIN) => break,
            Ok(len) => done += len,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn reads_leave_the_cache_as_it_was() {
        let mut file = tempfile::tempfile_in("/var/tmp").unwrap();
        let content: Vec<u8> = (0..8 << 20).map(|i: u32| (i >> 12) as u8).collect();
        file.write_all(&content).unwrap();
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        expect_no_order(&file);
        // Somebody else's part of it.
        let (mut buf, mut page) = (vec![0; 1 << 20], [0; 4096]);
        file.read_exact_at(&mut page, 5 << 20).unwrap();
        let is_cached = |at: u64| match read_cached(&file, &mut [0; 4096], at) {
            Ok(len) => Some(len > 0),
            Err(_) => None,
        };
        for at in (0..8 << 20).step_by(1 << 20) {
            read(&file, &mut buf, at).unwrap();
            assert_eq!(buf, content[at as usize..][..1 << 20], "{at}");
        }
        if is_cached(5 << 20).is_none() {
            eprintln!("skipped: this file system does not tell what is cached");
            return;
        }
        assert_eq!(is_cached(5 << 20), Some(true));
        for at in [0, 1 << 20, (4 << 20) + 8192, 7 << 20] {
            assert_eq!(is_cached(at), Some(false), "{at}");
        }
        assert!(read(&file, &mut buf, 8 << 20).is_err(), "past the end");
    }
}
