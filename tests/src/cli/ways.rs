//! The four ways to sync two paths: here, to there, from there, and over there.

use super::{binary, sparse_image, Rblocksync, Untouched, MIB};
use crate::sshd::{eventually, processes, Sshd};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// Directory, source and target of 8 MiB each, different.
pub fn pair() -> (TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let src = sparse_image(dir.path().join("src"), 8 * MIB, &[(0, 8)], 1);
    let dst = sparse_image(dir.path().join("dst"), 8 * MIB, &[(0, 8)], 2);
    (dir, src, dst)
}

/// A server on whose PATH the program is.
pub fn server() -> Sshd {
    let sshd = Sshd::start();
    std::os::unix::fs::symlink(binary(), sshd.bin().join("rblocksync")).expect("a link");
    sshd
}

/// `HOST:PATH`.
pub fn on(host: &str, path: impl AsRef<Path>) -> OsString {
    let mut text = OsString::from(format!("{host}:"));
    text.push(path.as_ref());
    text
}

/// The four ways to sync two paths, with a server for those that need one.
pub fn all_ways(src: &Path, dst: &Path) -> [(OsString, OsString); 4] {
    let (near_src, near_dst) = (src.as_os_str().to_owned(), dst.as_os_str().to_owned());
    let (far_src, far_dst) = (on("h1", src), on("h2", dst));
    [
        (near_src.clone(), near_dst.clone()),
        (near_src, far_dst.clone()),
        (far_src.clone(), near_dst),
        (far_src, far_dst),
    ]
}

/// Refused in all four ways, and after each all of `noted` is as before.
#[track_caller]
pub fn refused_everywhere(
    sshd: &Sshd,
    (src, dst): (&Path, &Path),
    options: &str,
    code: i32,
    words: &[&str],
    noted: &[&Path],
) {
    let untouched = Untouched::note(noted);
    for (from, to) in all_ways(src, dst) {
        let run = Rblocksync::sync(from, to).with(options).over(sshd).run();
        assert!(run.took < Duration::from_secs(20), "{run:?}");
        run.refused(code, words);
        untouched.check();
    }
}

/// Processes of ours that a server's host runs: agents, by what it has put into their environment.
pub fn agents(sshd: &Sshd) -> Vec<u32> {
    started(sshd, |args| {
        args.ends_with(" agent ") || args.contains(" agent --lanes ")
    })
}

/// The same for those that have joined an agent as one of its lanes.
pub fn lanes(sshd: &Sshd) -> Vec<u32> {
    started(sshd, |args| args.contains(" agent --join "))
}

/// Fails unless all agents end soon, and all connections close.
#[track_caller]
pub fn nobody_is_left(sshd: &Sshd) {
    eventually("all agents have ended", || {
        agents(sshd).is_empty() && lanes(sshd).is_empty()
    });
    eventually("all connections are closed", || {
        connections(sshd).is_empty()
    });
}

fn started(sshd: &Sshd, as_what: impl Fn(&str) -> bool) -> Vec<u32> {
    let found = started_with(&sshd.cache(), as_what);
    found.into_iter().map(|(pid, _)| pid).collect()
}

/// Processes with this path in their environment, with their arguments.
pub fn started_with(mark: &Path, as_what: impl Fn(&str) -> bool) -> Vec<(u32, String)> {
    let mark = mark.as_os_str().as_encoded_bytes();
    let ours = |pid: &u32| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.windows(mark.len()).any(|part| part == mark)
    };
    let all = processes().into_iter().map(|(pid, p)| (pid, p.args));
    all.filter(|(pid, args)| as_what(args) && ours(pid))
        .collect()
}

/// The ssh processes that connect to a server.
pub fn connections(sshd: &Sshd) -> Vec<u32> {
    let config = sshd.client_config().display().to_string();
    let all = processes();
    let ours = all
        .iter()
        .filter(|(_, p)| p.name == "ssh" && p.args.contains(&config));
    ours.map(|(pid, _)| *pid).collect()
}
