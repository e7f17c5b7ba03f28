//! What is not touched.

use crate::args;
use crate::tools::*;
use rblocksync::agent::BlockEnd;
use rblocksync::error::{Error, Kind};
use std::os::unix::fs::FileExt;
use std::path::Path;

fn refused(path: &Path) -> [Error; 2] {
    let before = std::fs::read(path).unwrap();
    let source = BlockEnd::source(path, QCOW2, false).err().unwrap();
    let target = BlockEnd::target(path, options(QCOW2)).err().unwrap();
    assert_eq!(std::fs::read(path).unwrap(), before);
    [source, target]
}

#[test]
fn what_cannot_be_read_by_its_meaning_is_refused() {
    let dir = Dir::new();
    let corrupt = dir.qcow2("corrupt", 4 * MIB, &[(0, MIB)]);
    let file = std::fs::File::options().write(true).open(&corrupt).unwrap();
    file.write_all_at(&2u64.to_be_bytes(), 72).unwrap();
    let unnamed = dir.path("unnamed");
    dir.raw("base", 4 * MIB, &[(0, MIB)]);
    run(
        "qemu-img",
        args!["create", "-q", "-u", "-f", "qcow2", "-b", "base", "-F", "raw", &unnamed, "4M"],
    );
    let mut header = std::fs::read(&unnamed).unwrap();
    let named = 0xe279_2acau32.to_be_bytes();
    let at = header.windows(4).position(|four| four == named).unwrap();
    header[at] = 0;
    std::fs::write(&unnamed, header).unwrap();
    let data_file = dir.path("outside");
    let option = format!("data_file={}", dir.path("data").display());
    run(
        "qemu-img",
        args!["create", "-q", "-f", "qcow2", "-o", &option, &data_file, "4M"],
    );
    let encrypted = dir.qcow2("encrypted", 4 * MIB, &[(0, MIB)]);
    let file = std::fs::File::options()
        .write(true)
        .open(&encrypted)
        .unwrap();
    file.write_all_at(&2u32.to_be_bytes(), 32).unwrap();
    let raw = dir.raw("raw", 4 * MIB, &[(0, MIB)]);
    for (path, words) in [
        (&corrupt, "marked as corrupt"),
        (&unnamed, "without its format"),
        (&data_file, "data file"),
        (&encrypted, "encrypted"),
        (&raw, "no qcow2 image"),
    ] {
        for error in refused(path) {
            assert_eq!(error.kind(), Kind::Refused, "{error}");
            assert!(error.message().contains(words), "{words}: {error}");
        }
    }
    let advice = refused(&unnamed)[0].advice().unwrap().to_owned();
    assert!(advice.contains("rebase -u"), "{advice}");
}

#[test]
fn a_target_whose_metadata_is_damaged_is_left_alone() {
    let dir = Dir::new();
    let image = dir.qcow2("a.qcow2", 4 * MIB, &[(0, 2 * MIB)]);
    // The reference counts are gone.
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&image)
        .unwrap();
    let mut table = [0; 8];
    file.read_exact_at(&mut table, 48).unwrap();
    let mut block = [0; 8];
    file.read_exact_at(&mut block, u64::from_be_bytes(table))
        .unwrap();
    file.write_all_at(&[0; 65536], u64::from_be_bytes(block))
        .unwrap();
    let before = std::fs::read(&image).unwrap();
    let error = BlockEnd::target(&image, options(QCOW2)).err().unwrap();
    assert!(error.message().contains("is corrupt"), "{error}");
    assert_eq!(std::fs::read(&image).unwrap(), before);
}

#[test]
fn what_is_missing_is_said() {
    let dir = Dir::new();
    let gone = dir.path("gone");
    let error = BlockEnd::source(&gone, QCOW2, false).err().unwrap();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    let same = dir.qcow2("a.qcow2", 4 * MIB, &[]);
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_rblocksync"))
        .args(args![
            "--source-format",
            "qcow2",
            "--target-format",
            "qcow2",
            &same,
            &same
        ])
        .output()
        .unwrap();
    assert!(!out.status.success(), "{out:?}");
}
