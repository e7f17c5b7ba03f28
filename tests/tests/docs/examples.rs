//! The job files that the packages have as examples: each names all that a job can say.
#![allow(clippy::unwrap_used)]

use rblocksync::verbs::jobs::{JobKind, JobsDir, Selection};
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[test]
fn the_example_of_pvesync_has_every_field_and_is_a_job() {
    let text = include_str!("../../../packaging/examples/nightly.toml");
    has_every_field_and_is_a_job::<pvesync::fleet::SelectionArgs>(text, &pvesync::fleet::JOBS);
}

#[test]
fn the_example_of_virt_blocksync_has_every_field_and_is_a_job() {
    let text = include_str!("../../../packaging/examples/virt-blocksync/nightly.toml");
    has_every_field_and_is_a_job::<virt_blocksync::fleet::SelectionArgs>(
        text,
        &virt_blocksync::fleet::JOBS,
    );
}

/// As it is, and with all that is in it as a comment, but the second `to`.
fn has_every_field_and_is_a_job<S: Selection>(text: &str, kind: &'static JobKind) {
    let dir = tempfile::tempdir().unwrap();
    let etc = dir.path().join("etc").join(kind.program.name);
    fs::create_dir_all(etc.join("jobs.d")).unwrap();
    for dir in [&etc, &etc.join("jobs.d")] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let jobs = JobsDir::<S>::new(dir.path(), kind);
    let put = |name: &str, text: &str| {
        let path = jobs.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    };
    put("example", text);
    jobs.load("example").unwrap();
    let all: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("# to ="))
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.contains(" = ") || rest.starts_with('[') => rest,
            _ => line,
        })
        .collect();
    put("all", &all.join("\n"));
    jobs.load("all").unwrap();
    let keys = kind.keys();
    let fields = S::FIELDS.iter().copied();
    for key in keys.iter().map(String::as_str).chain(fields) {
        let sets =
            |line: &&str| line.starts_with(&format!("{key} =")) || **line == format!("[{key}]");
        assert!(all.iter().any(sets), "the example has no {key}");
    }
}
