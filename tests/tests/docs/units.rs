//! The units of systemd, held against systemd: without a word that it does not know, and as confined as they were.

use super::{fail_with, root};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Most that `systemd-analyze security` may say of each, in tenths: what it reaches now, and a little for the versions of it.
const EXPOSED_MAX: [(&str, u32); 9] = [
    ("pvesync-boot.service", 70),
    ("pvesync-job@.service", 70),
    ("pvesync-metrics.service", 50),
    ("pvesync-notify@.service", 90),
    ("virt-blocksync-boot.service", 55),
    ("virt-blocksync-job@.service", 70),
    ("virt-blocksync-metrics.service", 50),
    ("virt-blocksync-notify@.service", 90),
    ("virt-blocksync-work.service", 45),
];

/// `None`: there is none here.
fn analyze(words: &[&str], file: &Path) -> Option<Output> {
    Command::new("systemd-analyze")
        .args(words)
        .arg(file)
        .output()
        .ok()
}

#[test]
fn systemd_takes_each_unit_and_finds_it_confined() {
    // Their programs need not be installed here.
    let dir = tempfile::tempdir().expect("a directory");
    let mut names = Vec::new();
    for entry in fs::read_dir(root().join("packaging/systemd")).expect("units") {
        let path = entry.expect("units").path();
        let name = path.file_name().and_then(|n| n.to_str()).expect("a name");
        let text = fs::read_to_string(&path).expect("a unit");
        let text = ["pvesync", "virt-blocksync"]
            .iter()
            .fold(text, |text, program| {
                text.replace(&format!("=/usr/bin/{program} "), "=/bin/true ")
            });
        fs::write(dir.path().join(name), text).expect("a unit");
        names.push(name.to_owned());
    }
    let mut mistakes = Vec::new();
    for name in &names {
        let verify = ["verify", "--man=no", "--recursive-errors=no"];
        let Some(done) = analyze(&verify, &dir.path().join(name)) else {
            println!("systemd-analyze is not here: the units are not looked at");
            return;
        };
        if !done.status.success() {
            mistakes.push(String::from_utf8_lossy(&done.stderr).into_owned());
        }
        if !name.ends_with(".service") {
            continue;
        }
        let limit = EXPOSED_MAX.iter().find(|(unit, _)| unit == name);
        let (_, limit) = limit.unwrap_or_else(|| panic!("{name} has no limit"));
        let threshold = format!("--threshold={limit}");
        let security = ["security", "--offline=true", "--no-pager", &threshold];
        let done = analyze(&security, &dir.path().join(name)).expect("it ran before");
        if !done.status.success() {
            let text = [done.stdout, done.stderr].concat();
            let text = String::from_utf8_lossy(&text);
            mistakes.push(format!("{name}: {}", text.lines().last().unwrap_or("")));
        }
    }
    fail_with(&mistakes);
}
