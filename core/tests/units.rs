//! The units that are packaged: systemd understands all of them, and none gets back what was taken from it.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Each service, and the most that systemd may find exposed, in tenths of its own scale from 0 to 10.
const EXPOSED_MAX: [(&str, u32); 7] = [
    ("pvesync-boot.service", 67),
    ("pvesync-job@.service", 67),
    ("pvesync-metrics.service", 48),
    ("pvesync-notify@.service", 85),
    ("virt-blocksync-job@.service", 67),
    ("virt-blocksync-notify@.service", 85),
    ("virt-blocksync-work.service", 48),
];

/// The units, with a program that is here in the place of ours.
fn copies(dir: &Path) -> Vec<PathBuf> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut copies = Vec::new();
    for entry in std::fs::read_dir(top.join("packaging/systemd")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text
            .replace("/usr/bin/pvesync", "/bin/true")
            .replace("/usr/bin/virt-blocksync", "/bin/true")
            // Manuals need not be installed here.
            .replace("Documentation=", "#");
        let copy = dir.join(path.file_name().unwrap());
        std::fs::write(&copy, text).unwrap();
        copies.push(copy);
    }
    copies
}

/// `None` where there is no systemd.
fn analyze(args: &[&str], path: &Path) -> Option<Output> {
    let run = Command::new("systemd-analyze")
        .args(args)
        .arg(path)
        .output();
    match run {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            println!("not checked: systemd-analyze is not installed");
            None
        }
        run => Some(run.unwrap()),
    }
}

#[test]
fn systemd_understands_the_units() {
    let dir = tempfile::tempdir().unwrap();
    for path in copies(dir.path()) {
        let Some(run) = analyze(&["verify", "--man=no", "--recursive-errors=no"], &path) else {
            return;
        };
        let said = String::from_utf8_lossy(&run.stderr);
        let name = path.file_stem().unwrap().to_str().unwrap();
        let about = said.lines().filter(|line| line.contains(name));
        let about: Vec<&str> = about.collect();
        assert!(about.is_empty(), "{about:#?}");
    }
}

#[test]
fn what_was_taken_from_services_stays_so() {
    let dir = tempfile::tempdir().unwrap();
    let services = copies(dir.path()).into_iter();
    let services: Vec<PathBuf> = services
        .filter(|path| path.extension().is_some_and(|e| e == "service"))
        .collect();
    assert!(services.len() >= EXPOSED_MAX.len());
    for path in services {
        let name = path.file_name().unwrap().to_str().unwrap();
        // Another one has to be no worse than the worst.
        let known = EXPOSED_MAX.iter().find(|(known, _)| *known == name);
        let most = format!("--threshold={}", known.map_or(96, |(_, most)| *most));
        let args = ["security", "--offline=true", "--no-pager", &most];
        let Some(run) = analyze(&args, &path) else {
            return;
        };
        let said = String::from_utf8_lossy(&run.stdout);
        let last = said.lines().last().unwrap_or_default();
        assert!(run.status.success(), "{name}: {last}");
    }
}
