//! Media that fail: device-mapper's own rigs under a source and under a target.

use crate::sh;
use rblocksync::agent::BlockEnd;
use rblocksync::error::{Kind, Result};
use rblocksync::image::{ImageFormat, TargetOptions};
use rblocksync::stop::Stop;
use rblocksync::sync::{Geometry, Meter, Params, Summary, Tuning};
use std::path::Path;

const MIB: u64 = 1 << 20;
const SIZE: u64 = 12 * MIB;
const RIG: &str = "/dev/mapper/rig";
const OTHER: &str = "/root/other";

/// A device with random content behind a table of device-mapper's, and a file with other content.
struct Rig;

impl Rig {
    /// `LOOP` in the table stands for the device, `END` for its number of sectors.
    fn new(table: &str) -> Rig {
        sh(&format!(
            "head -c {SIZE} /dev/urandom > /root/medium; head -c {SIZE} /dev/urandom > {OTHER}
             modprobe dm-flakey; losetup --find --show --direct-io=off /root/medium > /root/loop"
        ));
        load("create rig", table);
        Rig
    }

    /// Exchanges the table.
    fn becomes(&self, table: &str) {
        load("reload rig", table);
        sh("dmsetup resume rig");
    }
}

fn load(verb: &str, table: &str) {
    let table = table.replace("END", &(SIZE / 512).to_string());
    sh(&format!(
        "printf '{table}' | sed \"s,LOOP,$(cat /root/loop),\" | dmsetup {verb}"
    ));
}

impl Drop for Rig {
    fn drop(&mut self) {
        sh("dmsetup remove --retry rig; losetup -d $(cat /root/loop); rm /root/medium /root/loop /root/other");
    }
}

fn params() -> Params {
    let tuning = Tuning {
        verify: true,
        ..Tuning::default()
    };
    Params::new(Geometry::new(SIZE, 4096).expect("a geometry"), &tuning)
}

fn sync(from: &str, to: &str) -> Result<Summary> {
    let (mut source, _) = BlockEnd::source(Path::new(from), ImageFormat::Raw, false)?;
    let (mut target, _) = BlockEnd::target(Path::new(to), TargetOptions::default())?;
    target.sync_from(&mut source, &params(), &Meter::new(), &Stop::new())
}

/// One MiB of it cannot be read.
pub fn a_medium_that_cannot_be_read_is_told_by_its_place() {
    let _rig =
        Rig::new("0 10240 linear LOOP 0\\n10240 2048 error\\n12288 12288 linear LOOP 12288\\n");
    let (mut source, _) =
        BlockEnd::source(Path::new(RIG), ImageFormat::Raw, true).expect("a source");
    let (mut good, mut bad) = (0, Vec::new());
    let scanned = source.scan(&params(), 0..SIZE / MIB, &Stop::new(), |index, found| {
        match found {
            Ok(_) => good += 1,
            Err(e) => bad.push((index, e.kind())),
        }
        Ok(())
    });
    scanned.expect("the rest can be read");
    assert_eq!((good, bad), (11, vec![(5, Kind::Io)]));
    drop(source);
    let before = sh(&format!("sha256sum < {OTHER}"));
    let error = sync(RIG, OTHER).expect_err("not all of it can be read");
    assert_eq!(error.kind(), Kind::Io, "{error}");
    assert_ne!(before, sh("sha256sum < /root/medium"));
}

pub fn a_medium_that_drops_writes_is_found_by_verify() {
    let rig = Rig::new("0 END flakey LOOP 0 0 1 1 drop_writes\\n");
    let error = sync(OTHER, RIG).expect_err("nothing of it was written");
    assert_eq!(error.kind(), Kind::Digest, "{error}");
    rig.becomes("0 END flakey LOOP 0 0 1 1 error_writes\\n");
    let error = sync(OTHER, RIG).expect_err("it says so itself");
    assert_eq!(error.kind(), Kind::Io, "{error}");
    rig.becomes("0 END linear LOOP 0\\n");
    sync(OTHER, RIG).expect("the medium is well again");
    assert_eq!(
        sh(&format!("sha256sum < {RIG}")),
        sh(&format!("sha256sum < {OTHER}"))
    );
}
