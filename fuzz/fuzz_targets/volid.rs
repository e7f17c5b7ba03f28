//! Names of volumes: what is taken is printed as it was, and cannot leave its directory or be an option.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pvesync::drive::{DiskKey, Drive};
use pvesync::volid::{Vmid, Volid, Volume};

fn harmless(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('-')
        && name != "."
        && name != ".."
        && !name.contains(['/', '\0', '\n'])
}

fuzz_target!(|text: &str| {
    if let Ok(vmid) = text.parse::<Vmid>() {
        assert_eq!(vmid.to_string(), text);
    }
    if let Some(key) = DiskKey::parse("scsi0") {
        let _ = Drive::parse(key, text);
    }
    let Ok(volid) = Volid::parse(text) else {
        return;
    };
    assert_eq!(volid.to_string(), text);
    assert_eq!(
        Volid::new(volid.storage(), volid.volname()).ok().as_ref(),
        Some(&volid)
    );
    assert!(harmless(volid.storage()));
    assert!(volid.volname().split('/').all(harmless));
    let volumes = [
        Volume::on_lvm_thin(&volid),
        Volume::on_lvm(&volid),
        Volume::on_dir(&volid),
        Volume::on_zfs(&volid),
        Volume::on_rbd(&volid),
    ];
    for volume in volumes.into_iter().flatten() {
        assert!(harmless(&volume.name));
        let base = volume.base.as_deref().unwrap_or("x");
        assert!(base.split('/').all(harmless));
    }
});
