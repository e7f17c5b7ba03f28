//! Block devices as sources and targets.

use crate::{run, Loop};
use rblocksync::agent::BlockEnd;
use rblocksync::error::{Kind, Result};
use rblocksync::image::{qcow2, ImageFormat, TargetOptions};
use rblocksync::stop::Stop;
use rblocksync::sync::{Geometry, Meter, Params, Summary, Tuning};
use std::fs;
use std::path::Path;

const MIB: u64 = 1 << 20;

fn sync(source: (&Path, ImageFormat), target: &Path, create: bool) -> Result<Summary> {
    let (mut source, opened) = BlockEnd::source(source.0, source.1, false)?;
    let options = TargetOptions {
        create,
        ..TargetOptions::default()
    };
    let (mut end, _) = BlockEnd::target(target, options)?;
    if create {
        end.resize(opened.size)?;
    }
    let geometry = Geometry::new(opened.size, 4096)?;
    let tuning = Tuning {
        verify: true,
        ..Tuning::default()
    };
    let params = Params::new(geometry, &tuning);
    let done = end.sync_from(&mut source, &params, &Meter::new(), &Stop::new())?;
    end.commit()?;
    Ok(done)
}

#[test]
fn disks_of_firmware_and_tpm_fit_into_devices_that_are_larger_and_stay_apart_from_what_is_behind() {
    let dir = tempfile::tempdir().unwrap();
    let backing = dir.path().join("device");
    for size in [528u64 << 10, 4 * MIB, (1 << 20) + 512] {
        // A volume that LVM has rounded up, with something on it.
        fs::write(&backing, vec![0xee; 8 << 20]).unwrap();
        let Some(device) = Loop::attach(&backing) else {
            println!("skipped: no loop devices here");
            return;
        };
        let disk = dir.path().join("disk");
        let content: Vec<u8> = (0..size).map(|at| (at / 4096) as u8).collect();
        fs::write(&disk, &content).unwrap();
        sync((&disk, ImageFormat::Raw), device.path(), false).unwrap();
        // A write of less than a block of the device, then nothing.
        fs::write(
            &disk,
            [&content[..(size - 512) as usize], &[7; 512]].concat(),
        )
        .unwrap();
        let again = sync((&disk, ImageFormat::Raw), device.path(), false).unwrap();
        assert!(again.changed <= 4096, "{again:?}");
        drop(device);
        let now = fs::read(&backing).unwrap();
        assert!(now[..size as usize] == fs::read(&disk).unwrap(), "{size}");
        assert!(now[size as usize..].iter().all(|b| *b == 0xee), "{size}");
    }
}

/// Chains of volumes name each other by what they are called in `/dev/VG`, without a directory.
#[test]
fn a_chain_of_qcow2_images_in_devices_is_read_as_one_disk() {
    let dir = tempfile::tempdir().unwrap();
    let attach = |name: &str| {
        let file = dir.path().join(name);
        fs::File::create(&file).unwrap().set_len(48 * MIB).unwrap();
        Loop::attach(&file)
    };
    let (Some(snap), Some(top)) = (attach("snap"), attach("top")) else {
        println!("skipped: no loop devices here");
        return;
    };
    let write = |device: &Loop, command: &str| {
        run("qemu-io", &[&"-f", &"qcow2", &"-c", &command, &device.0]).unwrap();
    };
    let snap_name = snap.path().file_name().unwrap();
    run(
        "qemu-img",
        &[&"create", &"-q", &"-f", &"qcow2", &snap.0, &"32M"],
    )
    .unwrap();
    write(&snap, "write -P 1 0 2M");
    run(
        "qemu-img",
        &[
            &"create", &"-q", &"-f", &"qcow2", &"-b", &snap_name, &"-F", &"qcow2", &top.0, &"32M",
        ],
    )
    .unwrap();
    write(&top, "write -P 2 1M 64k");

    let (header, chain) = qcow2::chain(top.path()).unwrap();
    assert_eq!(header.virtual_size, 32 * MIB);
    assert!(
        chain.len() == 2 && chain.iter().all(|e| e.is_device),
        "{chain:?}"
    );
    let behind = qcow2::behind(top.path()).unwrap().unwrap();
    assert_eq!(behind, (snap.path().to_owned(), ImageFormat::Qcow2));
    assert_eq!(qcow2::behind(snap.path()).unwrap(), None);

    let copy = dir.path().join("copy");
    let done = sync((top.path(), ImageFormat::Qcow2), &copy, true).unwrap();
    assert_eq!(done.changed, 2 * MIB);
    let copied = fs::read(&copy).unwrap();
    let at = |mib: f64| copied[(mib * MIB as f64) as usize];
    assert_eq!(copied.len() as u64, 32 * MIB);
    assert_eq!([at(0.5), at(1.0), at(1.5), at(3.0)], [1, 2, 1, 0]);

    // What is behind it is named, but not there: no half of a disk.
    drop(snap);
    let error = sync(
        (top.path(), ImageFormat::Qcow2),
        &dir.path().join("other"),
        true,
    );
    let kind = error.unwrap_err().kind();
    assert!(
        matches!(kind, Kind::Refused | Kind::NotFound | Kind::Io),
        "{kind:?}"
    );
}
