//! The XML of thin_dump: the ranges found ascend, do not touch, and end where the volume ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rblocksync::thin::parse_dump;

fuzz_target!(|xml: &[u8]| {
    for (thin_id, size) in [(1, 36 << 20), (2, 10_000), (0, u64::MAX)] {
        let Ok(mapped) = parse_dump(xml, thin_id, size) else {
            continue;
        };
        let mut end = None;
        for range in mapped.iter() {
            assert!(!range.is_empty() && range.end <= size, "{range}");
            assert!(end.is_none_or(|end| end < range.start), "{range}");
            end = Some(range.end);
        }
    }
});
