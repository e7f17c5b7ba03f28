//! An NBD server that says whatever: a read gives what the chunks say, every byte exactly once; extents follow each
//! other from where was asked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rblocksync::nbd::replay::{handshake, replies, Answered, Asked};
use rblocksync::range::ByteRange;
use rblocksync_fuzz::memory;

/// The requests' own buffers, twice, and the longest texts.
const MEMORY_BYTES_MAX: usize = 256 << 10;

fn asked() -> [Asked; 6] {
    let range = ByteRange::new;
    [
        Asked::Read(range(0, 4096)),
        Asked::Read(range(2048, 40_960)),
        Asked::Write(range(0, 4096)),
        Asked::Flush,
        Asked::Status(range(4096, 1 << 20)),
        Asked::Zero(range(0, 1 << 20)),
    ]
}

/// Splits `N` bytes off the front.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*head)
}

/// What the read of this cookie and range must give, told by somebody who believes everything.
fn expected(mut said: &[u8], structured: bool, cookie: u64, range: ByteRange) -> Option<Vec<u8>> {
    let mut bytes = vec![None; range.len() as usize];
    loop {
        let simple = u32::from_be_bytes(take(&mut said)?) == 0x6744_6698;
        if simple {
            let errno = u32::from_be_bytes(take(&mut said)?);
            let theirs = u64::from_be_bytes(take(&mut said)?);
            // Cookies 1 and 2 are the reads.
            if !structured && errno == 0 && theirs <= 2 {
                let len = if theirs == 1 { 4096 } else { 38_912 };
                let data = said.get(..len)?;
                if theirs == cookie {
                    return Some(data.to_vec());
                }
                said = &said[len..];
            }
            continue;
        }
        let [_, flags, kind_high, kind_low] = take(&mut said)?;
        let theirs = u64::from_be_bytes(take(&mut said)?);
        let len = u32::from_be_bytes(take(&mut said)?) as usize;
        let mut payload = said.get(..len)?;
        said = &said[len..];
        if theirs != cookie {
            continue;
        }
        if let (0, 1 | 2) = (kind_high, kind_low) {
            let at = (u64::from_be_bytes(take(&mut payload)?) - range.start) as usize;
            let zeros;
            if kind_low == 2 {
                zeros = vec![0; u32::from_be_bytes(take(&mut payload)?) as usize];
                payload = &zeros;
            }
            for (to, from) in bytes[at..].iter_mut().zip(payload) {
                assert!(to.replace(*from).is_none(), "a byte that was sent twice");
            }
        }
        if flags & 1 == 1 {
            return bytes.into_iter().collect();
        }
    }
}

fn check(said: &[u8], structured: bool, answered: &Answered) {
    let asked = asked()[answered.cookie as usize - 1];
    let Ok((data, extents)) = &answered.result else {
        return;
    };
    match asked {
        Asked::Read(range) => {
            let expected = expected(said, structured, answered.cookie, range);
            assert!(
                expected.as_ref() == Some(data),
                "a read gives something else"
            );
        }
        Asked::Status(range) => {
            let mut at = range.start;
            for extent in extents {
                assert!(extent.range.start == at && !extent.range.is_empty());
                assert!(at < range.end);
                at = extent.range.end;
            }
            assert!(at > range.start);
            assert!(extents
                .windows(2)
                .all(|pair| pair[0].flags != pair[1].flags));
        }
        Asked::Write(_) | Asked::Zero(_) | Asked::Flush => assert!(data.is_empty()),
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((first, mut said)) = input.split_first() else {
        return;
    };
    let mut structured = first & 2 != 0;
    let (answered, peak) = memory::peak_of(|| {
        if first & 1 == 0 {
            let export = handshake(&mut said).ok()?;
            assert!(export.size % u64::from(export.min_block) == 0);
            assert!(export.structured || export.contexts.is_empty());
            structured = export.structured;
        }
        let before = said;
        Some((before, replies(&mut said, structured, &asked()).0))
    });
    assert!(peak < MEMORY_BYTES_MAX + 32 * input.len(), "{peak} bytes");
    let Some((said, answered)) = answered else {
        return;
    };
    assert!(answered.len() <= asked().len());
    for answered in &answered {
        check(said, structured, answered);
    }
});
