//! The JSON of `lvs`: no volume comes out of it whose name would not be taken as one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rblocksync::lvm::{parse_report, LvId};

fuzz_target!(|json: &[u8]| {
    for lv in parse_report(json).unwrap_or_default() {
        for id in [Some(&lv.id), lv.pool.as_ref(), lv.origin.as_ref()]
            .into_iter()
            .flatten()
        {
            let again = LvId::new(id.vg(), id.name()).expect("a name that was taken");
            assert_eq!(again, *id);
        }
        assert!(lv
            .data_percent
            .is_none_or(|share| (0.0..=100.0).contains(&share)));
        assert!(lv.tags.iter().all(|tag| !tag.is_empty()));
    }
});
