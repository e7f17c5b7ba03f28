//! Requests that must be refused: a clear error, the documented exit code, and nothing changed.

use super::*;
use std::os::unix::fs::symlink;

/// Runs, and checks that `dst` holds what it held.
fn unchanged(dst: &Path, args: &[impl AsRef<OsStr>]) -> Run {
    let before = fs::read(dst).unwrap();
    let result = run(args);
    assert_eq!(
        fs::read(dst).unwrap(),
        before,
        "{} was changed",
        dst.display()
    );
    result
}

#[test]
fn what_is_missing_is_named() {
    let w = World::new();
    let src = w.image("src.img", MIB);
    let (none, dst) = (w.path("none.img"), w.path("dst.img"));
    run(&[&none, &dst]).fails(1, &["none.img", "No such file"]);
    run(&[&src, &dst]).fails(1, &["dst.img does not exist", "--truncate"]);
    assert!(!dst.exists());
    let config = w.config();
    run(&[&config, &w.remote(&none), dst.to_str().unwrap()])
        .fails(1, &["none.img", "No such file"]);
    run(&[
        "--truncate".as_ref(),
        src.as_os_str(),
        w.path("no/dir.img").as_os_str(),
    ])
    .fails(1, &["No such file"]);
    run(&["only-one"]).fails(2, &["DST"]);
    run(&["--block-size=0".as_ref(), src.as_os_str(), dst.as_os_str()]).fails(2, &["block-size"]);
}

#[test]
fn source_and_destination_must_not_be_the_same() {
    let w = World::new();
    let src = w.image("src.img", MIB);
    let (hard, soft) = (w.path("hard.img"), w.path("soft.img"));
    fs::hard_link(&src, &hard).unwrap();
    symlink(&src, &soft).unwrap();
    for dst in [&src, &hard, &soft] {
        unchanged(&src, &[&src, dst]).fails(2, &["are the same"]);
    }
    let config = w.config();
    unchanged(
        &src,
        &[config.as_str(), src.to_str().unwrap(), &w.remote(&hard)],
    )
    .fails(2, &["are the same"]);
}

#[test]
fn different_sizes_are_refused_until_told_what_to_do() {
    let w = World::new();
    let (src, dst) = (w.image("src.img", 2 * MIB), w.image("dst.img", MIB));
    unchanged(&dst, &[&src, &dst]).fails(3, &["2097152", "1048576", "--truncate", "--ignore-size"]);
    let device = Loop::over(&dst, &[]);
    unchanged(
        &dst,
        &["--truncate".as_ref(), src.as_os_str(), device.0.as_os_str()],
    )
    .fails(3, &["sizes differ", "device"]);
}

#[test]
fn neither_file_nor_device_is_refused() {
    let w = World::new();
    let src = w.image("src.img", MIB);
    let fifo = w.path("fifo");
    done(Command::new("mkfifo").arg(&fifo));
    for dst in [Path::new("/dev/null"), &fifo] {
        run(&[&src, dst]).fails(2, &["neither a file nor a block device"]);
    }
    run(&[src.as_path(), w.dir.path()]).fails(2, &["is a directory"]);
    run(&[w.dir.path(), src.as_path()]).fails(2, &["is a directory"]);
}

#[test]
fn a_local_name_with_a_colon_is_not_taken_for_a_host() {
    let w = World::new();
    let src = w.image("vm:1.img", MIB);
    let mut command = command(&["vm:1.img", "copy.img"]);
    let result: Run = command.current_dir(w.dir.path()).output().unwrap().into();
    result.fails(2, &["vm:1.img", "./NAME"]);
    let mut command = super::command(&["--truncate", "./vm:1.img", "copy.img"]);
    let result: Run = command.current_dir(w.dir.path()).output().unwrap().into();
    result.ok();
    same(&src, &w.path("copy.img"));
}

#[test]
fn what_others_use_is_left_alone() {
    let w = World::new();
    let (src, dst) = (w.image("src.img", 16 * MIB), w.image("dst.img", 16 * MIB));
    let looped = Loop::over(&dst, &[]);
    unchanged(&dst, &[&src, &dst]).fails(3, &["in use", "loop"]);
    drop(looped);
    let mount = Mount::new(&w, "mounted", 16 * MIB);
    run(&[src.as_path(), &mount.device.0]).fails(3, &["in use", "mounted"]);
    let locked = File::options().read(true).write(true).open(&dst).unwrap();
    rustix::fs::fcntl_lock(
        &locked,
        rustix::fs::FlockOperation::NonBlockingLockExclusive,
    )
    .unwrap();
    unchanged_but_open(&src, &dst);
}

/// As QEMU does, this process holds record locks on the destination; it must not open it again.
fn unchanged_but_open(src: &Path, dst: &Path) {
    let refused = run(&[src, dst]);
    refused.fails(3, &["in use", "QEMU"]);
}

#[test]
fn a_full_or_read_only_destination_is_an_error() {
    let w = World::new();
    let src = w.path("src.img");
    fs::write(&src, vec![0x55; 24 * MIB as usize]).unwrap();
    let mount = Mount::new(&w, "small", 16 * MIB);
    let dst = mount.at.join("dst.img");
    run(&["--truncate".as_ref(), src.as_os_str(), dst.as_os_str()]).fails(1, &["No space left"]);
    assert!(!dst.exists(), "half a file must not appear under its name");
    done(
        Command::new("mount")
            .args(["-o", "remount,ro"])
            .arg(&mount.at),
    );
    run(&["--truncate".as_ref(), src.as_os_str(), dst.as_os_str()]).fails(1, &["Read-only"]);
    let back = w.image("ro.img", 24 * MIB);
    let device = Loop::over(&back, &["--read-only"]);
    unchanged(&back, &[src.as_path(), &device.0]).fails(1, &[&device.0.to_string_lossy()]);
}

#[test]
fn a_host_that_cannot_be_trusted_or_reached_is_named() {
    let mut w = World::new();
    let src = w.image("src.img", MIB);
    let dst = w.image("dst.img", MIB);
    let config = w.config();
    w.sshd.change_host_key();
    unchanged(
        &dst,
        &[config.as_str(), src.to_str().unwrap(), &w.remote(&dst)],
    )
    .fails(3, &["host key"]);
    w.sshd.stop();
    unchanged(
        &dst,
        &[config.as_str(), src.to_str().unwrap(), &w.remote(&dst)],
    )
    .fails(1, &["refused"]);
    unchanged(
        &dst,
        &["--", src.to_str().unwrap(), "-oProxyCommand=touch PWNED:/x"],
    )
    .fails(2, &["ProxyCommand"]);
}
