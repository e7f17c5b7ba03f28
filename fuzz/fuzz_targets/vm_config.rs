//! A VM's configuration: printed as it was read, byte for byte, and read as the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pvesync::vm_config::VmConfig;

fuzz_target!(|text: &str| {
    let Ok(config) = VmConfig::parse(text) else {
        return;
    };
    assert_eq!(config.to_string(), text);
    assert_eq!(
        VmConfig::parse(&config.to_string()).expect("it was read before"),
        config
    );
    let _ = config.main().description();
    for drive in config.drives() {
        assert_eq!(config.drive(drive.key), Some(drive));
    }
});
