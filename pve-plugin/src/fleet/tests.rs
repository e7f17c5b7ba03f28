use super::*;
use rblocksync::verbs::jobs::JobsDir;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// The packaged example, as it is, and with all that is in it as a comment, but the second `to`.
#[test]
fn the_example_has_every_field_and_is_a_job() {
    let dir = tempfile::tempdir().unwrap();
    let etc = dir.path().join("etc").join(PROGRAM);
    fs::create_dir_all(etc.join("jobs.d")).unwrap();
    for dir in [&etc, &etc.join("jobs.d")] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let jobs = JobsDir::<SelectionArgs>::new(dir.path(), &JOBS);
    let text = include_str!("../../../packaging/examples/nightly.toml");
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
    let keys = JOBS.keys();
    let fields = SelectionArgs::FIELDS.iter().copied();
    for key in keys.iter().map(String::as_str).chain(fields) {
        let sets =
            |line: &&str| line.starts_with(&format!("{key} =")) || **line == format!("[{key}]");
        assert!(all.iter().any(sets), "the example has no {key}");
    }
}
