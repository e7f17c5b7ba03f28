//! The header of a qcow2 image: what is taken is within its bounds, and a name is only where the header has one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rblocksync::image::qcow2::{parse, MAGIC};

fuzz_target!(|bytes: &[u8]| {
    let Ok(header) = parse(bytes) else {
        return;
    };
    assert!(bytes.starts_with(&MAGIC));
    assert!(matches!(header.version, 2 | 3));
    assert!((9..=21).contains(&header.cluster_bits));
    assert!(header.virtual_size % 512 == 0 && i64::try_from(header.virtual_size).is_ok());
    if let Some(backing) = &header.backing {
        assert!((1..=1023).contains(&backing.name.len()) && !backing.name.contains(&0));
        assert!(bytes.windows(backing.name.len()).any(|w| w == backing.name));
        assert!(backing.format.as_ref().is_none_or(|f| f.len() < 64));
    }
    if header.check_usable().is_ok() {
        assert!(!header.encrypted && !header.corrupt && !header.data_file && header.unknown == 0);
    }
});
