//! The programs under test.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::process::ExitCode;
use std::sync::OnceLock;

/// The `rblocksync` to test: the one in `LAB_BINARIES`, as `make test` sets it, or one that is built now,
/// with the profile of the tests.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| found("rblocksync"))
}

/// The `pvesync` to test, found in the same way.
pub fn pvesync() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| found("pvesync"))
}

/// The `virt-blocksync` to test: what `VIRT_BLOCKSYNC` names, or one that is built now. It is never static, as libvirt's
/// library is not.
pub fn virt_blocksync() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("VIRT_BLOCKSYNC") {
        Some(path) => path.into(),
        None => build("virt-blocksync"),
    })
}

fn found(program: &str) -> PathBuf {
    let path = match std::env::var_os("LAB_BINARIES") {
        Some(dir) => PathBuf::from(dir).join(program),
        None => build(program),
    };
    assert!(path.exists(), "there is no {}", path.display());
    path
}

/// Builds it beside the running test, `TARGET/PROFILE/deps/TEST`. Program and package have one name.
fn build(program: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let profile_dir = test.ancestors().nth(2).expect("TARGET/PROFILE");
    let target_dir = profile_dir.parent().expect("TARGET");
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--locked", "-p", program])
        .args(["--bin", program, "--profile", profile])
        .arg("--target-dir")
        .arg(target_dir)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo");
    assert!(built.success(), "{program} does not build");
    profile_dir.join(program)
}

/// Of a test program that is a front end as well: what it is asked for as that, in the words of its command line.
pub fn asked_as_front_end(
    front_end: fn(&str, Vec<OsString>) -> Option<ExitCode>,
) -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    let word = args.next()?.into_string().ok()?;
    front_end(&word, args.collect())
}
