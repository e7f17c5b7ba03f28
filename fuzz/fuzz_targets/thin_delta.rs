//! The XML of thin_delta: the ranges found ascend, do not touch, and end where the volume ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rblocksync::thin::parse_delta;

fuzz_target!(|xml: &[u8]| {
    for size in [36 << 20, 10_000, u64::MAX] {
        let Ok(changed) = parse_delta(xml, 1, 2, size) else {
            continue;
        };
        let mut end = None;
        for range in changed.iter() {
            assert!(!range.is_empty() && range.end <= size, "{range}");
            assert!(end.is_none_or(|end| end < range.start), "{range}");
            end = Some(range.end);
        }
    }
});
