//! The table of attacks names tests that there are.

use std::fs;
use std::path::Path;

pub fn each_attack_has_its_test() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(top.join("docs/security.md")).unwrap();
    let (_, table) = text.split_once("| attack |").unwrap();
    let rows: Vec<&str> = table.lines().filter(|l| l.starts_with("| ")).collect();
    assert!(rows.len() > 30, "{}", rows.len());
    for row in rows {
        let words: Vec<&str> = row.rsplit('|').nth(1).unwrap().split('`').collect();
        let [_, file, _, name, _] = words.as_slice() else {
            panic!("no file and test in: {row}");
        };
        let source = fs::read_to_string(top.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        let head = format!("fn {name}(");
        let (before, _) = source
            .split_once(&head)
            .unwrap_or_else(|| panic!("{file} has no {name}"));
        // The trials of a program of its own are plain functions, and so are its modules'.
        let of_its_own = ["/restricted_agent/", "/pvesync_roles/"];
        let of_its_own = of_its_own.iter().any(|dir| file.contains(dir));
        let tail: String = before.chars().rev().take(80).collect();
        let is_test = tail.chars().rev().collect::<String>().contains("#[test]");
        assert!(is_test || of_its_own, "{name} in {file} is no test");
    }
}
