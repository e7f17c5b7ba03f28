//! Alerts and the board speak of metrics that there are: a rule on a name that nobody writes never fires.
#![allow(clippy::unwrap_used)]

use rblocksync::verbs::metric_names;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn packaged(path: &str) -> PathBuf {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    top.join("packaging").join(path)
}

/// The words of a text that look like one of our metrics.
fn names_in(text: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c: char| !is_word(c))
        .filter(|word| word.starts_with("rblocksync_"))
        .map(str::to_owned)
        .collect()
}

fn check_names(found: &BTreeSet<String>) {
    let known = metric_names();
    for name in found {
        assert!(known.contains(name), "nobody writes {name}");
    }
}

#[test]
fn rules_are_about_metrics_that_are_written() {
    let text = std::fs::read_to_string(packaged("prometheus/rblocksync.rules.yml")).unwrap();
    let rules: serde_json::Value = serde_norway::from_str(&text).unwrap();
    let mut found = BTreeSet::new();
    let mut alerts = BTreeSet::new();
    for group in rules["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            let names = names_in(rule["expr"].as_str().unwrap());
            assert!(!names.is_empty(), "{rule}");
            found.extend(names);
            let alert = rule["alert"].as_str().unwrap();
            assert!(alerts.insert(alert.to_owned()), "{alert} is there twice");
            for key in ["summary", "description"] {
                let text = rule["annotations"][key].as_str().unwrap();
                assert!(text.matches("{{").count() == text.matches("}}").count());
            }
            assert!(["warning", "critical"].contains(&rule["labels"]["severity"].as_str().unwrap()));
        }
    }
    check_names(&found);
    // Each of these is an alert of its own.
    for name in [
        "last_generation_timestamp_seconds",
        "last_run_failed",
        "rpo_seconds",
        "status_timestamp_seconds",
    ] {
        assert!(found.contains(&format!("rblocksync_{name}")), "{name}");
    }
}

/// Prometheus' own check, where it is installed: it knows the expressions' grammar. `make deps` does not install it.
#[test]
fn promtool_accepts_the_rules() {
    let rules = packaged("prometheus/rblocksync.rules.yml");
    let checked = Command::new("promtool")
        .args(["check", "rules"])
        .arg(rules)
        .output();
    match checked {
        Ok(out) => assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        ),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            println!("not checked: promtool is not installed (packaging/README.md)");
        }
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn the_board_is_about_metrics_that_are_written() {
    let text = std::fs::read_to_string(packaged("grafana/rblocksync.json")).unwrap();
    let board: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut found = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in board["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()));
        for target in panel["targets"].as_array().unwrap() {
            found.extend(names_in(target["expr"].as_str().unwrap()));
        }
    }
    for variable in board["templating"]["list"].as_array().unwrap() {
        found.extend(names_in(variable["query"].as_str().unwrap()));
    }
    check_names(&found);
    // All of them are shown.
    assert_eq!(found.len(), metric_names().len());
}

/// A unit that is ordered against nothing, or waits longer than systemd lets it, keeps nothing off.
#[test]
fn the_boot_check_comes_before_guests_and_ends_in_time() {
    check_boot_unit(
        "pvesync",
        &["pve-guests.service"],
        "pve-guests.service",
        &["network-online.target", "pve-cluster.service"],
    );
    check_boot_unit(
        "virt-blocksync",
        &["libvirtd.service", "virtqemud.service"],
        "multi-user.target",
        &["network-online.target"],
    );
}

fn check_boot_unit(program: &str, before: &[&str], wanted_by: &str, after: &[&str]) {
    let unit = format!("{program}-boot.service");
    let text = std::fs::read_to_string(packaged(&format!("systemd/{unit}"))).unwrap();
    let value = |key: &str| -> Vec<&str> {
        let mut values = text
            .lines()
            .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        values.next().unwrap_or_default().split(' ').collect()
    };
    for later in before {
        assert!(value("Before").contains(later));
    }
    assert_eq!(value("WantedBy"), [wanted_by]);
    for earlier in after {
        assert!(value("After").contains(earlier));
    }
    assert_eq!(value("Type"), ["oneshot"]);
    let limit: u64 = value("TimeoutStartSec")[0].parse().unwrap();
    assert!(
        limit > 60,
        "it asks for 30 s, and has something to do afterwards"
    );
    // systemd's own opinion of it, with a program that is there.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(&unit);
    std::fs::write(
        &path,
        text.replace(&format!("/usr/bin/{program}"), "/bin/true"),
    )
    .unwrap();
    let verified = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=one"])
        .arg(&path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && said.is_empty(), "{said}");
}
