//! Changes of roles on the target's side, with a hypervisor that is a folder: a replica becomes the VM once and for all,
//! not while its source lives, and a test of it leaves nothing. Whatever is killed in between is finished by running it
//! again.
#![allow(clippy::unwrap_used)]

mod boot;
mod failover;
mod folder;
mod heads;
mod takeover;
mod trial;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

/// What the child does, and in which folder.
const TASK: &str = "ROLES_TEST_TASK";
const DIR: &str = "ROLES_TEST_DIR";

/// Does a task in a process of its own that dies at this point; false if it never came there.
fn dies_at(point: &str, task: &str, dir: &Path) -> bool {
    let ended = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "child", "--nocapture"])
        .env("RBLOCKSYNC_CRASH_AT", point)
        .env(TASK, task)
        .env(DIR, dir)
        .output()
        .unwrap();
    match ended.status.signal() {
        Some(9) => true,
        None if ended.status.success() => false,
        _ => panic!("{task} at {point}: {ended:?}"),
    }
}

/// Not a test, but what others kill.
#[test]
#[ignore]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let world = folder::World::at(Path::new(&dir));
    match std::env::var(TASK).unwrap().as_str() {
        "boot" => boot::task(&world),
        "take-over" => takeover::task(&world),
        "failover" => failover::task(&world),
        "trial" => trial::task(&world),
        other => panic!("{other}"),
    }
}
