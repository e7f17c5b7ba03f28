//! The library's LVM, thin-pool and snapshot code on real thin pools: this program copies itself into a
//! guest of the lab and runs its tests there.

#![allow(clippy::unwrap_used)]

mod mapping;
mod media;
mod moments;
mod volumes;

use rblocksync::lvm::{LvId, OwnerTag};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;
use tests::lab::{quote, suite, Error, Lab, Options, Result};
use uuid::Uuid;

/// Names the test to run, inside a guest.
const INSIDE: &str = "LVM_LAB_INSIDE";
/// Where the program is in the guest.
const PROGRAM: &str = "/usr/local/bin/lvm_lab";

/// A test as the suite sees it, which runs the one of the same name inside.
macro_rules! inside {
    ($($module:ident::$name:ident),+ $(,)?) => {
        fn inside(name: &str) -> Option<fn()> {
            match name {
                $(stringify!($name) => Some($module::$name),)+
                _ => None,
            }
        }

        const TESTS: &[(&str, suite::Test)] = &[
            $((stringify!($name), |lab| run_inside(lab, stringify!($name))),)+
        ];
    };
}

inside! {
    volumes::the_life_of_a_volume,
    volumes::a_snapshot_that_is_active_at_once_is_known_without_a_look,
    volumes::strangers_and_open_volumes_are_left_alone,
    volumes::volumes_are_found_by_any_path,
    volumes::pools_tell_how_full_they_are,
    volumes::a_full_pool_is_told_as_such,
    volumes::a_sync_does_not_fill_the_pool,
    mapping::what_is_mapped_is_what_was_written,
    mapping::a_metadata_snapshot_of_others_is_respected,
    mapping::a_metadata_snapshot_a_killed_run_left_is_released,
    media::a_medium_that_cannot_be_read_is_told_by_its_place,
    media::a_medium_that_drops_writes_is_found_by_verify,
    moments::thin_volumes_of_a_running_vm,
    moments::a_thin_volume_and_a_file_of_a_running_vm,
    moments::a_thick_volume_is_kept_by_qemu,
    moments::a_stopped_vm,
    moments::slow_storage_does_not_hold_the_guest,
    moments::a_killed_run_does_not_hold_the_guest_and_is_swept,
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|a| a == "watchdog") {
        let code = rblocksync::snapshot::watchdog::main_from_args(args);
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    match std::env::var(INSIDE) {
        Ok(name) if name == moments::VICTIM => moments::victim(),
        Ok(name) => inside(&name).expect("a test of this name")(),
        Err(_) => return suite::run(Options::default(), TESTS),
    }
    ExitCode::SUCCESS
}

fn run_inside(lab: &Lab, name: &str) -> Result<()> {
    static COPIED: OnceLock<()> = OnceLock::new();
    let a = lab.a();
    if COPIED.get().is_none() {
        let me = std::env::current_exe()
            .and_then(std::fs::read)
            .expect("this program");
        a.write_file(PROGRAM, me)?;
        a.run_ok(&format!("chmod 755 {}", quote(PROGRAM)))?;
        let _ = COPIED.set(());
    }
    let done = a.run(&format!("{INSIDE}={name} RUST_BACKTRACE=0 {PROGRAM}"))?;
    print!("{}", done.stdout);
    if done.success() {
        return Ok(());
    }
    Err(Error::new(format!(
        "inside the guest: {}",
        done.stderr.trim()
    )))
}

/// Runs a script in the guest we are in.
fn sh(script: &str) -> String {
    let done = std::process::Command::new("bash")
        .args(["-ec", script])
        .output()
        .expect("bash");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{script}: {said}");
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

fn lv(name: &str) -> LvId {
    LvId::new("pve", name).expect("a good name")
}

fn pool() -> LvId {
    lv("data")
}

fn owner() -> OwnerTag {
    OwnerTag::new(Uuid::from_u128(7))
}

fn path(text: &str) -> PathBuf {
    PathBuf::from(text)
}
